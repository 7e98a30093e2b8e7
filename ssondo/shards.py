"""HDF5 shards: many clips in one file, complete or absent.

Two kinds. An audio shard holds encoded clips end to end (`blob`, cut by `offset`), an
embedding shard one row a clip (`embedding`). Both hold `clip_id`, fixed-length bytes. There are
no variable-length types and no pickles, so anything that reads HDF5 reads them.
docs/formats.md has every name.

    with AudioShardWriter("audio/train-0000.h5", sample_rate=32000, settings={}) as shard:
        shard.add("-0BIyqJj9ZU", flac_bytes, duration_s=10.0)
    with AudioShard("audio/train-0000.h5") as shard:
        for row in shard.ok:
            shard.clip_ids[row], shard.blob(row)
"""

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from ssondo.artefacts import array_digest, content_digest, replacing, write_digest
from ssondo.errors import SsondoError

FORMAT_VERSION = 1
_REASON_BYTES = 160
_BUFFER_BYTES = 4 << 20


class Status(IntEnum):
    """How a clip ended: there, known not to exist, or failed in a way that may pass."""

    OK = 0
    UNAVAILABLE = 1
    FAILED = 2


def _fixed(texts: Sequence[str], what: str, path: Path) -> np.ndarray:
    """ASCII texts as fixed-length bytes, of the longest's length."""
    try:
        values = np.array([text.encode("ascii") for text in texts], dtype=np.bytes_)
    except UnicodeEncodeError as error:
        raise SsondoError(f"{path}: {what} {error.object!r} has characters outside ASCII; rename the clip") from None
    return values if len(texts) else np.zeros(0, dtype="S1")


class _Disk(io.FileIO):
    """The file under HDF5. A failed write is kept in `fault` and not told to HDF5.

    HDF5 cannot close a file that it could not write, and the process dies of it later; so from the
    first fault on everything is swallowed, and the shard's writer raises the fault itself.
    """

    fault: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while self.fault is None and done < len(view):
            try:
                done += super().write(view[done:])
            except OSError as error:
                self.fault = error
        if self.fault is not None:
            self.seek(len(view) - done, os.SEEK_CUR)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        if self.fault is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self.fault = error
        return size or 0

    def check(self) -> None:
        """Raise the fault, if there was one."""
        if self.fault is not None:
            raise self.fault


