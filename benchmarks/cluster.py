"""k-means of ssondo against scikit-learn's MiniBatchKMeans: time, peak memory, inertia.

    python benchmarks/cluster.py
    python benchmarks/cluster.py --clips 200000 --dim 3840 --iterations 10 --memory-mb 2000

Both cluster the same float16 shards of a Gaussian mixture with unequal weights, once with well-separated and once with
overlapping components, with equal numbers of clusters, iterations and restarts. Each method runs in a separate process,
so that its peak memory can be measured. The result is printed as a Markdown table.
Set OMP_NUM_THREADS to the number of free cores: more threads than cores slow both methods down.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ssondo.storage.shards.clusters import Clusters
from ssondo.storage.shards.embedding import EmbeddingShard, EmbeddingShardWriter
from ssondo.system.hardware import n_cores, processor

N_SHARDS = 4
BLOCK = 2_000
# Standard deviation of the centres of the components, relative to that of the points around their centre.
MIXTURES = {"far apart": 1.0, "overlapping": 0.15}
METHODS = {
    "minibatch": "scikit-learn MiniBatchKMeans, all in memory",
    "fit": "ssondo fit_centroids, all in memory",
    "cluster": "ssondo cluster, streaming, with metrics and plots",
}


def write_mixture(folder: Path, n_clips: int, dim: int, components: int, spread: float, seed: int) -> list[Path]:
    """Write the mixture as embedding shards and return their paths."""
    rng = np.random.default_rng(seed)
    centres = (rng.standard_normal((components, dim)) * spread).astype(np.float32)
    weights = rng.dirichlet(np.full(components, 2.0))
    paths = []
    for number in range(N_SHARDS):
        path = folder / f"train-{number:04d}.h5"
        with EmbeddingShardWriter(path, embedding_dim=dim, settings={}, checkpoint_sha256="0" * 64) as shard:
            for start in range(0, n_clips // N_SHARDS, BLOCK):
                n = min(BLOCK, n_clips // N_SHARDS - start)
                rows = centres[rng.choice(components, n, p=weights)] + rng.standard_normal((n, dim), dtype=np.float32)
                shard.add([f"{number}-{start + i:08d}" for i in range(n)], rows)
        paths.append(path)
    return paths


def read_all(paths: list[Path]) -> np.ndarray:
    """Read all embeddings as float32 without a second copy in memory."""
    shards = [EmbeddingShard(path) for path in paths]
    points = np.empty((sum(map(len, shards)), shards[0].embedding_dim), dtype=np.float32)
    row = 0
    for shard in shards:
        for start in range(0, len(shard), BLOCK):
            block = shard.rows(start, start + BLOCK)
            points[row : row + len(block)] = block
            row += len(block)
    return points


def mean_squared_distance(paths: list[Path], centroids: np.ndarray) -> float:
    """Return the mean squared distance of the clips to their nearest centroid, without using the measured code."""
    centroids = centroids.astype(np.float64)
    total, n = 0.0, 0
    for path in paths:
        with EmbeddingShard(path) as shard:
            for start in range(0, len(shard), BLOCK):
                rows = shard.rows(start, start + BLOCK).astype(np.float64)
                squared = (rows**2).sum(1)[:, None] + (centroids**2).sum(1) - 2 * rows @ centroids.T
                total, n = total + float(squared.min(axis=1).sum()), n + len(rows)
    return total / n


def peak_mb() -> float:
    """Return the peak resident memory of this process in MB (Linux).

    `resource.getrusage` is not used, because its value in a child process starts with the memory of the parent.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(method: str, folder: Path, options: argparse.Namespace) -> None:
    """Run one method on the shards of `folder`, write centroids.npy there, and print time and memory as JSON."""
    paths = sorted(folder.glob("train-*.h5"))
    began = time.perf_counter()
    if method == "cluster":
        from ssondo.cluster.cluster import cluster

        cluster(
            train=paths,
            eval=[],
            n_clusters=options.clusters,
            seed=options.seed,
            iterations=options.iterations,
            restarts=options.restarts,
            spherical=False,
            sample_size=options.clips,
            metric_sample=options.metric_sample,
            memory_mb=options.memory_mb,
            out=folder / "clusters.h5",
            metrics=folder / "metrics.json",
            sizes_plot=folder / "sizes.png",
            tsne_plot=folder / "tsne.png",
        )
        with Clusters(folder / "clusters.h5") as clusters:
            centroids = clusters.centroids
    else:
        points = read_all(paths)
        if method == "fit":
            from ssondo.cluster.kmeans import fit_centroids

            centroids = fit_centroids(
                points, options.clusters, seed=options.seed, iterations=options.iterations, restarts=options.restarts
            )
        else:
            from sklearn.cluster import MiniBatchKMeans

            centroids = (
                MiniBatchKMeans(
                    options.clusters,
                    max_iter=options.iterations,
                    n_init=options.restarts,
                    random_state=options.seed,
                    compute_labels=False,
                )
                .fit(points)
                .cluster_centers_
            )
    seconds = time.perf_counter() - began
    np.save(folder / "centroids.npy", centroids)
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb()}))


def main() -> None:
    """Measure all methods on all mixtures and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--clusters", type=int, default=50)
    parser.add_argument("--iterations", type=int, default=25)
    parser.add_argument("--restarts", type=int, default=1)
    parser.add_argument("--metric-sample", type=int, default=5_000)
    parser.add_argument("--memory-mb", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mixture", choices=MIXTURES, action="append", help="default: all")
    parser.add_argument("--measure", nargs=2, metavar=("METHOD", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure[0], Path(options.measure[1]), options)
        return

    print(
        f"{options.clips:,} x {options.dim:,} float16 in {N_SHARDS} shards, {options.clusters} clusters, "
        f"{options.iterations} iterations, {options.restarts} restart(s), seed {options.seed}, "
        f"memory_mb {options.memory_mb:,}, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'unset')}, "
        f"{processor()} with {n_cores()} cores\n"
    )
    print("| mixture | method | seconds | peak MB | mean squared distance | against MiniBatchKMeans |")
    print("|---|---|--:|--:|--:|--:|")
    for name in options.mixture or MIXTURES:
        with tempfile.TemporaryDirectory() as folder:
            paths = write_mixture(
                Path(folder), options.clips, options.dim, options.clusters, MIXTURES[name], options.seed
            )
            reference = None
            for method, label in METHODS.items():
                done = subprocess.run(
                    [sys.executable, __file__, *sys.argv[1:], "--measure", method, folder],
                    check=True,
                    stdout=subprocess.PIPE,
                )
                cost = json.loads(done.stdout)
                distance = mean_squared_distance(paths, np.load(Path(folder) / "centroids.npy"))
                reference = reference or distance
                print(
                    f"| {name} | {label} | {cost['seconds']:.1f} | {cost['peak_mb']:,.0f} "
                    f"| {distance:.3f} | {distance / reference:.4f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
