"""Normalisation layers: ``y = gamma * (x - mean) / sqrt(var + eps) + beta`` with the biased variance.

BatchNorm takes the statistics of each channel over the batch (and the plane) while training and running averages of them
afterwards:  running = (1 - momentum) * running + momentum * batch,  the biased variance here too.  LayerNorm takes those of
each sample over the trailing axes, always.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from keydnn._tensor import Tensor
from keydnn.domain.device import Device
from keydnn.domain.errors import ShapeError
from keydnn.nn.arguments import floating_dtype, number, positive_int
from keydnn.nn.layers.layer import Layer, layer_device, without_defaults
from keydnn.nn.parameter import Parameter
from keydnn.ops import batch_norm, layer_norm, normalize_by
from keydnn.ops.inplace import ema_
from keydnn.saving.registry import register_module


class Normalization(Layer):
    """Base of the normalisation layers (``Sequential.build`` steps over them).

    Args:
        shape: Shape of gamma and beta.
        device: Where parameters and buffers live; None is the cpu.
        eps: Added to the variance, at least 0.
        affine: Whether to learn gamma (ones at the start) and beta (zeros).
        dtype: float32 (default) or float64.
    """

    gamma: Parameter | None
    beta: Parameter | None

    def __init__(self, shape: tuple[int, ...], device: Device | str | None, eps: float, affine: bool, dtype: Any) -> None:
        super().__init__()
        self.device = layer_device(device, self)
        self.dtype = floating_dtype(dtype, self)
        self.eps = number("eps", eps, self)
        if self.eps < 0.0:
            raise ValueError(f"{type(self).__name__}: eps must not be negative, got {eps!r}")
        self.affine = bool(affine)
        self.gamma = Parameter(shape, self.device, dtype=self.dtype, initializer="ones") if affine else None
        self.beta = Parameter(shape, self.device, dtype=self.dtype) if affine else None

    def _refusal(self, x: Tensor, expected: str) -> Exception:
        """What to raise for an input that the layer cannot take."""
        name = type(self).__name__
        if not isinstance(x, Tensor):
            return TypeError(f"{name}: expected a Tensor, got {type(x).__name__}")
        if x.device is not self.device:
            return ValueError(f"{name}: x is on device '{x.device}', the layer is on '{self.device}'; move one with .to('{self.device}')")
        return ShapeError(f"{name}: expected x {expected}, got shape {x.shape}")


class _BatchNorm(Normalization):
    """What BatchNorm1d and BatchNorm2d share; ``_axes`` names the axes of the input."""

    _axes: tuple[str, ...]
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        num_features: int,
        device: Device | str | None = None,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        dtype: Any = None,
    ) -> None:
        shape = (positive_int("num_features", num_features, self),)
        super().__init__(shape, device, eps, affine, dtype)
        self.num_features = shape[0]
        self.momentum = number("momentum", momentum, self)
        if not 0.0 <= self.momentum <= 1.0:
            raise ValueError(f"{type(self).__name__}: momentum must be in [0, 1], got {momentum!r}")
        self.register_buffer("running_mean", Tensor.zeros(shape, device=self.device, dtype=self.dtype))
        self.register_buffer("running_var", Tensor.ones(shape, device=self.device, dtype=self.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """x normalised per channel; in training mode the running statistics move.

        Args:
            x: (N, C), or (N, C, H, W).

        Returns:
            A tensor of x's shape.

        Raises:
            ValueError: x has another rank, number of channels or device, or (training) no elements.
        """
        size, mean, var = x.shape, self.running_mean, self.running_var
        if len(size) != len(self._axes) or size[1] != self.num_features or x.device is not mean.device:
            raise self._refusal(x, f"({', '.join(self._axes)}) with C = {self.num_features}")
        if not self.training:
            return normalize_by(x, mean, var, self.gamma, self.beta, self.eps)
        try:
            y, batch_mean, batch_var = batch_norm(x, self.gamma, self.beta, self.eps)
        except ShapeError as error:
            raise self._blamed(error) from None
        ema_(mean, batch_mean, momentum=self.momentum)
        ema_(var, batch_var, momentum=self.momentum)
        return y

    def get_config(self) -> dict[str, Any]:
        """``num_features, eps, momentum, affine, device``; ``dtype`` if it is not float32."""
        config = {
            "num_features": self.num_features,
            "eps": self.eps,
            "momentum": self.momentum,
            "affine": self.affine,
            "device": str(self.device),
            "dtype": self.dtype.name,
        }
        return without_defaults(config, {"dtype": "float32"})


@register_module()
class BatchNorm1d(_BatchNorm):
    """Batch normalisation of features.

    Args:
        num_features: Number C of channels.
        device: Where parameters and buffers live; None is the cpu.
        eps: Added to the variance, at least 0.
        momentum: Weight of the newest batch in the running statistics, in [0, 1].
        affine: Whether to learn gamma (ones at the start) and beta (zeros).
        dtype: float32 (default) or float64.

    Shapes: x (N, C) -> y (N, C).  gamma, beta, running_mean, running_var (C,).

    Raises:
        ValueError: An argument out of range; x has another rank, number of channels or device.
        TypeError: ``device`` is no Device, string or None.

    Example:
        >>> from keydnn.nn import BatchNorm1d
        >>> layer = BatchNorm1d(2)
        >>> layer(keydnn.tensor([[1.0, 5.0], [3.0, 5.0]])).tolist()
        [[-0.99999..., 0.0], [0.99999..., 0.0]]

    Source: Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167
    """

    _axes = ("N", "C")


@register_module()
class BatchNorm2d(_BatchNorm):
    """Batch normalisation of images, each channel over the batch and the plane; arguments and errors as BatchNorm1d.

    Shapes: x (N, C, H, W) -> y (N, C, H, W).  gamma, beta, running_mean, running_var (C,).

    Example:
        >>> from keydnn.nn import BatchNorm2d
        >>> BatchNorm2d(3)(keydnn.ones((2, 3, 4, 4))).shape
        (2, 3, 4, 4)

    Source: Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167
    """

    _axes = ("N", "C", "H", "W")


@register_module()
class LayerNorm(Normalization):
    """Layer normalisation over the trailing axes.

    Args:
        normalized_shape: Sizes of the trailing axes; an int means one axis.
        device: Where the parameters live; None is the cpu.
        eps: Added to the variance, at least 0.
        affine: Whether to learn gamma (ones at the start) and beta (zeros).
        dtype: float32 (default) or float64.

    Shapes: x ``(..., *normalized_shape)`` -> y, the same.  gamma, beta normalized_shape.

    Raises:
        ValueError: A size below 1, an empty shape (when run), x on another device or with other trailing axes.
        TypeError: ``device`` is no Device, string or None.

    Example:
        >>> from keydnn.nn import LayerNorm
        >>> LayerNorm(3)(keydnn.tensor([[1.0, 2.0, 3.0]])).tolist()
        [[-1.2247..., 0.0, 1.2247...]]

    Source: Ba, Kiros & Hinton 2016, https://arxiv.org/abs/1607.06450
    """

    def __init__(
        self,
        normalized_shape: int | Iterable[int],
        device: Device | str | None = None,
        eps: float = 1e-5,
        affine: bool = True,
        dtype: Any = None,
    ) -> None:
        sizes = normalized_shape if isinstance(normalized_shape, Iterable) else (normalized_shape,)
        shape = tuple(positive_int("normalized_shape", n, self) for n in sizes)
        super().__init__(shape, device, eps, affine, dtype)
        self.normalized_shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """x normalised over its last axes.

        Args:
            x: ``(..., *normalized_shape)``.

        Returns:
            A tensor of x's shape.

        Raises:
            ValueError: The trailing axes or the device differ, or ``normalized_shape`` is empty.
        """
        if x.device is not self.device:
            raise self._refusal(x, "")
        try:
            return layer_norm(x, self.normalized_shape, self.gamma, self.beta, self.eps)
        except ShapeError as error:
            raise self._blamed(error) from None

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


BatchNorm1D = BatchNorm1d
BatchNorm2D = BatchNorm2d
