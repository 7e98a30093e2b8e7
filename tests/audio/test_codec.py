import io
import subprocess
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ssondo.audio import codec
from ssondo.errors import SsondoError

RATE = 44_100
ESC50 = Path(__file__).parents[2].parent / "shared" / "data" / "esc50" / "audio"


def tone(seconds: float = 1.0, rate: int = RATE, frequency: float = 440.0, channels: int = 1) -> np.ndarray:
    """A sine, float32 (samples, channels), each channel at half the level of the one before."""
    time = np.arange(round(seconds * rate)) / rate
    return np.stack([0.5**k * 0.8 * np.sin(2 * np.pi * frequency * time) for k in range(channels)], 1).astype("f4")


def file_of(waveform: np.ndarray, rate: int = RATE, container: str = "WAV", subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def ffmpeg_file(waveform: np.ndarray, path: Path, *options: str, rate: int = RATE) -> bytes:
    """A file of the kind that `path`'s extension says, made by the ffmpeg program."""
    binary = codec.ffmpeg_binary()
    assert binary
    wav = path.with_suffix(".source.wav")
    wav.write_bytes(file_of(waveform, rate))
    subprocess.run([binary, "-v", "error", "-y", "-i", wav, *options, path], check=True)
    return path.read_bytes()


@pytest.mark.parametrize(("subtype", "step"), [("PCM_U8", 2**-7), ("PCM_16", 2**-15), ("PCM_24", 2**-23), ("FLOAT", 0)])
def test_every_sample_width_of_wav_decodes_to_within_a_step(subtype: str, step: float) -> None:
    expected = tone(channels=2)
    waveform, rate = codec.decode(file_of(expected, subtype=subtype))
    assert (waveform.shape, waveform.dtype, rate) == ((2, RATE), np.float32, RATE)
    np.testing.assert_allclose(waveform, expected.T, atol=step + 1e-7)


@pytest.mark.parametrize("container", ["WAV", "FLAC", "AIFF"])
def test_96_khz_and_a_tenth_of_a_second_decode(container: str) -> None:
    waveform, rate = codec.decode(file_of(tone(0.1, 96_000), 96_000, container))
    assert (waveform.shape, rate) == ((1, 9_600), 96_000)


def test_mono_is_the_mean_of_all_six_channels() -> None:
    expected = tone(channels=6)
    waveform, _ = codec.decode(file_of(expected, subtype="FLOAT"))
    # Levels 1, 1/2, ... 1/32 of the first channel: their mean is 63/192 of it.
    np.testing.assert_allclose(codec.to_mono(waveform), expected[:, 0] * 63 / 192, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "codec_name", "channels"), [("a.m4a", "aac", 8), ("a.webm", "libopus", 8), ("a.mka", "pcm_s16le", 16)]
)
def test_more_channels_than_seven_are_all_heard(tmp_path: Path, name: str, codec_name: str, channels: int) -> None:
    t = np.arange(48_000) / 48_000
    levels = np.linspace(0.1, 0.8, channels)
    sound = np.stack([level * np.sin(2 * np.pi * 60 * t) for level in levels], axis=1).astype("f4")
    waveform, _ = codec.decode(ffmpeg_file(sound, tmp_path / name, "-c:a", codec_name, "-b:a", "512k", rate=48_000))
    assert waveform.shape[0] == channels
    # Containers order their channels each in its way.
    found = np.sort(np.sqrt(2 * (waveform[:, 5_000:-5_000] ** 2).mean(axis=1)))
    # The channel for low frequencies may come out a little weaker.
    np.testing.assert_allclose(found, levels, atol=0.03)


@pytest.mark.parametrize(
    ("name", "codec_name", "known", "unknown"),
    [("a.webm", "libopus", b"A_OPUS", b"A_OPUZ"), ("a.wav", "pcm_s16le", b"fmt \x10\0\0\0\x01\0", None)],
)
def test_a_codec_that_nobody_knows_is_one_line(
    tmp_path: Path, name: str, codec_name: str, known: bytes, unknown: bytes | None
) -> None:
    data = ffmpeg_file(tone(1.0), tmp_path / name, "-c:a", codec_name)
    assert known in data
    with pytest.raises(SsondoError, match="no sound can be read"):
        codec.decode(data.replace(known, unknown or known[:-2] + b"\x34\x12"))


