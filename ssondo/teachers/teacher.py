"""The interface of a teacher, and what implementations of it share."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ssondo.errors import SsondoError


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


def embed_by_length(
    embed: Callable[[Tensor], Tensor], waveforms: Sequence[Tensor], batch_size: int, embedding_dim: int
) -> Tensor:
    """Embed clips of any lengths in batches of clips of equal length, without padding.

    Args:
        embed: Function (batch, samples) -> (batch, embedding_dim).
        waveforms: Clips, each of shape (samples,).
        batch_size: Maximum number of clips in a batch.
        embedding_dim: Size of an embedding.

    Returns:
        Shape (len(waveforms), embedding_dim), float32, on the CPU, in the order of `waveforms`.
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
    """Return waveforms of shape (batch, samples) as float32.

    Args:
        waveforms: The waveforms that a teacher is called with.
        teacher: Name of the teacher, for the error message.

    Raises:
        SsondoError: if the shape is another one or the clips have no samples.
    """
    if waveforms.dim() != 2 or waveforms.shape[1] == 0:
        raise SsondoError(
            f"teacher {teacher}: the waveforms have shape {tuple(waveforms.shape)}; "
            "they must be mono, of shape (batch, samples), and not empty"
        )
    return waveforms.float()
