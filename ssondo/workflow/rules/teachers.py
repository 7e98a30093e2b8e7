"""The jobs of rules/teachers.smk: model weights and teacher embeddings of the corpus."""

from pathlib import Path
from typing import Any

from ssondo.config import Config
from ssondo.config.teachers import Checkpoint
from ssondo.errors import SsondoError
from ssondo.provenance import registered, user_code
from ssondo.storage.weights import file_in_package
from ssondo.workflow.experiment import Experiment, Job
from ssondo.workflow.preflight import source_of


def checkpoints(config: Config) -> dict[str, Checkpoint]:
    """Return the checkpoints of teachers ("teacher-NAME") and of students' initial weights ("student-NAME")."""
    all_models = {f"teacher-{name}": teacher.checkpoint for name, teacher in config.teachers.items()}
    all_models |= {f"student-{name}": student.pretrained for name, student in config.students.items()}
    return {name: checkpoint for name, checkpoint in all_models.items() if checkpoint is not None}


def checkpoint_files(experiment: Experiment, name: str) -> list[str]:
    """Return the file of a checkpoint; empty if the model has none."""
    source = checkpoints(experiment.config).get(name)
    return [experiment.paths.checkpoint.format(checkpoint=name, file=source.file)] if source else []


def teacher_spec(config: Config, teacher: str) -> dict[str, Any]:
    """Return the arguments with which the library builds a teacher."""
    return config.teachers[teacher].model_dump(exclude={"checkpoint"}, exclude_none=True)


def teacher_modules(config: Config, teacher: str) -> list[str]:
    """Return the module that builds a teacher."""
    return [registered("ssondo.teachers", "TEACHERS")[config.teachers[teacher].kind]]


def teacher_content(experiment: Experiment, teacher: str) -> dict[str, str]:
    """Return the hashes of the modules of a user-defined teacher; empty for others."""
    return own_code(experiment.config.teachers[teacher].callable)


def own_code(dotted: str | None) -> dict[str, str]:
    """Return the hashes of the user's own "module:name" and of its imports; empty for the name of a built-in model.

    Raises:
        SsondoError: if a module is not valid Python.
    """
    source = source_of(dotted) if dotted and ":" in dotted else None
    if dotted is None or source is None:
        return {}
    try:
        return user_code(Path(source), dotted.partition(":")[0])
    except SyntaxError as error:
        raise SsondoError(f"{error.filename}: {error.msg} (line {error.lineno})") from None


def checkpoint(experiment: Experiment, checkpoint: str, file: str) -> Job:
    """Return the job that gets the weights of a model."""
    source = checkpoints(experiment.config)[checkpoint]
    section, _, name = checkpoint.partition("-")
    key = f"teachers.{name}.checkpoint" if section == "teacher" else f"students.{name}.pretrained"
    if source.path:
        # A large ONNX model keeps its weights in a second file.
        content = experiment.digests.files([source.path, f"{source.path}.data", f"{source.path}_data"])
    else:
        content = experiment.digests.by_name(_packaged_file(source.package))
    return Job(
        source.model_dump(include={"url", "path", "package"}),
        untracked={"sha256": source.sha256, "licence": source.licence, "config_key": key},
        content=content,
    )


def _packaged_file(package: str | None) -> list[str]:
    """Return the file in an installed package, which another version may replace; empty if it is not installed."""
    try:
        return [str(file_in_package(package))] if package else []
    except SsondoError:
        return []


def embed(experiment: Experiment, teacher: str, split: str, shard: str) -> Job:
    """Return the job that embeds the clips of a shard with a teacher."""
    config = experiment.config
    return Job(
        {
            "teacher": teacher_spec(config, teacher),
            "dtype": config.embed.dtype,
            "precision": config.embed.precision,
        },
        untracked={"batch_size": config.runtime.embed_batch_size},
        inputs={"checkpoint": checkpoint_files(experiment, f"teacher-{teacher}")},
        modules=teacher_modules(config, teacher),
        content=teacher_content(experiment, teacher),
    )
