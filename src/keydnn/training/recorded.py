"""The recorded steps of a model: which plan serves a batch, and epochs that run without Python between steps.

A step is recorded per signature: shapes and dtypes of the batch, loss, metrics, optimizer with its settings, what the step
does, whether gradients are recorded.  What a plan stands on (tensors in place, training flags, structure of the modules it
ran) is checked before each use; if something changed, the step is recorded anew.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.autograd.modes import is_grad_enabled
from keydnn.compiler.step import RecordedStep, usable
from keydnn.compiler.worth import Worth
from keydnn.optim import SGD, Adam, AdamW
from keydnn.training.metrics import METRICS
from keydnn.training.step import StepPlan, measure, read, training_step, update
from keydnn.training.streaming import StreamingMetric

BUILT_IN = frozenset(id(metric) for metric in METRICS.values())
_MOST = 32  # signatures kept per model
_MOST_PREDICTED = 4 << 20  # bytes of a batch whose prediction is recorded: recording keeps every layer's result alive
_MOST_KEPT = 16 << 20  # bytes of predictions that are kept for metrics that run after the step
_VARIANTS = 4  # plans kept per signature
Column = list[float] | np.ndarray  # values of a log, one per step
_PLAIN = (int, float, bool, str, type(None))
BUILT_IN_OPTIMIZERS = (SGD, Adam, AdamW)


class Steps:
    """The recorded steps of one model.

    Attributes:
        entries: Per signature its plans, the latest first.
        latest: The step that ran last.
        worth: Whether recording pays.
    """

    def __init__(self) -> None:
        self.entries: dict[tuple[Any, ...], list[RecordedStep]] = {}
        self.latest: RecordedStep | None = None
        self.worth = Worth()
        self.turn = threading.RLock()  # of threads that evaluate: a step that is not checked yet is nobody else's

    def find(self, key: tuple[Any, ...], make: Callable[[], RecordedStep]) -> RecordedStep:
        """The step that serves a signature now, made if there is none."""
        variants = self.entries.get(key)
        if variants is not None:
            for step in variants:
                if step.plan is None or step.holds():
                    self.latest = step
                    self.worth.served += 1
                    return step
        self.worth.made += 1
        if variants is None:
            if len(self.entries) >= _MOST:
                del self.entries[next(iter(self.entries))]
            variants = self.entries[key] = []
        self.latest = step = make()
        variants.insert(0, step)
        del variants[_VARIANTS:]
        return step


def of(model: Any) -> Steps:
    """The steps that ``model`` keeps."""
    found = model.__dict__.get("_steps")
    if found is None:
        found = model.__dict__["_steps"] = Steps()
    return found  # type: ignore[no-any-return]


def _optimizer_key(optimizer: Any) -> tuple[Any, ...]:
    if type(optimizer) in BUILT_IN_OPTIMIZERS:
        groups = optimizer.groups
        if len(groups) == 1:
            return id(optimizer), id(groups), tuple(groups[0].options.values())
        return (id(optimizer), id(groups), *[tuple(group.options.values()) for group in groups])
    plain = tuple((name, value) for name, value in vars(optimizer).items() if isinstance(value, _PLAIN))
    groups = getattr(optimizer, "groups", ())  # foreign optimizers have none
    return (id(optimizer), id(groups), plain, *[tuple(getattr(group, "options", {}).items()) for group in groups])


def training_key(shapes: tuple[Any, ...], same: bool, plan: StepPlan) -> tuple[Any, ...]:
    """The signature of a training step on arrays of given (shape, dtype), with True for one that requires a gradient."""
    done = plan.zero_grad, plan.backward, plan.step, plan.clip_norm, plan.clip_value, plan.sums
    key = (shapes, same, plan.loss, tuple(plan.metrics), *done)
    grads = () if plan.zero_grad else tuple(p.grad is None for p in plan.optimizer.params)
    return (*map(_identity, key), is_grad_enabled(), *_optimizer_key(plan.optimizer), grads)


def _identity(value: Any) -> Any:
    """A value that compares by identity if it is no plain one."""
    if isinstance(value, tuple):
        return tuple(map(_identity, value))
    return value if isinstance(value, (*_PLAIN, np.dtype)) else id(value)


def _shape(t: Tensor) -> tuple[Any, ...]:
    return (t._data.shape, t._data.dtype, True) if t.requires_grad else (t._data.shape, t._data.dtype)


def train(model: Any, batch: Sequence[Tensor], plan: StepPlan) -> list[Any]:
    """One training step on x, y and, if there are any, weights, by a plan where possible; returns the loss and the metrics, unread."""
    steps = of(model)
    if any(type(t) is not Tensor for t in batch) or steps.worth.is_lost or not usable():
        return training_step(model, batch, plan)
    x, y = batch[:2]
    step = steps.find(training_key(tuple(map(_shape, batch)), x is y, plan), lambda: _training(model, plan))
    return _with_own_metrics(plan.metrics, step(*batch), y)


def is_own(metric: Any) -> bool:
    """Whether a metric is the user's, or a streaming one that asks for it: it runs after the step, on a copy of the prediction."""
    return not metric.in_step if isinstance(metric, StreamingMetric) else id(metric) not in BUILT_IN


