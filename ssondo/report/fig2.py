"""Fig. 2: scores over the number of clusters, per task, with bands."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssondo.errors import SsondoError
from ssondo.report.score_table import (
    Entry,
    Published,
    Row,
    Table,
    csv_text,
    markdown_table,
    per_cent,
    save_figure,
)
from ssondo.report.scores import ABLATED, Cells, published, read_scores, remarks
from ssondo.storage.atomic_files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


def build_fig2(cells: Cells, tasks: list[str]) -> Table:
    """The numbers of Fig. 2: a row for each number of clusters, a column for each task."""
    settings = sorted(
        {setting for setting, _ in cells if setting.row_kind == "distilled"}, key=lambda s: s.n_clusters or 0
    )
    kinds = {(setting.teacher, setting.student, setting.loss) for setting in settings}
    if len(kinds) > 1:
        names = " and ".join(sorted(setting.name for setting in settings))
        raise SsondoError(f"fig2 varies the number of clusters alone and got {names}; give one student and loss")
    papers = {}
    if kinds == {(*ABLATED, "cosine")}:
        papers = {(paper["task"], int(paper["n_clusters"])): float(paper["mean"]) for paper in published("fig2")}
    rows = []
    for setting in settings:
        entries = []
        for task in tasks:
            cell = cells.get((setting, task))
            entry = Entry(100 * cell.mean, per_cent(cell.ci95)) if cell else Entry()
            if (paper := papers.get((task, setting.n_clusters or 0))) is not None:
                entry.published = Published(paper)
            entries.append(entry)
        rows.append(Row([str(setting.n_clusters)], entries))
    title = "Fig. 2: scores over the number of clusters"
    table = Table(title, ["clusters"], tasks, rows, ["0 clusters: clips drawn at random."])
    if any(entry.published for row in rows for entry in row.entries):
        table.notes.append("Published values are read off the paper's chart.")
    table.notes += [f"{student} from {teacher}, {loss} loss." for teacher, student, loss in kinds]
    table.notes += remarks(cell for (_, task), cell in cells.items() if task in tasks)
    return table


def _fig2_figure(table: Table) -> "Figure":
    from matplotlib.figure import Figure

    n_columns = min(4, len(table.heads))
    n_rows = -(-len(table.heads) // n_columns)
    figure = Figure(figsize=(3.1 * n_columns, 2.5 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False).flat
    k = [int(row.labels[0]) for row in table.rows]
    for column, (task, axes) in enumerate(zip(table.heads, panels, strict=False)):
        entries = [row.entries[column] for row in table.rows]
        ours = [(x, e.mean, e.ci95 or 0.0) for x, e in zip(k, entries, strict=True) if e.mean is not None]
        paper = [(x, e.published.mean) for x, e in zip(k, entries, strict=True) if e.published]
        if paper:
            axes.plot(
                *zip(*paper, strict=True), "x--", color="0.55", linewidth=1, label="published (read off the chart)"
            )
        if ours:
            x, mean, ci = (list(values) for values in zip(*ours, strict=True))
            low, high = ([m + sign * c for m, c in zip(mean, ci, strict=True)] for sign in (-1, 1))
            axes.fill_between(x, low, high, color="C0", alpha=0.2, linewidth=0)
            axes.plot(x, mean, "o-", color="C0", markersize=4, label="ours, 95 % interval")
        axes.set_title(task, fontsize=10)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=8)
    for axes in list(figure.axes)[len(table.heads) :]:
        axes.set_axis_off()
    # Not every task has both curves.
    drawn = [pair for axes in figure.axes for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    handles = {label: handle for handle, label in drawn}
    figure.supxlabel("number of clusters (0: clips drawn at random)", fontsize=9)
    figure.supylabel("score in per cent", fontsize=9)
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    return figure


def fig2(*, scores: list[Path], tasks: list[str], markdown: Path, csv: Path, png: Path, svg: Path) -> None:
    """Draw Fig. 2: each task's score over the number of clusters, with 95 % bands.

    Args:
        scores: files that probe wrote, of one student distilled with several numbers of clusters.
        tasks: a panel each.
        markdown: the numbers for reading, in per cent.
        csv: the numbers, one a line, in per cent.
        png: the figure.
        svg: the figure.
    """
    table = build_fig2(read_scores(scores), tasks)
    lines: list[list[Any]] = [["task", "n_clusters", "mean", "ci95", "published"]]
    for column, task in enumerate(tasks):
        for row in table.rows:
            entry = row.entries[column]
            lines.append([task, row.labels[0], entry.mean, entry.ci95, entry.published and entry.published.mean])
    write_text(markdown, markdown_table(table))
    write_text(csv, csv_text(lines))
    picture = _fig2_figure(table)
    save_figure(picture, png, "png")
    save_figure(picture, svg, "svg")
    log.info("Fig. 2: %d numbers of clusters on %d tasks -> %s", len(table.rows), len(tasks), png)
