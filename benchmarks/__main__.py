"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
import dataclasses
import json

from benchmarks import busy, kernels
from benchmarks.measure import machine

RUNS = {"kernels": kernels.run, "busy": busy.run}


def main() -> None:
    """Run one benchmark; ``--json FILE`` keeps the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("name", choices=sorted(RUNS))
    parser.add_argument("--rounds", type=int, default=None, help="how often each contestant is timed")
    parser.add_argument("--json", default=None, metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    facts = machine()
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    results = RUNS[arguments.name](**({} if arguments.rounds is None else {"rounds": arguments.rounds}))
    if arguments.json:
        kept = results if isinstance(results, dict) else [dataclasses.asdict(r) for r in results]
        with open(arguments.json, "w", encoding="utf-8") as f:
            json.dump({"machine": facts, "results": kept}, f, indent=1)


if __name__ == "__main__":
    main()
