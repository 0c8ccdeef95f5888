"""Plain text tables: the same in a terminal, a pipe and a log."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = ()) -> str:
    """Columns as wide as their widest cell, under a line.

    Args:
        head: Name of each column.
        rows: A cell per column.
        right: Names of the columns that are set flush right.

    Example:
        >>> print(table(("layer", "size"), [("a", 5), ("bcd", 100)], right=("size",)))
        layer  size
        -----------
        a         5
        bcd     100
    """
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    sides = [">" if name in right else "<" for name in head]
    lines = ["  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]])
