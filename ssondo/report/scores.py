"""Probe scores as the tables and the report read them: grouped by model, runs pooled, beside the published ones.

Scores are in [0, 1] here and in scores.csv; tables for people, and the published numbers, are in per cent.
"""

import csv
import io
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ssondo.errors import SsondoError
from ssondo.probe.confidence import ci95
from ssondo.storage.atomic_files import read_json, write_text

log = logging.getLogger(__name__)

ABLATED = ("matpac", "mobilenetv3")
"""Teacher and student of the paper's Table 2 and Fig. 2."""
LONG_COLUMNS = ("row_kind", "teacher", "student", "task", "metric", "mean", "ci95", "n_runs")
_MORE_COLUMNS = (
    "loss",
    "n_clusters",
    "n_distill_seeds",
    "parameters",
    "n_clips",
    "n_missing",
    "protocol",
    "clip_list_sha256",
    "checkpoint_sha256",
    "code",
    "files",
)


@dataclass(frozen=True)
class Setting:
    """What a score is of: a teacher, or a student and how it was trained; empty where it does not apply."""

    row_kind: str
    teacher: str = ""
    student: str = ""
    loss: str = ""
    n_clusters: int | None = None

    @property
    def name(self) -> str:
        """The model in words."""
        match self.row_kind:
            case "teacher":
                return f"{self.teacher} (teacher)"
            case "distilled":
                clusters = f", k={self.n_clusters}" if self.n_clusters else ""
                return f"{self.student} from {self.teacher} ({self.loss}{clusters})"
            case _:
                return f"{self.student} ({self.row_kind})"


@dataclass(frozen=True)
class Cell:
    """The score of one model on one task.

    Attributes:
        setting: the model.
        task: name.
        metric: accuracy, map or masked_map.
        runs: a score for each training seed and probe seed, in [0, 1], shape (n_runs,).
        sources: what the probe wrote, one for each training seed.
        paths: the files of `sources`.
    """

    setting: Setting
    task: str
    metric: str
    runs: np.ndarray
    sources: tuple[dict[str, Any], ...]
    paths: tuple[Path, ...]

    @property
    def mean(self) -> float:
        """Mean over all runs."""
        return float(self.runs.mean())

    @property
    def ci95(self) -> float | None:
        """Half width of the 95 % confidence interval of the mean; None with one run.

        Runs of several trainings are pooled: probe seeds of one training are not independent
        trainings, so with few trainings the interval is narrower than one over trainings.
        """
        return ci95(self.runs)

    def common(self, name: str) -> Any:
        """The value of `name` in the sources, or None where they differ."""
        values = [source.get(name) for source in self.sources]
        return values[0] if all(value == values[0] for value in values) else None


Cells = dict[tuple[Setting, str], Cell]


def _setting(model: dict[str, Any]) -> Setting:
    distilled = model["row_kind"] == "distilled"
    return Setting(
        row_kind=model["row_kind"],
        teacher=(model.get("teacher") or "") if model["row_kind"] in ("teacher", "distilled") else "",
        student=model.get("student") or "",
        loss=(model.get("loss") or "") if distilled else "",
        n_clusters=int(model.get("n_clusters") or 0) if distilled else None,
    )


def read_scores(paths: Iterable[Path]) -> Cells:
    """Read probe scores and pool the runs of each model and task over its training seeds.

    Args:
        paths: files that `probe` wrote.

    Raises:
        SsondoError: if a file is no probe score, or a model's training seed comes twice for a task.
    """
    found: dict[tuple[Setting, str], list[tuple[Path, dict[str, Any]]]] = {}
    for path in paths:
        value = read_json(path)
        if not isinstance(value, dict) or not {"model", "task", "metric", "scores"} <= set(value):
            raise SsondoError(f"{path}: not a score that probe wrote; remake it with: snakemake {path}")
        same = found.setdefault((_setting(value["model"]), value["task"]), [])
        for other, theirs in same:
            if theirs["model"].get("seed") == value["model"].get("seed"):
                raise SsondoError(
                    f"{path} and {other} are scores of the same model on {value['task']}; give one of them"
                )
        same.append((path, value))
    cells = {}
    for (setting, task), same in found.items():
        same.sort(key=lambda item: item[1]["model"].get("seed") or 0)
        runs = np.concatenate([value["scores"] for _, value in same]).astype("f8")
        paths_, sources = zip(*same, strict=True)
        cells[setting, task] = Cell(setting, task, sources[0]["metric"], runs, sources, paths_)
    return cells


