"""An excerpt of a long file equals the same part of the whole file, and needs little memory."""

import errno
import io
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ssondo.audio.decoders import ffmpeg_binary
from ssondo.audio.decoding import Decoded, decode_file
from ssondo.audio.excerpt import decode_around_centre, decode_excerpt
from ssondo.errors import SsondoError

LENGTH_S = 70
RATE = 44_100
KINDS = {
    "a.wav": ("pcm_s16le",),
    "a.flac": ("flac",),
    "a.aiff": ("pcm_s24be",),
    "a.mp3": ("libmp3lame",),
    "a.ogg": ("libvorbis",),
    "a.opus": ("libopus",),
    "a.m4a": ("aac",),
    "fragments.mp4": ("aac", "-movflags", "frag_keyframe+empty_moov"),
    "a.webm": ("libopus",),
    "a.mka": ("aac",),
    # libsndfile reads this format but cannot seek in it.
    "adpcm.wav": ("adpcm_ms",),
}


def noise(channels: int = 2, rate: int = RATE) -> np.ndarray:
    """Noise with a varying level, so that no two parts of it are equal."""
    rng = np.random.default_rng(0)
    level = 0.2 + 0.1 * np.sin(np.arange(LENGTH_S * rate) / rate)
    return (rng.standard_normal((LENGTH_S * rate, channels)) * level[:, None]).clip(-1, 1).astype("f4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("videos")
    soundfile.write(made / "source.wav", noise(), RATE)
    for name, codec in KINDS.items():
        encode(made / "source.wav", made / name, *codec)
    return made


@cache
def all_of(path: Path) -> Decoded:
    """The whole file, decoded at once."""
    return decode_file(path.read_bytes())


def encode(source: Path, out: Path, *codec: str) -> None:
    binary = ffmpeg_binary()
    assert binary is not None
    subprocess.run([binary, "-v", "error", "-y", "-i", source, "-c:a", *codec, out], check=True)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("start_s", "end_s"), [(0, 10), (33.333, 43.333), (65, 75), (80, 90)], ids=lambda value: str(value)
)
def test_excerpt_equals_the_same_part_of_the_whole_file_bit_for_bit(
    folder: Path, name: str, start_s: float, end_s: float
) -> None:
    # Codecs add different numbers of samples at the start, which the decoder of the whole file removes.
    whole = all_of(folder / name)
    with (folder / name).open("rb") as file:
        part = decode_excerpt(file, start_s, end_s)
    assert part.sample_rate == whole.sample_rate
    start, end = (round(time_s * whole.sample_rate) for time_s in (start_s, end_s))
    np.testing.assert_array_equal(part.waveform, whole.waveform[:, start:end])
    assert not part.truncated
    assert (part.waveform.shape[1] > 0) == (start_s < LENGTH_S)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.m4a", "a.webm"])
def test_excerpt_is_aligned_with_the_sound_before_encoding(folder: Path, name: str) -> None:
    with (folder / name).open("rb") as file:
        part = decode_excerpt(file, 30, 31)
    source = noise()[30 * part.sample_rate : 31 * part.sample_rate, 0] if part.sample_rate == RATE else None
    if source is None:  # Opus is at 48 kHz
        source = np.interp(np.arange(48_000) / 48_000, np.arange(RATE) / RATE, noise()[30 * RATE : 31 * RATE, 0])
    spectra = np.fft.rfft(source) * np.conj(np.fft.rfft(part.waveform[0]))
    assert np.fft.irfft(spectra).argmax() == 0


def test_all_sixteen_channels_are_decoded(tmp_path: Path) -> None:
    sound = noise(16, 8_000) * np.linspace(0.1, 1, 16, dtype="f4")
    soundfile.write(tmp_path / "source.wav", sound, 8_000)
    encode(tmp_path / "source.wav", tmp_path / "a.mka", "pcm_s16le")
    with (tmp_path / "a.mka").open("rb") as file:
        part = decode_excerpt(file, 30, 40)
    np.testing.assert_allclose(part.waveform.T, sound[30 * 8_000 : 40 * 8_000], atol=1 / 32768)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.m4a", "a.ogg", "a.webm"])
