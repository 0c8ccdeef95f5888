"""Layers that only reshape."""

from __future__ import annotations

import math

from keydnn._tensor import Tensor
from keydnn.domain.errors import ShapeError
from keydnn.nn.layers.layer import Weightless
from keydnn.ops.shape import reshape_p
from keydnn.saving.registry import register_module


@register_module()
class Flatten(Weightless):
    """All axes but the first joined into one.

    Args:
        dtype: float32 or float64, to which x is cast; None keeps its dtype.

    Shapes: x (N, d1, d2, ...) -> y (N, d1 * d2 * ...).

    Raises:
        ValueError: x is a scalar.

    Example:
        >>> from keydnn.nn import Flatten
        >>> Flatten()(keydnn.ones((2, 3, 4))).shape
        (2, 12)
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, d1, d2, ...) -> (N, d1 * d2 * ...)."""
        size = x.shape
        if not size:
            raise ShapeError("Flatten: expected x (N, ...) with at least one axis, got a scalar of shape ()")
        return reshape_p(x, shape=(size[0], math.prod(size[1:])))
