"""A part of a long file, decoded in bounded memory: an hour of stereo would be gigabytes.

What is before the part is decoded and dropped, and what is behind it is not read. To jump there would be
faster, but lossy codecs carry state and noise generators from frame to frame, and containers round their
times, so that the samples would be others than those of the whole file. Only samples that are kept as they
are can be jumped over.
"""

import io
import os
from contextlib import suppress
from dataclasses import replace
from typing import BinaryIO

import numpy as np
import soundfile

from ssondo.audio.codec import (
    DURATION_SLACK_S,
    OGG_PAGE,
    Decoded,
    declared_length_s,
    decode_file,
    ends_early,
    frame_samples,
    loses_its_end,
)
from ssondo.errors import SsondoError

_BLOCK = 1 << 16
# Of what is shorter all is decoded at once, with every way to read it.
_SHORT_S = 60.0
# In less than this there is seldom more sound, and to look costs more than it saves.
_SMALL_BYTES = 1 << 18
_MARGIN_S = 1
_STATELESS = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")


def decode_excerpt(file: BinaryIO, start_s: float, end_s: float) -> Decoded:
    """Decode a part of an audio or video file: the samples that decoding all of it gives there.

    Args:
        file: the whole file, open to read at any place.
        start_s: where the part begins, in seconds.
        end_s: where it ends; the file may end before.

    Returns:
        The part, which may be empty, and whether it was cut short because the file is cut or damaged.

    Raises:
        SsondoError: if the file holds no sound that can be read; the text says why.
        OSError: if the system does not let it be read.
    """
    best = _best(_Reader(file), start_s, end_s)
    if best is None or (not best.full and best.total_s < _SHORT_S):
        file.seek(0)
        whole = decode_file(file.read())
        start, end = (round(time_s * whole.sample_rate) for time_s in (start_s, end_s))
        part = whole.waveform[:, start:end]
        return Decoded(part, whole.sample_rate, whole.truncated and part.shape[1] < end - start)
    waveform = best.waveform()
    if not np.isfinite(waveform).all():
        raise SsondoError("holds samples that are not finite numbers")
    return Decoded(waveform, best.sample_rate, best.truncated)


def decode_around_centre(file: BinaryIO, length_s: float) -> tuple[Decoded, int, float]:
    """Decode an audio or video file, or of a long one only what is around its centre.

    Args:
        file: open to read at any place.
        length_s: how much of a long file is wanted on the whole, in seconds; there is a second
            more on both sides, for the edges of filters.

    Returns:
        What was decoded, with `truncated` for all of the file; at which whole second of the file it
        begins; the length of all sound in the file in seconds.

    Raises:
        SsondoError: as `decode_excerpt`.
        OSError: if the system does not let it be read.
    """
    size = file.seek(0, os.SEEK_END)
    reader = _Reader(file)
    if size > _SMALL_BYTES and not 0 < _declared_length_s(reader) < _SHORT_S:
        # How long a file is is known at its end, and only then where its centre was: all is decoded twice.
        behind_all = float(1 << 40)
        measured = _best(reader, behind_all, behind_all)
        if measured is not None and measured.total_s >= _SHORT_S:
            start_s = max(0, int((measured.total_s - length_s) / 2) - _MARGIN_S)
            part = decode_excerpt(file, start_s, start_s + length_s + 2 * _MARGIN_S + 1)
            return replace(part, truncated=measured.truncated), start_s, measured.total_s
    reader.check()
    file.seek(0)
    whole = decode_file(file.read())
    return whole, 0, whole.duration_s


def _best(reader: "_Reader", start_s: float, end_s: float) -> "_Part | None":
    """The part by whichever library has more of the file; None if neither can read it.

    Raises:
        OSError: if the system does not let it be read.
    """
    best = _with_soundfile(reader, start_s, end_s, jump=True)
    if best is None or not best.full:
        # It may be cut or damaged behind the jump or before; from the beginning the two are told apart.
        best = _with_soundfile(reader, start_s, end_s, jump=False)
    if best is None or best.truncated:
        other = _with_av(reader, start_s, end_s)
        if best is not None and other is not None:
            other.truncated = not other.full
        if best is None or (other is not None and other.total_s > best.total_s):
            best = other
    reader.check()
    return best


