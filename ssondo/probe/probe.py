"""Score frozen embeddings of a task with linear probes or small MLPs.

    ssondo probe --embeddings esc50.h5 --model '{"row_kind": "teacher", "teacher": "matpac"}' ... --out esc50.json

Everything is selected by `ssondo.probe.grid_search.select`, which receives training and validation clips only;
`ssondo.probe.scoring.score` then reads the test clips. In a task with folds, the test fold is used neither for
training nor for validation.
"""

import logging
import math
import time
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssondo.errors import SsondoError
from ssondo.probe.batched_probes import Head
from ssondo.probe.confidence import ci95
from ssondo.probe.eval_splits import VALID_FRACTION, EvalSplit, fold_splits, official_split
from ssondo.probe.grid_search import EarlyStopping, FittedProbe, GridPoint, LabelledEmbeddings, TrainValid, select
from ssondo.probe.model_id import ROW_KINDS
from ssondo.probe.scoring import bootstrap_scores, score
from ssondo.provenance import accepted_hash
from ssondo.storage.atomic_files import clip_list_digest, write_json
from ssondo.storage.shards.embedding import ENVIRONMENT_OF, EmbeddingShard
from ssondo.system.device import resolve_device
from ssondo.system.hardware import describe_machine
from ssondo.tasks.metrics import check_labels

log = logging.getLogger(__name__)

HEADS = ("linear", "mlp")
PROTOCOLS = ("standard", "published_notebook")
# The published notebook (linear probe on ESC-50): Adam, torch.nn.Linear, raw embeddings.
_NOTEBOOK = GridPoint(learning_rate=1e-3, weight_decay=0.0, batch_size=64)
_NOTEBOOK_EPOCHS = 1000
_CHUNK = 4096


class _TaskEmbeddings:
    """Embeddings of a task, read from their shard one evaluation split after the other."""

    def __init__(self, shard: EmbeddingShard, device: torch.device) -> None:
        self.shard, self._device = shard, device
        missing = [name for name in ("task", "metric", "classes", "split_kind") if name not in shard.settings]
        if missing:
            raise SsondoError(
                f"{shard.path}: these are not the embeddings of a task (its settings lack {', '.join(missing)}); "
                "make them with embed_task"
            )
        self.name: str = shard.settings["task"]
        self.metric: str = shard.settings["metric"]
        self.classes: list[str] = shard.settings["classes"]

    def _clips(self, rows: np.ndarray) -> LabelledEmbeddings:
        """Read the clips of `rows`, which ascend; labels of other clips do not leave this function."""
        labels = torch.from_numpy(self.shard.extra("labels")[rows])
        try:
            check_labels(self.metric, labels)
        except SsondoError as error:
            raise SsondoError(f"{self.shard.path}: {error}") from None
        if labels.shape[1] != len(self.classes):
            raise SsondoError(f"{self.shard.path}: {labels.shape[1]} label columns for {len(self.classes)} classes")
        embeddings = np.empty((len(rows), self.shard.embedding_dim), dtype="f4")
        # Reading in chunks keeps a large task in memory only once.
        for start in range(0, len(self.shard), _CHUNK):
            first, last = np.searchsorted(rows, [start, start + _CHUNK])
            embeddings[first:last] = self.shard.rows(start, start + _CHUNK)[rows[first:last] - start]
        return LabelledEmbeddings(torch.from_numpy(embeddings).to(self._device), labels.to(self._device))

    def splits(self, seeds: list[int]) -> list[EvalSplit]:
        """Return the evaluation splits of the task: one per fold, or one."""
        try:
            if self.shard.settings["split_kind"] == "fold":
                return fold_splits(self.shard.extra("fold"), len(seeds))
            split = self.shard.extra("split")
            unknown = set(np.unique(split)) - {b"train", b"valid", b"test"}
            if unknown:
                raise SsondoError(f"split {min(unknown).decode()!r} is not one of train, valid, test")
            labels = self.shard.extra("labels")[split != b"test"]
            classes = labels.argmax(axis=1) if self.metric == "accuracy" else np.zeros(len(labels), dtype="i8")
            return [official_split(split, classes, seeds)]
        except SsondoError as error:
            raise SsondoError(f"{self.shard.path}: {error}") from None

    def train_valid(self, split: EvalSplit) -> TrainValid:
        """Read the training and validation clips of `split`."""
        return TrainValid(
            self._clips(split.development_rows),
            torch.from_numpy(split.train_rows).to(self._device),
            torch.from_numpy(split.valid_rows).to(self._device),
        )

    def test(self, split: EvalSplit) -> LabelledEmbeddings:
        """Read the test clips of `split`; call this after the selection."""
        return self._clips(split.test_rows)


