"""Weights and waveforms that depend only on names, so that models can be compared without a checkpoint.

The published code computed the golden values in `data/` with exactly these numbers.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parent / "data"


def _normal(name: str, shape: int | tuple[int, ...], salt: str) -> np.ndarray:
    """Standard normal numbers that depend on `salt`, `name` and `shape` only."""
    seed = int.from_bytes(hashlib.sha256((salt + name).encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)


def tensor(name: str, shape: tuple[int, ...], salt: str = "") -> Tensor:
    """Value of the parameter or buffer `name`, float32, scaled so that activations stay near 1."""
    values = _normal(name, shape, salt)
    last = name.rpartition(".")[2]
    if last == "running_mean":
        values *= 0.1
    elif last == "running_var":
        magnitude = np.abs(values)
        values = 0.5 + magnitude / (1 + magnitude)
    elif last in ("cls_token", "pos_embed"):
        values *= 0.02
    elif len(shape) < 2:
        values = 1 + 0.1 * values if last == "weight" else 0.05 * values
    elif len(shape) == 4 and shape[0] == shape[1] == 1:  # flattened kernels of a dynamic convolution
        values *= 0.1
    else:
        values *= np.sqrt(1.5 / np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


def manifest(name: str) -> dict[str, dict]:
    """Keys of a published checkpoint, each with `shape`, `dtype` and, for constants, `value`."""
    return json.loads((DATA / "manifests" / f"{name}.json").read_text())


def state_dict(name: str, salt: str = "") -> dict[str, Tensor]:
    """A full state dict for the checkpoint of manifest `name`."""
    filled = {}
    for key, entry in manifest(name).items():
        if "value" in entry:
            filled[key] = torch.tensor(entry["value"], dtype=getattr(torch, entry["dtype"])).reshape(entry["shape"])
        else:
            filled[key] = tensor(key, tuple(entry["shape"]), salt)
    return filled


def waveform(seconds: float, sample_rate: int, salt: str = "") -> Tensor:
    """A rising chirp, a pulsing 440 Hz tone and noise: float32, shape (1, samples)."""
    n_samples = round(seconds * sample_rate)
    t = np.arange(n_samples) / sample_rate
    top = min(7000.0, sample_rate / 2 - 500)
    chirp = 0.25 * np.sin(2 * np.pi * (200 * t + (top - 200) / (2 * seconds) * t**2))
    pulse = 0.15 * np.sin(2 * np.pi * 440 * t) * (0.5 + 0.5 * np.sin(2 * np.pi * 2 * t))
    noise = 0.05 * _normal("waveform", n_samples, salt)
    return torch.from_numpy((chirp + pulse + noise).astype(np.float32))[None]
