import io
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import encoded, tone

from ssondo.audio import codec
from ssondo.errors import SsondoError


def test_flac_is_exact_to_16_bit_and_clips_louder_samples() -> None:
    steps = np.array([0, 1, -1, 32767, -32768, 1234], dtype="f4") / 32768
    np.testing.assert_array_equal(codec.decode_mono(codec.encode_flac(steps, 32_000), 32_000), steps)
    loud = codec.decode_mono(codec.encode_flac(np.array([1.5, -1.5, 1.0], "f4"), 32_000), 32_000)
    np.testing.assert_array_equal(loud, np.array([32767, -32768, 32767], "f4") / 32768)


@pytest.mark.parametrize("codec_name", codec.CODECS)
def test_every_codec_returns_the_clip_at_the_rate_of_the_shard(codec_name: str) -> None:
    clip = tone(1.0, 32_000)[:, 0]
    back = codec.decode_mono(codec.encode(clip, 32_000, codec_name), 32_000)
    assert back.shape == (32_000,)
    np.testing.assert_allclose(back[2_000:-2_000], clip[2_000:-2_000], atol=0.05 if codec_name == "opus" else 2e-5)


def test_unknown_codec_is_refused_with_the_supported_ones() -> None:
    with pytest.raises(SsondoError, match=r"'mp7': unknown; one of flac, pcm16, opus"):
        codec.encode(np.zeros(4, "f4"), 32_000, "mp7")


def test_damaged_clip_of_a_shard_is_an_error() -> None:
    with pytest.raises(SsondoError, match="cannot be decoded"):
        codec.decode_mono(b"fLaC garbage", 32_000)
    with pytest.raises(SsondoError, match="2 channels"):
        codec.decode_mono(encoded(tone(channels=2), container="FLAC"), 32_000)


@pytest.mark.parametrize("codec_name", codec.CODECS)
@pytest.mark.parametrize("memory_files", ["yes", "refused", "unknown"])
def test_int16_samples_equal_float_samples_with_and_without_memory_files(
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


def test_int16_clip_at_another_rate_is_resampled() -> None:
    found = codec.decode_pcm16(codec.encode(tone(1.0, 16_000)[:, 0], 16_000), 32_000)
    assert found.shape == (32_000,)
    np.testing.assert_allclose(found[2_000:-2_000] / 32768, tone(1.0, 32_000)[2_000:-2_000, 0], atol=1e-3)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs a system that lists its descriptors")
def test_decoding_leaves_no_file_descriptor_open() -> None:
    blob = codec.encode(tone(1.0, 32_000)[:, 0], 32_000)
    before = set(Path("/proc/self/fd").iterdir())
    for data in (blob, b"fLaC garbage", blob[:500], encoded(tone(channels=2), container="FLAC")):
        for decode in (codec.decode_mono, codec.decode_pcm16):
            with suppress(SsondoError):
                decode(data, 32_000)
    assert set(Path("/proc/self/fd").iterdir()) == before