def _in_step(metrics: Sequence[Any]) -> list[Any]:
    return [metric.update if isinstance(metric, StreamingMetric) else metric for metric in metrics if not is_own(metric)]


def _measured(loss: Any, metrics: Sequence[Any], y: Any, y_pred: Any) -> list[Any]:
    """The loss, the built-in metrics and, if some metric is the user's, the prediction; streaming ones count and give nothing."""
    built_in = [metric for metric in metrics if not is_own(metric)]
    values = [value for value in measure(built_in, y, y_pred) if not isinstance(value, StreamingMetric)]
    return [loss, *values, *([y_pred] if len(built_in) < len(metrics) else [])]


def _with_own_metrics(metrics: Sequence[Any], values: list[Any], y: Any) -> list[Any]:
    """The loss and all metrics in order, from what :func:`_measured` gave."""
    if len(values) == len(metrics) + 1 and not any(map(is_own, metrics)):
        return values
    y_pred = values[-1] if isinstance(values[-1], Tensor) else Tensor(data=values[-1], dtype=values[-1].dtype)
    rest = iter(values[1:])
    found = [values[0]]
    for metric in metrics:
        if is_own(metric):
            found += measure([metric], y, y_pred)
        else:
            found.append(metric if isinstance(metric, StreamingMetric) else next(rest))
    return found


def _training(model: Any, plan: StepPlan) -> RecordedStep:
    own = weakref.ref(model)

    def function(*batch: Tensor) -> Sequence[Any]:
        loss, y_pred = update(own(), batch, plan)  # type: ignore[arg-type]
        return _measured(loss, plan.metrics, batch[1], y_pred)

    calls = [plan.loss, plan.weighted, *_in_step(plan.metrics), plan.optimizer.step]
    step = RecordedStep(function, [*plan.optimizer.params, *model.parameters()], calls=calls)
    step.keep_alive = (plan, getattr(plan.optimizer, "groups", None))
    return step


# -- without training


def evaluate(model: Any, batch: Sequence[Tensor], loss: Any, metrics: Sequence[Any]) -> list[Any]:
    """The loss (of prediction, target and what else the batch has) and the metrics, unread; the caller has set the mode."""

    own = weakref.ref(model)

    def function(x: Tensor, y: Tensor, *weights: Tensor) -> Sequence[Any]:
        y_pred = own()(x)  # type: ignore[misc]
        return _measured(loss(y_pred, y, *weights), metrics, y, y_pred)

    steps = of(model)
    x, y = batch[:2]
    if any(type(t) is not Tensor for t in batch) or steps.worth.is_lost or not usable():
        return _with_own_metrics(metrics, list(function(*batch)), y)

    def make() -> RecordedStep:
        step = RecordedStep(function, fuse=False, calls=[loss, *_in_step(metrics)])
        step.keep_alive = (loss, tuple(metrics))
        return step

    key = ("evaluate", *map(_shape, batch), x is y, id(loss), tuple(map(id, metrics)), is_grad_enabled())
    with steps.turn:
        step = steps.find(key, make)
        values = None if step.is_checked else [v.copy() if isinstance(v, np.ndarray) else v for v in step(*batch)]
    return _with_own_metrics(metrics, step.fresh(batch) if values is None else values, y)


