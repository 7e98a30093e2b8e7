"""Encode and decode the mono clips of audio shards; `ssondo.audio.decoding` decodes files of any other kind."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import soundfile

from ssondo.audio.waveform import resample_to
from ssondo.errors import SsondoError

CODECS = ("flac", "pcm16", "opus")
# The sample rates of libopus in Hz; other clips are resampled to the next higher one.
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)


def _to_pcm16(waveform: np.ndarray) -> np.ndarray:
    """Convert to int16; values outside [-1, 1) are clipped, and 16-bit samples are restored exactly."""
    scaled = np.asarray(waveform, dtype=np.float32) * np.float32(32768)
    np.rint(scaled, out=scaled)
    return np.clip(scaled, -32768, 32767, out=scaled).astype(np.int16)


def encode(waveform: np.ndarray, sample_rate: int, codec: str = "flac") -> bytes:
    """Encode a mono waveform.

    Args:
        waveform: Float32, shape (samples,), in [-1, 1]; values outside are clipped.
        sample_rate: Sample rate in Hz.
        codec: "flac" (16 bit, lossless), "pcm16" (16-bit WAV, which needs no decoding) or "opus" (lossy,
            in Ogg; 32 kHz audio is stored at 48 kHz, `decode_mono` resamples it).

    Raises:
        SsondoError: If the codec is unknown or not supported by the installed libsndfile.
    """
    if codec not in CODECS:
        raise SsondoError(f"audio codec {codec!r}: unknown; one of {', '.join(CODECS)}")
    buffer = io.BytesIO()
    if codec == "opus":
        if "OPUS" not in soundfile.available_subtypes("OGG"):
            raise SsondoError("audio codec 'opus': libsndfile was built without it; set the codec to flac")
        rate = min((rate for rate in _OPUS_RATES if rate >= sample_rate), default=_OPUS_RATES[-1])
        resampled = np.clip(resample_to(waveform, sample_rate, rate), -1, 1)
        soundfile.write(buffer, resampled, rate, format="OGG", subtype="OPUS")
    else:
        container = "FLAC" if codec == "flac" else "WAV"
        soundfile.write(buffer, _to_pcm16(waveform), sample_rate, format=container, subtype="PCM_16")
    return buffer.getvalue()


def encode_flac(waveform: np.ndarray, sample_rate: int) -> bytes:
    """Encode a mono waveform, shape (samples,), as 16-bit FLAC; values outside [-1, 1] are clipped."""
    return encode(waveform, sample_rate, "flac")


@contextmanager
def _as_file(blob: bytes) -> Iterator[int | io.BytesIO]:
    """Provide `blob` as a file for libsndfile: a file descriptor if the system supports files in memory.

    With a Python object libsndfile calls back for data hundreds of times per clip, and each call waits for
    the global interpreter lock, which decoding threads share with the thread that launches GPU kernels.
    """
    try:
        descriptor = os.memfd_create("clip")
    except (AttributeError, OSError):  # not Linux, or too many open files
        yield io.BytesIO(blob)
        return
    try:
        os.pwrite(descriptor, blob, 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _read_clip(blob: bytes, dtype: str = "float32") -> tuple[np.ndarray, int]:
    """Decode a mono clip, shape (samples,), at the sample rate at which it is stored."""
    try:
        with _as_file(blob) as file:
            waveform, rate = soundfile.read(file, dtype=dtype, closefd=False)
    except soundfile.LibsndfileError as error:
        raise SsondoError(
            f"a clip of {len(blob)} bytes cannot be decoded ({error.error_string}); make its shard again"
        ) from None
    if waveform.ndim != 1:
        raise SsondoError(f"a clip has {waveform.shape[1]} channels, expected one; run resample first")
    return waveform, rate


def decode_mono(blob: bytes, sample_rate: int) -> np.ndarray:
    """Decode a clip that `encode` returned to float32, shape (samples,), in [-1, 1].

    An Opus clip is resampled to `sample_rate`, the sample rate of its shard in Hz.

    Raises:
        SsondoError: If the clip cannot be decoded or has several channels.
    """
    return resample_to(*_read_clip(blob), sample_rate)


def decode_pcm16(blob: bytes, sample_rate: int) -> np.ndarray:
    """Decode a clip as `decode_mono` does, to int16, shape (samples,); lossless clips skip the step through float32."""
    if blob[:4] != b"OggS":
        samples, rate = _read_clip(blob, "int16")
        if rate == sample_rate:
            return samples
    return _to_pcm16(decode_mono(blob, sample_rate))
