"""Recurrent layers under a precision map: the steps of their cells with every quantisation point.

    a  = Q.accumulator(x_t W + h U) + Q.bias(b_ih) + Q.bias(b_hh)          W = Q.weight(W_ih),  U = Q.recurrent_weight(W_hh)
    RNN   h' = Q.state(A(tanh(a)))                                         A = Q.activation
    LSTM  c' = Q.state(f c + i g),  h' = Q.state(o A(tanh(c')))            i, f, o = A(sigmoid(..)),  g = A(tanh(..))
    GRU   h' = Q.state((1 - z) n + z h)                                    z, r = A(sigmoid(..)),  n = A(tanh(..))

A matrix product is exact and rounded once.  With ``bptt_gradient`` the gradient of the state takes that format at every step on
its way back.  A layer without a format for one of `STEP_FIELDS` runs as the engine's own kernel on quantised weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keydnn._tensor import Tensor
from keydnn.nn.layers.cells import Cell, GRUCell, LSTMCell, RNNCell
from keydnn.ops import matmul, stack, where
from keydnn.stability.nn.quantisers import FLOAT64, Formats, wide

STEP_FIELDS = ("accumulator", "state", "activation", "bptt_gradient")
States = tuple[Tensor, ...]


class _Steps:
    """A cell in its formats.

    Args:
        cell: The cell.
        name: The layer's name.
        q: The formats.
        level: Number of the cell in its layer.
    """

    def __init__(self, cell: Any, name: str, q: Formats, level: int) -> None:
        self.cell, self.name, self.q, self.level, self.turn = cell, name, q, level, 0
        self.W, self.U = self._of("weight", wide(cell.W_ih)), self._of("recurrent_weight", wide(cell.W_hh))
        biases = [b for b in (cell.b_ih, cell.b_hh) if b is not None]
        self.biases = [self._of("bias", wide(b)) for b in biases]
        self.n = cell.hidden_size

    def _of(self, field: str, z: Tensor) -> Tensor:
        self.turn += 1
        return self.q(self.name, field, z, turn=1000 * self.level + self.turn)

    def sums(self, exact: Tensor, part: slice = slice(None)) -> Tensor:
        """An exact product in the accumulator, plus the biases of some columns."""
        a = self._of("accumulator", exact)
        for b in self.biases:
            a = a + b[part]
        return a

    def gate(self, a: Tensor, i: int, function: Callable[[Tensor], Tensor]) -> Tensor:
        """The i-th gate."""
        return self._of("activation", function(a[:, i * self.n : (i + 1) * self.n]))

    def state(self, z: Tensor) -> Tensor:
        """What goes to the next step."""
        z = self._of("state", z)
        return self.q.of_gradient(self.name, "bptt_gradient", z, turn=1000 * self.level + self.turn)

    def rnn(self, x: Tensor, h: Tensor) -> States:
        """One step of an RNN."""
        return (self.state(self._of("activation", self.sums(matmul(x, self.W) + matmul(h, self.U)).tanh())),)

    def lstm(self, x: Tensor, h: Tensor, c: Tensor) -> States:
        """One step of an LSTM, gates i, f, g, o."""
        a = self.sums(matmul(x, self.W) + matmul(h, self.U))
        i, f, o = (self.gate(a, k, Tensor.sigmoid) for k in (0, 1, 3))
        c = self.state(f * c + i * self.gate(a, 2, Tensor.tanh))
        return self.state(o * self._of("activation", c.tanh())), c

    def gru(self, x: Tensor, h: Tensor) -> States:
        """One step of a GRU, gates z, r, n."""
        gates, last = slice(0, 2 * self.n), slice(2 * self.n, 3 * self.n)
        p = matmul(x, self.W)
        a = self.sums(p[:, gates] + matmul(h, self.U[:, gates]), gates)
        z, r = self.gate(a, 0, Tensor.sigmoid), self.gate(a, 1, Tensor.sigmoid)
        if self.cell.reset_after:
            ours, theirs = (b[last] for b in self.biases) if self.biases else (0.0, 0.0)
            inner = self._of("accumulator", matmul(h, self.U[:, last])) + theirs
            b = self._of("accumulator", p[:, last]) + ours + r * inner
        else:
            b = self.sums(p[:, last] + matmul(r * h, self.U[:, last]), last)
        n = self._of("activation", b.tanh())
        return (self.state((1.0 - z) * n + z * h),)


_STEPS: dict[type, Callable[..., States]] = {RNNCell: _Steps.rnn, LSTMCell: _Steps.lstm, GRUCell: _Steps.gru}


def over_steps(cell: Cell, name: str, q: Formats, level: int) -> Callable[..., tuple[Tensor, States]]:
    """What stands for `Cell.over` under a precision map.

    Args:
        cell: A cell of an RNN, LSTM or GRU.
        name: Name of the layer.
        q: The formats.
        level: Number of the cell in the layer.
    """

    def over(x: Tensor, states: tuple[Tensor | None, ...], mask: Tensor | None, reverse: bool) -> tuple[Tensor, States]:
        steps, one = _Steps(cell, name, q, level), _STEPS[type(cell)]
        zero = Tensor((x.shape[1], cell.hidden_size), dtype=FLOAT64)
        now: States = tuple(zero if s is None else wide(s) for s in states)
        outputs: list[Any] = [None] * x.shape[0]
        for t in reversed(range(x.shape[0])) if reverse else range(x.shape[0]):
            new = one(steps, x[t], *now)
            outputs[t] = new[0]
            if mask is not None:
                live = mask[t].reshape(-1, 1)
                outputs[t] = where(live, new[0], 0.0)
                new = tuple(where(live, a, b) for a, b in zip(new, now, strict=True))
            now = new
        return stack(outputs, axis=0), now

    return over
