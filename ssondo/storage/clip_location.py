"""The location of a clip whose sound is not stored in the shard: a file, a byte range, or a row of an HDF5 pack.

In this way sound that can be read in place is never copied.
"""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import h5py
import numpy as np

from ssondo.errors import SsondoError


class ClipLocation(NamedTuple):
    """Where the sound of a clip is stored, and the fingerprint by which a later change of it is detected.

    Attributes:
        path: Path of the file, absolute or relative to the folder of the shard.
        selector: Which part of the file holds the clip: "" for the whole file, "START+LENGTH" for a
            byte range, "COLUMN[ROW]@RATE" for a row of an HDF5 pack. RATE is the sample rate of the
            samples in Hz, or 0 where a row is itself an encoded file.
        fingerprint: "SIZE-MTIME" of the whole file, or "sha256-..." of the selected bytes.
    """

    path: str
    selector: str = ""
    fingerprint: str = ""

    def to_bytes(self) -> bytes:
        """The selector and the path as they are stored in shards and lists; the path may hold any bytes."""
        return f"{self.selector}|".encode("ascii") + os.fsencode(self.path)

    @classmethod
    def from_bytes(cls, data: bytes, fingerprint: str = "") -> "ClipLocation":
        """The inverse of `to_bytes`."""
        selector, _, path = data.partition(b"|")
        return cls(os.fsdecode(path), selector.decode("ascii"), fingerprint)

    def to_shard(self) -> tuple[bytes, str, str]:
        """The argument `location` of `AudioShardWriter.add`."""
        is_content = self.fingerprint.startswith("sha256-")
        # Differs where the sound may differ, and does not depend on the folder of the file.
        identity = self.fingerprint if is_content else f"{self.fingerprint}|{self.selector}"
        return self.to_bytes(), self.fingerprint, identity


class LocationChanged(SsondoError):
    """The file of a clip was removed, or its content has changed."""


def file_fingerprint(path: str | os.PathLike[str]) -> str:
    """Size and modification time of a file, "SIZE-MTIME"; "" if it cannot be opened."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (called a million times)
            stat = os.fstat(file.fileno())
    except OSError:
        return ""
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def content_fingerprint(data: bytes) -> str:
    """Fingerprint of the bytes of a clip, "sha256-" and the first 32 hexadecimal digits."""
    return f"sha256-{hashlib.sha256(data).hexdigest()[:32]}"


def fingerprint_size(fingerprint: str) -> int:
    """Size of the file in bytes, from its fingerprint; 0 for an empty fingerprint."""
    return int(fingerprint.partition("-")[0] or 0)


@contextmanager
def open_clip(location: ClipLocation, folder: Path) -> Iterator[BinaryIO]:
    """Open the sound of a clip as an encoded file; a whole file is opened in place, so it need not fit into memory.

    Args:
        location: Where the sound is stored.
        folder: Folder of the shard, to which a relative path refers.

    Raises:
        LocationChanged: If the file is missing or has another size, or if the selected bytes have changed.
        OSError: If the file cannot be read.
    """
    path, fingerprint = folder / location.path, location.fingerprint
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise LocationChanged(f"{path}: no longer exists") from None
    with file:
        size = os.fstat(file.fileno()).st_size
        is_content = fingerprint.startswith("sha256-")
        # Checked before reading: HDF5 reports a truncated pack with the same error as a damaged row.
        if fingerprint and not is_content and size != fingerprint_size(fingerprint):
            raise LocationChanged(f"{path}: has {size} bytes, but had {fingerprint_size(fingerprint)}")
        if not location.selector:
            yield file
        elif "]@" in location.selector:
            yield io.BytesIO(_read_pack_row(path, location.selector))
        else:
            start, _, length = location.selector.partition("+")
            data = os.pread(file.fileno(), int(length), int(start))
            if is_content and content_fingerprint(data) != fingerprint:
                raise LocationChanged(f"{path}: the bytes {location.selector} were changed or damaged")
            yield io.BytesIO(data)


def read_clip(location: ClipLocation, folder: Path) -> bytes:
    """Read the sound that `open_clip` opens."""
    with open_clip(location, folder) as file:
        return file.read()


@lru_cache(maxsize=16)
def _open_pack(path: Path) -> h5py.File:
    """Packs are kept open, because the clips of a shard lie in few of them."""
    return h5py.File(path, "r")


def _read_pack_row(path: Path, selector: str) -> bytes:
    """Read a row of an HDF5 pack: the encoded file that it holds, or its samples as a WAV file."""
    cell, _, rate = selector.partition("@")
    column, _, row = cell.rstrip("]").rpartition("[")
    value: Any = _open_pack(path)[column][int(row)]
    if int(rate or 0) == 0:
        return bytes(value) if isinstance(value, bytes) else np.asarray(value, dtype=np.uint8).tobytes()
    return _encode_wav(np.asarray(value), int(rate))


def _encode_wav(samples: np.ndarray, sample_rate: int) -> bytes:
    """Encode samples as a WAV file: integers as int16, others as float32."""
    import soundfile

    buffer = io.BytesIO()
    is_integer = samples.dtype.kind == "i"
    values = samples.astype(np.int16 if is_integer else np.float32)
    soundfile.write(buffer, values, sample_rate, format="WAV", subtype="PCM_16" if is_integer else "FLOAT")
    return buffer.getvalue()
