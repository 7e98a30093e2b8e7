"""What the page is made of, and how it is rendered: a Jinja2 template with tables, pictures and origins.

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

_MEDIA_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: The text that is shown.
        order: Value that the column is sorted by; None means the text itself.
        bar: Length of the bar behind the text, in [0, 1]; None means no bar.
        heat: Depth of the colour behind the text, in [0, 1]; None means no colour.
        strong: Whether the text is bold.
        code: Whether the text is shown in a monospaced font.
        opens: Id of the box that a click on the text opens.
        small: A second, smaller line.
        small_title: Explanation of the second line.
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
        search: Prompt of the filter above the table; empty means no filter.
        tall: Whether the table scrolls vertically in a box of its own.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    n_labels: int = 1
    search: str = ""
    tall: bool = False


@dataclass(frozen=True)
class Panel:
    """A part that can be folded: a title and what is below it.

    Attributes:
        title: The title, which stays visible.
        is_open: Whether the part is unfolded at first.
        table: A table, or None.
        pictures: Caption and path of each picture.
    """

    title: str
    is_open: bool
    table: PageTable | None = None
    pictures: Sequence[tuple[str, Path]] = ()


@dataclass(frozen=True)
class Section:
    """A section of the page: a table, notes, pictures (caption and path of each) and panels."""

    table: PageTable
    notes: Sequence[str] = ()
    pictures: Sequence[tuple[str, Path]] = ()
    panels: Sequence[Panel] = ()


def number(value: float | None, form: str = ",.0f", bar: float | None = None) -> Cell:
    """The cell of a number; a dash that is sorted last if the value is None."""
    return Cell("–", float("-inf")) if value is None else Cell(f"{value:{form}}", value, bar)


def duration(seconds: float) -> str:
    """A duration in words: "42 s", "3 min 20 s", "5 h 12 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def duration_cell(seconds: float, longest: float | None = None) -> Cell:
    """The cell of a duration, with a bar relative to the longest one if that is given."""
    return Cell(duration(seconds), seconds, seconds / longest if longest else None)


def short_names(paths: Sequence[Path]) -> list[str]:
    """Names that distinguish files: the folders of each file without those that all of them share."""
    folders = [path.parent.parts for path in paths]
    if len(folders) < 2:
        return [" ".join(parts[-4:]) for parts in folders]
    shared = len(Path(os.path.commonpath([str(path.parent) for path in paths])).parts)
    return [" ".join(parts[shared:]) or parts[-1] for parts in folders]


def _data_uri(path: Path) -> str:
    return f"data:{_MEDIA_TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def render(context: dict[str, Any]) -> str:
    """The page as HTML, which refers to nothing outside itself.

    Args:
        context: Variables of templates/report.html.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ssondo.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"data_uri": _data_uri, "pretty": lambda value: json.dumps(value, indent=2)}
    return environment.get_template("report.html").render(context)
