"""Mixup: each clip of a batch is blended with another, in the input and in what it shall become."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Mix(NamedTuple):
    """How a batch was mixed: clip i became `weight[i]` of itself and the rest of clip `partner[i]`.

    weight: shape (batch,), in [0, 1]. partner: shape (batch,), a permutation of the rows.
    """

    weight: Tensor
    partner: Tensor


def draw_mix(n_clips: int, alpha: float, generator: np.random.Generator) -> Mix:
    """Draw mixup weights and partners (Zhang et al., 2018), the larger part always the clip's own.

    Args:
        n_clips: size of the batch.
        alpha: of the Beta(alpha, alpha) distribution; the supervised baseline uses 0.3.
        generator: the only source of randomness.

    Returns:
        Weights max(w, 1 - w) and a random permutation, on the CPU.
    """
    weight = generator.beta(alpha, alpha, n_clips)
    partner = generator.permutation(n_clips)
    return Mix(torch.from_numpy(np.maximum(weight, 1 - weight)).float(), torch.from_numpy(partner))


def mixup(values: Tensor, mix: Mix) -> Tensor:
    """Mix each clip with its partner: `weight * values + (1 - weight) * values[partner]`.

    Args:
        values: shape (batch, ...), log-mels or multi-hot labels.
        mix: of the same batch.
    """
    weight = mix.weight.view(-1, *[1] * (values.ndim - 1)).to(values.dtype)
    return weight * values + (1 - weight) * values[mix.partner]