def _notebook(data: TrainValid, test: LabelledEmbeddings) -> tuple[TrainValid, EarlyStopping]:
    """The data and the schedule of the published notebook.

    All other clips train, and the test clips also validate, after every epoch; training never stops early.
    """
    clips = LabelledEmbeddings(
        torch.cat([data.clips.embeddings, test.embeddings]), torch.cat([data.clips.labels, test.labels])
    )
    n, n_seeds = len(data.clips.labels), len(data.train_rows)
    rows = torch.arange(len(clips.labels), device=clips.labels.device).expand(n_seeds, -1)
    epoch = math.ceil(n / _NOTEBOOK.batch_size)
    steps = _NOTEBOOK_EPOCHS * epoch
    return TrainValid(clips, rows[:, :n], rows[:, n:]), EarlyStopping(steps, steps, epoch)


def _grid(
    learning_rates: list[float], weight_decays: list[float], batch_sizes: list[int], n_clips: int
) -> list[GridPoint]:
    # Two batch sizes of at least the number of clips would be the same probe twice.
    sizes = dict.fromkeys(min(size, n_clips) for size in batch_sizes)
    return [GridPoint(rate, decay, size) for size, rate, decay in product(sizes, learning_rates, weight_decays)]


def _check(row_kind: Any, head: str, hidden: int, protocol: str, lists: dict[str, list[Any]]) -> None:
    for name, value, allowed in (
        ("model.row_kind", row_kind, ROW_KINDS),
        ("head", head, HEADS),
        ("protocol", protocol, PROTOCOLS),
    ):
        if value not in allowed:
            raise SsondoError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
    if head == "mlp" and hidden < 1:
        raise SsondoError(f"hidden is {hidden}; the head mlp needs a width of at least 1")
    for name, values in lists.items():
        if not values or len(set(values)) != len(values):
            raise SsondoError(f"{name} is {values}; it must have at least one value and no value twice")


