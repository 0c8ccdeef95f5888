"""``keydnn.compile``: any function of tensors, recorded once per signature and replayed."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.autograd.modes import is_grad_enabled, state
from keydnn.compiler.report import report
from keydnn.compiler.step import RecordedStep, usable
from keydnn.compiler.worth import Worth

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
        self._worth = Worth()
        self._turn = threading.RLock()  # a step that is not checked yet is nobody else's

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """A method of ``instance``, if the function was compiled inside a class."""
        return self if instance is None else MethodType(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function; the results of a replayed call carry no graph."""
        if state.recorder is not None or not usable() or self._worth.is_lost:
            return self._function(*args, **kwargs)
        values = [*args, *kwargs.values()]
        tensors = [v for v in values if isinstance(v, Tensor)]
        positions = {id(t): i for i, t in reversed(list(enumerate(tensors)))}
        parts = tuple(
            (positions[id(v)], v._data.shape, v._data.dtype, v.requires_grad) if isinstance(v, Tensor) else _key(v) for v in values
        )
        key = (len(args), tuple(kwargs), is_grad_enabled(), parts)
        with self._turn:
            step = self._find(key, args, kwargs)
            results = None if step.is_checked else step(*tensors)
            made = None if results is None else [_owned(r, step.outputs) for r in results]
        if made is None:
            made = [_tensor(r) for r in step.fresh(tensors)]
        return made[0] if step.single else tuple(made)

    def _find(self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> RecordedStep:
        """The step that serves a signature now, made if there is none."""
        try:
            step = self._steps.get(key)
        except TypeError:
            raise self._unhashable(args, kwargs) from None
        if step is not None and (step.plan is None or step.holds()):
            self._worth.served += 1
        else:
            if len(self._steps) >= _MOST:
                del self._steps[next(iter(self._steps))]
            others = [v for v in (*args, *kwargs.values()) if not isinstance(v, Tensor)]
            step = self._steps[key] = RecordedStep(self._flat(args, kwargs), graph=True, calls=[self._function], reads=others)
            self._worth.made += 1
        self._latest = step
        return step

    def _unhashable(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TypeError:
        named = [*((f"argument {i}", v) for i, v in enumerate(args)), *((f"argument {name!r}", v) for name, v in kwargs.items())]
        name, value = next((name, value) for name, value in named if not isinstance(value, Tensor) and not _is_hashable(value))
        return TypeError(
            f"compile: {name} must be a Tensor, or a value that can be a dictionary key, got {type(value).__name__};"
            " pass Tensors one by one, a tuple in place of a list, keydnn.tensor(...) in place of an array"
        )

    def __reduce__(self) -> str | tuple[Any, ...]:
        """By its name where that is what the name stands for, else as its function; what was recorded stays behind."""
        name = getattr(self, "__qualname__", "")
        home = sys.modules.get(getattr(self, "__module__", ""))
        return name if getattr(home, name, None) is self else (CompiledFunction, (self._function,))

    def plan_report(self) -> str:
        """What became of the latest call: fused operations, memory, time, or why it runs eagerly."""
        return "eager: what the function reads is another for most calls" if self._worth.is_lost else report(self._latest)

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


def _owned(result: Any, shared: list[np.ndarray]) -> Any:
    """A result as a tensor that the next call does not write."""
    if not isinstance(result, np.ndarray):
        return result
    return _tensor(result.copy() if any(result is kept for kept in shared) else result)


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _key(value: Any) -> Any:
    """A value for a signature: 1, 1.0 and True are three, and so are 0.0 and -0.0, also inside tuples."""
    if type(value) is tuple:
        return (tuple, *map(_key, value))
    return (float, value.hex()) if type(value) is float else (type(value), value)


def compile(fn: Callable[..., Any]) -> CompiledFunction:
    """Record ``fn`` at its first call per signature and replay it as a native plan.

    The signature is: shapes, dtypes and aliasing of the Tensor arguments, the other arguments by value, grad mode, and the
    state of the modules that ran (training flags, structure).  Tensors that the function uses without taking them as
    arguments are read live; if a Python value that its code names is another (a global, a variable of the function around, an
    attribute, an entry of a small list or dict), it is recorded anew.  Inside a class it is a method.  A function that reads
    numbers back (``item()``), branches on them, or uses an operation without a plan kernel runs eagerly; see ``plan_report()``.

    Args:
        fn: Takes Tensors and returns a Tensor or a tuple of Tensors.

    Returns:
        A callable with ``plan_report()``; it raises TypeError for an argument that is neither Tensor nor hashable.

    Example:
        >>> step = keydnn.compile(lambda x: (x * 2.0 + 1.0).relu().sum())
        >>> step(keydnn.tensor([1.0, -3.0])).item(), step(keydnn.tensor([2.0, 0.0])).item()
        (3.0, 6.0)
    """
    if not callable(fn):
        raise TypeError(f"compile: expected a function of Tensors, got {type(fn).__name__}")
    return CompiledFunction(fn)
