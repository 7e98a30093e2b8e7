"""The section `tasks`: downstream tasks and their data sets."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from ssondo.config.base import LocalPath, Section
from ssondo.tasks import READERS

# The allowed names are those of the registry; mypy cannot evaluate a computed Literal.
if TYPE_CHECKING:
    TaskKind = str
else:
    TaskKind = Literal[tuple(READERS)]


class Task(Section):
    """A downstream task: a data set with labels, on which embeddings are scored."""

    kind: TaskKind
    """Kind of the data set: the name of a built-in one, `table` (your own CSV), `pattern` (file names), or `rendered`
    (the demo)."""
    path: LocalPath | None = None
    """Path of a local copy: the folder of the data set or of its archives, or the CSV of the kind table. With null the
    archives are downloaded."""
    mirror: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """Base URL of another server that has the archives under their own names."""
    verify: bool = True
    """Whether archives are rejected whose size or checksum differs from the published one."""
    seed: int = Field(default=0, ge=0)
    """Seed of folds that are drawn and of rendered sound."""
    options: dict[str, Any] = {}
    """Further options of the kind, which docs/tasks.md lists."""

    @model_validator(mode="after")
    def _has_data(self) -> "Task":
        if self.kind in ("table", "pattern") and self.path is None:
            raise ValueError(f"kind {self.kind} needs a path: {'the CSV' if self.kind == 'table' else 'the folder'}")
        if self.kind in ("table", "pattern", "rendered") and self.mirror is not None:
            raise ValueError(f"kind {self.kind} is not downloaded, so it has no mirror")
        return self
