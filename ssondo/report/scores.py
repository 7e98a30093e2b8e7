"""Probe scores: reading them, pooling their runs, and the verb that collects them in one CSV.

Scores are in [0, 1] here and in scores.csv; the tables and the published numbers are in per cent.
"""

import csv
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssondo.errors import SsondoError
from ssondo.probe.confidence import ci95
from ssondo.probe.model_id import ModelId
from ssondo.storage.atomic_files import read_json, write_csv

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

ABLATED = ("matpac", "mobilenetv3")
"""Teacher and student of the paper's Table 2 and Fig. 2."""


@dataclass(frozen=True)
class ScoreFile:
    """A file that `probe` wrote: the scores of one trained model on one task."""

    path: Path
    model: ModelId
    content: dict[str, Any]


@dataclass(frozen=True)
class TaskScore:
    """The score of one model on one task, pooled over the seeds of its training.

    Attributes:
        model: The model, without a seed.
        task: Name of the task.
        files: One score file for each training seed, in ascending order of the seed.
    """

    model: ModelId
    task: str
    files: tuple[ScoreFile, ...]

    @property
    def metric(self) -> str:
        """The metric: accuracy, map or masked_map."""
        return str(self.files[0].content["metric"])

    @property
    def runs(self) -> np.ndarray:
        """One score for each training seed and probe seed, in [0, 1], shape (n_runs,), float64."""
        return np.concatenate([file.content["scores"] for file in self.files]).astype("f8")

    @property
    def mean(self) -> float:
        """Mean over all runs."""
        return float(self.runs.mean())

    @property
    def ci95(self) -> float | None:
        """Half width of the 95 % confidence interval of the mean; None for a single run.

        Probe seeds of one training are not independent trainings, so with few trainings this
        interval is narrower than one over trainings.
        """
        return ci95(self.runs)

    def common(self, name: str) -> Any:
        """The value of `name` if it is the same in all score files, otherwise None."""
        values = [file.content.get(name) for file in self.files]
        return values[0] if all(value == values[0] for value in values) else None


TaskScores = dict[tuple[ModelId, str], TaskScore]
"""Scores by model (without a seed) and task."""


def read_score_files(paths: Iterable[Path]) -> list[ScoreFile]:
    """Read files that `probe` wrote.

    Raises:
        SsondoError: If a file is missing or is not a probe score.
    """
    score_files = []
    for path in paths:
        content = read_json(path)
        if not isinstance(content, dict) or not {"model", "task", "metric", "scores"} <= set(content):
            raise SsondoError(f"{path}: this is not a score that probe wrote; make it again with: snakemake {path}")
        score_files.append(ScoreFile(path, ModelId.from_score(content["model"]), content))
    return score_files


def pool_scores(score_files: Iterable[ScoreFile]) -> TaskScores:
    """Pool the runs of each model and task over the seeds of the training.

    Raises:
        SsondoError: If two files are scores of the same model, seed and task.
    """
    groups: dict[tuple[ModelId, str], list[ScoreFile]] = {}
    for file in score_files:
        task = file.content["task"]
        group = groups.setdefault((replace(file.model, seed=None), task), [])
        for other in group:
            if other.model == file.model:
                raise SsondoError(
                    f"{file.path} and {other.path} are scores of the same model on {task}; give only one of them"
                )
        group.append(file)
    return {
        (model, task): TaskScore(model, task, tuple(sorted(group, key=lambda file: file.model.seed or 0)))
        for (model, task), group in groups.items()
    }


def read_scores(paths: Iterable[Path]) -> TaskScores:
    """Read files that `probe` wrote and pool their runs over the seeds of the training."""
    return pool_scores(read_score_files(paths))


def only_model(models: set[ModelId], claim: str) -> ModelId | None:
    """Return the only one of `models`; None if there is none.

    Raises:
        SsondoError: If there are several; the message begins with `claim`.
    """
    if len(models) > 1:
        names = " and ".join(sorted(model.name for model in models))
        raise SsondoError(f"{claim} and got {names}; give the scores of one")
    return next(iter(models), None)


