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
from scipy.spatial.distance import cdist
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import adjusted_rand_score, calinski_harabasz_score, davies_bouldin_score, silhouette_score

import ssondo.cluster.cluster
import ssondo.cluster.plots
from ssondo.cluster.cluster import assign, cluster, fit_centroids, separation
from ssondo.config import Config
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import clip_list_digest, digest_path
from ssondo.storage.shards.clusters import Clusters
from ssondo.storage.shards.embedding import EmbeddingShardWriter


def mixture(n: int, dim: int, components: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of a Gaussian mixture with unequal weights, float32, and their components."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(components, dim)) * spread
    component = rng.choice(components, n, p=rng.dirichlet(np.full(components, 2.0)))
    return (centres[component] + rng.normal(size=(n, dim))).astype(np.float32), component


def write_shard(path: Path, embeddings: np.ndarray, checkpoint: str = "a" * 64, dtype: str = "float32") -> Path:
    with EmbeddingShardWriter(
        path, embedding_dim=embeddings.shape[1], settings={}, checkpoint_sha256=checkpoint, dtype=dtype
    ) as shard:
        shard.add([f"{path.stem}-{row:05d}" for row in range(len(embeddings))], embeddings)
    return path


def run(folder: Path, train: list[Path], eval_: list[Path] | None = None, **changes: Any) -> dict[str, Any]:
    """Cluster with small settings, `changes` apart; returns the metrics."""
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


def mean_squared_distance(points: np.ndarray, centroids: np.ndarray) -> float:
    return float(cdist(points, centroids, "sqeuclidean").min(axis=1).mean())


@pytest.mark.parametrize(
    ("spread", "components", "seed"), [(2.0, 30, 0), (2.0, 30, 1), (1.0, 30, 2), (0.3, 30, 3), (1.0, 120, 4)]
)
def test_distances_are_no_worse_than_minibatch_kmeans_by_one_percent(spread: float, components: int, seed: int) -> None:
    points, _ = mixture(4_000, 32, components, spread, seed)
    reference = MiniBatchKMeans(30, max_iter=20, n_init=2, random_state=seed).fit(points)
    centroids = fit_centroids(points, 30, seed=seed, iterations=20, restarts=2)
    assert mean_squared_distance(points, centroids) <= 1.01 * mean_squared_distance(points, reference.cluster_centers_)


def test_more_restarts_never_end_worse() -> None:
    points, _ = mixture(1_000, 16, 20, 1.5, 5)
    ends = [
        mean_squared_distance(points, fit_centroids(points, 20, seed=1, iterations=10, restarts=restarts))
        for restarts in (1, 3, 6)
    ]
    assert ends[0] >= ends[1] * (1 - 1e-6)
    assert ends[1] >= ends[2] * (1 - 1e-6)


def test_well_separated_components_are_found_across_shards(tmp_path: Path) -> None:
    points, component = mixture(600, 8, 4, 20.0, 0)
    shards = [write_shard(tmp_path / f"train-{i:04d}.h5", points[i * 200 : (i + 1) * 200]) for i in range(3)]
    run(tmp_path, shards)
    with Clusters(tmp_path / "clusters.h5") as clusters:
        assert adjusted_rand_score(component, clusters.cluster) == 1.0


def test_every_clip_goes_to_its_nearest_centroid_train_first_then_eval_in_order(tmp_path: Path) -> None:
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


def test_evaluation_clips_do_not_move_the_centroids(tmp_path: Path) -> None:
    points, _ = mixture(300, 8, 4, 2.0, 2)
    train = write_shard(tmp_path / "train-0000.h5", points)
    run(tmp_path / "alone", [train])
    far = write_shard(tmp_path / "eval-0000.h5", points + 100)
    metrics = run(tmp_path / "with", [train], [far])
    with Clusters(tmp_path / "alone/clusters.h5") as alone, Clusters(tmp_path / "with/clusters.h5") as both:
        np.testing.assert_array_equal(alone.centroids, both.centroids)
        assert len(both) == 600
    assert metrics["cluster_sizes"] == json.loads((tmp_path / "alone/metrics.json").read_text())["cluster_sizes"]


def test_evaluation_clips_move_the_centroids_where_that_is_asked_for(tmp_path: Path) -> None:
    near, far = np.random.default_rng(0).normal(size=(2, 200, 6)).astype(np.float32)
    far += 50
    train, eval_ = write_shard(tmp_path / "train-0000.h5", near), write_shard(tmp_path / "eval-0000.h5", far)
    found = run(tmp_path, [train], [eval_], n_clusters=2, include_eval=True)
    assert found["n_fitted"] == 400
    with Clusters(tmp_path / "clusters.h5") as clusters:
        centroids = clusters.centroids[np.argsort(clusters.centroids[:, 0])]
    np.testing.assert_allclose(centroids, [near.mean(0), far.mean(0)], rtol=1e-4, atol=1e-4)
    assert found["splits"]["eval"]["cluster_sizes"]["empty"] == 1


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


def test_the_fitting_sample_has_the_asked_size_and_depends_on_the_seed(tmp_path: Path) -> None:
    points, _ = mixture(600, 8, 4, 1.0, 4)
    train = write_shard(tmp_path / "train-0000.h5", points)
    assert run(tmp_path / "a", [train], sample_size=100, metric_sample=50)["n_fitted"] == 100
    run(tmp_path / "b", [train], sample_size=100, metric_sample=50, seed=1)
    with Clusters(tmp_path / "a/clusters.h5") as one, Clusters(tmp_path / "b/clusters.h5") as other:
        assert not np.allclose(np.sort(one.centroids[:, 0]), np.sort(other.centroids[:, 0]))
        assert len(one) == 600


def test_block_borders_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_spherical_clusters_look_at_directions_alone(tmp_path: Path) -> None:
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


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, full_tsne: None) -> None:
    points, _ = mixture(500, 16, 6, 1.0, 7)
    train = write_shard(tmp_path / "train-0000.h5", points, dtype="float16")
    for name in ("a", "b"):
        run(tmp_path / name, [train], restarts=2)
    for file in ("clusters.h5.digest", "metrics.json", "sizes.png", "tsne.png"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


@pytest.fixture
def full_tsne() -> None:
    """Ask for t-SNE at its full length."""


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
    """Cluster in a process of its own; returns its peak memory in MB."""
    code = (
        "import json, sys; from pathlib import Path; from ssondo.cluster.cluster import cluster\n"
        "a = json.loads(sys.argv[1])\n"
        "paths = {k: Path(v) for k, v in a.pop('paths').items()}\n"
        "cluster(train=[Path(p) for p in a.pop('train')], eval=[], **paths, **a)\n"
        # Not getrusage's, which in a child begins with what pytest had.
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


def test_short_memory_shrinks_the_fitting_sample_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, _ = mixture(3_000, 500, 4, 1.0, 10)
    train = write_shard(tmp_path / "train-0000.h5", points)
    monkeypatch.setattr(ssondo.cluster.cluster, "_PROCESS_MB", 0)
    metrics = run(tmp_path, [train], memory_mb=4)
    # 4 MB less 400 B a clip, in rows of 4 bytes a value and a tenth more.
    assert 1_000 < metrics["n_fitted"] < 2**22 / (500 * 4)
    assert metrics["n_clips"] == 3_000
    assert "fitting on" in caplog.text


def test_default_memory_holds_the_default_sample_of_audioset(caplog: pytest.LogCaptureFixture) -> None:
    settings = {"n_clusters": 50, **Config().cluster.model_dump()}
    n_train, n_eval, dim = 22_160 + 2_041_789, 20_371, 3840
    assert ssondo.cluster.cluster._fitting_size(n_train, n_train + n_eval, dim, settings) == (500_000, 10_000)
    assert caplog.text == ""


def test_a_memory_limit_below_the_least_names_a_limit_that_works(tmp_path: Path) -> None:
    train = write_shard(tmp_path / "train-0000.h5", mixture(200, 64, 4, 1.0, 11)[0])
    with pytest.raises(SsondoError, match=r"memory_mb is 10, too little for 200 clips .*give at least (\d+)$") as error:
        run(tmp_path, [train], memory_mb=10)
    assert run(tmp_path, [train], memory_mb=int(str(error.value).split()[-1]))["n_clips"] == 200


def test_more_clusters_than_clips_is_one_line_with_both_numbers_and_the_way_out(tmp_path: Path) -> None:
    train = write_shard(tmp_path / "train-0000.h5", mixture(30, 8, 3, 1.0, 12)[0])
    with pytest.raises(SsondoError) as error:
        run(tmp_path, [train], n_clusters=50)
    assert (
        str(error.value) == "50 clusters of 30 training clips; choose fewer (n_clusters of the table) or get more clips"
    )


def test_more_clusters_than_the_fitting_sample_is_refused(tmp_path: Path) -> None:
    train = write_shard(tmp_path / "train-0000.h5", mixture(30, 8, 3, 1.0, 12)[0])
    with pytest.raises(SsondoError, match=r"20 clusters fitted on 10 clips; raise cluster\.sample_size"):
        run(tmp_path, [train], n_clusters=20, sample_size=10)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_nan_names_its_shard_and_clip_and_leaves_no_clusters(tmp_path: Path, value: float, split: str) -> None:
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
    [(9, "a" * 64, "embeddings of size 8, .*eval-0000.h5 9"), (8, "b" * 64, "checkpoint a{12}, .*eval-0000.h5 b{12}")],
)
def test_shards_of_two_teachers_are_both_named(tmp_path: Path, dim: int, checkpoint: str, text: str) -> None:
    one = write_shard(tmp_path / "train-0000.h5", mixture(50, 8, 3, 1.0, 14)[0])
    other = write_shard(tmp_path / "eval-0000.h5", mixture(50, dim, 3, 1.0, 14)[0], checkpoint)
    with pytest.raises(SsondoError, match=rf"train-0000\.h5 has .*{text}; one clustering takes one teacher"):
        run(tmp_path, [one], [other])


@pytest.mark.parametrize(("name", "value"), [("n_clusters", 1), ("n_clusters", 0), ("restarts", 0), ("iterations", 0)])
def test_impossible_settings_name_the_least(tmp_path: Path, name: str, value: int) -> None:
    train = write_shard(tmp_path / "train-0000.h5", mixture(30, 8, 3, 1.0, 15)[0])
    with pytest.raises(SsondoError, match=rf"{name} is {value}; it must be at least [12]$"):
        run(tmp_path, [train], **{name: value})


def test_no_shard_is_an_error_and_not_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(SsondoError, match="no embedding shard"):
        run(tmp_path, [])
    assert not list(tmp_path.iterdir())


def test_thirty_clips_in_three_clusters_work_without_a_word_from_faiss(
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
def test_as_many_clusters_as_clips_leaves_the_silhouette_undefined_with_the_reason(
    tmp_path: Path, n: int, dim: int
) -> None:
    train = write_shard(tmp_path / "train-0000.h5", 10 * np.arange(n * dim, dtype=np.float32).reshape(n, dim))
    metrics = run(tmp_path, [train], n_clusters=n)
    assert metrics["silhouette"] is None
    assert metrics["metric_sample"]["undefined_because"] == f"of {n} sampled clips each lies in a cluster of its own"
    assert metrics["inertia"]["sum"] == 0
    assert metrics["cluster_sizes"]["each"] == [1] * n


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_embeddings_make_no_nan(tmp_path: Path, spherical: bool, value: float) -> None:
    train = write_shard(tmp_path / "train-0000.h5", np.full((40, 8), value, dtype=np.float32))
    metrics = run(tmp_path, [train], spherical=spherical)
    assert sum(metrics["cluster_sizes"]["each"]) == 40
    with Clusters(tmp_path / "clusters.h5") as clusters:
        assert np.isfinite(clusters.centroids).all()


def test_separation_of_one_cluster_says_why_it_is_undefined() -> None:
    scores = separation(np.eye(5, dtype=np.float32), np.zeros(5, dtype=np.int32))
    assert scores["silhouette"] is scores["calinski_harabasz"] is scores["davies_bouldin"] is None
    assert scores["reason"] == "of 5 sampled clips all lie in one cluster"


def test_distances_far_from_the_origin_keep_their_digits() -> None:
    centroids = np.array([[1000.0, 0.0], [1000.0, 1.0]], dtype=np.float32)
    clusters, squared = assign(np.array([[1000.0, 0.25], [1000.0, 0.75]], dtype=np.float32), centroids)
    assert clusters.tolist() == [0, 1]
    assert squared.tolist() == [0.0625, 0.0625]
