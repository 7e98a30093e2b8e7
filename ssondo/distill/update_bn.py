"""Recomputation of the statistics of batch normalisation, which a short training leaves inaccurate."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def _cumulative_statistics(model: nn.Module) -> Iterator[list[nn.modules.batchnorm._BatchNorm]]:
    """Reset the statistics of all batch norms of `model`, and put these layers alone into training mode."""
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
    """Recompute the running statistics of all batch norms as the plain average over batches.

    With a momentum of 0.01 running statistics are accurate only after some 500 steps, so the evaluation
    mode of a model that was trained for fewer steps is inaccurate. Dropout is disabled meanwhile, and the
    weights do not change.

    Args:
        model: Changed in place; its mode is restored.
        batches: Inputs of `model`, e.g. log-mels of training clips. All batches have the same weight.

    Returns:
        Number of batches.

    Raises:
        ValueError: If there is no batch; the old statistics are lost in this case.
    """
    n_batches = 0
    with _cumulative_statistics(model):
        for batch in batches:
            model(batch)
            n_batches += 1
    if n_batches == 0:
        raise ValueError("the statistics of batch normalisation need at least one batch")
    return n_batches
