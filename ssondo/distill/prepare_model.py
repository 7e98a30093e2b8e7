"""Preparation of a student for training: memory layout, layers that see the whole batch, compilation.

Where several processes share a batch, batch normalisation takes its statistics over all of them and dropout
draws its masks for the whole batch, so that the number of processes changes the result by rounding only.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssondo.distill.distributed import DistributedContext
from ssondo.errors import SsondoError
from ssondo.students.student import Student


def to_device(student: Student, context: DistributedContext) -> Student:
    """Move a student to the device in the memory layout in which it trains fastest; changed in place."""
    if student.model.trains_channels_last:
        student.model.to(memory_format=torch.channels_last)
    convert_sync_batchnorm(student, context)
    return student.to(context.device)


def prepare(student: Student, context: DistributedContext, *, compile: bool) -> Callable[[Tensor], Tensor]:
    """Return the forward pass of a student for training: equal weights in all processes, compiled on request."""
    context.broadcast_weights(student)
    return _compiled(student) if compile else student


def _compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Compile `model`; a failure of the compiler is reported at the first call, in which it compiles."""
    from torch import _inductor
    from torch._dynamo.exc import TorchDynamoException

    # Draw dropout as without the compiler, since compilation is not part of what determines a result.
    _inductor.config.fallback_random = True
    compiled = torch.compile(model)

    def forward(log_mel: Tensor) -> Tensor:
        try:
            return compiled(log_mel)
        except TorchDynamoException as error:
            # A C++ compiler's own message follows its command line.
            lines = str(error).splitlines()
            reason = next((line for line in lines if "error:" in line.lower()), lines[0])
            raise SsondoError(
                f"compile: torch.compile fails on this machine ({reason.strip()[:200]}); set compile to false"
            ) from error

    return forward


class _AllReduceSum(torch.autograd.Function):
    """Sum over all processes; the gradient is the sum of all processes' gradients.

    torch's own function for it, `torch.distributed.nn.functional.all_reduce`, is deprecated.
    """

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def _all_reduce_sum(values: Tensor) -> Tensor:
    total: Tensor = _AllReduceSum.apply(values)
    return total


class CpuSyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over the clips of all processes, on CPUs; torch's `SyncBatchNorm` supports GPUs only.

    All processes must have slices of the same size. In evaluation mode it is plain batch normalisation.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of dimensions; the second one contains the channels."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input`, shape (batch, channels, ...)."""
        if not self.training:
            return super().forward(input)
        x = input.float()
        dims = [dim for dim in range(x.dim()) if dim != 1]
        n = x.numel() // x.shape[1] * dist.get_world_size()
        shape = [1, -1] + [1] * (x.dim() - 2)
        mean = _all_reduce_sum(x.sum(dims)) / n
        centred = x - mean.view(shape)
        variance = _all_reduce_sum(centred.square().sum(dims)) / n
        self._update_statistics(mean.detach(), variance.detach() * n / max(n - 1, 1))
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight
        output = centred * scale.view(shape)
        return (output + self.bias.view(shape) if self.affine else output).to(input.dtype)

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        # Without a momentum the statistics are the plain average over batches.
        weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)


class WholeBatchDropout(nn.Module):
    """Dropout whose mask is drawn for the whole batch from torch's generator, so all processes draw the same."""

    def __init__(self, p: float, context: DistributedContext) -> None:
        super().__init__()
        self.p = p
        self._rank, self._world_size = context.rank, context.world_size

    def forward(self, input: Tensor) -> Tensor:
        """Set elements of `input`, shape (local clips, ...), to 0 with probability `p` and rescale the others."""
        if not self.training or self.p == 0:
            return input
        n = len(input)
        kept = torch.rand((n * self._world_size, *input.shape[1:]), device=input.device) >= self.p
        return input * kept[self._rank * n : (self._rank + 1) * n] / (1 - self.p)


def convert_sync_batchnorm(model: nn.Module, context: DistributedContext) -> nn.Module:
    """Replace batch normalisation and dropout by layers that see the whole batch; their weights are shared."""
    model = _replace(model, nn.Dropout, lambda dropout: WholeBatchDropout(dropout.p, context))
    if context.world_size == 1:
        return model
    if context.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return _replace(model, nn.modules.batchnorm._BatchNorm, _cpu_sync_batchnorm)


def _cpu_sync_batchnorm(norm: nn.modules.batchnorm._BatchNorm) -> CpuSyncBatchNorm:
    replacement = CpuSyncBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    replacement.weight, replacement.bias = norm.weight, norm.bias
    replacement.running_mean, replacement.running_var = norm.running_mean, norm.running_var
    replacement.num_batches_tracked = norm.num_batches_tracked
    return replacement


def _replace(model: nn.Module, kind: type[nn.Module], make: Callable[..., nn.Module]) -> nn.Module:
    if isinstance(model, kind):
        return make(model).train(model.training)
    for name, child in model.named_children():
        setattr(model, name, _replace(child, kind, make))
    return model
