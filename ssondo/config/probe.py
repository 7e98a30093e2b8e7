"""The section `probe`: how frozen embeddings are scored."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ssondo.config.base import Section


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
