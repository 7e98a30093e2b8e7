import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from gaussian_mixture import mixture
from scipy.spatial.distance import cdist
from sklearn.metrics import adjusted_rand_score, calinski_harabasz_score, davies_bouldin_score, silhouette_score

import ssondo.cluster.cluster
import ssondo.cluster.plots
from ssondo.cluster.cluster import cluster
from ssondo.config import Config
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import clip_list_digest, digest_path
from ssondo.storage.shards.clusters import Clusters
from ssondo.storage.shards.embedding import EmbeddingShardWriter


def write_shard(path: Path, embeddings: np.ndarray, checkpoint: str = "a" * 64, dtype: str = "float32") -> Path:
    with EmbeddingShardWriter(
        path, embedding_dim=embeddings.shape[1], settings={}, checkpoint_sha256=checkpoint, dtype=dtype
    ) as shard:
        shard.add([f"{path.stem}-{row:05d}" for row in range(len(embeddings))], embeddings)
    return path


def run(folder: Path, train: list[Path], eval_: list[Path] | None = None, **changes: Any) -> dict[str, Any]:
    """Cluster with small default settings and return the metrics."""
    settings: dict[str, Any] = {
        "n_clusters": 4,
        "seed": 0,
        "iterations": 10,
        "restarts": 1,
        "spherical": False,
        "sample_size": 10_000,
        "metric_sample": 10_000,
        "memory_mb": 1_000,
        **changes,
    }
    cluster(
        train=train,
        eval=eval_ or [],
        out=folder / "clusters.h5",
        metrics=folder / "metrics.json",
        sizes_plot=folder / "sizes.png",
        tsne_plot=folder / "tsne.png",
        **settings,
    )
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(autouse=True)
def _short_tsne(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "full_tsne" not in request.fixturenames:
        monkeypatch.setattr(ssondo.cluster.plots, "_TSNE_ITERATIONS", 250)


def test_well_separated_components_are_found_across_shards(tmp_path: Path) -> None:
    points, component = mixture(600, 8, 4, 20.0, 0)
    shards = [write_shard(tmp_path / f"train-{i:04d}.h5", points[i * 200 : (i + 1) * 200]) for i in range(3)]
    run(tmp_path, shards)
    with Clusters(tmp_path / "clusters.h5") as clusters:
        assert adjusted_rand_score(component, clusters.cluster) == 1.0


def test_every_clip_is_assigned_to_its_nearest_centroid_with_training_clips_first(tmp_path: Path) -> None:
    points, _ = mixture(500, 8, 6, 1.0, 1)
    first = write_shard(tmp_path / "train-0000.h5", points[:200])
    second = write_shard(tmp_path / "train-0001.h5", points[200:350])
    held_out = write_shard(tmp_path / "eval-0000.h5", points[350:])
    run(tmp_path, [first, second], [held_out])
    with Clusters(tmp_path / "clusters.h5") as clusters:
        np.testing.assert_array_equal(
            clusters.cluster, cdist(points, clusters.centroids.astype(np.float64)).argmin(axis=1)
        )
        assert clusters.clip_ids == [
            *(f"train-0000-{row:05d}" for row in range(200)),
            *(f"train-0001-{row:05d}" for row in range(150)),
            *(f"eval-0000-{row:05d}" for row in range(150)),
        ]


def test_evaluation_clips_do_not_change_the_centroids(tmp_path: Path) -> None:
    points, _ = mixture(300, 8, 4, 2.0, 2)
    train = write_shard(tmp_path / "train-0000.h5", points)
    run(tmp_path / "alone", [train])
    far = write_shard(tmp_path / "eval-0000.h5", points + 100)
    metrics = run(tmp_path / "with", [train], [far])
    with Clusters(tmp_path / "alone/clusters.h5") as alone, Clusters(tmp_path / "with/clusters.h5") as both:
        np.testing.assert_array_equal(alone.centroids, both.centroids)
        assert len(both) == 600
    assert metrics["cluster_sizes"] == json.loads((tmp_path / "alone/metrics.json").read_text())["cluster_sizes"]


def test_include_eval_fits_the_centroids_on_evaluation_clips_too(tmp_path: Path) -> None:
    near, far = np.random.default_rng(0).normal(size=(2, 200, 6)).astype(np.float32)
    far += 50
    train, eval_ = write_shard(tmp_path / "train-0000.h5", near), write_shard(tmp_path / "eval-0000.h5", far)
    metrics = run(tmp_path, [train], [eval_], n_clusters=2, include_eval=True)
    assert metrics["n_fitted"] == 400
    with Clusters(tmp_path / "clusters.h5") as clusters:
        centroids = clusters.centroids[np.argsort(clusters.centroids[:, 0])]
    np.testing.assert_allclose(centroids, [near.mean(0), far.mean(0)], rtol=1e-4, atol=1e-4)
    assert metrics["splits"]["eval"]["cluster_sizes"]["empty"] == 1


def test_metrics_agree_with_numpy_and_scikit_learn(tmp_path: Path) -> None:
    points, _ = mixture(400, 8, 5, 1.0, 3)
    train = write_shard(tmp_path / "train-0000.h5", points[:300])
    held_out = write_shard(tmp_path / "eval-0000.h5", points[300:])
    metrics = run(tmp_path, [train], [held_out])
    with Clusters(tmp_path / "clusters.h5") as clusters:
        squared = cdist(points, clusters.centroids.astype(np.float64), "sqeuclidean").min(axis=1)
        labels = clusters.cluster
        clip_ids = clusters.clip_ids
    sizes = np.bincount(labels[:300], minlength=4)
    assert metrics["inertia"]["sum"] == pytest.approx(squared[:300].sum(), rel=1e-5)
    assert metrics["inertia"]["mean"] == pytest.approx(squared[:300].mean(), rel=1e-5)
    assert metrics["splits"]["eval"]["inertia"]["mean"] == pytest.approx(squared[300:].mean(), rel=1e-5)
    assert metrics["silhouette"] == pytest.approx(silhouette_score(points[:300], labels[:300]), rel=1e-5)
    assert metrics["calinski_harabasz"] == pytest.approx(calinski_harabasz_score(points[:300], labels[:300]), rel=1e-5)
    assert metrics["davies_bouldin"] == pytest.approx(davies_bouldin_score(points[:300], labels[:300]), rel=1e-5)
    assert metrics["cluster_sizes"] == {
        "each": sizes.tolist(),
        "min": sizes.min(),
        "median": np.median(sizes),
        "max": sizes.max(),
        "empty": 0,
    }
    assert (metrics["n_clips"], metrics["n_fitted"]) == (400, 300)
    assert (metrics["splits"]["train"]["n_clips"], metrics["splits"]["eval"]["n_clips"]) == (300, 100)
    assert metrics["clip_list_sha256"] == clip_list_digest(clip_ids)
    assert metrics["splits"]["train"]["clip_list_sha256"] == clip_list_digest(clip_ids[:300])


def test_sample_for_the_fit_has_the_requested_size_and_depends_on_the_seed(tmp_path: Path) -> None:
    points, _ = mixture(600, 8, 4, 1.0, 4)
    train = write_shard(tmp_path / "train-0000.h5", points)
    assert run(tmp_path / "a", [train], sample_size=100, metric_sample=50)["n_fitted"] == 100
    run(tmp_path / "b", [train], sample_size=100, metric_sample=50, seed=1)
    with Clusters(tmp_path / "a/clusters.h5") as one, Clusters(tmp_path / "b/clusters.h5") as other:
        assert not np.allclose(np.sort(one.centroids[:, 0]), np.sort(other.centroids[:, 0]))
        assert len(one) == 600


def test_result_does_not_depend_on_the_block_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points, _ = mixture(700, 8, 4, 2.0, 5)
    shards = [write_shard(tmp_path / f"train-{i:04d}.h5", points[i * 350 : (i + 1) * 350]) for i in range(2)]
    run(tmp_path / "whole", shards, sample_size=90, metric_sample=200)
    monkeypatch.setattr(ssondo.cluster.cluster, "_BLOCK_BYTES", 1)
    run(tmp_path / "blocks", shards, sample_size=90, metric_sample=200)
    one, other = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "blocks"))
    assert one["inertia"].pop("sum") == pytest.approx(other["inertia"].pop("sum"))
    assert one["silhouette"] == other["silhouette"]
    assert (
        digest_path(tmp_path / "whole/clusters.h5").read_text()
        == digest_path(tmp_path / "blocks/clusters.h5").read_text()
    )


