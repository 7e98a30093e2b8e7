"""Line charts: points, ticks and values in the coordinates of the SVG that templates/macros.html draws."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

# Edges of the area of the curves, in pixels.
LEFT, RIGHT, TOP, BOTTOM = 44, 350, 10, 164


@dataclass(frozen=True)
class Curve:
    """A curve: its name, whether it is dashed, its points, and the outline of the band around it (or "")."""

    name: str
    dashed: bool
    points: list[str]
    band: str


@dataclass(frozen=True)
class LineChart:
    """A line chart.

    Attributes:
        x_ticks: Position and text of each tick of the horizontal axis.
        y_ticks: Position and text of each tick of the vertical axis.
        values: Horizontal position and text of the values that the pointer shows.
        width: Width in pixels of the stripe around each position in which the pointer shows its values.
    """

    title: str
    x_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    curves: list[Curve]
    values: list[tuple[float, str]]
    width: float


def _axis(
    low: float, high: float, start: int, end: int, n_ticks: int, integer: bool = False
) -> tuple[Callable[[float], float], list[tuple[float, str]]]:
    """Return the function from values to pixels, and the position and text of each tick."""
    from matplotlib.ticker import MaxNLocator

    def pixel(value: float) -> float:
        return round(float(np.interp(value, [low, high], [start, end])), 1)

    ticks = MaxNLocator(n_ticks, integer=integer).tick_values(low, high)
    texts = {value: f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" for value in ticks}
    return pixel, [(pixel(value), text) for value, text in texts.items() if low <= value <= high]


def line_chart(
    title: str, values: "pd.DataFrame", *, half_widths: "pd.DataFrame | None" = None, dashed: Collection[str] = ()
) -> LineChart | None:
    """Return a chart with a curve for each column.

    Args:
        title: Title of the chart.
        values: One row for each position on the horizontal axis, which is the index, in ascending order; the name
            of the index is the name of the axis. Missing values are NaN.
        half_widths: Half width of the band around each value; None means no bands.
        dashed: Columns whose curves are dashed.

    Returns:
        The chart; None if there are no values.
    """
    values = values.astype("f8").dropna(how="all").dropna(how="all", axis=1)
    if values.empty:
        return None
    widths = values * 0 if half_widths is None else half_widths.astype("f8").reindex_like(values)
    widths = widths.fillna(0)
    low, high = float((values - widths).min().min()), float((values + widths).max().max())
    pad = 0.08 * (high - low) or 0.5 * abs(high) or 1.0
    positions = values.index.to_numpy("f8")
    margin = 0 if len(positions) > 1 else 1
    x, x_ticks = _axis(positions[0] - margin, positions[-1] + margin, LEFT, RIGHT, 6, integer=True)
    y, y_ticks = _axis(low - pad, high + pad, BOTTOM, TOP, 5)
    curves = []
    texts: list[list[str]] = [[] for _ in positions]
    for name in map(str, values):
        present = [i for i, value in enumerate(values[name]) if not np.isnan(value)]
        points = [(positions[i], values[name].iloc[i], widths[name].iloc[i]) for i in present]
        edges = [(at, value + half) for at, value, half in points]
        edges += [(at, value - half) for at, value, half in reversed(points)]
        band = " ".join(f"{x(at)},{y(value)}" for at, value in edges) if widths[name].any() else ""
        curves.append(Curve(name, name in dashed, [f"{x(at)} {y(value)}" for at, value, _ in points], band))
        for i, (_, value, half) in zip(present, points, strict=True):
            texts[i].append(f"{name} {value:.4g}" + (f" ± {half:.2g}" if half else ""))
    axis = str(values.index.name)
    shown = [(x(at), f"{axis} {at:g}: {', '.join(text)}") for at, text in zip(positions, texts, strict=True)]
    stripe = (RIGHT - LEFT) * float(np.diff(positions).min() / np.ptp(positions)) if not margin else RIGHT - LEFT
    return LineChart(title, axis, x_ticks, y_ticks, curves, shown, round(stripe, 1))
