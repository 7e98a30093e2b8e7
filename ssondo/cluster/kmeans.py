"""k-means in memory: fitting, assignment to the nearest centroid, and measures of the separation of clusters."""

from typing import Any

import numpy as np

# Initialisation by greedy k-means++ with many candidates on a subset: on well-separated mixtures, faiss's own random
# initialisation ends with distances 10 to 25 % above those of MiniBatchKMeans, this one below (benchmarks/cluster.py).
_INIT_CANDIDATES = 50
_INIT_CLIPS = 10_000
_INIT_CLIPS_PER_CLUSTER = 100


def fit_centroids(
    points: np.ndarray, n_clusters: int, *, seed: int, iterations: int, restarts: int, spherical: bool = False
) -> np.ndarray:
    """Fit k-means and return the centroids of the best of `restarts` runs.

    Each run is initialised by greedy k-means++ (scikit-learn) and iterated by faiss, on a GPU if the installed faiss
    supports it. On a CPU the result depends only on the points, the seed and the number of threads.

    Args:
        points: Shape (n, dim), float32, finite; of length 1 if `spherical`.
        n_clusters: Number of clusters; at most n.
        seed: Seed of the initialisations. The first runs do not depend on the number of restarts.
        iterations: Number of iterations of Lloyd's algorithm in each run.
        restarts: Number of runs.
        spherical: Compare directions (cosine) instead of Euclidean distances; the centroids have length 1.

    Returns:
        Shape (n_clusters, dim), float32.
    """
    import faiss
    from sklearn.cluster import kmeans_plusplus

    best, best_score = np.empty((0, 0), dtype=np.float32), -np.inf
    # Every `step`-th point: a strided view needs no memory, a random subset would be a copy.
    step = max(1, len(points) // max(_INIT_CLIPS, _INIT_CLIPS_PER_CLUSTER * n_clusters))
    for run, run_seed in enumerate((np.random.SeedSequence(seed).generate_state(restarts) >> 1).tolist()):
        initial, _ = kmeans_plusplus(
            points[run % step :: step], n_clusters, random_state=run_seed, n_local_trials=_INIT_CANDIDATES
        )
        kmeans = faiss.Kmeans(
            points.shape[1],
            n_clusters,
            niter=iterations,
            seed=run_seed,
            spherical=spherical,
            gpu=faiss.get_num_gpus() > 0,
            # Fit on all points, and do not warn about clusters with fewer than 39 points.
            min_points_per_centroid=1,
            max_points_per_centroid=len(points),
        )
        kmeans.train(points, init_centroids=np.ascontiguousarray(initial, dtype=np.float32))
        similarity, _ = kmeans.assign(points)
        score = float(similarity.sum(dtype=np.float64)) * (1 if spherical else -1)
        if score > best_score:
            best, best_score = np.array(kmeans.centroids), score
    return best


def assign(rows: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Assign each row to its nearest centroid.

    Args:
        rows: Shape (n, dim), float32.
        centroids: Shape (n_clusters, dim), float32.

    Returns:
        Cluster of each row, shape (n,), int32; squared Euclidean distance to its centroid, shape (n,), float32.
    """
    import faiss

    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(centroids)
    clusters = index.search(rows, 1)[1][:, 0].astype(np.int32)
    # faiss computes |x|² + |c|² - 2xc, which loses precision far from the origin.
    difference = rows - centroids[clusters]
    return clusters, np.einsum("nd,nd->n", difference, difference)


def separation(points: np.ndarray, clusters: np.ndarray) -> dict[str, Any]:
    """Measure how well clusters are separated: points of shape (n, dim), the cluster of each of shape (n,).

    Returns:
        `silhouette`, `calinski_harabasz` and `davies_bouldin`, which are None where they are undefined; `n_clips`; and
        `reason`, which says why they are undefined, or is None.
    """
    from sklearn import config_context
    from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score

    n, n_present = len(clusters), len(np.unique(clusters))
    if not 2 <= n_present < n:
        reason = "all lie in one cluster" if n_present < 2 else "each lies in a cluster of its own"
        undefined = dict.fromkeys(("silhouette", "calinski_harabasz", "davies_bouldin"))
        return {**undefined, "n_clips": n, "reason": f"of {n} sampled clips {reason}"}
    with config_context(working_memory=64):
        return {
            "silhouette": float(silhouette_score(points, clusters)),
            "calinski_harabasz": float(calinski_harabasz_score(points, clusters)),
            "davies_bouldin": float(davies_bouldin_score(points, clusters)),
            "n_clips": n,
            "reason": None,
        }
