"""Decode a part of a long file in little memory; an hour of stereo would need gigabytes."""

import io
import os
from typing import BinaryIO

import numpy as np

from ssondo.audio.decoders import declared_length_s, read_excerpt
from ssondo.audio.decoding import NOT_FINITE, Decoded, decode_file
from ssondo.errors import ClipError

# Shorter files are decoded completely, with all decoders.
_SHORT_S = 60.0
# Smaller files are rarely longer than `_SHORT_S`, and checking costs more than it saves.
_SMALL_BYTES = 1 << 18
_MARGIN_S = 1


def decode_excerpt(file: BinaryIO, start_s: float, end_s: float) -> Decoded:
    """Decode an excerpt of an audio or video file; its samples are those that decoding all of it gives.

    Args:
        file: The file, open for reading and seekable.
        start_s: Start of the excerpt in seconds.
        end_s: End of the excerpt in seconds; the file may end before.

    Returns:
        The excerpt, which may be empty; it is truncated if it is short because the file is truncated or damaged.

    Raises:
        ClipError: If the file holds no sound that can be read; the message says why.
        OSError: If the file cannot be read from the disk.
    """
    reader = _Reader(file)
    excerpt = read_excerpt(reader, start_s, end_s)
    reader.raise_error()
    if excerpt is None or (not excerpt.full and excerpt.total_s < _SHORT_S):
        file.seek(0)
        whole = decode_file(file.read())
        start, end = (round(time_s * whole.sample_rate) for time_s in (start_s, end_s))
        waveform = whole.waveform[:, start:end]
        return Decoded(waveform, whole.sample_rate, whole.truncated and waveform.shape[1] < end - start)
    waveform = excerpt.waveform()
    if not np.isfinite(waveform).all():
        raise ClipError(NOT_FINITE)
    return Decoded(waveform, excerpt.sample_rate, excerpt.truncated)


def decode_around_centre(file: BinaryIO, length_s: float) -> tuple[Decoded, int, float]:
    """Decode an audio or video file, or only the part around the centre of a long one; errors as in `decode_excerpt`.

    Args:
        file: The file, open for reading and seekable.
        length_s: Length of the part of a long file in seconds; one more second on each side is
            included for the edges of filters.

    Returns:
        The decoded part, with `truncated` for the whole file; the whole second of the file at which it
        starts; the length of all sound in the file in seconds.
    """
    size = file.seek(0, os.SEEK_END)
    reader = _Reader(file)
    if size > _SMALL_BYTES and not 0 < declared_length_s(reader) < _SHORT_S:
        # The length, and with it the centre, is certain only at the end, so the file is decoded twice.
        beyond_end_s = float(1 << 40)
        measured = read_excerpt(reader, beyond_end_s, beyond_end_s)
        reader.raise_error()
        if measured is not None and measured.total_s >= _SHORT_S:
            start_s = max(0, int((measured.total_s - length_s) / 2) - _MARGIN_S)
            part = decode_excerpt(file, start_s, start_s + length_s + 2 * _MARGIN_S + 1)
            return part._replace(truncated=measured.truncated), start_s, measured.total_s
    reader.raise_error()
    file.seek(0)
    whole = decode_file(file.read())
    return whole, 0, whole.duration_s


class _Reader(io.RawIOBase):
    """Wraps a file for libraries that treat a read error as the end of the file: stores the error for later."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        try:
            data = self._file.read(len(buffer))
        except OSError as error:
            self._error = error
            return 0
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def raise_error(self) -> None:
        """Raise the stored read error, if there is one."""
        if self._error is not None:
            raise self._error
