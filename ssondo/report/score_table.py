"""The table of scores with the published numbers, and its forms: Markdown, LaTeX and CSV.

The page takes the same table; see `ssondo.report.page_scores`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssondo.probe.model_id import ModelId
from ssondo.report.scores import TaskScore
from ssondo.storage.atomic_files import write_csv, write_text

if TYPE_CHECKING:
    import pandas as pd

# Published intervals have one decimal: 0.0 stands for anything below 0.05.
_PUBLISHED_ROUNDING = 0.05
_DECIMALS = 6
ABSENT = "–"
# Attributes of a cell that a CSV can contain; the column of the mean has no suffix.
_FIELDS = ("mean", "ci95", "published", "published_ci95", "difference")


@dataclass
class TableCell:
    """A number of a table, in per cent.

    Attributes:
        mean: The number; None if there is no score.
        ci95: Half width of its 95 % confidence interval, or None.
        published: The number in the paper, or None.
        published_ci95: Half width of the paper's interval, or None.
        unit: Text written after the number.
        absent: Text written if there is no number.
        best: Whether it is the best score of its student, which is printed in bold.
    """

    mean: float | None = None
    ci95: float | None = None
    published: float | None = None
    published_ci95: float | None = None
    unit: str = ""
    absent: str = ABSENT
    best: bool = False

    @property
    def difference(self) -> float | None:
        """The number minus the published one, in percentage points."""
        return None if self.mean is None or self.published is None else self.mean - self.published

    @property
    def intervals_disjoint(self) -> bool:
        """Whether the two 95 % intervals do not overlap; False if one of them is unknown."""
        if self.difference is None or self.published_ci95 is None or self.ci95 is None:
            return False
        return abs(self.difference) > self.ci95 + max(self.published_ci95, _PUBLISHED_ROUNDING)

    @property
    def text(self) -> str:
        """The number with its interval and unit, e.g. "84.5 ± 0.1"."""
        return self.absent if self.mean is None else _number_text(self.mean, self.ci95, self.unit)

    def published_text(self, *, interval: bool = True) -> str:
        """The published number and the difference to it, e.g. "84.7 ± 0.0 (-0.2)"; empty if there is none."""
        if self.published is None:
            return ""
        text = _number_text(self.published, self.published_ci95 if interval else None, self.unit)
        if self.difference is None:
            return text
        return f"{text} ({_rounded(self.difference, '+')}{' ≠' if self.intervals_disjoint else ''})"


@dataclass(frozen=True)
class Column:
    """A column of numbers: its name in a CSV, its heading, and the attributes of a cell that a CSV contains."""

    name: str
    head: str
    fields: tuple[str, ...] = _FIELDS


@dataclass
class Row:
    """A row of a table.

    Attributes:
        labels: Texts of the first columns.
        cells: One cell for each column of numbers.
        ids: Columns that identify the row in a CSV.
        group: Rows of one group stand together; a rule separates them from the next group.
        model: The model whose scores the row has, if there is one.
    """

    labels: list[str]
    cells: list[TableCell]
    ids: dict[str, Any]
    group: str = ""
    model: ModelId | None = None


@dataclass
class Table:
    """A table of scores in per cent."""

    title: str
    label_heads: list[str]
    columns: list[Column]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)


def _rounded(value: float, sign: str = "") -> str:
    """Return the value with one decimal and without a minus sign before zero.

    The value is rounded to the precision of the CSV first. Otherwise 84.65, which is 84.64999… as a mean
    of runs, would become 84.6 here and 84.7 in a text that is made from the CSV.
    """
    return f"{round(round(value, _DECIMALS), 1) + 0.0:{sign}.1f}"


def _number_text(mean: float, ci95: float | None, unit: str = "") -> str:
    return _rounded(mean) + (f" ± {_rounded(ci95)}" if ci95 is not None else "") + unit


def score_cell(score: TaskScore | None) -> TableCell:
    """Return the cell of a score, or an empty cell."""
    if score is None:
        return TableCell()
    return TableCell(100 * score.mean, None if score.ci95 is None else 100 * score.ci95)


def average_of(means: Sequence[float | None]) -> float | None:
    """Return the mean of the values; None if one of them is None or there are none."""
    present = [mean for mean in means if mean is not None]
    return sum(present) / len(present) if means and len(present) == len(means) else None


def mark_best(rows: Sequence[Row]) -> None:
    """Mark the best number of each column; a column with a single number has no best one."""
    for cells in zip(*(row.cells for row in rows), strict=True):
        present = [cell for cell in cells if cell.mean is not None]
        if len(present) > 1:
            best = max(cell.mean for cell in present if cell.mean is not None)
            for cell in present:
                cell.best = cell.mean == best


def _legend(table: Table) -> list[str]:
    """Return notes that explain the signs that occur in the table."""
    cells = [cell for row in table.rows for cell in row.cells]
    legend = []
    if any(cell.ci95 is not None for cell in cells):
        legend.append("Per cent, mean ± 95 % confidence interval over runs (1.96 standard deviations / √runs).")
    if any(cell.published is not None for cell in cells):
        legend.append("Lines 'published': the paper's number, in brackets ours minus the paper's.")
    if any(cell.intervals_disjoint for cell in cells):
        legend.append("≠: the two intervals do not overlap.")
    if any(cell.mean is None and cell.absent for cell in cells):
        legend.append(f"{ABSENT}: no score.")
    return legend


def _published_lines(row: Row, first: str) -> Iterator[list[str]]:
    """Yield the line of published numbers below a row, if the paper has any of them."""
    if any(cell.published is not None for cell in row.cells):
        yield [first, *[""] * (len(row.labels) - 1), *(cell.published_text() for cell in row.cells)]


def markdown_table(table: Table) -> str:
    """Return the table in Markdown, with aligned columns so that it can be read in a terminal."""
    lines = [[*table.label_heads, *(column.head for column in table.columns)]]
    for row in table.rows:
        lines.append([*row.labels, *(f"**{cell.text}**" if cell.best else cell.text for cell in row.cells)])
        lines += _published_lines(row, "· published")
    lines = [[text.replace("|", "\\|") for text in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    n_labels = len(table.label_heads)
    rule = [f":{'-' * (width - 1)}" if i < n_labels else f"{'-' * (width - 1)}:" for i, width in enumerate(widths)]
    body = []
    for line in [lines[0], rule, *lines[1:]]:
        texts = [
            text.ljust(width) if i < n_labels else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        body.append(f"| {' | '.join(texts)} |")
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
    """Escape `text` so that LaTeX prints it unchanged."""
    return "".join(_LATEX.get(character, character) for character in text)


def _latex_table(table: Table) -> str:
    """Return the table in LaTeX with the rules of booktabs, at most as wide as the text, with notes in small print."""
    heads = [*table.label_heads, *(column.head for column in table.columns)]
    lines = [
        "% \\usepackage{booktabs,graphicx}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escape_latex(table.title)}}}",
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{"
        f"\\begin{{tabular}}{{{'l' * len(table.label_heads)}{'r' * len(table.columns)}}}",
        "\\toprule",
        " & ".join(map(escape_latex, heads)) + " \\\\",
    ]
    group = None
    for row in table.rows:
        if row.group != group:
            lines.append("\\midrule")
            group = row.group
        texts = [(escape_latex(cell.text), cell.best) for cell in row.cells]
        bold = [f"\\textbf{{{text}}}" if best else text for text, best in texts]
        lines.append(" & ".join([*map(escape_latex, row.labels), *bold]) + " \\\\")
        for line in _published_lines(row, "published"):
            small = [f"{{\\scriptsize {escape_latex(text)}}}" if text else "" for text in line]
            lines.append(" & ".join(small) + " \\\\")
    notes = [f"{{\\footnotesize {escape_latex(note)}\\par}}" for note in [*_legend(table), *table.notes]]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}}", "", *notes, "\\end{table}"]) + "\n"


def csv_frame(lines: Sequence[dict[str, Any]]) -> "pd.DataFrame":
    """Return lines of a CSV, with floating-point numbers rounded to six decimals."""
    import pandas as pd

    rounded = [
        {name: round(value, _DECIMALS) if isinstance(value, float) else value for name, value in line.items()}
        for line in lines
    ]
    # Without dtype=object, integers in a column with gaps would become floating-point numbers.
    return pd.DataFrame(rounded, dtype=object)


def write_table(table: Table, *, markdown: Path, csv: Path, latex: Path) -> None:
    """Write a table in three formats; the CSV has the columns that identify a row, then the fields of each number."""
    lines = [
        row.ids
        | {
            column.name if name == "mean" else f"{column.name}_{name}": getattr(cell, name)
            for column, cell in zip(table.columns, row.cells, strict=True)
            for name in column.fields
        }
        for row in table.rows
    ]
    write_text(markdown, markdown_table(table))
    write_csv(csv, csv_frame(lines))
    write_text(latex, _latex_table(table))
