"""2-D pooling layers over NCHW.

Padding counts as minus infinity for the maximum, so it never wins, and as 0 for the average, which always divides by kh * kw.
"""

from __future__ import annotations

from typing import Any

from keydnn._tensor import Tensor
from keydnn.domain.errors import ShapeError
from keydnn.nn.arguments import pair
from keydnn.nn.layers.layer import ConfigMixin, Weightless
from keydnn.ops import avgpool2d, global_avgpool2d, maxpool2d
from keydnn.saving.registry import register_module

Pair = tuple[int, int]
IntOrPair = int | Pair | list[int]


class Pool2dConfigMixin(ConfigMixin):
    """Config of a window: ``kernel_size``, ``stride`` and ``padding`` as lists of two."""

    kernel_size: Any
    stride: Any
    padding: Any

    def get_config(self) -> dict[str, Any]:
        """``kernel_size, stride, padding``."""
        return {"kernel_size": list(self.kernel_size), "stride": list(self.stride), "padding": list(self.padding)}


class _Window(Pool2dConfigMixin, Weightless):
    """A window that slides over the plane."""

    def __init__(self, kernel_size: IntOrPair, stride: IntOrPair | None = None, padding: IntOrPair = 0, dtype: Any = None) -> None:
        super().__init__(dtype)
        self._kernel_size = pair("kernel_size", kernel_size, self, 1)
        self._stride = self._kernel_size if stride is None else pair("stride", stride, self, 1)
        self._padding = pair("padding", padding, self, 0)

    def get_config(self) -> dict[str, Any]:
        """``kernel_size, stride, padding``, and ``dtype`` where one was chosen."""
        return super().get_config() | Weightless.get_config(self)

    @property
    def kernel_size(self) -> Pair:  # type: ignore[override]
        """Rows and columns of the window."""
        return self._kernel_size

    @property
    def stride(self) -> Pair:  # type: ignore[override]
        """Step of the window."""
        return self._stride

    @property
    def padding(self) -> Pair:  # type: ignore[override]
        """Rows and columns added at each border."""
        return self._padding


@register_module()
class MaxPool2d(_Window):
    """Largest element of each window; of equal ones the first in row-major order gets the gradient.

    Args:
        kernel_size: Rows and columns of the window, as an int or a pair.
        stride: Step of the window; None is the window's size.
        padding: Rows and columns added at each border; they never win.
        dtype: float32 or float64, to which x is cast; None keeps its dtype.

    Shapes: x (N, C, H, W) -> y (N, C, H_out, W_out), H_out = (H + 2p - kh) // s + 1.

    Raises:
        ValueError: A size out of range; x is not 4-D or smaller than the window.

    Example:
        >>> from keydnn.nn import MaxPool2d
        >>> MaxPool2d(2)(keydnn.ones((1, 3, 28, 28))).shape
        (1, 3, 14, 14)
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H_out, W_out)."""
        try:
            return maxpool2d(x, self._kernel_size, self._stride, self._padding)
        except ShapeError as error:
            raise self._blamed(error) from None


@register_module()
class AvgPool2d(_Window):
    """Mean of each window; padded cells count as 0 and are counted in the divisor.

    Args:
        kernel_size: Rows and columns of the window, as an int or a pair.
        stride: Step of the window; None is the window's size.
        padding: Rows and columns of zeros added at each border.
        dtype: float32 or float64, to which x is cast; None keeps its dtype.

    Shapes: x (N, C, H, W) -> y (N, C, H_out, W_out), H_out = (H + 2p - kh) // s + 1.

    Raises:
        ValueError: A size out of range; x is not 4-D or smaller than the window.

    Example:
        >>> from keydnn.nn import AvgPool2d
        >>> AvgPool2d((2, 1))(keydnn.ones((1, 3, 28, 28))).shape
        (1, 3, 14, 28)
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H_out, W_out)."""
        try:
            return avgpool2d(x, self._kernel_size, self._stride, self._padding)
        except ShapeError as error:
            raise self._blamed(error) from None


@register_module()
class GlobalAvgPool2d(Weightless):
    """Mean of each plane.

    Args:
        dtype: float32 or float64, to which x is cast; None keeps its dtype.

    Shapes: x (N, C, H, W) -> y (N, C, 1, 1).

    Raises:
        ValueError: x is not 4-D, or its planes are empty.

    Example:
        >>> from keydnn.nn import GlobalAvgPool2d
        >>> GlobalAvgPool2d()(keydnn.ones((1, 3, 28, 28))).shape
        (1, 3, 1, 1)
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, 1, 1)."""
        try:
            return global_avgpool2d(x)
        except ShapeError as error:
            raise self._blamed(error) from None


MaxPool2D = MaxPool2d
AvgPool2D = AvgPool2d
GlobalAvgPool2D = GlobalAvgPool2d
