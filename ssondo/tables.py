"""Table 1, Table 2 and Fig. 2, with the published numbers beside ours."""

import csv
import io
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssondo.artefacts import replacing, write_text
from ssondo.errors import SsondoError
from ssondo.scores import Cell, Cells, Setting, published, read_scores, remarks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

# Published intervals have one decimal: 0.0 stands for anything below 0.05.
_PUBLISHED_ROUNDING = 0.05
_ABSENT = "–"


@dataclass(frozen=True)
class Published:
    """A published number in per cent, with its interval where it has one."""

    mean: float
    ci95: float | None = None


@dataclass
class Entry:
    """A number of a table, in per cent.

    Attributes:
        mean: None where there is no score.
        ci95: half width of its 95 % confidence interval, None where there is none.
        published: what the paper has there.
        unit: written behind the number.
        absent: written where there is no number.
        best: whether it is the best of its student.
    """

    mean: float | None = None
    ci95: float | None = None
    published: Published | None = None
    unit: str = ""
    absent: str = _ABSENT
    best: bool = False

    @property
    def difference(self) -> float | None:
        """Ours less the published one, in percentage points."""
        return None if self.mean is None or self.published is None else self.mean - self.published.mean

    @property
    def apart(self) -> bool:
        """Whether the two 95 % intervals do not overlap; false where one is not known."""
        if self.difference is None or self.published is None or self.published.ci95 is None or self.ci95 is None:
            return False
        return abs(self.difference) > self.ci95 + max(self.published.ci95, _PUBLISHED_ROUNDING)


@dataclass
class Row:
    """A line of a table: labels, then numbers; a new `group` begins with a rule."""

    labels: list[str]
    entries: list[Entry]
    group: str = ""


@dataclass
class Table:
    """A table of scores in per cent, to be written in several forms."""

    title: str
    label_heads: list[str]
    heads: list[str]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)


def _rounded(value: float, form: str = "") -> str:
    """One decimal, and no minus before a zero."""
    return f"{round(value, 1) + 0.0:{form}.1f}"


def _number(mean: float, ci95: float | None, unit: str = "") -> str:
    return _rounded(mean) + (f" ± {_rounded(ci95)}" if ci95 is not None else "") + unit


def entry_text(entry: Entry) -> str:
    """The number with its interval and unit, e.g. "84.5 ± 0.1"."""
    return entry.absent if entry.mean is None else _number(entry.mean, entry.ci95, entry.unit)


def published_text(entry: Entry, *, interval: bool = True) -> str:
    """The published number with our difference to it, e.g. "84.7 ± 0.0 (-0.2)"; empty if there is none."""
    if entry.published is None:
        return ""
    text = _number(entry.published.mean, entry.published.ci95 if interval else None, entry.unit)
    if entry.difference is None:
        return text
    return f"{text} ({_rounded(entry.difference, '+')}{' ≠' if entry.apart else ''})"


def _legend(table: Table) -> list[str]:
    """Notes that explain the signs which the table really has."""
    entries = [entry for row in table.rows for entry in row.entries]
    legend = []
    if any(entry.ci95 is not None for entry in entries):
        legend.append("Per cent, mean ± 95 % confidence interval over runs (1.96 standard deviations / √runs).")
    if any(entry.published for entry in entries):
        legend.append("Lines 'published': the paper's number, in brackets ours less the paper's.")
    if any(entry.apart for entry in entries):
        legend.append("≠: the two intervals do not overlap.")
    if any(entry.mean is None and entry.absent for entry in entries):
        legend.append(f"{_ABSENT}: no score.")
    return legend


def markdown_table(table: Table) -> str:
    """The table in Markdown, columns aligned so that it reads in a terminal too."""
    lines = [[*table.label_heads, *table.heads]]
    for row in table.rows:
        texts = [entry_text(entry) for entry in row.entries]
        bold = [f"**{text}**" if entry.best else text for text, entry in zip(texts, row.entries, strict=True)]
        lines.append([*row.labels, *bold])
        if any(entry.published for entry in row.entries):
            blank = [""] * (len(row.labels) - 1)
            lines.append(["· published", *blank, *(published_text(entry) for entry in row.entries)])
    lines = [[text.replace("|", "\\|") for text in line] for line in lines]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    n_labels = len(table.label_heads)

    def written(line: Sequence[str]) -> str:
        cells = [
            text.ljust(width) if column < n_labels else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = [f":{'-' * (width - 1)}" if i < n_labels else f"{'-' * (width - 1)}:" for i, width in enumerate(widths)]
    body = [written(lines[0]), f"| {' | '.join(rule)} |", *map(written, lines[1:])]
    notes = [f"- {note}" for note in [*_legend(table), *table.notes]]
    return "\n".join([f"# {table.title}", "", *body, "", *notes]) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "≠": r"$\neq$",
    "–": "--",
    "√": r"$\surd$",
    "·": r"$\cdot$",
    "<": r"$<$",
    ">": r"$>$",
}


