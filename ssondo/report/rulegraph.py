"""The graph of the rules, drawn as SVG text.

Drawn in layers (Sugiyama, Tagawa and Toda 1981): layers by longest path, order within a layer
by the mean place of the neighbours, bends where an edge passes a layer.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

Edge = tuple[str, str]
_ROW = 74.0
_GAP = 22.0
_HEIGHT = 38.0


def without_shortcuts(edges: Iterable[Edge]) -> list[Edge]:
    """The edges of an acyclic graph that no longer path replaces."""
    after: dict[str, set[str]] = {}
    for a, b in edges:
        if a != b:
            after.setdefault(a, set()).add(b)

    def reaches(start: str, goal: str, seen: set[str]) -> bool:
        return any(
            node == goal or (node not in seen and not seen.add(node) and reaches(node, goal, seen))  # type: ignore[func-returns-value]
            for node in sorted(after.get(start, ()))
        )

    kept = []
    for a in sorted(after):
        for b in sorted(after[a]):
            if not any(reaches(other, b, set()) for other in after[a] if other != b):
                kept.append((a, b))
    return kept


def layers_of(nodes: Sequence[str], edges: Sequence[Edge]) -> dict[str, int]:
    """Layer of each node: below all it comes from; sources stand just above what they feed.

    Raises:
        ValueError: if the edges run in a circle.
    """
    before = {node: [a for a, b in edges if b == node] for node in nodes}
    layer: dict[str, int] = {}
    open_ = list(nodes)
    while open_:
        ready = [node for node in open_ if all(a in layer for a in before[node])]
        if not ready:
            raise ValueError(f"the edges run in a circle among {', '.join(open_)}")
        for node in ready:
            layer[node] = max((layer[a] + 1 for a in before[node]), default=0)
        open_ = [node for node in open_ if node not in layer]
    for node in nodes:
        fed = [layer[b] for a, b in edges if a == node]
        if not before[node] and fed:
            layer[node] = min(fed) - 1
    return layer


@dataclass
class _Layout:
    """Rows of nodes and of the bends of long edges, with the centre of each."""

    rows: list[list[str]]
    links: list[Edge]
    width: Callable[[str], float]
    x: dict[str, float] = field(default_factory=dict)

    def neighbours(self, up: bool) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for a, b in self.links:
            found.setdefault(b if up else a, []).append(a if up else b)
        return found

    def crossings(self) -> int:
        place = {node: i for row in self.rows for i, node in enumerate(row)}
        row_of = {node: r for r, row in enumerate(self.rows) for node in row}
        total = 0
        for r in range(len(self.rows)):
            spans = [(place[a], place[b]) for a, b in self.links if row_of[a] == r]
            total += sum((a - c) * (b - d) < 0 for i, (a, b) in enumerate(spans) for c, d in spans[:i])
        return total

    def order(self) -> None:
        """Sort each row by the mean place of its neighbours, down and up; keep the best order met."""
        best, fewest = [list(row) for row in self.rows], self.crossings()
        for sweep in range(16):
            up = sweep % 2 == 0
            near = self.neighbours(up)
            for r in range(1, len(self.rows)) if up else range(len(self.rows) - 2, -1, -1):
                other = {node: i for i, node in enumerate(self.rows[r - 1 if up else r + 1])}
                row = self.rows[r]

                def centre(node: str, row: list[str] = row, other: dict[str, int] = other) -> float:
                    places = [other[n] for n in near.get(node, ()) if n in other]  # noqa: B023
                    return sum(places) / len(places) if places else row.index(node)

                self.rows[r] = sorted(row, key=centre)
            if (now := self.crossings()) < fewest:
                best, fewest = [list(row) for row in self.rows], now
        self.rows = best

    def place(self) -> None:
        """Centre each node between its neighbours, as far as the row leaves room."""
        for row in self.rows:
            self._pack(row, [0.0] * len(row))
        both = [self.neighbours(True), self.neighbours(False)]
        for sweep in range(200):
            for row in self.rows if sweep % 2 == 0 else reversed(self.rows):
                wanted = []
                for node in row:
                    near = [self.x[n] for side in both for n in side.get(node, ())]
                    wanted.append(sum(near) / len(near) if near else self.x[node])
                self._pack(row, wanted)

    def _pack(self, row: list[str], wanted: list[float]) -> None:
        gaps = [(self.width(a) + self.width(b)) / 2 + _GAP for a, b in pairwise(row)]
        from_left, from_right = list(wanted), list(wanted)
        for i, gap in enumerate(gaps):
            from_left[i + 1] = max(from_left[i + 1], from_left[i] + gap)
        for i in range(len(gaps) - 1, -1, -1):
            from_right[i] = min(from_right[i], from_right[i + 1] - gaps[i])
        # The mean of two orders that each keep the gaps keeps them too.
        for node, a, b in zip(row, from_left, from_right, strict=True):
            self.x[node] = (a + b) / 2


def _with_bends(
    nodes: Sequence[str], edges: Sequence[Edge]
) -> tuple[list[list[str]], list[Edge], dict[Edge, list[str]]]:
    """Rows of nodes, with a bend in every row that a long edge passes; links between neighbouring rows."""
    layer = layers_of(nodes, edges)
    rows: list[list[str]] = [[] for _ in range(max(layer.values()) + 1)]
    for node in nodes:
        rows[layer[node]].append(node)
    links, ways = [], {}
    for a, b in edges:
        way = [a, *(f"\0{a}\0{b}\0{r}" for r in range(layer[a] + 1, layer[b])), b]
        for r, bend in enumerate(way[1:-1], layer[a] + 1):
            rows[r].append(bend)
        links += list(pairwise(way))
        ways[a, b] = way
    return rows, links, ways


def graph(nodes: Sequence[str], edges: Sequence[Edge], remarks: Mapping[str, str]) -> str:
    """A directed acyclic graph, drawn from top to bottom.

    Args:
        nodes: names, each once.
        edges: (from, to), names of nodes.
        remarks: a second, smaller line in some nodes.

    Raises:
        ValueError: if the edges run in a circle.
    """
    if not nodes:
        return ""

    def width(node: str) -> float:
        return 8.0 if node.startswith("\0") else 7.4 * max(len(node), 0.85 * len(remarks.get(node, ""))) + 24

    rows, links, ways = _with_bends(nodes, edges)
    layout = _Layout(rows, links, width)
    layout.order()
    layout.place()
    y = {node: r * _ROW + 4 for r, row in enumerate(layout.rows) for node in row}
    left = min(layout.x[node] - width(node) / 2 for node in layout.x) - 4
    right = max(layout.x[node] + width(node) / 2 for node in layout.x) + 4
    parts = []
    for way in ways.values():
        path = f"M{layout.x[way[0]]:.1f} {y[way[0]] + _HEIGHT:.1f}"
        for a, b in pairwise(way):
            start, end = y[a] + _HEIGHT, y[b]
            middle = (start + end) / 2
            path += f"C{layout.x[a]:.1f} {middle:.1f} {layout.x[b]:.1f} {middle:.1f} {layout.x[b]:.1f} {end:.1f}"
            if b != way[-1]:
                path += f"V{end + _HEIGHT:.1f}"
        parts.append(f'<path class="edge" d="{path}"/>')
    for node in nodes:
        parts.append(_box(node, remarks.get(node, ""), layout.x[node], y[node], width(node)))
    height = len(layout.rows) * _ROW - (_ROW - _HEIGHT) + 8
    size = f'viewBox="{left:.0f} 0 {right - left:.0f} {height:.0f}" width="{right - left:.0f}" height="{height:.0f}"'
    return f'<svg class="graph" {size} role="img" aria-label="graph of the rules">{"".join(parts)}</svg>'


def _box(name: str, remark: str, x: float, y: float, width: float) -> str:
    box = f'x="{x - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_HEIGHT}"'
    base = y + (16 if remark else 24)
    text = f'<text class="name" x="{x:.1f}" y="{base:.1f}" text-anchor="middle">{escape(name)}</text>'
    if remark:
        text += f'<text class="tick" x="{x:.1f}" y="{base + 15:.1f}" text-anchor="middle">{escape(remark)}</text>'
    return f'<rect class="node" rx="7" {box}/>{text}'
