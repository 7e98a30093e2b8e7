import numpy as np
import pytest
from gaussian_mixture import mixture
from scipy.spatial.distance import cdist
from sklearn.cluster import MiniBatchKMeans

from ssondo.cluster.kmeans import assign, fit_centroids, separation


def mean_squared_distance(points: np.ndarray, centroids: np.ndarray) -> float:
    return float(cdist(points, centroids, "sqeuclidean").min(axis=1).mean())


@pytest.mark.parametrize(
    ("spread", "components", "seed"), [(2.0, 30, 0), (2.0, 30, 1), (1.0, 30, 2), (0.3, 30, 3), (1.0, 120, 4)]
)
def test_distances_exceed_those_of_minibatch_kmeans_by_at_most_one_percent(
    spread: float, components: int, seed: int
) -> None:
    points, _ = mixture(4_000, 32, components, spread, seed)
    reference = MiniBatchKMeans(30, max_iter=20, n_init=2, random_state=seed).fit(points)
    centroids = fit_centroids(points, 30, seed=seed, iterations=20, restarts=2)
    assert mean_squared_distance(points, centroids) <= 1.01 * mean_squared_distance(points, reference.cluster_centers_)


def test_more_restarts_never_increase_the_distances() -> None:
    points, _ = mixture(1_000, 16, 20, 1.5, 5)
    ends = [
        mean_squared_distance(points, fit_centroids(points, 20, seed=1, iterations=10, restarts=restarts))
        for restarts in (1, 3, 6)
    ]
    assert ends[0] >= ends[1] * (1 - 1e-6)
    assert ends[1] >= ends[2] * (1 - 1e-6)


def test_separation_of_one_cluster_is_undefined_with_a_reason() -> None:
    scores = separation(np.eye(5, dtype=np.float32), np.zeros(5, dtype=np.int32))
    assert scores["silhouette"] is scores["calinski_harabasz"] is scores["davies_bouldin"] is None
    assert scores["reason"] == "of 5 sampled clips all lie in one cluster"


def test_distances_far_from_the_origin_are_exact() -> None:
    centroids = np.array([[1000.0, 0.0], [1000.0, 1.0]], dtype=np.float32)
    clusters, squared = assign(np.array([[1000.0, 0.25], [1000.0, 0.75]], dtype=np.float32), centroids)
    assert clusters.tolist() == [0, 1]
    assert squared.tolist() == [0.0625, 0.0625]