def escape_latex(text: str) -> str:
    """`text` so that LaTeX prints it as it is."""
    return "".join(_LATEX.get(character, character) for character in text)


def latex_table(table: Table) -> str:
    """The table in LaTeX with booktabs' rules, no wider than the text; notes stand below it in small print."""
    n_labels = len(table.label_heads)
    lines = [
        "% \\usepackage{booktabs,graphicx}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escape_latex(table.title)}}}",
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{"
        f"\\begin{{tabular}}{{{'l' * n_labels}{'r' * len(table.heads)}}}",
        "\\toprule",
        " & ".join(map(escape_latex, [*table.label_heads, *table.heads])) + " \\\\",
    ]
    group = None
    for row in table.rows:
        if row.group != group:
            lines.append("\\midrule")
            group = row.group
        texts = [escape_latex(entry_text(entry)) for entry in row.entries]
        bold = [f"\\textbf{{{text}}}" if entry.best else text for text, entry in zip(texts, row.entries, strict=True)]
        lines.append(" & ".join([*map(escape_latex, row.labels), *bold]) + " \\\\")
        if any(entry.published for entry in row.entries):
            texts = ["published", *[""] * (n_labels - 1), *(published_text(entry) for entry in row.entries)]
            small = [f"{{\\scriptsize {escape_latex(text)}}}" if text else "" for text in texts]
            lines.append(" & ".join(small) + " \\\\")
    notes = [f"{{\\footnotesize {escape_latex(note)}\\par}}" for note in [*_legend(table), *table.notes]]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}}", "", *notes, "\\end{table}"]) + "\n"


