"""Mermaid text from diagram values.

    flowchart LR
    n0@{ label: "<b>FeatureSet</b><br>'cells'", shape: rect }
    n0 e0@-->|"(1, 100)"| n1
    n0:::FeatureSet
    classDef FeatureSet fill:#E1BEE7,stroke:#AA00FF
    classDef moving stroke-dasharray:9\\,5,stroke-dashoffset:900,animation:dash 25s linear infinite
    class e0 moving

Node and edge ids number in the order of creation, definitions stand in the order of first use: equal diagrams give equal text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

GREY = "color:#616161"
STYLES = {  # class -> fill, stroke, further style
    "FeatureSet": ("#E1BEE7", "#AA00FF", ""),
    "Split": ("#F3E5F5", "#AA00FF", ""),
    "Sampler": ("#FFE0B2", "#FF6D00", ""),
    "ModelNode": ("#BBDEFB", "#2962FF", ""),
    "FrozenNode": ("#E3F2FD", "#90CAF9", GREY),
    "MergeNode": ("#B1B1B1", "#565656", ""),
    "AppliedLoss": ("#FFCDD2", "#D50000", ""),
    "Terminal": ("#616161", "#616161", ""),
    "Phase": ("#FFF9C4", "#F9A825", ""),
    "PhaseGroup": ("#FAFAFA", "#BDBDBD", ""),
    "Inactive": ("#F5F5F5", "#BDBDBD", GREY),
}
MOVING = r"classDef moving stroke-dasharray:9\,5,stroke-dashoffset:900,animation:dash 25s linear infinite"
_NO_WIDTH = "#65279;"  # a space that is not seen, behind what would begin emphasis or a formula
_READ_AS_ITS_OWN = {  # by HTML, by Mermaid, or by the YAML that a label stands in
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "#": "&num;",
    "|": "&verbar;",
    "\\": "&bsol;",
    "*": f"&ast;{_NO_WIDTH}",
    "_": f"&lowbar;{_NO_WIDTH}",
    "$": f"&dollar;{_NO_WIDTH}",
    **{chr(code): " " for code in (*range(32), 127, 0x85, 0x2028, 0x2029)},
}
_CODES = str.maketrans(_READ_AS_ITS_OWN)
_INSIDE_A_WORD = re.compile(r"(?<=[^\W_])" + _READ_AS_ITS_OWN["_"] + r"(?=[^\W_])")


@dataclass(frozen=True)
class Node:
    """A box: its class, the lines of its text, its shape; without ``kind`` it is empty."""

    style: str
    kind: str
    name: str
    lines: tuple[str, ...] = ()
    shape: str = "rect"


@dataclass(frozen=True)
class Edge:
    """An arrow between boxes by number, with a label; dotted, or with dashes that move."""

    start: int
    end: int
    label: str = ""
    dotted: bool = False
    moves: bool = False


@dataclass(frozen=True)
class Frame:
    """A box around boxes: those numbered from ``first`` to ``last``, both included; frames do not overlap unless one holds the other."""

    style: str
    kind: str
    name: str
    first: int
    last: int


@dataclass
class Diagram:
    """Boxes and arrows, in the order in which they were added; frames, the outer ones first."""

    nodes: list[Node] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)

    def add(self, node: Node) -> int:
        """Add a box and return its number."""
        self.nodes.append(node)
        return len(self.nodes) - 1

    def connect(self, start: int, end: int, label: str = "", *, dotted: bool = False, moves: bool = False) -> None:
        """Add an arrow."""
        self.edges.append(Edge(start, end, label, dotted, moves))

    def to_mermaid(self) -> str:
        """The text; characters of names and labels that HTML or Mermaid would read as their own are escaped."""
        lines = ["flowchart LR"]
        for i, node in enumerate(self.nodes):
            opened = [(k, frame) for k, frame in enumerate(self.frames) if frame.first == i]
            lines += [line for k, frame in opened for line in (f'subgraph g{k}["{_title(frame, " ")}"]', "direction LR")]
            lines.append(f'n{i}@{{ label: "{_text(node)}", shape: {node.shape} }}')
            lines += ["end" for frame in self.frames if frame.last == i]
        for i, edge in enumerate(self.edges):
            label = f'|"{escaped(edge.label)}"|' if edge.label else ""
            lines.append(f"n{edge.start} e{i}@{'-.->' if edge.dotted else '-->'}{label} n{edge.end}")
        lines += [f"n{i}:::{node.style}" for i, node in enumerate(self.nodes)]
        lines += [f"class g{k} {frame.style}" for k, frame in enumerate(self.frames)]
        styles = [*(node.style for node in self.nodes), *(frame.style for frame in self.frames)]
        lines += [_class_def(style) for style in dict.fromkeys(styles)]
        moving = [f"e{i}" for i, edge in enumerate(self.edges) if edge.moves]
        lines += [MOVING, f"class {','.join(moving)} moving"] if moving else []
        return "\n".join(lines) + "\n"


def _text(node: Node) -> str:
    if not node.kind:
        return " "
    return "<br>".join([_title(node), *map(escaped, node.lines)])


def _title(box: Node | Frame, between: str = "<br>") -> str:
    return f"<b>{escaped(box.kind)}</b>{between}'{escaped(box.name)}'"


def _class_def(style: str) -> str:
    fill, stroke, more = STYLES[style]
    return f"classDef {style} fill:{fill},stroke:{stroke}{',' + more if more else ''}"


def escaped(text: object) -> str:
    """Text without characters that HTML or Mermaid would read as its own; what ends a line becomes a space."""
    return _INSIDE_A_WORD.sub("_", str(text).translate(_CODES))


def column_lines(shapes: Sequence[tuple[str, tuple[int, ...]]], show_shapes: bool) -> tuple[str, ...]:
    """One line per column."""
    return tuple(f"{name} {shape}" if show_shapes else name for name, shape in shapes)
