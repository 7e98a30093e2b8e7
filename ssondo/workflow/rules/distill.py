"""The jobs of rules/distill.smk: distilled, supervised and untrained students."""

from typing import Any

from ssondo.config import Config
from ssondo.config.signatures import option_names
from ssondo.provenance import registered
from ssondo.workflow.experiment import Experiment, Job
from ssondo.workflow.rules.teachers import checkpoint_files, own_code

# Host memory in MB of a training on each node and of each of its processes, for torch with its CUDA libraries, the clip
# lists of AudioSet and prefetched batches. One process with the default cache gets 32,000.
_NODE_MB = 20_000
_PROCESS_MB = 8_000
_MIN_MB = 32_000


def student_spec(config: Config, student: str) -> dict[str, Any]:
    """Return the arguments with which the library builds a student."""
    section = config.students[student]
    settings = dict(section.settings)
    windows = {key: settings.pop(key) for key in ("add_last",) if key in settings}
    # The settings are a separate mapping, because a user's class may have a setting with the name of one of the
    # mapping head, e.g. hidden.
    return {"architecture": section.architecture, "window_s": section.window_s, **windows, "backbone": settings}


def student_modules(config: Config, student: str) -> list[str]:
    """Return the module of a student's architecture; empty for a user-defined one."""
    architecture = config.students[student].architecture
    modules = registered("ssondo.students", "ARCHITECTURES")
    return [modules[architecture]] if architecture in modules else []


def student_content(experiment: Experiment, student: str) -> dict[str, str]:
    """Return the hashes of the modules of a user-defined student; empty for others."""
    return own_code(experiment.config.students[student].architecture)


def training_resources(config: Config) -> dict[str, int | str]:
    """Return the nodes and GPUs of a training as resources that SLURM and `ssondo launch` read."""
    gpus, nodes = config.runtime.gpus, config.runtime.nodes
    if nodes == 1:
        return {"gpu": gpus, "nodes": 1, "gres": ""}
    # SLURM may distribute `gpu`, the number of the whole job, unevenly over the nodes; gres is the number on each node.
    gres = f"gpu:{gpus}" if gpus else ""
    return {"gpu": 0, "nodes": nodes, "gres": gres, "mpi": "srun", "tasks": nodes, "tasks_per_gpu": 0}


def training_memory_mb(config: Config) -> int:
    """Return the memory of a training on each node in MB; each of its processes keeps its own log-mel cache."""
    processes = max(1, config.runtime.gpus)
    return max(_MIN_MB, _NODE_MB + processes * (_PROCESS_MB + config.runtime.cache_mb))


def _runtime_options(config: Config) -> dict[str, Any]:
    return config.runtime.model_dump(include={"num_workers", "cache_mb", "checkpoint_minutes", "compile"})


def distill(experiment: Experiment, teacher: str, student: str, loss: str, n_clusters: str, seed: str) -> Job:
    """Return the job that distils a teacher into a student."""
    config, paths = experiment.config, experiment.paths
    # A change of an option must not retrain students with a loss that does not have it.
    unused = {"temperature", "masking"} - option_names(loss)
    clusters = []
    if int(n_clusters):
        clusters = [paths.clusters.format(teacher=teacher, n_clusters=n_clusters)]
    else:
        unused.add("sampling")
    needs_labels = bool(config.distill.prediction_weight)
    segments = [paths.segments.format(split="train", shard=shard) for shard in paths.shards("train")]
    return Job(
        {
            "student": student_spec(config, student),
            "loss": loss,
            "n_clusters": int(n_clusters),
            "seed": int(seed),
            **config.distill.model_dump(exclude=unused),
        },
        untracked=_runtime_options(config),
        inputs={
            "clusters": clusters,
            "pretrained": checkpoint_files(experiment, f"student-{student}"),
            "segments": segments if needs_labels else [],
            "classes": [paths.classes] if needs_labels else [],
        },
        modules=[*student_modules(config, student), registered("ssondo.distill", "LOSSES")[loss]],
        content=student_content(experiment, student),
    )


def supervise(experiment: Experiment, student: str, seed: str) -> Job:
    """Return the job that trains a student on AudioSet's labels."""
    config = experiment.config
    return Job(
        {"student": student_spec(config, student), "seed": int(seed), **config.supervise.model_dump()},
        untracked=_runtime_options(config),
        inputs={"pretrained": checkpoint_files(experiment, f"student-{student}")},
        modules=student_modules(config, student),
        content=student_content(experiment, student),
    )


def initialise(experiment: Experiment, student: str, seed: str) -> Job:
    """Return the job that draws random weights for a student."""
    config = experiment.config
    updates_bn = bool(config.supervise.bn_update_batches)
    bn_options = config.supervise.model_dump(include={"bn_update_batches", "batch_size"}) if updates_bn else {}
    return Job(
        {"student": student_spec(config, student), "seed": int(seed), **bn_options},
        inputs={
            "audio": experiment.paths.shard_paths("audio", "train") if updates_bn else [],
            "inventory": [experiment.paths.audio_inventory.format(split="train")] if updates_bn else [],
        },
        modules=student_modules(config, student),
        content=student_content(experiment, student),
    )
