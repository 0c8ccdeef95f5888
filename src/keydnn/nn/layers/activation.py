"""Activation layers: each is one function of the elements (softmaxes: of one axis).

Those without parameters take ``dtype=None``: float32 or float64, to which x is cast first.

The first five keep the input object as the only parent of the result's context; the others are written in operations.
"""

from __future__ import annotations

from typing import Any

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.domain.device import Device
from keydnn.domain.errors import ShapeError
from keydnn.nn.arguments import floating_dtype, integer, number, positive_int
from keydnn.nn.layers.layer import Layer, Weightless, layer_device, without_defaults
from keydnn.nn.parameter import Parameter
from keydnn.saving.registry import register_module


class _Scaled(Weightless):
    """A function with a number ``alpha``."""

    def __init__(self, alpha: float, dtype: Any = None) -> None:
        super().__init__(dtype)
        self.alpha = number("alpha", alpha, self)

    def get_config(self) -> dict[str, Any]:
        """``alpha``, and ``dtype`` where one was chosen."""
        return {"alpha": self.alpha, **super().get_config()}


class _AlongAxis(Weightless):
    """A function of the elements along one axis."""

    def __init__(self, axis: int = -1, dtype: Any = None) -> None:
        super().__init__(dtype)
        self.axis = integer("axis", axis, self)

    def get_config(self) -> dict[str, Any]:
        """``axis``, and ``dtype`` where one was chosen."""
        return {"axis": self.axis, **super().get_config()}


@register_module()
class ReLU(Weightless):
    """``max(x, 0)``; the gradient at 0 is 0.

    Shapes: x of any shape -> y of the same.

    Example:
        >>> from keydnn.nn import ReLU
        >>> ReLU()(keydnn.tensor([-1.0, 2.0])).tolist()
        [0.0, 2.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """``max(x, 0)``."""
        return ops.relu(x)


@register_module()
class LeakyReLU(_Scaled):
    """``x`` where ``x > 0``, else ``alpha * x``; the gradient at 0 is alpha.

    Args:
        alpha: Slope for negative x.
        dtype: float32 or float64, to which x is cast; None keeps its dtype.

    Shapes: x of any shape -> y of the same.

    Source: Maas et al. 2013, Rectifier nonlinearities improve neural network acoustic models.
    """

    def __init__(self, alpha: float = 0.01, dtype: Any = None) -> None:
        super().__init__(alpha, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` or ``alpha * x``."""
        return ops.leaky_relu(x, self.alpha)


@register_module()
class Sigmoid(Weightless):
    """``1 / (1 + exp(-x))``, saturating without overflow.

    Shapes: x of any shape -> y of the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``1 / (1 + exp(-x))``."""
        return ops.sigmoid(x)


@register_module()
class Tanh(Weightless):
    """``tanh(x)``, saturating.

    Shapes: x of any shape -> y of the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``tanh(x)``."""
        return ops.tanh(x)


@register_module()
class Softmax(_AlongAxis):
    """``exp(x) / sum(exp(x))`` along one axis, computed without overflow.

    Args:
        axis: The axis, negative from the end.
        dtype: float32 or float64, to which x is cast; None keeps its dtype.

    Shapes: x with that axis -> y of the same shape, sums 1 along it.

    Raises:
        ValueError: x has no such axis.

    Example:
        >>> from keydnn.nn import Softmax
        >>> Softmax()(keydnn.zeros((1, 4))).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
    """

    def forward(self, x: Tensor) -> Tensor:
        """``exp(x) / sum(exp(x))``."""
        try:
            return ops.softmax(x, self.axis)
        except ShapeError as error:
            raise self._blamed(error) from None


@register_module()
class LogSoftmax(_AlongAxis):
    """``x - log(sum(exp(x)))`` along one axis, computed without overflow.

    Args:
        axis: The axis, negative from the end.
        dtype: float32 or float64, to which x is cast; None keeps its dtype.

    Shapes: x with that axis -> y of the same shape.

    Raises:
        ValueError: x has no such axis.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x - log(sum(exp(x)))``."""
        try:
            return ops.log_softmax(x, self.axis)
        except ShapeError as error:
            raise self._blamed(error) from None


@register_module()
class GELU(Weightless):
    """``x * Phi(x)`` with the normal distribution function Phi (the exact form).

    Shapes: x of any shape -> y of the same.

    Source: Hendrycks & Gimpel 2016, https://arxiv.org/abs/1606.08415
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x * Phi(x)``."""
        return ops.gelu(x)


@register_module()
class SiLU(Weightless):
    """``x * sigmoid(x)``; also called Swish.

    Shapes: x of any shape -> y of the same.

    Source: Elfwing et al. 2018, https://arxiv.org/abs/1702.03118
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x * sigmoid(x)``."""
        return ops.silu(x)


