"""Sound in and out of bytes: decode any file, mix down, resample, encode.

libsndfile reads most files inside the process, PyAV (the libraries of FFmpeg) what it does
not know (m4a, mp4, webm), and the ffmpeg program is the last try.
"""

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import soxr

from ssondo.errors import SsondoError

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream
    from av.container import InputContainer

CODECS = ("flac", "pcm16", "opus")
# libopus knows five rates; 32 kHz audio is kept at the next one above.
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_BLOCK = 1 << 16
# What libsndfile says of a file that does not say how long it is.
_NO_LENGTH = (1 << 63) - 1
# Encoders round to frames, so a header may promise a little more than there is.
DURATION_SLACK_S = 0.25
# More than the longest page of an Ogg file, in bytes.
OGG_PAGE = 1 << 17
_SHORTEST_REMAINS_S = 0.1
_MAGIC = {
    "wav": (0, b"RIFF"),
    "flac": (0, b"fLaC"),
    "ogg": (0, b"OggS"),
    "aiff": (0, b"FORM"),
    "au": (0, b".snd"),
    "mp3": (0, b"ID3"),
    "mp4": (4, b"ftyp"),
    "webm": (0, b"\x1aE\xdf\xa3"),
}


@dataclass(frozen=True)
class Decoded:
    """A decoded file.

    Attributes:
        waveform: float32, shape (channels, samples).
        sample_rate: in Hz.
        truncated: whether the file ends before the length that it declares, or is damaged at a
            place, so that the sound is a part of what it was.
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
        data: the whole file.

    Returns:
        The waveform, float32, shape (channels, samples), and its sample rate in Hz. Of a file
        that was cut short, the part that can be read (`decode_file` tells).

    Raises:
        SsondoError: if the file is empty, holds no samples, is cut so short that nothing can be
            read, or is not audio; the text says which.
    """
    decoded = decode_file(data)
    return decoded.waveform, decoded.sample_rate


def decode_file(data: bytes) -> Decoded:
    """Decode an audio or video file and tell whether it was cut short.

    Args:
        data: the whole file.

    Raises:
        SsondoError: as `decode`.
    """
    if not data:
        raise SsondoError("empty file")
    best = _read_soundfile(data)
    if best is None or best.truncated:
        best = _longer(best, _read_av(data))
    # The program comes last: starting a process costs more than decoding does.
    if best is None or (best.truncated and not best.waveform.size):
        best = _longer(best, _read_ffmpeg(data))
    return _checked(best, data)


def _longer(first: Decoded | None, second: Decoded | None) -> Decoded | None:
    """Whichever reading of one file has more sound; damaged if either says so."""
    if first is None or second is None:
        return first or second
    longer = second if second.duration_s > first.duration_s else first
    return replace(longer, truncated=first.truncated or second.truncated)


def _checked(decoded: Decoded | None, data: bytes) -> Decoded:
    """`decoded`, or the reason why it is no use."""
    kind = _kind(data)
    if decoded is None:
        if kind is None:
            raise SsondoError(f"not audio (begins with {bytes(data[:12])!r})")
        raise SsondoError(f"truncated or damaged {kind} file: no sound can be read ({len(data)} bytes)")
    if decoded.truncated and decoded.duration_s < _SHORTEST_REMAINS_S:
        raise SsondoError(f"truncated {kind or 'file'}: only {decoded.duration_s:.2f} s can be read")
    if not decoded.waveform.size:
        raise SsondoError(f"holds no samples ({kind or 'audio'} header only)")
    if not np.isfinite(decoded.waveform).all():
        raise SsondoError("holds samples that are not finite numbers")
    return decoded


def _kind(data: bytes) -> str | None:
    """What sort of file `data` claims to be, or None if that is no sound file known here."""
    for kind, (start, magic) in _MAGIC.items():
        if data[start : start + len(magic)] == magic:
            return kind
    # Frames without a header: eleven bits of sync word, then the layer.
    if len(data) > 1 and data[0] == 0xFF:
        return {0xE2: "mp3", 0xF0: "aac"}.get(data[1] & (0xE6 if data[1] & 0x06 else 0xF6))
    return None


