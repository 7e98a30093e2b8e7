"""Plots of a clustering: a bar chart of its sizes and a t-SNE map of its clips."""

from pathlib import Path

import numpy as np

from ssondo.storage.atomic_files import save_figure

_TSNE_DIMS = 50
_TSNE_ITERATIONS = 500


def plot_sizes(sizes: np.ndarray, path: Path) -> None:
    """Draw a bar chart of the cluster sizes, largest first, as a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
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
    save_figure(path, figure)


def tsne_size(n_train: int) -> int:
    """Return the number of clips on the t-SNE map: from 300 to 1,500, which take about 3 s on one core."""
    return min(1_500, max(300, n_train // 8))


def _tsne(points: np.ndarray, seed: int) -> np.ndarray:
    """Map points to the plane, shape (n, 2), by PCA to 50 dimensions and t-SNE."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    # With several threads, t-SNE sums forces in varying order and the map differs between runs.
    with threadpool_limits(1):
        centred = points - points.mean(axis=0)
        spread = np.abs(centred).max()
        # Points that are equal up to rounding give NaN coordinates, which crash scikit-learn.
        if spread <= 1e-6 * np.abs(points).max():
            return np.zeros((len(points), 2))
        centred /= spread
        reduced = PCA(min(_TSNE_DIMS, *points.shape), random_state=seed).fit_transform(centred)
        initial = np.zeros((len(points), 2), dtype=np.float32)
        initial[:, : reduced.shape[1]] = reduced[:, :2]
        initial *= 1e-4 / max(initial[:, 0].std(), np.finfo(np.float32).tiny)
        perplexity = min(30.0, max(1.0, (len(points) - 1) / 3))
        tsne = TSNE(perplexity=perplexity, init=initial, max_iter=_TSNE_ITERATIONS, random_state=seed)
        return tsne.fit_transform(reduced)


def plot_tsne(points: np.ndarray, clusters: np.ndarray, n_train: int, n_clusters: int, seed: int, path: Path) -> None:
    """Draw a t-SNE map of sampled training clips, coloured by cluster, as a PNG file.

    `points` are their embeddings, float32, shape (n, embedding_dim), `clusters` the cluster of each. The numbers of
    all training clips and of all clusters are for the title.
    """
    import matplotlib
    from matplotlib.figure import Figure

    positions = _tsne(points, seed)
    figure = Figure(figsize=(7, 6.5), layout="constrained")
    axes = figure.subplots()
    # Steps of the golden ratio give consecutive clusters distinct hues for any number of clusters.
    colours = matplotlib.colormaps["hsv"](clusters * 0.618034 % 1.0)
    colours[:, :3] *= np.where(clusters % 2, 0.65, 0.9)[:, None]
    axes.scatter(positions[:, 0], positions[:, 1], c=colours, s=max(5.0, 40 - len(points) / 30), linewidths=0)
    axes.set_xlabel("t-SNE 1")
    axes.set_ylabel("t-SNE 2")
    axes.set_title(f"{len(points):,} of {n_train:,} training clips, coloured by cluster (k = {n_clusters})")
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(path, figure)
