"""The three decoders: libsndfile (soundfile), the FFmpeg libraries (PyAV), and the ffmpeg program.

Each returns the samples of a file between two times as an `Excerpt`, or None if it cannot read the file.
What precedes the excerpt is decoded and dropped, and what follows it is not read, so an excerpt of a long
file needs little memory. Seeking would be faster, but lossy codecs carry state from frame to frame and
containers round their times, so the samples would differ from those of the whole file. Therefore only
formats that store samples without state are seeked in.
"""

import io
import math
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import soundfile

if TYPE_CHECKING:
    from av import AudioFifo, AudioFrame, AudioStream
    from av.container import InputContainer

    File = BinaryIO | io.RawIOBase

# Samples per block. Clips of 10 s fit into one block of PyAV, whose conversion to float costs per block.
_SOUNDFILE_BLOCK = 1 << 16
_AV_BLOCK = 1 << 19
# The number of frames that libsndfile reports for a file that does not declare its length.
_NO_LENGTH = (1 << 63) - 1
# Encoders round to whole frames, so a header may declare a little more than the file contains.
_DURATION_SLACK_S = 0.25
# Longer than the longest page of an Ogg file, in bytes.
_OGG_PAGE = 1 << 17
_STATELESS_SUBTYPES = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
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


class Excerpt:
    """The samples of a file between two times, collected block by block.

    Args:
        sample_rate: Sample rate of the file in Hz.
        start_s: Start of the excerpt in seconds.
        end_s: End of the excerpt in seconds; infinity for the end of the file.

    Attributes:
        position: Number of samples decoded so far, including those before the excerpt.
        truncated: Whether the excerpt is shorter than it should be because the file is truncated or damaged.
    """

    def __init__(self, sample_rate: int, start_s: float, end_s: float) -> None:
        self.sample_rate = sample_rate
        self.start = round(start_s * sample_rate)
        self.end = sys.maxsize if math.isinf(end_s) else round(end_s * sample_rate)
        self.position = 0
        self.truncated = False
        self._blocks: list[np.ndarray] = []

    @property
    def full(self) -> bool:
        """Whether all samples up to the end of the excerpt were decoded."""
        return self.position >= self.end

    @property
    def total_s(self) -> float:
        """Seconds decoded so far, including those before the excerpt."""
        return self.position / self.sample_rate

    def add(self, block: np.ndarray) -> None:
        """Append the next samples of the file, shape (channels, samples)."""
        first, last = (min(max(0, edge - self.position), block.shape[1]) for edge in (self.start, self.end))
        # An empty first block is kept because it has the number of channels.
        if last > first or not self._blocks:
            kept = block[:, first:last]
            # Without a copy, a few samples would keep all of the block in memory.
            self._blocks.append(kept if last - first == block.shape[1] else kept.copy())
        self.position += block.shape[1]

    def waveform(self) -> np.ndarray:
        """The samples, float32, shape (channels, samples)."""
        # The first block may be empty; a single other one needs no copy.
        blocks = [block for block in self._blocks if block.shape[1]] or self._blocks[:1]
        joined = blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)
        return np.ascontiguousarray(joined, dtype=np.float32)


def read_excerpt(file: "File", start_s: float = 0.0, end_s: float = math.inf) -> Excerpt | None:
    """Read an excerpt with libsndfile, or with PyAV if it can read more of the file.

    Args:
        file: A seekable binary file.
        start_s: Start of the excerpt in seconds.
        end_s: End of the excerpt in seconds; infinity for the end of the file.

    Returns:
        The excerpt; None if neither library can read the file.
    """
    best = read_with_soundfile(file, start_s, end_s, seek=True) if start_s > 0 else None
    if best is None or not best.full:
        # The file may be damaged before the excerpt; without seeking, the damage is found.
        best = read_with_soundfile(file, start_s, end_s)
    if best is None or best.truncated:
        best = longer_excerpt(best, read_with_av(file, start_s, end_s))
    return best


