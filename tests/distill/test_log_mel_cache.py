"""Log-mels from the cache and from disk."""

import logging

import numpy as np
import pytest
import torch

from ssondo.audio.codec import encode
from ssondo.distill.datasets import AudioDataset
from ssondo.distill.log_mel_cache import LogMelCache
from ssondo.storage.shards.audio import AudioShardWriter

CPU = torch.device("cpu")
# A clip of 4,000 float32 values.
CLIP_MB = 0.016


def sound(seed):
    return np.random.default_rng(seed).integers(-32768, 32768, 4000, dtype=np.int16)


def frames(waveforms):
    return waveforms.reshape(len(waveforms), 1, 4, -1) * 2


class Counting(AudioDataset):
    """Clips that record which of them are read from disk."""

    def read(self, rows):
        self.decoded.extend(self.clip_ids[row] for row in rows)
        return super().read(rows)


@pytest.fixture
def audio(tmp_path):
    with AudioShardWriter(tmp_path / "a.h5", sample_rate=32000, settings={}) as shard:
        for number, clip_id in enumerate("abcd"):
            shard.add(clip_id, encode(sound(number) / np.float32(32768), 32000, "flac"), duration_s=1.0)
    clips = Counting([tmp_path / "a.h5"])
    clips.decoded = []
    return clips


def cache_of(audio, cache_mb, **arguments):
    settings = {"device": CPU, "num_workers": 0, "name": "test", **arguments}
    return LogMelCache(audio, np.arange(4), frames, cache_mb=cache_mb, **settings)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("n_cached", [0, 1, 2, 4])
def test_log_mels_are_the_output_of_the_front_end_for_cached_and_decoded_clips(audio, n_cached, num_workers):
    cache = cache_of(audio, n_cached * CLIP_MB, num_workers=num_workers)
    assert cache.clip_ids == ["a", "b", "c", "d"]
    assert cache.n_cached == n_cached
    assert cache.cached_mb == pytest.approx(n_cached * CLIP_MB)
    log_mel = cache.to_device(cache.read(np.array([3, 0, 2, 0])))
    expected = np.stack([sound(number) for number in (3, 0, 2, 0)]) / 32768 * 2
    np.testing.assert_array_equal(log_mel.reshape(4, -1).numpy(), expected.astype(np.float32))


def test_cache_is_bounded_and_other_clips_are_decoded_each_time(audio, caplog):
    with caplog.at_level(logging.INFO):
        cache = cache_of(audio, 2.99 * CLIP_MB)
    assert cache.n_cached == 2
    assert (
        "the log-mels of 2 of 4 clips are cached in memory (0 MB), 50.0 % of the draws; the others are decoded"
        in caplog.text
    )
    audio.decoded.clear()
    for _ in range(2):
        cache.read(np.array([0, 1, 2]))
    assert audio.decoded == ["c", "c"]


def test_cache_holds_the_clips_that_are_drawn_most_often(audio):
    cache = cache_of(audio, 2 * CLIP_MB, weights=np.array([0.1, 0.5, 0.1, 0.3]))
    audio.decoded.clear()
    cache.read(np.array([0, 1, 2, 3]))
    assert audio.decoded == ["a", "c"]
