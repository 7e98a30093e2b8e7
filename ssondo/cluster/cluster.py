"""k-means of teacher embeddings: which cluster each clip belongs to.

Student training draws every cluster equally often (Balanced Data Sampling). The centroids are
fitted on training clips only; evaluation clips are assigned to them. Shards are read block by
block, so the embeddings need not fit into memory.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssondo.cluster.plots import plot_sizes, plot_tsne, tsne_size
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import clip_list_digest, write_json
from ssondo.storage.shards.clusters import ClusterWriter
from ssondo.storage.shards.embedding import EmbeddingShard
from ssondo.system.progress import progress_bar

log = logging.getLogger(__name__)

# What the process needs beside the rows it keeps: the interpreter with faiss, scikit-learn and
# matplotlib, the block in hand, and (per clip) its name and cluster until the file is written.
_PROCESS_MB = 420
_CLIP_BYTES = 400
_BLOCK_BYTES = 24 << 20
_CHUNK_ROWS = 64
# Greedy k-means++ with many candidates, on a subset: on well-separated mixtures faiss's own starts
# end 10 to 25 % above MiniBatchKMeans, this one below it (benchmarks/cluster.py).
_INIT_CANDIDATES = 50
_INIT_CLIPS = 10_000
_INIT_CLIPS_PER_CLUSTER = 100


@dataclass(frozen=True)
class _Source:
    """An embedding shard of one split, and how many clips it has."""

    path: Path
    split: str
    n_clips: int


@dataclass(frozen=True)
class _Assignment:
    """What one pass over all clips found; `sample` holds the clips kept for the metrics."""

    clip_ids: dict[str, list[str]]
    sizes: dict[str, np.ndarray]
    squared_distance: dict[str, float]
    sample: np.ndarray
    sample_clusters: np.ndarray


def _scan(train: Sequence[Path], eval_: Sequence[Path]) -> tuple[list[_Source], int, str]:
    """Open every shard once: sources in order, embedding_dim, checkpoint_sha256.

    Raises:
        SsondoError: if two shards come from different teachers.
    """
    sources: list[_Source] = []
    first: tuple[Path, int, str] | None = None
    for split, paths in (("train", train), ("eval", eval_)):
        for path in paths:
            with EmbeddingShard(path) as shard:
                sources.append(_Source(path, split, len(shard)))
                if first is None:
                    first = (path, shard.embedding_dim, shard.checkpoint_sha256)
                for what, one, other in (
                    ("embeddings of size", first[1], shard.embedding_dim),
                    ("embeddings of checkpoint", first[2][:12] or "none", shard.checkpoint_sha256[:12] or "none"),
                ):
                    if one != other:
                        raise SsondoError(
                            f"{first[0]} has {what} {one}, {path} {other}; one clustering takes one teacher: "
                            "remove the shards of the other and run snakemake again"
                        )
    if first is None:
        raise SsondoError("no embedding shard to cluster; give at least one as --train")
    return sources, first[1], first[2]


def _unit_length(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, in place; a row of zeros stays."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.maximum(norms, np.finfo(np.float32).tiny)
    return rows


def _blocks(shard: EmbeddingShard, spherical: bool, wanted: np.ndarray | None = None) -> Iterator[tuple[int, Any]]:
    """Yield (first row, rows) of a shard, float32 (n, embedding_dim), in order.

    Args:
        shard: an open shard.
        spherical: scale each row to length 1.
        wanted: rows to read, sorted; blocks without one are skipped. None for all.

    Raises:
        SsondoError: if a row has a NaN or an infinity.
    """
    step = max(1, _BLOCK_BYTES // (4 * shard.embedding_dim * _CHUNK_ROWS)) * _CHUNK_ROWS
    for start in range(0, len(shard), step):
        stop = min(start + step, len(shard))
        keep = slice(None)
        if wanted is not None:
            inside = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, stop)]
            if not len(inside):
                continue
            keep = inside - start  # type: ignore[assignment]
        # A shard that another program made is not checked by our writer.
        raw = shard.rows(start, stop)
        finite = np.isfinite(raw).all(axis=1)
        if not finite.all():
            clip = shard.clip_ids[start + int(np.argmin(finite))]
            raise SsondoError(
                f"{shard.path}: the embedding of clip {clip} has a NaN or an infinity; "
                f"remove the shard and make it again with: snakemake {shard.path}"
            )
        rows = raw[keep].astype(np.float32)
        yield start, _unit_length(rows) if spherical else rows


def _gather(sources: Sequence[_Source], chosen: np.ndarray, embedding_dim: int, spherical: bool) -> np.ndarray:
    """The embeddings of the clips `chosen` (sorted numbers over all sources), float32."""
    points = np.empty((len(chosen), embedding_dim), dtype=np.float32)
    filled = before = 0
    with progress_bar(len(chosen), "cluster sample") as bar:
        for source in sources:
            low, high = np.searchsorted(chosen, [before, before + source.n_clips])
            if high > low:
                with EmbeddingShard(source.path) as shard:
                    for _, rows in _blocks(shard, spherical, chosen[low:high] - before):
                        points[filled : filled + len(rows)] = rows
                        filled += len(rows)
                        bar.update(len(rows))
            before += source.n_clips
    return points


def fit_centroids(
    points: np.ndarray, n_clusters: int, *, seed: int, iterations: int, restarts: int, spherical: bool = False
) -> np.ndarray:
    """k-means centroids of `points`, the best of `restarts` runs.

    Each run starts from greedy k-means++ (scikit-learn) and iterates in faiss, on a GPU if faiss
    has one. On a CPU the result depends on the points, the seed and the number of threads alone.

    Args:
        points: shape (n, dim), float32, finite; of length 1 if `spherical`.
        n_clusters: at most n.
        seed: of the starts; more restarts add runs to those of fewer.
        iterations: of Lloyd's algorithm, in each run.
        restarts: number of runs.
        spherical: compare by cosine; centroids have length 1.

    Returns:
        Shape (n_clusters, dim), float32.
    """
    import faiss
    from sklearn.cluster import kmeans_plusplus

    best, best_score = np.empty((0, 0), dtype=np.float32), -np.inf
    # Every so many points: a view, where a random subset would be a copy.
    step = max(1, len(points) // max(_INIT_CLIPS, _INIT_CLIPS_PER_CLUSTER * n_clusters))
    for run, run_seed in enumerate((np.random.SeedSequence(seed).generate_state(restarts) >> 1).tolist()):
        start, _ = kmeans_plusplus(
            points[run % step :: step], n_clusters, random_state=run_seed, n_local_trials=_INIT_CANDIDATES
        )
        kmeans = faiss.Kmeans(
            points.shape[1],
            n_clusters,
            niter=iterations,
            seed=run_seed,
            spherical=spherical,
            gpu=faiss.get_num_gpus() > 0,
            # No subsample of faiss's own, and no warning about clusters of fewer than 39 points.
            min_points_per_centroid=1,
            max_points_per_centroid=len(points),
        )
        kmeans.train(points, init_centroids=np.ascontiguousarray(start, dtype=np.float32))
        similarity, _ = kmeans.assign(points)
        score = float(similarity.sum(dtype=np.float64)) * (1 if spherical else -1)
        if score > best_score:
            best, best_score = np.array(kmeans.centroids), score
    return best


def assign(rows: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centroid of each row, and the squared Euclidean distance to it.

    Args:
        rows: shape (n, dim), float32.
        centroids: shape (k, dim), float32.

    Returns:
        Clusters, shape (n,), int32; squared distances, shape (n,), float32.
    """
    import faiss

    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(centroids)
    clusters = index.search(rows, 1)[1][:, 0].astype(np.int32)
    # faiss's own distances come from |x|² + |c|² - 2xc and lose digits far from the origin.
    difference = rows - centroids[clusters]
    return clusters, np.einsum("nd,nd->n", difference, difference)


