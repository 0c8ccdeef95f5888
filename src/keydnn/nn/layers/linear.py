"""Affine maps of the features: Linear, and Dense, which learns its input size from the first batch.

    y[n,o] = sum_d x[n,d] * weight[o,d] + bias[o]

The weight has shape (out, in) and multiplies from the right, transposed.  With ``any_rank`` n stands for any number of leading
axes, also none; without it, only matrices are taken, so that a forgotten Flatten is an error and not another network.
"""

from __future__ import annotations

import math
from typing import Any

from keydnn._tensor import Tensor
from keydnn.domain.device import Device
from keydnn.domain.errors import DeviceMismatchError, NotBuiltError, ShapeError
from keydnn.nn.arguments import floating_dtype, positive_int
from keydnn.nn.initializers import as_initializer
from keydnn.nn.layers.layer import Layer, initializer_config, layer_device, without_defaults
from keydnn.nn.parameter import Parameter
from keydnn.ops import linear
from keydnn.saving.registry import register_module

INITIALIZER = "xavier_uniform"


class _BaseLinear(Layer):
    """What Linear and Dense share: parameters of a known input size, the formula, the config."""

    weight: Parameter | None
    bias: Parameter | None
    in_features: int | None
    device: Device | None

    def __init__(self, out_features: int, bias: bool, device: Device | None, dtype: Any, initializer: Any, any_rank: bool) -> None:
        super().__init__()
        self.out_features = positive_int("out_features", out_features, self)
        self.any_rank = bool(any_rank)
        self.in_features = None
        self.device = device
        self.dtype = floating_dtype(dtype, self)
        self.initializer = as_initializer(initializer)
        self._has_bias = bool(bias)
        self.weight = None
        self.bias = None

    @property
    def is_built(self) -> bool:
        """Whether the parameters exist."""
        return self.weight is not None

    def _materialize(self, in_features: int, device: Device) -> None:
        """Make the parameters."""
        weight = Parameter((self.out_features, in_features), device, dtype=self.dtype, initializer=self.initializer)
        bias = Parameter((self.out_features,), device, dtype=self.dtype) if self._has_bias else None
        self.in_features, self.device, self.weight, self.bias = in_features, device, weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """``x @ weight.T + bias``.

        Args:
            x: (batch, in_features), or with ``any_rank`` (..., in_features).

        Returns:
            (batch, out_features), or (..., out_features).

        Raises:
            ValueError: x is not 2-D (without ``any_rank``) or has another number of features.
            RuntimeError: x is on another device than the parameters.
        """
        weight = self.weight
        if weight is None:
            raise NotBuiltError(f"{type(self).__name__} has no parameters yet; call build() on the model")
        try:
            if self.any_rank and isinstance(x, Tensor) and x.ndim != 2 and x.shape[-1:] == weight.shape[1:]:
                y = linear(x.reshape((math.prod(x.shape[:-1]), x.shape[-1])), weight, self.bias)
                return y.reshape((*x.shape[:-1], self.out_features))
            return linear(x, weight, self.bias)
        except ShapeError as error:
            raise self._misfit(x, error) from None

    def _misfit(self, x: Tensor, error: ShapeError) -> Exception:
        leading = "..." if self.any_rank else "batch"
        return ShapeError(f"{type(self).__name__}: expected x ({leading}, {self.in_features}), got shape {x.shape}")

    def get_config(self) -> dict[str, Any]:
        """``in_features, out_features, bias, device, dtype, initializer``; ``any_rank`` where it is set."""
        config = {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self._has_bias,
            "device": None if self.device is None else str(self.device),
            "dtype": self.dtype.name,
            "initializer": initializer_config(self.initializer, INITIALIZER),
            "any_rank": self.any_rank,
        }
        return without_defaults(config, {"any_rank": False})


