"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from benchmarks import busy, data, data_memory, experiment, kernels, ops, stability, steps, tables
from benchmarks.contestants import PEERS
from benchmarks.measure import machine
from benchmarks.options import Options


def _plain(results: list[Any]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(result) for result in results]


def _given(options: Options) -> dict[str, Any]:
    rounds = options.rounds or (2 if options.quick else None)
    return {"rounds": rounds} if rounds else {}


def _steps(options: Options) -> dict[str, Any]:
    results, figures, versions = steps.run(options)
    return {"results": _plain(results), "figures": _plain(figures), "versions": versions}


def _ops(options: Options) -> dict[str, Any]:
    results, versions = ops.run(options)
    return {"results": _plain(results), "versions": versions}


def _data(options: Options) -> dict[str, Any]:
    results = data.run(**_given(options))
    return {"results": _plain(results), "large": data_memory.report(quick=options.quick)}


RUNS = {
    "busy": lambda options: {"results": busy.run(**_given(options))},
    "data": _data,
    "experiment": experiment.run,
    "kernels": lambda options: {"results": _plain(kernels.run(**_given(options)))},
    "ops": _ops,
    "stability": stability.run,
    "steps": _steps,
}


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _interpreters(texts: list[str]) -> dict[str, str]:
    """``PEER=/path/to/python``, several with commas."""
    pairs = [text.partition("=") for given in texts for text in _names(given)]
    wrong = [name for name, _, path in pairs if name not in PEERS or not path]
    if wrong:
        raise SystemExit(f"--python: expected PEER=/path/to/python with a peer of {', '.join(PEERS)}, got {', '.join(wrong)}")
    return {name: path for name, _, path in pairs}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("name", choices=sorted([*RUNS, "table"]))
    parser.add_argument("file", nargs="?", help="table: the JSON of a run")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="table: put it there instead of printing it")
    parser.add_argument("--rounds", type=int, default=None, help="how often each contestant is timed")
    parser.add_argument("--quick", action="store_true", help="few rounds and small epochs, to see that everything works")
    parser.add_argument("--only", type=_names, default=(), metavar="W1,...", help="steps: these workloads; ops: rows that start so")
    parser.add_argument("--peers", type=_names, default=(), metavar="torch,...", help=f"steps: some of {', '.join(PEERS)}")
    parser.add_argument(
        "--python", action="append", default=[], metavar="PEER=PATH", help="interpreter of a peer; also KEYDNN_BENCH_PYTHON"
    )
    parser.add_argument("--threads", type=int, default=2, help="of every contestant")
    parser.add_argument("--json", default=None, metavar="FILE", help="write the figures here")
    return parser


def _table(arguments: argparse.Namespace) -> None:
    if arguments.file is None:
        raise SystemExit("table: name the JSON file of a run")
    kept = json.loads(Path(arguments.file).read_text(encoding="utf-8"))
    if arguments.into is None:
        print(tables.render(kept))
    else:
        tables.put(arguments.into, kept)


def main() -> None:
    """Run one benchmark, or render one; ``--json FILE`` keeps the figures."""
    arguments = _parser().parse_args()
    if arguments.name == "table":
        return _table(arguments)
    unknown = set(arguments.peers) - set(PEERS)
    if unknown:
        raise SystemExit(f"--peers: expected some of {', '.join(PEERS)}, got {', '.join(sorted(unknown))}")
    options = Options(
        rounds=arguments.rounds,
        quick=arguments.quick,
        only=arguments.only,
        peers=arguments.peers,
        interpreters=_interpreters([os.environ.get("KEYDNN_BENCH_PYTHON", ""), *arguments.python]),
        threads=arguments.threads,
    )
    facts = machine() | {"threads": options.threads}
    print(", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)
    kept = {"name": arguments.name, "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]), "machine": facts}
    kept |= RUNS[arguments.name](options)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(kept, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
