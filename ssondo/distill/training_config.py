"""The settings that every training has, distillation or not: options of both commands, in one place."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ssondo.distill.lr_schedule import lr_lambda, schedule_of
from ssondo.errors import SsondoError
from ssondo.system.device import check_precision


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a student is optimised. Everything here changes the weights that come out.

    Attributes:
        seed: of weights, draws, augmentation and dropout.
        epochs: how many.
        samples_per_epoch: clips drawn in an epoch, with replacement; whole batches only.
        batch_size: clips a step, over all GPUs.
        learning_rate: of Adam, at its peak.
        schedule: of the learning rate: published (constant within an epoch), linear, or constant.
        warmup_epochs: length of its ramp up.
        decay_start_epoch: where its ramp down begins.
        decay_epochs: length of the ramp down.
        final_lr_fraction: share of the learning rate after it.
        max_grad_norm: largest norm of the gradient.
        mixup_alpha: of the Beta distribution, 0.3 in the supervised baseline; not given, no mixup.
        freq_mask: SpecAugment, widest mask in mel bands; 0 is off.
        time_mask: SpecAugment, widest mask in frames; 0 is off.
        precision: of matrix products and convolutions: auto, float32, bf16 or fp16; auto is 16 bit on
            a GPU and float32 on a CPU.
        bn_update_batches: batches on which batch norms are measured before the student is judged or
            saved, for short trainings; 0 keeps the running statistics.
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

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch, at least one."""
        return max(1, self.samples_per_epoch // self.batch_size)

    def lr_lambda(self) -> Callable[[int], float]:
        """The factor of the learning rate at each step.

        Raises:
            SsondoError: if there is no such schedule.
        """
        schedule = schedule_of(
            self.schedule,
            warmup_epochs=self.warmup_epochs,
            decay_start_epoch=self.decay_start_epoch,
            decay_epochs=self.decay_epochs,
            final_lr_fraction=self.final_lr_fraction,
        )
        return lr_lambda(schedule, steps_per_epoch=self.steps_per_epoch)


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """How a training is run. Nothing here changes the weights beyond float error.

    Attributes:
        device: auto, cpu, cuda.
        num_workers: threads that read and decode, for each GPU.
        cache_mb: memory in MB for log-mels, for each GPU: of the clips that are drawn most often. The rest is decoded.
        compile: use torch.compile.
        checkpoint_minutes: between two checkpoints of the running training.
        validate_every: epochs between two looks at the eval clips; the last is always looked at.
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
    """The files that a training leaves.

    Attributes:
        out: the student's checkpoint.
        history: CSV with a line for each epoch.
        curves: PNG of it.
        events: TensorBoard's file of it; needs tfevents in its name.
    """

    out: Path
    history: Path
    curves: Path
    events: Path | None = None

    def __post_init__(self) -> None:
        if self.events is not None and "tfevents" not in self.events.name:
            raise SsondoError(f"events is {self.events}; TensorBoard reads only files with tfevents in their name")
