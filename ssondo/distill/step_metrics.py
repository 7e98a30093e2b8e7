"""Numbers of each step, on their way from the device to the log."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ssondo.distill.distributed import DistributedContext

_NO_PARTS: Mapping[str, float] = MappingProxyType({})


class Reading(NamedTuple):
    """A step's number, loss, norm of the gradient, clips, and by name the parts of the loss."""

    step: int
    loss: float
    norm: float
    clips: np.ndarray
    parts: Mapping[str, float] = _NO_PARTS


class StepMetrics:
    """Loss and its parts, gradient norm and wish to stop of each step, on their way from the device.

    A step's numbers are looked at when the next step has been launched, so that a GPU never waits for Python to ask.

    Attributes:
        stop: whether any process wished to stop at the step before the last one pushed. All
            processes see the same, and so stop after the same step.
    """

    def __init__(self, job: DistributedContext) -> None:
        self._job = job
        self._pending: tuple[int, Tensor, torch.cuda.Event | None, np.ndarray, list[str]] | None = None
        self._wish = False
        self.stop = False

    def push(
        self, step: int, loss: Tensor, parts: Mapping[str, Tensor], norm: Tensor, stop: bool, clips: np.ndarray
    ) -> Reading | None:
        """Take a step's numbers; return those of the step before."""
        before = self.flush()
        # Not at once in flush: the first process alone looks early, when it is about to save.
        self.stop, self._wish = self._wish, False
        wish = torch.tensor(float(stop), device=loss.device)
        if self._job.world_size > 1:
            dist.all_reduce(wish, dist.ReduceOp.MAX)
        numbers = torch.stack([number.detach().double() for number in (loss, norm, wish, *parts.values())])
        event = None
        if loss.device.type == "cuda":
            host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            host.copy_(numbers, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            numbers = host
        self._pending = (step, numbers, event, clips, list(parts))
        return before

    def flush(self) -> Reading | None:
        """Numbers of the step that has not been looked at yet."""
        if self._pending is None:
            return None
        step, numbers, event, clips, names = self._pending
        self._pending = None
        if event is not None:
            event.synchronize()
        loss, norm, wish, *parts = numbers.tolist()
        self._wish = wish > 0
        return Reading(step, loss, norm, clips, dict(zip(names, parts, strict=True)))

    def device_is_busy(self) -> bool:
        """Whether the device still works on the last step pushed; a CPU does not, it is what asks."""
        event = self._pending[2] if self._pending else None
        return event is not None and not event.query()