class _Writer:
    """What both kinds of shard share: the temporary name, the attributes, the digest."""

    kind: str

    def __init__(
        self, path: str | os.PathLike[str], settings: Mapping[str, Any], attributes: Mapping[str, Any]
    ) -> None:
        self.path = Path(path)
        self._settings = json.dumps(dict(settings), sort_keys=True)
        self._clip_ids: list[str] = []
        self._stack = ExitStack()
        self._replacing = replacing(self.path)
        temporary = self._stack.enter_context(self._replacing)
        try:
            self._disk = self._stack.enter_context(_Disk(temporary, "w+b"))
            self._file = self._stack.enter_context(h5py.File(self._disk, "w"))
            self._file.attrs.update(
                {
                    "format_version": FORMAT_VERSION,
                    "kind": self.kind,
                    "settings": self._settings,
                    **attributes,
                }
            )
        except BaseException as error:
            if not self._stack.__exit__(type(error), error, error.__traceback__):
                raise

    def __len__(self) -> int:
        return len(self._clip_ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self._finish()
                self._file.close()
                self._disk.check()
            except BaseException as fault:
                self._abandon(fault)
                raise
            self._stack.__exit__(None, None, None)
            write_digest(self.path, self.digest)
        else:
            self._abandon(error)

    def _abandon(self, error: BaseException) -> None:
        """Close without writing more; `replacing` removes the file and words a full disk."""
        self._disk.fault = self._disk.fault or OSError("abandoned")
        self._stack.__exit__(type(error), error, error.__traceback__)

    def _arrays(self) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def _streamed_digests(self) -> dict[str, str]:
        raise NotImplementedError

    def _identity(self) -> dict[str, str]:
        """Attributes that change what a reader computes, and so belong to the digest."""
        return {"kind": self.kind, "settings": json.dumps(self._settings_that_count(), sort_keys=True)}

    def _settings_that_count(self) -> dict[str, Any]:
        """What readers take from the settings; a digest of other files in them is their own matter."""
        return {key: value for key, value in json.loads(self._settings).items() if not key.endswith("_digest")}

    def _finish(self) -> None:
        if len(set(self._clip_ids)) != len(self._clip_ids):
            seen: set[str] = set()
            twice = next(clip for clip in self._clip_ids if clip in seen or seen.add(clip))  # type: ignore[func-returns-value]
            raise SsondoError(f"{self.path}: clip {twice} was added twice; a shard holds a clip once")
        arrays = {"clip_id": _fixed(self._clip_ids, "clip", self.path), **self._arrays()}
        for name, values in arrays.items():
            self._file.create_dataset(name, data=values)
        self.digest = content_digest(
            {
                **self._identity(),
                **self._streamed_digests(),
                **{name: array_digest(values) for name, values in arrays.items()},
            }
        )
        self._file.attrs["digest"] = self.digest
        self._file.attrs["n_clips"] = len(self._clip_ids)
        self._file.attrs["complete"] = True


class AudioShardWriter(_Writer):
    """Write an audio shard clip by clip; it appears under its name when the block ends well.

    Args:
        path: final name; a digest is written beside it.
        sample_rate: of every clip in Hz; 0 where clips are kept as fetched.
        settings: what the clips were made with, kept as JSON.
        producer: the verb that writes it.
    """

    kind = "audio"

    def __init__(
        self, path: str | os.PathLike[str], *, sample_rate: int, settings: Mapping[str, Any], producer: str = ""
    ) -> None:
        super().__init__(path, settings, {"sample_rate": sample_rate, "producer": producer})
        self._sample_rate = sample_rate
        self._status: list[int] = []
        self._reason: list[str] = []
        self._duration_s: list[float] = []
        self._origin: list[bytes] = []
        self._identities: list[str] = []
        self._offset = [0]
        self._extra: dict[str, np.ndarray] = {}
        self._blob = self._file.create_dataset("blob", shape=(0,), maxshape=(None,), dtype="u1", chunks=(1 << 16,))
        self._blob_digest = hashlib.sha256()
        self._pending = bytearray()

    def add(
        self,
        clip_id: str,
        blob: bytes = b"",
        *,
        status: Status = Status.OK,
        reason: str = "",
        duration_s: float = float("nan"),
        origin: tuple[bytes, str, str] | None = None,
    ) -> None:
        """Add one clip.

        Args:
            clip_id: ASCII name, unique in the shard.
            blob: the encoded sound; empty unless `status` is OK.
            status: how the clip ended.
            reason: why it is not OK, or what was done to it ("padded from 3.10 s").
            duration_s: length of the real sound in seconds, before padding or cutting.
            origin: where the sound lies instead (see `ssondo.origins`): the place, its stamp, and what
                stands for the sound in the shard's digest.

        Raises:
            ValueError: if an OK clip has neither `blob` nor `origin`, or both, or another has one.
        """
        if bool(blob) + (origin is not None) != (status is Status.OK):
            raise ValueError(f"clip {clip_id}: status {status.name} with {len(blob)} bytes")
        place, stamp, identity = origin or (b"", "", "")
        self._origin.append(f"{stamp}|".encode("ascii") + place if origin else b"")
        self._identities.append(identity)
        self._clip_ids.append(clip_id)
        self._status.append(status)
        self._reason.append(reason.encode("ascii", "replace").decode()[:_REASON_BYTES])
        self._duration_s.append(duration_s)
        self._offset.append(self._offset[-1] + len(blob))
        self._pending += blob
        if len(self._pending) >= _BUFFER_BYTES:
            self._write_pending()

    def _write_pending(self) -> None:
        """Append the sound that waits: one large write is several times faster than one a clip."""
        start = self._blob.shape[0]
        self._blob.resize((start + len(self._pending),))
        self._blob[start:] = np.frombuffer(self._pending, dtype="u1")
        self._blob_digest.update(self._pending)
        self._pending = bytearray()
        self._disk.check()

    def add_extra(self, name: str, values: np.ndarray) -> None:
        """Add an array with one row a clip (labels, split, fold), in the order of `add`."""
        self._extra[name] = np.asarray(values)

    def _identity(self) -> dict[str, str]:
        return {**super()._identity(), "sample_rate": str(self._sample_rate)}

    def _streamed_digests(self) -> dict[str, str]:
        self._write_pending()
        if not any(self._origin):
            return {"blob": self._blob_digest.hexdigest()}
        self._file.create_dataset("origin", data=np.array(self._origin, dtype=np.bytes_))
        elsewhere = hashlib.sha256("\n".join(self._identities).encode()).hexdigest()
        return {"blob": self._blob_digest.hexdigest(), "origin": elsewhere}

    def _arrays(self) -> dict[str, np.ndarray]:
        for name, values in self._extra.items():
            if len(values) != len(self):
                raise ValueError(f"{name} has {len(values)} rows for {len(self)} clips")
        return {
            "status": np.array(self._status, dtype="u1"),
            "reason": _fixed(self._reason, "reason", self.path),
            "duration_s": np.array(self._duration_s, dtype="f4"),
            "offset": np.array(self._offset, dtype="i8"),
            **self._extra,
        }


class EmbeddingShardWriter(_Writer):
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
        with np.errstate(over="ignore"):
            rows = np.asarray(embeddings).astype(self._rows.dtype)
        if rows.shape != (len(clip_ids), self._rows.shape[1]):
            raise ValueError(f"{len(clip_ids)} clips with embeddings of shape {rows.shape}")
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            bad = clip_ids[int(np.argmin(finite))]
            raise SsondoError(
                f"{self.path}: the embedding of clip {bad} has a NaN or is too large for {rows.dtype}; "
                "check the checkpoint and that clip's sound, or store embeddings as float32"
            )
        n = len(self)
        self._rows.resize(n + len(rows), axis=0)
        self._rows[n:] = rows
        self._rows_digest.update(np.ascontiguousarray(rows).data if rows.size else b"")
        self._clip_ids.extend(clip_ids)
        self._disk.check()

    def add_extra(self, name: str, values: np.ndarray) -> None:
        """Add an array with one row a clip (labels, split, fold), in the order of `add`."""
        self._extra[name] = np.asarray(values)

    def _streamed_digests(self) -> dict[str, str]:
        return {"embedding": f"{self._rows.dtype.str}{self._rows.shape}{self._rows_digest.hexdigest()}"}

    def _arrays(self) -> dict[str, np.ndarray]:
        for name, values in self._extra.items():
            if len(values) != len(self):
                raise ValueError(f"{name} has {len(values)} rows for {len(self)} clips")
        return dict(self._extra)


class _Reader:
    """Open and check a shard; use as a context manager."""

    kind: str
    _required: tuple[str, ...]

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        remake = f"remove it and make it again with: snakemake {self.path}"
        if not self.path.is_file():
            raise SsondoError(f"{self.path}: no such shard; make it with: snakemake {self.path}")
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            raise SsondoError(f"{self.path}: not a readable HDF5 file, or cut short ({error}); {remake}") from None
        try:
            attributes = self._file.attrs
            version = attributes.get("format_version")
            if version != FORMAT_VERSION:
                raise SsondoError(
                    f"{self.path}: shard format version {version}, this ssondo reads {FORMAT_VERSION}; {remake}"
                )
            if attributes.get("kind") != self.kind:
                raise SsondoError(f"{self.path}: a shard of kind {attributes.get('kind')!r}, expected {self.kind!r}")
            missing = [name for name in self._required if name not in self._file]
            if missing or not attributes.get("complete"):
                raise SsondoError(f"{self.path}: incomplete ({', '.join(missing) or 'no end mark'}); {remake}")
            self.clip_ids: list[str] = [name.decode("ascii") for name in self._file["clip_id"][:]]
            if len(self.clip_ids) != attributes["n_clips"]:
                raise SsondoError(
                    f"{self.path}: {len(self.clip_ids)} clips where {attributes['n_clips']} are noted; {remake}"
                )
            self.digest: str = attributes["digest"]
            self.settings: dict[str, Any] = json.loads(attributes["settings"])
            self.producer: str = attributes["producer"]
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self.clip_ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; arrays that were read stay usable."""
        self._file.close()

    def extra(self, name: str) -> np.ndarray:
        """The array `name` that the writer added, one row a clip."""
        if name not in self._file:
            raise SsondoError(f"{self.path}: has no {name!r}; it holds {', '.join(sorted(self._file))}")
        return self._file[name][:]


class AudioShard(_Reader):
    """An audio shard: `clip_ids`, `status`, `duration_s`, `sample_rate`, and encoded sound by row."""

    kind = "audio"
    _required = ("clip_id", "status", "reason", "duration_s", "offset", "blob")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.sample_rate = int(self._file.attrs["sample_rate"])
        self.status: np.ndarray = self._file["status"][:]
        self.reasons = [reason.decode("ascii") for reason in self._file["reason"][:]]
        self.duration_s: np.ndarray = self._file["duration_s"][:]
        self._offset: np.ndarray = self._file["offset"][:]
        self._blob = self._file["blob"]
        self._origin: list[bytes] = list(self._file["origin"][:]) if "origin" in self._file else [b""] * len(self)
        if self._offset[-1] != self._blob.shape[0] or len(self._offset) != len(self) + 1:
            self.close()
            raise SsondoError(f"{self.path}: its index and its sound disagree; remove it and run snakemake again")

    @property
    def ok(self) -> np.ndarray:
        """Rows of the clips that are there, shape (n_ok,), in order."""
        return np.flatnonzero(self.status == Status.OK)

    def blob(self, row: int) -> bytes:
        """The encoded sound of the clip in `row`; empty if it is not there, or lies elsewhere (`origin`)."""
        return self._blob[self._offset[row] : self._offset[row + 1]].tobytes()

    def origin(self, row: int) -> tuple[bytes, str] | None:
        """The place and the stamp of the sound of the clip in `row` (see `ssondo.origins`); None if it is here."""
        if not self._origin[row]:
            return None
        stamp, _, place = self._origin[row].partition(b"|")
        return place, stamp.decode("ascii")


class EmbeddingShard(_Reader):
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


class ClusterWriter(_Writer):
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


class Clusters(_Reader):
    """What `cluster` found: `clip_ids`, `cluster` (n,) int32, `centroids` (k, embedding_dim) float32."""

    kind = "clusters"
    _required = ("clip_id", "cluster", "centroids")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.cluster: np.ndarray = self._file["cluster"][:]
        self.centroids: np.ndarray = self._file["centroids"][:]
