"""Audio shards: encoded clips, or where their sound lies.

with AudioShardWriter("audio/train-0000.h5", sample_rate=32000, settings={}) as shard:
    shard.add("-0BIyqJj9ZU", flac_bytes, duration_s=10.0)
with AudioShard("audio/train-0000.h5") as shard:
    for row in shard.ok:
        shard.clip_ids[row], shard.blob(row)
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssondo.errors import SsondoError
from ssondo.storage.shards.base import Reader, Writer, fixed_bytes
from ssondo.storage.shards.status import Status

_REASON_BYTES = 160
_BUFFER_BYTES = 4 << 20


class AudioShardWriter(Writer):
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
            origin: where the sound lies instead (see `ssondo.storage.clip_location`): the place, its stamp, and what
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
            "reason": fixed_bytes(self._reason, "reason", self.path),
            "duration_s": np.array(self._duration_s, dtype="f4"),
            "offset": np.array(self._offset, dtype="i8"),
            **self._extra,
        }


class AudioShard(Reader):
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
        """Place and fingerprint of the sound of clip `row` (`ssondo.storage.clip_location`); None if it is here."""
        if not self._origin[row]:
            return None
        stamp, _, place = self._origin[row].partition(b"|")
        return place, stamp.decode("ascii")
