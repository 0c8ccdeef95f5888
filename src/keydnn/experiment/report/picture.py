"""A diagram as SVG: boxes in layers from top to bottom, arrows down.

A box stands one layer below the lowest of those that lead to it (longest path).  An arrow over several layers passes through an invisible
box in each.  Inside a layer boxes are sorted, to and fro, by the mean place of their neighbours, so that few arrows cross.
Source: Sugiyama, Tagawa & Toda 1981, https://doi.org/10.1109/TSMC.1981.4308636.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field

from keydnn._page import escaped
from keydnn.experiment.report.charts import svg
from keydnn.experiment.visualization.mermaid import STYLES, Diagram, Node

_LETTER, _LINE = 7.0, 17.0
_GAP, _LAYER, _EDGE = 26.0, 46.0, 8.0
_MOST_LETTERS = 26
_SWEEPS = 6
STYLE = (
    ".graph{overflow-x:auto}.graph text{font:12px sans-serif;fill:#1a1a1a}.graph .arrow{fill:none;stroke:#666}.graph .head{fill:#666}"
    ".graph .shape{font-size:11px;fill:#333}.graph .paper{fill:#fff}"
)


@dataclass
class _Box:
    """A box, or with ``node`` None the place where an arrow passes a layer."""

    node: Node | None
    layer: int
    width: float = 2.0
    height: float = 0.0
    x: float = 0.0  # of the middle
    above: list[int] = field(default_factory=list)
    below: list[int] = field(default_factory=list)


def draw(diagram: Diagram, label: str) -> str:
    """The SVG; wider than a narrow screen it scrolls in its own box."""
    boxes, ways = _boxes(diagram)
    layers = _ordered(boxes)
    tops = _place(boxes, layers)
    width = max((box.x + box.width / 2 for box in boxes), default=0) + _EDGE
    arrows = [_arrow([boxes[i] for i in way], tops, edge.label, edge.dotted) for way, edge in zip(ways, diagram.edges, strict=True)]
    drawn = "".join(_drawn(box, tops[box.layer]) for box in boxes if box.node is not None)
    picture = svg(width, tops[-1], label, "".join([*(line for line, _ in arrows), *(told for _, told in arrows), drawn]))
    return f"<div class='graph'>{picture.replace('<svg ', f'<svg width={width:.0f} ', 1)}</div>"


def _boxes(diagram: Diagram) -> tuple[list[_Box], list[list[int]]]:
    """The boxes with those that arrows pass through, and the boxes on the way of each arrow."""
    layers = _layers(len(diagram.nodes), [(edge.start, edge.end) for edge in diagram.edges])
    boxes = [_sized(_Box(node, layer)) for node, layer in zip(diagram.nodes, layers, strict=True)]
    ways = []
    for edge in diagram.edges:
        way = [edge.start]
        for layer in range(layers[edge.start] + 1, layers[edge.end]):
            boxes.append(_Box(None, layer))
            way.append(len(boxes) - 1)
        ways.append([*way, edge.end])
        for upper, lower in zip(ways[-1], ways[-1][1:], strict=False):
            boxes[upper].below.append(lower)
            boxes[lower].above.append(upper)
    return boxes, ways


def _layers(n: int, arrows: list[tuple[int, int]]) -> list[int]:
    """The layer of every box; a circle, which no graph has, ends after as many rounds as there are boxes."""
    layers = [0] * n
    for _ in range(n):
        lower = [(end, layers[start] + 1) for start, end in arrows if layers[end] <= layers[start] < n]
        if not lower:
            break
        for end, layer in lower:
            layers[end] = max(layers[end], layer)
    return layers


def _text_lines(node: Node) -> list[str]:
    return [node.kind, node.name, *node.lines] if node.kind else []


def _cut(line: str) -> str:
    """At most so many letters; a wide one counts twice."""
    room = _MOST_LETTERS
    kept: list[str] = []
    for letter in line:
        room -= 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if room < 0:
            return f"{''.join(kept)}…"
        kept.append(letter)
    return line


def _wide(line: str) -> float:
    return _LETTER * sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line)


def _sized(box: _Box) -> _Box:
    assert box.node is not None
    lines = [_cut(line) for line in _text_lines(box.node)]
    box.width = max(96.0, max(map(_wide, lines)) + 20) if lines else 18.0
    box.height = len(lines) * _LINE + 12 if lines else 18.0
    return box


def _ordered(boxes: list[_Box]) -> list[list[int]]:
    """Boxes of each layer from left to right."""
    layers: list[list[int]] = [[] for _ in range(max((box.layer for box in boxes), default=-1) + 1)]
    for i, box in enumerate(boxes):
        layers[box.layer].append(i)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        place = {i: k / max(len(layer), 1) for layer in layers for k, i in enumerate(layer)}
        for layer in layers if down else layers[::-1]:
            layer.sort(key=lambda i: _mean([place[j] for j in (boxes[i].above if down else boxes[i].below)], place[i]))  # noqa: B023
            place |= {i: k / len(layer) for k, i in enumerate(layer)}
    return layers


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _place(boxes: list[_Box], layers: list[list[int]]) -> list[float]:
    """Give every box its x, each layer in the middle; the top of each layer, and the end of the last."""
    widths = [sum(boxes[i].width for i in layer) + _GAP * (len(layer) - 1) for layer in layers]
    tops = [_EDGE]
    for layer, width in zip(layers, widths, strict=True):
        at = _EDGE + (max(widths) - width) / 2
        for i in layer:
            boxes[i].x = at + boxes[i].width / 2
            at += boxes[i].width + _GAP
        tops.append(tops[-1] + max((boxes[i].height for i in layer), default=0) + _LAYER)
    tops[-1] += _EDGE - _LAYER
    return tops


def _drawn(box: _Box, top: float) -> str:
    node = box.node
    assert node is not None
    fill, stroke, _ = STYLES[node.style]
    lines = _text_lines(node)
    radius = box.height / 2 if node.shape in ("circle", "stadium") else 4
    parts = [
        f"<g><title>{escaped(', '.join(lines) or 'output')}</title><rect x='{box.x - box.width / 2:.1f}' y='{top:.1f}'"
        f" width='{box.width:.1f}' height='{box.height:.1f}' rx='{radius:g}' fill='{fill}' stroke='{stroke}'/>"
    ]
    for k, line in enumerate(lines):
        weight = " style='font-weight:bold'" if k == 1 else ""
        parts.append(f"<text x='{box.x:.1f}' y='{top + 19 + k * _LINE:.1f}' text-anchor='middle'{weight}>{escaped(_cut(line))}</text>")
    return "".join([*parts, "</g>"])


def _arrow(way: list[_Box], tops: list[float], label: str, dotted: bool) -> tuple[str, str]:
    """From the lower edge of the first box through the others to the upper edge of the last; and its label, which hides what is below."""
    x, y = way[0].x, tops[way[0].layer] + way[0].height
    path, first = [f"M{x:.1f} {y:.1f}"], (x, y)
    for k, box in enumerate(way[1:], start=1):
        end = tops[box.layer] - (6 if k == len(way) - 1 else 0)
        half = (y + end) / 2
        path.append(f"C{x:.1f} {half:.1f} {box.x:.1f} {half:.1f} {box.x:.1f} {end:.1f}")
        if k == 1:
            first = _on_the_way(len(way[0].below), len(way[-1].above), (x, y), (box.x, end))
        x, y = box.x, end
        if box.node is None and k < len(way) - 1:  # straight through the layer
            y = tops[box.layer + 1] - _LAYER
            path.append(f"V{y:.1f}")
    dashes = " stroke-dasharray='4 3'" if dotted else ""
    head = f"<path class='head' d='M{x:.1f} {y + 6:.1f}l-4 -7h8z'/>"
    return f"<path class='arrow' d='{''.join(path)}'{dashes}/>{head}", _label(_cut(label), *first) if label else ""


def _on_the_way(leave: int, arrive: int, start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
    """Where the label stands: in the middle, or nearer to the end where fewer arrows meet, so that labels keep apart."""
    t = 0.75 if leave > arrive else 0.25 if leave < arrive else 0.5
    across, down = 3 * t**2 - 2 * t**3, t**3 + 1.5 * t * (1 - t)  # of the curve whose inner points lie half way down
    return start[0] + across * (end[0] - start[0]), start[1] + down * (end[1] - start[1])


def _label(text: str, x: float, y: float) -> str:
    half = _wide(text) * 0.42
    paper = f"<rect class='paper' x='{x - half:.1f}' y='{y - 7:.1f}' width='{2 * half:.1f}' height='14'/>"
    return f"{paper}<text class='shape' x='{x:.1f}' y='{y + 4:.1f}' text-anchor='middle'>{escaped(text)}</text>"
