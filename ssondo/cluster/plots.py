"""What a clustering looks like: bars of its sizes, and a t-SNE map of its clips."""

from pathlib import Path
from typing import Any

import numpy as np

from ssondo.storage.atomic_files import atomic_write

_TSNE_DIMS = 50
_TSNE_ITERATIONS = 500


def _save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, the same bytes for the same figure."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def plot_sizes(sizes: np.ndarray, path: Path) -> None:
    """Bars of the cluster sizes in training clips, largest first.

    Args:
        sizes: training clips of each cluster, shape (k,).
        path: of the PNG.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    ranked = np.sort(sizes)[::-1]
    axes.bar(np.arange(1, len(ranked) + 1), ranked, width=0.85, color="#4477aa")
    axes.axhline(ranked.mean(), color="#cc3311", linewidth=1.2, label=f"equal sizes: {ranked.mean():,.0f} clips")
    axes.set_xlabel("cluster, largest first")
    axes.set_ylabel("training clips")
    axes.set_xlim(0.4, len(ranked) + 0.6)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_title(f"{len(ranked)} clusters of {int(ranked.sum()):,} training clips, {int((sizes == 0).sum())} empty")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    _save_figure(figure, path)


def tsne_size(n_train: int) -> int:
    """How many clips the map shows: all of a few, at most 1,500 (some 3 s on one core)."""
    return min(1_500, max(300, n_train // 8))


def _tsne(points: np.ndarray, seed: int) -> np.ndarray:
    """Points in the plane, shape (n, 2): PCA to 50 dimensions, then t-SNE."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    # Several threads add up t-SNE's forces in any order, and the picture would differ by run.
    with threadpool_limits(1):
        centred = points - points.mean(axis=0)
        spread = np.abs(centred).max()
        # Equal points up to rounding have no map, and a NaN among the places crashes scikit-learn.
        if spread <= 1e-6 * np.abs(points).max():
            return np.zeros((len(points), 2))
        centred /= spread
        reduced = PCA(min(_TSNE_DIMS, *points.shape), random_state=seed).fit_transform(centred)
        start = np.zeros((len(points), 2), dtype=np.float32)
        start[:, : reduced.shape[1]] = reduced[:, :2]
        start *= 1e-4 / max(start[:, 0].std(), np.finfo(np.float32).tiny)
        perplexity = min(30.0, max(1.0, (len(points) - 1) / 3))
        mapped = TSNE(perplexity=perplexity, init=start, max_iter=_TSNE_ITERATIONS, random_state=seed)
        return mapped.fit_transform(reduced)


def plot_tsne(points: np.ndarray, clusters: np.ndarray, n_train: int, n_clusters: int, seed: int, path: Path) -> None:
    """A map of sampled training clips, coloured by cluster.

    Args:
        points: embeddings, shape (n, embedding_dim), float32.
        clusters: of each, shape (n,).
        n_train: training clips in all, for the title.
        n_clusters: in all, for the title.
        seed: of PCA and t-SNE.
        path: of the PNG.
    """
    import matplotlib
    from matplotlib.figure import Figure

    place = _tsne(points, seed)
    figure = Figure(figsize=(7, 6.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    # The golden ratio keeps the colours of neighbouring numbers apart, for any number of clusters.
    colours = matplotlib.colormaps["hsv"](clusters * 0.618034 % 1.0)
    colours[:, :3] *= np.where(clusters % 2, 0.65, 0.9)[:, None]
    axes.scatter(place[:, 0], place[:, 1], c=colours, s=max(5.0, 40 - len(points) / 30), linewidths=0)
    axes.set_xlabel("t-SNE 1")
    axes.set_ylabel("t-SNE 2")
    axes.set_title(f"{len(points):,} of {n_train:,} training clips, coloured by cluster (k = {n_clusters})")
    axes.spines[["top", "right"]].set_visible(False)
    _save_figure(figure, path)