def ends_early(head: bytes, tail: bytes, size: int) -> bool:
    """Whether a WAV, AIFF or Ogg file lacks its end; libsndfile takes them as they are.

    A WAV that was written to a pipe declares the largest size, or none.

    Args:
        head: how the file begins, twelve bytes or more.
        tail: how it ends, `OGG_PAGE` bytes or all of it.
        size: of the whole file in bytes.
    """
    kind = _kind(head)
    if kind in ("wav", "aiff"):
        declared = int.from_bytes(head[4:8], "little" if kind == "wav" else "big") + 8
        return size < declared < 0x7FFF_0000
    if kind == "ogg":
        page = tail.rfind(b"OggS")
        return page + 5 >= len(tail) or not tail[page + 5] & 4 or _last_page_is_cut(tail, page)
    return False


def _last_page_is_cut(data: bytes, page: int) -> bool:
    """Whether the Ogg page that begins at `page` is longer than what is left of `data`."""
    table = page + 27
    if table > len(data):
        return True
    sizes = data[table : table + data[page + 26]]
    return len(sizes) < data[page + 26] or table + len(sizes) + sum(sizes) > len(data)


def loses_its_end(file: soundfile.SoundFile) -> bool:
    """Whether libsndfile drops the last samples: of a FLAC file that went through a pipe and declares no length."""
    return file.format == "FLAC" and file.frames == _NO_LENGTH


def _read_soundfile(data: bytes) -> Decoded | None:
    """Decode with libsndfile; None if it cannot open the file, or not read all of it.

    Blocks, not one read: the declared number of frames may be wrong (an Ogg file that was cut
    declares the largest integer), and a FLAC file that was cut fails in the middle of a read.
    """
    blocks: list[np.ndarray] = []
    damaged = False
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if loses_its_end(file):
                return None
            sample_rate, declared, channels = file.samplerate, file.frames, file.channels
            try:
                while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                    blocks.append(block)
            except soundfile.LibsndfileError:
                damaged = True
    except soundfile.LibsndfileError:
        return None
    waveform = np.concatenate([np.zeros((0, channels), dtype=np.float32), *blocks]).T
    missing_s = (declared - waveform.shape[1]) / sample_rate
    truncated = damaged or ends_early(data, data, len(data)) or missing_s > DURATION_SLACK_S
    return Decoded(np.ascontiguousarray(waveform), sample_rate, truncated)


def _read_av(data: bytes) -> Decoded | None:
    """Decode the first sound track with PyAV; None if there is none or nothing of it can be read."""
    try:
        import av
    except ImportError:
        return None
    # A queue inside the library: thousands of small arrays, one a frame, cost as much as half the decoding.
    frames = av.AudioFifo()
    n_bad = n_good = 0
    try:
        with av.open(io.BytesIO(data), mode="r", metadata_errors="ignore") as container:
            if not container.streams.audio:
                return None
            stream = container.streams.audio[0]
            if stream.codec_context is None:  # of a codec that is not known here
                return None
            for packet in container.demux(stream):
                try:
                    for frame in packet.decode():
                        frame.pts = None  # the queue wants times without gaps
                        frames.write(frame)
                except (av.FFmpegError, ValueError):
                    n_bad += 1
                    continue
                n_good += 1
            sample_rate = stream.codec_context.sample_rate
            declared_s = declared_length_s(container, stream)
    except (av.FFmpegError, ValueError):
        if not frames.samples:
            return None
        sample_rate, declared_s = stream.codec_context.sample_rate, float("inf")
    # Noise is taken for a stream of broken packets now and then.
    if not frames.samples or not sample_rate or n_bad > n_good:
        return None
    whole = frames.read()
    assert whole is not None  # it has samples
    waveform = frame_samples(whole)
    truncated = n_bad > 0 or waveform.shape[1] / sample_rate < declared_s - DURATION_SLACK_S
    return Decoded(np.ascontiguousarray(waveform, dtype=np.float32), sample_rate, truncated)


