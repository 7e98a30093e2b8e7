"""A student on the device that trains it: memory layout, the other processes, compilation."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ssondo.distill.distributed import DistributedContext
from ssondo.distill.sync_batchnorm import convert_sync_batchnorm
from ssondo.errors import SsondoError
from ssondo.students.student import Student


def prepare(student: Student, job: DistributedContext, *, compile: bool) -> Callable[[Tensor], Tensor]:
    """`student` as the loop calls it: the same in all processes, compiled."""
    job.share(student)
    return _compiled(student) if compile else student


def _compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """`model` through torch.compile, which fails at the first call where it fails."""
    from torch import _inductor
    from torch._dynamo.exc import TorchDynamoException

    # Dropout as it is drawn without the compiler, which is no part of what determines a result.
    _inductor.config.fallback_random = True
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


def to_device(student: Student, job: DistributedContext) -> Student:
    """Put a student on the job's device, in the layout that its training is fastest in; changed in place."""
    if student.model.trains_channels_last:
        student.model.to(memory_format=torch.channels_last)
    convert_sync_batchnorm(student, job)
    return student.to(job.device)
