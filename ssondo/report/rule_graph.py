"""The graph of the rules as boxes and curves, in layers from top to bottom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

_ROW, _BOX_HEIGHT, _BEND = 74.0, 38.0, 34.0


@dataclass(frozen=True)
class Box:
    """A rule: its name, a smaller second line, and the centre of its upper edge, in pixels."""

    name: str
    note: str
    x: float
    y: float


@dataclass(frozen=True)
class Drawing:
    """A graph: boxes, curves as SVG path data, and sizes in pixels; x = 0 is the centre."""

    boxes: list[Box]
    curves: list[str]
    width: float
    height: float
    box_width: float
    box_height: float = _BOX_HEIGHT


def draw_rules(sources: Mapping[str, Sequence[str]], notes: Mapping[str, str]) -> Drawing | None:
    """Draw the rules without the edges that a longer path replaces.

    Args:
        sources: For each rule, the rules whose files it reads.
        notes: A second line for some rules.

    Returns:
        The drawing; None if there is nothing to draw or the rules depend on each other in a circle.
    """
    import networkx as nx

    graph = nx.DiGraph((source, rule) for rule, names in sources.items() for source in names if source != rule)
    if not graph or not nx.is_directed_acyclic_graph(graph):
        return None
    # networkx keeps neighbours in sets, whose order differs between processes.
    edges = sorted(nx.transitive_reduction(graph).edges)
    # Each rule stands as low as possible, just above the first rule that reads its files.
    layers = [sorted(names) for names in nx.topological_generations(graph.reverse())][::-1]
    layer = {rule: i for i, names in enumerate(layers) for rule in names}
    # An edge that passes a layer gets a bend there, which takes part in the layout like a narrow box.
    paths = [[a, *((a, b, i) for i in range(layer[a] + 1, layer[b])), b] for a, b in edges]
    links = nx.DiGraph(link for path in paths for link in pairwise(path))
    rows: list[list] = [[] for _ in layers]
    for node in links:
        rows[layer[node] if isinstance(node, str) else node[2]].append(node)
    box_width = 24 + 7.4 * max(max(len(rule), 0.85 * len(notes.get(rule, ""))) for rule in layer)
    x = dict.fromkeys(links, 0.0)
    for neighbours, ordered in [(links.succ, rows[::-1]), (links.pred, rows)] * 4:
        for row in ordered:
            means = {node: fmean([x[other] for other in neighbours[node]] or [x[node]]) for node in row}
            row.sort(key=means.__getitem__)
            widths = [box_width + 16 if isinstance(node, str) else _BEND for node in row]
            for i, node in enumerate(row):
                x[node] = sum(widths[:i]) + widths[i] / 2 - sum(widths) / 2
    boxes = [Box(rule, notes.get(rule, ""), x[rule], layer[rule] * _ROW + 4) for rule in layer]
    curves = [_curve([x[node] for node in path], layer[path[0]] * _ROW + 4) for path in paths]
    width = 2 * max(map(abs, x.values())) + box_width + 16
    return Drawing(boxes, curves, width, len(rows) * _ROW - (_ROW - _BOX_HEIGHT) + 8, box_width)


def _curve(xs: list[float], top: float) -> str:
    """Return an edge as SVG path data, from the box at `top` down through its bends to the next box."""
    path = f"M{xs[0]:.1f} {top + _BOX_HEIGHT:.1f}"
    for i, (a, b) in enumerate(pairwise(xs)):
        start, end = top + i * _ROW + _BOX_HEIGHT, top + (i + 1) * _ROW
        middle = (start + end) / 2
        path += f"C{a:.1f} {middle:.1f} {b:.1f} {middle:.1f} {b:.1f} {end:.1f}"
        path += f"V{end + _BOX_HEIGHT:.1f}" if i < len(xs) - 2 else ""
    return path
