"""A table of scores with the published numbers beside ours, and how it is written: Markdown, LaTeX, CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssondo.storage.atomic_files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Published intervals have one decimal: 0.0 stands for anything below 0.05.
_PUBLISHED_ROUNDING = 0.05
_DECIMALS = 6
ABSENT = "–"


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
    absent: str = ABSENT
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
    """One decimal, and no minus before a zero.

    Of six decimals, as in the CSV: else 84.65, which is 84.64999… as a mean of runs, would be 84.6 here and 84.7 on a
    page that is made from the CSV.
    """
    return f"{round(round(value, _DECIMALS), 1) + 0.0:{form}.1f}"


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
        legend.append(f"{ABSENT}: no score.")
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


def csv_text(lines: Iterable[Sequence[Any]]) -> str:
    """Lines as CSV; None is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for line in lines:
        writer.writerow([round(value, _DECIMALS) if isinstance(value, float) else value for value in line])
    return text.getvalue()


def save_figure(figure: "Figure", path: Path, kind: str) -> None:
    """Write a picture whose bytes depend on the picture alone."""
    from matplotlib import rc_context

    metadata = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    with atomic_write(path) as temporary, rc_context({"svg.hashsalt": "ssondo", "svg.fonttype": "path"}):
        figure.savefig(temporary, format=kind, dpi=150, metadata=metadata)


def average_of(means: Sequence[float | None]) -> float | None:
    """Their mean; None if one of them is, or there are none."""
    known = [mean for mean in means if mean is not None]
    return sum(known) / len(known) if means and len(known) == len(means) else None


def per_cent(value: float | None) -> float | None:
    """A share in per cent; None stays."""
    return None if value is None else 100 * value


def mark_best(entries: Sequence[Entry]) -> None:
    """Mark the best of several numbers; a number alone is not the best of anything."""
    scored = [entry for entry in entries if entry.mean is not None]
    if len(scored) > 1:
        best = max(entry.mean for entry in scored if entry.mean is not None)
        for entry in scored:
            entry.best = entry.mean == best


def mark_best_of_columns(rows: list[Row]) -> None:
    """Mark the best number of each column."""
    for column in zip(*(row.entries for row in rows), strict=True):
        mark_best(column)
