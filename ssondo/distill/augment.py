"""Augmentation of a batch: SpecAugment, and mixup of each clip with another one.

All random numbers of a step depend on the seed and the number of the step alone, so that a training that is
interrupted and restarted needs no saved random state.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssondo.audio.spec_augment import SpecAugment
from ssondo.distill.distributed import DistributedContext
from ssondo.distill.training_config import TrainingConfig


class Mix(NamedTuple):
    """The way in which a batch was mixed: clip i became `weight[i]` * clip i + (1 - `weight[i]`) * its partner.

    Attributes:
        weight: Shape (batch,), in [0, 1].
        partner: Row of the partner of each clip, shape (batch,), a permutation of the rows.
    """

    weight: Tensor
    partner: Tensor


def draw_mix(n_clips: int, alpha: float, generator: np.random.Generator) -> Mix:
    """Draw mixup weights max(w, 1 - w), w from Beta(alpha, alpha), and partners (Zhang et al., 2018), on the CPU."""
    weight = generator.beta(alpha, alpha, n_clips)
    partner = generator.permutation(n_clips)
    return Mix(torch.from_numpy(np.maximum(weight, 1 - weight)).float(), torch.from_numpy(partner))


def mixup(values: Tensor, mix: Mix) -> Tensor:
    """Mix each clip with its partner: `weight * values + (1 - weight) * values[partner]`, shape (batch, ...)."""
    weight = mix.weight.view(-1, *[1] * (values.ndim - 1)).to(values.dtype)
    return weight * values + (1 - weight) * values[mix.partner]


def _generator(*key: int) -> np.random.Generator:
    """Random numbers that depend on `key` alone. Keys of different length give different streams."""
    return np.random.default_rng([*key, len(key)])


def seed_step(seed: int, step: int) -> None:
    """Seed torch, from which SpecAugment and dropout draw, for one step.

    The seed is the same in every process: each one draws for the whole batch and uses its own slice.
    """
    torch.manual_seed(int(_generator(seed, step).integers(2**63)))


def augment(
    log_mel: Tensor, step: int, config: TrainingConfig, context: DistributedContext
) -> tuple[Tensor, Mix | None]:
    """Apply SpecAugment and mixup, as the training settings ask for them, to this process's slice of a batch.

    Args:
        log_mel: Shape (batch / processes, windows, mels, frames).
        step: Number of the step, counted from 0 over all epochs.
        config: Settings of the optimisation.
        context: This process and its device.

    Returns:
        The augmented slice, and how the whole batch was mixed; None without mixup.
    """
    if config.freq_mask or config.time_mask:
        masks = SpecAugment(max_time_width=config.time_mask, max_frequency_width=config.freq_mask)
        log_mel = masks(log_mel, part=context.rank, n_parts=context.world_size)
    if config.mixup_alpha is None:
        return log_mel, None
    mix = draw_mix(config.batch_size, config.mixup_alpha, _generator(config.seed, step, 0))
    mix = Mix(mix.weight.to(context.device), mix.partner.to(context.device))
    # The partner of a clip may be in the slice of another process.
    own = slice(context.rank * len(log_mel), (context.rank + 1) * len(log_mel))
    return mixup(context.gather(log_mel), mix)[own], mix