def test_truncated_file_gives_the_same_excerpt_and_is_marked(folder: Path, tmp_path: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    if name == "a.m4a":  # its index is at the end; without it nothing can be decoded
        encode(folder / "source.wav", tmp_path / name, "aac", "-movflags", "faststart")
        data = (tmp_path / name).read_bytes()
    data = data[: len(data) * 13 // 14]  # 65 s
    whole = decode_file(data)
    rate = whole.sample_rate
    before, across, behind = (decode_excerpt(io.BytesIO(data), start, start + 10) for start in (50, 60, 67))
    np.testing.assert_array_equal(before.waveform, whole.waveform[:, 50 * rate : 60 * rate])
    np.testing.assert_array_equal(across.waveform, whole.waveform[:, 60 * rate : 70 * rate])
    assert across.waveform.shape[1] > 0
    assert behind.waveform.size == 0
    assert (before.truncated, across.truncated, behind.truncated) == (False, True, True)


def test_flac_written_to_a_pipe_is_not_truncated(folder: Path) -> None:
    binary = ffmpeg_binary()
    assert binary is not None
    command = [binary, "-v", "error", "-i", folder / "source.wav", "-f", "flac", "pipe:"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    part = decode_excerpt(io.BytesIO(data), 65, 75)
    assert not part.truncated
    np.testing.assert_array_equal(part.waveform, all_of(folder / "a.flac").waveform[:, 65 * RATE :])
    part, _, duration_s = decode_around_centre(io.BytesIO(data), 10)
    assert (part.truncated, duration_s) == (False, LENGTH_S)


@pytest.mark.parametrize("name", KINDS)
def test_only_the_centre_of_a_long_file_is_decoded(folder: Path, name: str) -> None:
    whole = all_of(folder / name)
    with (folder / name).open("rb") as file:
        part, start_s, duration_s = decode_around_centre(file, 10)
    rate = whole.sample_rate
    assert duration_s == whole.duration_s
    assert start_s == 29  # of 70 s the centre begins at 30
    assert 12 * rate <= part.waveform.shape[1] <= 14 * rate
    np.testing.assert_array_equal(part.waveform, whole.waveform[:, 29 * rate :][:, : part.waveform.shape[1]])
    assert not part.truncated


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg", "a.webm"])
def test_centre_of_a_truncated_file_is_that_of_the_remaining_sound(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    data = data[: len(data) * 13 // 14]  # 65 s
    whole = decode_file(data)
    part, start_s, duration_s = decode_around_centre(io.BytesIO(data), 10)
    assert duration_s == whole.duration_s
    assert part.truncated == whole.truncated
    assert start_s == int((duration_s - 10) / 2) - 1
    expected = whole.waveform[:, start_s * whole.sample_rate :][:, : part.waveform.shape[1]]
    # Two libraries decode MP3 with different rounding; one may decode the whole file and the other the excerpt.
    np.testing.assert_allclose(part.waveform, expected, rtol=0, atol=1e-5 if name == "a.mp3" else 0)


def test_file_shorter_than_the_requested_length_is_decoded_completely(folder: Path) -> None:
    with (folder / "a.flac").open("rb") as file:
        part, start_s, duration_s = decode_around_centre(file, 120)
    assert (start_s, duration_s) == (0, LENGTH_S)
    np.testing.assert_array_equal(part.waveform, all_of(folder / "a.flac").waveform)


def test_file_without_sound_gives_a_one_line_error() -> None:
    with pytest.raises(SsondoError, match=r"not audio \(begins with b'<html>"):
        decode_excerpt(io.BytesIO(b"<html>no such video</html>" * 100), 0, 10)


def test_excerpt_with_samples_that_are_not_finite_is_refused() -> None:
    sound = np.zeros(LENGTH_S * 8_000, dtype="f4")
    sound[35 * 8_000] = np.nan
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, 8_000, format="WAV", subtype="FLOAT")
    with pytest.raises(SsondoError, match="not finite"):
        decode_excerpt(buffer, 30, 40)
    assert decode_excerpt(buffer, 40, 50).waveform.shape == (1, 80_000)


class Failing(io.BytesIO):
    """A file whose second half cannot be read."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() + (size or 0) > len(self.getbuffer()) // 2:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.webm"])
def test_read_error_is_not_taken_for_the_end_of_the_file(folder: Path, name: str) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        decode_excerpt(Failing((folder / name).read_bytes()), 50, 60)
    with pytest.raises(OSError, match="Input/output error"):
        decode_around_centre(Failing((folder / name).read_bytes()), 10)


@pytest.mark.parametrize(("name", "codec"), [("long.flac", "flac"), ("long.m4a", "aac")])
@pytest.mark.parametrize(
    ("part", "seconds"),
    [
        ("decode_excerpt(file, 30, 40)", 10),
        ("decode_excerpt(file, 890, 900)", 5),
        ("decode_around_centre(file, 10)[0]", 13),
    ],
)
def test_excerpt_of_a_long_file_needs_little_memory(
    tmp_path: Path, name: str, codec: str, part: str, seconds: int
) -> None:
    binary = ffmpeg_binary()
    assert binary is not None
    silence = ["-f", "lavfi", "-i", "anullsrc=r=48000:cl=stereo", "-t", "895", "-c:a", codec]
    subprocess.run([binary, "-v", "error", *silence, tmp_path / name], check=True)
    code = (
        "import av, io, sys\n"
        "from pathlib import Path\n"
        "from ssondo.audio import excerpt\n"
        "excerpt._SMALL_BYTES = 0  # silence needs few bytes\n"
        # Not from getrusage, whose peak in a child process starts with that of pytest.
        "peak = lambda: int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
        "before = peak()\n"
        "with open(sys.argv[1], 'rb') as file:\n"
        f"    samples = excerpt.{part}.waveform.shape[1]\n"
        "print(samples, peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / name], check=True, capture_output=True, text=True)
    samples, kilobytes = map(int, done.stdout.split())
    # AAC ends with a whole frame of 1,024 samples.
    assert seconds * 48_000 <= samples < seconds * 48_000 + 1_024
    # All of it would be 895 * 48,000 * 2 * 4 bytes = 344 MB at the least.
    assert kilobytes < 60_000
