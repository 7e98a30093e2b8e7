"""The sections `distill` and `supervise`: how students are trained."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ssondo.config.base import Section
from ssondo.distill import LOSSES

# The allowed names are those of the registry; mypy cannot evaluate a computed Literal.
if TYPE_CHECKING:
    Loss = str
else:
    Loss = Literal[tuple(LOSSES)]


class Training(Section):
    """What distillation and the supervised baseline share."""

    epochs: int = Field(default=200, ge=1)
    """The published code does not say; EfficientAT, whose schedule this is, trains 200."""
    samples_per_epoch: int = Field(default=100_000, ge=1)
    """Clips drawn in an epoch, with replacement, by the sampler's probabilities."""
    batch_size: int = Field(default=120, ge=1)
    """Of the whole job, over all its GPUs. The published code does not say; EfficientAT uses 120."""
    learning_rate: float = Field(default=8e-4, gt=0)
    """Of Adam, at its peak."""
    schedule: Literal["published", "linear", "constant"] = "published"
    """Of the learning rate; linear moves with every step, for short trainings."""
    warmup_epochs: float = Field(default=8, ge=0)
    """Exponential ramp-up; linear: a straight one."""
    decay_start_epoch: float = Field(default=80, ge=0)
    """The learning rate falls linearly from here."""
    decay_epochs: float = Field(default=95, ge=0)
    """... over so many epochs ..."""
    final_lr_fraction: float = Field(default=0.01, ge=0, le=1)
    """... to this share of its peak."""
    max_grad_norm: float = Field(default=5.0, gt=0)
    """Largest norm of the gradient."""
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    """auto: 16 bit on GPUs, float32 on a CPU."""
    mixup_alpha: float | None = Field(default=None, gt=0)
    """Mixup; null is off."""
    freq_mask: int = Field(default=0, ge=0)
    """SpecAugment: widest frequency mask in mel bands; 0 is off."""
    time_mask: int = Field(default=0, ge=0)
    """SpecAugment: widest time mask in frames; 0 is off."""
    bn_update_batches: int = Field(default=0, ge=0)
    """Batches on which BatchNorm's statistics are estimated anew at the end; for short trainings. 0 is off."""
    validate_every: int = Field(default=5, ge=1)
    """Epochs between two looks at the eval clips."""


class Distill(Training):
    """Distillation from output embeddings alone."""

    prediction_weight: float = Field(default=0.0, ge=0, le=1)
    """Share of a cross-entropy on labels in the loss; 0 learns from the teacher alone."""
    center: bool = False
    """Subtract the mean teacher embedding of the training clips; for teachers that are not centred."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the losses that have one."""
    masking: Literal["correct", "published"] = "correct"
    """In contrastive losses with clusters: leave masked pairs out, or let them in as exp(0) like the published code."""
    sampling: Literal["clusters", "uniform"] = "clusters"
    """Draw evenly over clusters (Balanced Data Sampling), or over clips."""


class Supervise(Training):
    """The baseline that learns AudioSet's labels."""

    sampling: Literal["classes", "uniform"] = "classes"
    """Draw clips by the inverse frequency of their labels, or evenly."""
    mixup_alpha: float | None = Field(default=0.3, gt=0)
    """Mixup; null is off."""
