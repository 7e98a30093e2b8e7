"""Teachers: a sample rate, an embedding size, and a function from waveforms to embeddings.

    teacher = load_teacher("matpac", "matpac_plus_6s_2048_enconly.pt", device="cuda")
    embeddings = teacher(waveforms)             # (batch, samples) at teacher.sample_rate -> (batch, dim)
    embeddings = teacher.embed([short, long])   # clips of different lengths

A kind is one line in `KINDS`, imported when it is asked for, so that editing one teacher makes
nothing of another again.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ssondo.errors import SsondoError
from ssondo.registry import check_options, look_up, parameters_of
from ssondo.system.device import resolve_device

# Each: (checkpoint: Path | None, device: str, **options) -> Teacher.
KINDS = {
    "matpac": "ssondo.teachers.vit:load_matpac",
    "m2d": "ssondo.teachers.vit:load_m2d",
    "yamnet": "ssondo.teachers.yamnet:load_yamnet",
    "onnx": "ssondo.teachers.external:load_onnx",
    "torchscript": "ssondo.teachers.external:load_torchscript",
    "callable": "ssondo.teachers.external:load_callable",
}


class Teacher(Protocol):
    """What every teacher offers."""

    sample_rate: int
    """In Hz, of the waveforms that it takes."""
    embedding_dim: int
    """Size of an embedding."""
    n_parameters: int
    """Number of learned values; 0 if unknown."""
    device: str
    """What it computes on: cpu, cuda, cuda:1."""
    bears_float16: bool
    """Whether its embeddings stay what they are where torch computes matrix products on a GPU in float16."""

    def __call__(self, waveforms: Tensor) -> Tensor:
        """Embed clips of one length: (batch, samples) -> (batch, embedding_dim), float32."""

    def embed(self, waveforms: Sequence[Tensor], batch_size: int = 32) -> Tensor:
        """Embed clips of any lengths, each (samples,) -> (len(waveforms), embedding_dim), on the CPU.

        Each clip has the embedding that it has alone.
        """


def embed_by_length(
    embed: Callable[[Tensor], Tensor], waveforms: Sequence[Tensor], batch_size: int, embedding_dim: int
) -> Tensor:
    """Embed clips of any lengths by batching those of equal length; none is padded to another's.

    Args:
        embed: (batch, samples) -> (batch, embedding_dim).
        waveforms: each of shape (samples,).
        batch_size: most clips at once.
        embedding_dim: size of an embedding.

    Returns:
        Shape (len(waveforms), embedding_dim), float32, on the CPU, in the order of `waveforms`.
    """
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, waveform in enumerate(waveforms):
        rows_of[waveform.shape[-1]].append(row)
    embeddings = torch.zeros(len(waveforms), embedding_dim)
    for rows in rows_of.values():
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            embeddings[batch] = embed(torch.stack([waveforms[row] for row in batch])).float().cpu()
    return embeddings


def check_waveforms(waveforms: Tensor, teacher: str) -> Tensor:
    """`waveforms` as float32, shape (batch, samples).

    Raises:
        SsondoError: if the shape is another one or a clip has no samples.
    """
    if waveforms.dim() != 2 or waveforms.shape[1] == 0:
        raise SsondoError(
            f"teacher {teacher}: waveforms of shape {tuple(waveforms.shape)}; give (batch, samples), mono, not empty"
        )
    return waveforms.float()


def load(kind: str, checkpoint: str | os.PathLike[str] | None = None, device: str = "cpu", **options: Any) -> Teacher:
    """Load a teacher.

    Args:
        kind: one of `KINDS`.
        checkpoint: its file; None for a kind that needs none or finds its own.
        device: a torch device; "auto" for a GPU if there is one.
        **options: what the kind takes beside that, e.g. `sample_rate` and `embedding_dim` of an ONNX file.

    Raises:
        SsondoError: if there is no such kind, the file is not there, or it is not this teacher's.
    """
    loader = look_up("teacher", kind, KINDS)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and not path.exists():
        raise SsondoError(f"{path}: this checkpoint of teacher {kind!r} does not exist")
    check_options(f"teacher {kind!r}", options, parameters_of(loader, ignored=("checkpoint", "device")))
    teacher: Teacher = loader(path, str(resolve_device(device)), **options)
    return teacher


def load_teacher(
    name: str, checkpoint: str | os.PathLike[str] | None = None, device: str = "cpu", **options: Any
) -> Teacher:
    """Load a teacher by name: an object with `sample_rate`, `embedding_dim` and a call.

    Args:
        name: "matpac", "m2d", "yamnet", "onnx", "torchscript" or "callable".
        checkpoint: its file. matpac, m2d, onnx and torchscript need one; yamnet takes the one of
            `pip install '.[demo]'` by itself.
        device: a torch device, or "auto". YAMNet and ONNX files run on the CPU.
        **options: see `load`.

    Returns:
        Called with waveforms, shape (batch, samples), float32, mono, at its `sample_rate`, it
        returns embeddings, shape (batch, embedding_dim).

    Example:
        >>> teacher = load_teacher("yamnet")
        >>> teacher(torch.zeros(2, 5 * teacher.sample_rate)).shape
        torch.Size([2, 1024])
    """
    return load(name, checkpoint, device, **options)
