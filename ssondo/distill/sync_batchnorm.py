"""What must be of the whole batch where several processes share it, so that their number changes rounding alone.

Batch normalisation takes its statistics over all processes, and dropout draws its masks for all
clips of the batch, of which each process uses its own part.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssondo.distill.distributed import DistributedContext


class _Sum(torch.autograd.Function):
    """Sum over all processes; each one's gradient is the sum of all processes' gradients."""

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


def _sum(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)
    return total


class CpuSyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over all processes' clips, on CPUs; torch's `SyncBatchNorm` does it on GPUs alone.

    Every process has a part of the same size. In evaluation mode it is plain batch normalisation.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions: channels are the second."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input`, shape (batch, channels, ...)."""
        if not self.training:
            return super().forward(input)
        x = input.float()
        over = [dim for dim in range(x.dim()) if dim != 1]
        n = x.numel() // x.shape[1] * dist.get_world_size()
        shape = [1, -1] + [1] * (x.dim() - 2)
        mean = _sum(x.sum(over)) / n
        centred = x - mean.view(shape)
        variance = _sum(centred.square().sum(over)) / n
        self._track(mean.detach(), variance.detach() * n / max(n - 1, 1))
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight
        found = centred * scale.view(shape)
        return (found + self.bias.view(shape) if self.affine else found).to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        # Without a momentum it is the plain average over batches.
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


class WholeBatchDropout(nn.Module):
    """Dropout whose mask is drawn for the whole batch from torch's generator, the same in every process."""

    def __init__(self, p: float, job: DistributedContext) -> None:
        super().__init__()
        self.p = p
        self._rank, self._world_size = job.rank, job.world_size

    def forward(self, input: Tensor) -> Tensor:
        """Set a share `p` of `input`, shape (this process's clips, ...), to 0 and scale the rest up."""
        if not self.training or self.p == 0:
            return input
        n = len(input)
        kept = torch.rand((n * self._world_size, *input.shape[1:]), device=input.device) >= self.p
        return input * kept[self._rank * n : (self._rank + 1) * n] / (1 - self.p)


def convert_sync_batchnorm(model: nn.Module, job: DistributedContext) -> nn.Module:
    """`model` with its batch norms and dropouts replaced by those of the whole batch; weights are shared."""
    model = _replaced(model, nn.Dropout, lambda dropout: WholeBatchDropout(dropout.p, job))
    if job.world_size == 1:
        return model
    if job.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return _replaced(model, nn.modules.batchnorm._BatchNorm, _whole_batch_norm)


def _whole_batch_norm(norm: nn.modules.batchnorm._BatchNorm) -> CpuSyncBatchNorm:
    made = CpuSyncBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    made.weight, made.bias = norm.weight, norm.bias
    made.running_mean, made.running_var = norm.running_mean, norm.running_var
    made.num_batches_tracked = norm.num_batches_tracked
    return made


def _replaced(model: nn.Module, kind: type[nn.Module], make: Callable[..., nn.Module]) -> nn.Module:
    if isinstance(model, kind):
        return make(model).train(model.training)
    for name, child in model.named_children():
        setattr(model, name, _replaced(child, kind, make))
    return model
