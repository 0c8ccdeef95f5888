"""Normalisation over groups of channels, and by the root mean square.

    GroupNorm   each sample, each of G groups of channels:  y = gamma (x - mean) / sqrt(var + eps) + beta, biased variance
    InstanceNorm2d   the same with one channel per group
    RMSNorm     over the trailing axes:  y = gamma x / sqrt(mean(x^2) + eps)

None of them keeps running statistics: training and evaluation give the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from keydnn._tensor import Tensor
from keydnn.domain.device import Device
from keydnn.nn.arguments import positive_int
from keydnn.nn.layers.layer import without_defaults
from keydnn.nn.layers.norm import Normalization
from keydnn.ops import layer_norm, square
from keydnn.saving.registry import register_module


class _Groups(Normalization):
    """What GroupNorm and InstanceNorm2d share."""

    def _normalized(self, x: Tensor, groups: int) -> Tensor:
        size = x.shape
        rows = x.reshape((size[0], groups, -1))
        y = layer_norm(rows, rows.shape[2:], eps=self.eps).reshape(size)
        if self.gamma is None or self.beta is None:
            return y
        shape = (size[1],) + (1,) * (len(size) - 2)
        return y * self.gamma.reshape(shape) + self.beta.reshape(shape)


@register_module()
class GroupNorm(_Groups):
    """Normalisation of each sample over groups of channels.

    Args:
        num_groups: Number of groups; divides ``num_channels``.
        num_channels: Channels C of the input.
        device: Where the parameters live; None is the cpu.
        eps: Added to the variance, at least 0.
        affine: Whether to learn gamma (ones at the start) and beta (zeros).
        dtype: float32 (default) or float64.

    Shapes: x (N, C, ...) -> y, the same.  gamma, beta (C,).

    Raises:
        ValueError: A size out of range; x on another device, with other channels, or empty.

    Example:
        >>> from keydnn.nn import GroupNorm
        >>> GroupNorm(2, 4)(keydnn.rand((3, 4, 5, 5))).shape
        (3, 4, 5, 5)

    Source: Wu & He 2018, https://arxiv.org/abs/1803.08494
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        device: Device | str | None = None,
        eps: float = 1e-5,
        affine: bool = True,
        dtype: Any = None,
    ) -> None:
        channels = positive_int("num_channels", num_channels, self)
        groups = positive_int("num_groups", num_groups, self)
        if channels % groups:
            raise ValueError(f"GroupNorm: num_groups={groups} must divide num_channels={channels}")
        super().__init__((channels,), device, eps, affine, dtype)
        self.num_groups, self.num_channels = groups, channels

    def forward(self, x: Tensor) -> Tensor:
        """x normalised per sample and group."""
        if not isinstance(x, Tensor) or x.device is not self.device or x.ndim < 2 or x.shape[1] != self.num_channels or x.size == 0:
            raise self._refusal(x, f"(N, C, ...) with C = {self.num_channels}, not empty")
        return self._normalized(x, self.num_groups)

    def get_config(self) -> dict[str, Any]:
        """``num_groups, num_channels, eps, affine, device``; ``dtype`` if it is not float32."""
        config = {
            "num_groups": self.num_groups,
            "num_channels": self.num_channels,
            "eps": self.eps,
            "affine": self.affine,
            "device": str(self.device),
            "dtype": self.dtype.name,
        }
        return without_defaults(config, {"dtype": "float32"})


@register_module()
class InstanceNorm2d(_Groups):
    """Normalisation of each channel of each image over its plane; arguments as GroupNorm, without parameters by default.

    Shapes: x (N, C, H, W) -> y, the same.  gamma, beta (C,) or None.

    Raises:
        ValueError: A size out of range; x on another device, of another rank, with other channels, or empty.

    Source: Ulyanov et al. 2016, https://arxiv.org/abs/1607.08022
    """

    def __init__(
        self, num_features: int, device: Device | str | None = None, eps: float = 1e-5, affine: bool = False, dtype: Any = None
    ) -> None:
        channels = positive_int("num_features", num_features, self)
        super().__init__((channels,), device, eps, affine, dtype)
        self.num_features = channels

    def forward(self, x: Tensor) -> Tensor:
        """x normalised per sample and channel."""
        if not isinstance(x, Tensor) or x.device is not self.device or x.ndim != 4 or x.shape[1] != self.num_features or x.size == 0:
            raise self._refusal(x, f"(N, C, H, W) with C = {self.num_features}, not empty")
        return self._normalized(x, self.num_features)

    def get_config(self) -> dict[str, Any]:
        """``num_features, eps, affine, device``; ``dtype`` if it is not float32."""
        config = {
            "num_features": self.num_features,
            "eps": self.eps,
            "affine": self.affine,
            "device": str(self.device),
            "dtype": self.dtype.name,
        }
        return without_defaults(config, {"dtype": "float32"})


@register_module()
class RMSNorm(Normalization):
    """Scaling by the root mean square over the trailing axes: ``y = gamma x / sqrt(mean(x ** 2) + eps)``.

    Args:
        normalized_shape: Sizes of the trailing axes; an int means one axis.
        device: Where the parameter lives; None is the cpu.
        eps: Added to the mean of squares, at least 0.
        affine: Whether to learn gamma (ones at the start).
        dtype: float32 (default) or float64.

    Shapes: x ``(..., *normalized_shape)`` -> y, the same.  gamma normalized_shape.

    Raises:
        ValueError: A size out of range; x on another device or with other trailing axes.

    Source: Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467
    """

    def __init__(
        self,
        normalized_shape: int | Iterable[int],
        device: Device | str | None = None,
        eps: float = 1e-6,
        affine: bool = True,
        dtype: Any = None,
    ) -> None:
        sizes = normalized_shape if isinstance(normalized_shape, Iterable) else (normalized_shape,)
        shape = tuple(positive_int("normalized_shape", n, self) for n in sizes)
        if not shape:
            raise ValueError("RMSNorm: normalized_shape must name at least one axis")
        super().__init__(shape, device, eps, affine, dtype)
        self.beta = None
        self.normalized_shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """x scaled over its last axes."""
        shape = self.normalized_shape
        if not isinstance(x, Tensor) or x.device is not self.device or x.shape[-len(shape) :] != shape:
            raise self._refusal(x, f"(..., {', '.join(map(str, shape))})")
        y = x * (square(x).mean(tuple(range(-len(shape), 0)), True) + self.eps).rsqrt()
        return y if self.gamma is None else y * self.gamma

    def get_config(self) -> dict[str, Any]:
        """``normalized_shape, eps, affine, device``; ``dtype`` if it is not float32."""
        config = {
            "normalized_shape": list(self.normalized_shape),
            "eps": self.eps,
            "affine": self.affine,
            "device": str(self.device),
            "dtype": self.dtype.name,
        }
        return without_defaults(config, {"dtype": "float32"})
