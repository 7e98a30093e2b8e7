"""Table 1: students beside their teachers and baselines on every task."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssondo.errors import SsondoError
from ssondo.report.score_table import (
    ABSENT,
    Entry,
    Published,
    Row,
    Table,
    average_of,
    csv_text,
    entry_text,
    latex_table,
    mark_best_of_columns,
    markdown_table,
    per_cent,
    save_figure,
)
from ssondo.report.scores import Cell, Cells, Setting, published, read_scores, remarks
from ssondo.storage.atomic_files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


def _parameters_text(n: Any) -> str:
    return f"{n / 1e6:.2f}M" if isinstance(n, int | float) and n else ABSENT


def _choose(cells: Cells, row_kind: str, teacher: str, student: str) -> Setting:
    """The one setting of a row of Table 1, whether it has scores or not.

    Raises:
        SsondoError: if scores of several losses or numbers of clusters would share the row.
    """
    found = {
        setting
        for setting, _ in cells
        if (setting.row_kind, setting.teacher, setting.student) == (row_kind, teacher, student)
    }
    if len(found) > 1:
        names = " and ".join(sorted(setting.name for setting in found))
        raise SsondoError(f"table1 has one row for {student} from {teacher} and got {names}; give the scores of one")
    return found.pop() if found else Setting(row_kind, teacher, student)


def _table1_settings(cells: Cells, teachers: list[str], students: list[str]) -> list[Setting]:
    """Rows of Table 1: the teachers, then student by student; baselines only where they have scores."""
    settings = [_choose(cells, "teacher", teacher, "") for teacher in teachers]
    for student in students:
        for row_kind in ("untrained", "supervised"):
            setting = _choose(cells, row_kind, "", student)
            if any(known == setting for known, _ in cells):
                settings.append(setting)
        settings += [_choose(cells, "distilled", teacher, student) for teacher in teachers]
    return settings


def _table1_row(setting: Setting, cells: Cells, tasks: list[str], paper: dict[str, str] | None) -> Row:
    """A row without its share of the teacher."""
    entries = []
    for task in tasks:
        cell = cells.get((setting, task))
        entry = Entry(100 * cell.mean, per_cent(cell.ci95)) if cell else Entry()
        if paper and paper.get(task):
            entry.published = Published(float(paper[task]), float(paper[f"{task}_ci95"]))
        entries.append(entry)
    average = Entry(average_of([entry.mean for entry in entries]))
    if paper and {name for name in paper if f"{name}_ci95" in paper} == set(tasks):
        average.published = Published(float(paper["average"]))
    return Row([], [*entries, average], setting.student)


def _share(row: Row, teacher: Row | None) -> Entry:
    """The average as a share of the teacher's average on the same tasks, in per cent."""
    if teacher is None:
        return Entry(absent="")
    pairs = [
        (mine.mean, theirs.mean)
        for mine, theirs in zip(row.entries[:-1], teacher.entries[:-1], strict=True)
        if mine.mean is not None and theirs.mean is not None
    ]
    total = sum(theirs for _, theirs in pairs)
    return Entry(100 * sum(mine for mine, _ in pairs) / total if total else None, unit=" %")


def build_table1(
    cells: Cells, teachers: list[str], students: list[str], tasks: list[str]
) -> tuple[Table, list[Setting]]:
    """Table 1 and the model of each of its rows.

    Args:
        cells: scores.
        teachers: rows, and what students are measured against.
        students: rows.
        tasks: columns.
    """
    papers = {(paper["row_kind"], paper["teacher"], paper["student"]): paper for paper in published("table1")}

    def paper_of(setting: Setting) -> dict[str, str] | None:
        # The paper's students were distilled with the cosine loss; a row without scores has none yet.
        of_paper = setting.loss in ("", "cosine")
        return papers.get((setting.row_kind, setting.teacher, setting.student)) if of_paper else None

    settings = _table1_settings(cells, teachers, students)
    rows = []
    for setting in settings:
        row = _table1_row(setting, cells, tasks, paper_of(setting))
        shown = [cell for (known, task), cell in cells.items() if known == setting and task in tasks]
        parameters = next((cell.common("parameters") for cell in shown), None)
        how = f"from {setting.teacher}" if setting.row_kind == "distilled" else setting.row_kind
        row.labels = [setting.student or setting.teacher, how, _parameters_text(parameters)]
        rows.append(row)
    for student in students:
        mark_best_of_columns([row for row, setting in zip(rows, settings, strict=True) if setting.student == student])
    by_teacher = {setting.teacher: row for row, setting in zip(rows, settings, strict=True) if not setting.student}
    shares = []
    for row, setting in zip(rows, settings, strict=True):
        shares.append(_share(row, by_teacher.get(setting.teacher) if setting.row_kind == "distilled" else None))
        paper = paper_of(setting)
        if paper and paper["share_of_teacher"] and row.entries[-1].published:
            shares[-1].published = Published(float(paper["share_of_teacher"]))
    for row, share in zip(rows, shares, strict=True):
        row.entries.append(share)
    wanted = [cell for (setting, task), cell in cells.items() if setting in settings and task in tasks]
    title = "Table 1: students and their teachers on downstream tasks"
    table = Table(title, ["model", "trained", "parameters"], [*tasks, "average", "of teacher"], rows)
    table.notes = _table1_notes(wanted)
    return table, settings


