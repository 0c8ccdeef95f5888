"""Convolution and pooling along one axis: the 2-D operations on planes of one row."""

from __future__ import annotations

from typing import Any

from keydnn._tensor import Tensor
from keydnn.domain.device import Device
from keydnn.domain.errors import ShapeError
from keydnn.nn.arguments import floating_dtype, integer, positive_int
from keydnn.nn.layers.layer import Layer, Weightless, initializer_config, layer_device, without_defaults
from keydnn.nn.parameter import Parameter
from keydnn.ops import avgpool2d, conv2d, maxpool2d
from keydnn.saving.registry import register_module


@register_module()
class Conv1d(Layer):
    """1-D cross-correlation: ``y[n,o,i] = b[o] + sum_{c,u} x[n,c,s*i+d*u-p] * w[o,c,u]``.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Length of the window.
        stride: Step of the window.
        padding: Zeros at each end.
        bias: Whether to add a learned number per output channel, zero at the start.
        device: Where the parameters live; None is the cpu.
        dtype: float32 (default) or float64.
        initializer: Name, WeightInitializer or function that fills the weight.
        dilation: Distance between the taps of the window.
        groups: Number of blocks of channels that do not see each other.

    Shapes: x (N, in_channels, L) -> y (N, out_channels, (L + 2p - d(k - 1) - 1) // s + 1).
        weight (out_channels, in_channels / groups, k); bias (out_channels,) or None.

    Raises:
        ValueError: A size out of range; x is not 3-D, has other channels, or is shorter than the window.
        RuntimeError: x is on another device than the parameters.

    Example:
        >>> from keydnn.nn import Conv1d
        >>> Conv1d(3, 8, 5, stride=2)(keydnn.ones((2, 3, 21))).shape
        (2, 8, 9)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        device: Device | str | None = None,
        dtype: Any = None,
        initializer: Any = "kaiming",
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.in_channels = positive_int("in_channels", in_channels, self)
        self.out_channels = positive_int("out_channels", out_channels, self)
        self.kernel_size = positive_int("kernel_size", kernel_size, self)
        self.stride = positive_int("stride", stride, self)
        self.padding = integer("padding", padding, self, 0)
        self.dilation = positive_int("dilation", dilation, self)
        self.groups = positive_int("groups", groups, self)
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"Conv1d: groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}")
        self.device = layer_device(device, self)
        self.dtype = floating_dtype(dtype, self)
        self.initializer = initializer
        shape = (self.out_channels, self.in_channels // self.groups, self.kernel_size)
        self.weight = Parameter(shape, self.device, dtype=self.dtype, initializer=initializer)
        self.bias = Parameter((self.out_channels,), self.device, dtype=self.dtype) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """The sum above."""
        plane = _as_plane("Conv1d", x)
        if x.shape[1] != self.in_channels:
            raise ShapeError(f"Conv1d: expected x (N, C, L) with in_channels={self.in_channels}, got shape {x.shape}")
        o, c, k = self.weight.shape
        try:
            y = conv2d(
                plane,
                self.weight.reshape((o, c, 1, k)),
                self.bias,
                stride=(1, self.stride),
                padding=(0, self.padding),
                dilation=(1, self.dilation),
                groups=self.groups,
            )
        except ShapeError as error:
            raise self._blamed(error) from None
        return _as_line(y)

    def get_config(self) -> dict[str, Any]:
        """The arguments; ``initializer``, ``dilation`` and ``groups`` where they differ from their defaults."""
        config = {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "padding": self.padding,
            "bias": self.bias is not None,
            "device": str(self.device),
            "dtype": self.dtype.name,
            "initializer": initializer_config(self.initializer, "kaiming"),
            "dilation": self.dilation,
            "groups": self.groups,
        }
        return without_defaults(config, {"initializer": "kaiming", "dilation": 1, "groups": 1})


class _Window1d(Weightless):
    """A window that slides along the last axis."""

    _op: Any = None

    def __init__(self, kernel_size: int, stride: int | None = None, padding: int = 0, dtype: Any = None) -> None:
        super().__init__(dtype)
        self.kernel_size = positive_int("kernel_size", kernel_size, self)
        self.stride = self.kernel_size if stride is None else positive_int("stride", stride, self)
        self.padding = integer("padding", padding, self, 0)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, L) -> (N, C, (L + 2p - k) // s + 1)."""
        plane = _as_plane(type(self).__name__, x)
        try:
            return _as_line(type(self)._op(plane, (1, self.kernel_size), (1, self.stride), (0, self.padding)))
        except ShapeError as error:
            raise self._blamed(error) from None

    def get_config(self) -> dict[str, Any]:
        """``kernel_size, stride, padding``, and ``dtype`` where one was chosen."""
        return {"kernel_size": self.kernel_size, "stride": self.stride, "padding": self.padding, **super().get_config()}


@register_module()
class MaxPool1d(_Window1d):
    """Largest element of each window; of equal ones the first gets the gradient; padding never wins.

    Args:
        kernel_size: Length of the window.
        stride: Step of the window; None is its length.
        padding: Cells added at each end.
        dtype: float32 or float64, to which x is cast; None keeps its dtype.

    Shapes: x (N, C, L) -> y (N, C, (L + 2p - k) // s + 1).

    Raises:
        ValueError: A size out of range; x is not 3-D or shorter than the window.
    """

    _op = staticmethod(maxpool2d)


@register_module()
class AvgPool1d(_Window1d):
    """Mean of each window; padded cells count as 0 and in the divisor; arguments, shapes and errors as MaxPool1d."""

    _op = staticmethod(avgpool2d)


def _as_plane(name: str, x: Tensor) -> Tensor:
    """(N, C, L) -> (N, C, 1, L)."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a Tensor, got {type(x).__name__}")
    if x.ndim != 3:
        raise ShapeError(f"{name}: expected x (N, C, L), got shape {x.shape}")
    return x.reshape((x.shape[0], x.shape[1], 1, x.shape[2]))


def _as_line(y: Tensor) -> Tensor:
    """(N, C, 1, L) -> (N, C, L)."""
    return y.reshape((y.shape[0], y.shape[1], y.shape[3]))
