"""Timing: contestants take turns, round after round; the median of the rounds counts and the spread is shown."""

from __future__ import annotations

import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

Call = Callable[[], Any]


def seconds_per_call(call: Call, budget_s: float) -> float:
    """Mean time of one call over about ``budget_s``; a call longer than that is timed once."""
    start = time.perf_counter()
    call()
    once = time.perf_counter() - start
    if once > budget_s:
        return once
    n = max(1, int(budget_s / 5 / max(once, 1e-7)))
    start = time.perf_counter()
    for _ in range(n):
        call()
    n = max(1, int(budget_s * n / (time.perf_counter() - start)))
    start = time.perf_counter()
    for _ in range(n):
        call()
    return (time.perf_counter() - start) / n


class Local:
    """A contestant in this process.

    Args:
        name: Shown in the table.
        make: ``make(case)`` returns the call to time; its result is array-like or None.
    """

    def __init__(self, name: str, make: Callable[[Any], Call]) -> None:
        self.name = name
        self.make = make
        self._calls: dict[Any, Call] = {}

    def prepare(self, case: Any) -> Any:
        """Build the case and return its answer."""
        self._calls = {case: self.make(case)}
        return self._calls[case]()

    def time(self, case: Any, budget_s: float) -> float:
        """Seconds per call."""
        return seconds_per_call(self._calls[case], budget_s)

    def close(self) -> None:
        """Nothing to end."""


class Remote:
    """A contestant in a process of its own, so that thread pools and allocators do not meet.

    Args:
        name: Shown in the table.
        make: As for :class:`Local`; an importable function.
        threads: Thread count its libraries are told through the environment.
    """

    def __init__(self, name: str, make: Callable[[Any], Call], threads: int = 2) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = str(threads)
        self._process = context.Process(target=_serve, args=(theirs, make), daemon=True)
        self._process.start()
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before

    def _ask(self, *message: Any) -> Any:
        self._pipe.send(message)
        ok, answer = self._pipe.recv()
        if not ok:
            raise RuntimeError(f"{self.name}: {answer}")
        return answer

    def prepare(self, case: Any) -> Any:
        """Build the case there and return its answer."""
        return self._ask("prepare", case)

    def time(self, case: Any, budget_s: float) -> float:
        """Seconds per call, measured there."""
        return self._ask("time", case, budget_s)

    def close(self) -> None:
        """End the process."""
        self._pipe.send(("close",))
        self._process.join(10)


def _serve(pipe: Connection, make: Callable[[Any], Call]) -> None:
    local = Local("served", make)
    while True:
        command, *rest = pipe.recv()
        if command == "close":
            return
        try:
            pipe.send((True, getattr(local, command)(*rest)))
        except (ValueError, TypeError, RuntimeError, AttributeError, ImportError) as error:
            pipe.send((False, f"{type(error).__name__}: {error}"))


@dataclass
class Result:
    """Seconds per call of each contestant, one number per round."""

    case: str
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Median over the rounds."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, over: str) -> float:
        """How many times longer ``over`` takes than ``name``: the median of the rounds' ratios."""
        mine, theirs = self.seconds[name], self.seconds[over]
        if len(mine) != len(theirs):
            return self.median(over) / self.median(name)
        return statistics.median(b / a for a, b in zip(mine, theirs, strict=True))

    def spread(self, name: str) -> float:
        """(slowest - fastest) / median."""
        times = self.seconds[name]
        return (max(times) - min(times)) / self.median(name)


def contest(case: Any, contestants: list[Any], *, rounds: int, budget_s: float, rtol: float, once: tuple[str, ...] = ()) -> Result:
    """Check that all agree, then time them in turn.

    Args:
        case: What to run; ``str(case)`` names it.
        contestants: Local or Remote objects; the first is the one whose answer the others must equal.
        rounds: How often each is timed.
        budget_s: Time per contestant and round.
        rtol: Tolerance of the check, relative to the largest element.
        once: Names of contestants too slow for more than one round.
    """
    answers = [(c.name, c.prepare(case)) for c in contestants]
    answers = [(name, np.array(answer)) for name, answer in answers if answer is not None]
    name, want = answers[0]
    for other, got in answers[1:]:
        np.testing.assert_allclose(
            got, want, rtol=rtol, atol=rtol * float(np.abs(want).max()), err_msg=f"{case}: {other} and {name} differ"
        )
    result = Result(str(case))
    for i in range(rounds):
        for c in contestants:
            if i == 0 or c.name not in once:
                result.seconds.setdefault(c.name, []).append(c.time(case, budget_s))
    return result


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    model = platform.processor()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), model)
    except OSError:
        pass
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def readable(seconds: float) -> str:
    """``12.3 us`` and the like."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * scale >= 1.0:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
