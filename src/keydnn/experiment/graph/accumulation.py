"""Accumulation: one update for several steps, as if their batches were one.

G = sum_i n_i g_i / sum_i n_i        n_i: rows of batch i

Losses are means over rows, so this is the gradient of the batches taken together.
"""

from __future__ import annotations

from typing import Any


class Accumulation:
    """Where a step stands in its group.

    Args:
        every: Steps per update.

    Attributes:
        is_first: Whether gradients of earlier steps are forgotten.
        is_last: Whether the step ends with the update.
        rows: Rows of the group so far.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.is_first, self.is_last, self.rows = True, every == 1, 0

    def start(self, i: int, n_steps: int) -> None:
        """Step ``i`` of an epoch comes next; the last group of an epoch may be short."""
        self.is_first, self.is_last = i % self.every == 0, (i + 1) % self.every == 0 or i == n_steps - 1
        if self.is_first:
            self.rows = 0

    def weighted(self, values: list[Any], rows: int) -> list[Any]:
        """Losses times the rows of the step, which are counted."""
        self.rows += rows
        return [value * float(rows) for value in values]
