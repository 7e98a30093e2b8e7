"""The section `probe`: how frozen embeddings are scored."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ssondo.config.base import Section


class Probe(Section):
    """Probes, small classifiers that are trained on frozen embeddings to score them."""

    head: Literal["linear", "mlp"] = "linear"
    """Architecture of a probe: a linear layer, or one hidden layer (mlp)."""
    hidden: int = Field(default=512, ge=1)
    """Width of the hidden layer of the head mlp."""
    learning_rates: list[Annotated[float, Field(gt=0)]] = Field(default=[3e-4, 3e-3], min_length=1)
    """Learning rates of AdamW that are compared on validation clips."""
    weight_decays: list[Annotated[float, Field(ge=0)]] = Field(default=[0.01, 1.0, 10.0], min_length=1)
    """Weight decays of AdamW that are compared on validation clips."""
    batch_sizes: list[Annotated[int, Field(ge=1)]] = Field(default=[64, 256], min_length=1)
    """Batch sizes in clips that are compared on validation clips."""
    steps: int = Field(default=3000, ge=1)
    """Maximum number of training steps. The unit is steps because an epoch of a small task has only a few steps."""
    patience: int = Field(default=400, ge=1)
    """Number of steps without a better validation result after which a probe stops; it must be at least
    validate_every."""
    validate_every: int = Field(default=50, ge=1)
    """Number of steps between two validations."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0, 1, 2, 3, 4], min_length=1)
    """Seeds of the runs. The 95 % interval of the mean is 1.96 standard deviations over the square root of their
    number."""
    protocol: Literal["standard", "published_notebook"] = "standard"
    """Evaluation protocol. published_notebook trains as the published notebook does and reports the best test score
    over 1,000 epochs; it is optimistic, serves comparisons only and is feasible only for small tasks such as
    ESC-50."""
    bootstrap: int = Field(default=0, ge=0)
    """Number of bootstrap samples of the test clips for a second confidence interval; 0 omits it."""

    @model_validator(mode="after")
    def _validates_before_it_stops(self) -> "Probe":
        if self.patience < self.validate_every:
            raise ValueError(
                f"patience is {self.patience}, below validate_every ({self.validate_every}): a probe would stop "
                "between two validations; raise patience or lower validate_every"
            )
        return self
