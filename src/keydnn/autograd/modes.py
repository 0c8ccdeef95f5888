"""What a thread is doing: recording gradients or not, recording a step or not."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any


class StepRecorder:
    """What may be told of the work of a thread; see :func:`recording`.  The base lets everything pass."""

    def table(self, primitive: Any, kernels: Any, inputs: Any = ()) -> Any:
        """The kernel table that ``primitive`` shall use for the tensors ``inputs``."""
        return kernels

    def module(self, module: Any) -> None:
        """``module`` is about to run."""

    def zeros(self, array: Any) -> None:
        """A constructor made an array of zeros."""

    def host_access(self, tensor: Any, what: str) -> None:
        """Python is about to read or write a tensor's numbers by ``what``."""

    def refuse(self, reason: str) -> None:
        """Something happened that a replay could not repeat."""


class _State(threading.local):
    grad: bool = True
    recorder: Any = None


state = _State()
RECORDINGS: list[Any] = []  # the recorders at work in any thread: empty nearly always, and quick to ask


class _GradMode(contextlib.ContextDecorator):
    _value: bool
    _before: Any = None  # what was set when it was entered, and what this was before that: entered twice, it is left twice

    def _recreate_cm(self) -> _GradMode:
        return type(self)()  # one per call of a decorated function: threads and recursion do not meet

    def __enter__(self) -> None:
        self._before = state.grad, self._before
        state.grad = self._value

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        state.grad, self._before = self._before


class no_grad(_GradMode):
    """Context manager and decorator: operations inside record no graph.

    Example:
        >>> with no_grad():
        ...     is_grad_enabled()
        False
    """

    _value = False


class enable_grad(_GradMode):
    """Context manager and decorator: operations inside record the graph, also within :class:`no_grad`."""

    _value = True


def is_grad_enabled() -> bool:
    """Whether operations of this thread record the graph."""
    return state.grad


@contextlib.contextmanager
def recording(recorder: StepRecorder) -> Iterator[Any]:
    """Show every kernel call of this thread to ``recorder`` while the block runs.

    Args:
        recorder: A :class:`StepRecorder`.
    """
    before, state.recorder = state.recorder, recorder
    RECORDINGS.append(recorder)
    try:
        yield recorder
    finally:
        state.recorder = before
        RECORDINGS.remove(recorder)
