"""Convolution and pooling over volumes, NCDHW: the 2-D operations on planes, the depth folded into the channels.

The convolution is one 2-D convolution: the kd slices under a window stand as channels beside each other, so with d the dilation
and s the stride along the depth

    y[n,o,t] = conv2d(x'[n,t], w'[o]),   x'[n,t,(c,u)] = x[n,c,s*t+d*u-p],   w'[o,(c,u)] = w[o,c,u]

A pool reduces the planes first and then the depth, which gives the same largest element, the same first of equal ones, and
the same mean.
"""

from __future__ import annotations

from typing import Any

from keydnn._tensor import Tensor
from keydnn.domain.device import Device
from keydnn.domain.errors import ShapeError
from keydnn.nn.arguments import floating_dtype, positive_int, sizes
from keydnn.nn.layers.layer import Layer, Weightless, initializer_config, layer_device, without_defaults
from keydnn.nn.parameter import Parameter
from keydnn.ops import avgpool2d, conv2d, maxpool2d, pad, stack
from keydnn.saving.registry import register_module

IntOrTriple = int | tuple[int, int, int] | list[int]


def _volume(layer: Layer, x: Tensor) -> tuple[int, ...]:
    if not isinstance(x, Tensor):
        raise TypeError(f"{type(layer).__name__}: expected a Tensor, got {type(x).__name__}")
    if x.ndim != 5:
        raise ShapeError(f"{type(layer).__name__}: expected x (N, C, D, H, W), got shape {x.shape}")
    return x.shape


