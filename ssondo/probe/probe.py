"""Probe frozen embeddings: what a linear layer or a small MLP can read from them.

Everything is chosen by `selection.select`, which is handed training and validation clips
only; then `selection.score` reads the test clips. Where a task has folds, the fold that is
scored is neither trained on nor selected on.
"""

import logging
import time
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssondo.errors import SsondoError
from ssondo.probe.grid_search import (
    EarlyStopping,
    FittedProbe,
    GridPoint,
    Head,
    LabelledEmbeddings,
    TrainValid,
    bootstrap_scores,
    score,
    select,
)
from ssondo.probe.model_id import ROW_KINDS
from ssondo.provenance import code_hash
from ssondo.storage.atomic_files import clip_list_digest, write_json
from ssondo.storage.shards.embedding import ENVIRONMENT_OF, EmbeddingShard
from ssondo.system.device import resolve_device
from ssondo.system.hardware import describe_machine
from ssondo.tasks.metrics import check_labels

log = logging.getLogger(__name__)

HEADS = ("linear", "mlp")
PROTOCOLS = ("field", "published_notebook")
# Of the training clips, where a task comes without a validation split.
VALID_FRACTION = 0.15
# The published notebook (linear probe on ESC-50): Adam, torch.nn.Linear, embeddings as they are.
_NOTEBOOK = GridPoint(learning_rate=1e-3, weight_decay=0.0, batch_size=64)
_NOTEBOOK_EPOCHS = 1000
_CHUNK = 4096


@dataclass(frozen=True)
class Part:
    """Which clips of a task train, validate and are scored; one a fold, or one for a split.

    Attributes:
        name: the scored fold, or "test".
        development_rows: training and validation clips, shape (n,).
        train_rows, valid_rows: into the development clips, shapes (n_seeds, n_train), (n_seeds, n_valid).
        test_rows: shape (n_test,).
    """

    name: str
    development_rows: np.ndarray
    train_rows: np.ndarray
    valid_rows: np.ndarray
    test_rows: np.ndarray

    def __post_init__(self) -> None:
        for what, n in (
            ("training", self.train_rows.shape[1]),
            ("validation", self.valid_rows.shape[1]),
            ("test", len(self.test_rows)),
        ):
            if not n:
                raise SsondoError(f"{self.name}: no {what} clip is there; see the task's missing clips and its splits")


def parts_of_folds(folds: np.ndarray, n_seeds: int) -> list[Part]:
    """A part for each fold: it is scored, the next one validates, the others train.

    Args:
        folds: fold of each clip, shape (n_clips,).
        n_seeds: how many seeds share the parts.

    Raises:
        SsondoError: if there are fewer than three folds.
    """
    names = np.unique(folds)
    if len(names) < 3:
        raise SsondoError(f"{len(names)} folds: one scores, one validates and one trains, so at least 3 are needed")
    parts = []
    for i, scored in enumerate(names):
        development = np.flatnonzero(folds != scored)
        validates = folds[development] == names[(i + 1) % len(names)]
        train, valid = np.flatnonzero(~validates), np.flatnonzero(validates)
        parts.append(
            Part(
                f"fold {scored}",
                development,
                np.tile(train, (n_seeds, 1)),
                np.tile(valid, (n_seeds, 1)),
                np.flatnonzero(folds == scored),
            )
        )
    return parts


def part_of_split(split: np.ndarray, classes: np.ndarray, seeds: list[int]) -> Part:
    """The part of an official split; without validation clips each seed draws its own from the training clips.

    Args:
        split: shape (n_clips,), b"train", b"valid" or b"test".
        classes: what the draw is stratified by, one number for each clip that is not a test
            clip, in order.
        seeds: one draw each.
    """
    development = np.flatnonzero(split != b"test")
    test = np.flatnonzero(split == b"test")
    validates = split[development] == b"valid"
    if validates.any():
        train, valid = np.flatnonzero(~validates), np.flatnonzero(validates)
        return Part("test", development, np.tile(train, (len(seeds), 1)), np.tile(valid, (len(seeds), 1)), test)
    draws = [_draw(classes, np.random.default_rng([seed, len(classes)])) for seed in seeds]
    return Part("test", development, np.stack([d[0] for d in draws]), np.stack([d[1] for d in draws]), test)