def _assign_all(
    sources: Sequence[_Source], centroids: np.ndarray, kept: np.ndarray, spherical: bool, writer: ClusterWriter
) -> _Assignment:
    """Assign every clip of every source, in order, to `writer`; keep the training clips numbered `kept`."""
    k, dim = centroids.shape
    found = _Assignment(
        clip_ids={"train": [], "eval": []},
        sizes={split: np.zeros(k, dtype=np.int64) for split in ("train", "eval")},
        squared_distance={"train": 0.0, "eval": 0.0},
        sample=np.empty((len(kept), dim), dtype=np.float32),
        sample_clusters=np.empty(len(kept), dtype=np.int32),
    )
    before = 0
    with progress_bar(sum(source.n_clips for source in sources), "cluster assign") as bar:
        for source in sources:
            with EmbeddingShard(source.path) as shard:
                for start, rows in _blocks(shard, spherical):
                    clusters, squared = assign(rows, centroids)
                    clip_ids = shard.clip_ids[start : start + len(rows)]
                    writer.add(clip_ids, clusters)
                    found.clip_ids[source.split] += clip_ids
                    found.sizes[source.split] += np.bincount(clusters, minlength=k)
                    found.squared_distance[source.split] += float(squared.sum(dtype=np.float64))
                    if source.split == "train":
                        low, high = np.searchsorted(kept, [before, before + len(rows)])
                        found.sample[low:high] = rows[kept[low:high] - before]
                        found.sample_clusters[low:high] = clusters[kept[low:high] - before]
                        before += len(rows)
                    bar.update(len(rows))
    return found