def _table1_notes(cells: list[Cell]) -> list[str]:
    notes = ["'of teacher': the student's average over its teacher's, on the tasks that both have."]
    distilled = [cell for cell in cells if cell.setting.row_kind == "distilled"]
    how = sorted({(cell.setting.loss, cell.setting.n_clusters or 0) for cell in distilled})
    if how:
        words = [f"{loss} loss, {f'{k} clusters' if k else 'clips drawn at random'}" for loss, k in how]
        notes.append(f"Distilled with: {'; '.join(words)}.")
    runs = sorted({(len(cell.sources), len(cell.runs) // len(cell.sources)) for cell in cells})
    words = [f"{n_trained} x {n_probed}" for n_trained, n_probed in runs]
    if words:
        notes.append(f"Runs of a number (trainings x probe seeds, pooled): {', '.join(words)}.")
    best = "Bold: the best of a student. " if any(cell.setting.student for cell in cells) else ""
    metrics = sorted({f"{cell.task} {cell.metric}" for cell in cells})
    return [*notes, f"{best}Metrics: {', '.join(metrics)}.", *remarks(cells)]


def _table1_csv(table: Table, settings: list[Setting], cells: Cells, tasks: list[str]) -> str:
    """Table 1 as CSV, in per cent; the columns of the published table, then ours beside them."""
    head = ["row_kind", "teacher", "student", "loss", "n_clusters", "parameters"]
    for task in tasks:
        head += [task, f"{task}_ci95", f"{task}_published", f"{task}_published_ci95", f"{task}_difference"]
    head += ["average", "average_published", "share_of_teacher", "share_of_teacher_published"]
    lines: list[list[Any]] = [head]
    for row, setting in zip(table.rows, settings, strict=True):
        shown = [cells[setting, task] for task in tasks if (setting, task) in cells]
        parameters = shown[0].common("parameters") if shown else None
        line: list[Any] = [setting.row_kind, setting.teacher, setting.student, setting.loss, setting.n_clusters]
        line.append(parameters)
        *entries, average, share = row.entries
        for entry in entries:
            paper = entry.published
            line += [entry.mean, entry.ci95, paper and paper.mean, paper and paper.ci95, entry.difference]
        for entry in (average, share):
            line += [entry.mean, entry.published and entry.published.mean]
        lines.append(line)
    return csv_text(lines)


def _table1_figure(table: Table) -> "Figure":
    """The table as a picture: colour says how near a score is to the best of its column."""
    import numpy as np
    from matplotlib.figure import Figure

    heads = table.heads[:-1]
    values = np.array([[np.nan if e.mean is None else e.mean for e in row.entries[:-1]] for row in table.rows])
    figure = Figure(figsize=(2.6 + 1.15 * len(heads), 0.9 + 0.42 * len(table.rows)), layout="constrained")
    axes = figure.subplots()
    tops = np.nanmax(np.where(np.isnan(values), -np.inf, values), axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(tops > 0, values / tops, np.nan)
    axes.imshow(shares, aspect="auto", cmap="Blues", vmin=0.4, vmax=1.7)
    for y, row in enumerate(table.rows):
        for x, entry in enumerate(row.entries[:-1]):
            axes.text(
                x,
                y,
                entry_text(entry),
                ha="center",
                va="center",
                fontsize=8.5,
                fontweight="bold" if entry.best else "normal",
            )
    axes.set_xticks(range(len(heads)), heads, fontsize=9)
    axes.set_yticks(range(len(table.rows)), [f"{row.labels[0]}, {row.labels[1]}" for row in table.rows], fontsize=9)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
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
    """Write Table 1: each student beside its teachers and baselines on every task.

    Args:
        scores: files that probe wrote.
        teachers: rows, and what students are measured against.
        students: rows.
        tasks: columns.
        markdown: the table for reading, in per cent.
        csv: the table for a spreadsheet, in per cent.
        latex: the table for a paper, in per cent; needs booktabs and graphicx.
        figure: the table as a PNG.
        svg: the same as an SVG.
    """
    cells = read_scores(scores)
    table, settings = build_table1(cells, teachers, students, tasks)
    write_text(markdown, markdown_table(table))
    write_text(csv, _table1_csv(table, settings, cells, tasks))
    write_text(latex, latex_table(table))
    picture = _table1_figure(table)
    save_figure(picture, figure, "png")
    save_figure(picture, svg, "svg")
    log.info("Table 1: %d models on %d tasks, %d scores -> %s", len(settings), len(tasks), len(scores), markdown)
