"""What the page is made of, and how it is rendered: a Jinja2 template with tables, charts, pictures and origins.

Python prepares data; the files in templates/ decide how it looks. Autoescaping is on and nothing is marked as
safe, so that no text from data becomes HTML.
"""

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssondo.report.line_chart import LineChart
from ssondo.report.rule_graph import Drawing


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        order: Value that the column is sorted by; None means the text itself.
        bar: Length of the bar behind the text, in [0, 1]; None means no bar.
        heat: Depth of the colour behind the text, in [0, 1]; None means no colour.
        strong: Whether the text is bold.
        code: Whether the text is shown in a monospaced font.
        opens: Id of the box that a click on the text opens.
        small: A second, smaller line, which `small_title` explains.
    """

    text: str
    order: float | str | None = None
    bar: float | None = None
    heat: float | None = None
    strong: bool = False
    code: bool = False
    opens: str = ""
    small: str = ""
    small_title: str = ""


@dataclass(frozen=True)
class PageTable:
    """A table whose columns can be sorted.

    Attributes:
        heads: Headings of the columns.
        rows: Cells of each row; a string is a cell without further properties.
        n_labels: Number of columns at the left that hold text; the other columns hold numbers.
        search: Prompt of the filter above the table; empty means no filter. A table with a filter scrolls
            vertically in a box of its own.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    n_labels: int = 1
    search: str = ""


@dataclass(frozen=True)
class Section:
    """A section of the page, or a panel of a section, which can be folded.

    Attributes:
        title: The heading.
        key: Id of a section, which the navigation refers to; panels have none.
        is_open: Whether a panel is unfolded at first.
        pictures: Caption and path of each PNG.
        notes: Short texts below the rest.
        panels: Panels at the end.
    """

    title: str
    key: str = ""
    is_open: bool = True
    table: PageTable | None = None
    graph: Drawing | None = None
    charts: Sequence[LineChart] = ()
    pictures: Sequence[tuple[str, Path]] = ()
    notes: Sequence[str] = ()
    panels: Sequence["Section"] = ()


def number(value: float | None, form: str = ",.0f", bar: float | None = None) -> Cell:
    """Return the cell of a number; None becomes a dash that is sorted last."""
    return Cell("–", float("-inf")) if value is None else Cell(f"{value:{form}}", value, bar)


def duration(seconds: float) -> str:
    """Return a duration in words: "42 s", "3 min 20 s", "5 h 12 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def duration_cell(seconds: float, longest: float | None = None) -> Cell:
    """Return the cell of a duration, with a bar relative to the longest one if that is given."""
    return Cell(duration(seconds), seconds, seconds / longest if longest else None)


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return names that distinguish files: the folders of each file without those that all of them share."""
    folders = [path.parent.parts for path in paths]
    if len(folders) < 2:
        return [" ".join(parts[-4:]) for parts in folders]
    shared = len(Path(os.path.commonpath([str(path.parent) for path in paths])).parts)
    return [" ".join(parts[shared:]) or parts[-1] for parts in folders]


def _png_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def render(**variables: Any) -> str:
    """Return templates/report.html with these variables, a page that refers to nothing outside itself."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ssondo.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"png_uri": _png_uri, "pretty": lambda value: json.dumps(value, indent=2)}
    return environment.get_template("report.html").render(variables)