def _declared_length_s(reader: "_Reader") -> float:
    """The length that a file declares, in seconds; 0 where there is none."""
    reader.seek(0)
    with suppress(soundfile.LibsndfileError), soundfile.SoundFile(reader) as file:
        return float(file.frames / file.samplerate)
    try:
        import av
    except ImportError:
        return 0.0
    reader.seek(0)
    with (
        suppress(av.FFmpegError, ValueError),
        av.open(reader, mode="r", metadata_errors="ignore") as container,
    ):
        return declared_length_s(container, container.streams.audio[0]) if container.streams.audio else 0.0
    return 0.0


class _Reader(io.RawIOBase):
    """A file for libraries that take a disk's fault for the end of the file: it is kept, to be raised after them."""

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

    def check(self) -> None:
        """Raise what happened while a library read."""
        if self._error is not None:
            raise self._error


class _Part:
    """What was decoded of a file so far, of which a part is kept.

    Attributes:
        truncated: whether the part is short because the file is cut or damaged.
    """

    def __init__(self, sample_rate: int, start_s: float, end_s: float) -> None:
        self.sample_rate = sample_rate
        self.start, self.end = (round(time_s * sample_rate) for time_s in (start_s, end_s))
        self.position = 0
        self.truncated = False
        self._blocks: list[np.ndarray] = []

    @property
    def full(self) -> bool:
        """Whether all of the part is there."""
        return self.position >= self.end

    @property
    def total_s(self) -> float:
        """Seconds decoded so far, those that were dropped too."""
        return self.position / self.sample_rate

    def add(self, block: np.ndarray) -> None:
        """Take the next samples, shape (channels, samples)."""
        first, last = (min(max(0, edge - self.position), block.shape[1]) for edge in (self.start, self.end))
        # A copy, or all of the block is kept; an empty one keeps the number of channels.
        if last > first or not self._blocks:
            self._blocks.append(block[:, first:last].copy())
        self.position += block.shape[1]

    def waveform(self) -> np.ndarray:
        """The part, float32, shape (channels, samples)."""
        return np.concatenate(self._blocks, axis=1)


def _with_soundfile(reader: _Reader, start_s: float, end_s: float, *, jump: bool) -> _Part | None:
    """The part by libsndfile; None if it cannot open or read all of the file, or there is no jumping in it."""
    damaged = False
    reader.seek(0)
    try:
        with soundfile.SoundFile(reader) as file:
            if loses_its_end(file) or (jump and not file.subtype.startswith(_STATELESS)):
                return None
            declared, part = file.frames, _Part(file.samplerate, start_s, end_s)
            part.add(np.zeros((file.channels, 0), dtype=np.float32))
            if jump:
                part.position = file.seek(part.start)
            try:
                while not part.full and len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                    part.add(block.T)
            except soundfile.LibsndfileError:
                damaged = True
    except soundfile.LibsndfileError:
        return None
    missing_s = declared / part.sample_rate - part.total_s
    part.truncated = not part.full and (damaged or missing_s > DURATION_SLACK_S or _ends_early(reader))
    return part


def _with_av(reader: _Reader, start_s: float, end_s: float) -> _Part | None:
    """The part of the first sound track by PyAV; None if there is none or nothing of it can be read."""
    try:
        import av
    except ImportError:
        return None
    frames = av.AudioFifo()
    part: _Part | None = None
    n_bad = n_good = 0
    declared_s = float("inf")
    reader.seek(0)
    try:
        with av.open(reader, mode="r", metadata_errors="ignore") as container:
            if not container.streams.audio or container.streams.audio[0].codec_context is None:
                return None
            stream = container.streams.audio[0]
            for packet in container.demux(stream):
                try:
                    for frame in packet.decode():
                        frame.pts = None  # the queue wants times without gaps
                        frames.write(frame)
                    n_good += 1
                except (av.FFmpegError, ValueError):
                    n_bad += 1
                decoded = frames.read() if stream.codec_context.sample_rate else None
                if decoded is None:
                    continue
                if part is None:
                    part = _Part(stream.codec_context.sample_rate, start_s, end_s)
                part.add(frame_samples(decoded))
                if part.full:
                    break
            else:
                declared_s = declared_length_s(container, stream)
    except (av.FFmpegError, ValueError):
        pass
    # Noise is taken for a stream of broken packets now and then.
    if part is None or n_bad > n_good:
        return None
    part.truncated = not part.full and (n_bad > 0 or part.total_s < declared_s - DURATION_SLACK_S)
    return part


def _ends_early(reader: _Reader) -> bool:
    """Whether a WAV, AIFF or Ogg file lacks its end."""
    size = reader.seek(0, os.SEEK_END)
    reader.seek(0)
    head = reader.read(12) or b""
    reader.seek(max(0, size - OGG_PAGE))
    return ends_early(head, reader.readall() or b"", size)
