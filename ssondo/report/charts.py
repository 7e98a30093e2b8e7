"""Curves and bars as SVG text. Colours come from the page's style sheet."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

_COLOURS = 6


@dataclass(frozen=True)
class Series:
    """A curve.

    Attributes:
        name: in the legend.
        x: places, ascending.
        y: values, one for each place.
        half_width: of a band around the values; empty for none.
        dashed: for values to compare with.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    half_width: Sequence[float] = field(default_factory=tuple)
    dashed: bool = False


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most` + 1 round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`."""
    span = high - low
    if not span > 0:
        return [low]
    step = 10 ** math.floor(math.log10(span / most))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@dataclass(frozen=True)
class _Frame:
    """Where values stand on the paper."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    left: float = 44
    right: float = 350
    top: float = 10
    bottom: float = 164

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (self.right - self.left) * (value - low) / ((high - low) or 1)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.bottom - (self.bottom - self.top) * (value - low) / ((high - low) or 1)

    def axes(self, x_label: str) -> list[str]:
        """Lines, numbers and the name of the horizontal axis."""
        parts = [f'<path class="axis" d="M{self.left} {self.bottom}H{self.right}"/>']
        for tick in ticks(*self.y_range):
            y = self.y(tick)
            parts.append(f'<path class="grid" d="M{self.left} {y:.1f}H{self.right}"/>')
            parts.append(_text(self.left - 5, y + 3.5, _short(tick), "end"))
        for tick in ticks(*self.x_range, most=6):
            parts.append(_text(self.x(tick), self.bottom + 15, _short(tick), "middle"))
        parts.append(_text((self.left + self.right) / 2, self.bottom + 31, x_label, "middle"))
        return parts


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _padded(values: Iterable[float]) -> tuple[float, float]:
    found = list(values)
    low, high = min(found), max(found)
    pad = 0.08 * (high - low) or 0.5 * abs(high) or 1.0
    return low - pad, high + pad


def _curve(series: Series, colour: int, frame: _Frame) -> list[str]:
    points = [(frame.x(x), frame.y(y)) for x, y in zip(series.x, series.y, strict=True)]
    parts = []
    if series.half_width:
        band = list(zip(series.x, series.y, series.half_width, strict=True))
        upper = [f"{frame.x(x):.1f},{frame.y(y + h):.1f}" for x, y, h in band]
        lower = [f"{frame.x(x):.1f},{frame.y(y - h):.1f}" for x, y, h in reversed(band)]
        parts.append(f'<polygon class="band k{colour}" points="{" ".join(upper + lower)}"/>')
    dashes = " dashed" if series.dashed else ""
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts.append(f'<polyline class="curve k{colour}{dashes}" points="{line}"/>')
    for (x, y), at, value in zip(points, series.x, series.y, strict=True):
        label = escape(f"{series.name}: {value:.4g} at {at:g}")
        parts.append(f'<circle class="dot k{colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"><title>{label}</title></circle>')
    return parts


def line_chart(curves: Sequence[Series], x_label: str, title: str) -> str:
    """Curves over a common axis, with a legend where there are several; empty without values.

    Args:
        curves: at most six keep colours of their own.
        x_label: what the places are.
        title: for the heading and for screen readers.
    """
    curves = [curve for curve in curves if len(curve.x)]
    if not curves:
        return ""
    spread = [
        y + sign * h
        for curve in curves
        for y, h in zip(curve.y, curve.half_width or [0.0] * len(curve.y), strict=True)
        for sign in (-1, 1)
    ]
    places = [x for curve in curves for x in curve.x]
    x_range = (min(places), max(places)) if min(places) < max(places) else (min(places) - 1, max(places) + 1)
    frame = _Frame(x_range, _padded(spread))
    parts = frame.axes(x_label)
    for i, curve in enumerate(curves):
        parts += _curve(curve, i % _COLOURS, frame)
    legend = ""
    if len(curves) > 1:
        keys = [f'<span class="key k{i % _COLOURS}">{escape(curve.name)}</span>' for i, curve in enumerate(curves)]
        legend = f'<p class="legend">{"".join(keys)}</p>'
    return _figure(parts, title, legend)


def _figure(parts: Sequence[str], title: str, legend: str = "") -> str:
    name = escape(title)
    svg = f'<svg class="chart" viewBox="0 0 360 200" role="img" aria-label="{name}">{"".join(parts)}</svg>'
    return f'<figure class="plot"><figcaption>{name}</figcaption>{svg}{legend}</figure>'


def bar_chart(values: Sequence[float], x_label: str, title: str) -> str:
    """A bar for each value, in the given order; empty without values."""
    if not values:
        return ""
    frame = _Frame((0.0, float(len(values))), (0.0, 1.05 * max(values) or 1.0))
    parts = frame.axes(x_label)
    width = frame.x(1) - frame.x(0)
    for i, value in enumerate(values):
        x, y = frame.x(i), frame.y(value)
        box = f'x="{x + 0.08 * width:.2f}" y="{y:.1f}" width="{0.84 * width:.2f}" height="{frame.bottom - y:.1f}"'
        parts.append(f'<rect class="bar k0" {box}><title>{i + 1}: {value:,g}</title></rect>')
    return _figure(parts, title)