@register_module()
class Conv3d(Layer):
    """3-D cross-correlation: ``y[n,o,t,i,j] = b[o] + sum_{c,z,u,v} x[n,c,s*t+d*z-p,s*i+d*u-p,s*j+d*v-p] * w[o,c,z,u,v]``.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Slices, rows and columns of the window, as an int or three.
        stride: Step of the window, an int or three.
        padding: Zeros at each border, an int or three.
        bias: Whether to add a learned number per output channel, zero at the start.
        device: Where the parameters live; None is the cpu.
        dtype: float32 (default) or float64.
        initializer: Name, WeightInitializer or function that fills the weight.
        dilation: Distance between the taps of the window, an int or three.
        groups: Number of blocks of channels that do not see each other.

    Shapes: x (N, in_channels, D, H, W) -> y (N, out_channels, D_out, H_out, W_out), D_out = (D + 2p - d(kd - 1) - 1) // s + 1.
        weight (out_channels, in_channels / groups, kd, kh, kw); bias (out_channels,) or None.

    Raises:
        ValueError: A size out of range; x is not 5-D, has other channels, or is smaller than the window.
        RuntimeError: x is on another device than the parameters.

    Example:
        >>> from keydnn.nn import Conv3d
        >>> Conv3d(1, 4, 3, padding=1, stride=(1, 2, 2))(keydnn.ones((2, 1, 5, 8, 8))).shape
        (2, 4, 5, 4, 4)

    Source: Tran et al. 2015, https://arxiv.org/abs/1412.0767
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrTriple,
        stride: IntOrTriple = 1,
        padding: IntOrTriple = 0,
        bias: bool = True,
        device: Device | str | None = None,
        dtype: Any = None,
        initializer: Any = "kaiming",
        dilation: IntOrTriple = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.in_channels = positive_int("in_channels", in_channels, self)
        self.out_channels = positive_int("out_channels", out_channels, self)
        self.kernel_size = sizes("kernel_size", kernel_size, self, 3, 1)
        self.stride = sizes("stride", stride, self, 3, 1)
        self.padding = sizes("padding", padding, self, 3, 0)
        self.dilation = sizes("dilation", dilation, self, 3, 1)
        self.groups = positive_int("groups", groups, self)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(f"Conv3d: groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}")
        self.device = layer_device(device, self)
        self.dtype = floating_dtype(dtype, self)
        self.initializer = initializer
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self.weight = Parameter(shape, self.device, dtype=self.dtype, initializer=initializer)
        self.bias = Parameter((self.out_channels,), self.device, dtype=self.dtype) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """The sum above."""
        n, c, depth, h, w = _volume(self, x)
        if c != self.in_channels:
            raise ShapeError(f"Conv3d: expected x (N, C, D, H, W) with in_channels={self.in_channels}, got shape {x.shape}")
        slices = (depth + 2 * self.padding[0] - self.dilation[0] * (self.kernel_size[0] - 1) - 1) // self.stride[0] + 1
        if slices < 1:
            raise ShapeError(f"Conv3d: the window {self.kernel_size} does not fit into x of shape {x.shape} with padding {self.padding}")
        out, inner = self.weight.shape[:2]
        try:
            y = conv2d(
                self._folded(x, slices),
                self.weight.reshape((out, inner * self.kernel_size[0], *self.kernel_size[1:])),
                self.bias,
                stride=self.stride[1:],
                padding=self.padding[1:],
                dilation=self.dilation[1:],
                groups=self.groups,
            )
        except ShapeError as error:
            raise self._blamed(error) from None
        return y.reshape((n, slices, *y.shape[1:])).transpose((0, 2, 1, 3, 4))

    def _folded(self, x: Tensor, slices: int) -> Tensor:
        """(N * D_out, C * kd, H, W): under each position of the window its slices as channels."""
        n, c, _, h, w = x.shape
        p, k, s, d = self.padding[0], self.kernel_size[0], self.stride[0], self.dilation[0]
        if p:
            x = pad(x, ((0, 0), (0, 0), (p, p), (0, 0), (0, 0)))
        taps = stack([x[:, :, u * d : u * d + (slices - 1) * s + 1 : s] for u in range(k)], 2)  # (N, C, kd, D_out, H, W)
        return taps.transpose((0, 3, 1, 2, 4, 5)).reshape((n * slices, c * k, h, w))

    def get_config(self) -> dict[str, Any]:
        """The arguments; ``initializer``, ``dilation`` and ``groups`` where they differ from their defaults."""
        config = {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "kernel_size": list(self.kernel_size),
            "stride": list(self.stride),
            "padding": list(self.padding),
            "bias": self.bias is not None,
            "device": str(self.device),
            "dtype": self.dtype.name,
            "initializer": initializer_config(self.initializer, "kaiming"),
            "dilation": list(self.dilation),
            "groups": self.groups,
        }
        return without_defaults(config, {"initializer": "kaiming", "dilation": [1, 1, 1], "groups": 1})


class _Window3d(Weightless):
    """A window that slides over the volume."""

    _op: Any = None

    def __init__(self, kernel_size: IntOrTriple, stride: IntOrTriple | None = None, padding: IntOrTriple = 0, dtype: Any = None) -> None:
        super().__init__(dtype)
        self.kernel_size = sizes("kernel_size", kernel_size, self, 3, 1)
        self.stride = self.kernel_size if stride is None else sizes("stride", stride, self, 3, 1)
        self.padding = sizes("padding", padding, self, 3, 0)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, D, H, W) -> (N, C, D_out, H_out, W_out)."""
        n, c, depth, h, w = _volume(self, x)
        (kd, *k), (sd, *s), (pd, *p) = self.kernel_size, self.stride, self.padding
        pool = type(self)._op
        try:
            planes = pool(x.reshape((n, c * depth, h, w)), tuple(k), tuple(s), tuple(p))
            rows, columns = planes.shape[2:]
            y = pool(planes.reshape((n, c, depth, rows * columns)), (kd, 1), (sd, 1), (pd, 0))
        except ShapeError as error:
            raise self._blamed(error) from None
        return y.reshape((n, c, y.shape[2], rows, columns))

    def get_config(self) -> dict[str, Any]:
        """``kernel_size, stride, padding``, and ``dtype`` where one was chosen."""
        return {"kernel_size": list(self.kernel_size), "stride": list(self.stride), "padding": list(self.padding), **super().get_config()}


@register_module()
class MaxPool3d(_Window3d):
    """Largest element of each window; of equal ones the first in row-major order gets the gradient; padding never wins.

    Args:
        kernel_size: Slices, rows and columns of the window, as an int or three.
        stride: Step of the window; None is the window's size.
        padding: Cells added at each border.
        dtype: float32 or float64, to which x is cast; None keeps its dtype.

    Shapes: x (N, C, D, H, W) -> y (N, C, D_out, H_out, W_out), D_out = (D + 2p - kd) // s + 1.

    Raises:
        ValueError: A size out of range; x is not 5-D or smaller than the window.
    """

    _op = staticmethod(maxpool2d)


@register_module()
class AvgPool3d(_Window3d):
    """Mean of each window; padded cells count as 0 and in the divisor; arguments, shapes and errors as MaxPool3d."""

    _op = staticmethod(avgpool2d)
