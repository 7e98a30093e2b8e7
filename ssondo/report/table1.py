"""Table 1: students next to their teachers and baselines on every task."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ssondo.probe.model_id import ModelId
from ssondo.report.score_table import (
    ABSENT,
    Column,
    Row,
    Table,
    TableCell,
    average_of,
    mark_best,
    score_cell,
    write_table,
)
from ssondo.report.scores import TaskScore, TaskScores, comparability_notes, only_model, published, read_scores
from ssondo.storage.atomic_files import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


def _model_of_row(scores: TaskScores, row_kind: str, teacher: str, student: str) -> ModelId:
    """Return the only model of a row of Table 1, whether it has scores or not."""
    models = {m for m, _ in scores if (m.row_kind, m.teacher, m.student) == (row_kind, teacher, student)}
    model = only_model(models, f"table1 has one row for {student} from {teacher}")
    return model or ModelId(row_kind, teacher, student, seed=None)


def _models(scores: TaskScores, teachers: list[str], students: list[str]) -> list[ModelId]:
    """Return the rows of Table 1: teachers, then each student; baselines are included only if they have scores."""
    models = [_model_of_row(scores, "teacher", teacher, "") for teacher in teachers]
    for student in students:
        for row_kind in ("untrained", "supervised"):
            model = _model_of_row(scores, row_kind, "", student)
            if any(scored == model for scored, _ in scores):
                models.append(model)
        models += [_model_of_row(scores, "distilled", teacher, student) for teacher in teachers]
    return models


def _row(model: ModelId, scores: TaskScores, tasks: list[str], paper: dict[str, str]) -> Row:
    """Return a row without its share of the teacher."""
    cells = [score_cell(scores.get((model, task))) for task in tasks]
    average = TableCell(average_of([cell.mean for cell in cells]))
    for task, cell in zip(tasks, cells, strict=True):
        if paper.get(task):
            cell.published, cell.published_ci95 = float(paper[task]), float(paper[f"{task}_ci95"])
    if {name for name in paper if f"{name}_ci95" in paper} == set(tasks):
        average.published = float(paper["average"])
    present = [scores[model, task].common("parameters") for task in tasks if (model, task) in scores]
    parameters = present[0] if present else None
    size = f"{parameters / 1e6:.2f}M" if isinstance(parameters, int | float) and parameters else ABSENT
    ids = {
        "row_kind": model.row_kind,
        "teacher": model.teacher,
        "student": model.student,
        "loss": model.loss,
        "n_clusters": model.n_clusters if model.loss else None,
        "parameters": parameters,
    }
    labels = [model.student or model.teacher, model.training, size]
    return Row(labels, [*cells, average], ids, model.student, model)


def _share_of_teacher(row: Row, teacher: Row | None, n_tasks: int) -> TableCell:
    """Return the average as a share of the teacher's average over the tasks that both have, in per cent."""
    if teacher is None:
        return TableCell(absent="")
    pairs = [
        (cell.mean, other.mean)
        for cell, other in zip(row.cells[:n_tasks], teacher.cells[:n_tasks], strict=True)
        if cell.mean is not None and other.mean is not None
    ]
    total = sum(other for _, other in pairs)
    return TableCell(100 * sum(mean for mean, _ in pairs) / total if total else None, unit=" %")


def build_table1(scores: TaskScores, teachers: list[str], students: list[str], tasks: list[str]) -> Table:
    """Return Table 1; the arguments are those of `table1`.

    Raises:
        SsondoError: If scores of several losses or numbers of clusters would share a row.
    """
    papers = {(paper["row_kind"], paper["teacher"], paper["student"]): paper for paper in published("table1")}

    def paper_of(model: ModelId) -> dict[str, str]:
        # The paper's students were distilled with the cosine loss; a row without scores has no loss.
        if model.loss not in ("", "cosine"):
            return {}
        return papers.get((model.row_kind, model.teacher, model.student), {})

    models = _models(scores, teachers, students)
    rows = [_row(model, scores, tasks, paper_of(model)) for model in models]
    for student in students:
        mark_best([row for row in rows if row.group == student])
    by_teacher = {model.teacher: row for model, row in zip(models, rows, strict=True) if not model.student}
    for model, row in zip(models, rows, strict=True):
        teacher = by_teacher.get(model.teacher) if model.row_kind == "distilled" else None
        share = _share_of_teacher(row, teacher, len(tasks))
        paper_share = paper_of(model).get("share_of_teacher")
        if paper_share and row.cells[-1].published is not None:
            share.published = float(paper_share)
        row.cells.append(share)
    columns = [
        *(Column(task, task) for task in tasks),
        Column("average", "average", ("mean", "published")),
        Column("share_of_teacher", "of teacher", ("mean", "published")),
    ]
    shown = [score for (model, task), score in scores.items() if model in models and task in tasks]
    title = "Table 1: students and their teachers on downstream tasks"
    return Table(title, ["model", "trained", "parameters"], columns, rows, _notes(shown))