@register_module()
class Linear(_BaseLinear):
    """Affine map of the features: ``y = x @ weight.T + bias``.

    Args:
        in_features: Features of the input, at least 1.
        out_features: Features of the output, at least 1.
        bias: Whether to add a learned bias, zero at the start.
        device: Where the parameters live; None is the cpu.
        dtype: float32 (default) or float64.
        initializer: Name, WeightInitializer or function that fills the weight.
        any_rank: Whether x may have any number of axes, features last.

    Shapes: x (batch, in_features) -> y (batch, out_features); with ``any_rank`` x (..., in_features) -> y (..., out_features).
        weight (out_features, in_features); bias (out_features,) or None.

    Raises:
        ValueError: A size below 1; x is not 2-D (without ``any_rank``) or has another number of features.
        RuntimeError: x is on another device than the parameters.

    Example:
        >>> from keydnn.nn import Linear
        >>> Linear(4, 3)(keydnn.ones((2, 4))).shape
        (2, 3)

    Source: Glorot & Bengio 2010, http://proceedings.mlr.press/v9/glorot10a.html, eq. 16 (the default initializer).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Device | str | None = None,
        dtype: Any = None,
        initializer: Any = INITIALIZER,
        any_rank: bool = False,
    ) -> None:
        super().__init__(out_features, bias, layer_device(device, self), dtype, initializer, any_rank)
        self._materialize(positive_int("in_features", in_features, self), layer_device(device, self))


@register_module()
class Dense(_BaseLinear):
    """Linear whose input size is taken from the first batch; also called LazyLinear.

    Args:
        out_features: Features of the output, at least 1.
        bias: Whether to add a learned bias, zero at the start.
        device: Where the parameters shall live; None adopts the device of the first batch.
        dtype: float32 (default) or float64.
        initializer: Name, WeightInitializer or function that fills the weight.
        any_rank: Whether x may have any number of axes, features last.

    Shapes: x (batch, in_features) -> y (batch, out_features); with ``any_rank`` x (..., in_features) -> y (..., out_features).
        Before the first batch ``in_features``, ``weight`` and ``bias`` are None and there are no parameters.

    Raises:
        ValueError: A size below 1; x is not 2-D (without ``any_rank``).
        RuntimeError: x is on another device, or has another number of features than the first batch.

    Example:
        >>> from keydnn.nn import Dense
        >>> layer = Dense(3)
        >>> layer.is_built, layer(keydnn.ones((2, 4))).shape, layer.in_features
        (False, (2, 3), 4)
    """

    def __init__(
        self,
        out_features: int,
        bias: bool = True,
        device: Device | str | None = None,
        dtype: Any = None,
        initializer: Any = INITIALIZER,
        any_rank: bool = False,
    ) -> None:
        super().__init__(out_features, bias, None if device is None else layer_device(device, self), dtype, initializer, any_rank)

    def forward(self, x: Tensor) -> Tensor:
        """``x @ weight.T + bias``; the first call makes the parameters."""
        if self.weight is None:
            self._build_for(x)
        return super().forward(x)

    def _build_for(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"Dense: expected a Tensor, got {type(x).__name__}")
        if (x.ndim != 2 and not (self.any_rank and x.ndim)) or x.shape[-1] < 1:
            leading = "..." if self.any_rank else "batch"
            raise ShapeError(f"Dense: expected x ({leading}, features) with at least one feature, got shape {x.shape}")
        if self.device is not None and self.device is not x.device:
            raise DeviceMismatchError(self.device, x.device, "Dense")
        self._materialize(x.shape[-1], x.device)

    def _misfit(self, x: Tensor, error: ShapeError) -> Exception:
        if x.ndim == 2 or (self.any_rank and x.ndim):
            return RuntimeError(f"Dense: built for {self.in_features} input features, got {x.shape[-1]} (x of shape {x.shape})")
        return super()._misfit(x, error)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Dense:
        """A new layer; built at once when the config has ``in_features``."""
        layer = super().from_config(config)
        if config.get("in_features") is not None:
            layer._materialize(positive_int("in_features", config["in_features"], layer), layer_device(layer.device, layer))
        return layer


LazyLinear = Dense
