"""Metrics of each step on their way from the device to the log, without a wait for the device."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ssondo.distill.distributed import DistributedContext


class StepResult(NamedTuple):
    """Number and clips of a step, its loss with components by name, and the norm of its gradient before clipping."""

    step: int
    loss: float
    gradient_norm: float
    clips: np.ndarray
    components: Mapping[str, float]


class StepMetrics:
    """Delivers the metrics of each step one step late.

    The values of a step are read after the next step has been launched, so a GPU never waits for Python.

    Attributes:
        stop: Whether a process asked to stop in the step before the last one pushed. The value is the
            same in all processes, so they stop after the same step.
    """

    def __init__(self, context: DistributedContext) -> None:
        self._context = context
        self._pending: tuple[int, Tensor, torch.cuda.Event | None, np.ndarray, list[str]] | None = None
        self._stop_requested = False
        self.stop = False

    def push(
        self,
        step: int,
        loss: Tensor,
        components: Mapping[str, Tensor],
        gradient_norm: Tensor,
        stop: bool,
        clips: np.ndarray,
    ) -> StepResult | None:
        """Take the values of a step, and whether this process asks to stop; return the metrics of the step before."""
        previous = self.flush()
        # Not set in `flush`: the main process flushes before it saves a state, the others do not.
        self.stop, self._stop_requested = self._stop_requested, False
        stop_requested = torch.tensor(float(stop), device=loss.device)
        if self._context.world_size > 1:
            dist.all_reduce(stop_requested, dist.ReduceOp.MAX)
        scalars = (loss, gradient_norm, stop_requested, *components.values())
        values = torch.stack([scalar.detach().double() for scalar in scalars])
        event = None
        if loss.device.type == "cuda":
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            host.copy_(values, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            values = host
        self._pending = (step, values, event, clips, list(components))
        return previous

    def flush(self) -> StepResult | None:
        """Return the metrics of the last step, if they have not been returned yet."""
        if self._pending is None:
            return None
        step, values, event, clips, names = self._pending
        self._pending = None
        if event is not None:
            event.synchronize()
        loss, gradient_norm, stop_requested, *components = values.tolist()
        self._stop_requested = stop_requested > 0
        return StepResult(step, loss, gradient_norm, clips, dict(zip(names, components, strict=True)))

    def device_is_busy(self) -> bool:
        """Return whether a GPU is still computing the last step pushed; a CPU never is."""
        event = self._pending[2] if self._pending else None
        return event is not None and not event.query()
