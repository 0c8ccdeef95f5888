"""Recurrent cells: one step of a recurrent layer, and its parameters.

    RNNCell    h' = tanh(a)                                                     a = x W_ih + h W_hh + b_ih + b_hh
    LSTMCell   c' = sigmoid(f) * c + sigmoid(i) * tanh(g),  h' = sigmoid(o) * tanh(c')                i, f, g, o = a
    GRUCell    h' = (1 - z) * n + z * h,   z, r = sigmoid(a_z), sigmoid(a_r),   n = tanh(x W_in + (r * h) W_hn + b_in + b_hn)

The weights stand on the right: W_ih (D, kH), W_hh (H, kH).  With ``reset_after`` the GRU multiplies the recurrent product
instead, n = tanh(x W_in + b_in + r * (h W_hn + b_hn)), as PyTorch and cuDNN do.
"""

from __future__ import annotations

import math
from typing import Any

from keydnn._tensor import Tensor
from keydnn.autograd.modes import RECORDINGS, state
from keydnn.domain.device import Device
from keydnn.domain.errors import ShapeError
from keydnn.nn.arguments import floating_dtype, positive_int
from keydnn.nn.initializers import WeightInitializer
from keydnn.nn.layers.layer import Layer, layer_device, without_defaults
from keydnn.nn.parameter import Parameter
from keydnn.ops import recurrent
from keydnn.saving.registry import register_module


