"""The processes that train one student together, and their devices.

with started_job("auto") as job:      # joins the processes that torchrun started, if it did
    own = job.part(rows)              # this process's share of a batch
    outputs = job.gather(student(own))
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
    """This process's place among those that train one student together."""

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def part(self, rows: np.ndarray) -> np.ndarray:
        """This process's share of a batch."""
        return np.array_split(rows, self.world_size)[self.rank]

    def gather(self, outputs: Tensor) -> Tensor:
        """All processes' outputs, end to end; only this one's carry a gradient."""
        if self.world_size == 1:
            return outputs
        parts = [torch.empty_like(outputs) for _ in range(self.world_size)]
        dist.all_gather(parts, outputs.detach().contiguous())
        parts[self.rank] = outputs
        return torch.cat(parts)

    @torch.no_grad()
    def all_reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every process the sum of all processes' gradients.

        Not by DistributedDataParallel: it puts gradients together in the order in which they were ready when it began,
        and three or more numbers are not the same in any order. A training that goes on would end with other bits.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.world_size == 1 or not gradients:
            return
        total = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(total)
        parts = total.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def share(self, model: nn.Module) -> None:
        """Give every process the first one's weights and statistics."""
        if self.world_size > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, 0)

    def broadcast_object(self, make: Callable[[], T]) -> T:
        """What `make` gives in the first process, in all of them; the others need not see its files."""
        if self.world_size == 1:
            return make()
        shared = [make() if self.first else None]
        dist.broadcast_object_list(shared, src=0, device=self.device)
        return cast(T, shared[0])

    def barrier(self) -> None:
        """Wait for the other processes."""
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def init_distributed(device: str) -> Iterator[DistributedContext]:
    """Join the other processes that torchrun started, if it did, and choose the device.

    Args:
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1".

    Raises:
        SsondoError: if there is no such device.
    """
    world_size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    shared = False
    if world_size > 1 and device in ("auto", "cuda") and (n_gpus := torch.cuda.device_count()):
        shared = n_gpus < int(os.environ["LOCAL_WORLD_SIZE"])
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
        logging.getLogger(__package__).setLevel(logging.WARNING)
    # NCCL refuses two processes on one GPU.
    dist.init_process_group("nccl" if chosen.type == "cuda" and not shared else "gloo")
    try:
        yield DistributedContext(chosen, rank, world_size)
    finally:
        dist.destroy_process_group()


def use_deterministic_algorithms() -> None:
    """Let two trainings on one kind of GPU end with the same bits; call it before the first product of matrices."""
    # cuBLAS reads it when it starts; without it two runs may differ in the last bits.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing here reads memory that it has not written, so none has to be filled first.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
