"""Log-mels from memory and from disk."""

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
    """Clips that note which of them are read from disk."""

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


def inputs_of(audio, cache_mb, **arguments):
    settings = {"device": CPU, "num_workers": 0, "name": "test", **arguments}
    return LogMelCache(audio, np.arange(4), frames, cache_mb=cache_mb, **settings)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("n_kept", [0, 1, 2, 4])
def test_inputs_are_the_front_end_s_output_wherever_they_come_from(audio, n_kept, num_workers):
    inputs = inputs_of(audio, n_kept * CLIP_MB, num_workers=num_workers)
    assert inputs.clip_ids == ["a", "b", "c", "d"]
    assert inputs.n_kept == n_kept
    assert inputs.kept_mb == pytest.approx(n_kept * CLIP_MB)
    found = inputs.on_device(inputs.read(np.array([3, 0, 2, 0])))
    expected = np.stack([sound(number) for number in (3, 0, 2, 0)]) / 32768 * 2
    np.testing.assert_array_equal(found.reshape(4, -1).numpy(), expected.astype(np.float32))


def test_memory_is_a_bound_and_what_does_not_fit_is_decoded_each_time(audio, caplog):
    with caplog.at_level(logging.INFO):
        inputs = inputs_of(audio, 2.99 * CLIP_MB)
    assert inputs.n_kept == 2
    assert (
        "log-mels of 2 of 4 clips are kept in memory (0 MB), 50.0 % of what is drawn; the rest is decoded"
        in caplog.text
    )
    audio.decoded.clear()
    for _ in range(2):
        inputs.read(np.array([0, 1, 2]))
    assert audio.decoded == ["c", "c"]


def test_clips_that_are_drawn_most_often_are_the_ones_in_memory(audio):
    inputs = inputs_of(audio, 2 * CLIP_MB, weights=np.array([0.1, 0.5, 0.1, 0.3]))
    audio.decoded.clear()
    inputs.read(np.array([0, 1, 2, 3]))
    assert audio.decoded == ["a", "c"]