Swish = SiLU


@register_module()
class ELU(_Scaled):
    """``x`` where ``x > 0``, else ``alpha * (exp(x) - 1)``.

    Args:
        alpha: Minus the limit for x towards minus infinity.
        dtype: float32 or float64, to which x is cast; None keeps its dtype.

    Shapes: x of any shape -> y of the same.

    Source: Clevert et al. 2016, https://arxiv.org/abs/1511.07289
    """

    def __init__(self, alpha: float = 1.0, dtype: Any = None) -> None:
        super().__init__(alpha, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` or ``alpha * (exp(x) - 1)``."""
        return ops.elu(x, self.alpha)


@register_module()
class SELU(Weightless):
    """``scale * elu(x, alpha)`` with the constants that keep mean 0 and variance 1.

    Shapes: x of any shape -> y of the same.

    Source: Klambauer et al. 2017, https://arxiv.org/abs/1706.02515
    """

    ALPHA = 1.6732632423543772848170429916717
    SCALE = 1.0507009873554804934193349852946

    def forward(self, x: Tensor) -> Tensor:
        """``scale * elu(x, alpha)``."""
        return ops.elu(x, self.ALPHA) * self.SCALE


@register_module()
class Softplus(Weightless):
    """``log(1 + exp(x))``, finite for every finite x.

    Shapes: x of any shape -> y of the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``log(1 + exp(x))``."""
        return ops.softplus(x)


@register_module()
class Softsign(Weightless):
    """``x / (1 + |x|)``.

    Shapes: x of any shape -> y of the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x / (1 + |x|)``."""
        return x / (ops.abs(x) + 1.0)


@register_module()
class Mish(Weightless):
    """``x * tanh(softplus(x))``.

    Shapes: x of any shape -> y of the same.

    Source: Misra 2020, https://arxiv.org/abs/1908.08681
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x * tanh(softplus(x))``."""
        return x * ops.tanh(ops.softplus(x))


@register_module()
class ReLU6(Weightless):
    """``min(max(x, 0), 6)``.

    Shapes: x of any shape -> y of the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``min(max(x, 0), 6)``."""
        return x.clamp(min=0.0, max=6.0)


@register_module()
class Hardtanh(Weightless):
    """``min(max(x, -1), 1)``.

    Shapes: x of any shape -> y of the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``min(max(x, -1), 1)``."""
        return x.clamp(min=-1.0, max=1.0)


@register_module()
class HardSigmoid(Weightless):
    """``min(max(x / 6 + 1 / 2, 0), 1)``.

    Shapes: x of any shape -> y of the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``min(max(x / 6 + 1 / 2, 0), 1)``."""
        return (x / 6.0 + 0.5).clamp(min=0.0, max=1.0)


@register_module()
class Hardswish(Weightless):
    """``x * min(max(x + 3, 0), 6) / 6``.

    Shapes: x of any shape -> y of the same.

    Source: Howard et al. 2019, https://arxiv.org/abs/1905.02244
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x * min(max(x + 3, 0), 6) / 6``."""
        return x * (x + 3.0).clamp(min=0.0, max=6.0) / 6.0


@register_module()
class PReLU(Layer):
    """``x`` where ``x > 0``, else ``weight * x`` with a learned weight for all, or one per channel (axis 1).

    Args:
        num_parameters: 1, or the number of channels.
        init: What the weight starts from.
        device: Where the weight lives; None is the cpu.
        dtype: float32 (default) or float64.

    Shapes: x (N, C, ...) -> y, the same.  weight (num_parameters,).

    Raises:
        ValueError: x does not have ``num_parameters`` channels (if that is not 1).

    Source: He et al. 2015, https://arxiv.org/abs/1502.01852
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Device | str | None = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters = positive_int("num_parameters", num_parameters, self)
        self.init = number("init", init, self)
        self.device = layer_device(device, self)
        self.dtype = floating_dtype(dtype, self)
        self.weight = Parameter((self.num_parameters,), self.device, dtype=self.dtype)
        self.weight.fill(self.init)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` or ``weight * x``."""
        weight = self.weight
        if self.num_parameters > 1:
            if len(x.shape) < 2 or x.shape[1] != self.num_parameters:
                raise ShapeError(f"PReLU: expected x (N, C, ...) with C = {self.num_parameters}, got shape {x.shape}")
            weight = weight.reshape((self.num_parameters,) + (1,) * (len(x.shape) - 2))
        return ops.where(x > 0, x, x * weight)

    def get_config(self) -> dict[str, Any]:
        """``num_parameters, init, device``; ``dtype`` if it is not float32."""
        config = {"num_parameters": self.num_parameters, "init": self.init, "device": str(self.device), "dtype": self.dtype.name}
        return without_defaults(config, {"dtype": "float32"})
