"""Embedding shards: one row a clip, of a teacher or a student."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssondo.errors import SsondoError
from ssondo.storage.shards.base import Reader, Writer

ENVIRONMENT_OF = "environment_of"
"""The setting that says what each verb behind embeddings computed with; no part of the digest."""


class EmbeddingShardWriter(Writer):
    """Write an embedding shard batch by batch; it appears under its name when the block ends well.

    Args:
        path: final name; a digest is written beside it.
        embedding_dim: length of an embedding.
        settings: what made the embeddings, kept as JSON.
        checkpoint_sha256: of the model's weights.
        dtype: "float16" or "float32", on disk.
        producer: the verb that writes it.
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
        self._extra: dict[str, np.ndarray] = {}

    def add(self, clip_ids: Sequence[str], embeddings: np.ndarray) -> None:
        """Add clips.

        Args:
            clip_ids: ASCII names, unique in the shard.
            embeddings: shape (len(clip_ids), embedding_dim).

        Raises:
            SsondoError: if an embedding is not finite in the shard's type.
        """
        rows = self._as_kept(embeddings)
        if rows.shape != (len(clip_ids), self._rows.shape[1]):
            raise ValueError(f"{len(clip_ids)} clips with embeddings of shape {rows.shape}")
        finite = self.is_finite(rows)
        if not finite.all():
            bad = clip_ids[int(np.argmin(finite))]
            raise SsondoError(
                f"{self.path}: the embedding of clip {bad} has a NaN or is too large for {rows.dtype}; "
                "check the checkpoint and that clip's sound, or set dtype and precision of embed to float32"
            )
        n = len(self)
        self._rows.resize(n + len(rows), axis=0)
        self._rows[n:] = rows
        self._rows_digest.update(np.ascontiguousarray(rows).data if rows.size else b"")
        self._clip_ids.extend(clip_ids)
        self._disk.check()

    def _as_kept(self, embeddings: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.asarray(embeddings).astype(self._rows.dtype)

    def is_finite(self, embeddings: np.ndarray) -> np.ndarray:
        """Which embeddings, shape (n, embedding_dim), are finite in the shard's type: bool, shape (n,)."""
        return np.isfinite(self._as_kept(embeddings)).all(axis=1)

    def add_extra(self, name: str, values: np.ndarray) -> None:
        """Add an array with one row a clip (labels, split, fold), in the order of `add`."""
        self._extra[name] = np.asarray(values)

    def _settings_that_count(self) -> dict[str, Any]:
        return {key: value for key, value in super()._settings_that_count().items() if key != ENVIRONMENT_OF}

    def _streamed_digests(self) -> dict[str, str]:
        return {"embedding": f"{self._rows.dtype.str}{self._rows.shape}{self._rows_digest.hexdigest()}"}

    def _arrays(self) -> dict[str, np.ndarray]:
        for name, values in self._extra.items():
            if len(values) != len(self):
                raise ValueError(f"{name} has {len(values)} rows for {len(self)} clips")
        return dict(self._extra)


class EmbeddingShard(Reader):
    """An embedding shard: `clip_ids`, `embedding_dim`, `checkpoint_sha256` and the rows."""

    kind = "embedding"
    _required = ("clip_id", "embedding")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.checkpoint_sha256: str = self._file.attrs["checkpoint_sha256"]
        self._rows = self._file["embedding"]
        self.embedding_dim = int(self._rows.shape[1])
        if self._rows.shape[0] != len(self):
            self.close()
            raise SsondoError(f"{self.path}: {self._rows.shape[0]} embeddings of {len(self)} clips; remake it")

    def rows(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Embeddings of clips `start` to `stop`, shape (n, embedding_dim), in the type on disk."""
        return self._rows[start:stop]
