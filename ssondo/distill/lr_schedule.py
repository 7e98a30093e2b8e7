"""Learning-rate schedules: the factor by which the peak learning rate is multiplied in each step."""

import math
from collections.abc import Callable
from typing import Any

from ssondo.errors import SsondoError
from ssondo.system.registry import check_options, parameters_of, unknown_name


def _decay(epoch: float, decay_start_epoch: float, decay_epochs: float, final_lr_fraction: float) -> float:
    """1 until `decay_start_epoch`, then linear down to `final_lr_fraction`."""
    elapsed = epoch - decay_start_epoch
    progress = min(max(elapsed / decay_epochs, 0.0), 1.0) if decay_epochs else float(elapsed >= 0)
    return 1 - progress * (1 - final_lr_fraction)


def published(
    epoch: float,
    *,
    warmup_epochs: float = 8,
    decay_start_epoch: float = 80,
    decay_epochs: float = 95,
    final_lr_fraction: float = 0.01,
) -> float:
    """Published schedule: exponential warm-up, plateau, linear decay; constant within an epoch.

    The warm-up is exp(-5 (1 - max(epoch, 0.5) / warmup_epochs)^2), as in EfficientAT.

    Args:
        epoch: Elapsed epochs; the fraction is ignored.
        warmup_epochs: Length of the warm-up in epochs.
        decay_start_epoch: Epoch at which the decay starts.
        decay_epochs: Length of the decay in epochs.
        final_lr_fraction: Factor after the decay.
    """
    whole = math.floor(epoch)
    warmup = math.exp(-5 * (1 - max(whole, 0.5) / warmup_epochs) ** 2) if whole < warmup_epochs else 1.0
    return warmup * _decay(whole, decay_start_epoch, decay_epochs, final_lr_fraction)


def linear(
    epoch: float,
    *,
    warmup_epochs: float = 0.5,
    decay_start_epoch: float = 0.5,
    decay_epochs: float = 5.5,
    final_lr_fraction: float = 0.0,
) -> float:
    """Linear warm-up, plateau, linear decay; changes with every step, for trainings of a few epochs.

    Args:
        epoch: Elapsed epochs, including the fraction of the current one.
        warmup_epochs: Length of the warm-up from 0 in epochs.
        decay_start_epoch: Epoch at which the decay starts.
        decay_epochs: Length of the decay in epochs.
        final_lr_fraction: Factor after the decay.
    """
    warmup = epoch / warmup_epochs if epoch < warmup_epochs else 1.0
    return warmup * _decay(epoch, decay_start_epoch, decay_epochs, final_lr_fraction)


def constant(epoch: float) -> float:
    """Constant learning rate: the factor is always 1."""
    return 1.0


SCHEDULES: dict[str, Callable[..., float]] = {"published": published, "linear": linear, "constant": constant}


def lr_lambda(name: str, *, steps_per_epoch: int, **options: Any) -> Callable[[int], float]:
    """Return the factor of the learning rate as a function of the step.

    Args:
        name: A key of `SCHEDULES`.
        steps_per_epoch: Number of steps in one epoch.
        options: Options of the schedule, e.g. `warmup_epochs`.

    Returns:
        Function from the step, counted from 0 over all epochs, to the factor. The schedule is
        evaluated at the middle of the step, so that neither the first nor the last step has a
        factor of 0.

    Raises:
        SsondoError: If there is no such schedule or it has no such option.
    """
    if name not in SCHEDULES:
        raise SsondoError(unknown_name("schedule", name, SCHEDULES))
    schedule = SCHEDULES[name]
    check_options(f"schedule {name!r}", options, parameters_of(schedule, ignored=("epoch",)))
    return lambda step: schedule((step + 0.5) / steps_per_epoch, **options)
