"""The section `tasks`: downstream data sets."""

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
    """A downstream data set."""

    kind: TaskKind
    """Its reader: one of the seven, `table` (a CSV of yours), `pattern` (file names), or `rendered` (the demo's)."""
    path: LocalPath | None = None
    """A local copy: the folder of the data set or of its archives, for table the CSV; null downloads the archives."""
    mirror: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """Where else the archives are, under their own names; the address before those names."""
    verify: bool = True
    """Refuse archives whose size and checksum are not the published ones."""
    seed: int = Field(default=0, ge=0)
    """Of folds that are drawn and of sound that is rendered."""
    options: dict[str, Any] = {}
    """What the reader needs besides; docs/tasks.md has them."""

    @model_validator(mode="after")
    def _has_data(self) -> "Task":
        if self.kind in ("table", "pattern") and self.path is None:
            raise ValueError(f"kind {self.kind} needs a path: {'the CSV' if self.kind == 'table' else 'the folder'}")
        if self.kind in ("table", "pattern", "rendered") and self.mirror is not None:
            raise ValueError(f"kind {self.kind} is not downloaded, so it has no mirror")
        return self