@pytest.mark.parametrize(
    ("name", "codec_name"),
    [("a.wav", "pcm_s16le"), ("a.flac", "flac"), ("a.mp3", "libmp3lame"), ("a.m4a", "aac"), ("a.webm", "libopus")],
)
def test_a_damaged_file_is_sound_or_one_line(tmp_path: Path, name: str, codec_name: str) -> None:
    whole = ffmpeg_file(tone(0.5), tmp_path / name, "-c:a", codec_name)
    rng = np.random.default_rng(0)
    n_heard, messages = 0, []
    for n in range(60):
        data = bytearray(whole)
        # Headers first: what follows is mostly sound, and hides damage.
        reach = 400 if n % 2 else len(data)
        for place in rng.integers(min(reach, len(data)), size=rng.integers(1, 8)):
            data[place] = rng.integers(256)
        try:
            n_heard += codec.decode_file(bytes(data)).waveform.size > 0
        except SsondoError as error:
            messages.append(str(error))
    assert n_heard > 10
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.m4a", ["-c:a", "aac"]),
        ("a.webm", ["-c:a", "libopus"]),
        ("a.mp4", ["-c:a", "aac"]),
        ("a.mkv", ["-c:a", "ac3"]),
    ],
)
def test_what_libsndfile_cannot_read_is_decoded_all_the_same(tmp_path: Path, name: str, options: list[str]) -> None:
    data = ffmpeg_file(tone(2.0), tmp_path / name, *options)
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.read(io.BytesIO(data))
    decoded = codec.decode_file(data)
    assert not decoded.truncated
    assert decoded.duration_s == pytest.approx(2.0, abs=0.06)
    mono = codec.to_mono(decoded.waveform)
    loudest = np.argmax(np.abs(np.fft.rfft(mono))) * decoded.sample_rate / len(mono)
    assert loudest == pytest.approx(440, abs=2)


def test_the_ffmpeg_program_reads_what_the_libraries_did_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ffmpeg_file(tone(2.0), tmp_path / "a.m4a", "-c:a", "aac")
    monkeypatch.setattr(codec, "_read_av", lambda _: None)
    assert codec.decode_file(data).duration_s == pytest.approx(2.0, abs=0.06)


def test_faults_are_told_apart() -> None:
    for data, words in [
        (b"", "^empty file$"),
        (b"<!DOCTYPE html><html></html>" * 50, "^not audio .*<!DOCTYPE"),
        (np.random.default_rng(0).bytes(20_000), "^not audio"),
        (file_of(tone(0.0)), "^holds no samples"),
        (file_of(tone())[:60], "^truncated wav: only 0.00 s"),
        (file_of(tone(), container="FLAC")[:60], "^truncated or damaged flac file: no sound can be read"),
        (file_of(np.array([0.0, np.nan], "f4"), subtype="FLOAT"), "^holds samples that are not finite"),
    ]:
        with pytest.raises(SsondoError, match=words):
            codec.decode(data)


