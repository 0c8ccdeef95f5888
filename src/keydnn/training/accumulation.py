"""Gradient accumulation: one update for several batches, as if they were one.

    G = sum_i n_i g_i / sum_i n_i        n_i: rows of batch i, or the sum of their weights

which for a loss that is a mean over rows is the gradient of the batches taken together.  The sums are written by operations
of the step, so they are kept inside recorded steps; the update itself comes once in a while and runs eagerly.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.autograd.modes import no_grad
from keydnn.autograd.primitive import bind
from keydnn.domain.errors import CheckpointError
from keydnn.ops import inplace


class Accumulator:
    """Sums of gradients.

    Args:
        params: The parameters.
        every: Batches per update, at least 2.

    Attributes:
        reached: Positions of the parameters that had a gradient.
    """

    def __init__(self, params: Iterable[Any], every: int) -> None:
        self.params, self.every = list(params), every
        self.reached: set[int] = set()
        with no_grad():
            self._sums = [Tensor.zeros_like(p) for p in self.params]
            self._total = Tensor.zeros((), dtype=np.float64)

    def add(self, n: Tensor | float) -> None:
        """Add the gradients of a batch that counts ``n``, in the step."""
        with no_grad():
            for i, p in enumerate(self.params):
                if p.grad is not None:
                    self.reached.add(i)
                    factor = n.astype(p.dtype) if isinstance(n, Tensor) else n
                    bind(inplace.add_, (self._sums[i], p.grad * factor))
            if isinstance(n, Tensor):
                bind(inplace.add_, (self._total, n.astype(np.float64)))
            else:
                bind(inplace.add_, (self._total,), {"c": n})

    def take(self) -> None:
        """Give the parameters their mean gradients, and start anew; where all weights were 0 they are 0."""
        total = self._total.item()
        with no_grad():
            for i in sorted(self.reached):
                self.params[i].grad = self._sums[i] / (total or 1.0)
                self._sums[i].fill(0.0)
            self._total.fill(0.0)

    def get_state(self) -> dict[str, Any]:
        """The sums."""
        sums = [self._sums[i].numpy() for i in sorted(self.reached)]
        return {"every": self.every, "reached": sorted(self.reached), "sums": sums, "total": self._total.item()}

    def check(self, state: dict[str, Any]) -> None:
        """Raise unless :meth:`set_state` can take ``state``.

        Raises:
            ValueError: The shapes are other ones.
        """
        shapes = [np.shape(array) for array in state["sums"]]
        if shapes != [self.params[i].shape for i in state["reached"]]:
            raise CheckpointError(f"the run to resume has sums of gradients of shapes {shapes}, which do not fit the parameters")

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        self.reached = set(state["reached"])
        for i, array in zip(state["reached"], state["sums"], strict=True):
            self._sums[i].copy_from_numpy(array)
        self._total.fill(state["total"])
