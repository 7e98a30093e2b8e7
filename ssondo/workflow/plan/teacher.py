"""The teachers' jobs: weights, embeddings of the corpus."""

from typing import Any

from ssondo.config.teachers import Checkpoint
from ssondo.errors import SsondoError
from ssondo.provenance import registered
from ssondo.storage.weights import file_in_package
from ssondo.workflow.plan.flags import flags
from ssondo.workflow.plan.stage import Stage


class TeacherStage(Stage):
    """The rules of rules/teacher.smk."""

    rules = ("checkpoint", "embed")

    def checkpoints(self) -> dict[str, Checkpoint]:
        """Checkpoints by name, of teachers and of students' initial weights."""
        found = {f"teacher-{name}": teacher.checkpoint for name, teacher in self.config.teachers.items()}
        found |= {f"student-{name}": student.pretrained for name, student in self.config.students.items()}
        return {name: checkpoint for name, checkpoint in found.items() if checkpoint is not None}

    def checkpoint(self, name: str) -> list[str]:
        """The file of a checkpoint; empty if the model has none."""
        found = self.checkpoints().get(name)
        return [self.paths.checkpoint.format(checkpoint=name, file=found.file)] if found else []

    def teacher_spec(self, teacher: str) -> dict[str, Any]:
        """What the library needs to build a teacher."""
        return self.config.teachers[teacher].model_dump(exclude={"checkpoint"}, exclude_none=True)

    def _checkpoint(self, checkpoint: str, file: str) -> dict[str, Any]:
        return self.checkpoints()[checkpoint].model_dump(include={"url", "path", "package"})

    def expected(self, checkpoint: str, file: str) -> str:
        """What is known of a checkpoint, as options: it only checks, so it is no provenance."""
        found = self.checkpoints()[checkpoint]
        section, _, name = checkpoint.partition("-")
        key = f"teachers.{name}.checkpoint" if section == "teacher" else f"students.{name}.pretrained"
        return flags(sha256=found.sha256, licence=found.licence, config_key=key)

    def _embed(self, teacher: str, split: str, shard: str) -> dict[str, Any]:
        settings = self.config.embed
        return {"teacher": self.teacher_spec(teacher), "dtype": settings.dtype, "precision": settings.precision}

    def modules(self, rule: str, **wildcards: str) -> list[str]:
        """The teacher's module."""
        return self.teacher_modules(wildcards["teacher"]) if rule == "embed" else []

    def teacher_modules(self, teacher: str) -> list[str]:
        """The module that builds a teacher."""
        return [registered("ssondo.teachers", "TEACHERS")[self.config.teachers[teacher].kind]]

    def content(self, rule: str, **wildcards: str) -> dict[str, str]:
        """The user's own weights or teacher function."""
        if rule == "embed":
            return self.own_teacher(wildcards["teacher"])
        found = self.checkpoints()[wildcards["checkpoint"]]
        if found.path:
            # The weights of a large ONNX model stand in a second file.
            return self.watch.files([found.path, f"{found.path}.data", f"{found.path}_data"])
        return self.by_name(self._packaged(found.package))

    def _packaged(self, place: str | None) -> list[str]:
        """The file in an installed package, of which another version may have another one; none if it is not there."""
        try:
            return [str(file_in_package(place))] if place else []
        except SsondoError:
            return []

    def own_teacher(self, teacher: str) -> dict[str, str]:
        """The digest of the file of a user's own teacher function."""
        return self.own_code(self.config.teachers[teacher].callable)
