"""Decode audio and video files of any kind.

libsndfile reads most files, PyAV those that it cannot read (m4a, mp4, webm) or reads only in part, and
the ffmpeg program is the last resort.
"""

import io
from typing import NamedTuple

import numpy as np

from ssondo.audio.decoders import file_kind, longer_excerpt, read_excerpt, read_with_ffmpeg
from ssondo.errors import ClipError

NOT_FINITE = "holds samples that are not finite numbers"
"""The reason why a clip with infinite or undefined samples is not used."""
_MIN_TRUNCATED_S = 0.1


class Decoded(NamedTuple):
    """A decoded file.

    Attributes:
        waveform: Float32, shape (channels, samples).
        sample_rate: Sample rate in Hz.
        truncated: Whether the file ends before the length that it declares or is damaged, so that
            some of its sound is missing.
    """

    waveform: np.ndarray
    sample_rate: int
    truncated: bool = False

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.waveform.shape[1] / self.sample_rate


def decode_file(data: bytes) -> Decoded:
    """Decode the content of an audio or video file, or the part of a truncated file that can be read.

    Raises:
        ClipError: If the file is empty, holds no samples, is too short to be read, or is not audio;
            the message says which. Shards keep this text.
    """
    if not data:
        raise ClipError("empty file")
    best = read_excerpt(io.BytesIO(data))
    # The program is the last resort, because starting a process costs more than decoding.
    if best is None or (best.truncated and not best.position):
        best = longer_excerpt(best, read_with_ffmpeg(data))
    kind = file_kind(data)
    if best is None and kind is None:
        raise ClipError(f"not audio (begins with {bytes(data[:12])!r})")
    if best is None:
        raise ClipError(f"truncated or damaged {kind} file: no sound can be read ({len(data)} bytes)")
    if best.truncated and best.total_s < _MIN_TRUNCATED_S:
        raise ClipError(f"truncated {kind or 'file'}: only {best.total_s:.2f} s can be read")
    waveform = best.waveform()
    if not waveform.size:
        raise ClipError(f"holds no samples ({kind or 'audio'} header only)")
    if not np.isfinite(waveform).all():
        raise ClipError(NOT_FINITE)
    return Decoded(waveform, best.sample_rate, best.truncated)