def test_spherical_clusters_depend_on_directions_only(tmp_path: Path) -> None:
    points, component = mixture(300, 16, 4, 10.0, 6)
    lengths = np.random.default_rng(0).uniform(0.1, 50, size=(300, 1)).astype(np.float32)
    train = write_shard(tmp_path / "train-0000.h5", points * lengths)
    metrics = run(tmp_path, [train], spherical=True, restarts=2)
    with Clusters(tmp_path / "clusters.h5") as clusters:
        assert adjusted_rand_score(component, clusters.cluster) == 1.0
        np.testing.assert_allclose(np.linalg.norm(clusters.centroids, axis=1), 1, rtol=1e-5)
        cosine = 1 - cdist(points, clusters.centroids, "cosine").min(axis=1)
    # |a - b|² = 2 - 2 cos for unit vectors.
    assert metrics["inertia"]["mean"] == pytest.approx(2 - 2 * cosine.mean(), rel=1e-3)


def test_equal_seeds_give_identical_files(tmp_path: Path, full_tsne: None) -> None:
    points, _ = mixture(500, 16, 6, 1.0, 7)
    train = write_shard(tmp_path / "train-0000.h5", points, dtype="float16")
    for name in ("a", "b"):
        run(tmp_path / name, [train], restarts=2)
    for file in ("clusters.h5.digest", "metrics.json", "sizes.png", "tsne.png"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


@pytest.fixture
def full_tsne() -> None:
    """Request t-SNE with all its iterations."""


@pytest.mark.slow
def test_two_threads_in_separate_processes_give_the_same_clusters_and_map(tmp_path: Path) -> None:
    points, _ = mixture(5_000, 64, 40, 0.3, 8)
    train = write_shard(tmp_path / "train-0000.h5", points, dtype="float16")
    outputs = []
    for name in ("a", "b"):
        _run_alone(tmp_path / name, [train], threads=2, n_clusters=30, metric_sample=500)
        outputs.append(
            [(tmp_path / name / file).read_bytes() for file in ("clusters.h5.digest", "metrics.json", "tsne.png")]
        )
    assert outputs[0] == outputs[1]


def _run_alone(folder: Path, train: list[Path], threads: int, **changes: Any) -> float:
    """Cluster in a separate process and return its peak memory in MB."""
    code = (
        "import json, sys; from pathlib import Path; from ssondo.cluster.cluster import cluster\n"
        "a = json.loads(sys.argv[1])\n"
        "paths = {k: Path(v) for k, v in a.pop('paths').items()}\n"
        "cluster(train=[Path(p) for p in a.pop('train')], eval=[], **paths, **a)\n"
        # The peak of getrusage includes the memory of the parent process at the time of the fork.
        "print(int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) / 1024)"
    )
    names = {"out": "clusters.h5", "metrics": "metrics.json", "sizes_plot": "sizes.png", "tsne_plot": "tsne.png"}
    arguments = {
        "train": [str(path) for path in train],
        "paths": {name: str(folder / file) for name, file in names.items()},
        "n_clusters": 4,
        "seed": 0,
        "iterations": 5,
        "restarts": 1,
        "spherical": False,
        "sample_size": 10**9,
        "metric_sample": 1_000,
        "memory_mb": 1_000,
        **changes,
    }
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.slow
def test_memory_stays_under_the_limit_with_embeddings_larger_than_it(tmp_path: Path) -> None:
    memory_mb, dim, n = 500, 2_048, 20_000
    rng = np.random.default_rng(9)
    shards = []
    for i in range(4):
        path = tmp_path / f"train-{i:04d}.h5"
        with EmbeddingShardWriter(path, embedding_dim=dim, settings={}, checkpoint_sha256="a" * 64) as shard:
            for start in range(0, n, 2_000):
                shard.add(
                    [f"{i}-{row}" for row in range(start, start + 2_000)], rng.random((2_000, dim), dtype=np.float32)
                )
        shards.append(path)
    assert 4 * n * dim * 4 > memory_mb << 20
    peak_mb = _run_alone(tmp_path, shards, threads=1, memory_mb=memory_mb)
    assert peak_mb < memory_mb
    with Clusters(tmp_path / "clusters.h5") as clusters:
        assert len(clusters) == 4 * n


def test_small_memory_limit_reduces_the_sample_for_the_fit_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, _ = mixture(3_000, 500, 4, 1.0, 10)
    train = write_shard(tmp_path / "train-0000.h5", points)
    monkeypatch.setattr(ssondo.cluster.cluster, "_PROCESS_MB", 0)
    metrics = run(tmp_path, [train], memory_mb=4)
    # 4 MB minus 400 bytes per clip, divided by 4.4 bytes per value.
    assert 1_000 < metrics["n_fitted"] < 2**22 / (500 * 4)
    assert metrics["n_clips"] == 3_000
    assert "fitting on" in caplog.text


def test_default_memory_holds_the_default_sample_of_audioset(caplog: pytest.LogCaptureFixture) -> None:
    settings = {"n_clusters": 50, **Config().cluster.model_dump()}
    n_train, n_eval, dim = 22_160 + 2_041_789, 20_371, 3840
    assert ssondo.cluster.cluster._sample_sizes(n_train, n_train + n_eval, dim, settings) == (500_000, 10_000)
    assert caplog.text == ""


def test_error_for_a_memory_limit_that_is_too_small_names_a_sufficient_one(tmp_path: Path) -> None:
    train = write_shard(tmp_path / "train-0000.h5", mixture(200, 64, 4, 1.0, 11)[0])
    with pytest.raises(
        SsondoError, match=r"memory_mb is 10, too small for 200 clips .*must be at least (\d+)$"
    ) as error:
        run(tmp_path, [train], memory_mb=10)
    assert run(tmp_path, [train], memory_mb=int(str(error.value).split()[-1]))["n_clips"] == 200


def test_error_for_more_clusters_than_clips_gives_both_numbers_and_the_remedy(tmp_path: Path) -> None:
    train = write_shard(tmp_path / "train-0000.h5", mixture(30, 8, 3, 1.0, 12)[0])
    with pytest.raises(SsondoError) as error:
        run(tmp_path, [train], n_clusters=50)
    assert (
        str(error.value)
        == "50 clusters of 30 training clips are not possible; choose fewer (n_clusters of the table) or get more clips"
    )


def test_more_clusters_than_the_sample_for_the_fit_are_refused(tmp_path: Path) -> None:
    train = write_shard(tmp_path / "train-0000.h5", mixture(30, 8, 3, 1.0, 12)[0])
    with pytest.raises(SsondoError, match=r"20 clusters cannot be fitted on 10 clips; raise cluster\.sample_size"):
        run(tmp_path, [train], n_clusters=20, sample_size=10)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("split", ["train", "eval"])
def test_error_for_a_nan_names_the_shard_and_the_clip_and_leaves_no_file(
    tmp_path: Path, value: float, split: str
) -> None:
    shards = {
        name: write_shard(tmp_path / f"{name}-0000.h5", mixture(200, 8, 3, 1.0, 13)[0]) for name in ("train", "eval")
    }
    with h5py.File(shards[split], "r+") as file:
        file["embedding"][137, 5] = value
    with pytest.raises(SsondoError, match=rf"{split}-0000\.h5: the embedding of clip {split}-0000-00137 has a NaN"):
        run(tmp_path, [shards["train"]], [shards["eval"]])
    assert not (tmp_path / "clusters.h5").exists()


@pytest.mark.parametrize(
    ("dim", "checkpoint", "text"),
    [
        (9, "a" * 64, "embeddings of size 8, .*eval-0000.h5 has 9"),
        (8, "b" * 64, "checkpoint a{12}, .*eval-0000.h5 has b{12}"),
    ],
)
def test_error_for_shards_of_two_teachers_names_both(tmp_path: Path, dim: int, checkpoint: str, text: str) -> None:
    one = write_shard(tmp_path / "train-0000.h5", mixture(50, 8, 3, 1.0, 14)[0])
    other = write_shard(tmp_path / "eval-0000.h5", mixture(50, dim, 3, 1.0, 14)[0], checkpoint)
    with pytest.raises(SsondoError, match=rf"train-0000\.h5 has .*{text}; all shards of a clustering must"):
        run(tmp_path, [one], [other])


@pytest.mark.parametrize(("name", "value"), [("n_clusters", 1), ("n_clusters", 0), ("restarts", 0), ("iterations", 0)])
def test_error_for_an_invalid_setting_names_the_minimum(tmp_path: Path, name: str, value: int) -> None:
    train = write_shard(tmp_path / "train-0000.h5", mixture(30, 8, 3, 1.0, 15)[0])
    with pytest.raises(SsondoError, match=rf"{name} is {value}; it must be at least [12]$"):
        run(tmp_path, [train], **{name: value})


def test_no_shard_is_an_error_that_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(SsondoError, match="no embedding shard"):
        run(tmp_path, [])
    assert not list(tmp_path.iterdir())


def test_thirty_clips_in_three_clusters_give_no_warning_of_faiss(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    train = write_shard(tmp_path / "train-0000.h5", mixture(30, 8, 3, 5.0, 16)[0])
    with caplog.at_level(logging.INFO, logger="ssondo.cluster.cluster"):
        metrics = run(tmp_path, [train], n_clusters=3)
    assert metrics["silhouette"] > 0.3
    assert "WARNING" not in "".join(capfd.readouterr())
    assert [record.getMessage()[:40] for record in caplog.records if record.name == "ssondo.cluster.cluster"] == [
        "clustered 30 clips (30 train, 0 eval) in"
    ]
    for plot in ("sizes.png", "tsne.png"):
        content = (tmp_path / plot).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert b"Software" not in content


@pytest.mark.parametrize(("n", "dim"), [(2, 8), (3, 1), (4, 2)])
def test_silhouette_of_as_many_clusters_as_clips_is_undefined_with_a_reason(tmp_path: Path, n: int, dim: int) -> None:
    train = write_shard(tmp_path / "train-0000.h5", 10 * np.arange(n * dim, dtype=np.float32).reshape(n, dim))
    metrics = run(tmp_path, [train], n_clusters=n)
    assert metrics["silhouette"] is None
    assert metrics["metric_sample"]["undefined_because"] == f"of {n} sampled clips each lies in a cluster of its own"
    assert metrics["inertia"]["sum"] == 0
    assert metrics["cluster_sizes"]["each"] == [1] * n


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_embeddings_give_finite_centroids(tmp_path: Path, spherical: bool, value: float) -> None:
    train = write_shard(tmp_path / "train-0000.h5", np.full((40, 8), value, dtype=np.float32))
    metrics = run(tmp_path, [train], spherical=spherical)
    assert sum(metrics["cluster_sizes"]["each"]) == 40
    with Clusters(tmp_path / "clusters.h5") as clusters:
        assert np.isfinite(clusters.centroids).all()
