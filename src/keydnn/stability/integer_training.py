"""Training in integers: backward pass and gradient descent of a quantised network without a floating-point number in between.

    r = z - y                          the residual; y is stored in the format of the output
    delta_in = delta W                 ReLU: where its input is above 0
    G = Q.gradient(delta^T x / D)      exact sums, one division; D = N for half_mse, N M / 2 for keras_mse
    theta <- Q.theta(theta + Q.update(-eta G))

With a format ``gradient_accum`` the samples go one by one through a register, as in hardware:
``a <- Q.gradient_accum(a + Q.gradient(g_n))``, ``G = Q.gradient(a / N)``.  A division is not exact; it is rounded once, as if it
were: one more bit that tells whether anything was left over is all that rounding has to know.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keydnn.nn import Flatten, ReLU
from keydnn.stability.integer import Fixed, IntegerNetwork, Trace, added, cast, compile_integer, product, room, shifted, stored

LOSS_MODES = ("half_mse", "keras_mse")


def divided(a: Fixed, d: int, dtype: Any) -> tuple[Fixed, int]:
    """``a / d`` in a format, rounded once, and how many overflowed.

    Args:
        a: The numerators.
        d: The denominator, above 0.
        dtype: A fixed-point format.
    """
    f = max(dtype.fractional_bits, a.f) + 1
    bits = a.bits + f - a.f + 1
    raw = room(shifted(a, f), bits)
    return cast(Fixed(raw // d << 1 | (raw % d != 0), f + 1, bits), dtype)


def _transposed(a: Fixed) -> Fixed:
    return Fixed(a.raw.T, a.f, a.bits)


def _negative(a: Fixed) -> Fixed:
    return Fixed(-room(a.raw, a.bits + 1), a.f, a.bits + 1)


def _exactly(value: float) -> Fixed:
    """A float32 number as an integer and a count of fractional bits."""
    over, under = float(np.float32(value)).as_integer_ratio()
    return Fixed(np.array([[over]], object if over.bit_length() > 62 else np.int64), under.bit_length() - 1, over.bit_length() + 1)


class IntegerTraining:
    """A network whose weights are integers and learn as integers; made by `train_integer`.

    Attributes:
        network: The compiled network; `keydnn.stability.integer.IntegerNetwork.forward_int` runs it as it stands.
        overflows: How often a gradient, register, update or weight has overflowed, by ``"layer.parameter"``.
    """

    def __init__(self, network: IntegerNetwork, learning_rate: float, loss_mode: str) -> None:
        self.network, self.loss_mode = network, loss_mode
        self.rate = _negative(_exactly(learning_rate))
        self.overflows: dict[str, int] = {}

    def step(self, X: Any, Y: Any) -> Fixed:
        """One step of gradient descent on a batch.

        Args:
            X: Inputs, real numbers; stored in ``input.value`` first.
            Y: Targets, real numbers; stored in the format of the output first.

        Returns:
            The sum of the squared residuals before the step, exact.

        Raises:
            ValueError: The targets are not shaped like the output.
        """
        traces = self.network.trace(X)
        residual = self._residual(traces, np.asarray(Y, np.float64))
        found = self._gradients(traces, residual)
        for (name, own), g in found.items():
            self._move(name, own, g)
        flat = Fixed(residual.raw.reshape(1, -1), residual.f, residual.bits)
        return product(flat, _transposed(flat))

    def weights(self) -> dict[str, np.ndarray]:
        """The parameters as they stand, as float64 numbers by ``"layer.parameter"``."""
        return {
            f"{name}.{own}": p.values if own == "weight" else p.values.reshape(-1)
            for name, pair in self.network.weights.items()
            for own, p in zip(("weight", "bias"), pair, strict=True)
            if p is not None
        }

    def _residual(self, traces: list[Trace], Y: np.ndarray) -> Fixed:
        output = traces[-1].output
        if Y.shape != output.raw.shape:
            raise ValueError(f"the network gives {output.raw.shape}, Y has {Y.shape}; both need the same shape")
        return added(output, _negative(stored("the output", self.network.precision.dtype(traces[-1].name, "activation"), Y)))

    def _gradients(self, traces: list[Trace], residual: Fixed) -> dict[tuple[str, str], Fixed]:
        """The gradients in their formats."""
        outer = residual.raw.shape[1:]
        found: dict[tuple[str, str], Fixed] = {}
        delta = residual if self.loss_mode == "half_mse" else Fixed(residual.raw, residual.f - 1, residual.bits)
        share = 1 if self.loss_mode == "half_mse" else math.prod(outer)
        layers = dict(self.network.network.named_children())
        for trace in reversed(traces):
            if trace.name in self.network.weights:
                w, b = self.network.weights[trace.name]
                found[trace.name, "weight"] = self._mean(trace.name, "weight", delta, trace.input, share)
                if b is not None:
                    ones = Fixed(np.ones((len(delta.raw), 1), np.int64), 0, 2)
                    found[trace.name, "bias"] = self._mean(trace.name, "bias", delta, ones, share)
                delta = product(delta, w)
            elif isinstance(layers[trace.name], ReLU):
                delta = Fixed(np.where(trace.input.raw > 0, delta.raw, 0), delta.f, delta.bits)
            elif isinstance(layers[trace.name], Flatten):
                delta = Fixed(delta.raw.reshape(trace.input.raw.shape), delta.f, delta.bits)
        return found

    def _mean(self, name: str, own: str, delta: Fixed, x: Fixed, share: int) -> Fixed:
        """The mean over the samples of ``delta_n x_n / share``, in the format of the gradient."""
        gradient, register = (self.network.precision.dtype(name, field) for field in ("gradient", "gradient_accum"))
        count = len(x.raw)
        if register is None:
            return self._counted(name, own, divided(product(_transposed(delta), x), count * share, gradient))
        total = Fixed(np.zeros((delta.raw.shape[1], x.raw.shape[1]), np.int64), 0, 1)
        for n in range(count):
            one = product(Fixed(delta.raw[n : n + 1].T, delta.f, delta.bits), Fixed(x.raw[n : n + 1], x.f, x.bits))
            term = self._counted(name, own, divided(one, share, gradient))
            total = self._counted(name, own, cast(added(total, term), register))
        return self._counted(name, own, divided(total, count, gradient))

    def _move(self, name: str, own: str, g: Fixed) -> None:
        w, b = self.network.weights[name]
        before = w if own == "weight" else b
        flat = product(Fixed(g.raw.reshape(-1, 1), g.f, g.bits), self.rate)
        update = self._counted(name, own, cast(flat, self.network.precision.dtype(name, "update")))
        moved = added(before, Fixed(update.raw.reshape(before.raw.shape), update.f, update.bits))  # type: ignore[arg-type,union-attr]
        after = self._counted(name, own, cast(moved, self.network.precision.dtype(name, own)))
        self.network.weights[name] = (after, b) if own == "weight" else (w, after)

    def _counted(self, name: str, own: str, found: tuple[Fixed, int]) -> Fixed:
        key = f"{name}.{own}"
        self.overflows[key] = self.overflows.get(key, 0) + found[1]
        return found[0]


def train_integer(
    model: Any, precision: Any, learning_rate: float = 0.0625, *, loss_mode: str = "half_mse", accumulate: str = "dot"
) -> IntegerTraining:
    """Gradient descent on a network of Dense, ReLU and Flatten layers in integer arithmetic.

    Args:
        model: As for `compile_integer`; it is not changed.
        precision: Formats as for `compile_integer`; each Dense layer also needs ``gradient``, the last layer ``activation``, and
            ``update`` and ``gradient_accum`` are used where they are given.
        learning_rate: eta, taken as the exact value of its float32 number.
        loss_mode: ``"half_mse"``: sum of squares / (2 N); ``"keras_mse"``: mean over all elements.
        accumulate: Of the forward pass, ``"dot"`` or ``"per_mac"``.

    Returns:
        An object with ``step(X, Y)``, ``weights()`` and the running network.  With ``"dot"``, targets and first weights in their
        formats, a power of two of samples and eta, and sums that fit the model's dtype, it equals
        `train_instrumented` with the same formats bit for bit.

    Raises:
        ValueError: As for `compile_integer`; a learning rate or a loss_mode that is none.

    Example:
        >>> from keydnn.stability import AffineDataset, LinearBlockModel, train_integer
        >>> data = AffineDataset(64, seed=0)
        >>> model = LinearBlockModel(data, num_hidden=[], seed=0)
        >>> formats = dict.fromkeys(("weight", "bias", "value", "activation", "gradient", "update"), "ap_fixed<16,6,AP_RND,AP_SAT>")
        >>> training = train_integer(model, {"__default__": formats}, 0.5)
        >>> first = training.step(*data.get()).values.item()
        >>> for _ in range(50):
        ...     last = training.step(*data.get()).values.item()
        >>> last < 0.01 * first
        True
    """
    if not (0.0 < learning_rate < math.inf):
        raise ValueError(f"train_integer: learning_rate must be above 0 and finite, got {learning_rate!r}")
    if loss_mode not in LOSS_MODES:
        raise ValueError(f"train_integer: loss_mode must be one of {', '.join(LOSS_MODES)}, got {loss_mode!r}")
    network = compile_integer(model, precision, accumulate)
    for name, (w, b) in network.weights.items():
        if network.precision.dtype(name, "gradient") is None:
            raise ValueError(f"train_integer: {name}.gradient needs a fixed-point format: a mean has no exact integer form")
        network.weights[name] = (w, None if b is None else Fixed(b.raw.reshape(1, -1), b.f, b.bits))
    return IntegerTraining(network, learning_rate, loss_mode)
