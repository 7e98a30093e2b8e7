import io
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import RATE, encoded, tone

from ssondo.audio import decoders
from ssondo.audio.decoding import decode_file
from ssondo.audio.waveform import to_mono
from ssondo.errors import SsondoError

ESC50 = Path(__file__).parents[2].parent / "shared" / "data" / "esc50" / "audio"


def ffmpeg_file(waveform: np.ndarray, path: Path, *options: str, rate: int = RATE) -> bytes:
    """A file of the format of the suffix of `path`, encoded by the ffmpeg program."""
    binary = decoders.ffmpeg_binary()
    assert binary
    wav = path.with_suffix(".source.wav")
    wav.write_bytes(encoded(waveform, rate))
    subprocess.run([binary, "-v", "error", "-y", "-i", wav, *options, path], check=True)
    return path.read_bytes()


@pytest.mark.parametrize(("subtype", "step"), [("PCM_U8", 2**-7), ("PCM_16", 2**-15), ("PCM_24", 2**-23), ("FLOAT", 0)])
def test_wav_of_every_sample_width_decodes_within_one_step(subtype: str, step: float) -> None:
    expected = tone(channels=2)
    waveform, rate, _ = decode_file(encoded(expected, subtype=subtype))
    assert (waveform.shape, waveform.dtype, rate) == ((2, RATE), np.float32, RATE)
    np.testing.assert_allclose(waveform, expected.T, atol=step + 1e-7)


@pytest.mark.parametrize("container", ["WAV", "FLAC", "AIFF"])
def test_short_file_at_96_khz_decodes(container: str) -> None:
    waveform, rate, _ = decode_file(encoded(tone(0.1, 96_000), 96_000, container))
    assert (waveform.shape, rate) == ((1, 9_600), 96_000)


@pytest.mark.parametrize(
    ("name", "codec_name", "channels"), [("a.m4a", "aac", 8), ("a.webm", "libopus", 8), ("a.mka", "pcm_s16le", 16)]
)
def test_all_channels_of_eight_or_more_are_decoded(tmp_path: Path, name: str, codec_name: str, channels: int) -> None:
    t = np.arange(48_000) / 48_000
    levels = np.linspace(0.1, 0.8, channels)
    sound = np.stack([level * np.sin(2 * np.pi * 60 * t) for level in levels], axis=1).astype("f4")
    waveform, _, _ = decode_file(ffmpeg_file(sound, tmp_path / name, "-c:a", codec_name, "-b:a", "512k", rate=48_000))
    assert waveform.shape[0] == channels
    # Containers order channels differently.
    found = np.sort(np.sqrt(2 * (waveform[:, 5_000:-5_000] ** 2).mean(axis=1)))
    # The low-frequency channel may be a little weaker.
    np.testing.assert_allclose(found, levels, atol=0.03)


@pytest.mark.parametrize(
    ("name", "codec_name", "known", "unknown"),
    [("a.webm", "libopus", b"A_OPUS", b"A_OPUZ"), ("a.wav", "pcm_s16le", b"fmt \x10\0\0\0\x01\0", None)],
)
def test_unknown_codec_is_an_error(
    tmp_path: Path, name: str, codec_name: str, known: bytes, unknown: bytes | None
) -> None:
    data = ffmpeg_file(tone(1.0), tmp_path / name, "-c:a", codec_name)
    assert known in data
    with pytest.raises(SsondoError, match="no sound can be read"):
        decode_file(data.replace(known, unknown or known[:-2] + b"\x34\x12"))


@pytest.mark.parametrize(
    ("name", "codec_name"),
    [("a.wav", "pcm_s16le"), ("a.flac", "flac"), ("a.mp3", "libmp3lame"), ("a.m4a", "aac"), ("a.webm", "libopus")],
)
def test_damaged_file_is_decoded_or_gives_a_one_line_error(tmp_path: Path, name: str, codec_name: str) -> None:
    whole = ffmpeg_file(tone(0.5), tmp_path / name, "-c:a", codec_name)
    rng = np.random.default_rng(0)
    n_decoded, messages = 0, []
    for n in range(60):
        data = bytearray(whole)
        # Half of the changes hit the header; damage of the sound often has no effect.
        reach = 400 if n % 2 else len(data)
        for place in rng.integers(min(reach, len(data)), size=rng.integers(1, 8)):
            data[place] = rng.integers(256)
        try:
            n_decoded += decode_file(bytes(data)).waveform.size > 0
        except SsondoError as error:
            messages.append(str(error))
    assert n_decoded > 10
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
def test_formats_that_libsndfile_cannot_read_are_decoded(tmp_path: Path, name: str, options: list[str]) -> None:
    data = ffmpeg_file(tone(2.0), tmp_path / name, *options)
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.read(io.BytesIO(data))
    decoded = decode_file(data)
    assert not decoded.truncated
    assert decoded.duration_s == pytest.approx(2.0, abs=0.06)
    mono = to_mono(decoded.waveform)
    loudest = np.argmax(np.abs(np.fft.rfft(mono))) * decoded.sample_rate / len(mono)
    assert loudest == pytest.approx(440, abs=2)


