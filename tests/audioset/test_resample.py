import errno
import io
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from shard_results import results

import ssondo.audio.decoders
from ssondo.audio.codec import decode_mono
from ssondo.audio.waveform import resample_to
from ssondo.audioset.resample import resample
from ssondo.errors import SsondoError
from ssondo.storage.clip_location import ClipLocation, file_fingerprint
from ssondo.storage.shards.audio import AudioShard, AudioShardWriter
from ssondo.storage.shards.status import Status

ESC50 = Path(__file__).parents[2].parent / "shared" / "data" / "esc50" / "audio"


def file_of(seconds: float, rate: int, subtype: str = "PCM_16", channels: int = 1, container: str = "WAV") -> bytes:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([tone] * channels, axis=1), rate, format=container, subtype=subtype)
    return buffer.getvalue()


def fetched(path: Path, clips: dict[str, bytes]) -> Path:
    with AudioShardWriter(path, sample_rate=0, settings={}, producer="fetch") as shard:
        for clip, data in clips.items():
            shard.add(clip, data)
        shard.add("unavailable", status=Status.UNAVAILABLE, reason="private")
        shard.add("failed", status=Status.FAILED, reason="HTTP 403")
    return path


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    return fetched(
        tmp_path / "fetched.h5",
        {
            "8bit": file_of(1, 11_025, "PCM_U8"),
            "96k": file_of(1, 96_000, "PCM_24"),
            "stereo": file_of(1, 44_100, channels=2),
            "short": file_of(0.1, 44_100),
            "long": file_of(2.5, 44_100),
            "cut": file_of(1, 44_100)[:-44_100],
            "nosound": file_of(0, 44_100),
            "html": b"<html>not found</html>" * 9,
        },
    )


def test_every_clip_has_a_status_and_a_reason(tmp_path: Path, faulty: Path) -> None:
    resample(audio=faulty, out=tmp_path / "out.h5", sample_rate=32_000, clip_s=1.0)
    expected = {
        "8bit": ("OK", ""),
        "96k": ("OK", ""),
        "stereo": ("OK", ""),
        "short": ("OK", "padded from 0.10 s"),
        "long": ("OK", "cropped from 2.50 s"),
        "cut": ("OK", "truncated, padded from 0.50 s"),
        "nosound": ("FAILED", "holds no samples (wav header only)"),
        "html": ("FAILED", "not audio (begins with b'<html>not fo')"),
        "unavailable": ("UNAVAILABLE", "private"),
        "failed": ("FAILED", "HTTP 403"),
    }
    assert list(results(tmp_path / "out.h5").items()) == list(expected.items())


def test_every_clip_is_mono_of_fixed_length_and_its_true_duration_is_stored(tmp_path: Path, faulty: Path) -> None:
    resample(audio=faulty, out=tmp_path / "out.h5", sample_rate=32_000, clip_s=1.0)
    with AudioShard(tmp_path / "out.h5") as shard:
        assert shard.sample_rate == 32_000
        clips = {shard.clip_ids[row]: decode_mono(shard.blob(row), shard.sample_rate) for row in shard.ok}
        durations = dict(zip(shard.clip_ids, shard.duration_s, strict=True))
    assert {clip.shape for clip in clips.values()} == {(32_000,)}
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 32_000)
    for name, tolerance in (("8bit", 0.02), ("96k", 1e-3), ("stereo", 1e-3)):
        np.testing.assert_allclose(clips[name][1_000:-1_000], expected[1_000:-1_000], atol=tolerance)
    assert not clips["short"][3_200:].any()
    assert durations["short"] == pytest.approx(0.1)
    assert durations["long"] == pytest.approx(2.5)
    assert math.isnan(durations["html"])


def test_longer_clip_is_cropped_to_its_centre(tmp_path: Path) -> None:
    ramp = (np.arange(30_000) / 32_768).astype("f4")
    buffer = io.BytesIO()
    soundfile.write(buffer, ramp, 10_000, format="WAV", subtype="PCM_16")
    source = fetched(tmp_path / "fetched.h5", {"ramp": buffer.getvalue()})
    resample(audio=source, out=tmp_path / "out.h5", sample_rate=10_000, clip_s=1.0)
    with AudioShard(tmp_path / "out.h5") as shard:
        np.testing.assert_array_equal(decode_mono(shard.blob(0), shard.sample_rate), ramp[10_000:20_000])


@pytest.mark.parametrize("bandlimit_rate", [None, 16_000])
def test_crop_of_a_long_file_equals_the_crop_of_the_whole_waveform(tmp_path: Path, bandlimit_rate: int | None) -> None:
    rng = np.random.default_rng(0)
    sound = rng.uniform(-0.5, 0.5, 44_100 * 75 + 12_345).astype("f4")
    soundfile.write(tmp_path / "long.flac", sound, 44_100)
    source = fetched(tmp_path / "fetched.h5", {"long": (tmp_path / "long.flac").read_bytes()})
    resample(audio=source, out=tmp_path / "out.h5", sample_rate=32_000, clip_s=10.0, bandlimit_rate=bandlimit_rate)
    with AudioShard(tmp_path / "out.h5") as shard:
        kept = decode_mono(shard.blob(0), shard.sample_rate)
        assert shard.reasons[0] == "cropped from 75.28 s"
    whole, rate = soundfile.read(tmp_path / "long.flac", dtype="float32")
    for to_rate in [bandlimit_rate, 32_000] if bandlimit_rate else [32_000]:
        whole, rate = resample_to(whole, rate, to_rate), to_rate
    start = (len(whole) - 320_000) // 2
    # The filter's blocks begin at other samples, so its sums round differently: up to one step of 16-bit audio.
    np.testing.assert_allclose(kept, whole[start : start + 320_000], atol=1.01 / 32_768)


