import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import digest_path
from ssondo.storage.shards.audio import AudioShard, AudioShardWriter
from ssondo.storage.shards.clusters import Clusters, ClusterWriter
from ssondo.storage.shards.embedding import EmbeddingShard, EmbeddingShardWriter
from ssondo.storage.shards.status import Status


def write_audio(path: Path, clips: dict[str, bytes]) -> str:
    with AudioShardWriter(path, sample_rate=32000, settings={"codec": "flac"}, producer="test") as shard:
        for name, blob in clips.items():
            if blob:
                shard.add(name, blob, duration_s=1.5)
            else:
                shard.add(name, status=Status.UNAVAILABLE, reason="private")
    return digest_path(path).read_text().strip()


names = st.text(alphabet="abcABC019_-", min_size=1, max_size=20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(clips=st.dictionaries(names, st.binary(max_size=200), max_size=20))
def test_clips_are_read_as_they_were_written(tmp_path: Path, clips: dict[str, bytes]) -> None:
    digest = write_audio(tmp_path / "a.h5", clips)
    with AudioShard(tmp_path / "a.h5") as shard:
        assert {name: shard.blob(row) for row, name in enumerate(shard.clip_ids)} == clips
        assert [shard.clip_ids[row] for row in shard.ok] == [name for name, blob in clips.items() if blob]
        assert [shard.reasons[row] for row in np.flatnonzero(shard.status)] == ["private"] * (
            len(clips) - len(shard.ok)
        )
        assert shard.digest == digest


def test_digest_depends_only_on_the_content(tmp_path: Path) -> None:
    first = write_audio(tmp_path / "a.h5", {"x": b"abc", "y": b"de"})
    assert write_audio(tmp_path / "b.h5", {"x": b"abc", "y": b"de"}) == first
    changes = [{"x": b"abc", "y": b"df"}, {"x": b"abcd", "y": b"e"}, {"x": b"abc", "z": b"de"}, {"x": b"abc", "y": b""}]
    digests = [write_audio(tmp_path / "c.h5", clips) for clips in changes]
    assert len({first, *digests}) == 5


def test_embeddings_are_read_in_the_type_on_disk(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((5, 3))
    with EmbeddingShardWriter(tmp_path / "e.h5", embedding_dim=3, settings={}, checkpoint_sha256="ff") as shard:
        shard.add(["a", "b"], values[:2])
        shard.add(["c", "d", "e"], values[2:])
        shard.add_extra("fold", np.arange(5))
    with EmbeddingShard(tmp_path / "e.h5") as shard:
        np.testing.assert_array_equal(shard.rows(), values.astype(np.float16))
        np.testing.assert_array_equal(shard.rows(1, 3), values[1:3].astype(np.float16))
        assert shard.clip_ids == list("abcde")
        assert shard.checkpoint_sha256 == "ff"
        assert shard.extra("fold").tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_embedding_that_is_not_finite_is_refused_with_its_clip(tmp_path: Path, bad: float) -> None:
    values = np.ones((3, 2))
    values[1, 1] = bad
    with (
        pytest.raises(SsondoError, match=r"e\.h5: the embedding of clip second .*NaN or is too large for float16"),
        EmbeddingShardWriter(tmp_path / "e.h5", embedding_dim=2, settings={}, checkpoint_sha256="") as shard,
    ):
        shard.add(["first", "second", "third"], values)
    assert os.listdir(tmp_path) == []


def test_clusters_are_read_as_they_were_written(tmp_path: Path) -> None:
    with ClusterWriter(tmp_path / "c.h5", settings={"k": 2}) as writer:
        writer.add(["a"], np.array([1]))
        writer.add(["b", "c"], np.array([0, 1]))
        writer.add_centroids(np.eye(2))
    with Clusters(tmp_path / "c.h5") as shard:
        assert shard.clip_ids == ["a", "b", "c"]
        assert shard.cluster.tolist() == [1, 0, 1]
        assert shard.centroids.tolist() == [[1, 0], [0, 1]]


def test_clip_added_twice_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(SsondoError, match="clip x was added twice"),
        AudioShardWriter(tmp_path / "a.h5", sample_rate=0, settings={}) as shard,
    ):
        shard.add("x", b"1")
        shard.add("x", b"2")
    assert os.listdir(tmp_path) == []


def test_missing_shard_is_reported_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(SsondoError, match=r"train-0001\.h5: no such shard; make it with: snakemake .*train-0001\.h5"):
        AudioShard(tmp_path / "train-0001.h5")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_truncated_shard_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.h5"
    write_audio(path, {"x": b"abc"})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(
        SsondoError, match=r"a\.h5: not a readable HDF5 file, or truncated .* make it again with: snakemake"
    ):
        AudioShard(path)


def test_other_format_version_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_audio(path, {"x": b"abc"})
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(SsondoError, match=r"a\.h5: shard format version 99, this ssondo reads 1"):
        AudioShard(path)


def test_shard_not_marked_as_complete_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_audio(path, {"x": b"abc"})
    with h5py.File(path, "r+") as file:
        del file.attrs["complete"]
    with pytest.raises(SsondoError, match=r"a\.h5: incomplete"):
        AudioShard(path)


def test_shard_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.h5", {"x": b"abc"})
    with pytest.raises(SsondoError, match="a shard of kind 'audio', expected 'embedding'"):
        EmbeddingShard(tmp_path / "a.h5")


def test_shard_has_no_variable_length_types(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.h5", {"x": b"abc", "longer": b""})
    with h5py.File(tmp_path / "a.h5") as file:
        for name, dataset in file.items():
            assert h5py.check_vlen_dtype(dataset.dtype) is None, name
            assert h5py.check_string_dtype(dataset.dtype) is None or dataset.dtype.kind == "S", name