def separation(points: np.ndarray, clusters: np.ndarray) -> dict[str, Any]:
    """How well clusters are apart: silhouette, Calinski-Harabasz and Davies-Bouldin index.

    Args:
        points: shape (n, dim).
        clusters: shape (n,).

    Returns:
        The three by name, and `n_clips`; each None, with the `reason`, where they are not defined.
    """
    from sklearn import config_context
    from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score

    n, present = len(clusters), len(np.unique(clusters))
    if not 2 <= present < n:
        few = "all lie in one cluster" if present < 2 else "each lies in a cluster of its own"
        nothing = dict.fromkeys(("silhouette", "calinski_harabasz", "davies_bouldin"))
        return {**nothing, "n_clips": n, "reason": f"of {n} sampled clips {few}"}
    with config_context(working_memory=64):
        return {
            "silhouette": float(silhouette_score(points, clusters)),
            "calinski_harabasz": float(calinski_harabasz_score(points, clusters)),
            "davies_bouldin": float(davies_bouldin_score(points, clusters)),
            "n_clips": n,
            "reason": None,
        }


def _size_summary(sizes: np.ndarray) -> dict[str, Any]:
    return {
        "min": int(sizes.min()),
        "median": float(np.median(sizes)),
        "max": int(sizes.max()),
        "empty": int((sizes == 0).sum()),
    }


def _check_settings(settings: Mapping[str, int]) -> None:
    for name, least in (
        ("n_clusters", 2),
        ("iterations", 1),
        ("restarts", 1),
        ("sample_size", 2),
        ("metric_sample", 2),
        ("memory_mb", 1),
        ("seed", 0),
    ):
        if settings[name] < least:
            raise SsondoError(f"{name} is {settings[name]}; it must be at least {least}")


