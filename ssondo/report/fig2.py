"""Fig. 2: the score on each task over the number of clusters, with 95 % bands."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ssondo.errors import SsondoError
from ssondo.report.score_table import Column, Row, Table, csv_frame, markdown_table, score_cell
from ssondo.report.scores import ABLATED, TaskScores, comparability_notes, published, read_scores
from ssondo.storage.atomic_files import save_figure, write_csv, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


def build_fig2(scores: TaskScores, tasks: list[str]) -> Table:
    """Return the numbers of Fig. 2: a row for each number of clusters and a column for each task.

    Raises:
        SsondoError: If the scores are of several students or losses.
    """
    models = sorted({model for model, _ in scores if model.row_kind == "distilled"}, key=lambda m: m.n_clusters)
    students = {(model.teacher, model.student, model.loss) for model in models}
    if len(students) > 1:
        names = " and ".join(sorted(model.name for model in models))
        raise SsondoError(f"fig2 varies the number of clusters alone and got {names}; give one student and loss")
    papers = {}
    if students == {(*ABLATED, "cosine")}:
        papers = {(paper["task"], int(paper["n_clusters"])): float(paper["mean"]) for paper in published("fig2")}
    rows = []
    for model in models:
        cells = [score_cell(scores.get((model, task))) for task in tasks]
        for task, cell in zip(tasks, cells, strict=True):
            cell.published = papers.get((task, model.n_clusters))
        rows.append(Row([str(model.n_clusters)], cells, {"n_clusters": model.n_clusters}, model=model))
    columns = [Column(task, task) for task in tasks]
    notes = ["0 clusters: clips drawn at random."]
    if any(cell.published is not None for row in rows for cell in row.cells):
        notes.append("Published values are read off the paper's chart.")
    notes += [f"{student} from {teacher}, {loss} loss." for teacher, student, loss in students]
    notes += comparability_notes(score for (_, task), score in scores.items() if task in tasks)
    return Table("Fig. 2: scores over the number of clusters", ["clusters"], columns, rows, notes)


def _plot_fig2(table: Table) -> "Figure":
    from matplotlib.figure import Figure

    n_columns = min(4, len(table.columns))
    n_rows = -(-len(table.columns) // n_columns)
    figure = Figure(figsize=(3.1 * n_columns, 2.5 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False).flat
    n_clusters = [row.ids["n_clusters"] for row in table.rows]
    for i, (column, axes) in enumerate(zip(table.columns, panels, strict=False)):
        cells = list(zip(n_clusters, (row.cells[i] for row in table.rows), strict=True))
        ours = [(k, cell.mean, cell.ci95 or 0.0) for k, cell in cells if cell.mean is not None]
        paper = [(k, cell.published) for k, cell in cells if cell.published is not None]
        if paper:
            x, mean = zip(*paper, strict=True)
            axes.plot(x, mean, "x--", color="0.55", linewidth=1, label="published (read off the chart)")
        if ours:
            x, mean, ci95 = zip(*ours, strict=True)
            low, high = ([m + sign * c for m, c in zip(mean, ci95, strict=True)] for sign in (-1, 1))
            axes.fill_between(x, low, high, color="C0", alpha=0.2, linewidth=0)
            axes.plot(x, mean, "o-", color="C0", markersize=4, label="ours, 95 % interval")
        axes.set_title(column.head, fontsize=10)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=8)
    for axes in list(figure.axes)[len(table.columns) :]:
        axes.set_axis_off()
    # The first task may lack one of the two curves, so the legend collects them from all panels.
    drawn = [pair for axes in figure.axes for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    handles = {label: handle for handle, label in drawn}
    figure.supxlabel("number of clusters (0: clips drawn at random)", fontsize=9)
    figure.supylabel("score in per cent", fontsize=9)
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    return figure


def fig2(*, scores: list[Path], tasks: list[str], markdown: Path, csv: Path, png: Path, svg: Path) -> None:
    """Draw Fig. 2: the score on each task over the number of clusters, with 95 % bands.

    Args:
        scores: Paths of the score files that probe wrote for one student distilled with several numbers of clusters.
        tasks: Names of the tasks, each of which has its own panel.
        markdown: Path of the numbers in Markdown that is written, in per cent.
        csv: Path of the numbers as CSV that is written, with a row for each point, in per cent.
        png: Path of the figure as PNG that is written.
        svg: Path of the figure as SVG that is written.
    """
    table = build_fig2(read_scores(scores), tasks)
    points = [
        {"task": task, **row.ids, "mean": cell.mean, "ci95": cell.ci95, "published": cell.published}
        for i, task in enumerate(tasks)
        for row in table.rows
        for cell in [row.cells[i]]
    ]
    write_text(markdown, markdown_table(table))
    write_csv(csv, csv_frame(points))
    drawing = _plot_fig2(table)
    save_figure(png, drawing, dpi=150)
    save_figure(svg, drawing, dpi=150)
    log.info("Fig. 2: %d numbers of clusters on %d tasks -> %s", len(table.rows), len(tasks), png)
