"""Dropout."""

from __future__ import annotations

from typing import Any

from keydnn._tensor import Tensor
from keydnn.nn.arguments import number
from keydnn.nn.layers.layer import Weightless
from keydnn.ops import dropout
from keydnn.saving.registry import register_module


@register_module()
class Dropout(Weightless):
    """Training: each element is 0 with probability p, the others are divided by ``1 - p``.  Evaluation: the input object itself.

    Args:
        p: Probability, in [0, 1).
        dtype: float32 or float64, to which x is cast; None keeps its dtype.

    Shapes: x of any shape -> y of the same.

    Raises:
        ValueError: p is outside [0, 1).

    Example:
        >>> from keydnn.nn import Dropout
        >>> sorted(set(Dropout(0.5)(keydnn.ones((100,))).tolist()))
        [0.0, 2.0]

    The mask of a call is drawn with a key from NumPy's global generator, so ``np.random.seed`` repeats it.
    Source: Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html
    """

    def __init__(self, p: float = 0.5, dtype: Any = None) -> None:
        super().__init__(dtype)
        self.p = number("p", p, self)
        if not 0.0 <= self.p < 1.0:
            raise ValueError(f"Dropout: p must be in [0, 1), got {p!r}")

    def forward(self, x: Tensor) -> Tensor:
        """x with elements dropped, or x itself in evaluation mode and for p = 0."""
        return dropout(x, self.p) if self.training and self.p else x

    def get_config(self) -> dict[str, Any]:
        """``p``, and ``dtype`` where one was chosen."""
        return {"p": self.p, **super().get_config()}