def _fitting_size(n_train: int, n_clips: int, embedding_dim: int, settings: Mapping[str, int]) -> tuple[int, int]:
    """How many clips to fit on, and to compute the metrics on, within `memory_mb`.

    Raises:
        SsondoError: if there are more clusters than clips to fit on.
    """
    k, sample_size, memory_mb = settings["n_clusters"], settings["sample_size"], settings["memory_mb"]
    if k > n_train:
        raise SsondoError(
            f"{k} clusters of {n_train} training clips; choose fewer (n_clusters of the table) or get more clips"
        )
    if k > sample_size:
        raise SsondoError(f"{k} clusters fitted on {sample_size} clips; raise cluster.sample_size or choose fewer")
    fixed = (_PROCESS_MB << 20) + _CLIP_BYTES * n_clips
    # A tenth more than the rows: norms and labels in faiss, double-precision blocks in scikit-learn.
    row = int(4.4 * embedding_dim) + 64
    wanted = min(n_train, sample_size)
    affordable = ((memory_mb << 20) - fixed) // row
    if affordable < max(k, 6):
        needed = (fixed + row * max(k, 6) >> 20) + 1
        raise SsondoError(
            f"memory_mb is {memory_mb}, too little for {n_clips} clips in {k} clusters; give at least {needed}"
        )
    if affordable < wanted:
        log.warning(f"fitting on {affordable:,} clips, not {wanted:,}: more do not fit into {memory_mb:,} MB")
    # The indices over a sample copy it, by cluster.
    return min(wanted, affordable), min(n_train, settings["metric_sample"], affordable // 3)


def _metrics(
    found: _Assignment, scores: Mapping[str, Any], n_fitted: int, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What is written as JSON."""
    splits: dict[str, Any] = {}
    for split, clip_ids in found.clip_ids.items():
        total, n = found.squared_distance[split], len(clip_ids)
        splits[split] = {
            "n_clips": n,
            "clip_list_sha256": clip_list_digest(clip_ids),
            "inertia": {"sum": total, "mean": total / n if n else None},
            "cluster_sizes": _size_summary(found.sizes[split]),
        }
    sizes = found.sizes["train"]
    return {
        "n_clips": sum(len(clip_ids) for clip_ids in found.clip_ids.values()),
        "n_fitted": n_fitted,
        "clip_list_sha256": clip_list_digest([*found.clip_ids["train"], *found.clip_ids["eval"]]),
        "inertia": splits["train"]["inertia"],
        "silhouette": scores["silhouette"],
        "calinski_harabasz": scores["calinski_harabasz"],
        "davies_bouldin": scores["davies_bouldin"],
        "metric_sample": {"n_clips": scores["n_clips"], "undefined_because": scores["reason"]},
        "cluster_sizes": {**_size_summary(sizes), "each": sizes.tolist()},
        "splits": splits,
        "settings": dict(settings),
    }


def cluster(
    *,
    train: list[Path],
    eval: list[Path],
    n_clusters: int,
    seed: int,
    iterations: int,
    restarts: int,
    spherical: bool,
    sample_size: int,
    metric_sample: int,
    memory_mb: int,
    out: Path,
    metrics: Path,
    sizes_plot: Path,
    tsne_plot: Path,
    include_eval: bool = False,
) -> None:
    """Cluster teacher embeddings by k-means and write which cluster each clip belongs to.

    The centroids are fitted on a uniform sample of the training clips. On one machine the same
    clips, seed and number of threads give the same clusters; another number of threads may round
    differently and move a clip that lies between two clusters. With faiss on a GPU, where sums
    have no fixed order, runs may differ in the same way.

    Args:
        train: embedding shards to fit on and assign.
        eval: embedding shards that are assigned only.
        n_clusters: number of clusters, 2 or more.
        seed: of the samples and the starting centroids.
        iterations: of Lloyd's algorithm in each run.
        restarts: runs from different starts, of which the best is kept.
        spherical: compare directions only (cosine) instead of Euclidean distances.
        sample_size: most clips to fit on.
        metric_sample: most training clips for silhouette, Calinski-Harabasz and Davies-Bouldin.
        memory_mb: most memory of the process in MB; fewer clips are fitted on if it is short.
        out: clusters of all clips, training clips first, and the centroids.
        metrics: JSON with distances, sizes and separation of the clusters.
        sizes_plot: PNG of the cluster sizes.
        tsne_plot: PNG of a t-SNE map of sampled training clips.
        include_eval: fit on the eval clips too, as the published code does.

    Raises:
        SsondoError: if there are more clusters than clips, a shard is broken or has a NaN, two
            shards come from different teachers, or `memory_mb` is too small.
    """
    began = time.monotonic()
    numbers = {
        "n_clusters": n_clusters,
        "seed": seed,
        "iterations": iterations,
        "restarts": restarts,
        "sample_size": sample_size,
        "metric_sample": metric_sample,
        "memory_mb": memory_mb,
    }
    _check_settings(numbers)
    sources, embedding_dim, checkpoint_sha256 = _scan(train, eval)
    fit_sources = [source for source in sources if include_eval or source.split == "train"]
    n_train = sum(source.n_clips for source in sources if source.split == "train")
    n_clips = sum(source.n_clips for source in sources)
    n_usable = sum(source.n_clips for source in fit_sources)
    n_fitted, n_metric = _fitting_size(n_usable, n_clips, embedding_dim, numbers)
    n_metric = min(n_metric, n_train)
    settings = {
        **{name: value for name, value in numbers.items() if name != "memory_mb"},
        "spherical": spherical,
        "include_eval": include_eval,
        "embedding_dim": embedding_dim,
        "checkpoint_sha256": checkpoint_sha256,
    }

    chosen = np.sort(np.random.default_rng([seed, 0]).choice(n_usable, n_fitted, replace=False))
    points = _gather(fit_sources, chosen, embedding_dim, spherical)
    log.debug(f"k-means of {n_fitted} clips into {n_clusters} clusters, {restarts} runs")
    centroids = fit_centroids(
        points, n_clusters, seed=seed, iterations=iterations, restarts=restarts, spherical=spherical
    )
    del points

    kept = np.sort(np.random.default_rng([seed, 1]).choice(n_train, n_metric, replace=False))
    with ClusterWriter(out, settings={**settings, "n_fitted": n_fitted}) as writer:
        writer.add_centroids(centroids)
        found = _assign_all(sources, centroids, kept, spherical, writer)

    scores = separation(found.sample, found.sample_clusters)
    write_json(metrics, _metrics(found, scores, n_fitted, settings))
    plot_sizes(found.sizes["train"], sizes_plot)
    shown = np.random.default_rng([seed, 3]).permutation(n_metric)[: tsne_size(n_train)]
    plot_tsne(found.sample[shown], found.sample_clusters[shown], n_train, n_clusters, seed, tsne_plot)

    sizes = _size_summary(found.sizes["train"])
    silhouette = "undefined" if scores["silhouette"] is None else f"{scores['silhouette']:.3f}"
    log.info(
        f"clustered {n_clips:,} clips ({n_train:,} train, {n_clips - n_train:,} eval) into {n_clusters} clusters "
        f"of {sizes['min']:,} to {sizes['max']:,} training clips (median {sizes['median']:,.0f}, "
        f"{sizes['empty']} empty), fitted on {n_fitted:,}; silhouette {silhouette}; "
        f"{time.monotonic() - began:.0f} s; {out}"
    )