def _draw(classes: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows that train and rows that validate; every class gives its share, the sizes do not depend on the draw."""
    shuffled = generator.permutation(len(classes))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    place = np.arange(len(classes))
    takes = np.floor((place + 1) * VALID_FRACTION) > np.floor(place * VALID_FRACTION)
    return np.sort(by_class[~takes]), np.sort(by_class[takes])


class _Task:
    """A shard of task embeddings, read part by part."""

    def __init__(self, shard: EmbeddingShard, device: torch.device) -> None:
        self.shard, self._device = shard, device
        missing = [name for name in ("task", "metric", "classes", "split_kind") if name not in shard.settings]
        if missing:
            raise SsondoError(
                f"{shard.path}: no task embeddings (its settings lack {', '.join(missing)}); use embed_task"
            )
        self.name: str = shard.settings["task"]
        self.metric: str = shard.settings["metric"]
        self.classes: list[str] = shard.settings["classes"]

    def clips(self, rows: np.ndarray) -> LabelledEmbeddings:
        """The clips of `rows`; the labels of other clips go no further than this function."""
        labels = torch.from_numpy(self.shard.extra("labels")[rows])
        try:
            check_labels(self.metric, labels)
        except SsondoError as error:
            raise SsondoError(f"{self.shard.path}: {error}") from None
        if labels.shape[1] != len(self.classes):
            raise SsondoError(f"{self.shard.path}: {labels.shape[1]} label columns for {len(self.classes)} classes")
        embeddings = np.empty((len(rows), self.shard.embedding_dim), dtype="f4")
        # In chunks, so that a large task is in memory once; `rows` ascend.
        for start in range(0, len(self.shard), _CHUNK):
            first, last = np.searchsorted(rows, [start, start + _CHUNK])
            embeddings[first:last] = self.shard.rows(start, start + _CHUNK)[rows[first:last] - start]
        return LabelledEmbeddings(torch.from_numpy(embeddings).to(self._device), labels.to(self._device))

    def parts(self, seeds: list[int]) -> list[Part]:
        """What trains, validates and is scored."""
        try:
            if self.shard.settings["split_kind"] == "fold":
                return parts_of_folds(self.shard.extra("fold"), len(seeds))
            split = self.shard.extra("split")
            unknown = set(np.unique(split)) - {b"train", b"valid", b"test"}
            if unknown:
                raise SsondoError(f"split {min(unknown).decode()!r} is none of train, valid, test")
            labels = self.shard.extra("labels")[split != b"test"]
            classes = labels.argmax(axis=1) if self.metric == "accuracy" else np.zeros(len(labels), dtype="i8")
            return [part_of_split(split, classes, seeds)]
        except SsondoError as error:
            raise SsondoError(f"{self.shard.path}: {error}") from None

    def development(self, part: Part) -> TrainValid:
        """Training and validation clips of `part`."""
        return TrainValid(
            self.clips(part.development_rows),
            torch.from_numpy(part.train_rows).to(self._device),
            torch.from_numpy(part.valid_rows).to(self._device),
        )

    def test(self, part: Part) -> LabelledEmbeddings:
        """Test clips of `part`; read after everything is chosen."""
        return self.clips(part.test_rows)


def _leaking_development(development: TrainValid, test: LabelledEmbeddings) -> TrainValid:
    """The published notebook's reading: all else trains, and the test clips take the place of validation."""
    clips = LabelledEmbeddings(
        torch.cat([development.clips.embeddings, test.embeddings]), torch.cat([development.clips.labels, test.labels])
    )
    n, n_seeds = len(development.clips.labels), len(development.train_rows)
    rows = torch.arange(len(clips.labels), device=clips.labels.device).expand(n_seeds, -1)
    return TrainValid(clips, rows[:, :n], rows[:, n:])


def interval(scores: list[float]) -> float | None:
    """Half width of the 95 % confidence interval of the mean of runs; None with a single run."""
    return float(1.96 * np.std(scores, ddof=1) / len(scores) ** 0.5) if len(scores) > 1 else None


@dataclass(frozen=True)
class _Recipe:
    """What is trained, and how."""

    head: Head
    grid: list[GridPoint]
    schedule: EarlyStopping


def _notebook_recipe(n_train: int) -> _Recipe:
    """The published notebook's; it looks at the scores after every epoch and never stops early."""
    epoch = -(-n_train // _NOTEBOOK.batch_size)
    steps = _NOTEBOOK_EPOCHS * epoch
    return _Recipe(Head(0, start=1.0, standardise=False), [_NOTEBOOK], EarlyStopping(steps, steps, epoch))


def _grid(
    learning_rates: list[float], weight_decays: list[float], batch_sizes: list[int], n_clips: int
) -> list[GridPoint]:
    # Two batch sizes that both hold all clips are the same probe twice.
    sizes = dict.fromkeys(min(size, n_clips) for size in batch_sizes)
    return [GridPoint(rate, decay, size) for size, rate, decay in product(sizes, learning_rates, weight_decays)]


def _check(row_kind: Any, head: str, hidden: int, protocol: str, lists: dict[str, list[Any]]) -> None:
    for what, value, allowed in (
        ("model.row_kind", row_kind, ROW_KINDS),
        ("head", head, HEADS),
        ("protocol", protocol, PROTOCOLS),
    ):
        if value not in allowed:
            raise SsondoError(f"{what} is {value!r}; it is one of {', '.join(allowed)}")
    if head == "mlp" and hidden < 1:
        raise SsondoError(f"hidden is {hidden}; an mlp head needs a width of at least 1")
    for name, values in lists.items():
        if not values or len(set(values)) != len(values):
            raise SsondoError(f"{name} is {values}; give at least one value, and each once")


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
    """Score frozen embeddings of a task with small probes, every seed, selected on validation clips only.

    Args:
        embeddings: task embeddings, made by embed_task.
        model: what made them: row_kind (teacher, distilled, supervised, untrained), teacher,
            student, loss, n_clusters, seed.
        head: linear or mlp.
        hidden: width of the mlp's hidden layer.
        learning_rates: of AdamW, each tried.
        weight_decays: of AdamW, each tried.
        batch_sizes: in clips, each tried.
        steps: at most, whatever the size of the task.
        patience: steps without a better validation result before a probe stops; at least validate_every.
        validate_every: steps between two looks at the validation clips.
        seeds: one run each; sets initialisation, batch order and, where the task has no
            validation split, the draw of validation clips.
        protocol: field (select on validation), or published_notebook (its own settings in place of the ones
            above, and the best test score over 1,000 epochs: optimistic, for comparison only).
        out: JSON with scores in [0, 1] and their provenance.
        bootstrap: draws of the test clips for an interval over clips; 0 for none.
        device: auto, cpu or cuda.
    """
    started = time.monotonic()
    grids: dict[str, Any] = {
        "learning_rates": learning_rates,
        "weight_decays": weight_decays,
        "batch_sizes": batch_sizes,
    }
    _check(model.get("row_kind"), head, hidden, protocol, {**grids, "seeds": seeds})
    if patience < validate_every:
        raise SsondoError(
            f"patience is {patience}, below validate_every ({validate_every}): a probe would stop between two looks; "
            "raise patience or lower validate_every"
        )
    options = {"head": head, "hidden": hidden, **grids, "steps": steps, "patience": patience}
    options |= {"validate_every": validate_every, "valid_fraction": VALID_FRACTION}
    if protocol == "published_notebook":
        options = {"head": "linear", **asdict(_NOTEBOOK), "epochs": _NOTEBOOK_EPOCHS, "standardise": False}
    runs_on = resolve_device(device)
    with EmbeddingShard(embeddings) as shard:
        task = _Task(shard, runs_on)
        results, draws = [], []
        parts = task.parts(seeds)
        for i, part in enumerate(parts):
            development = task.development(part)
            test: LabelledEmbeddings | None = None
            if protocol == "published_notebook":
                test = task.test(part)
                development = _leaking_development(development, test)
                recipe = _notebook_recipe(development.train_rows.shape[1])
            else:
                grid = _grid(learning_rates, weight_decays, batch_sizes, development.train_rows.shape[1])
                schedule = EarlyStopping(steps, patience, validate_every)
                recipe = _Recipe(Head(hidden if head == "mlp" else 0), grid, schedule)
            fitted = select(
                development,
                metric=task.metric,
                head=recipe.head,
                grid=recipe.grid,
                schedule=recipe.schedule,
                seeds=seeds,
                name=f"probe {task.name} {part.name}",
            )
            test = test or task.test(part)
            results.append(_result(part, development, fitted, test, task))
            if bootstrap:
                # A seed for each fold: with one for all, folds of one size would draw the same places.
                draws.append(bootstrap_scores(fitted, test, metric=task.metric, n=bootstrap, seed=[seeds[0], i]))
        by_seed = np.mean([result["scores"] for result in results], axis=0)
        value = {
            "task": task.name,
            "metric": task.metric,
            "model": model,
            "mean": float(by_seed.mean()),
            "ci95": interval(by_seed.tolist()),
            "n_runs": len(seeds),
            "scores": by_seed.tolist(),
            "seeds": seeds,
            "parts": results,
            "n_clips": len(shard),
            **{name: round(np.mean([part[name] for part in results])) for name in ("n_train", "n_valid", "n_test")},
            "n_missing": shard.settings.get("n_missing"),
            "n_classes": len(task.classes),
            "classes_without_positive": sorted({name for part in results for name in part["classes_without_positive"]}),
            "parameters": shard.settings.get("parameters"),
            "embedding_dim": shard.embedding_dim,
            "protocol": protocol,
            "optimistic": protocol == "published_notebook",
            "clip_list_sha256": clip_list_digest(shard.clip_ids),
            "training_clip_list_sha256": shard.settings.get("training_clip_list_sha256"),
            "checkpoint_sha256": shard.checkpoint_sha256,
            "embeddings_digest": shard.digest,
            "options": options | {"bootstrap": bootstrap},
            "code": code_hash("ssondo.probe.probe"),
            "environment": describe_machine(str(runs_on)),
            ENVIRONMENT_OF: shard.settings.get(ENVIRONMENT_OF, {}),
        }
    if draws:
        # Folds are drawn each for itself; a draw of the task is one draw of every fold.
        low, high = np.quantile(torch.stack(draws).mean(dim=0).cpu().numpy(), [0.025, 0.975])
        value["bootstrap_ci95"] = [float(low), float(high)]
    write_json(out, value)
    width = f" ± {100 * value['ci95']:.1f}" if value["ci95"] is not None else ""
    log.info(
        "%s: %s %.1f%s %%, %d seeds, %d clips in %.1f s -> %s",
        task.name,
        task.metric,
        100 * value["mean"],
        width,
        len(seeds),
        value["n_clips"],
        time.monotonic() - started,
        out,
    )


def _result(
    part: Part, development: TrainValid, fitted: FittedProbe, test: LabelledEmbeddings, task: _Task
) -> dict[str, Any]:
    """Scores and choices of one part, one entry a seed."""
    has_positive = (test.labels == 1).any(dim=0).tolist()
    return {
        "part": part.name,
        "scores": score(fitted, test, metric=task.metric).tolist(),
        "valid_scores": fitted.valid_scores.tolist(),
        "chosen": [asdict(point) | {"step": step} for point, step in zip(fitted.chosen, fitted.steps, strict=True)],
        "n_train": development.train_rows.shape[1],
        "n_valid": development.valid_rows.shape[1],
        "n_test": len(test.labels),
        "classes_without_positive": [name for name, there in zip(task.classes, has_positive, strict=True) if not there],
    }