def _csv(lines: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for line in lines:
        # Enough decimals that rounding once more for a page gives what the Markdown table shows.
        writer.writerow([round(value, 6) if isinstance(value, float) else value for value in line])
    return text.getvalue()


def _save(figure: "Figure", path: Path, kind: str) -> None:
    """Write a picture whose bytes depend on the picture alone."""
    from matplotlib import rc_context

    metadata = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    with replacing(path) as temporary, rc_context({"svg.hashsalt": "ssondo", "svg.fonttype": "path"}):
        figure.savefig(temporary, format=kind, dpi=150, metadata=metadata)


# Table 1


def _parameters_text(n: Any) -> str:
    return f"{n / 1e6:.2f}M" if isinstance(n, int | float) and n else _ABSENT


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


def _average(means: Sequence[float | None]) -> float | None:
    known = [mean for mean in means if mean is not None]
    return sum(known) / len(known) if means and len(known) == len(means) else None


def _table1_row(setting: Setting, cells: Cells, tasks: list[str], paper: dict[str, str] | None) -> Row:
    """A row without its share of the teacher."""
    entries = []
    for task in tasks:
        cell = cells.get((setting, task))
        entry = Entry(100 * cell.mean, _per_cent(cell.ci95)) if cell else Entry()
        if paper and paper.get(task):
            entry.published = Published(float(paper[task]), float(paper[f"{task}_ci95"]))
        entries.append(entry)
    average = Entry(_average([entry.mean for entry in entries]))
    if paper and {name for name in paper if f"{name}_ci95" in paper} == set(tasks):
        average.published = Published(float(paper["average"]))
    return Row([], [*entries, average], setting.student)


def _per_cent(value: float | None) -> float | None:
    return None if value is None else 100 * value


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


def mark_best(entries: Sequence[Entry]) -> None:
    """Mark the best of several numbers; a number alone is not the best of anything."""
    scored = [entry for entry in entries if entry.mean is not None]
    if len(scored) > 1:
        best = max(entry.mean for entry in scored if entry.mean is not None)
        for entry in scored:
            entry.best = entry.mean == best


def _mark_best_of_columns(rows: list[Row]) -> None:
    for column in zip(*(row.entries for row in rows), strict=True):
        mark_best(column)


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
    settings = _table1_settings(cells, teachers, students)
    rows = []
    for setting in settings:
        paper = papers.get((setting.row_kind, setting.teacher, setting.student))
        row = _table1_row(setting, cells, tasks, paper)
        shown = [cell for (known, task), cell in cells.items() if known == setting and task in tasks]
        parameters = next((cell.common("parameters") for cell in shown), None)
        how = f"from {setting.teacher}" if setting.row_kind == "distilled" else setting.row_kind
        row.labels = [setting.student or setting.teacher, how, _parameters_text(parameters)]
        rows.append(row)
    for student in students:
        _mark_best_of_columns([row for row, setting in zip(rows, settings, strict=True) if setting.student == student])
    by_teacher = {setting.teacher: row for row, setting in zip(rows, settings, strict=True) if not setting.student}
    shares = []
    for row, setting in zip(rows, settings, strict=True):
        shares.append(_share(row, by_teacher.get(setting.teacher) if setting.row_kind == "distilled" else None))
        paper = papers.get((setting.row_kind, setting.teacher, setting.student))
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
    return _csv(lines)


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
    """
    cells = read_scores(scores)
    table, settings = build_table1(cells, teachers, students, tasks)
    write_text(markdown, markdown_table(table))
    write_text(csv, _table1_csv(table, settings, cells, tasks))
    write_text(latex, latex_table(table))
    _save(_table1_figure(table), figure, "png")
    log.info("Table 1: %d models on %d tasks, %d scores -> %s", len(settings), len(tasks), len(scores), markdown)


# Table 2


def _one_setting(cells: Cells, loss: str) -> Setting | None:
    found = {setting for setting, _ in cells if setting.row_kind == "distilled" and setting.loss == loss}
    if len(found) > 1:
        names = " and ".join(sorted(setting.name for setting in found))
        raise SsondoError(f"table2 has one row for the loss {loss} and got {names}; give the scores of one")
    return found.pop() if found else None


def build_table2(cells: Cells, losses: list[str], music: list[str], environment: list[str]) -> Table:
    """Table 2: averages over the music tasks, the environment tasks and all, for each loss."""
    papers = {paper["loss"]: paper for paper in published("table2")}
    tasks = [*music, *environment]
    compares = set(tasks) == {row["task"] for row in published("fig2")}
    rows = []
    used: list[Cell] = []
    for loss in losses:
        setting = _one_setting(cells, loss)
        found = {task: cells[setting, task] for task in tasks if setting and (setting, task) in cells}
        used += found.values()
        entries = []
        for name, members in (("music", music), ("environment", environment), ("average", tasks)):
            entry = Entry(_average([100 * found[task].mean if task in found else None for task in members]))
            if compares and loss in papers:
                entry.published = Published(float(papers[loss][name]))
            entries.append(entry)
        rows.append(Row([loss], entries))
    _mark_best_of_columns(rows)
    table = Table("Table 2: distillation losses", ["loss"], ["music", "environment", "average"], rows)
    table.notes = [
        f"Music: {', '.join(music)}. Environment: {', '.join(environment)}. Averages over tasks, in per cent.",
        "'contrastive' is the loss that the paper calls CLAP.",
    ]
    names = sorted({f"{c.setting.student} from {c.setting.teacher}, k={c.setting.n_clusters}" for c in used})
    if names:
        table.notes.append(f"{'; '.join(names)} (k=0: clips drawn at random).")
    table.notes += remarks(used)
    return table


def table2(
    *,
    scores: list[Path],
    losses: list[str],
    music: list[str],
    environment: list[str],
    markdown: Path,
    csv: Path,
    latex: Path,
) -> None:
    """Write Table 2: distillation losses, averaged over music and over environment tasks.

    Args:
        scores: files that probe wrote, of students distilled with each loss.
        losses: rows.
        music: tasks of the first average.
        environment: tasks of the second average.
        markdown: the table for reading, in per cent.
        csv: the table for a spreadsheet, in per cent.
        latex: the table for a paper, in per cent; needs booktabs and graphicx.
    """
    table = build_table2(read_scores(scores), losses, music, environment)
    names = ["music", "environment", "average"]
    lines: list[list[Any]] = [["loss", *(c for n in names for c in (n, f"{n}_published", f"{n}_difference"))]]
    for row in table.rows:
        values = [(e.mean, e.published and e.published.mean, e.difference) for e in row.entries]
        lines.append([*row.labels, *(value for three in values for value in three)])
    write_text(markdown, markdown_table(table))
    write_text(csv, _csv(lines))
    write_text(latex, latex_table(table))
    log.info("Table 2: %d losses on %d tasks -> %s", len(losses), len(music) + len(environment), markdown)


# Fig. 2


def build_fig2(cells: Cells, tasks: list[str]) -> Table:
    """The numbers of Fig. 2: a row for each number of clusters, a column for each task."""
    papers = {(paper["task"], int(paper["n_clusters"])): float(paper["mean"]) for paper in published("fig2")}
    settings = sorted(
        {setting for setting, _ in cells if setting.row_kind == "distilled"}, key=lambda s: s.n_clusters or 0
    )
    kinds = {(setting.teacher, setting.student, setting.loss) for setting in settings}
    if len(kinds) > 1:
        names = " and ".join(sorted(setting.name for setting in settings))
        raise SsondoError(f"fig2 varies the number of clusters alone and got {names}; give one student and loss")
    rows = []
    for setting in settings:
        entries = []
        for task in tasks:
            cell = cells.get((setting, task))
            entry = Entry(100 * cell.mean, _per_cent(cell.ci95)) if cell else Entry()
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
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.supxlabel("number of clusters (0: clips drawn at random)", fontsize=9)
    figure.supylabel("score in per cent", fontsize=9)
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=8, frameon=False)
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
    write_text(csv, _csv(lines))
    picture = _fig2_figure(table)
    _save(picture, png, "png")
    _save(picture, svg, "svg")
    log.info("Fig. 2: %d numbers of clusters on %d tasks -> %s", len(table.rows), len(tasks), png)
