"""What a thread is doing: recording gradients or not, recording a step or not."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any


class _State(threading.local):
    grad: bool = True
    recorder: Any = None


state = _State()
RECORDINGS: list[Any] = []  # the recorders at work in any thread: empty nearly always, and quick to ask


class _GradMode(contextlib.ContextDecorator):
    _value: bool

    def __init__(self) -> None:
        self._before: list[bool] = []

    def _recreate_cm(self) -> _GradMode:
        return type(self)()  # one per call of a decorated function: threads and recursion do not meet

    def __enter__(self) -> None:
        self._before.append(state.grad)
        state.grad = self._value

    def __exit__(self, *exc_info: object) -> None:
        state.grad = self._before.pop()


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
def recording(recorder: Any) -> Iterator[Any]:
    """Show every kernel call of this thread to ``recorder`` while the block runs.

    Args:
        recorder: Object with ``table(primitive, kernels, inputs)``, which returns the kernel table the primitive shall use,
            ``host_access(tensor, what)``, told before Python reads or writes a tensor's numbers, ``zeros(array)``, told of
            an array of zeros that a constructor made, and ``refuse(reason)``, told of what a replay could not repeat.
    """
    before, state.recorder = state.recorder, recorder
    RECORDINGS.append(recorder)
    try:
        yield recorder
    finally:
        state.recorder = before
        RECORDINGS.remove(recorder)
