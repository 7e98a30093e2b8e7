"""Decode audio and video files of any kind.

libsndfile reads most files, PyAV those that it cannot read (m4a, mp4, webm) or reads only in part, and
the ffmpeg program is the last resort.
"""

import io
from dataclasses import dataclass

import numpy as np

from ssondo.audio.decoders import Excerpt, file_kind, longer_excerpt, read_excerpt, read_with_ffmpeg
from ssondo.errors import ClipError

NOT_FINITE = "holds samples that are not finite numbers"
"""The reason why a clip with infinite or undefined samples is not used."""
_MIN_TRUNCATED_S = 0.1


@dataclass(frozen=True)
class Decoded:
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


def decode(data: bytes) -> tuple[np.ndarray, int]:
    """Decode an audio or video file.

    Args:
        data: Content of the file.

    Returns:
        The waveform, float32, shape (channels, samples), and its sample rate in Hz. For a truncated
        file, the waveform of the part that can be read; `decode_file` reports the truncation.

    Raises:
        ClipError: If the file is empty, holds no samples, is too short to be read, or is not audio;
            the message says which.
    """
    decoded = decode_file(data)
    return decoded.waveform, decoded.sample_rate


def decode_file(data: bytes) -> Decoded:
    """Decode an audio or video file and report whether it is truncated.

    Args:
        data: Content of the file.

    Raises:
        ClipError: As for `decode`.
    """
    if not data:
        return _checked(None, data)
    best = read_excerpt(io.BytesIO(data))
    # The program is the last resort, because starting a process costs more than decoding.
    if best is None or (best.truncated and not best.position):
        best = longer_excerpt(best, read_with_ffmpeg(data))
    return _checked(best, data)


def _checked(excerpt: Excerpt | None, data: bytes) -> Decoded:
    waveform = None if excerpt is None else excerpt.waveform()
    reason = _why_unusable(excerpt, waveform, data)
    if excerpt is None or waveform is None or reason:
        raise ClipError(reason)
    return Decoded(waveform, excerpt.sample_rate, excerpt.truncated)


def _why_unusable(excerpt: Excerpt | None, waveform: np.ndarray | None, data: bytes) -> str:
    """Why the decoded file cannot be used; empty if it can. Shards keep this text."""
    if not data:
        return "empty file"
    kind = file_kind(data)
    if excerpt is None or waveform is None:
        if kind is None:
            return f"not audio (begins with {bytes(data[:12])!r})"
        return f"truncated or damaged {kind} file: no sound can be read ({len(data)} bytes)"
    if excerpt.truncated and excerpt.total_s < _MIN_TRUNCATED_S:
        return f"truncated {kind or 'file'}: only {excerpt.total_s:.2f} s can be read"
    if not waveform.size:
        return f"holds no samples ({kind or 'audio'} header only)"
    return "" if np.isfinite(waveform).all() else NOT_FINITE
