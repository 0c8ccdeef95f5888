"""One training step.

    y_pred = model(x);  loss(y_pred, y).backward();  [clip];  optimizer.step();  metrics(y, y_pred)

Between its start and :func:`read` nothing is read back to Python, so the step can be recorded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from keydnn._tensor import Tensor
from keydnn.autograd.modes import no_grad
from keydnn.domain.errors import ShapeError
from keydnn.nn.module import Module
from keydnn.optim import clip_grad_norm, clip_grad_value
from keydnn.training.accumulation import Accumulator
from keydnn.training.data import batch_size_of
from keydnn.training.streaming import StreamingMetric


@dataclass(frozen=True)
class StepPlan:
    """What a step does with a batch.

    Attributes:
        loss: Function of (prediction, target).
        optimizer: Object with ``step``, ``zero_grad`` and ``params``.
        metrics: Functions of (target, prediction), and streaming metrics.
        names: Their names.
        zero_grad: Whether to clear the gradients first.
        backward: Whether to compute gradients.
        step: Whether to update.
        clip_norm: Bound of the common norm of all gradients, or None.
        clip_value: Bound of each element of the gradients, or None.
        weighted: Function of (prediction, target, weights) that stands for the loss where a batch has weights.
        sums: Where the gradients are added up instead of being used at once, or None.
    """

    loss: Callable[[Any, Any], Any]
    optimizer: Any
    metrics: Sequence[Any] = ()
    names: Sequence[str] = ()
    zero_grad: bool = True
    backward: bool = True
    step: bool = True
    clip_norm: float | None = None
    clip_value: float | None = None
    weighted: Callable[[Any, Any, Any], Any] | None = None
    sums: Accumulator | None = None


def training_step(model: Module, batch: Sequence[Any], plan: StepPlan) -> list[Any]:
    """Run one step on x, y and, if there are any, weights; returns the loss and the metrics, unread.

    Raises:
        TypeError: The loss gave something without ``backward``.
        ValueError: The loss gave more than one number.
    """
    loss, y_pred = update(model, batch, plan)
    return [loss, *measure(plan.metrics, batch[1], y_pred)]


def update(model: Module, batch: Sequence[Any], plan: StepPlan) -> tuple[Any, Any]:
    """A step without its metrics; returns the loss and the prediction."""
    x, y, *weights = batch
    if plan.zero_grad:
        plan.optimizer.zero_grad()
    y_pred = model(x)
    loss = plan.weighted(y_pred, y, *weights) if weights and plan.weighted is not None else plan.loss(y_pred, y)
    if plan.backward:
        if isinstance(loss, Tensor) and loss.shape != ():
            raise ShapeError(f"the loss must be one number of shape (), got shape {loss.shape}; take its mean()")
        if not isinstance(loss, Tensor) and not callable(getattr(loss, "backward", None)):  # foreign losses have only this
            raise TypeError(f"the loss must return a Tensor (or an object with backward()), got {type(loss).__name__}")
        loss.backward()
    if plan.sums is not None:
        plan.sums.add(weights[0].sum() if weights else float(batch_size_of(x)))
        return loss, y_pred
    apply_gradients(plan)
    return loss, y_pred


def apply_gradients(plan: StepPlan) -> None:
    """Clip the gradients and update."""
    if plan.clip_norm is not None:
        clip_grad_norm(plan.optimizer.params, plan.clip_norm)
    if plan.clip_value is not None:
        clip_grad_value(plan.optimizer.params, plan.clip_value)
    if plan.step:
        plan.optimizer.step()


def measure(metrics: Sequence[Any], y_true: Any, y_pred: Any) -> list[Any]:
    """The values of all metrics, unread; a streaming metric counts the batch and stands for its own value.

    A function that refuses (y_true, y_pred) with TypeError is tried with the order swapped.
    """
    values = []
    with no_grad():
        for metric in metrics:
            if isinstance(metric, StreamingMetric):
                metric.update(y_true, y_pred)
                values.append(metric)
                continue
            try:
                values.append(metric(y_true, y_pred))
            except TypeError as error:
                try:
                    values.append(metric(y_pred, y_true))
                except TypeError:
                    raise error from None
    return values


def read(value: Any) -> float:
    """The Python number behind a loss or metric: a number, a streaming metric, or anything with ``item()`` or ``to_numpy()``.

    Raises:
        TypeError: There is none.
    """
    if isinstance(value, Tensor):
        return value.item()
    if isinstance(value, StreamingMetric):
        return float(value.result())
    if isinstance(value, int | float):
        return float(value)
    if callable(getattr(value, "item", None)):  # foreign values: NumPy scalars, tensors of other libraries
        return float(value.item())
    if callable(getattr(value, "to_numpy", None)):
        return float(value.to_numpy())
    raise TypeError(f"expected a number or an object with item(), got {type(value).__name__}")


def read_logs(values: Sequence[Any], names: Sequence[str], streaming: bool = True) -> dict[str, float]:
    """``loss`` first, then the metrics by name, as Python floats; streaming ones only if asked for and if they are numbers."""
    for name, value in zip(names, values[1:], strict=True):
        if isinstance(value, Tensor) and value.size != 1:
            raise ShapeError(f"metric {name!r} must give one number, got a Tensor of shape {value.shape}")
    pairs = zip(("loss", *names), values, strict=True)
    return {name: read(v) for name, v in pairs if not isinstance(v, StreamingMetric) or (streaming and v.is_number)}


def is_nan(logs: dict[str, float]) -> bool:
    """Whether the loss is NaN."""
    return math.isnan(logs.get("loss", 0.0))
