"""Mermaid text from diagram values.

    flowchart LR
    n0@{ label: "<b>FeatureSet</b><br>'cells'", shape: rect }
    n0:::FeatureSet
    n0 e0@-->|"n=7"| n1
    classDef FeatureSet fill:#E1BEE7,stroke:#AA00FF

Node and edge ids number in the order of creation, so equal diagrams give equal text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

STYLES = {  # class -> fill, stroke, further style
    "FeatureSet": ("#E1BEE7", "#AA00FF", ""),
    "Split": ("#F3E5F5", "#AA00FF", ""),
}


@dataclass(frozen=True)
class Node:
    """A box: its class, the lines of its text, its shape."""

    style: str
    kind: str
    name: str
    lines: tuple[str, ...] = ()
    shape: str = "rect"


@dataclass(frozen=True)
class Edge:
    """An arrow between boxes by number, with a label."""

    start: int
    end: int
    label: str = ""


@dataclass
class Diagram:
    """Boxes and arrows, in the order in which they were added."""

    nodes: list[Node] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)

    def add(self, node: Node) -> int:
        """Add a box and return its number."""
        self.nodes.append(node)
        return len(self.nodes) - 1

    def connect(self, start: int, end: int, label: str = "") -> None:
        """Add an arrow."""
        self.edges.append(Edge(start, end, label))

    def to_mermaid(self) -> str:
        """The text; HTML-sensitive characters of names and labels are escaped."""
        lines = ["flowchart LR"]
        lines += [f'n{i}@{{ label: "{_text(node)}", shape: {node.shape} }}' for i, node in enumerate(self.nodes)]
        for i, edge in enumerate(self.edges):
            label = f'|"{escaped(edge.label)}"|' if edge.label else ""
            lines.append(f"n{edge.start} e{i}@-->{label} n{edge.end}")
        lines += [f"n{i}:::{node.style}" for i, node in enumerate(self.nodes)]
        lines += [_class_def(style) for style in dict.fromkeys(node.style for node in self.nodes)]
        return "\n".join(lines) + "\n"


def _text(node: Node) -> str:
    return "<br>".join([f"<b>{escaped(node.kind)}</b>", f"'{escaped(node.name)}'", *map(escaped, node.lines)])


def _class_def(style: str) -> str:
    fill, stroke, more = STYLES[style]
    return f"classDef {style} fill:{fill},stroke:{stroke}{',' + more if more else ''}"


def escaped(text: object) -> str:
    """Text without characters that HTML or Mermaid would read as its own; ampersands first."""
    told = str(text)
    for character, code in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("|", "&#124;"), ("\n", " ")):
        told = told.replace(character, code)
    return told


def column_lines(shapes: Sequence[tuple[str, tuple[int, ...]]], show_shapes: bool) -> tuple[str, ...]:
    """One line per column."""
    return tuple(f"{name} {shape}" if show_shapes else name for name, shape in shapes)
