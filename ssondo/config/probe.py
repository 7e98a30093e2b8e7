"""Downstream data sets and how frozen embeddings are scored on them: `tasks`, `probe`."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

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


class Probe(Section):
    """What is trained on frozen embeddings to score them."""

    head: Literal["linear", "mlp"] = "linear"
    """A linear layer, or one hidden layer."""
    hidden: int = Field(default=512, ge=1)
    """Units of the hidden layer."""
    learning_rates: list[Annotated[float, Field(gt=0)]] = Field(default=[3e-4, 3e-3], min_length=1)
    """Grid, chosen on validation clips."""
    weight_decays: list[Annotated[float, Field(ge=0)]] = Field(default=[0.01, 1.0, 10.0], min_length=1)
    """Grid, chosen on validation clips."""
    batch_sizes: list[Annotated[int, Field(ge=1)]] = Field(default=[64, 256], min_length=1)
    """Grid, chosen on validation clips."""
    steps: int = Field(default=3000, ge=1)
    """At most. Steps, not epochs: an epoch of a small task is a handful of them."""
    patience: int = Field(default=400, ge=1)
    """Steps without a better validation result before it stops; at least validate_every."""
    validate_every: int = Field(default=50, ge=1)
    """Steps between two looks at the validation clips."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0, 1, 2, 3, 4], min_length=1)
    """A run each; the interval is 1.96 standard deviations over the root of their number."""
    protocol: Literal["standard", "published_notebook"] = "standard"
    """published_notebook trains as the notebook does and reports the best test score over its 1,000 epochs:
    optimistic, for comparison only, and made for a task as small as ESC-50."""
    bootstrap: int = Field(default=0, ge=0)
    """Resamples of the test clips for a second interval; 0 is none."""

    @model_validator(mode="after")
    def _looks_before_it_stops(self) -> "Probe":
        if self.patience < self.validate_every:
            raise ValueError(
                f"patience is {self.patience}, below validate_every ({self.validate_every}): a probe would stop "
                "between two looks; raise patience or lower validate_every"
            )
        return self
