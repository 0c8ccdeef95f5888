"""2-D convolution layers over NCHW; the formulas stand in ``keydnn.ops.conv``.

Padding "same" gives ceil(n / stride) rows and columns; where the zeros needed are odd in number, the extra one comes last.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.domain.device import Device
from keydnn.domain.errors import ShapeError
from keydnn.nn.arguments import floating_dtype, pair, positive_int
from keydnn.nn.layers.layer import Layer, initializer_config, layer_device, without_defaults
from keydnn.nn.parameter import Parameter
from keydnn.ops import conv2d, conv2d_transpose, pad
from keydnn.saving.registry import register_module

INITIALIZER = "kaiming"
Pair = tuple[int, int]
IntOrPair = int | Pair | list[int]


class _BaseConv2d(Layer):
    """What both convolutions share: their arguments, parameters and the common part of the config."""

    padding: Pair | str

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrPair,
        stride: IntOrPair,
        device: Device | str | None,
        dtype: Any,
        dilation: IntOrPair,
        groups: int,
    ) -> None:
        super().__init__()
        self.in_channels = positive_int("in_channels", in_channels, self)
        self.out_channels = positive_int("out_channels", out_channels, self)
        self.kernel_size = pair("kernel_size", kernel_size, self, 1)
        self.stride = pair("stride", stride, self)
        self.dilation = pair("dilation", dilation, self, 1)
        self.groups = positive_int("groups", groups, self)
        self.device = layer_device(device, self)
        self.dtype = floating_dtype(dtype, self)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"{type(self).__name__}: groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}"
            )

    def _make_parameters(self, outer: int, inner: int, bias: bool, initializer: Any) -> None:
        """Weight (outer, inner / groups, kh, kw) and bias (out_channels,)."""
        shape = (outer, inner // self.groups, *self.kernel_size)
        self.weight = Parameter(shape, self.device, dtype=self.dtype, initializer=initializer)
        self.bias = Parameter((self.out_channels,), self.device, dtype=self.dtype) if bias else None

    def get_config(self) -> dict[str, Any]:
        """``in_channels, out_channels, kernel_size, stride, padding, bias, device, dtype``."""
        return {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "kernel_size": list(self.kernel_size),
            "stride": list(self.stride),
            "padding": self.padding if isinstance(self.padding, str) else list(self.padding),
            "bias": self.bias is not None,
            "device": str(self.device),
            "dtype": self.dtype.name,
        }

    def _extras(self, initializer: Any, default: str | None) -> dict[str, Any]:
        """Keys that are written only where they say something."""
        extras = {"initializer": initializer_config(initializer, default), "dilation": list(self.dilation), "groups": self.groups}
        return without_defaults(extras, {"initializer": default, "dilation": [1, 1], "groups": 1})


@register_module()
class Conv2d(_BaseConv2d):
    """2-D cross-correlation: ``y[n,o,i,j] = b[o] + sum_{c,u,v} x[n,c,s*i+d*u-p,s*j+d*v-p] * w[o,c,u,v]``.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Rows and columns of the window, as an int or a pair.
        stride: Step of the window, an int or a pair.
        padding: Zeros at each border, an int or a pair; ``"valid"`` (none) or ``"same"`` (ceil(n / stride) rows and columns out).
        bias: Whether to add a learned number per output channel, zero at the start.
        device: Where the parameters live; None is the cpu.
        dtype: float32 (default) or float64.
        initializer: Name, WeightInitializer or function that fills the weight.
        dilation: Distance between the taps of the window, an int or a pair.
        groups: Number of blocks of channels that do not see each other; ``in_channels`` makes it depthwise.

    Shapes: x (N, in_channels, H, W) -> y (N, out_channels, H_out, W_out), H_out = (H + 2p - d(kh - 1) - 1) // s + 1.
        weight (out_channels, in_channels / groups, kh, kw); bias (out_channels,) or None.

    Raises:
        ValueError: A size out of range; x is not 4-D, has other channels, or is smaller than the window.
        RuntimeError: x is on another device than the parameters.

    Example:
        >>> from keydnn.nn import Conv2d
        >>> Conv2d(3, 8, 3, stride=2, padding=1)(keydnn.ones((2, 3, 32, 32))).shape
        (2, 8, 16, 16)

    Sources: Dumoulin & Visin 2016, https://arxiv.org/abs/1603.07285; He et al. 2015, https://arxiv.org/abs/1502.01852
    (the default initializer).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: IntOrPair | str = 0,
        bias: bool = True,
        device: Device | str | None = None,
        dtype: Any = None,
        initializer: Any = INITIALIZER,
        dilation: IntOrPair = 1,
        groups: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, device, dtype, dilation, groups)
        pair("stride", stride, self, 1)
        self.padding = self._resolved(padding)
        self.initializer = initializer
        self._make_parameters(self.out_channels, self.in_channels, bias, initializer)

    def _resolved(self, padding: IntOrPair | str) -> Pair | str:
        """The padding as a pair, wherever it does not depend on the size of the input."""
        if not isinstance(padding, str):
            return pair("padding", padding, self, 0)
        if padding not in ("same", "valid"):
            raise ValueError(f"{type(self).__name__}: padding must be an int, a pair, 'same' or 'valid', got {padding!r}")
        if padding == "valid":
            return 0, 0
        rows, columns = (d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True))
        return (rows // 2, columns // 2) if self.stride == (1, 1) and rows % 2 == columns % 2 == 0 else "same"

    def forward(self, x: Tensor) -> Tensor:
        """The sum above.

        Args:
            x: (N, in_channels, H, W).

        Returns:
            (N, out_channels, H_out, W_out).

        Raises:
            ValueError: x is not 4-D, has other channels, or is smaller than the window.
            RuntimeError: x is on another device than the parameters.
        """
        padding: Any = self.padding
        if padding == "same":
            x, padding = self._padded(x)
        try:
            return conv2d(x, self.weight, self.bias, stride=self.stride, padding=padding, dilation=self.dilation, groups=self.groups)
        except ShapeError as error:
            raise self._blamed(error) from None

    def _padded(self, x: Tensor) -> tuple[Tensor, Pair]:
        """x with those zeros put on that the convolution cannot put on itself, and the padding left to it."""
        sides = []
        for n, k, s, d in zip(x.shape[2:], self.kernel_size, self.stride, self.dilation, strict=False):
            total = max((math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0)
            sides.append((total // 2, total - total // 2))
        if len(x.shape) != 4 or all(before == after for before, after in sides):
            return x, (sides[0][0], sides[1][0]) if len(sides) == 2 else (0, 0)
        return pad(x, ((0, 0), (0, 0), *sides)), (0, 0)

    def get_config(self) -> dict[str, Any]:
        """``in_channels, out_channels, kernel_size, stride, padding, bias, device, dtype``; others where they differ from their default."""
        return super().get_config() | self._extras(self.initializer, INITIALIZER)


@register_module()
class Conv2dTranspose(_BaseConv2d):
    """Transposed 2-D convolution: the map that gives back the spatial size a Conv2d took away.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Rows and columns of the window, as an int or a pair.
        stride: Distance of the windows in the output, an int or a pair.
        padding: Rows and columns taken off at each border, an int or a pair.
        output_padding: Rows and columns added at the end, an int or a pair, below the stride.
        bias: Whether to add a learned number per output channel, zero at the start.
        device: Where the parameters live; None is the cpu.
        dtype: float32 (default) or float64.
        initializer: None draws normally with standard deviation sqrt(2 / (in_channels * kh * kw)); or a name, object or function.
        dilation: Distance between the taps of the window, an int or a pair.
        groups: Number of blocks of channels that do not see each other.

    Shapes: x (N, in_channels, H, W) -> y (N, out_channels, H_out, W_out), H_out = (H - 1)s - 2p + d(kh - 1) + 1 + op.
        weight (in_channels, out_channels / groups, kh, kw); bias (out_channels,) or None.

    Raises:
        ValueError: A size out of range; when run: stride below 1, output_padding outside [0, stride), no output left,
            x not 4-D or with other channels.
        RuntimeError: x is on another device than the parameters.

    Example:
        >>> from keydnn.nn import Conv2dTranspose
        >>> Conv2dTranspose(8, 3, 3, stride=2, padding=1, output_padding=1)(keydnn.ones((2, 8, 16, 16))).shape
        (2, 3, 32, 32)

    Source: Dumoulin & Visin 2016, https://arxiv.org/abs/1603.07285, chapter 4.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: IntOrPair = 0,
        output_padding: IntOrPair = 0,
        bias: bool = True,
        device: Device | str | None = None,
        dtype: Any = None,
        initializer: Any = None,
        dilation: IntOrPair = 1,
        groups: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, device, dtype, dilation, groups)
        self.padding: Pair = pair("padding", padding, self, 0)
        self.output_padding = pair("output_padding", output_padding, self)
        self.initializer = initializer
        self._make_parameters(self.in_channels, self.out_channels, bias, _by_input if initializer is None else initializer)

    def forward(self, x: Tensor) -> Tensor:
        """The gradient of a convolution to its input, with x as the gradient, plus the bias.

        Args:
            x: (N, in_channels, H, W).

        Returns:
            (N, out_channels, H_out, W_out).

        Raises:
            ValueError: Shapes, stride or output_padding do not fit.
            RuntimeError: x is on another device than the parameters.
        """
        try:
            return conv2d_transpose(
                x,
                self.weight,
                self.bias,
                stride=self.stride,
                padding=self.padding,
                output_padding=self.output_padding,
                dilation=self.dilation,
                groups=self.groups,
            )
        except ShapeError as error:
            raise self._blamed(error) from None

    def get_config(self) -> dict[str, Any]:
        """The keys of Conv2d and ``output_padding``; others where they differ from their default."""
        return super().get_config() | {"output_padding": list(self.output_padding)} | self._extras(self.initializer, None)


def _by_input(weight: Parameter) -> None:
    """Normally distributed, standard deviation sqrt(2 / (in_channels * kh * kw))."""
    std = math.sqrt(2.0 / (weight.shape[0] * weight.shape[2] * weight.shape[3]))
    weight.copy_from_numpy(np.random.normal(0.0, std, weight.shape))


Conv2D = Conv2d
Conv2DTranspose = Conv2dTranspose
