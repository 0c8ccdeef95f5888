"""``python -m benchmarks steps``: training steps, epochs and predictions of KeyDNN and of every peer that is installed.

Each contestant runs in a process of its own, all from the same weights and batches; their losses at steps 1 and 20 must be
within 2e-3 of PyTorch's (or of the definition's in float64) before anything is timed.  One is active at a time, in turns.
"""

from __future__ import annotations

from typing import Any

from benchmarks import definition
from benchmarks.contestants import OURS, STEPS, THEIRS, started
from benchmarks.goals import goal_of, standing, verdict
from benchmarks.measure import Result, contest, readable
from benchmarks.memory import Figure, figures
from benchmarks.options import Options
from benchmarks.remote import NotOfferedError, Remote
from benchmarks.workloads import Case

TOLERANCE = 2e-3
STEP_BUDGET_S, QUICK_BUDGET_S = 0.2, 0.05
ROUNDS, EPOCH_ROUNDS, QUICK_ROUNDS = 5, 3, 2


def cases(options: Options) -> list[Case]:
    """The rows that were asked for."""
    rows = 6_000 if options.quick else 60_000
    every = [
        *(Case("W1", "step"), Case("W1", "epoch", rows), Case("W2", "step"), Case("W3", "step")),
        *(Case("W4-LSTM", "step"), Case("W4-GRU", "step"), Case("W5", "step"), Case("W5", "epoch", rows), Case("W6", "step")),
        *(Case(name, "infer") for name in ("W1", "W2", "W3")),
    ]
    return [case for case in every if not options.only or set(options.only) & set(case.tags)]


def run_case(case: Case, contestants: list[Remote], rounds: int, budget_s: float) -> Result:
    """One row: PyTorch first, or the definition where it is missing."""
    first = [c for c in contestants if c.name == THEIRS]
    want: Any = None
    if not first and case.mode != "infer":
        try:
            want = definition.losses(case.to_check)
        except NotOfferedError as reason:
            print(f"  {reason}: contestants are compared with the first of them")
    order = first + [c for c in contestants if c.name != THEIRS]
    each = case.mode != "infer"
    return contest(case, order, rounds=rounds, budget_s=budget_s, rtol=TOLERANCE, want=want, each=each, checked=case.to_check)


def show(result: Result) -> None:
    """Print a row: medians with spread, the ratios with their goals, and who is missing."""
    print(result.case)
    for name in sorted(result.seconds, key=result.median):
        spread = f"+-{50 * result.spread(name):.0f} %"
        ratio = f"{result.ratio(OURS, name):.2f} x ours" if OURS in result.seconds else ""
        print(f"  {name:<24}{readable(result.median(name)):>10} {spread:>8}{ratio:>16}")
    for name, note in result.notes.items():
        print(f"  {name:<24}{note}")
    if result.absent:
        print("  without " + ", ".join(f"{name} ({reason})" for name, reason in result.absent.items()))
    goal, at = goal_of(result.case), standing(result)
    if at.ours:
        print(f"  torch / ours {verdict(at.torch, goal.torch)}, best peer ({at.peer}) / ours {verdict(at.best, goal.best)}", flush=True)


def run(options: Options) -> tuple[list[Result], list[Figure], dict[str, str]]:
    """All rows; prints them and returns results, memory figures and versions."""
    entries = [entry for entry in STEPS if entry.peer == OURS or not options.peers or entry.peer in options.peers]
    contestants, missing = started(entries, options.interpreters, options.threads)
    print("taking part: " + ", ".join(c.name for c in contestants))
    if missing:
        print("missing: " + ", ".join(f"{name} ({reason})" for name, reason in missing.items()))
    versions = {name: v for c in contestants for name, v in c.versions.items()}
    print(", ".join(f"{name} {v}" for name, v in versions.items()), flush=True)
    results = []
    try:
        for case in cases(options):
            usual = QUICK_ROUNDS if options.quick else EPOCH_ROUNDS if case.mode == "epoch" else ROUNDS
            budget = QUICK_BUDGET_S if options.quick else STEP_BUDGET_S
            result = run_case(case, contestants, options.rounds or usual, budget)
            show(result)
            results.append(result)
    finally:
        for c in contestants:
            c.close()
    return results, figures(options), versions