def test_ffmpeg_program_decodes_what_the_libraries_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ffmpeg_file(tone(2.0), tmp_path / "a.m4a", "-c:a", "aac")
    monkeypatch.setattr(decoders, "read_with_av", lambda *_: None)
    assert decode_file(data).duration_s == pytest.approx(2.0, abs=0.06)


def test_each_kind_of_unusable_file_has_its_own_message() -> None:
    for data, words in [
        (b"", "^empty file$"),
        (b"<!DOCTYPE html><html></html>" * 50, "^not audio .*<!DOCTYPE"),
        (np.random.default_rng(0).bytes(20_000), "^not audio"),
        (encoded(tone(0.0)), "^holds no samples"),
        (encoded(tone())[:60], "^truncated wav: only 0.00 s"),
        (encoded(tone(), container="FLAC")[:60], "^truncated or damaged flac file: no sound can be read"),
        (encoded(np.array([0.0, np.nan], "f4"), subtype="FLOAT"), "^holds samples that are not finite"),
    ]:
        with pytest.raises(SsondoError, match=words):
            decode_file(data)


def test_mp4_without_its_index_is_reported_as_truncated(tmp_path: Path) -> None:
    data = ffmpeg_file(tone(2.0), tmp_path / "a.m4a", "-c:a", "aac")
    with pytest.raises(SsondoError, match=r"^truncated or damaged mp4 file"):
        decode_file(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", "PCM_16"), ("AIFF", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")],
)
def test_half_a_file_gives_its_beginning_and_is_marked_as_truncated(container: str, subtype: str) -> None:
    # Noise, because a whole tone would fit into one page of Ogg.
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 8 * RATE).astype("f4")
    whole = encoded(sound, container=container, subtype=subtype)
    assert not decode_file(whole).truncated
    decoded = decode_file(whole[: len(whole) // 2])
    assert decoded.truncated
    assert decoded.duration_s == pytest.approx(4.0, abs=0.6)
    reference, _, _ = decode_file(whole)
    n = decoded.waveform.shape[1] - RATE // 4  # the last frame of a lossy file may be incomplete
    np.testing.assert_allclose(decoded.waveform[:, :n], reference[:, :n], atol=1e-3)


def test_half_a_webm_gives_its_beginning_and_is_marked_as_truncated(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 8 * RATE).astype("f4")
    data = ffmpeg_file(sound, tmp_path / "a.webm", "-c:a", "libopus")
    decoded = decode_file(data[: len(data) // 2])
    assert decoded.truncated
    assert decoded.duration_s == pytest.approx(4.0, abs=0.6)


def piped(source: bytes, container: str) -> bytes:
    """A file that ffmpeg wrote to a pipe, where it cannot write the length afterwards."""
    binary = decoders.ffmpeg_binary()
    assert binary
    command = [binary, "-v", "error", "-i", "pipe:", "-f", container, "pipe:"]
    return subprocess.run(command, input=source, check=True, capture_output=True).stdout


def test_wav_written_to_a_pipe_is_not_truncated() -> None:
    data = piped(encoded(tone()), "wav")
    assert data[4:8] == b"\xff\xff\xff\xff"
    decoded = decode_file(data)
    assert (decoded.truncated, decoded.waveform.shape) == (False, (1, RATE))


def test_flac_written_to_a_pipe_is_truncated_only_if_cut() -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE).astype("f4")
    data = piped(encoded(sound), "flac")
    decoded = decode_file(data)
    assert not decoded.truncated
    np.testing.assert_allclose(decoded.waveform[0], sound, atol=2**-15)
    half = decode_file(data[: len(data) // 2])
    assert half.truncated
    assert half.duration_s == pytest.approx(1.5, abs=0.2)


@pytest.mark.skipif(not ESC50.is_dir(), reason="no shared ESC-50 clips")
def test_empty_files_among_real_recordings_are_errors_and_the_others_complete() -> None:
    for path in ESC50.glob("*.wav"):
        with pytest.raises(SsondoError, match="holds no samples"):
            decode_file(path.read_bytes())
    for path in sorted(ESC50.glob("*.ogg"))[:40]:
        decoded = decode_file(path.read_bytes())
        assert not decoded.truncated
        assert decoded.duration_s == pytest.approx(5.0, abs=0.07)
