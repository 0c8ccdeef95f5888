"""Gradients of one eager step: from the backward pass through the loss scale and the batch-sum register to their formats.

    plain          G = Q.gradient(s g) / s                                    s: the loss scale, applied to the loss
    register       a <- Q.gradient_accum(a + Q.gradient(s g_n)) over the samples n,   G = Q.gradient(a / N) / s

``g_n`` is the gradient of the loss of sample n alone.  A dynamic scale is halved, and the step's gradients are computed again, as
long as one of them is not finite or lies at a rail; after `GROWTH_STEPS` steps without that it is doubled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.autograd.backward import grad
from keydnn.nn.layers.norm import BatchNorm1d, BatchNorm2d
from keydnn.stability.keys import key_of
from keydnn.stability.nn.program import squares_of
from keydnn.stability.products import check_shapes, loss_of

GROWTH_STEPS = 200
FIRST_SCALE, SMALLEST_SCALE, LARGEST_SCALE = 2.0**15, 2.0**-24, 2.0**40


class LossScale:
    """The factor of the loss.

    Args:
        setting: None is 1, a number stays, ``"dynamic"`` adapts.
    """

    def __init__(self, setting: Any) -> None:
        self.is_dynamic = setting == "dynamic"
        self.value = FIRST_SCALE if self.is_dynamic else 1.0 if setting is None else float(setting)
        self.good = 0

    def shrink(self) -> bool:
        """Halve after an overflow; returns whether that is possible."""
        if not self.is_dynamic or self.value <= SMALLEST_SCALE:
            return False
        self.value, self.good = self.value / 2.0, 0
        return True

    def passed(self) -> None:
        """A step came through."""
        self.good += 1
        if self.is_dynamic and self.good >= GROWTH_STEPS and self.value < LARGEST_SCALE:
            self.value, self.good = self.value * 2.0, 0


@dataclass
class Gradients:
    """What a backward pass leaves.

    Attributes:
        arrays: The gradients in their formats, without the scale.
        squares: Sum of the squared residuals.
        loss: The logged loss.
        rails: Largest saturation and near-rail fraction of the gradients as they stood in their formats.
        register: Largest share of the batch-sum register that was at a rail.
        scale: The loss scale.
    """

    arrays: list[np.ndarray]
    squares: float
    loss: float
    rails: tuple[float, float]
    register: float
    scale: float


def check_register(run: Any) -> None:
    """Raise ValueError where the samples of a batch have no gradients of their own."""
    if uses_register(run) and any(isinstance(m, BatchNorm1d | BatchNorm2d) for m in run.model.model.modules()):
        raise ValueError("train_instrumented: gradient_accum needs a loss that is a sum over the samples, which BatchNorm is not")


def uses_register(run: Any) -> bool:
    """Whether a layer has a format for the batch-sum register."""
    return any(run.format_of(layer, "gradient_accum") is not None for layer, _ in run.places)


def gradients(run: Any, x: np.ndarray, y: np.ndarray) -> Gradients:
    """Forward and backward on one batch."""
    squares, loss = 0.0, 0.0
    while True:
        prediction, target = _predicted(run, x, y)
        squares = squares_of(prediction, target).item()
        found, register = _registered(run, x, y) if uses_register(run) else (_formatted(run, _differentiated(run, prediction, target)), 0.0)
        rails = run.model._rail_max_for_tensors(found, run.params, run.precision, field="gradient")
        is_whole = all(np.isfinite(g).all() for g in found) and not rails[0] > 0.0 and not register > 0.0
        if is_whole or not run.scale.shrink():
            break
    scale = run.scale.value
    run.scale.passed()
    loss = run.loss_from(squares, len(y), y.size)
    dtype = run.format_of("loss", "value")
    if dtype is not None:
        loss = dtype(loss, key=key_of(dtype, run.model.seed, "loss", "value", run.step))
    arrays = found if scale == 1.0 else [(g / scale).astype(g.dtype) for g in found]
    return Gradients(arrays, squares, loss, rails, register, scale)


def _predicted(run: Any, x: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor]:
    model, source, target = run.model, Tensor(data=x, dtype=x.dtype), Tensor(data=y)
    if run.precision is None:
        prediction = model.model(source)
    else:
        prediction = model._forward_with_precision(source, run.precision, training=True, step=run.step)
        target = target.astype(np.float64)
    check_shapes(prediction, target)
    return prediction, target


def _differentiated(run: Any, prediction: Tensor, target: Tensor) -> list[np.ndarray]:
    """The gradients of the scaled loss; zeros where there is none."""
    loss = loss_of(prediction, target, run.settings.loss_mode)
    found = grad(loss if run.scale.value == 1.0 else loss * run.scale.value, run.params, allow_unused=True)
    return [np.zeros(p.shape, p.dtype) if g is None else g.numpy() for p, g in zip(run.params, found, strict=True)]


def _formatted(run: Any, found: list[np.ndarray]) -> list[np.ndarray]:
    return found if run.precision is None else run.model._quantize_gradients(found, run.params, run.precision, run.step)


def _registered(run: Any, x: np.ndarray, y: np.ndarray) -> tuple[list[np.ndarray], float]:
    """The mean over the samples by way of the register, and how much of that was ever at a rail."""
    dtypes = [run.format_of(layer, "gradient_accum") for layer, _ in run.places]
    sums = [np.zeros(p.shape) for p in run.params]
    at_rail = [np.zeros(p.shape, bool) for p in run.params]
    for n in range(len(x)):
        terms = _formatted(run, _differentiated(run, *_predicted(run, x[n : n + 1], y[n : n + 1])))
        for i, (dtype, term) in enumerate(zip(dtypes, terms, strict=True)):
            total = sums[i] + term
            if dtype is not None:
                low, high = dtype.value_range()
                key = key_of(dtype, run.model.seed, *run.places[i], "gradient_accum", run.step, n)
                total = dtype.rounded(total, key)
                at_rail[i] |= (total >= high) | (total <= low if low < 0.0 else False)
            sums[i] = total
    means = [(s / len(x)).astype(p.dtype) for s, p in zip(sums, run.params, strict=True)]
    return _formatted(run, means), max((float(r.mean()) for r in at_rail if r.size), default=0.0)
