"""Timing: contestants take turns, round after round; the median of the rounds counts and the spread is shown."""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.remote import ContestantError, NotOfferedError

SETTLE_S = 0.05  # before a turn: threads of whoever ran before go to sleep


@dataclass
class Result:
    """Seconds per call of each contestant, one number per round; and of those without, why."""

    case: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)  # contestants that do not offer the case

    def median(self, name: str) -> float:
        """Median over the rounds; NaN without one."""
        return statistics.median(self.seconds[name]) if name in self.seconds else math.nan

    def ratio(self, name: str, over: str) -> float:
        """How many times longer ``over`` takes than ``name``: the median of the rounds' ratios."""
        if name not in self.seconds or over not in self.seconds:
            return math.nan
        mine, theirs = self.seconds[name], self.seconds[over]
        if len(mine) != len(theirs):
            return self.median(over) / self.median(name)
        return statistics.median(b / a for a, b in zip(mine, theirs, strict=True))

    def spread(self, name: str) -> float:
        """(slowest - fastest) / median."""
        times = self.seconds[name]
        return (max(times) - min(times)) / self.median(name)

    def fastest(self, among: list[str]) -> str | None:
        """The contestant with the smallest median."""
        timed = [name for name in among if name in self.seconds]
        return min(timed, key=self.median) if timed else None


def difference(got: Any, want: Any, rtol: float, each: bool) -> str | None:
    """What is wrong with an answer, None if nothing is.

    Args:
        got: The answer, an array or a list of arrays.
        want: What it should be.
        rtol: How far it may be off.
        each: Relative to each element, instead of the largest.
    """
    if isinstance(want, list):
        return next((d for a, b in zip(got, want, strict=True) if (d := difference(a, b, rtol, each))), None)
    a, b = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if a.shape != b.shape:
        return f"shape {a.shape}, expected {b.shape}"
    off = np.abs(a - b) / np.maximum(np.abs(b) if each else np.abs(b).max(initial=0.0), 1e-30)
    if np.all(off <= rtol):  # NaN is not
        return None
    worst = np.unravel_index(np.argmax(np.where(np.isnan(off), np.inf, off)), off.shape)
    return f"{a[worst]:.7g} where {b[worst]:.7g} is expected (element {[int(i) for i in worst]}; rtol {rtol:g})"


def contest(
    case: Any,
    contestants: list[Any],
    *,
    rounds: int,
    budget_s: float,
    rtol: float,
    once: tuple[str, ...] = (),
    want: Any = None,
    each: bool = False,
    checked: Any = None,
) -> Result:
    """Check that all agree, then time them in turn; who fails or differs is noted and not timed.

    Args:
        case: What to run; ``str(case)`` names it.
        contestants: Local or Remote objects.
        rounds: How often each is timed.
        budget_s: Time per contestant and round.
        rtol: Tolerance of the check.
        once: Names of contestants too slow for more than one round.
        want: The right answer; None takes that of the first contestant that has one.
        each: Whether ``rtol`` is relative to each element, instead of the largest.
        checked: The case to compare answers by, if it is not ``case`` itself.
    """
    result = Result(str(case))
    ready = []
    checked = case if checked is None else checked
    for c in contestants:
        try:
            answer = c.prepare(checked)
            if checked != case:
                c.prepare(case)
        except NotOfferedError as reason:
            result.absent[c.name] = str(reason)
            continue
        except ContestantError as error:
            result.notes[c.name] = f"failed: {error}"
            continue
        want = answer if want is None else want
        wrong = difference(answer, want, rtol, each)
        if wrong is None:
            ready.append(c)
        else:
            result.notes[c.name] = f"disagrees: {wrong}"
    for i in range(rounds):
        for c in ready:
            if c.name in result.notes or (i and c.name in once):
                continue
            time.sleep(SETTLE_S)
            try:
                result.seconds.setdefault(c.name, []).append(c.time(budget_s))
            except ContestantError as error:
                result.notes[c.name] = f"failed: {error}"
                result.seconds.pop(c.name, None)
    return result


FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "sve")


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    about = {"model name": platform.processor(), "flags": ""}
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            about |= {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in f)}
    except OSError:
        pass
    flags = about["flags"].split() or about.get("Features", "").split()
    return {
        "cpu": about["model name"],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "flags": " ".join(flag for flag in FLAGS if flag in flags),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def readable(seconds: float) -> str:
    """``12.3 us`` and the like; ``-`` for NaN."""
    if math.isnan(seconds):
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * scale >= 1.0:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
