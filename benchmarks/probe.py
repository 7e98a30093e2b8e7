"""How long a probe takes: all seeds and grid points side by side, one after the other, and scikit-learn.

    OMP_NUM_THREADS=2 python benchmarks/probe.py [--clips 33334] [--dim 960] [--classes 11]

Made-up embeddings (Gaussian clouds that overlap), 60 % train, 20 % validation, 20 % test; the
settings of config.yaml: 5 seeds x 12 grid points. One after the other is what a loop over
torch.nn.Linear and torch.optim.AdamW needs for a step, times the steps that the 60 probes trained;
scikit-learn fits its LogisticRegression for 12 values of C once, as it has no seeds.
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


def made_up(n: int, dim: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n, dim) and labels (n, n_classes)."""
    generator = np.random.default_rng(0)
    classes = generator.integers(0, n_classes, n)
    centres = 0.1 * generator.normal(size=(n_classes, dim))
    embeddings = centres[classes] + generator.normal(size=(n, dim))
    return embeddings.astype("f4"), np.eye(n_classes, dtype="i1")[classes]


def whole_command(embeddings: np.ndarray, labels: np.ndarray) -> tuple[float, float, dict[str, float]]:
    """Wall and CPU seconds of the verb, and what it did: its score and the steps of each batch size, of all probes."""
    steps: dict[int, int] = {}
    train = grid_search.GridSearch._train

    def counted(race: grid_search.GridSearch, n: int) -> None:
        size = race.points[0].batch_size
        steps[size] = steps.get(size, 0) + n * len(race._running) * len(SETTINGS.seeds)
        train(race, n)

    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "task.h5"), Path(folder, "score.json")
        settings = {"task": "made_up", "metric": "accuracy", "split_kind": "split"}
        settings["classes"] = [str(i) for i in range(labels.shape[1])]
        with EmbeddingShardWriter(
            path, embedding_dim=embeddings.shape[1], settings=settings, checkpoint_sha256="", dtype="float32"
        ) as shard:
            shard.add([f"clip{i}" for i in range(len(labels))], embeddings)
            shard.add_extra("labels", labels)
            names = np.array([b"train", b"train", b"train", b"valid", b"test"])
            shard.add_extra("split", names[np.arange(len(labels)) % 5])
        grid_search.GridSearch._train = counted
        try:
            wall, cpu = time.perf_counter(), time.process_time()
            probe(embeddings=path, model={"row_kind": "teacher"}, out=out, **SETTINGS.model_dump())
            spent = time.perf_counter() - wall, time.process_time() - cpu
        finally:
            grid_search.GridSearch._train = train
        return *spent, {"score": json.loads(out.read_text())["mean"], **{str(size): n for size, n in steps.items()}}


def step_alone(embeddings: np.ndarray, labels: np.ndarray, batch_size: int) -> float:
    """CPU seconds of one step of one probe."""
    n = 3 * len(labels) // 5
    inputs, targets = torch.from_numpy(embeddings[:n]), torch.from_numpy(labels[:n].argmax(1))
    layer = torch.nn.Linear(inputs.shape[1], labels.shape[1])
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3, weight_decay=0.01)
    times = []
    for rows in torch.randperm(n).split(batch_size)[:60]:
        began = time.process_time()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(layer(inputs[rows]), targets[rows]).backward()
        optimizer.step()
        times.append(time.process_time() - began)
    # The first optimizer of a process imports a good deal.
    return sum(times[10:]) / len(times[10:])


def logistic_regression(embeddings: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """Wall and CPU seconds of twelve fits, and the test accuracy of the one that is best on validation."""
    part, classes = np.arange(len(labels)) % 5, labels.argmax(1)
    wall, cpu = time.perf_counter(), time.process_time()
    inputs = StandardScaler().fit(embeddings[part < 3]).transform(embeddings)
    fits = [
        LogisticRegression(C=c, max_iter=100).fit(inputs[part < 3], classes[part < 3]) for c in np.logspace(-5, 0.5, 12)
    ]
    best = max(fits, key=lambda fit: fit.score(inputs[part == 3], classes[part == 3]))
    score = best.score(inputs[part == 4], classes[part == 4])
    return time.perf_counter() - wall, time.process_time() - cpu, score


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=33_334, help="of the whole task; 60 %% train")
    parser.add_argument("--dim", type=int, default=960)
    parser.add_argument("--classes", type=int, default=11)
    options = parser.parse_args()
    embeddings, labels = made_up(options.clips, options.dim, options.classes)
    print(f"{options.clips} clips x {options.dim}, {options.classes} classes, {torch.get_num_threads()} threads\n")
    wall, cpu, found = whole_command(embeddings, labels)
    score, steps = found.pop("score"), {int(size): n for size, n in found.items()}
    alone = sum(n * step_alone(embeddings, labels, size) for size, n in steps.items())
    sk_wall, sk_cpu, sk_score = logistic_regression(embeddings, labels)
    print("| what | wall s | CPU s | CPU beside ssondo | test accuracy |")
    print("|---|--:|--:|--:|--:|")
    print(f"| ssondo probe, {len(SETTINGS.seeds)} x 12 probes | {wall:.1f} | {cpu:.1f} | 1 | {100 * score:.1f} % |")
    print(
        f"| the same {sum(steps.values()):,} steps, one probe after the other | – | {alone:.0f} | {alone / cpu:.1f} | |"
    )
    print(
        f"| scikit-learn LogisticRegression, 12 values of C | {sk_wall:.1f} | {sk_cpu:.1f} | {sk_cpu / cpu:.2f} "
        f"| {100 * sk_score:.1f} % |"
    )


if __name__ == "__main__":
    main()
