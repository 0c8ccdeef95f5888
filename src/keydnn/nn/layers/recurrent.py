"""Recurrent layers: a cell of `keydnn.nn.layers.cells` applied to one step after the other, time first.

Several layers stand on each other (``num_layers``), each reading the states of the one below, with dropout between them.
Sequences of different lengths are padded to one and told apart by ``lengths`` or ``mask``; padding changes neither results nor
gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.domain.device import Device
from keydnn.domain.errors import ShapeError
from keydnn.nn.arguments import number, positive_int
from keydnn.nn.layers.cells import Cell, GRUCell, LSTMCell, RNNCell
from keydnn.nn.layers.layer import Layer, without_defaults
from keydnn.ops.random import dropout as drop
from keydnn.ops.recurrent import sequence_mask
from keydnn.saving.registry import register_module

State = Tensor | tuple[Tensor, ...]
EXTRAS = {"num_layers": 1, "batch_first": False, "dropout": 0.0, "device": "cpu", "dtype": "float32"}


class Recurrent(Layer):
    """What RNN, LSTM and GRU share; the arguments are those of :class:`RNN`."""

    cell: Cell
    n_states = 1

    def __init__(
        self,
        cell: type[Cell],
        cell_options: dict[str, Any],
        input_size: int,
        hidden_size: int,
        bias: bool,
        return_sequences: bool,
        return_state: bool,
        keras_compat: bool,
        num_layers: int,
        batch_first: bool,
        dropout: float,
        device: Device | str | None,
        dtype: Any,
    ) -> None:
        super().__init__()
        self.input_size = positive_int("input_size", input_size, self)
        self.hidden_size = positive_int("hidden_size", hidden_size, self)
        self.bias = bool(bias)
        self.return_sequences = bool(return_sequences)
        self.return_state = bool(return_state)
        self.keras_compat = bool(keras_compat)
        self.num_layers = positive_int("num_layers", num_layers, self)
        self.batch_first = bool(batch_first)
        self.dropout = number("dropout", dropout, self)
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"{type(self).__name__}: dropout must be in [0, 1), got {dropout!r}")
        for i in range(self.num_layers):
            size = self.input_size if i == 0 else self.hidden_size
            setattr(self, f"cell_{i}" if i else "cell", cell(size, self.hidden_size, self.bias, device=device, dtype=dtype, **cell_options))
        self.device, self.dtype = self.cell.device, self.cell.dtype

    @property
    def cells(self) -> list[Cell]:
        """The cells, from the input upwards: the children ``cell``, ``cell_1``, ..."""
        return [getattr(self, f"cell_{i}" if i else "cell") for i in range(self.num_layers)]

    def _forward(self, x: Tensor, states: tuple[Tensor | None, ...], lengths: Any, mask: Any, reverse: bool) -> Any:
        """All layers over x; returns what return_sequences and return_state ask for."""
        self._check(x, states)
        name = type(self).__name__
        if self.batch_first:
            x = x.transpose(1, 0, 2)
            mask = None if mask is None else as_mask(mask, x).transpose(1, 0)
        mask = live_steps(x, lengths, mask, name)
        h, ends = x, []
        for i, cell in enumerate(self.cells):
            if i and self.training and self.dropout:
                h = drop(h, self.dropout)
            h, last = cell.over(h, states if self.num_layers == 1 else tuple(None if s is None else s[i] for s in states), mask, reverse)
            ends.append(last)
        if self.num_layers == 1:
            final: tuple[Tensor, ...] = ends[0]
        else:
            final = tuple(Tensor.stack(parts) for parts in zip(*ends, strict=True))
        if self.batch_first and self.return_sequences:
            h = h.transpose(1, 0, 2)
        return self._answer(h, ends[-1][0], final if self.n_states > 1 else final[0])

    def _answer(self, h: Tensor, last: Tensor, state: State) -> Any:
        if self.return_sequences:
            return (h, state) if self.return_state else h
        if not self.return_state:
            return last
        return (last, state) if self.keras_compat or self.n_states > 1 else state

    def _check(self, x: Tensor, states: tuple[Tensor | None, ...]) -> None:
        name, axes = type(self).__name__, "(N, T, {})" if self.batch_first else "(T, N, {})"
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: expected a Tensor, got {type(x).__name__}")
        if x.ndim != 3 or x.shape[2] != self.input_size or 0 in x.shape[:2]:
            raise ShapeError(f"{name}: expected x {axes.format(self.input_size)} with at least one step and row, got shape {x.shape}")
        n = x.shape[0 if self.batch_first else 1]
        want = (n, self.hidden_size) if self.num_layers == 1 else (self.num_layers, n, self.hidden_size)
        for state in states:
            if state is not None and not isinstance(state, Tensor):
                raise TypeError(f"{name}: a state must be a Tensor of shape {want}, got {type(state).__name__}")
            if state is not None and state.shape != want:
                raise ShapeError(f"{name}: expected a state of shape {want}, got {state.shape}")

    def get_config(self) -> dict[str, Any]:
        """``input_size, hidden_size, bias, return_sequences, return_state, keras_compat``, and further ones that are not as usual."""
        config = {
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "bias": self.bias,
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "keras_compat": self.keras_compat,
        }
        extras = {
            "num_layers": self.num_layers,
            "batch_first": self.batch_first,
            "dropout": self.dropout,
            "device": str(self.device),
            "dtype": self.dtype.name,
        }
        return config | without_defaults(extras, EXTRAS)

    def _post_load(self) -> None:
        self.device, self.dtype = self.cell.device, self.cell.dtype


@register_module()
class RNN(Recurrent):
    """Plain recurrent layer: ``h_t = tanh(x_t @ W_ih + h_(t-1) @ W_hh + b_ih + b_hh)`` over all steps.

    Args:
        input_size: Features D of the input, at least 1.
        hidden_size: Features H of the state, at least 1.
        bias: Whether to add the learned b_ih and b_hh.
        return_sequences: Whether the states of all steps are returned, or only the last.
        return_state: Whether the last state is returned too.
        keras_compat: Whether a result with state always is the pair ``(h_T, state)``.
        num_layers: Layers on top of each other, at least 1.
        batch_first: Whether x, the mask and the states of all steps have the batch as first axis.
        dropout: Probability in [0, 1) with which the states between two layers are dropped in training.
        device: Where the parameters live; None is the cpu.
        dtype: float32 (default) or float64.

    Shapes: x (T, N, D) -> h_seq (T, N, H), h_T (N, H); with several layers the state is (num_layers, N, H).
        ``cell`` (``cell_1``, ... for further layers) is an :class:`RNNCell` with the parameters.

    Returns:
        With return_sequences ``(h_seq, h_T)``, or ``h_seq`` without return_state; else ``h_T``, or with return_state and
        keras_compat ``(h_T, h_T)``.

    Raises:
        ValueError: A size below 1, dropout outside [0, 1), or x, a state or a mask of another shape.
        TypeError: x or a state is no Tensor.

    Example:
        >>> from keydnn.nn import RNN
        >>> h_seq, h_T = RNN(4, 3)(keydnn.ones((5, 2, 4)))
        >>> h_seq.shape, h_T.shape
        ((5, 2, 3), (2, 3))

    Source: Elman 1990, https://doi.org/10.1207/s15516709cog1402_1
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        return_sequences: bool = True,
        return_state: bool = True,
        keras_compat: bool = False,
        num_layers: int = 1,
        batch_first: bool = False,
        dropout: float = 0.0,
        device: Device | str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            RNNCell, {}, input_size, hidden_size, bias, return_sequences, return_state, keras_compat, num_layers, batch_first, dropout,
            device, dtype,
        )  # fmt: skip

    def forward(self, x: Tensor, h0: Tensor | None = None, *, lengths: Any = None, mask: Any = None, reverse: bool = False) -> Any:
        """Run over all steps.

        Args:
            x: (T, N, D).
            h0: First state; None is zeros.
            lengths: Steps of each row that count, N integers (a list, an array or a Tensor); the others are padding.
            mask: Instead of lengths: (T, N), 0 at padding.  There the state stays, the output is 0, and no gradient flows.
            reverse: Whether to run from the last step to the first; h_seq[t] belongs to x[t] then too.
        """
        return self._forward(x, (h0,), lengths, mask, reverse)