def _notes(scores: list[TaskScore]) -> list[str]:
    notes = ["'of teacher': the student's average as a share of its teacher's, over the tasks that both have."]
    trainings = sorted({(s.model.loss, s.model.n_clusters) for s in scores if s.model.row_kind == "distilled"})
    if trainings:
        texts = [f"{loss} loss, {f'{k} clusters' if k else 'clips drawn at random'}" for loss, k in trainings]
        notes.append(f"Distilled with: {'; '.join(texts)}.")
    runs = sorted({(len(score.files), len(score.runs) // len(score.files)) for score in scores})
    if runs:
        texts = [f"{n_trainings} x {n_seeds}" for n_trainings, n_seeds in runs]
        notes.append(f"Runs per number (trainings x probe seeds, pooled): {', '.join(texts)}.")
    best = "Bold: best of each student. " if any(score.model.student for score in scores) else ""
    metrics = sorted({f"{score.task} {score.metric}" for score in scores})
    return [*notes, f"{best}Metrics: {', '.join(metrics)}.", *comparability_notes(scores)]


def _plot_table(table: Table) -> "Figure":
    """Draw the table; the colour of a cell shows how close the score is to the best of its column."""
    import numpy as np
    from matplotlib.figure import Figure

    heads = [column.head for column in table.columns[:-1]]
    values = np.array([[np.nan if c.mean is None else c.mean for c in row.cells[:-1]] for row in table.rows])
    figure = Figure(figsize=(2.6 + 1.15 * len(heads), 0.9 + 0.42 * len(table.rows)), layout="constrained")
    axes = figure.subplots()
    best = np.nanmax(np.where(np.isnan(values), -np.inf, values), axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(best > 0, values / best, np.nan)
    axes.imshow(shares, aspect="auto", cmap="Blues", vmin=0.4, vmax=1.7)
    for y, row in enumerate(table.rows):
        for x, cell in enumerate(row.cells[:-1]):
            weight = "bold" if cell.best else "normal"
            axes.text(x, y, cell.text, ha="center", va="center", fontsize=8.5, fontweight=weight)
    axes.set_xticks(range(len(heads)), heads, fontsize=9)
    axes.set_yticks(range(len(table.rows)), [f"{row.labels[0]}, {row.labels[1]}" for row in table.rows], fontsize=9)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for y in range(1, len(table.rows)):
        if table.rows[y].group != table.rows[y - 1].group:
            axes.axhline(y - 0.5, color="white", linewidth=4)
    return figure


def table1(
    *,
    scores: list[Path],
    teachers: list[str],
    students: list[str],
    tasks: list[str],
    markdown: Path,
    csv: Path,
    latex: Path,
    figure: Path,
    svg: Path,
) -> None:
    """Write Table 1: each student next to its teachers and baselines on every task.

    Args:
        scores: Paths of the score files that probe wrote.
        teachers: Names of the teachers, which are rows; the students are compared with them.
        students: Names of the students, which are rows.
        tasks: Names of the tasks, which are columns.
        markdown: Path of the table in Markdown that is written, in per cent.
        csv: Path of the table as CSV that is written, in per cent.
        latex: Path of the table in LaTeX that is written, in per cent; it needs booktabs and graphicx.
        figure: Path of the table as PNG that is written.
        svg: Path of the table as SVG that is written.
    """
    table = build_table1(read_scores(scores), teachers, students, tasks)
    write_table(table, markdown=markdown, csv=csv, latex=latex)
    drawing = _plot_table(table)
    save_figure(figure, drawing, dpi=150)
    save_figure(svg, drawing, dpi=150)
    log.info("Table 1: %d models on %d tasks, %d scores -> %s", len(table.rows), len(tasks), len(scores), markdown)
