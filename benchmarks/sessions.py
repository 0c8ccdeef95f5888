"""Training and asking as every contestant does it: batches in turn, epochs of shuffled rows, one row at a time.

A contestant gives its own step, epoch or prediction; here they become Sessions whose answers can be compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.remote import NotOfferedError, Session
from benchmarks.workloads import CHECKED, Case, Workload, batches, rows

LAST = CHECKED[-1]


def stepping(
    case: Case, step: Callable[[Any, Any], Any], convert: Callable[[np.ndarray], Any], read: Callable[[Any], float] = float
) -> Session:
    """Training steps.

    Args:
        case: The row.
        step: ``step(x, t)`` returns something that ``read`` turns into the loss.
        convert: From NumPy to what ``step`` takes; called before anything is timed.
        read: Also waits until the step is done; called after the last step that is timed.
    """
    data = itertools.cycle([(convert(x), convert(t)) for x, t in batches(case.work)])
    latest: Any = None

    def call() -> Any:
        nonlocal latest
        x, t = next(data)
        latest = step(x, t)
        return latest

    def answer() -> np.ndarray:
        losses = [read(call()) for _ in range(LAST)]
        return np.array([losses[n - 1] for n in CHECKED])

    return Session(call, answer, end=lambda: read(latest), warm=lambda: read(call()))


def epochs(case: Case, prepare: Callable[[np.ndarray, np.ndarray], Callable[[int, int, bool], float]]) -> Session:
    """Whole epochs, shuffled; what is compared runs in order.

    Args:
        case: The row.
        prepare: Takes all rows and targets; returns ``epoch(start, stop, shuffle)``, which trains once on those rows and
            returns the mean loss of its batches.
    """
    workload = case.work
    size = workload.shape[0]
    epoch = prepare(*rows(workload, case.rows))

    def answer() -> np.ndarray:
        first = epoch(0, size, False)
        epoch(size, (LAST - 1) * size, False)
        return np.array([first, epoch((LAST - 1) * size, LAST * size, False)])

    return Session(lambda: epoch(0, case.rows, True), answer, warm=lambda: epoch(0, LAST * size, True))


def asking(case: Case, predict: Callable[[Any], Any], convert: Callable[[np.ndarray], Any]) -> Session:
    """Predictions of one row; ``predict`` returns when the result is there."""
    x = convert(batches(case.work)[0][0][:1])
    return Session(lambda: predict(x), lambda: np.asarray(predict(x)).reshape(-1))


def offered(workload: Workload, kinds: Any) -> None:
    """Raise NotOfferedError if a kind of layer is missing."""
    missing = {layer.kind for layer in workload.layers} - set(kinds)
    if missing:
        raise NotOfferedError(f"no {', '.join(sorted(missing))}")


def refuse(reason: str) -> Session:
    """A contestant that does not do this."""
    raise NotOfferedError(reason)