def test_an_mp4_without_its_index_is_damaged_not_foreign(tmp_path: Path) -> None:
    data = ffmpeg_file(tone(2.0), tmp_path / "a.m4a", "-c:a", "aac")
    with pytest.raises(SsondoError, match=r"^truncated or damaged mp4 file"):
        codec.decode(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", "PCM_16"), ("AIFF", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")],
)
def test_half_a_file_gives_its_beginning_and_says_so(container: str, subtype: str) -> None:
    # Noise: a tone compresses so well that a page of Ogg holds all of it.
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 8 * RATE).astype("f4")
    whole = file_of(sound, container=container, subtype=subtype)
    assert not codec.decode_file(whole).truncated
    decoded = codec.decode_file(whole[: len(whole) // 2])
    assert decoded.truncated
    assert decoded.duration_s == pytest.approx(4.0, abs=0.6)
    reference, _ = codec.decode(whole)
    n = decoded.waveform.shape[1] - RATE // 4  # the last frame of a lossy file may be half there
    np.testing.assert_allclose(decoded.waveform[:, :n], reference[:, :n], atol=1e-3)


def test_half_a_webm_gives_its_beginning_and_says_so(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 8 * RATE).astype("f4")
    data = ffmpeg_file(sound, tmp_path / "a.webm", "-c:a", "libopus")
    decoded = codec.decode_file(data[: len(data) // 2])
    assert decoded.truncated
    assert decoded.duration_s == pytest.approx(4.0, abs=0.6)


def piped(source: bytes, container: str) -> bytes:
    """A file that ffmpeg wrote to a pipe, where it cannot go back to note the length."""
    binary = codec.ffmpeg_binary()
    assert binary
    command = [binary, "-v", "error", "-i", "pipe:", "-f", container, "pipe:"]
    return subprocess.run(command, input=source, check=True, capture_output=True).stdout


def test_a_wav_written_to_a_pipe_is_whole() -> None:
    data = piped(file_of(tone()), "wav")
    assert data[4:8] == b"\xff\xff\xff\xff"
    decoded = codec.decode_file(data)
    assert (decoded.truncated, decoded.waveform.shape) == (False, (1, RATE))


def test_a_flac_written_to_a_pipe_is_whole_and_half_of_it_is_not() -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE).astype("f4")
    data = piped(file_of(sound), "flac")
    decoded = codec.decode_file(data)
    assert not decoded.truncated
    np.testing.assert_allclose(decoded.waveform[0], sound, atol=2**-15)
    half = codec.decode_file(data[: len(data) // 2])
    assert half.truncated
    assert half.duration_s == pytest.approx(1.5, abs=0.2)


@pytest.mark.skipif(not ESC50.is_dir(), reason="no shared ESC-50 clips")
def test_the_empty_clips_of_esc50_are_named_empty_and_the_others_whole() -> None:
    for path in ESC50.glob("*.wav"):
        with pytest.raises(SsondoError, match="holds no samples"):
            codec.decode(path.read_bytes())
    for path in sorted(ESC50.glob("*.ogg"))[:40]:
        decoded = codec.decode_file(path.read_bytes())
        assert not decoded.truncated
        assert decoded.duration_s == pytest.approx(5.0, abs=0.07)


def test_the_end_is_cut_or_padded() -> None:
    ten = np.arange(10, dtype="f4")
    np.testing.assert_array_equal(codec.fit_end(ten, 4), [0, 1, 2, 3])
    np.testing.assert_array_equal(codec.fit_end(ten[:2], 4), [0, 1, 0, 0])
    np.testing.assert_array_equal(codec.fit_end(np.stack([ten, -ten]), 11)[1], [*-ten, 0])
    np.testing.assert_array_equal(codec.fit_end(ten, 10), ten)


@pytest.mark.parametrize(
    ("n", "from_rate", "expected"), [(44_100, 44_100, 32_000), (4_410, 44_100, 3_200), (1, 8_000, 4)]
)
def test_resampling_keeps_the_duration(n: int, from_rate: int, expected: int) -> None:
    assert codec.resample_to(np.zeros(n, "f4"), from_rate, 32_000).shape == (expected,)
    assert codec.resample_to(np.zeros((2, n), "f4"), from_rate, 32_000).shape == (2, expected)


def test_resampling_keeps_a_tone_and_drops_what_does_not_fit() -> None:
    below = codec.resample_to(tone(1.0, 96_000, 5_000)[:, 0], 96_000, 32_000)
    above = codec.resample_to(tone(1.0, 96_000, 20_000)[:, 0], 96_000, 32_000)
    middle = slice(4_000, -4_000)
    np.testing.assert_allclose(below[middle], tone(1.0, 32_000, 5_000)[middle, 0], atol=1e-3)
    assert np.abs(above[middle]).max() < 1e-3


def test_flac_is_exact_to_16_bit_and_clips_what_is_louder() -> None:
    steps = np.array([0, 1, -1, 32767, -32768, 1234], dtype="f4") / 32768
    np.testing.assert_array_equal(codec.decode_flac_mono(codec.encode_flac(steps, 32_000)), steps)
    loud = codec.decode_flac_mono(codec.encode_flac(np.array([1.5, -1.5, 1.0], "f4"), 32_000))
    np.testing.assert_array_equal(loud, np.array([32767, -32768, 32767], "f4") / 32768)


@pytest.mark.parametrize("codec_name", codec.CODECS)
def test_every_codec_gives_back_the_clip_at_the_shards_rate(codec_name: str) -> None:
    clip = tone(1.0, 32_000)[:, 0]
    back = codec.decode_mono(codec.encode(clip, 32_000, codec_name), 32_000)
    assert back.shape == (32_000,)
    np.testing.assert_allclose(back[2_000:-2_000], clip[2_000:-2_000], atol=0.05 if codec_name == "opus" else 2e-5)


def test_opus_is_not_decoded_at_a_rate_it_does_not_have() -> None:
    with pytest.raises(SsondoError, match="decode it with decode_mono"):
        codec.decode_flac_mono(codec.encode(tone(1.0, 32_000)[:, 0], 32_000, "opus"))


def test_an_unknown_codec_is_named_with_the_known_ones() -> None:
    with pytest.raises(SsondoError, match=r"'mp7': unknown; one of flac, pcm16, opus"):
        codec.encode(np.zeros(4, "f4"), 32_000, "mp7")


def test_a_broken_clip_of_a_shard_is_an_error_not_silence() -> None:
    with pytest.raises(SsondoError, match="cannot be decoded"):
        codec.decode_mono(b"fLaC garbage", 32_000)
    with pytest.raises(SsondoError, match="2 channels"):
        codec.decode_flac_mono(file_of(tone(channels=2), container="FLAC"))


@pytest.mark.parametrize("codec_name", codec.CODECS)
@pytest.mark.parametrize("memory_files", ["yes", "refused", "unknown"])
def test_samples_are_the_same_as_int16_and_however_libsndfile_gets_them(
    codec_name: str, memory_files: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = codec.encode(np.random.default_rng(0).normal(scale=0.3, size=32_000).astype("f4"), 32_000, codec_name)
    expected = np.rint(np.float64(32768) * soundfile.read(io.BytesIO(blob), dtype="float32")[0])

    def refuse(name: str) -> int:
        raise OSError(24, "Too many open files")

    if memory_files == "refused":
        monkeypatch.setattr(codec.os, "memfd_create", refuse)
    elif memory_files == "unknown":
        monkeypatch.delattr(codec.os, "memfd_create")
    found = codec.decode_pcm16(blob, 32_000)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, np.rint(32768 * codec.decode_mono(blob, 32_000)).clip(-32768, 32767))
    if codec_name != "opus":  # which is kept at 48 kHz
        np.testing.assert_array_equal(found, expected.clip(-32768, 32767))


def test_a_clip_at_another_rate_is_resampled_as_int16_too() -> None:
    found = codec.decode_pcm16(codec.encode(tone(1.0, 16_000)[:, 0], 16_000), 32_000)
    assert found.shape == (32_000,)
    np.testing.assert_allclose(found[2_000:-2_000] / 32768, tone(1.0, 32_000)[2_000:-2_000, 0], atol=1e-3)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs a system that lists its descriptors")
def test_decoding_leaves_no_file_open_whether_it_works_or_not() -> None:
    blob = codec.encode(tone(1.0, 32_000)[:, 0], 32_000)
    before = set(Path("/proc/self/fd").iterdir())
    for data in (blob, b"fLaC garbage", blob[:500], file_of(tone(channels=2), container="FLAC")):
        for decode in (codec.decode_mono, codec.decode_pcm16):
            with suppress(SsondoError):
                decode(data, 32_000)
    assert set(Path("/proc/self/fd").iterdir()) == before
