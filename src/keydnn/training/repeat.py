"""Calls that repeat the last one: what that one resolved need not be resolved anew, only seen to be unchanged.

A short way is made after a call that a checked plan served.  It notes by identity everything that the plan and the way to
it stand on: training flags, the count of structural changes, gradient mode, the tensors in place, the optimizer's
settings.  The next call asks in a few native calls whether all of it is the same; if not, it goes the long way, which
decides anew and makes another short way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.autograd.modes import state
from keydnn.compiler.step import RecordedStep, attributes
from keydnn.kernels.native import load
from keydnn.nn.module import Clock, Module
from keydnn.training.recorded import BUILT_IN_OPTIMIZERS, is_own, warm_prediction, warm_training
from keydnn.training.step import StepPlan
from keydnn.training.streaming import StreamingMetric


class Training:
    """The call of ``train_on_batch`` that came last, ready to be made again.

    Args:
        model: The model.
        asked: Its arguments beside the batch; the next call must pass the same objects.
        step: The recorded step that served it.
        x: Its batch.
        y: Its targets.
        plan: What it was resolved to.
    """

    __slots__ = ("asked", "step", "likes", "same", "watched", "options", "names")

    def __init__(self, model: Any, asked: tuple[Any, ...], step: RecordedStep, x: Tensor, y: Tensor, plan: StepPlan) -> None:
        self.asked, self.step, self.same = asked, step, x is y
        self.likes = _shell(x._data), _shell(y._data)
        self.names = ("loss", *plan.names)
        groups = plan.optimizer.groups
        self.options = [(group.options, tuple(group.options.values())) for group in groups]
        self.watched = attributes(
            [
                *((module, "training") for module in model._below),
                (state, "grad"),
                (plan.optimizer, "groups"),
                *((group, name) for group in groups for name in ("options", "rate")),
                *_common(step),
            ]
        )

    def __call__(self, x: Any, y: Any, asked: tuple[Any, ...]) -> dict[str, float] | None:
        """The logs of one more step; None if anything is different now.  The caller has seen that the model itself trains."""
        native, step = load(), self.step
        if type(x) is not Tensor or type(y) is not Tensor or (x is y) is not self.same or not native.same_items(asked, self.asked):
            return None
        if x.requires_grad or y.requires_grad:
            return None
        a, b = x._data, y._data
        if not native.alike(a, self.likes[0]) or not native.alike(b, self.likes[1]) or not native.same_attributes(*self.watched):
            return None
        if step.outside is not None and not step.outside.is_same():
            return None
        for options, values in self.options:
            if not native.same_items(tuple(options.values()), values):
                return None
        step.replay([a, b])
        return dict(zip(self.names, map(float, step.outputs)))  # noqa: B905 - as many as were recorded


def _shell(array: np.ndarray) -> np.ndarray:
    """An array of the same shape and dtype that holds almost no memory."""
    return np.broadcast_to(np.empty((), array.dtype), array.shape)


def remember_training(model: Any, asked: tuple[Any, ...], x: Any, y: Any, plan: StepPlan) -> None:
    """Make the step that serves this batch ready for a :class:`Training`, if it is a plan that has been checked."""
    fits = (
        type(x) is Tensor
        and type(y) is Tensor
        and plan.zero_grad
        and type(plan.optimizer) in BUILT_IN_OPTIMIZERS
        and model._ready_at == Clock.now
        and all(module.training or module._is_frozen for module in model._below)
        and not any(is_own(metric) or isinstance(metric, StreamingMetric) for metric in plan.metrics)
    )
    step = warm_training(model, x, y, plan) if fits else None
    model.__dict__["_repeat"] = None if step is None or not step.is_training else Training(model, asked, step, x, y, plan)


class Prediction:
    """The call of ``predict`` that came last, ready to be made again: the plan was recorded in evaluation mode and runs no module.

    Args:
        step: The recorded step that served it.
        x: Its input.
    """

    __slots__ = ("step", "like", "watched", "shape", "dtype", "alike", "same_attributes", "empty")

    def __init__(self, step: RecordedStep, x: Tensor) -> None:
        self.step, self.like = step, _shell(x._data)
        self.watched = attributes(_common(step))
        self.shape, self.dtype = step.outputs[0].shape, step.outputs[0].dtype
        native = load()
        self.alike, self.same_attributes, self.empty = native.alike, native.same_attributes, native.empty

    def __call__(self, x: Any) -> Tensor | None:
        """One more prediction; None if anything is different now."""
        if type(x) is Tensor:
            if x.requires_grad:
                return None
            x = x._data
        if not self.alike(x, self.like) or not self.same_attributes(*self.watched):
            return None
        if self.step.outside is not None and not self.step.outside.is_same():
            return None
        result = self.empty(self.shape, self.dtype)
        self.step.run_once([x], [result])
        y = Tensor.__new__(Tensor)
        y._data = result
        return y


def _common(step: RecordedStep) -> Iterator[tuple[Any, str]]:
    yield Clock, "now"
    yield from zip(*step.tensors[:2], strict=True)


def remember_prediction(model: Any, x: Tensor) -> None:
    """Make the step that serves this input ready for a :class:`Prediction`, if it is a plan that has been checked."""
    fits = (
        type(x) is Tensor
        and model._ready_at == Clock.now
        and all(type(module).train is Module.train and type(module).eval is Module.eval for module in (model, *model._below))
    )
    step = warm_prediction(model, x) if fits else None
    model.__dict__["_predicted"] = None if step is None or len(step.outputs) != 1 else Prediction(step, x)
