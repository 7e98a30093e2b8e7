"""The jobs of downstream tasks: downloads, preparation, embeddings, probes."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

from ssondo.config import Config
from ssondo.errors import SsondoError
from ssondo.probe.model_id import ModelId
from ssondo.provenance import registered
from ssondo.tasks.load_task import load_task, remotes
from ssondo.tasks.task import Remote
from ssondo.workflow.input_digests import MOST_FILES, InputDigests
from ssondo.workflow.paths import Paths
from ssondo.workflow.plan.distill import DistillStage
from ssondo.workflow.plan.flags import flags
from ssondo.workflow.plan.stage import Stage
from ssondo.workflow.plan.teacher import TeacherStage


class ProbeStage(Stage):
    """The rules of rules/probe.smk."""

    rules = ("download", "prepare_task", "embed_task", "probe")

    def __init__(
        self, config: Config, paths: Paths, watch: InputDigests, teacher: TeacherStage, distill: DistillStage
    ) -> None:
        super().__init__(config, paths, watch)
        self.teacher, self.distill = teacher, distill

    def _remotes(self, task: str) -> dict[str, Remote]:
        """The files that a task is downloaded as; none where there is a local copy or nothing to download."""
        found = self.config.tasks[task]
        if found.path is not None:
            return {}
        official = remotes(found.kind)[0]
        if found.mirror is None:
            return official
        return {name: replace(it, url=f"{found.mirror.rstrip('/')}/{name}") for name, it in official.items()}

    def archives(self, task: str) -> list[str]:
        """The downloaded files that a task is prepared from; none where there is a local copy."""
        return [self.paths.archive.format(task=task, file=name) for name in self._remotes(task)]

    def _download(self, task: str, file: str) -> dict[str, Any]:
        return {"url": self._remotes(task)[file].url}

    def published(self, task: str, file: str) -> str:
        """What is known of an archive, as options: it only checks, so it is no provenance."""
        found, remote = self.config.tasks[task], self._remotes(task)[file]
        known = {"md5": remote.md5, "size": remote.size} if found.verify else {}
        return flags(**known, licence=remotes(found.kind)[1], config_key=f"tasks.{task}.path")

    def _prepare_task(self, task: str) -> dict[str, Any]:
        return {"task": task, "spec": self.task_spec(task), "seed": self.config.tasks[task].seed}

    def task_spec(self, task: str) -> dict[str, Any]:
        """What the library needs to read a task."""
        found = self.config.tasks[task]
        folder = self.paths.archives.format(task=task) if self._remotes(task) else found.path
        path = {} if folder is None else {"path": folder}
        return {"kind": found.kind, **path, **found.options}

    def model_inputs(self, model: str) -> dict[str, list[str]]:
        """The files that embedding a task with `model` reads, by name."""
        parsed = ModelId.parse(model)
        if parsed.row_kind == "teacher":
            checkpoint = self.teacher.checkpoint(f"teacher-{parsed.teacher}")
            return {"checkpoint": checkpoint, "student": []}
        return {"checkpoint": [], "student": [self.paths.student.format(model=model)]}

    def _embed_task(self, model: str, task: str) -> dict[str, Any]:
        parsed = ModelId.parse(model)
        teacher = self.teacher.teacher_spec(parsed.teacher) if parsed.row_kind == "teacher" else None
        architecture = self.config.students[parsed.student].architecture if parsed.student else ""
        precision = self.config.embed.precision if teacher else None
        return {
            "teacher": teacher,
            "architecture": architecture if ":" in architecture else None,
            "precision": precision,
        }

    def _probe(self, model: str, task: str) -> dict[str, Any]:
        return {"model": ModelId.parse(model).__dict__, **self.config.probe.model_dump()}

    def modules(self, rule: str, **wildcards: str) -> list[str]:
        """The task's reader, or the model's module."""
        if rule == "prepare_task":
            return [registered("ssondo.tasks", "READERS")[self.config.tasks[wildcards["task"]].kind]]
        if rule != "embed_task":
            return []
        model = ModelId.parse(wildcards["model"])
        if model.student:
            return self.distill.student_modules(model.student)
        return self.teacher.teacher_modules(model.teacher)

    def content(self, rule: str, **wildcards: str) -> dict[str, str]:
        """The user's own copy of a task, or own model."""
        if rule == "prepare_task":
            return self._task_files(wildcards["task"])
        if rule != "embed_task":
            return {}
        model = ModelId.parse(wildcards["model"])
        if model.student:
            return self.distill.own_student(model.student)
        return self.teacher.own_teacher(model.teacher)

    def _task_files(self, task: str) -> dict[str, str]:
        """The files of a task; for a table, the table and the sound that it lists."""
        spec = self.config.tasks[task]
        if spec.path is None:
            return {}
        if spec.kind != "table":
            return self.watch.tree(spec.path)
        # Not all that lies beside the table: that may be the whole data folder of this workflow.
        listed: list[str] = []
        with suppress(SsondoError):  # Its job says what is wrong with a table.
            listed = [str(clip.source) for clip in load_task(task, self.task_spec(task), spec.seed).clips]
        return self.watch.files([spec.path, *(listed if len(listed) <= MOST_FILES else [])])
