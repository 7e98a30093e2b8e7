"""Learning-rate schedules: the factor by which the peak learning rate is multiplied in each step."""

import math
from collections.abc import Callable

from ssondo.errors import SsondoError
from ssondo.system.registry import unknown_name

SCHEDULES = ("published", "linear", "constant")


def lr_lambda(
    schedule: str,
    *,
    steps_per_epoch: int,
    warmup_epochs: float = 8,
    decay_start_epoch: float = 80,
    decay_epochs: float = 95,
    final_lr_fraction: float = 0.01,
) -> Callable[[int], float]:
    """Return the factor of the learning rate as a function of the step.

    Each schedule except "constant" has a warm-up, a plateau and a linear decay to `final_lr_fraction`. "linear" warms
    up linearly and changes with every step, for trainings of a few epochs. "published" is constant within an epoch
    and warms up by exp(-5 (1 - max(epoch, 0.5) / warmup_epochs)^2), as in EfficientAT.

    Args:
        schedule: One of `SCHEDULES`.
        steps_per_epoch: Number of steps in one epoch.
        warmup_epochs, decay_start_epoch, decay_epochs, final_lr_fraction: See `TrainingConfig`.

    Returns:
        Function from the step, counted from 0 over all epochs, to the factor. The schedule is evaluated at the middle
        of the step, so that neither the first nor the last step has a factor of 0.

    Raises:
        SsondoError: If there is no such schedule.
    """
    if schedule not in SCHEDULES:
        raise SsondoError(unknown_name("schedule", schedule, SCHEDULES))

    def factor(step: int) -> float:
        epoch = (step + 0.5) / steps_per_epoch
        if schedule == "constant":
            return 1.0
        if schedule == "published":
            epoch = math.floor(epoch)
        warmup = 1.0
        if epoch < warmup_epochs:
            if schedule == "linear":
                warmup = epoch / warmup_epochs
            else:
                warmup = math.exp(-5 * (1 - max(epoch, 0.5) / warmup_epochs) ** 2)
        elapsed = epoch - decay_start_epoch
        progress = min(max(elapsed / decay_epochs, 0.0), 1.0) if decay_epochs else float(elapsed >= 0)
        return warmup * (1 - progress * (1 - final_lr_fraction))

    return factor