def longer_excerpt(first: Excerpt | None, second: Excerpt | None) -> Excerpt | None:
    """The one of two excerpts of the same file that decoded more; it is truncated if either is."""
    if first is None or second is None:
        return first or second
    longer = second if second.total_s > first.total_s else first
    longer.truncated = (first.truncated or second.truncated) and not longer.full
    return longer


def read_with_soundfile(
    file: "File", start_s: float = 0.0, end_s: float = math.inf, *, seek: bool = False
) -> Excerpt | None:
    """Read an excerpt with libsndfile.

    It is read in blocks, because the declared number of frames may be wrong (a truncated Ogg file declares
    the largest integer) and a truncated FLAC file fails in the middle of a read. With `seek`, what precedes the
    excerpt is not decoded; the result is None if the format does not allow to seek exactly.
    """
    is_damaged = False
    file.seek(0)
    try:
        with soundfile.SoundFile(file) as sound:
            # libsndfile drops the last samples of a FLAC file that was written to a pipe and declares no length.
            if sound.format == "FLAC" and sound.frames == _NO_LENGTH:
                return None
            if seek and not sound.subtype.startswith(_STATELESS_SUBTYPES):
                return None
            n_declared, excerpt = sound.frames, Excerpt(sound.samplerate, start_s, end_s)
            excerpt.add(np.zeros((sound.channels, 0), dtype=np.float32))
            if seek:
                excerpt.position = sound.seek(excerpt.start)
            try:
                while not excerpt.full and len(block := sound.read(_SOUNDFILE_BLOCK, dtype="float32", always_2d=True)):
                    excerpt.add(block.T)
            except soundfile.LibsndfileError:
                is_damaged = True
    except soundfile.LibsndfileError:
        return None
    missing_s = n_declared / excerpt.sample_rate - excerpt.total_s
    excerpt.truncated = not excerpt.full and (is_damaged or missing_s > _DURATION_SLACK_S or _lacks_its_end(file))
    return excerpt


def read_with_av(file: "File", start_s: float = 0.0, end_s: float = math.inf) -> Excerpt | None:
    """Read an excerpt of the first audio stream with PyAV, if it is installed."""
    try:
        import av
    except ImportError:
        return None
    # A queue inside the library: thousands of small arrays, one per frame, cost half as much as the decoding.
    frames = av.AudioFifo()
    excerpt: Excerpt | None = None
    n_bad = n_good = 0
    declared_s = math.inf
    file.seek(0)
    with suppress(av.FFmpegError, ValueError), av.open(file, mode="r", metadata_errors="ignore") as container:
        # A stream with an unknown codec has no context.
        if not container.streams.audio or container.streams.audio[0].codec_context is None:
            return None
        stream = container.streams.audio[0]
        for packet in container.demux(stream):
            try:
                for frame in packet.decode():
                    frame.pts = None  # the queue requires timestamps without gaps
                    frames.write(frame)
                n_good += 1
            except (av.FFmpegError, ValueError):
                n_bad += 1
            if excerpt is None and frames.samples and stream.codec_context.sample_rate:
                excerpt = Excerpt(stream.codec_context.sample_rate, start_s, end_s)
            if excerpt and (frames.samples >= _AV_BLOCK or excerpt.position + frames.samples >= excerpt.end):
                _drain(frames, excerpt)
            if excerpt and excerpt.full:
                break
        else:
            declared_s = _declared_by_container_s(container, stream)
    # Noise is sometimes taken for a stream of damaged packets.
    if excerpt is None or n_bad > n_good:
        return None
    _drain(frames, excerpt)
    excerpt.truncated = not excerpt.full and (n_bad > 0 or excerpt.total_s < declared_s - _DURATION_SLACK_S)
    return excerpt


def _drain(frames: "AudioFifo", excerpt: Excerpt) -> None:
    """Move all queued samples to the excerpt."""
    frame = frames.read()
    if frame is not None:
        excerpt.add(_frame_samples(frame))


