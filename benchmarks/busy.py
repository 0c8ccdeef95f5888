"""``python -m benchmarks busy``: training steps of W1 and W2 beside one foreign busy process.

The step on two threads beside a process that keeps a core busy must stay within twice the time of one thread on an idle machine.
"""

from __future__ import annotations

import multiprocessing
import statistics

from benchmarks.measure import readable
from benchmarks.remote import seconds_per_call
from benchmarks.workloads import Case

LIMIT = 2.0


def _spin() -> None:
    while True:
        pass


def _times(workload: str, rounds: int, budget_s: float) -> dict[str, float]:
    import keydnn
    from benchmarks.peers import ours

    session = ours.recorded(Case(workload, "step"))
    times: dict[str, list[float]] = {"one thread": [], "two threads": [], "two threads, busy machine": []}
    for _ in range(rounds):
        keydnn.set_threads(1)
        times["one thread"].append(seconds_per_call(session, budget_s))
        keydnn.set_threads(2)
        times["two threads"].append(seconds_per_call(session, budget_s))
        foreign = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
        foreign.start()
        try:
            times["two threads, busy machine"].append(seconds_per_call(session, budget_s))
        finally:
            foreign.kill()
            foreign.join()
    return {name: statistics.median(t) for name, t in times.items()}


def run(rounds: int = 7, budget_s: float = 0.4) -> dict[str, dict[str, float]]:
    """Times of one thread, two threads, and two threads beside a busy process, in turn; prints them with their ratios."""
    found = {}
    for workload in ("W1", "W2"):
        found[workload] = medians = _times(workload, rounds, budget_s)
        for name, seconds in medians.items():
            print(f"{workload}, {name:<28}{readable(seconds):>10}{seconds / medians['one thread']:>8.2f}x one thread", flush=True)
        busy = medians["two threads, busy machine"] / medians["one thread"]
        print(f"{workload}: {busy:.2f} of at most {LIMIT:g}: {'met' if busy <= LIMIT else 'missed'}", flush=True)
    return found