def frame_samples(frame: "AudioFrame") -> np.ndarray:
    """The sound of one frame, float32, shape (channels, samples)."""
    import av

    n_channels = frame.layout.nb_channels
    # Of more than seven planes PyAV counts more than there are.
    wanted = "fltp" if n_channels < 8 else "flt"
    if frame.format.name == wanted:  # as most decoders give it: no copy more
        parts = [frame.to_ndarray()]
    else:
        parts = [part.to_ndarray() for part in av.AudioResampler(format=wanted).resample(frame)]
    if wanted == "flt":
        parts = [part.reshape(-1, n_channels).T for part in parts]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def declared_length_s(container: "InputContainer", stream: "AudioStream") -> float:
    """Length in seconds that the container declares; 0 where it only guesses one from the bit rate."""
    if not set(container.format.name.split(",")) & {"mp4", "matroska", "flac", "ogg"}:
        return 0.0
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    # A webm that begins in the middle of a video counts its duration from zero.
    start_s = max(0, container.start_time or 0) / 1e6
    return (container.duration or 0) / 1e6 - start_s


@cache
def ffmpeg_binary() -> str | None:
    """Path of the ffmpeg program: the one on PATH, else that of imageio-ffmpeg, else None."""
    if found := shutil.which("ffmpeg"):
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


def _read_ffmpeg(data: bytes) -> Decoded | None:
    """Decode with the ffmpeg program; None if there is no ffmpeg or it finds no sound."""
    binary = ffmpeg_binary()
    if binary is None:
        return None
    try:
        import ffmpeg
    except ImportError:
        return None
    # A file, not a pipe: an mp4 may have its index at the end, and ffmpeg must seek to it.
    with tempfile.NamedTemporaryFile(prefix="ssondo-") as file:
        file.write(data)
        file.flush()
        command = ffmpeg.input(os.fspath(file.name)).output("pipe:", format="wav", acodec="pcm_f32le", vn=None)
        try:
            wav, _ = command.run(cmd=[binary, "-nostdin", "-v", "error"], capture_stdout=True, capture_stderr=True)
        except ffmpeg.Error:
            return None
    return _read_soundfile(wav) if wav else None


def to_mono(waveform: np.ndarray) -> np.ndarray:
    """The mean of all channels: (channels, samples) -> (samples,)."""
    if len(waveform) == 1:
        return waveform[0]
    total = waveform.sum(axis=0, dtype=np.float32)
    total /= np.float32(len(waveform))  # `mean` divides in float64, three passes more for the same bits
    return total


def resampled_length(n_samples: int, from_rate: int, to_rate: int) -> int:
    """How many samples `resample_to` makes of `n_samples`; rates in Hz."""
    return round(n_samples * to_rate / from_rate)


