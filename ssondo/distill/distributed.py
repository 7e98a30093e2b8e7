"""Training on several processes: one process per GPU, started by torchrun.

with init_distributed("auto") as context:       # joins the processes that torchrun started, if any
    own_rows = context.local_slice(rows)        # this process's slice of a batch
    outputs = context.gather(student(own_rows))
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssondo.system.allocator import disable_malloc_trim
from ssondo.system.device import resolve_device

T = TypeVar("T")


@dataclass(frozen=True)
class DistributedContext:
    """Device and rank of this process, and the exchange with the other processes of the training."""

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and log messages."""
        return self.rank == 0

    def local_slice(self, rows: np.ndarray) -> np.ndarray:
        """Return this process's slice of a batch."""
        return np.array_split(rows, self.world_size)[self.rank]

    def gather(self, outputs: Tensor) -> Tensor:
        """Concatenate the outputs of all processes; gradients flow only into those of this process."""
        if self.world_size == 1:
            return outputs
        slices = [torch.empty_like(outputs) for _ in range(self.world_size)]
        dist.all_gather(slices, outputs.detach().contiguous())
        slices[self.rank] = outputs
        return torch.cat(slices)

    @torch.no_grad()
    def all_reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes.

        DistributedDataParallel is not used: it fixes the order of its buckets in the first step, and
        floating-point sums depend on the order, so a resumed training would not be bit-identical.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.world_size == 1 or not gradients:
            return
        total = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(total)
        for gradient, values in zip(gradients, total.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(values.view_as(gradient))

    def broadcast_weights(self, model: nn.Module) -> None:
        """Copy the main process's weights and buffers to all processes."""
        if self.world_size > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, 0)

    def broadcast_object(self, make: Callable[[], T]) -> T:
        """Return the main process's result of `make` in all processes; the others need not see its files."""
        if self.world_size == 1:
            return make()
        shared = [make() if self.is_main else None]
        dist.broadcast_object_list(shared, src=0, device=self.device)
        return cast(T, shared[0])

    def barrier(self) -> None:
        """Wait until all processes have reached this call."""
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def init_distributed(device: str) -> Iterator[DistributedContext]:
    """Join the processes that torchrun started, if any, and select the device.

    Args:
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:1".

    Raises:
        SsondoError: If the device cannot be used.
    """
    world_size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    gpus_are_shared = False
    if world_size > 1 and device in ("auto", "cuda") and (n_gpus := torch.cuda.device_count()):
        gpus_are_shared = n_gpus < int(os.environ["LOCAL_WORLD_SIZE"])
        device = f"cuda:{int(os.environ['LOCAL_RANK']) % n_gpus}"
    chosen = resolve_device(device)
    if chosen.type == "cuda":
        if chosen.index is None:
            chosen = torch.device("cuda", torch.cuda.current_device())
        torch.cuda.set_device(chosen)
        use_deterministic_algorithms()
    else:
        disable_malloc_trim()
    if world_size == 1:
        yield DistributedContext(chosen)
        return
    if rank > 0:
        logging.getLogger("ssondo").setLevel(logging.WARNING)
    # NCCL refuses two processes on one GPU.
    dist.init_process_group("nccl" if chosen.type == "cuda" and not gpus_are_shared else "gloo")
    try:
        yield DistributedContext(chosen, rank, world_size)
    finally:
        dist.destroy_process_group()


def use_deterministic_algorithms() -> None:
    """Make two trainings on GPUs of one kind bit-identical. Call it before the first matrix product."""
    # cuBLAS reads this variable when it starts; without it two runs may differ in the last bits.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # The code reads no uninitialised memory, so filling it would only cost time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
