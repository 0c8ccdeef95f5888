"""``keydnn.compile``: any function of tensors, recorded once per signature and replayed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.autograd.modes import is_grad_enabled, state
from keydnn.compiler.report import report
from keydnn.compiler.step import RecordedStep, usable

_MOST = 16


class CompiledFunction:
    """A function that runs as a native plan after its first call.

    Args:
        function: Takes Tensors (and other arguments that can be dictionary keys) and returns a Tensor or a tuple of them.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._steps: dict[Any, RecordedStep] = {}
        self._latest: RecordedStep | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function; the results of a replayed call carry no graph."""
        if state.recorder is not None or not usable():
            return self._function(*args, **kwargs)
        values = [*args, *kwargs.values()]
        tensors = [v for v in values if isinstance(v, Tensor)]
        positions = {id(t): i for i, t in reversed(list(enumerate(tensors)))}
        parts = tuple(
            (positions[id(v)], v._data.shape, v._data.dtype, v.requires_grad) if isinstance(v, Tensor) else (type(v), v) for v in values
        )
        key = (len(args), tuple(kwargs), is_grad_enabled(), parts)
        step = self._steps.get(key)
        if step is None or not (step.plan is None or step.holds()):
            if len(self._steps) >= _MOST:
                del self._steps[next(iter(self._steps))]
            step = self._steps[key] = RecordedStep(self._flat(args, kwargs), graph=True)
        self._latest = step
        results = step.fresh(tensors) if step.is_checked else step(*tensors)
        made = [_tensor(r.copy() if any(r is kept for kept in step.outputs) else r) if isinstance(r, np.ndarray) else r for r in results]
        return made[0] if step.single else tuple(made)

    def plan_report(self) -> str:
        """What became of the latest call: fused operations, memory, time, or why it runs eagerly."""
        return report(self._latest)

    def _flat(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[..., Any]:
        """The function of the tensors alone; other arguments are fixed."""
        is_tensor = [isinstance(v, Tensor) for v in (*args, *kwargs.values())]
        fixed = [None if isinstance(v, Tensor) else v for v in (*args, *kwargs.values())]
        n, names = len(args), tuple(kwargs)

        def function(*tensors: Any) -> Any:
            rest = iter(tensors)
            values = [next(rest) if wanted else v for wanted, v in zip(is_tensor, fixed, strict=True)]
            return self._function(*values[:n], **dict(zip(names, values[n:], strict=True)))

        return function


def _tensor(array: np.ndarray) -> Tensor:
    t = Tensor.__new__(Tensor)
    t._data = array
    return t


def compile(fn: Callable[..., Any]) -> CompiledFunction:
    """Record ``fn`` at its first call per signature and replay it as a native plan.

    The signature is: shapes, dtypes and aliasing of the Tensor arguments, the other arguments by value, grad mode, and the
    state of the modules that ran (training flags, structure).  Tensors that the function uses without taking them as
    arguments are read live; Python numbers it uses are fixed when it is recorded.  A function that reads numbers back
    (``item()``), branches on them, or uses an operation without a plan kernel runs eagerly; see ``plan_report()``.

    Args:
        fn: Takes Tensors and returns a Tensor or a tuple of Tensors.

    Returns:
        A callable with ``plan_report()``.

    Example:
        >>> step = keydnn.compile(lambda x: (x * 2.0 + 1.0).relu().sum())
        >>> step(keydnn.tensor([1.0, -3.0])).item(), step(keydnn.tensor([2.0, 0.0])).item()
        (3.0, 6.0)
    """
    if not callable(fn):
        raise TypeError(f"compile: expected a function of Tensors, got {type(fn).__name__}")
    return CompiledFunction(fn)
