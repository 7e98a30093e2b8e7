"""Measure the duration of a probe: all seeds and grid points as one model, one after the other, and scikit-learn.

    OMP_NUM_THREADS=2 python benchmarks/probe.py [--clips 33334] [--dim 960] [--classes 11]

The embeddings are synthetic (overlapping Gaussian clusters): 60 % train, 20 % validation, 20 % test. The settings are
those of config.yaml: 5 seeds x 12 grid points. The time of training one probe after the other is the time of one step
of torch.nn.Linear and torch.optim.AdamW, multiplied by the number of steps that the 60 probes trained. scikit-learn
fits LogisticRegression once for each of 12 values of C, because it has no seeds.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ssondo.config.probe import Probe
from ssondo.probe import grid_search
from ssondo.probe.probe import probe
from ssondo.storage.shards.embedding import EmbeddingShardWriter

SETTINGS = Probe()


def synthetic(n: int, dim: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings (n, dim), float32, and labels (n, n_classes), int8."""
    generator = np.random.default_rng(0)
    classes = generator.integers(0, n_classes, n)
    centres = 0.1 * generator.normal(size=(n_classes, dim))
    embeddings = centres[classes] + generator.normal(size=(n, dim))
    return embeddings.astype("f4"), np.eye(n_classes, dtype="i1")[classes]


def measure_verb(embeddings: np.ndarray, labels: np.ndarray) -> tuple[float, float, dict[str, float]]:
    """Return the wall and CPU seconds of the verb, its score, and the number of steps of all probes by batch size."""
    steps: dict[int, int] = {}
    train = grid_search.GridSearch._train

    def count_and_train(search: grid_search.GridSearch, n: int) -> None:
        size = search.points[0].batch_size
        steps[size] = steps.get(size, 0) + n * len(search._running) * len(SETTINGS.seeds)
        train(search, n)

    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "task.h5"), Path(folder, "score.json")
        settings = {"task": "synthetic", "metric": "accuracy", "split_kind": "split"}
        settings["classes"] = [str(i) for i in range(labels.shape[1])]
        with EmbeddingShardWriter(
            path, embedding_dim=embeddings.shape[1], settings=settings, checkpoint_sha256="", dtype="float32"
        ) as shard:
            shard.add([f"clip{i}" for i in range(len(labels))], embeddings)
            shard.add_extra("labels", labels)
            names = np.array([b"train", b"train", b"train", b"valid", b"test"])
            shard.add_extra("split", names[np.arange(len(labels)) % 5])
        grid_search.GridSearch._train = count_and_train
        try:
            wall, cpu = time.perf_counter(), time.process_time()
            probe(embeddings=path, model={"row_kind": "teacher"}, out=out, **SETTINGS.model_dump())
            spent = time.perf_counter() - wall, time.process_time() - cpu
        finally:
            grid_search.GridSearch._train = train
        return *spent, {"score": json.loads(out.read_text())["mean"], **{str(size): n for size, n in steps.items()}}


def measure_step(embeddings: np.ndarray, labels: np.ndarray, batch_size: int) -> float:
    """Return the CPU seconds of one training step of one probe."""
    n = 3 * len(labels) // 5
    inputs, targets = torch.from_numpy(embeddings[:n]), torch.from_numpy(labels[:n].argmax(1))
    layer = torch.nn.Linear(inputs.shape[1], labels.shape[1])
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3, weight_decay=0.01)
    times = []
    for _ in range(60):
        rows = torch.randperm(n)[:batch_size]
        began = time.process_time()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(layer(inputs[rows]), targets[rows]).backward()
        optimizer.step()
        times.append(time.process_time() - began)
    # The first steps are excluded, because the first optimizer of a process imports modules.
    return sum(times[10:]) / len(times[10:])


def logistic_regression(embeddings: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """Return the wall and CPU seconds of twelve fits, and the test accuracy of the best one on the validation clips."""
    fold, classes = np.arange(len(labels)) % 5, labels.argmax(1)
    wall, cpu = time.perf_counter(), time.process_time()
    inputs = StandardScaler().fit(embeddings[fold < 3]).transform(embeddings)
    fits = [
        LogisticRegression(C=c, max_iter=100).fit(inputs[fold < 3], classes[fold < 3]) for c in np.logspace(-5, 0.5, 12)
    ]
    best = max(fits, key=lambda fit: fit.score(inputs[fold == 3], classes[fold == 3]))
    score = best.score(inputs[fold == 4], classes[fold == 4])
    return time.perf_counter() - wall, time.process_time() - cpu, score


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=33_334, help="number of clips; 60 %% of them train")
    parser.add_argument("--dim", type=int, default=960)
    parser.add_argument("--classes", type=int, default=11)
    options = parser.parse_args()
    embeddings, labels = synthetic(options.clips, options.dim, options.classes)
    print(f"{options.clips} clips x {options.dim}, {options.classes} classes, {torch.get_num_threads()} threads\n")
    wall, cpu, results = measure_verb(embeddings, labels)
    score, steps = results.pop("score"), {int(size): n for size, n in results.items()}
    loop = sum(n * measure_step(embeddings, labels, size) for size, n in steps.items())
    sk_wall, sk_cpu, sk_score = logistic_regression(embeddings, labels)
    print("| what | wall s | CPU s | CPU relative to ssondo | test accuracy |")
    print("|---|--:|--:|--:|--:|")
    print(f"| ssondo probe, {len(SETTINGS.seeds)} x 12 probes | {wall:.1f} | {cpu:.1f} | 1 | {100 * score:.1f} % |")
    print(
        f"| the same {sum(steps.values()):,} steps, one probe after the other | – | {loop:.0f} | {loop / cpu:.1f} | |"
    )
    print(
        f"| scikit-learn LogisticRegression, 12 values of C | {sk_wall:.1f} | {sk_cpu:.1f} | {sk_cpu / cpu:.2f} "
        f"| {100 * sk_score:.1f} % |"
    )


if __name__ == "__main__":
    main()
