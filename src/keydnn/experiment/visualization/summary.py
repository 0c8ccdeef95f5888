"""Summaries: a box of ``key : value`` lines.

┌─ FeatureSet ──────────┐
│ label : cells         │
│ splits : [train=70]   │
└───────────────────────┘
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Rows = list[tuple[str, Any]]


def summary_box(title: str, rows: Rows, max_width: int = 88, table: Sequence[Sequence[str]] = ()) -> str:
    """The box.

    Args:
        title: Stands in the upper edge.
        rows: Pairs of key and value; a value may be such a list again: it is inlined as ``key : [a=1, b=2]`` where that
            fits, and indented by two spaces where it does not.
        max_width: Of the whole box, at least 16; longer lines are cut with ``...``.
        table: Rows of cells, the heads first, below the pairs.

    Raises:
        ValueError: ``max_width`` below 16.

    Example:
        >>> from keydnn.experiment.visualization.summary import summary_box
        >>> print(summary_box("Batch", [("size", 2), ("roles", [("anchor", 1)])]))
        ┌─ Batch ────────────┐
        │ size : 2           │
        │ roles : [anchor=1] │
        └────────────────────┘
    """
    if max_width < 16:
        raise ValueError(f"max_width must be at least 16, got {max_width}")
    below = ["", *_columns(table)] if table else []
    lines = [_cut(line, max_width - 4) for line in (*_lines(rows, max_width - 4, 0), *below)]
    title = _cut(title, max_width - 6)
    inner = max([len(line) for line in lines] + [len(title) + 2])
    body = [f"│ {line.ljust(inner)} │" for line in lines]
    return "\n".join([f"┌─ {title} {'─' * (inner - len(title) - 1)}┐", *body, f"└{'─' * (inner + 2)}┘"])


def _lines(rows: Rows, width: int, depth: int) -> list[str]:
    pad = "  " * depth
    lines: list[str] = []
    for key, value in rows:
        if not _is_nested(value):
            lines.append(f"{pad}{key} : {value}")
            continue
        inline = f"{pad}{key} : {_inline(value)}"
        lines += [inline] if len(inline) <= width else [f"{pad}{key} :", *_lines(value, width, depth + 1)]
    return lines


def _columns(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _is_nested(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, tuple) and len(item) == 2 for item in value)


def _inline(rows: Rows) -> str:
    return "[" + ", ".join(f"{key}={_inline(value) if _is_nested(value) else value}" for key, value in rows) + "]"


def _cut(text: str, width: int) -> str:
    text = " ".join(str(text).splitlines())
    return text if len(text) <= width else text[: width - 3] + "..."
