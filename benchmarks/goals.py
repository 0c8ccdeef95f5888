"""What KeyDNN aims at: how many times faster than PyTorch eager as users write it, and than the fastest peer, in one run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.contestants import OURS, THEIRS, best_peer
from benchmarks.measure import Result


@dataclass(frozen=True)
class Goal:
    """Least ratios; None asks for nothing."""

    torch: float | None = None
    best: float | None = None


_SMALL, _POOL = Goal(torch=2.5), Goal(torch=5.0)
GOALS = {
    "W1 step": Goal(3.0, 1.8),
    "W1 epoch": Goal(2.5, 1.3),
    "W2 step": Goal(2.5, 1.5),
    "W3 step": Goal(1.35, 1.0),
    "W4-LSTM step": Goal(1.3, 1.3),
    "W4-GRU step": Goal(3.0, 2.0),
    "W5 step": Goal(torch=40.0),
    "W5 epoch": Goal(best=5.0),
    "W6 step": Goal(1.4, 1.3),
    "W7 W1 batch 1": Goal(5.0, 2.0),
    "W7 W2 batch 1": Goal(3.5, 1.1),
    "W7 W3 batch 1": Goal(3.0, 0.9),
    "64 mul/add of 16, no gradient": Goal(torch=0.62),  # 2 us an operation beside PyTorch's 1.24
    "64 mul/add of 16, forward + backward": Goal(torch=0.75),  # 8 us beside 6.0
    "relu(a*x+b)*c over 1e7": Goal(10.0, 2.5),
    "conv 16x64x56x56 -> 64, 3x3": Goal(best=0.95),
    "conv 16x64x56x56 -> 64, 3x3, backward": Goal(best=1.0),
    "conv 16x256x14x14 -> 256, 3x3": Goal(best=0.95),
    "conv 16x256x14x14 -> 256, 3x3, backward": Goal(best=1.0),
    "conv 32x3x224x224 -> 64, 7x7 s2": Goal(best=0.9),
    "conv 32x3x224x224 -> 64, 7x7 s2, backward": Goal(best=1.5),
}


def goal_of(case: str) -> Goal:
    """The goal of a row; an empty one where none is set."""
    by_kind = {"gemm": Goal(best=0.95), "max": _POOL, "avg": _POOL, "conv": _SMALL}
    return GOALS.get(case) or by_kind.get(case.split()[0], Goal())


@dataclass(frozen=True)
class Standing:
    """Where a row stands: our fastest way, the ratios to it, the fastest peer."""

    ours: str | None
    torch: float
    best: float
    peer: str | None


def standing(result: Result) -> Standing:
    """Compare a row's contestants; ratios are NaN where one side is missing."""
    ours = result.fastest([name for name in result.seconds if name.startswith(OURS)])
    peer = best_peer(result)
    if ours is None:
        return Standing(None, math.nan, math.nan, peer)
    return Standing(ours, result.ratio(ours, THEIRS), math.nan if peer is None else result.ratio(ours, peer), peer)


def verdict(ratio: float, goal: float | None) -> str:
    """``3.1 (3: met)`` and the like."""
    shown = "-" if math.isnan(ratio) else f"{ratio:.3g}"
    if goal is None:
        return shown
    met = not math.isnan(ratio) and ratio >= goal
    return f"{shown} ({goal:g}: {'met' if met else 'missed'})"
