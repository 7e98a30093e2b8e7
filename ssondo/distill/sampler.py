"""Sampling of the clips of each batch.

A batch depends only on the seed, the epoch and the step. So a training that is resumed, or that runs on a
different number of devices, sees the same batches.
"""

from collections.abc import Sequence

import numpy as np


def uniform_weights(n_clips: int) -> np.ndarray:
    """Return the same probability for each of `n_clips` clips, float64, shape (n_clips,)."""
    if n_clips < 1:
        raise ValueError("there are no clips to sample")
    return np.full(n_clips, 1 / n_clips)


def balanced_weights(clusters: np.ndarray) -> np.ndarray:
    """Return sampling weights that are inverse to the size of a clip's cluster.

    In expectation all clusters that contain clips are drawn equally often (Balanced Data Sampling,
    S-SONDO section 2.3).

    Args:
        clusters: Cluster of each clip, integers from 0, shape (n_clips,).

    Returns:
        Probabilities that sum to 1, float64, shape (n_clips,).
    """
    sizes = np.bincount(clusters)
    return 1 / sizes[clusters] / np.count_nonzero(sizes)


def class_balanced_weights(labels: Sequence[Sequence[int]], n_classes: int, offset: float = 100) -> np.ndarray:
    """Return the sum over a clip's labels of 1000 / (offset + number of clips with the label), shape (n_clips,).

    This is the sampler of the supervised baseline (EfficientAT, Schmid et al., 2023). The weights are
    relative: they do not sum to 1, and a clip without labels has weight 0. Because of the offset the rarest
    classes do not dominate.
    """
    counts = np.zeros(n_classes)
    for classes in labels:
        counts[list(classes)] += 1
    per_label = 1000 / (offset + counts)
    return np.array([per_label[list(classes)].sum() for classes in labels], dtype=np.float64)


class Sampler:
    """Draws the clips of each batch, with replacement.

    Args:
        weights: Relative probability of each clip, shape (n_clips,); at least one must be above 0.
        seed: Seed of the training.
        batch_size: Number of clips in a batch, over all processes together.

    Raises:
        ValueError: If no clip can be drawn, or if a weight is negative or not finite.
    """

    def __init__(self, weights: np.ndarray, *, seed: int, batch_size: int) -> None:
        weights = np.asarray(weights, dtype=np.float64)
        if not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
            raise ValueError("sampling weights must be finite, not negative, and not all 0")
        self._edges = np.cumsum(weights)
        self._last = int(np.flatnonzero(weights)[-1])
        self._seed = seed
        self._batch_size = batch_size

    def draw(self, epoch: int, step: int) -> np.ndarray:
        """Draw the clips of one batch.

        Args:
            epoch: Number of the epoch, counted from 0.
            step: Number of the step within the epoch, counted from 0.

        Returns:
            Row numbers, int64, shape (batch_size,).
        """
        uniform = np.random.default_rng([self._seed, epoch, step]).random(self._batch_size)
        rows = np.searchsorted(self._edges, uniform * self._edges[-1], side="right")
        # Rounding may place the largest draws beyond the last edge.
        return np.minimum(rows, self._last)