@register_module()
class LSTM(Recurrent):
    """Long short-term memory over all steps; see :class:`LSTMCell` for the formula.

    Args:
        input_size: Features D of the input, at least 1.
        hidden_size: Features H of the state, at least 1.
        bias: Whether to add the learned b_ih and b_hh.
        return_sequences: Whether the states of all steps are returned, or only the last.
        return_state: Whether the last state and cell are returned too.
        keras_compat: Of no effect here; see :class:`RNN`.
        num_layers: Layers on top of each other, at least 1.
        batch_first: Whether x, the mask and the states of all steps have the batch as first axis.
        dropout: Probability in [0, 1) with which the states between two layers are dropped in training.
        device: Where the parameters live; None is the cpu.
        dtype: float32 (default) or float64.

    Shapes: x (T, N, D) -> h_seq (T, N, H), h_T and c_T (N, H); with several layers the states are (num_layers, N, H).
        ``cell`` (``cell_1``, ... for further layers) is an :class:`LSTMCell` with the parameters.

    Returns:
        With return_sequences ``(h_seq, (h_T, c_T))``, or ``h_seq`` without return_state; else ``(h_T, (h_T, c_T))`` or ``h_T``.

    Raises:
        ValueError: A size below 1, dropout outside [0, 1), or x, a state or a mask of another shape.
        TypeError: x or a state is no Tensor.

    Example:
        >>> from keydnn.nn import LSTM
        >>> h_seq, (h_T, c_T) = LSTM(4, 3)(keydnn.ones((5, 2, 4)))
        >>> h_seq.shape, c_T.shape
        ((5, 2, 3), (2, 3))

    Source: Hochreiter & Schmidhuber 1997, https://doi.org/10.1162/neco.1997.9.8.1735
    """

    n_states = 2

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        return_sequences: bool = True,
        return_state: bool = True,
        keras_compat: bool = False,
        num_layers: int = 1,
        batch_first: bool = False,
        dropout: float = 0.0,
        device: Device | str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            LSTMCell, {}, input_size, hidden_size, bias, return_sequences, return_state, keras_compat, num_layers, batch_first, dropout,
            device, dtype,
        )  # fmt: skip

    def forward(
        self,
        x: Tensor,
        h0: Tensor | None = None,
        c0: Tensor | None = None,
        *,
        lengths: Any = None,
        mask: Any = None,
        reverse: bool = False,
    ) -> Any:
        """Run over all steps; c0 is the first cell (None is zeros), all else as in :meth:`RNN.forward`."""
        return self._forward(x, (h0, c0), lengths, mask, reverse)


