"""Clustering of the clips by their teacher embeddings.

Distillation draws clips of every cluster equally often (Balanced Data Sampling). The centroids are fitted on training
clips; evaluation clips are only assigned to them. Embeddings are read in blocks and need not fit into memory.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssondo.cluster.kmeans import assign, fit_centroids, separation
from ssondo.cluster.plots import plot_sizes, plot_tsne, tsne_size
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import clip_list_digest, write_json
from ssondo.storage.shards.clusters import ClusterWriter
from ssondo.storage.shards.embedding import EmbeddingShard
from ssondo.system.progress import progress_bar

log = logging.getLogger(__name__)

# Memory apart from the embeddings: the interpreter with faiss, scikit-learn, matplotlib and one block of rows; and for
# each clip its name and cluster.
_PROCESS_MB = 420
_CLIP_BYTES = 400
_BLOCK_BYTES = 24 << 20
_CHUNK_ROWS = 64
_MINIMA = {
    "n_clusters": 2,
    "iterations": 1,
    "restarts": 1,
    "sample_size": 2,
    "metric_sample": 2,
    "memory_mb": 1,
    "seed": 0,
}


@dataclass(frozen=True)
class _Source:
    """An embedding shard, its split and its number of clips."""

    path: Path
    split: str
    n_clips: int


@dataclass(frozen=True)
class _Assignment:
    """Clip ids, cluster sizes and summed squared distances of each split, and a sample of the training clips."""

    clip_ids: dict[str, list[str]]
    sizes: dict[str, np.ndarray]
    squared_distance: dict[str, float]
    sample: np.ndarray
    sample_clusters: np.ndarray


def _open_sources(train: Sequence[Path], eval_: Sequence[Path]) -> tuple[list[_Source], int, str]:
    """Open every shard once and return the sources in order, their embedding_dim and their checkpoint_sha256."""
    sources: list[_Source] = []
    first: tuple[Path, int, str] | None = None
    for split, paths in (("train", train), ("eval", eval_)):
        for path in paths:
            with EmbeddingShard(path) as shard:
                sources.append(_Source(path, split, len(shard)))
                if first is None:
                    first = (path, shard.embedding_dim, shard.checkpoint_sha256)
                for what, expected, actual in (
                    ("embeddings of size", first[1], shard.embedding_dim),
                    ("embeddings of checkpoint", first[2][:12] or "none", shard.checkpoint_sha256[:12] or "none"),
                ):
                    if expected != actual:
                        raise SsondoError(
                            f"{first[0]} has {what} {expected}, {path} has {actual}; all shards of a clustering must "
                            "come from one teacher: remove those of the other and run snakemake again"
                        )
    if first is None:
        raise SsondoError("there is no embedding shard to cluster; give at least one as --train")
    return sources, first[1], first[2]


def _blocks(shard: EmbeddingShard, spherical: bool, selected: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Yield the embeddings of a shard in order, in blocks of float32 (n, embedding_dim).

    `selected` are the sorted numbers of the rows that are read; None for all. If `spherical`, a row has length 1.
    """
    step = max(1, _BLOCK_BYTES // (4 * shard.embedding_dim * _CHUNK_ROWS)) * _CHUNK_ROWS
    for start in range(0, len(shard), step):
        stop = min(start + step, len(shard))
        inside: slice | np.ndarray = slice(None)
        if selected is not None:
            inside = selected[np.searchsorted(selected, start) : np.searchsorted(selected, stop)] - start
            if not len(inside):
                continue
        # Shards that another program wrote were not checked when they were written.
        stored = shard.rows(start, stop)
        finite = np.isfinite(stored).all(axis=1)
        if not finite.all():
            clip = shard.clip_ids[start + int(np.argmin(finite))]
            raise SsondoError(
                f"{shard.path}: the embedding of clip {clip} has a NaN or an infinity; "
                f"remove the shard and make it again with: snakemake {shard.path}"
            )
        rows = stored[inside].astype(np.float32)
        if spherical:
            rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        yield rows


def _gather(sources: Sequence[_Source], selected: np.ndarray, embedding_dim: int, spherical: bool) -> np.ndarray:
    """Read the embeddings of the clips whose numbers, counted over all sources, are `selected` (sorted)."""
    points = np.empty((len(selected), embedding_dim), dtype=np.float32)
    filled = offset = 0
    with progress_bar(len(selected), "cluster sample") as bar:
        for source in sources:
            low, high = np.searchsorted(selected, [offset, offset + source.n_clips])
            if high > low:
                with EmbeddingShard(source.path) as shard:
                    for rows in _blocks(shard, spherical, selected[low:high] - offset):
                        points[filled : filled + len(rows)] = rows
                        filled += len(rows)
                        bar.update(len(rows))
            offset += source.n_clips
    return points


def _assign_all(
    sources: Sequence[_Source], centroids: np.ndarray, sampled: np.ndarray, spherical: bool, writer: ClusterWriter
) -> _Assignment:
    """Assign all clips to their nearest centroids and write their clusters in the order of the sources.

    `sampled` are the sorted numbers of the training clips whose embeddings are returned.
    """
    n_clusters, embedding_dim = centroids.shape
    result = _Assignment(
        clip_ids={"train": [], "eval": []},
        sizes={split: np.zeros(n_clusters, dtype=np.int64) for split in ("train", "eval")},
        squared_distance={"train": 0.0, "eval": 0.0},
        sample=np.empty((len(sampled), embedding_dim), dtype=np.float32),
        sample_clusters=np.empty(len(sampled), dtype=np.int32),
    )
    n_train = 0
    with progress_bar(sum(source.n_clips for source in sources), "cluster assign") as bar:
        for source in sources:
            with EmbeddingShard(source.path) as shard:
                start = 0
                for rows in _blocks(shard, spherical):
                    clusters, squared = assign(rows, centroids)
                    clip_ids = shard.clip_ids[start : start + len(rows)]
                    start += len(rows)
                    writer.add(clip_ids, clusters)
                    result.clip_ids[source.split] += clip_ids
                    result.sizes[source.split] += np.bincount(clusters, minlength=n_clusters)
                    result.squared_distance[source.split] += float(squared.sum(dtype=np.float64))
                    if source.split == "train":
                        low, high = np.searchsorted(sampled, [n_train, n_train + len(rows)])
                        result.sample[low:high] = rows[sampled[low:high] - n_train]
                        result.sample_clusters[low:high] = clusters[sampled[low:high] - n_train]
                        n_train += len(rows)
                    bar.update(len(rows))
    return result


def _size_summary(sizes: np.ndarray) -> dict[str, Any]:
    return {
        "min": int(sizes.min()),
        "median": float(np.median(sizes)),
        "max": int(sizes.max()),
        "empty": int((sizes == 0).sum()),
    }


def _sample_sizes(n_train: int, n_clips: int, embedding_dim: int, settings: Mapping[str, int]) -> tuple[int, int]:
    """Return the number of clips for the fit, and for the metrics, that fit into `memory_mb`."""
    k, sample_size, memory_mb = settings["n_clusters"], settings["sample_size"], settings["memory_mb"]
    if k > n_train:
        raise SsondoError(
            f"{k} clusters of {n_train} training clips are not possible; choose fewer (n_clusters of the table) or get "
            "more clips"
        )
    if k > sample_size:
        raise SsondoError(f"{k} clusters cannot be fitted on {sample_size} clips; raise cluster.sample_size")
    fixed = (_PROCESS_MB << 20) + _CLIP_BYTES * n_clips
    # 10 % more than the rows themselves, for norms and labels in faiss and double-precision blocks in scikit-learn.
    row = int(4.4 * embedding_dim) + 64
    requested = min(n_train, sample_size)
    affordable = ((memory_mb << 20) - fixed) // row
    if affordable < max(k, 6):
        needed = (fixed + row * max(k, 6) >> 20) + 1
        raise SsondoError(
            f"memory_mb is {memory_mb}, too small for {n_clips} clips in {k} clusters; it must be at least {needed}"
        )
    if affordable < requested:
        log.warning(f"fitting on {affordable:,} clips instead of {requested:,}: more do not fit into {memory_mb:,} MB")
    # The measures of separation copy their sample, sorted by cluster.
    return min(requested, affordable), min(n_train, settings["metric_sample"], affordable // 3)


def _metrics(
    assignment: _Assignment, scores: Mapping[str, Any], n_fitted: int, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of the JSON file of metrics."""
    splits: dict[str, Any] = {}
    for split, clip_ids in assignment.clip_ids.items():
        total, n = assignment.squared_distance[split], len(clip_ids)
        splits[split] = {
            "n_clips": n,
            "clip_list_sha256": clip_list_digest(clip_ids),
            "inertia": {"sum": total, "mean": total / n if n else None},
            "cluster_sizes": _size_summary(assignment.sizes[split]),
        }
    sizes = assignment.sizes["train"]
    return {
        "n_clips": sum(len(clip_ids) for clip_ids in assignment.clip_ids.values()),
        "n_fitted": n_fitted,
        "clip_list_sha256": clip_list_digest([*assignment.clip_ids["train"], *assignment.clip_ids["eval"]]),
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
    """Cluster clips by k-means of their teacher embeddings.

    The centroids are fitted on a random sample of the training clips. On one machine, equal clips, seed and number of
    threads give equal clusters; another number of threads may round differently and move a clip that lies between two
    clusters. The same holds for repeated runs of faiss on a GPU, where sums have no fixed order.

    Args:
        train: Paths of the embedding shards of training clips.
        eval: Paths of the embedding shards of evaluation clips, which are assigned to clusters.
        n_clusters: Number of clusters, at least 2.
        seed: Seed of the samples and of the initial centroids.
        iterations: Number of iterations of Lloyd's algorithm in each run.
        restarts: Number of runs with different initial centroids, of which the best is kept.
        spherical: Compare directions (cosine) instead of Euclidean distances.
        sample_size: Maximum number of clips that the centroids are fitted on.
        metric_sample: Maximum number of training clips that the silhouette, Calinski-Harabasz and Davies-Bouldin
            indices are computed on.
        memory_mb: Maximum memory of the process in MB. The centroids are fitted on fewer clips if it is too small.
        out: Path of the file that is written with the clusters of all clips, training clips first, and the centroids.
        metrics: Path of the JSON file that is written with the distances, sizes and separation of the clusters.
        sizes_plot: Path of the PNG that is written with a bar chart of the cluster sizes.
        tsne_plot: Path of the PNG that is written with a t-SNE map of sampled training clips.
        include_eval: Fit the centroids on the evaluation clips too, as the published code does.

    Raises:
        SsondoError: if there are more clusters than clips, a shard is damaged or has a NaN, two shards come from
            different teachers, or `memory_mb` is too small.
    """
    started = time.monotonic()
    numbers = {
        "n_clusters": n_clusters,
        "seed": seed,
        "iterations": iterations,
        "restarts": restarts,
        "sample_size": sample_size,
        "metric_sample": metric_sample,
        "memory_mb": memory_mb,
    }
    for name, minimum in _MINIMA.items():
        if numbers[name] < minimum:
            raise SsondoError(f"{name} is {numbers[name]}; it must be at least {minimum}")
    sources, embedding_dim, checkpoint_sha256 = _open_sources(train, eval)
    fit_sources = [source for source in sources if include_eval or source.split == "train"]
    n_train = sum(source.n_clips for source in sources if source.split == "train")
    n_clips = sum(source.n_clips for source in sources)
    n_usable = sum(source.n_clips for source in fit_sources)
    n_fitted, n_metric = _sample_sizes(n_usable, n_clips, embedding_dim, numbers)
    n_metric = min(n_metric, n_train)
    settings = {
        **{name: value for name, value in numbers.items() if name != "memory_mb"},
        "spherical": spherical,
        "include_eval": include_eval,
        "embedding_dim": embedding_dim,
        "checkpoint_sha256": checkpoint_sha256,
    }

    fit_clips = np.sort(np.random.default_rng([seed, 0]).choice(n_usable, n_fitted, replace=False))
    points = _gather(fit_sources, fit_clips, embedding_dim, spherical)
    log.debug(f"k-means of {n_fitted} clips into {n_clusters} clusters, {restarts} runs")
    centroids = fit_centroids(
        points, n_clusters, seed=seed, iterations=iterations, restarts=restarts, spherical=spherical
    )
    del points

    metric_clips = np.sort(np.random.default_rng([seed, 1]).choice(n_train, n_metric, replace=False))
    with ClusterWriter(out, settings={**settings, "n_fitted": n_fitted}) as writer:
        writer.add_centroids(centroids)
        assignment = _assign_all(sources, centroids, metric_clips, spherical, writer)

    scores = separation(assignment.sample, assignment.sample_clusters)
    write_json(metrics, _metrics(assignment, scores, n_fitted, settings))
    plot_sizes(assignment.sizes["train"], sizes_plot)
    shown = np.random.default_rng([seed, 3]).permutation(n_metric)[: tsne_size(n_train)]
    plot_tsne(assignment.sample[shown], assignment.sample_clusters[shown], n_train, n_clusters, seed, tsne_plot)

    sizes = _size_summary(assignment.sizes["train"])
    silhouette = "undefined" if scores["silhouette"] is None else f"{scores['silhouette']:.3f}"
    log.info(
        f"clustered {n_clips:,} clips ({n_train:,} train, {n_clips - n_train:,} eval) into {n_clusters} clusters "
        f"of {sizes['min']:,} to {sizes['max']:,} training clips (median {sizes['median']:,.0f}, "
        f"{sizes['empty']} empty), fitted on {n_fitted:,}; silhouette {silhouette}; "
        f"{time.monotonic() - started:.0f} s; {out}"
    )