def predict(model: Any, x: Tensor) -> Any:
    """``model(x)`` without a graph; the caller has set the mode."""
    steps = of(model)
    if type(x) is not Tensor or steps.worth.is_lost or not usable() or is_grad_enabled() or x.nbytes > _MOST_PREDICTED:
        return model(x)

    own = weakref.ref(model)

    def function(x: Tensor) -> Sequence[Any]:
        return [own()(x)]  # type: ignore[misc]

    with steps.turn:
        step = steps.find(_prediction_key(x), lambda: RecordedStep(function, fuse=False))
        if not step.is_checked:
            (y,) = step(x)
            return y if not isinstance(y, np.ndarray) else x._from_op(y.copy(), None)
    return x._from_op(step.fresh([x])[0], None)


def _prediction_key(x: Tensor) -> tuple[Any, ...]:
    return "predict", _shape(x)


# -- plans that have been checked against eager steps and still hold


def warm(model: Any, shapes: tuple[Any, ...], same: bool, plan: StepPlan) -> RecordedStep | None:
    """The plan that serves a training step of a signature (see :func:`training_key`) now, or None."""
    return _warm(model, training_key(shapes, same, plan))


def warm_training(model: Any, x: Tensor, y: Tensor, plan: StepPlan) -> RecordedStep | None:
    """The plan that serves a training step on a batch now, or None."""
    return warm(model, (_shape(x), _shape(y)), x is y, plan)


def warm_prediction(model: Any, x: Tensor) -> RecordedStep | None:
    """The plan that serves a prediction now, or None."""
    return _warm(model, _prediction_key(x))


def _warm(model: Any, key: tuple[Any, ...]) -> RecordedStep | None:
    steps = of(model)
    found = next((step for step in steps.entries.get(key, ()) if step.is_checked and step.holds()), None)
    steps.worth.served += found is not None
    return found


# -- many steps at a time


def run_rows(
    step: RecordedStep, arrays: Sequence[np.ndarray], index: np.ndarray, batch: int, budget_s: float, metrics: Sequence[Any]
) -> list[Column]:
    """Run steps over batches of rows for about ``budget_s`` seconds; returns the losses of the steps run, then each metric's values.

    Streaming metrics count and give no values.  Metrics that run after the step get the predictions of each step, when the steps
    are done.
    """
    is_own_used = any(map(is_own, metrics))
    if is_own_used:
        index = index[: max(1, _MOST_KEPT // max(1, step.outputs[-1].nbytes)) * batch]
    count = len(index) // batch
    outputs = [np.empty((count, *out.shape), out.dtype) for out in step.outputs]
    done = step.replay_rows(list(arrays), outputs, index, batch, budget_s)
    columns: list[Column] = [out[:done].astype(np.float64) for out in outputs[: len(outputs) - is_own_used]]
    return _with_own_columns(metrics, columns, arrays[1], index, batch, outputs[-1][:done]) if is_own_used else columns


def _with_own_columns(
    metrics: Sequence[Any], columns: list[Column], y: np.ndarray, index: np.ndarray, batch: int, predictions: np.ndarray
) -> list[Column]:
    """Columns of all metrics that give values, in order; those that run after the step run now."""
    own = [metric for metric in metrics if is_own(metric)]
    values: list[list[float]] = [[] for _ in own]
    for i, predicted in enumerate(predictions):
        truth = y[index[i * batch : (i + 1) * batch]]
        measured = measure(own, Tensor(data=truth, dtype=truth.dtype), Tensor(data=predicted, dtype=predicted.dtype))
        for column, value in zip(values, measured, strict=True):
            if not isinstance(value, StreamingMetric):
                column.append(read(value))
    rest, late = iter(columns[1:]), iter(values)
    found: list[Column] = [columns[0]]
    for metric in metrics:
        chosen: Column = next(late) if is_own(metric) else [] if isinstance(metric, StreamingMetric) else next(rest)
        if not isinstance(metric, StreamingMetric):
            found.append(chosen)
    return found
