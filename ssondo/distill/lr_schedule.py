"""Learning-rate schedules: the factor of the base learning rate at each step."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from ssondo.errors import SsondoError


def _ramp_down(epoch: float, decay_start_epoch: float, decay_epochs: float, final_lr_fraction: float) -> float:
    """1 until `decay_start_epoch`, then linearly to `final_lr_fraction`."""
    passed = epoch - decay_start_epoch
    share = min(max(passed / decay_epochs, 0.0), 1.0) if decay_epochs else float(passed >= 0)
    return 1 - share * (1 - final_lr_fraction)


def published(
    epoch: float,
    *,
    warmup_epochs: float = 8,
    decay_start_epoch: float = 80,
    decay_epochs: float = 95,
    final_lr_fraction: float = 0.01,
) -> float:
    """The published schedule: exponential ramp up, plateau, linear ramp down; constant within an epoch.

    The ramp up is exp(-5 (1 - max(epoch, 0.5) / warmup_epochs)^2), EfficientAT's.

    Args:
        epoch: epochs passed; only the whole ones count.
        warmup_epochs: length of the ramp up.
        decay_start_epoch: where the ramp down begins.
        decay_epochs: its length.
        final_lr_fraction: the factor after it.
    """
    whole = math.floor(epoch)
    up = math.exp(-5 * (1 - max(whole, 0.5) / warmup_epochs) ** 2) if whole < warmup_epochs else 1.0
    return up * _ramp_down(whole, decay_start_epoch, decay_epochs, final_lr_fraction)


def linear(
    epoch: float,
    *,
    warmup_epochs: float = 0.5,
    decay_start_epoch: float = 0.5,
    decay_epochs: float = 5.5,
    final_lr_fraction: float = 0.0,
) -> float:
    """Linear ramp up, plateau, linear ramp down, step by step: for trainings of a few epochs.

    Args:
        epoch: epochs passed, with the part of the epoch that is running.
        warmup_epochs: length of the ramp up from 0.
        decay_start_epoch: where the ramp down begins.
        decay_epochs: its length.
        final_lr_fraction: the factor after it.
    """
    up = epoch / warmup_epochs if epoch < warmup_epochs else 1.0
    return up * _ramp_down(epoch, decay_start_epoch, decay_epochs, final_lr_fraction)


def constant(epoch: float) -> float:
    """No schedule: always 1."""
    return 1.0


SCHEDULES: dict[str, Callable[..., float]] = {"published": published, "linear": linear, "constant": constant}


def lr_lambda(schedule: Mapping[str, Any], *, steps_per_epoch: int) -> Callable[[int], float]:
    """The factor of the learning rate as a function of the step, counted from 0 over all epochs.

    Args:
        schedule: `{"name": ..., option: value, ...}`: a key of `SCHEDULES` ("published" if there is
            no name) and that function's options.
        steps_per_epoch: in one epoch.

    Returns:
        step -> factor, taken at the middle of the step, so that neither the first step nor the
        last has a factor of 0.

    Raises:
        SsondoError: if there is no such schedule, or it has no such option.
    """
    options = dict(schedule)
    name = options.pop("name", "published")
    if name not in SCHEDULES:
        raise SsondoError(f"schedule: {name!r} is not known; choose one of {', '.join(SCHEDULES)}")
    function = SCHEDULES[name]
    known = [key for key in inspect.signature(function).parameters if key != "epoch"]
    for key in options:
        if key not in known:
            raise SsondoError(f"schedule {name!r} has no option {key!r}; it has {', '.join(known) or 'none'}")
    return lambda step: function((step + 0.5) / steps_per_epoch, **options)


def schedule_of(
    name: str, *, warmup_epochs: float, decay_start_epoch: float, decay_epochs: float, final_lr_fraction: float
) -> dict[str, Any]:
    """A schedule in the form that `learning_rate_factor` takes; a constant one has none of the options."""
    if name == "constant":
        return {"name": name}
    return {
        "name": name,
        "warmup_epochs": warmup_epochs,
        "decay_start_epoch": decay_start_epoch,
        "decay_epochs": decay_epochs,
        "final_lr_fraction": final_lr_fraction,
    }
