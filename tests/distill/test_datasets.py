import numpy as np
import pytest
import torch

from ssondo.audio.codec import encode, encode_flac
from ssondo.distill import datasets
from ssondo.errors import SsondoError
from ssondo.storage.shards.audio import AudioShardWriter
from ssondo.storage.shards.embedding import EmbeddingShardWriter
from ssondo.storage.shards.status import Status

CPU = torch.device("cpu")


def sound(seed, samples=4000):
    return np.random.default_rng(seed).integers(-32768, 32768, samples, dtype=np.int16)


def write_audio(path, clips, sample_rate=32000, codec="flac"):
    with AudioShardWriter(path, sample_rate=sample_rate, settings={}) as shard:
        for clip_id, samples in clips.items():
            if samples is None:
                shard.add(clip_id, status=Status.UNAVAILABLE, reason="private")
            else:
                shard.add(clip_id, encode(samples / np.float32(32768), 32000, codec), duration_s=1.0)
    return path


def write_embeddings(path, clip_ids, dim=5, dtype="float32", offset=0):
    values = offset + np.arange(len(clip_ids) * dim, dtype=np.float32).reshape(-1, dim)
    with EmbeddingShardWriter(path, embedding_dim=dim, settings={}, checkpoint_sha256="", dtype=dtype) as shard:
        shard.add(clip_ids, values)
    return path, values


@pytest.fixture
def audio(tmp_path):
    first = write_audio(tmp_path / "a.h5", {"c": sound(0), "gone": None, "a": sound(1)})
    second = write_audio(tmp_path / "b.h5", {"b": sound(2)})
    return datasets.AudioDataset([first, second])


def test_clips_are_read_without_loss_in_the_requested_order(audio):
    assert audio.clip_ids == ["c", "a", "b"]
    assert audio.n_absent == 1
    found = audio.read(np.array([2, 0, 1, 2]))
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, [sound(2), sound(0), sound(1), sound(2)])


def test_wav_clips_are_read(tmp_path):
    path = write_audio(tmp_path / "a.h5", {"a": sound(5)}, codec="pcm16")
    np.testing.assert_array_equal(datasets.AudioDataset([path]).read(np.array([0]))[0], sound(5))


def test_clip_that_spans_several_chunks_of_the_file_is_read(tmp_path):
    # 16-bit noise does not compress, so 700,000 samples take more than one HDF5 chunk of 1 MiB.
    path = write_audio(tmp_path / "a.h5", {name: sound(i, 700_000) for i, name in enumerate("abc")})
    found = datasets.AudioDataset([path]).read(np.array([1, 2, 0]))
    np.testing.assert_array_equal(found, [sound(i, 700_000) for i in (1, 2, 0)])


def test_embeddings_are_read_in_the_requested_order(tmp_path):
    # More rows than a chunk of the file has (64).
    first, values = write_embeddings(tmp_path / "a.h5", [f"a{i}" for i in range(150)])
    second, others = write_embeddings(tmp_path / "b.h5", ["b0", "b1"], offset=10_000)
    teacher = datasets.EmbeddingDataset([first, second])
    assert teacher.embedding_dim == 5
    rows = np.array([151, 0, 149, 64, 63])
    np.testing.assert_array_equal(teacher.read(rows), np.concatenate([values, others])[rows])


def test_float16_embeddings_are_read_as_float32(tmp_path):
    path, values = write_embeddings(tmp_path / "a.h5", ["a", "b"], dtype="float16")
    found = datasets.EmbeddingDataset([path]).read(np.array([1]))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values[1:])


def test_intersect_ids_keeps_the_order_of_the_first_list():
    rows, others = datasets.intersect_ids(["d", "b", "x", "a"], ["a", "b", "c", "d"])
    assert rows.tolist() == [0, 1, 3]
    assert others.tolist() == [3, 1, 0]


def test_intersect_ids_without_a_common_clip_is_empty():
    rows, others = datasets.intersect_ids(["a"], ["b"])
    assert rows.shape == others.shape == (0,)


def test_error_of_a_broken_clip_names_the_clip(tmp_path):
    path = tmp_path / "a.h5"
    with AudioShardWriter(path, sample_rate=32000, settings={}) as shard:
        shard.add("broken", encode_flac(np.zeros(4000, dtype=np.float32), 32000)[:20], duration_s=1.0)
    with pytest.raises(SsondoError, match=r"clip broken: .*cannot be decoded"):
        datasets.AudioDataset([path]).read(np.array([0]))


def test_error_of_a_clip_of_another_length_names_the_clip(tmp_path):
    path = write_audio(tmp_path / "a.h5", {"a": sound(0), "short": sound(1, 3000)})
    with pytest.raises(SsondoError, match="clip short has 3000 samples, others have 4000"):
        datasets.AudioDataset([path]).read(np.array([0, 1]))


def test_clip_in_two_shards_is_refused(tmp_path):
    paths = [write_audio(tmp_path / name, {"same": sound(0)}) for name in ("a.h5", "b.h5")]
    with pytest.raises(SsondoError, match="clip same is in two of the shards"):
        datasets.AudioDataset(paths)


def test_shards_of_different_sample_rates_are_refused(tmp_path):
    paths = [write_audio(tmp_path / f"{rate}.h5", {str(rate): sound(0)}, rate) for rate in (16000, 32000)]
    with pytest.raises(SsondoError, match="audio shards have clips of 16000 Hz, 32000 Hz"):
        datasets.AudioDataset(paths)


def test_shard_of_clips_as_fetched_is_refused(tmp_path):
    with pytest.raises(SsondoError, match="0 Hz means clips as fetched"):
        datasets.AudioDataset([write_audio(tmp_path / "a.h5", {"a": sound(0)}, sample_rate=0)])


def test_embeddings_of_different_sizes_are_refused(tmp_path):
    paths = [write_embeddings(tmp_path / f"{dim}.h5", [f"c{dim}"], dim=dim)[0] for dim in (4, 5)]
    with pytest.raises(SsondoError, match=r"embeddings of different sizes: 4 .*, 5 .*; give the shards of one"):
        datasets.EmbeddingDataset(paths)


def test_error_of_a_shard_that_was_truncated_after_it_was_opened_names_the_file(audio, tmp_path):
    with (tmp_path / "b.h5").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(SsondoError, match=r"b\.h5: changed or was truncated while it was read"):
        audio.read(np.array([2]))
