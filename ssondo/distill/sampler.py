"""Which clips make up a batch: sampling weights, and draws that are pure functions of their arguments.

A draw depends on (seed, epoch, step) alone and a rank takes its part of it, so a training that
is resumed, or that runs on another number of devices, sees the same clips in the same batches.
"""

from collections.abc import Sequence

import numpy as np


def uniform_weights(n_clips: int) -> np.ndarray:
    """The same probability for each of `n_clips` clips, shape (n_clips,), float64."""
    if n_clips < 1:
        raise ValueError("there are no clips to draw from")
    return np.full(n_clips, 1 / n_clips)


def balanced_weights(clusters: np.ndarray) -> np.ndarray:
    """Sampling weight of each clip, inverse to the size of its cluster.

    Every cluster that has clips is drawn equally often in expectation (Balanced Data Sampling,
    S-SONDO section 2.3).

    Args:
        clusters: cluster of each clip, shape (n_clips,), integers from 0.

    Returns:
        Probabilities, shape (n_clips,), float64, summing to 1.

    Raises:
        ValueError: if `clusters` is empty or has a negative entry.
    """
    clusters = np.asarray(clusters)
    if not clusters.size or clusters.min() < 0:
        raise ValueError("clusters must be a non-empty array of integers from 0")
    sizes = np.bincount(clusters)
    return 1 / sizes[clusters] / np.count_nonzero(sizes)


def class_balanced_weights(labels: Sequence[Sequence[int]], n_classes: int, offset: float = 100) -> np.ndarray:
    """Sampling weight of each clip: the sum over its labels of 1000 / (offset + count of the label).

    The supervised baseline's sampler (EfficientAT, Schmid et al., 2023). The weights are relative:
    they do not sum to 1, and a clip without labels has none.

    Args:
        labels: classes of each clip, integers in [0, n_classes).
        n_classes: number of classes.
        offset: added to each count, so that the rarest classes do not dominate.

    Returns:
        Shape (n_clips,), float64.
    """
    counts = np.zeros(n_classes)
    for classes in labels:
        counts[list(classes)] += 1
    per_label = 1000 / (offset + counts)
    return np.array([per_label[list(classes)].sum() for classes in labels], dtype=np.float64)


class Sampler:
    """Draws with replacement: which clips each step of the training sees.

    Args:
        weights: relative probability of each clip, shape (n_clips,), at least one above 0.
        seed: of the training.
        batch_size: clips a step, over all ranks together.

    Raises:
        ValueError: if no clip can be drawn, or a weight is negative or not finite.
    """

    def __init__(self, weights: np.ndarray, *, seed: int, batch_size: int) -> None:
        weights = np.asarray(weights, dtype=np.float64)
        if not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
            raise ValueError("sampling weights must be finite, not negative, and not all 0")
        self._edges = np.cumsum(weights)
        self._last = int(np.flatnonzero(weights)[-1])
        self._seed = seed
        self._batch_size = batch_size

    def draw(self, epoch: int, step: int, *, rank: int = 0, world_size: int = 1) -> np.ndarray:
        """Clips of one step, or the part of them that one rank takes.

        Args:
            epoch: counted from 0.
            step: within the epoch, from 0.
            rank: of the process, in [0, world_size).
            world_size: number of processes; the ranks' parts, end to end, are the whole batch.

        Returns:
            Row numbers, int64, shape (about batch_size / world_size,); (batch_size,) for one process.
        """
        uniform = np.random.default_rng([self._seed, epoch, step]).random(self._batch_size)
        rows = np.searchsorted(self._edges, uniform * self._edges[-1], side="right")
        first, stop = (self._batch_size * part // world_size for part in (rank, rank + 1))
        # Rounding may put the largest draws past the last edge.
        return np.minimum(rows, self._last)[first:stop]
