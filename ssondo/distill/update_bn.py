"""Recomputation of the statistics of batch normalisation, which a short training leaves inaccurate."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def update_bn(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Recompute the running statistics of all batch norms as the plain average over batches.

    With a momentum of 0.01 running statistics are accurate only after some 500 steps, so the evaluation
    mode of a model that was trained for fewer steps is inaccurate. Unlike `torch.optim.swa_utils.update_bn`, it
    disables dropout meanwhile. The weights do not change.

    Args:
        model: Changed in place; its mode is restored.
        batches: At least one input of `model`, e.g. log-mels of training clips. All batches have the same weight.
    """
    modes = {module: module.training for module in model.modules()}
    momenta = {norm: norm.momentum for norm in modes if isinstance(norm, nn.modules.batchnorm._BatchNorm)}
    model.eval()
    for norm in momenta:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for batch in batches:
        model(batch)
    for norm, momentum in momenta.items():
        norm.momentum = momentum
    for module, mode in modes.items():
        module.training = mode