@pytest.mark.parametrize(("bandlimit_rate", "kept"), [(None, True), (16_000, False)])
def test_bandlimit_rate_removes_frequencies_above_half_of_it(
    tmp_path: Path, bandlimit_rate: int | None, kept: bool
) -> None:
    times = np.arange(44_100) / 44_100
    buffer = io.BytesIO()
    tones = 0.3 * np.sin(2 * np.pi * 1_000 * times) + 0.3 * np.sin(2 * np.pi * 12_000 * times)
    soundfile.write(buffer, tones, 44_100, format="WAV")
    source = fetched(tmp_path / "fetched.h5", {"tones": buffer.getvalue()})
    resample(audio=source, out=tmp_path / "out.h5", sample_rate=32_000, clip_s=1.0, bandlimit_rate=bandlimit_rate)
    with AudioShard(tmp_path / "out.h5") as shard:
        assert shard.sample_rate == 32_000
        # The shard holds one second of audio, so that bins are 1 Hz wide.
        spectrum = np.abs(np.fft.rfft(decode_mono(shard.blob(0), shard.sample_rate)))
    assert spectrum[1_000] == pytest.approx(0.3 * 32_000 / 2, rel=0.02)
    assert (spectrum[12_000] > 0.25 * 32_000 / 2) is np.bool_(kept)
    assert kept or spectrum[8_200:].max() < 1e-3 * spectrum[1_000]


@pytest.mark.parametrize("codec", ["pcm16", "opus"])
def test_other_codecs_store_the_same_clips(tmp_path: Path, faulty: Path, codec: str) -> None:
    resample(audio=faulty, out=tmp_path / "out.h5", sample_rate=32_000, clip_s=1.0, codec=codec)
    with AudioShard(tmp_path / "out.h5") as shard:
        assert shard.settings == {"clip_s": 1.0, "codec": codec, "bandlimit_rate": None}
        assert {decode_mono(shard.blob(row), shard.sample_rate).shape for row in shard.ok} == {(32_000,)}


def test_an_unknown_codec_leaves_no_file(tmp_path: Path, faulty: Path) -> None:
    with pytest.raises(SsondoError, match="unknown"):
        resample(audio=faulty, out=tmp_path / "out.h5", sample_rate=32_000, clip_s=1.0, codec="mp7")
    assert not list(tmp_path.glob("*out.h5*"))


def test_full_disk_is_not_blamed_on_the_audio_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that no library can decode are passed to the ffmpeg program as temporary files."""
    (tmp_path / "page.mp3").write_bytes(b"<html>not found</html>" * 9)
    location = ClipLocation(str(tmp_path / "page.mp3"), "", file_fingerprint(tmp_path / "page.mp3"))
    with AudioShardWriter(tmp_path / "fetched.h5", sample_rate=0, settings={}, producer="fetch") as shard:
        shard.add("page", location=location.to_shard())

    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ssondo.audio.decoders.tempfile, "NamedTemporaryFile", full)
    with pytest.raises(SsondoError, match="no space left on the disk") as error:
        resample(audio=tmp_path / "fetched.h5", out=tmp_path / "out.h5", sample_rate=32_000, clip_s=1.0)
    assert "page.mp3" not in str(error.value)


@pytest.mark.slow
def test_one_and_two_processes_give_identical_shards(tmp_path: Path, faulty: Path) -> None:
    for n_workers in (1, 2):
        resample(audio=faulty, out=tmp_path / f"{n_workers}.h5", sample_rate=32_000, clip_s=1.0, n_workers=n_workers)
    assert (tmp_path / "1.h5.digest").read_text() == (tmp_path / "2.h5.digest").read_text()


@pytest.mark.skipif(not ESC50.is_dir(), reason="no shared ESC-50 clips")
def test_ogg_clips_of_esc50_are_resampled_and_broken_files_fail(tmp_path: Path) -> None:
    files = [*sorted(ESC50.glob("*.ogg"))[:12], *sorted(ESC50.glob("*.wav"))]
    source = fetched(tmp_path / "fetched.h5", {path.stem: path.read_bytes() for path in files})
    resample(audio=source, out=tmp_path / "out.h5", sample_rate=32_000, clip_s=5.0)
    statuses = [status for status, _ in results(tmp_path / "out.h5").values()]
    assert statuses == ["OK"] * 12 + ["FAILED"] * 4 + ["UNAVAILABLE", "FAILED"]
