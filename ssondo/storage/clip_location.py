"""Where a clip's sound lies when it is not in the shard: a file, a part of one, or a row of an HDF5 pack.

A fetched shard holds for such a clip an origin, and a stamp by which it is seen whether the sound
is still what it was. So what can be read in place is never copied.
"""

import hashlib
import io
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import h5py
import numpy as np

from ssondo.errors import SsondoError

_OPEN_PACKS = 16


class ClipLocation(NamedTuple):
    """A place of sound.

    Attributes:
        path: of the file; one that is not absolute stands beside the shard.
        part: "" for the whole file, "START+LENGTH" for some of its bytes, "COLUMN[ROW]@RATE" for a
            row of an HDF5 pack (RATE in Hz, of samples; 0 where a row is a file of its own).
        stamp: "SIZE-MTIME" of the whole file, or "sha256-..." of the part.
    """

    path: str
    part: str = ""
    stamp: str = ""

    def encoded(self) -> bytes:
        """As it is kept in shards and lists; any path will do."""
        return f"{self.part}|".encode("ascii") + os.fsencode(self.path)

    @classmethod
    def decoded(cls, text: bytes, stamp: str = "") -> "ClipLocation":
        """What `encoded` made bytes of."""
        part, _, path = text.partition(b"|")
        return cls(os.fsdecode(path), part.decode("ascii"), stamp)

    @property
    def identity(self) -> str:
        """What changes when the sound may have changed; the folder that it lies in is no matter."""
        return self.stamp if self.stamp.startswith("sha256-") else f"{self.stamp}|{self.part}"


class LocationChanged(SsondoError):
    """The sound is not there any more, or not what it was."""


def file_stamp(path: str | os.PathLike[str]) -> str:
    """Size and time of change of a file; "" if it cannot be opened."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (called a million times)
            stat = os.fstat(file.fileno())
    except OSError:
        return ""
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def part_stamp(data: bytes) -> str:
    """SHA-256 of a part, for `Origin.stamp`."""
    return f"sha256-{hashlib.sha256(data).hexdigest()[:32]}"


def stamped_size(stamp: str) -> int:
    """The size in a file's stamp."""
    return int(stamp.partition("-")[0] or 0)


def read_origin(origin: ClipLocation, folder: Path) -> bytes:
    """The sound as a file that `ssondo.audio.codec` decodes.

    Args:
        origin: where it lies.
        folder: of the shard, for a path that is not absolute.

    Raises:
        OriginChanged: if the file is gone or has another size, or the part another content.
        OSError: if it cannot be read.
    """
    path = folder / origin.path
    try:
        if "]@" in origin.part:
            return _pack_row(path, origin)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not origin.part:
                data = file.read()
            else:
                start, _, length = origin.part.partition("+")
                data = os.pread(file.fileno(), int(length), int(start))
    except FileNotFoundError:
        raise LocationChanged(f"{path}: is gone") from None
    _check(path, origin, size, data)
    return data


@contextmanager
def open_origin(origin: ClipLocation, folder: Path) -> Iterator[BinaryIO]:
    """The sound as a file to read from; a file of its own is opened where it lies, and need not fit into memory.

    Args:
        origin: where it lies.
        folder: of the shard, for a path that is not absolute.

    Raises:
        OriginChanged: as `read_origin`.
        OSError: if it cannot be read.
    """
    if origin.part:
        yield io.BytesIO(read_origin(origin, folder))
        return
    path = folder / origin.path
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise LocationChanged(f"{path}: is gone") from None
    with file:
        _check(path, origin, os.fstat(file.fileno()).st_size, b"")
        yield file


def _check(path: Path, origin: ClipLocation, size: int, data: bytes) -> None:
    if origin.stamp.startswith("sha256-"):
        if part_stamp(data) != origin.stamp:
            raise LocationChanged(f"{path}: is damaged, or not what it was ({origin.part})")
    elif origin.stamp and size != stamped_size(origin.stamp):
        raise LocationChanged(f"{path}: has {size} bytes and had {stamped_size(origin.stamp)}")


_packs: OrderedDict[Path, h5py.File] = OrderedDict()


def _pack(path: Path) -> h5py.File:
    """The pack, kept open: a shard's clips lie in few packs."""
    if path not in _packs:
        while len(_packs) >= _OPEN_PACKS:
            _packs.popitem(last=False)[1].close()
        _packs[path] = h5py.File(path, "r")
    _packs.move_to_end(path)
    return _packs[path]


def _pack_row(path: Path, origin: ClipLocation) -> bytes:
    """A row of an HDF5 pack: the file that it holds, or its samples as WAV."""
    place, _, rate = origin.part.partition("@")
    column, _, row = place.rstrip("]").rpartition("[")
    # Before it is opened: of a pack that was cut HDF5 says no more than of a damaged row.
    _check(path, origin, path.stat().st_size, b"")
    value: Any = _pack(path)[column][int(row)]
    if int(rate or 0) == 0:
        return bytes(value) if isinstance(value, bytes) else np.asarray(value, dtype=np.uint8).tobytes()
    return _wav(np.asarray(value), int(rate))


def _wav(samples: np.ndarray, sample_rate: int) -> bytes:
    """Samples as a WAV file of their own type: int16, or float32."""
    import soundfile

    buffer = io.BytesIO()
    integer = samples.dtype.kind == "i"
    values = samples.astype(np.int16 if integer else np.float32)
    soundfile.write(buffer, values, sample_rate, format="WAV", subtype="PCM_16" if integer else "FLOAT")
    return buffer.getvalue()
