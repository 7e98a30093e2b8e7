"""Progress on standard error: a bar on a terminal, a line now and then elsewhere.

Under Snakemake several jobs share one terminal, so each writes whole lines that begin with
its name; by hand the same step draws a bar.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
_LINE_INTERVAL_S = 10.0


class _Lines(tqdm):
    """A tqdm that prints a line where the bar would be redrawn, and none at the end."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if msg is None and 0 < self.n < (self.total or float("inf")):
            self.fp.write(f"{self}\n")
            self.fp.flush()

    def close(self) -> None:
        """End without the empty line that tqdm leaves after what it has printed."""
        self.sp = None
        super().close()


def _interactive() -> bool:
    return sys.stderr.isatty() and "SSONDO_PROGRESS_LINES" not in os.environ


def progress_bar(total: int | None, name: str, unit: str = "clip", *, done: int = 0) -> tqdm:
    """A progress display to be used as a context manager; call `update(n)` on it.

    Args:
        total: how many units there will be; None if unknown.
        name: what is being done, e.g. "embed yamnet train-0003".
        unit: what is counted, in the singular.
        done: how many of them were done before; they count for no speed.
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
    """Yield `items`, showing how many have passed, the rate and the time left."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    with progress_bar(total, name, unit) as bar:
        for item in items:
            yield item
            bar.update()
