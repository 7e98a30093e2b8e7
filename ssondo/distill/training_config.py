"""Settings that distillation and the supervised baseline share: options of both commands."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ssondo.distill.lr_schedule import lr_lambda
from ssondo.errors import SsondoError
from ssondo.system.device import check_precision


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of the optimisation. Each of them changes the trained weights.

    Attributes:
        seed: Seed of weight initialisation, clip sampling, augmentation and dropout.
        epochs: Number of epochs.
        samples_per_epoch: Number of clips drawn in one epoch, with replacement; an incomplete last batch is dropped.
        batch_size: Number of clips in a batch, over all GPUs together.
        learning_rate: Peak learning rate of Adam.
        schedule: Learning-rate schedule: published (constant within an epoch), linear or constant.
        warmup_epochs: Length of the warm-up in epochs.
        decay_start_epoch: Epoch at which the learning rate starts to decay.
        decay_epochs: Length of the decay in epochs.
        final_lr_fraction: Learning rate after the decay, as a fraction of the peak.
        max_grad_norm: Norm to which larger gradients are clipped.
        mixup_alpha: Parameter of the Beta distribution from which mixup weights are drawn, 0.3 in the
            supervised baseline. Without it there is no mixup.
        freq_mask: Maximum width of SpecAugment's frequency mask in mel bands; 0 disables the mask.
        time_mask: Maximum width of SpecAugment's time mask in frames; 0 disables the mask.
        precision: Precision of matrix products and convolutions: auto, float32, bf16 or fp16. auto is 16 bit on
            a GPU and float32 on a CPU.
        bn_update_batches: Number of training batches on which the statistics of batch normalisation are
            recomputed before the student is evaluated or saved, which short trainings need. 0 keeps the
            running statistics.
    """

    seed: int
    epochs: int
    samples_per_epoch: int
    batch_size: int
    learning_rate: float
    schedule: str = "published"
    warmup_epochs: float = 8
    decay_start_epoch: float = 80
    decay_epochs: float = 95
    final_lr_fraction: float = 0.01
    max_grad_norm: float = 5.0
    mixup_alpha: float | None = None
    freq_mask: int = 0
    time_mask: int = 0
    precision: str = "auto"
    bn_update_batches: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "samples_per_epoch", "batch_size"):
            if getattr(self, name) < 1:
                raise SsondoError(f"{name} is {getattr(self, name)}; it must be at least 1")
        check_precision(self.precision)
        self.lr_lambda()

    @property
    def steps_per_epoch(self) -> int:
        """Number of whole batches in an epoch, at least 1."""
        return max(1, self.samples_per_epoch // self.batch_size)

    def lr_lambda(self) -> Callable[[int], float]:
        """Return the factor of the learning rate as a function of the step.

        Raises:
            SsondoError: If there is no such schedule.
        """
        return lr_lambda(
            self.schedule,
            steps_per_epoch=self.steps_per_epoch,
            warmup_epochs=self.warmup_epochs,
            decay_start_epoch=self.decay_start_epoch,
            decay_epochs=self.decay_epochs,
            final_lr_fraction=self.final_lr_fraction,
        )


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Use of the machine. None of these settings changes the trained weights beyond rounding.

    Attributes:
        device: Device that trains: auto (a GPU if there is one), cpu or cuda.
        num_workers: Number of threads per GPU that read and decode clips.
        cache_mb: Memory per GPU process for log-mels, in MB. It holds the clips that are drawn most often; the
            others are decoded each time.
        compile: Whether the student is compiled with torch.compile.
        checkpoint_minutes: Interval in minutes at which the state of the training is saved for a restart.
        validate_every: Interval in epochs at which the student is evaluated on the evaluation clips; the last
            epoch is always evaluated. It changes the history, so the workflow trains again after a change.
    """

    device: str = "auto"
    num_workers: int = 0
    cache_mb: int = 0
    compile: bool = False
    checkpoint_minutes: float = 10
    validate_every: int = 1

    def __post_init__(self) -> None:
        if self.validate_every < 1:
            raise SsondoError(f"validate_every is {self.validate_every}; it must be at least 1")


DEFAULT_RUNTIME = Runtime()


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Files that a training writes.

    Attributes:
        out: Path of the student checkpoint that is written.
        history: Path of the CSV file that is written, with one row per epoch.
        curves: Path of the PNG file that is written, with the loss and the scores over the epochs.
        events: Path of the TensorBoard file that is written; its name must contain tfevents. Without it no such
            file is written.
    """

    out: Path
    history: Path
    curves: Path
    events: Path | None = None

    def __post_init__(self) -> None:
        if self.events is not None and "tfevents" not in self.events.name:
            raise SsondoError(f"events is {self.events}; TensorBoard reads only files with tfevents in their name")
