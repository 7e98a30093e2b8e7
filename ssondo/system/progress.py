"""Progress on standard error: a bar on a terminal, a line every few seconds elsewhere.

Several Snakemake jobs share one terminal, so each writes complete lines that begin with its name.
A command that is run by hand draws a bar.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
_LINE_INTERVAL_S = 10.0


class _Lines(tqdm):
    """A tqdm that prints a line instead of redrawing the bar, and none at the end."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if msg is None and 0 < self.n < (self.total or float("inf")):
            self.fp.write(f"{self}\n")
            self.fp.flush()

    def close(self) -> None:
        """Close without the empty line that tqdm prints after its output."""
        self.sp = None
        super().close()


def _interactive() -> bool:
    return sys.stderr.isatty() and "SSONDO_PROGRESS_LINES" not in os.environ


def progress_bar(total: int | None, name: str, unit: str = "clip", *, done: int = 0) -> tqdm:
    """Create a progress display, a context manager whose `update(n)` adds n units.

    Args:
        total: Total number of units; None if it is unknown.
        name: Name of the step, e.g. "embed yamnet train-0003".
        unit: Name of a unit in the singular.
        done: Number of units that were done earlier, which do not count towards the speed.
    """
    if _interactive():
        return tqdm(total=total, initial=done, desc=name, unit=f" {unit}", file=sys.stderr, dynamic_ncols=True)
    return _Lines(
        total=total,
        initial=done,
        desc=name,
        unit=f" {unit}",
        file=sys.stderr,
        mininterval=_LINE_INTERVAL_S,
        maxinterval=_LINE_INTERVAL_S,
        ncols=100,
        ascii=True,
    )


def progress(items: Iterable[T], name: str, total: int | None = None, unit: str = "clip") -> Iterator[T]:
    """Yield `items` while displaying their number, their rate and the remaining time."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    with progress_bar(total, name, unit) as bar:
        for item in items:
            yield item
            bar.update()
