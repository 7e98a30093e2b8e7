"""Batch normalisation: statistics for evaluation that a short training leaves wrong."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def _measuring_batchnorm(model: nn.Module) -> Iterator[list[nn.modules.batchnorm._BatchNorm]]:
    """Reset all batch norms of `model` and let them, and nothing else, be in training mode."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield norms
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def update_bn(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Compute the running statistics of all batch norms anew, as the plain average over batches.

    With a momentum of 0.01 they mean something after some 500 steps only; a model that was trained
    for less is wrong in evaluation mode. Dropout is off meanwhile; the weights stay as they are.

    Args:
        model: changed in place; its mode is kept.
        batches: inputs of `model`, e.g. log-mels of training clips; a batch counts once whatever its size.

    Returns:
        Number of batches.

    Raises:
        ValueError: if there is no batch; the old statistics are then lost.
    """
    n_batches = 0
    with _measuring_batchnorm(model):
        for batch in batches:
            model(batch)
            n_batches += 1
    if n_batches == 0:
        raise ValueError("no batches to estimate statistics of batch normalisation from")
    return n_batches