def probe(
    *,
    embeddings: Path,
    model: dict[str, Any],
    head: str,
    hidden: int,
    learning_rates: list[float],
    weight_decays: list[float],
    batch_sizes: list[int],
    steps: int,
    patience: int,
    validate_every: int,
    seeds: list[int],
    protocol: str,
    out: Path,
    bootstrap: int = 0,
    device: str = "auto",
) -> None:
    """Score frozen embeddings of a task with small probes that are selected on validation clips.

    Args:
        embeddings: Path of the task embeddings that embed_task wrote.
        model: Model that computed the embeddings, as JSON with the keys row_kind (teacher, distilled, supervised,
            untrained), teacher, student, loss, n_clusters and seed.
        head: Architecture of the probe, linear or mlp.
        hidden: Width of the hidden layer of the head mlp.
        learning_rates: Learning rates of AdamW that are compared.
        weight_decays: Weight decays of AdamW that are compared.
        batch_sizes: Batch sizes in clips that are compared.
        steps: Maximum number of training steps.
        patience: Number of steps without a better validation result after which a probe stops; it must be at least
            validate_every.
        validate_every: Number of steps between two validations.
        seeds: Seeds of initialisation, batch order and, where the task has no validation split, the draw of the
            validation clips; the task is scored once with each.
        protocol: Evaluation protocol, standard or published_notebook. The latter ignores the settings above: it
            trains as the published notebook does and reports the best test score over 1,000 epochs, which is
            optimistic and only serves comparisons.
        out: Path of the JSON file that is written, with scores in [0, 1] and their provenance.
        bootstrap: Number of bootstrap samples of the test clips for a confidence interval over clips; 0 omits it.
        device: Device that trains the probes: cpu, cuda, or auto for a GPU if there is one.

    Raises:
        SsondoError: If a setting is invalid, the embeddings are not those of a task, or all probes diverged.
    """
    started = time.monotonic()
    grids: dict[str, Any]
    grids = {"learning_rates": learning_rates, "weight_decays": weight_decays, "batch_sizes": batch_sizes}
    _check(model.get("row_kind"), head, hidden, protocol, {**grids, "seeds": seeds})
    if patience < validate_every:
        raise SsondoError(
            f"patience is {patience}, below validate_every ({validate_every}), so a probe would stop between two "
            "validations; raise patience or lower validate_every"
        )
    options = {"head": head, "hidden": hidden, **grids, "steps": steps, "patience": patience}
    options |= {"validate_every": validate_every, "valid_fraction": VALID_FRACTION}
    if protocol == "published_notebook":
        options = {"head": "linear", **asdict(_NOTEBOOK), "epochs": _NOTEBOOK_EPOCHS, "standardise": False}
    torch_device = resolve_device(device)
    with EmbeddingShard(embeddings) as shard:
        task = _TaskEmbeddings(shard, torch_device)
        results, draws = [], []
        for i, split in enumerate(task.splits(seeds)):
            data = task.train_valid(split)
            test: LabelledEmbeddings | None = None
            if protocol == "published_notebook":
                test = task.test(split)
                data, schedule = _notebook(data, test)
                probe_head, grid = Head(0, init_scale=1.0, standardise=False), [_NOTEBOOK]
            else:
                grid = _grid(learning_rates, weight_decays, batch_sizes, data.train_rows.shape[1])
                schedule = EarlyStopping(steps, patience, validate_every)
                probe_head = Head(hidden if head == "mlp" else 0)
            fitted = select(
                data,
                metric=task.metric,
                head=probe_head,
                grid=grid,
                schedule=schedule,
                seeds=seeds,
                name=f"probe {task.name} {split.name}",
            )
            test = test or task.test(split)
            results.append(_result(split, data, fitted, test, task))
            if bootstrap:
                # With a common seed, folds of equal size would draw the same positions and their draws correlate.
                draws.append(bootstrap_scores(fitted, test, metric=task.metric, n=bootstrap, seed=[seeds[0], i]))
        by_seed = np.mean([result["scores"] for result in results], axis=0)
        value = {
            "task": task.name,
            "metric": task.metric,
            "model": model,
            "mean": float(by_seed.mean()),
            "ci95": ci95(by_seed.tolist()),
            "n_runs": len(seeds),
            "scores": by_seed.tolist(),
            "seeds": seeds,
            "splits": results,
            "n_clips": len(shard),
            **{name: round(np.mean([result[name] for result in results])) for name in ("n_train", "n_valid", "n_test")},
            "n_missing": shard.settings.get("n_missing"),
            "n_classes": len(task.classes),
            "classes_without_positive": sorted({name for r in results for name in r["classes_without_positive"]}),
            "parameters": shard.settings.get("parameters"),
            "embedding_dim": shard.embedding_dim,
            "protocol": protocol,
            "optimistic": protocol == "published_notebook",
            "clip_list_sha256": clip_list_digest(shard.clip_ids),
            "training_clip_list_sha256": shard.settings.get("training_clip_list_sha256"),
            "checkpoint_sha256": shard.checkpoint_sha256,
            "embeddings_digest": shard.digest,
            "options": options | {"bootstrap": bootstrap},
            "code": accepted_hash("probe", "ssondo.probe.probe"),
            "environment": describe_machine(str(torch_device)),
            ENVIRONMENT_OF: shard.settings.get(ENVIRONMENT_OF, {}),
        }
    if draws:
        # The folds are drawn independently, so a bootstrap sample of the task consists of one sample of every fold.
        low, high = np.quantile(torch.stack(draws).mean(dim=0).cpu().numpy(), [0.025, 0.975])
        value["bootstrap_ci95"] = [float(low), float(high)]
    write_json(out, value)
    half_width = f" ± {100 * value['ci95']:.1f}" if value["ci95"] is not None else ""
    log.info(
        "%s: %s %.1f%s %%, %d seeds, %d clips in %.1f s -> %s",
        *(task.name, task.metric, 100 * value["mean"], half_width),
        *(len(seeds), value["n_clips"], time.monotonic() - started, out),
    )


def _result(
    split: EvalSplit, data: TrainValid, fitted: FittedProbe, test: LabelledEmbeddings, task: _TaskEmbeddings
) -> dict[str, Any]:
    """Scores and selected settings of one evaluation split, each as a list with one entry per seed."""
    has_positive = (test.labels == 1).any(dim=0).tolist()
    return {
        "split": split.name,
        "scores": score(fitted, test, metric=task.metric).tolist(),
        "valid_scores": fitted.valid_scores.tolist(),
        "chosen": [asdict(point) | {"step": step} for point, step in zip(fitted.chosen, fitted.steps, strict=True)],
        "n_train": data.train_rows.shape[1],
        "n_valid": data.valid_rows.shape[1],
        "n_test": len(test.labels),
        "classes_without_positive": [
            name for name, positive in zip(task.classes, has_positive, strict=True) if not positive
        ],
    }
