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
    """Settings that distillation and the supervised baseline share."""

    epochs: int = Field(default=200, ge=1)
    """Number of epochs. The published code does not state it; EfficientAT, which has the same schedule, uses 200."""
    samples_per_epoch: int = Field(default=100_000, ge=1)
    """Number of clips drawn in one epoch, with replacement, with the probabilities of the sampler."""
    batch_size: int = Field(default=120, ge=1)
    """Number of clips in a batch, over all GPUs of a job together. The published code does not state it;
    EfficientAT uses 120."""
    learning_rate: float = Field(default=8e-4, gt=0)
    """Peak learning rate of Adam."""
    schedule: Literal["published", "linear", "constant"] = "published"
    """Learning-rate schedule. published is constant within an epoch; linear changes in every step, which suits short
    trainings; constant has neither warm-up nor decay."""
    warmup_epochs: float = Field(default=8, ge=0)
    """Length of the warm-up in epochs. It is exponential in the schedule published and linear in the schedule
    linear."""
    decay_start_epoch: float = Field(default=80, ge=0)
    """Epoch at which the learning rate starts to decay linearly."""
    decay_epochs: float = Field(default=95, ge=0)
    """Length of the decay in epochs."""
    final_lr_fraction: float = Field(default=0.01, ge=0, le=1)
    """Learning rate after the decay, as a fraction of the peak."""
    max_grad_norm: float = Field(default=5.0, gt=0)
    """Norm to which larger gradients are clipped."""
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    """Precision of matrix products and convolutions. auto is 16 bit on a GPU and float32 on a CPU."""
    mixup_alpha: float | None = Field(default=None, gt=0)
    """Parameter of the Beta distribution from which mixup weights are drawn; null disables mixup."""
    freq_mask: int = Field(default=0, ge=0)
    """Maximum width of SpecAugment's frequency mask in mel bands; 0 disables the mask."""
    time_mask: int = Field(default=0, ge=0)
    """Maximum width of SpecAugment's time mask in frames; 0 disables the mask."""
    bn_update_batches: int = Field(default=0, ge=0)
    """Number of training batches on which the statistics of batch normalisation are recomputed before a student is
    evaluated or saved, which short trainings need. 0 keeps the running statistics."""
    validate_every: int = Field(default=5, ge=1)
    """Interval in epochs at which a student is evaluated on evaluation clips; the last epoch is always evaluated."""


class Distill(Training):
    """Distillation of a teacher's output embeddings."""

    prediction_weight: float = Field(default=0.0, ge=0, le=1)
    """Weight of a binary cross-entropy on the labels; the distillation loss has the remaining weight. With 0 no
    labels are used."""
    center: bool = False
    """Whether the mean teacher embedding of the training clips is subtracted, for teachers whose embeddings are not
    centred."""
    temperature: float = Field(default=1.0, gt=0)
    """Temperature of the losses that have one."""
    masking: Literal["correct", "published"] = "correct"
    """Masking in contrastive losses with clusters: correct omits masked pairs, published includes them as exp(0) as
    in the published code."""
    sampling: Literal["clusters", "uniform"] = "clusters"
    """Sampling of training clips: clusters draws all clusters equally often (Balanced Data Sampling), uniform all
    clips."""


class Supervise(Training):
    """Training of the supervised baseline on the labels of AudioSet."""

    sampling: Literal["classes", "uniform"] = "classes"
    """Sampling of training clips: classes uses weights from the inverse frequency of their classes, uniform draws
    all clips equally often."""
    mixup_alpha: float | None = Field(default=0.3, gt=0)
    """Parameter of the Beta distribution from which mixup weights are drawn; null disables mixup."""
