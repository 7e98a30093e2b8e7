"""How long a probe takes: all seeds and grid points side by side, against one after the other.

    OMP_NUM_THREADS=2 python benchmarks/probe.py [--clips 33334] [--dim 960] [--classes 11]

Made-up embeddings (Gaussian clouds that overlap), 60 % train, 20 % validation, 20 % test;
5 seeds x 12 grid points, batch 256, at most 100 epochs, patience 10: the defaults of the config.
One after the other is what a loop over torch.nn.Linear and torch.optim.AdamW needs for an epoch,
times the epochs that the probes really trained.
"""

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from ssondo.probe import probe
from ssondo.selection import Development, GridPoint, Head, Labelled, _Race
from ssondo.shards import EmbeddingShardWriter

RATES, DECAYS, BATCH_SIZE, SEEDS = [1e-4, 3e-4, 1e-3, 3e-3], [0.0, 1e-2, 1.0], 256, [0, 1, 2, 3, 4]


def made_up(n: int, dim: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n, dim) and labels (n, n_classes)."""
    generator = np.random.default_rng(0)
    classes = generator.integers(0, n_classes, n)
    centres = 0.1 * generator.normal(size=(n_classes, dim))
    embeddings = centres[classes] + generator.normal(size=(n, dim))
    return embeddings.astype("f4"), np.eye(n_classes, dtype="i1")[classes]


def whole_command(embeddings: np.ndarray, labels: np.ndarray) -> tuple[float, float, int]:
    """Wall and CPU seconds of the verb, and the epochs of the chosen probes, the longest."""
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
        wall, cpu = time.perf_counter(), time.process_time()
        probe(
            embeddings=path,
            model={"row_kind": "teacher"},
            head="linear",
            hidden=0,
            learning_rates=RATES,
            weight_decays=DECAYS,
            batch_sizes=[BATCH_SIZE],
            epochs=100,
            patience=10,
            seeds=SEEDS,
            protocol="field",
            out=out,
        )
        spent = time.perf_counter() - wall, time.process_time() - cpu
        chosen = json.loads(out.read_text())["parts"][0]["chosen"]
    return *spent, max(choice["epoch"] for choice in chosen)


def epoch_side_by_side(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """CPU seconds of a training epoch of all 60 probes."""
    n = len(labels)
    rows = torch.arange(n).expand(len(SEEDS), -1)
    clips = Labelled(torch.from_numpy(embeddings), torch.from_numpy(labels))
    grid = [GridPoint(rate, decay, BATCH_SIZE) for rate, decay in itertools.product(RATES, DECAYS)]
    race = _Race(Development(clips, rows[:, : 3 * n // 5], rows[:, 4 * n // 5 :]), "accuracy", Head(0), grid, SEEDS)
    race._train()
    started = time.process_time()
    race._train()
    return time.process_time() - started


def epoch_one_after_the_other(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """CPU seconds of a training epoch of 60 probes, each for itself; three are timed."""
    n = 3 * len(labels) // 5
    inputs, targets = torch.from_numpy(embeddings[:n]), torch.from_numpy(labels[:n].argmax(1))
    # The first optimizer of a process imports a good deal.
    torch.optim.AdamW(torch.nn.Linear(1, 1).parameters()).step()
    started = time.process_time()
    for seed in range(3):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(inputs.shape[1], labels.shape[1])
        optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3, weight_decay=0.01)
        for rows in torch.randperm(n).split(BATCH_SIZE):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layer(inputs[rows]), targets[rows]).backward()
            optimizer.step()
    return (time.process_time() - started) / 3 * len(SEEDS) * len(RATES) * len(DECAYS)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=33_334, help="of the whole task; 60 %% train")
    parser.add_argument("--dim", type=int, default=960)
    parser.add_argument("--classes", type=int, default=11)
    options = parser.parse_args()
    embeddings, labels = made_up(options.clips, options.dim, options.classes)
    print(f"{options.clips} clips x {options.dim}, {options.classes} classes, {torch.get_num_threads()} threads")
    together, apart = epoch_side_by_side(embeddings, labels), epoch_one_after_the_other(embeddings, labels)
    print(f"an epoch of 60 probes, s of CPU: side by side {together:.2f}, one after the other {apart:.2f}")
    wall, cpu, epochs = whole_command(embeddings, labels)
    print(f"the whole probe: {wall:.1f} s, {cpu:.1f} s of CPU; longest chosen training {epochs} epochs")


if __name__ == "__main__":
    main()