def long_csv(cells: Cells) -> str:
    """scores.csv: a line for each model and task; scores in [0, 1], empty where something does not apply."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*LONG_COLUMNS, *_MORE_COLUMNS])
    for cell in cells.values():
        setting = cell.setting
        row = [setting.row_kind, setting.teacher, setting.student, cell.task, cell.metric]
        row += [f"{cell.mean:.6f}", "" if cell.ci95 is None else f"{cell.ci95:.6f}", str(len(cell.runs))]
        row += [setting.loss, "" if setting.n_clusters is None else str(setting.n_clusters)]
        row.append(str(len(cell.sources)) if setting.row_kind != "teacher" else "")
        names = ("parameters", "n_clips", "n_missing", "protocol", "clip_list_sha256")
        values = [cell.common(name) for name in names]
        # Each training has a checkpoint of its own; the files say everything else of a number.
        values += [" ".join(str(source.get("checkpoint_sha256") or "-") for source in cell.sources)]
        values += [cell.common("code"), " ".join(map(str, cell.paths))]
        writer.writerow(row + ["" if value is None else str(value) for value in values])
    return text.getvalue()


def _groups(cells: Sequence[Cell], name: str) -> list[tuple[Any, list[str]]]:
    """Values of `name` in the sources and the models that have each, the most frequent first."""
    groups: list[tuple[Any, list[str]]] = []
    for cell in cells:
        for source in cell.sources:
            value = source.get(name)
            models = next((models for known, models in groups if known == value), None)
            if models is None:
                groups.append((value, models := []))
            if cell.setting.name not in models:
                models.append(cell.setting.name)
    return sorted(groups, key=lambda group: -len(group[1]))


def remarks(cells: Iterable[Cell]) -> list[str]:
    """What a reader must know before comparing the scores, task by task.

    Scores of a task compare if they stand on the same clips, with the same probe and protocol. Students compare
    if they were trained on the same clips.
    """
    cells = list(cells)
    by_task: dict[str, list[Cell]] = {}
    for cell in cells:
        by_task.setdefault(cell.task, []).append(cell)
    notes = []
    # Teachers and untrained students have no such list.
    trained = [models for value, models in _groups(cells, "training_clip_list_sha256") if value is not None]
    if len(trained) > 1:
        odd = "; ".join(", ".join(models) for models in trained[1:])
        notes.append(f"Students were trained on different lists of clips: {odd} against {', '.join(trained[0])}.")
    for task, same in by_task.items():
        for name, what in (
            ("clip_list_sha256", "stand on different lists of clips"),
            ("options", "come from probes with different options"),
            ("code", "come from different versions of the probe's code"),
        ):
            usual, *others = _groups(same, name)
            if others:
                odd = "; ".join(", ".join(models) for _, models in others)
                notes.append(f"{task}: the scores {what}, so they do not compare: {odd} against {', '.join(usual[1])}.")
        sources = [source for cell in same for source in cell.sources]
        missing = max((source.get("n_missing") or 0 for source in sources), default=0)
        if missing:
            notes.append(f"{task}: {missing:,} clips of the data set were not there.")
        # An accuracy is a mean over clips: there nothing is left out.
        empty = {
            name
            for cell in same
            if cell.metric != "accuracy"
            for source in cell.sources
            for name in source.get("classes_without_positive", [])
        }
        if empty:
            notes.append(f"{task}: classes without a positive test clip are left out of the mean: {len(empty)}.")
        if any(source.get("optimistic") for source in sources):
            notes.append(
                f"{task}: scores of the protocol published_notebook are the best test scores over epochs, "
                "so they are optimistic."
            )
    return notes


def published(name: str) -> list[dict[str, str]]:
    """The rows of a published table or figure (table1, table2, fig2), in per cent."""
    text = files("ssondo.report").joinpath("published", f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


def scores(*, scores: list[Path], out: Path) -> None:
    """Collect every score in one CSV, a line for each model and task.

    Args:
        scores: files that probe wrote.
        out: the CSV: row_kind, teacher, student, task, metric, mean, ci95, n_runs, and what else tells two
            lines apart; scores in [0, 1].
    """
    cells = read_scores(scores)
    write_text(out, long_csv(cells))
    log.info("scores: %d of %d models -> %s", len(cells), len({cell.setting for cell in cells.values()}), out)