class Cell(Layer):
    """What the cells share: parameters, config, and all steps at once.

    Args:
        input_size: Features of the input, at least 1.
        hidden_size: Features of the state, at least 1.
        bias: Whether to add the learned b_ih and b_hh.
        device: Where the parameters live; None is the cpu.
        dtype: float32 (default) or float64.
    """

    gates: int
    W_ih: Parameter
    W_hh: Parameter
    b_ih: Parameter | None
    b_hh: Parameter | None

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Device | str | None = None, dtype: Any = None) -> None:
        super().__init__()
        self.input_size = positive_int("input_size", input_size, self)
        self.hidden_size = positive_int("hidden_size", hidden_size, self)
        self.bias = bool(bias)
        self.device = layer_device(device, self)
        self.dtype = floating_dtype(dtype, self)
        limit = 1.0 / math.sqrt(self.hidden_size)
        fill = WeightInitializer("uniform", low=-limit, high=limit)
        width = self.gates * self.hidden_size

        def parameter(*shape: int) -> Parameter:
            return Parameter(shape, self.device, dtype=self.dtype, initializer=fill)

        self.W_ih = parameter(self.input_size, width)
        self.W_hh = parameter(self.hidden_size, width)
        self.b_ih = parameter(width) if self.bias else None
        self.b_hh = parameter(width) if self.bias else None

    @property
    def weights(self) -> tuple[Parameter, Parameter, Parameter | None, Parameter | None]:
        """W_ih, W_hh, b_ih and b_hh."""
        return self.W_ih, self.W_hh, self.b_ih, self.b_hh

    def over(self, x: Tensor, states: tuple[Tensor | None, ...], mask: Tensor | None, reverse: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """All steps of x (T, N, D): the states (T, N, H), and what the last step leaves; hooks of the cell do not see them."""
        if RECORDINGS and state.recorder is not None:
            state.recorder.module(self)
        try:
            h, *last = self._sequence(x, states, mask, reverse)
        except ShapeError as error:
            raise self._blamed(error) from None
        return h, tuple(last)

    def _sequence(self, x: Tensor, states: tuple[Tensor | None, ...], mask: Tensor | None, reverse: bool) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def _step(self, x_t: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """One step: a sequence of one."""
        name = type(self).__name__
        for t in (x_t, *states):
            if not isinstance(t, Tensor):
                raise TypeError(f"{name}: expected Tensors, got {type(t).__name__}")
        if x_t.ndim != 2 or x_t.shape[1] != self.input_size:
            raise ShapeError(f"{name}: expected x_t (N, {self.input_size}), got shape {x_t.shape}")
        return self.over(x_t.reshape((1, *x_t.shape)), states, None, False)[1]

    def get_config(self) -> dict[str, Any]:
        """``input_size, hidden_size, bias``, and further ones that are not as usual."""
        config = {"input_size": self.input_size, "hidden_size": self.hidden_size, "bias": self.bias}
        extras = {"device": str(self.device), "dtype": self.dtype.name}
        return config | without_defaults(extras, {"device": "cpu", "dtype": "float32"})


@register_module()
class RNNCell(Cell):
    """One step of a plain recurrent layer: ``h' = tanh(x_t @ W_ih + h @ W_hh + b_ih + b_hh)``.

    Args:
        input_size: Features D of the input, at least 1.
        hidden_size: Features H of the state, at least 1.
        bias: Whether to add the learned b_ih and b_hh.
        device: Where the parameters live; None is the cpu.
        dtype: float32 (default) or float64.

    Shapes: x_t (N, D), h (N, H) -> h' (N, H).
        W_ih (D, H), W_hh (H, H), b_ih and b_hh (H,) or None; all even in +-1/sqrt(H) at the start.

    Raises:
        ValueError: A size below 1, or operands of other shapes.

    Example:
        >>> from keydnn.nn import RNNCell
        >>> RNNCell(4, 3)(keydnn.ones((2, 4)), keydnn.zeros((2, 3))).shape
        (2, 3)

    Source: Elman 1990, https://doi.org/10.1207/s15516709cog1402_1
    """

    gates = 1

    def forward(self, x_t: Tensor, h: Tensor) -> Tensor:
        """``tanh(x_t @ W_ih + h @ W_hh + b_ih + b_hh)``."""
        try:
            return recurrent.rnn_cell(x_t, h, *self.weights)
        except ShapeError as error:
            raise self._blamed(error) from None

    def _sequence(self, x: Tensor, states: tuple[Tensor | None, ...], mask: Tensor | None, reverse: bool) -> tuple[Tensor, ...]:
        return recurrent.rnn(x, *self.weights, *states, mask=mask, reverse=reverse)


@register_module()
class LSTMCell(Cell):
    """One step of a long short-term memory, gates i, f, g, o.

    ``i, f, g, o = x_t @ W_ih + h @ W_hh + b_ih + b_hh``;  ``c' = sigmoid(f) * c + sigmoid(i) * tanh(g)``;
    ``h' = sigmoid(o) * tanh(c')``.

    Args:
        input_size: Features D of the input, at least 1.
        hidden_size: Features H of the state, at least 1.
        bias: Whether to add the learned b_ih and b_hh.
        device: Where the parameters live; None is the cpu.
        dtype: float32 (default) or float64.

    Shapes: x_t (N, D), h (N, H), c (N, H) -> (h', c'), each (N, H).
        W_ih (D, 4H), W_hh (H, 4H), b_ih and b_hh (4H,) or None; all even in +-1/sqrt(H) at the start.

    Raises:
        ValueError: A size below 1, or operands of other shapes.
        TypeError: An operand is no Tensor.

    Example:
        >>> from keydnn.nn import LSTMCell
        >>> h, c = LSTMCell(4, 3)(keydnn.ones((2, 4)), keydnn.zeros((2, 3)), keydnn.zeros((2, 3)))
        >>> h.shape, c.shape
        ((2, 3), (2, 3))

    Source: Hochreiter & Schmidhuber 1997, https://doi.org/10.1162/neco.1997.9.8.1735; forget gate: Gers et al. 2000,
        https://doi.org/10.1162/089976600300015015
    """

    gates = 4

    def forward(self, x_t: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """``(h', c')``."""
        h_next, c_next = self._step(x_t, h, c)
        return h_next, c_next

    def _sequence(self, x: Tensor, states: tuple[Tensor | None, ...], mask: Tensor | None, reverse: bool) -> tuple[Tensor, ...]:
        return recurrent.lstm(x, *self.weights, *states, mask=mask, reverse=reverse)


@register_module()
class GRUCell(Cell):
    """One step of a gated recurrent unit, gates z, r, n: ``h' = (1 - z) * n + z * h``.

    The reset gate multiplies the state before the recurrent product, as in Keras with ``reset_after=False``:
    ``n = tanh(x W_in + (r * h) W_hn + b_in + b_hn)``.

    Args:
        input_size: Features D of the input, at least 1.
        hidden_size: Features H of the state, at least 1.
        bias: Whether to add the learned b_ih and b_hh.
        device: Where the parameters live; None is the cpu.
        dtype: float32 (default) or float64.
        reset_after: Whether the reset gate multiplies the product instead, ``n = tanh(x W_in + b_in + r * (h W_hn + b_hn))``.

    Shapes: x_t (N, D), h (N, H) -> h' (N, H).
        W_ih (D, 3H), W_hh (H, 3H), b_ih and b_hh (3H,) or None; all even in +-1/sqrt(H) at the start.

    Raises:
        ValueError: A size below 1, or operands of other shapes.
        TypeError: An operand is no Tensor.

    Example:
        >>> from keydnn.nn import GRUCell
        >>> GRUCell(4, 3)(keydnn.ones((2, 4)), keydnn.zeros((2, 3))).shape
        (2, 3)

    Source: Cho et al. 2014, https://arxiv.org/abs/1406.1078
    """

    gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Device | str | None = None,
        dtype: Any = None,
        reset_after: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.reset_after = bool(reset_after)

    def forward(self, x_t: Tensor, h: Tensor) -> Tensor:
        """The next state."""
        return self._step(x_t, h)[0]

    def _sequence(self, x: Tensor, states: tuple[Tensor | None, ...], mask: Tensor | None, reverse: bool) -> tuple[Tensor, ...]:
        return recurrent.gru(x, *self.weights, *states, mask=mask, reverse=reverse, reset_after=self.reset_after)

    def get_config(self) -> dict[str, Any]:
        """``input_size, hidden_size, bias``, and further ones that are not as usual."""
        return super().get_config() | without_defaults({"reset_after": self.reset_after}, {"reset_after": False})
