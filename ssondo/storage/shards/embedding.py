"""Embedding shards: one row per clip, computed by a teacher or a student."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssondo.errors import SsondoError
from ssondo.storage.shards.base import ShardReader, ShardWriter

ENVIRONMENT_OF = "environment_of"
"""Setting that describes the machine on which each verb behind the embeddings ran; it is not part of the digest."""


class EmbeddingShardWriter(ShardWriter):
    """Write an embedding shard batch by batch.

    Args:
        path: See `ShardWriter`.
        embedding_dim: Length of an embedding.
        settings: See `ShardWriter`.
        checkpoint_sha256: SHA-256 of the weights of the model.
        dtype: Type on disk, "float16" or "float32".
        producer: Name of the verb that writes the shard.
    """

    kind = "embedding"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        embedding_dim: int,
        settings: Mapping[str, Any],
        checkpoint_sha256: str,
        dtype: str = "float16",
        producer: str = "",
    ) -> None:
        super().__init__(path, settings, {"checkpoint_sha256": checkpoint_sha256, "producer": producer})
        self._rows = self._file.create_dataset(
            "embedding",
            shape=(0, embedding_dim),
            maxshape=(None, embedding_dim),
            dtype=dtype,
            chunks=(64, embedding_dim),
        )
        self._rows_digest = hashlib.sha256()

    def add(self, clip_ids: Sequence[str], embeddings: np.ndarray) -> None:
        """Add clips by name and embedding, shape (len(clip_ids), embedding_dim).

        Raises:
            SsondoError: If an embedding is not finite in the type on disk.
        """
        rows = self._cast(embeddings)
        if rows.shape != (len(clip_ids), self._rows.shape[1]):
            raise ValueError(f"{len(clip_ids)} clips with embeddings of shape {rows.shape}")
        finite = self.is_finite(rows)
        if not finite.all():
            clip_id = clip_ids[int(np.argmin(finite))]
            raise SsondoError(
                f"{self.path}: the embedding of clip {clip_id} has a NaN or is too large for {rows.dtype}; "
                "check the checkpoint and the sound of that clip, or set dtype and precision of embed to float32"
            )
        n = len(self)
        self._rows.resize(n + len(rows), axis=0)
        self._rows[n:] = rows
        self._rows_digest.update(np.ascontiguousarray(rows).data if rows.size else b"")
        self._clip_ids.extend(clip_ids)
        self._disk.raise_error()

    def _cast(self, embeddings: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.asarray(embeddings).astype(self._rows.dtype)

    def is_finite(self, embeddings: np.ndarray) -> np.ndarray:
        """Whether each embedding, shape (n, embedding_dim), is finite in the type on disk: bool, shape (n,)."""
        return np.isfinite(self._cast(embeddings)).all(axis=1)

    def _digested_settings(self) -> dict[str, Any]:
        return {key: value for key, value in super()._digested_settings().items() if key != ENVIRONMENT_OF}

    def _streamed_digests(self) -> dict[str, str]:
        return {"embedding": f"{self._rows.dtype.str}{self._rows.shape}{self._rows_digest.hexdigest()}"}


class EmbeddingShard(ShardReader):
    """An embedding shard.

    Attributes:
        clip_ids: Names of the clips.
        embedding_dim: Length of an embedding.
        checkpoint_sha256: SHA-256 of the weights of the model.
    """

    kind = "embedding"
    _required = ("clip_id", "embedding")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.checkpoint_sha256: str = self._file.attrs["checkpoint_sha256"]
        self._rows = self._file["embedding"]
        self.embedding_dim = int(self._rows.shape[1])
        if self._rows.shape[0] != len(self):
            self.close()
            raise SsondoError(
                f"{self.path}: has {self._rows.shape[0]} embeddings for {len(self)} clips; "
                "remove it and run snakemake again"
            )

    def rows(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Read the embeddings of the clips `start` to `stop`, shape (n, embedding_dim), in the type on disk."""
        return self._rows[start:stop]
