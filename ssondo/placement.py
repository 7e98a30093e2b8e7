"""A student on the device that trains it: memory layout, the other processes, compilation."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ssondo.errors import SsondoError
from ssondo.job import Job
from ssondo.student import Student
from ssondo.whole_batch import over_whole_batches


def for_training(student: Student, job: Job, *, compile: bool) -> Callable[[Tensor], Tensor]:
    """`student` as the loop calls it: across processes, compiled."""
    model: nn.Module = student
    if job.world_size > 1:
        devices = [job.device] if job.device.type == "cuda" else None
        # Statistics of batch norms are the same in all processes already.
        model = nn.parallel.DistributedDataParallel(student, device_ids=devices, broadcast_buffers=False)
    return _compiled(model) if compile else model


def _compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """`model` through torch.compile, which fails at the first call where it fails."""
    from torch._dynamo.exc import TorchDynamoException

    compiled = torch.compile(model)

    def call(log_mel: Tensor) -> Tensor:
        try:
            return compiled(log_mel)
        except TorchDynamoException as error:
            # The compiler's own complaint, where there is one, stands somewhere below its command line.
            lines = str(error).splitlines()
            reason = next((line for line in lines if "error:" in line.lower()), lines[0])
            raise SsondoError(
                f"compile: torch.compile fails here ({reason.strip()[:200]}); set compile to false"
            ) from error

    return call


def place(student: Student, job: Job) -> Student:
    """Put a student on the job's device, in the layout that its training is fastest in; changed in place."""
    if student.model.trains_channels_last:
        student.model.to(memory_format=torch.channels_last)
    over_whole_batches(student, job)
    return student.to(job.device)