def resample_to(waveform: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resample along the last axis with soxr's HQ filter.

    Args:
        waveform: float32, shape (samples,) or (channels, samples).
        from_rate: its sample rate in Hz.
        to_rate: the wanted one in Hz.

    Returns:
        float32, with `resampled_length` samples; `waveform` itself if the rates agree.
    """
    if from_rate == to_rate:
        return waveform
    n_samples = resampled_length(waveform.shape[-1], from_rate, to_rate)
    resampled = soxr.resample(waveform.T, from_rate, to_rate, quality="HQ").T
    # soxr rounds the end as this does in every case tried; the promise must not hang on that.
    return np.ascontiguousarray(fit_end(resampled, n_samples), dtype=np.float32)


def fit_end(waveform: np.ndarray, n_samples: int) -> np.ndarray:
    """Cut or zero-pad the last axis at its end."""
    missing = n_samples - waveform.shape[-1]
    if missing <= 0:
        return waveform[..., :n_samples]
    return np.pad(waveform, [(0, 0)] * (waveform.ndim - 1) + [(0, missing)])


def _pcm16(waveform: np.ndarray) -> np.ndarray:
    """Samples as int16; values outside [-1, 1) are clipped, and what was 16 bit before comes back exactly."""
    scaled = np.asarray(waveform, dtype=np.float32) * np.float32(32768)
    np.rint(scaled, out=scaled)
    return np.clip(scaled, -32768, 32767, out=scaled).astype(np.int16)


def encode(waveform: np.ndarray, sample_rate: int, codec: str = "flac") -> bytes:
    """Encode a mono waveform.

    Args:
        waveform: float32, shape (samples,), in [-1, 1]; what is outside is clipped.
        sample_rate: in Hz.
        codec: "flac" (16 bit, lossless), "pcm16" (16 bit WAV, no
            decoding) or "opus" (lossy, in Ogg; kept at 48 kHz, read it with `decode_mono`).

    Raises:
        SsondoError: if the codec is unknown or this libsndfile lacks it.
    """
    if codec not in CODECS:
        raise SsondoError(f"audio codec {codec!r}: unknown; one of {', '.join(CODECS)}")
    buffer = io.BytesIO()
    if codec == "opus":
        if "OPUS" not in soundfile.available_subtypes("OGG"):
            raise SsondoError("audio codec 'opus': libsndfile was built without it; set the codec to flac")
        rate = min((rate for rate in _OPUS_RATES if rate >= sample_rate), default=_OPUS_RATES[-1])
        sound = np.clip(resample_to(waveform, sample_rate, rate), -1, 1)
        soundfile.write(buffer, sound, rate, format="OGG", subtype="OPUS")
    else:
        container = "FLAC" if codec == "flac" else "WAV"
        soundfile.write(buffer, _pcm16(waveform), sample_rate, format=container, subtype="PCM_16")
    return buffer.getvalue()


def encode_flac(waveform: np.ndarray, sample_rate: int) -> bytes:
    """Encode a mono waveform, shape (samples,), as 16-bit FLAC; values outside [-1, 1] are clipped."""
    return encode(waveform, sample_rate, "flac")


@contextmanager
def _as_file(blob: bytes) -> Iterator[int | io.BytesIO]:
    """`blob` as a file for libsndfile: a descriptor, where the system has files in memory.

    Of an object of Python libsndfile asks hundreds of times a clip for the next bytes, and each time it would wait
    for Python's lock, which the threads that decode share with the one that launches a GPU's work.
    """
    try:
        descriptor = os.memfd_create("clip")
    except (AttributeError, OSError):  # not Linux, or no more descriptors
        yield io.BytesIO(blob)
        return
    try:
        os.pwrite(descriptor, blob, 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _read_clip(blob: bytes, dtype: str = "float32") -> tuple[np.ndarray, int]:
    """A mono clip, shape (samples,), and the rate it is kept at."""
    try:
        with _as_file(blob) as file:
            waveform, rate = soundfile.read(file, dtype=dtype, closefd=False)
    except soundfile.LibsndfileError as error:
        raise SsondoError(
            f"a clip of {len(blob)} bytes cannot be decoded ({error.error_string}); make its shard again"
        ) from None
    if waveform.ndim != 1:
        raise SsondoError(f"a clip with {waveform.shape[1]} channels where one is expected; run resample first")
    return waveform, rate


def decode_mono(blob: bytes, sample_rate: int) -> np.ndarray:
    """Decode a clip of an audio shard, in whichever codec the shard is.

    Args:
        blob: a clip that `encode` wrote.
        sample_rate: of the shard in Hz; Opus is resampled to it.

    Returns:
        float32, shape (samples,), in [-1, 1].

    Raises:
        SsondoError: if the clip cannot be decoded or has several channels.
    """
    return resample_to(*_read_clip(blob), sample_rate)


def decode_pcm16(blob: bytes, sample_rate: int) -> np.ndarray:
    """Decode a clip of an audio shard as `decode_mono` does, to int16; without a detour through float32 if it can.

    Returns:
        int16, shape (samples,).

    Raises:
        SsondoError: as `decode_mono`.
    """
    if blob[:4] != b"OggS":
        samples, rate = _read_clip(blob, "int16")
        if rate == sample_rate:
            return samples
    return _pcm16(decode_mono(blob, sample_rate))


def decode_flac_mono(blob: bytes) -> np.ndarray:
    """Decode a mono FLAC (or WAV) clip of an audio shard at its own sample rate.

    For a shard whose codec may be Opus use `decode_mono`, which knows the shard's rate.

    Returns:
        float32, shape (samples,), in [-1, 1].

    Raises:
        SsondoError: if the clip cannot be decoded, has several channels, or is Opus.
    """
    if blob[:4] == b"OggS":
        raise SsondoError("an Opus clip, which is not kept at the shard's rate; decode it with decode_mono")
    return _read_clip(blob)[0]
