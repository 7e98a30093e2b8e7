"""The students' jobs: distillation, the supervised baseline, untrained students."""

from typing import Any

from ssondo.config import Config
from ssondo.config.distill import LOSSES_WITHOUT
from ssondo.provenance import registered
from ssondo.workflow.input_digests import InputDigests
from ssondo.workflow.paths import Paths
from ssondo.workflow.plan.audioset import AudioSetStage
from ssondo.workflow.plan.flags import flags
from ssondo.workflow.plan.stage import Stage
from ssondo.workflow.plan.teacher import TeacherStage

# Host memory in MB that is set aside for a training on a node, and more for each of its processes: torch with its
# CUDA libraries, AudioSet's clip lists, batches in flight. One process with the default cache has 32,000.
_NODE_MB = 20_000
_PROCESS_MB = 8_000
_LEAST_MB = 32_000


class DistillStage(Stage):
    """The rules of rules/distill.smk."""

    rules = ("distill", "supervise", "initialise")

    def __init__(
        self, config: Config, paths: Paths, watch: InputDigests, audioset: AudioSetStage, teacher: TeacherStage
    ) -> None:
        super().__init__(config, paths, watch)
        self.audioset, self.teacher = audioset, teacher

    def initial_weights(self, student: str) -> list[str]:
        """The file of the weights that a student starts from; empty if it has none."""
        return self.teacher.checkpoint(f"student-{student}")

    def cluster_inputs(self, teacher: str, n_clusters: str | int) -> list[str]:
        """The clusters that distillation draws by; none for 0 clusters."""
        if not int(n_clusters):
            return []
        return [self.paths.clusters.format(teacher=teacher, n_clusters=n_clusters)]

    def label_inputs(self) -> dict[str, list[str]]:
        """What distillation needs to learn from labels as well; empty where it does not."""
        if not self.config.distill.prediction_weight:
            return {"segments": [], "classes": []}
        shards = self.audioset.shards("train")
        segments = [self.paths.segments.format(split="train", shard=shard) for shard in shards]
        return {"segments": segments, "classes": [self.paths.classes]}

    def measured_audio(self) -> list[str]:
        """The clips that an untrained student's batch norms are measured on, if they are."""
        return self.audioset.shard_paths("audio", "train") if self.config.supervise.bn_update_batches else []

    def training_machine(self) -> str:
        """How training uses the machine, as options; it is no provenance."""
        runtime = self.config.runtime
        return flags(
            num_workers=runtime.num_workers,
            cache_mb=runtime.cache_mb,
            checkpoint_minutes=runtime.checkpoint_minutes,
            compile=runtime.compile,
        )

    def training_memory_mb(self) -> int:
        """Memory of a training on each of its nodes, in MB: every process there keeps log-mels of its own."""
        runtime = self.config.runtime
        processes = max(1, runtime.gpus)
        return max(_LEAST_MB, _NODE_MB + processes * (_PROCESS_MB + runtime.cache_mb))

    def training_nodes(self) -> dict[str, int | str]:
        """Where training runs, as resources that SLURM and `ssondo.workflow.launch` read."""
        gpus, nodes = self.config.runtime.gpus, self.config.runtime.nodes
        if nodes == 1:
            return {"gpu": gpus, "nodes": 1, "gres": ""}
        # Of `gpu`, the number in the whole job, SLURM may give one node more than another.
        on_each = f"gpu:{gpus}" if gpus else ""
        return {"gpu": 0, "nodes": nodes, "gres": on_each, "mpi": "srun", "tasks": nodes, "tasks_per_gpu": 0}

    def student_spec(self, student: str) -> dict[str, Any]:
        """What the library needs to build a student."""
        found = self.config.students[student]
        settings = dict(found.settings)
        windows = {key: settings.pop(key) for key in ("add_last",) if key in settings}
        # Apart: a class of the user's may have a setting that the mapping head has, too, such as hidden or dropout.
        return {"architecture": found.architecture, "window_s": found.window_s, **windows, "backbone": settings}

    def _distill(self, teacher: str, student: str, loss: str, n_clusters: str, seed: str) -> dict[str, Any]:
        unused = {key for key, losses in LOSSES_WITHOUT.items() if loss in losses}
        if not int(n_clusters):
            unused.add("sampling")
        return {
            "student": self.student_spec(student),
            "loss": loss,
            "n_clusters": int(n_clusters),
            "seed": int(seed),
            **self.config.distill.model_dump(exclude=unused),
        }

    def _supervise(self, student: str, seed: str) -> dict[str, Any]:
        return {"student": self.student_spec(student), "seed": int(seed), **self.config.supervise.model_dump()}

    def _initialise(self, student: str, seed: str) -> dict[str, Any]:
        training = self.config.supervise
        measured = {"bn_update_batches": training.bn_update_batches, "batch_size": training.batch_size}
        return {
            "student": self.student_spec(student),
            "seed": int(seed),
            **(measured if training.bn_update_batches else {}),
        }

    def modules(self, rule: str, **wildcards: str) -> list[str]:
        """The student's module."""
        return self.student_modules(wildcards["student"])

    def student_modules(self, student: str) -> list[str]:
        """The module of a student's architecture; empty for a user's own."""
        architecture = self.config.students[student].architecture
        known = registered("ssondo.students", "ARCHITECTURES")
        return [known[architecture]] if architecture in known else []

    def content(self, rule: str, **wildcards: str) -> dict[str, str]:
        """The user's own student class."""
        return self.own_student(wildcards["student"])

    def own_student(self, student: str) -> dict[str, str]:
        """The digest of the file of a user's own student class."""
        return self.own_code(self.config.students[student].architecture)