def scores_frame(scores: TaskScores) -> "pd.DataFrame":
    """Return the long form of all scores: one row for each model and task, scores in [0, 1]."""
    import pandas as pd

    def number(value: float | None) -> str | None:
        return None if value is None else f"{value:.6f}"

    rows = []
    for score in scores.values():
        model = score.model
        distilled = model.row_kind == "distilled"
        rows.append(
            {
                "row_kind": model.row_kind,
                "teacher": model.teacher,
                "student": model.student,
                "task": score.task,
                "metric": score.metric,
                "mean": number(score.mean),
                "ci95": number(score.ci95),
                "n_runs": len(score.runs),
                "loss": model.loss,
                "n_clusters": model.n_clusters if distilled else None,
                "n_distill_seeds": len(score.files) if model.row_kind != "teacher" else None,
                **{
                    name: score.common(name)
                    for name in ("parameters", "n_clips", "n_missing", "protocol", "clip_list_sha256")
                },
                # Each training has its own checkpoint; the score files contain everything else.
                "checkpoint_sha256": " ".join(
                    str(file.content.get("checkpoint_sha256") or "-") for file in score.files
                ),
                "code": score.common("code"),
                "files": " ".join(str(file.path) for file in score.files),
            }
        )
    # Without dtype=object, integers in a column with gaps would become floating-point numbers.
    return pd.DataFrame(rows, dtype=object)


def _models_by_value(scores: Sequence[TaskScore], name: str) -> list[tuple[Any, list[str]]]:
    """Return each value of `name` in the score files with the models that have it, the most frequent value first."""
    groups: list[tuple[Any, list[str]]] = []
    for score in scores:
        for file in score.files:
            value = file.content.get(name)
            models = next((models for other, models in groups if other == value), None)
            if models is None:
                groups.append((value, models := []))
            if score.model.name not in models:
                models.append(score.model.name)
    return sorted(groups, key=lambda group: -len(group[1]))


_MUST_AGREE = {
    "clip_list_sha256": "were measured on different lists of clips",
    "options": "come from probes with different options",
    "code": "come from different versions of the probe's code",
}


def comparability_notes(scores: Iterable[TaskScore]) -> list[str]:
    """Return notes that a reader needs before comparing the scores with each other.

    Scores on a task are comparable if they were measured on the same clips, with the same probe and
    protocol. Students are comparable if they were trained on the same clips.
    """
    scores = list(scores)
    notes = []
    # Teachers and untrained students have no list of training clips.
    trained = [models for value, models in _models_by_value(scores, "training_clip_list_sha256") if value is not None]
    if len(trained) > 1:
        others = "; ".join(", ".join(models) for models in trained[1:])
        notes.append(f"Students were trained on different lists of clips: {others} against {', '.join(trained[0])}.")
    for task in dict.fromkeys(score.task for score in scores):
        notes += _task_notes(task, [score for score in scores if score.task == task])
    return notes


def _task_notes(task: str, scores: list[TaskScore]) -> list[str]:
    notes = []
    for name, difference in _MUST_AGREE.items():
        (_, usual), *rest = _models_by_value(scores, name)
        if rest:
            others = "; ".join(", ".join(names) for _, names in rest)
            notes.append(
                f"{task}: the scores {difference}, so they are not comparable: {others} against {', '.join(usual)}."
            )
    contents = [file.content for score in scores for file in score.files]
    n_missing = max((content.get("n_missing") or 0 for content in contents), default=0)
    if n_missing:
        notes.append(f"{task}: {n_missing:,} clips of the data set are missing.")
    # Accuracy is a mean over clips, so a class without clips is not left out of it.
    empty = {
        name
        for content in contents
        if content["metric"] != "accuracy"
        for name in content.get("classes_without_positive", [])
    }
    if empty:
        notes.append(f"{task}: classes without a positive test clip are left out of the mean: {len(empty)}.")
    if any(content.get("optimistic") for content in contents):
        notes.append(
            f"{task}: scores of the protocol published_notebook are the best test scores over epochs, "
            "so they are optimistic."
        )
    return notes


def published(name: str) -> list[dict[str, str]]:
    """Return the rows of a published table or figure (table1, table2, fig2), in per cent; missing values are empty."""
    text = files("ssondo.report").joinpath("published", f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def scores(*, scores: list[Path], out: Path) -> None:
    """Collect all scores in one CSV with a row for each model and task.

    Args:
        scores: Paths of the score files that probe wrote.
        out: Path of the CSV that is written, with the columns row_kind, teacher, student, task, metric, mean,
            ci95, n_runs and the origin of each score; scores are in [0, 1].
    """
    pooled = read_scores(scores)
    write_csv(out, scores_frame(pooled))
    log.info("scores: %d scores of %d models -> %s", len(pooled), len({model for model, _ in pooled}), out)