@register_module()
class GRU(Recurrent):
    """Gated recurrent unit over all steps; see :class:`GRUCell` for the formula.

    Args:
        input_size: Features D of the input, at least 1.
        hidden_size: Features H of the state, at least 1.
        bias: Whether to add the learned b_ih and b_hh.
        return_sequences: Whether the states of all steps are returned, or only the last.
        return_state: Whether the last state is returned too.
        keras_compat: Whether a result with state always is the pair ``(h_T, state)``.
        num_layers: Layers on top of each other, at least 1.
        batch_first: Whether x, the mask and the states of all steps have the batch as first axis.
        dropout: Probability in [0, 1) with which the states between two layers are dropped in training.
        device: Where the parameters live; None is the cpu.
        dtype: float32 (default) or float64.
        reset_after: Whether the reset gate multiplies the recurrent product (PyTorch, cuDNN) instead of the state before it.

    Shapes: x (T, N, D) -> h_seq (T, N, H), h_T (N, H); with several layers the state is (num_layers, N, H).
        ``cell`` (``cell_1``, ... for further layers) is a :class:`GRUCell` with the parameters.

    Returns:
        As :class:`RNN`.

    Raises:
        ValueError: A size below 1, dropout outside [0, 1), or x, a state or a mask of another shape.
        TypeError: x or a state is no Tensor.

    Example:
        >>> from keydnn.nn import GRU
        >>> GRU(4, 3, return_state=False)(keydnn.ones((5, 2, 4))).shape
        (5, 2, 3)

    Source: Cho et al. 2014, https://arxiv.org/abs/1406.1078
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        return_sequences: bool = True,
        return_state: bool = True,
        keras_compat: bool = False,
        num_layers: int = 1,
        batch_first: bool = False,
        dropout: float = 0.0,
        device: Device | str | None = None,
        dtype: Any = None,
        reset_after: bool = False,
    ) -> None:
        options = {"reset_after": bool(reset_after)}
        super().__init__(
            GRUCell, options, input_size, hidden_size, bias, return_sequences, return_state, keras_compat, num_layers, batch_first,
            dropout, device, dtype,
        )  # fmt: skip
        self.reset_after = bool(reset_after)

    def forward(self, x: Tensor, h0: Tensor | None = None, *, lengths: Any = None, mask: Any = None, reverse: bool = False) -> Any:
        """Run over all steps, as :meth:`RNN.forward`."""
        return self._forward(x, (h0,), lengths, mask, reverse)

    def get_config(self) -> dict[str, Any]:
        """``input_size, hidden_size, bias, return_sequences, return_state, keras_compat``, and further ones that are not as usual."""
        return super().get_config() | without_defaults({"reset_after": self.reset_after}, {"reset_after": False})


# -- padding


def live_steps(x: Tensor, lengths: Any, mask: Any, owner: str) -> Tensor | None:
    """The mask (T, N) in x's dtype that ``lengths`` or ``mask`` say, for x (T, N, D); None for neither.

    Raises:
        ValueError: Both are given, or one does not fit x.
        TypeError: Lengths are no integers.
    """
    if lengths is not None and mask is not None:
        raise ValueError(f"{owner}: give lengths or mask, not both")
    if lengths is not None:
        return sequence_mask(_lengths(lengths, x, owner), x.shape[0], x.dtype)
    if mask is None:
        return None
    found = as_mask(mask, x)
    if found.shape != x.shape[:2]:
        raise ShapeError(f"{owner}: mask has shape {found.shape}, x has {x.shape[0]} steps of {x.shape[1]} rows")
    return found


def as_mask(values: Any, x: Tensor) -> Tensor:
    """A mask given as Tensor, array or nested lists, as a Tensor like x."""
    if isinstance(values, Tensor):
        return values if values.dtype == x.dtype else values.astype(x.dtype)
    return Tensor(data=np.asarray(values).astype(x.dtype), dtype=x.dtype, device=x.device)


def _lengths(lengths: Any, x: Tensor, owner: str) -> Tensor:
    if not isinstance(lengths, Tensor):
        given = np.asarray(lengths)
        if given.dtype.kind not in "iu":
            raise TypeError(f"{owner}: lengths must be integers, got dtype {given.dtype}")
        if given.size and not (0 <= given.min() and given.max() <= x.shape[0]):
            raise ValueError(f"{owner}: lengths must be between 0 and the {x.shape[0]} steps of x, got {given.min()} to {given.max()}")
        lengths = Tensor(data=given.astype(np.int64), dtype=np.int64, device=x.device)
    if lengths.shape != x.shape[1:2]:
        raise ShapeError(f"{owner}: lengths have shape {lengths.shape}, x has {x.shape[1]} rows")
    return lengths
