"""Where each buffer lies in the arena: buffers whose lifetimes do not overlap share memory.

A buffer lives from the first row that writes it to the last that touches it; survivors live to the end of the step.
Placement is best fit by decreasing size: each buffer takes the lowest gap that no placed buffer of an overlapping lifetime
uses.  Source: Pisarchyk & Lee 2020, Efficient Memory Management for Deep Neural Net Inference, arXiv:2001.03288, "greedy
by size".
"""

from __future__ import annotations

from keydnn.compiler.ir import Buffer, View
from keydnn.compiler.lower import Row

ALIGN = 64


def rounded(nbytes: int) -> int:
    """``nbytes`` up to the next multiple of the alignment, at least one unit."""
    return max(ALIGN, -(-nbytes // ALIGN) * ALIGN)


def lifetimes(rows: list[Row], survivors: list[View]) -> dict[Buffer, tuple[int, int]]:
    """First and last row of each buffer of the arena."""
    lives: dict[Buffer, tuple[int, int]] = {}
    for i, row in enumerate(rows):
        for place in row.places:
            if place is not None and place.buffer.kind == "made":
                lives[place.buffer] = (lives.get(place.buffer, (i, i))[0], i)
    for view in survivors:
        if view.buffer.kind == "made":
            lives[view.buffer] = (lives.get(view.buffer, (0, 0))[0], len(rows))
    return lives


def layout(lives: dict[Buffer, tuple[int, int]]) -> tuple[dict[Buffer, int], int]:
    """Offsets in the arena, and its size."""
    offsets: dict[Buffer, int] = {}
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first, last
    total = 0
    for buffer, (first, last) in sorted(lives.items(), key=lambda item: (-item[0].nbytes, item[1])):
        size = rounded(buffer.nbytes)
        at = 0
        for begin, end, other_first, other_last in placed:
            if other_last < first or other_first > last or end <= at:
                continue
            if begin >= at + size:
                break
            at = end
        offsets[buffer] = at
        placed.append((at, at + size, first, last))
        placed.sort()
        total = max(total, at + size)
    return offsets, total
