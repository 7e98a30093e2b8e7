"""Audio shards: encoded clips, or the locations of their sound.

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
from ssondo.storage.shards.base import ShardReader, ShardWriter, fixed_bytes
from ssondo.storage.shards.status import Status

_MAX_REASON_BYTES = 160
_BUFFER_BYTES = 4 << 20


class AudioShardWriter(ShardWriter):
    """Write an audio shard clip by clip.

    Args:
        path: See `ShardWriter`.
        sample_rate: Sample rate of every clip in Hz; 0 where clips are stored as fetched.
        settings: See `ShardWriter`.
        producer: Name of the verb that writes the shard.
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
        self._location: list[bytes] = []
        self._location_identity: list[str] = []
        self._offset = [0]
        self._blob = self._file.create_dataset("blob", shape=(0,), maxshape=(None,), dtype="u1", chunks=(1 << 16,))
        self._blob_digest = hashlib.sha256()
        self._buffer = bytearray()

    def add(
        self,
        clip_id: str,
        blob: bytes = b"",
        *,
        status: Status = Status.OK,
        reason: str = "",
        duration_s: float = float("nan"),
        location: tuple[bytes, str, str] | None = None,
    ) -> None:
        """Add one clip.

        Args:
            clip_id: Name of the clip, ASCII, unique in the shard.
            blob: The encoded sound; empty unless `status` is OK.
            status: Status of the clip.
            reason: Why the clip is not OK, or how it was changed ("padded from 3.10 s").
            duration_s: Length of the original sound in seconds, before padding or cropping.
            location: Where the sound is stored instead, from `ClipLocation.to_shard` of `ssondo.storage.clip_location`:
                the location, its fingerprint, and the text that represents the sound in the digest of the shard.

        Raises:
            ValueError: If an OK clip has neither `blob` nor `location` or both, or if another clip has one of them.
        """
        if bool(blob) + (location is not None) != (status is Status.OK):
            raise ValueError(f"clip {clip_id}: status {status.name} with {len(blob)} bytes")
        encoded, fingerprint, identity = location or (b"", "", "")
        self._location.append(f"{fingerprint}|".encode("ascii") + encoded if location else b"")
        self._location_identity.append(identity)
        self._clip_ids.append(clip_id)
        self._status.append(status)
        self._reason.append(reason.encode("ascii", "replace").decode()[:_MAX_REASON_BYTES])
        self._duration_s.append(duration_s)
        self._offset.append(self._offset[-1] + len(blob))
        self._buffer += blob
        if len(self._buffer) >= _BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Write the buffered sound; one large write is several times faster than one per clip."""
        start = self._blob.shape[0]
        self._blob.resize((start + len(self._buffer),))
        self._blob[start:] = np.frombuffer(self._buffer, dtype="u1")
        self._blob_digest.update(self._buffer)
        self._buffer = bytearray()
        self._disk.raise_error()

    def _identity(self) -> dict[str, str]:
        return {**super()._identity(), "sample_rate": str(self._sample_rate)}

    def _streamed_digests(self) -> dict[str, str]:
        self._flush()
        if not any(self._location):
            return {"blob": self._blob_digest.hexdigest()}
        self._file.create_dataset("origin", data=np.array(self._location, dtype=np.bytes_))
        identities = hashlib.sha256("\n".join(self._location_identity).encode()).hexdigest()
        return {"blob": self._blob_digest.hexdigest(), "origin": identities}

    def _arrays(self) -> dict[str, np.ndarray]:
        return {
            "status": np.array(self._status, dtype="u1"),
            "reason": fixed_bytes(self._reason, "reason", self.path),
            "duration_s": np.array(self._duration_s, dtype="f4"),
            "offset": np.array(self._offset, dtype="i8"),
        }


class AudioShard(ShardReader):
    """An audio shard.

    Attributes:
        clip_ids: Names of the clips.
        status: Status of each clip, shape (n,).
        reasons: Why each clip is not OK, or how it was changed; "" if neither.
        duration_s: Length of the original sound in seconds, shape (n,); NaN where there is none.
        sample_rate: Sample rate in Hz; 0 where clips are stored as fetched.
    """

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
        self._location: list[bytes] = list(self._file["origin"][:]) if "origin" in self._file else [b""] * len(self)
        if self._offset[-1] != self._blob.shape[0] or len(self._offset) != len(self) + 1:
            self.close()
            raise SsondoError(f"{self.path}: `offset` and `blob` do not match; remove it and run snakemake again")

    @property
    def ok(self) -> np.ndarray:
        """Rows of the clips whose status is OK, shape (n_ok,), in ascending order."""
        return np.flatnonzero(self.status == Status.OK)

    def blob(self, row: int) -> bytes:
        """Read the encoded sound of a clip; empty if it is not OK or stored elsewhere (see `location`)."""
        return self._blob[self._offset[row] : self._offset[row + 1]].tobytes()

    def location(self, row: int) -> tuple[bytes, str] | None:
        """Arguments of `ClipLocation.from_bytes` for a clip that is stored elsewhere; None if it is in the shard."""
        if not self._location[row]:
            return None
        fingerprint, _, encoded = self._location[row].partition(b"|")
        return encoded, fingerprint.decode("ascii")
