"""A clustering: which cluster each clip belongs to, and the centroids."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssondo.storage.shards.base import Reader, Writer


class ClusterWriter(Writer):
    """Write which cluster each clip belongs to, with the centroids; appears when the block ends well."""

    kind = "clusters"

    def __init__(self, path: str | os.PathLike[str], *, settings: Mapping[str, Any]) -> None:
        super().__init__(path, settings, {"producer": "cluster"})
        self._clusters: list[np.ndarray] = []
        self._centroids = np.zeros((0, 0), dtype="f4")

    def add(self, clip_ids: Sequence[str], clusters: np.ndarray) -> None:
        """Add clips and their clusters, shape (len(clip_ids),), integers in [0, k)."""
        self._clip_ids.extend(clip_ids)
        self._clusters.append(np.asarray(clusters, dtype="i4"))

    def add_centroids(self, centroids: np.ndarray) -> None:
        """Set the centroids, shape (k, embedding_dim)."""
        self._centroids = np.asarray(centroids, dtype="f4")

    def _streamed_digests(self) -> dict[str, str]:
        return {}

    def _arrays(self) -> dict[str, np.ndarray]:
        clusters = np.concatenate([np.zeros(0, dtype="i4"), *self._clusters])
        if len(clusters) != len(self):
            raise ValueError(f"{len(clusters)} clusters for {len(self)} clips")
        return {"cluster": clusters, "centroids": self._centroids}


class Clusters(Reader):
    """What `cluster` found: `clip_ids`, `cluster` (n,) int32, `centroids` (k, embedding_dim) float32."""

    kind = "clusters"
    _required = ("clip_id", "cluster", "centroids")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.cluster: np.ndarray = self._file["cluster"][:]
        self.centroids: np.ndarray = self._file["centroids"][:]