def _frame_samples(frame: "AudioFrame") -> np.ndarray:
    """The samples of a frame, float32, shape (channels, samples)."""
    import av

    n_channels = frame.layout.nb_channels
    # PyAV reports a wrong number of planes for eight or more.
    target_format = "fltp" if n_channels < 8 else "flt"
    if frame.format.name == target_format:  # the format of most decoders; saves a copy
        arrays = [frame.to_ndarray()]
    else:
        arrays = [part.to_ndarray() for part in av.AudioResampler(format=target_format).resample(frame)]
    if target_format == "flt":
        arrays = [array.reshape(-1, n_channels).T for array in arrays]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1)


@cache
def ffmpeg_binary() -> str | None:
    """Path of the ffmpeg program: the one on PATH, else that of imageio-ffmpeg, else None."""
    if path := shutil.which("ffmpeg"):
        return path
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


def read_with_ffmpeg(data: bytes) -> Excerpt | None:
    """Read a whole file with the ffmpeg program; None if it is not installed or cannot read the file."""
    binary = ffmpeg_binary()
    if binary is None:
        return None
    try:
        import ffmpeg
    except ImportError:
        return None
    # A file, not a pipe: the index of an mp4 file may be at its end, and ffmpeg must seek to it.
    with tempfile.NamedTemporaryFile(prefix="ssondo-") as file:
        file.write(data)
        file.flush()
        command = ffmpeg.input(os.fspath(file.name)).output("pipe:", format="wav", acodec="pcm_f32le", vn=None)
        try:
            wav, _ = command.run(cmd=[binary, "-nostdin", "-v", "error"], capture_stdout=True, capture_stderr=True)
        except ffmpeg.Error:
            return None
    return read_with_soundfile(io.BytesIO(wav)) if wav else None


def declared_length_s(file: "File") -> float:
    """The length that a file declares, in seconds; 0 if it declares none."""
    file.seek(0)
    with suppress(soundfile.LibsndfileError), soundfile.SoundFile(file) as sound:
        return float(sound.frames / sound.samplerate)
    try:
        import av
    except ImportError:
        return 0.0
    file.seek(0)
    with suppress(av.FFmpegError, ValueError), av.open(file, mode="r", metadata_errors="ignore") as container:
        return _declared_by_container_s(container, container.streams.audio[0]) if container.streams.audio else 0.0
    return 0.0


def _declared_by_container_s(container: "InputContainer", stream: "AudioStream") -> float:
    """The length that a container declares, in seconds; 0 if it only estimates it from the bit rate."""
    if not set(container.format.name.split(",")) & {"mp4", "matroska", "flac", "ogg"}:
        return 0.0
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    # The duration of a webm file that begins in the middle of a video is counted from zero.
    start_s = max(0, container.start_time or 0) / 1e6
    return (container.duration or 0) / 1e6 - start_s


def file_kind(data: bytes) -> str | None:
    """The audio or video format that a file begins like, or None if it is not one of the known ones."""
    for kind, (start, magic) in _MAGIC.items():
        if data[start : start + len(magic)] == magic:
            return kind
    # Frames without a file header: eleven bits of sync word, then the layer.
    if len(data) > 1 and data[0] == 0xFF:
        return {0xE2: "mp3", 0xF0: "aac"}.get(data[1] & (0xE6 if data[1] & 0x06 else 0xF6))
    return None


def _lacks_its_end(file: "File") -> bool:
    """Whether a WAV, AIFF or Ogg file lacks its end, which libsndfile does not report."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12) or b""
    kind = file_kind(head)
    if kind in ("wav", "aiff"):
        declared = int.from_bytes(head[4:8], "little" if kind == "wav" else "big") + 8
        # A WAV file that was written to a pipe declares the largest size, or none.
        return size < declared < 0x7FFF_0000
    if kind == "ogg":
        file.seek(max(0, size - _OGG_PAGE))
        tail = file.read() or b""
        page = tail.rfind(b"OggS")
        return page < 0 or page + 5 >= len(tail) or not tail[page + 5] & 4 or _is_page_truncated(tail, page)
    return False


def _is_page_truncated(data: bytes, page: int) -> bool:
    """Whether the Ogg page that begins at `page` is longer than the rest of `data`."""
    table = page + 27
    if table > len(data):
        return True
    sizes = data[table : table + data[page + 26]]
    return len(sizes) < data[page + 26] or table + len(sizes) + sum(sizes) > len(data)
