"""Memory and speed of a large feature set, measured in a process of its own: `python -m benchmarks.data_memory ROWS BATCHES ROUNDS`.

20 float32 columns are made, then put into a feature set, split and sampled; before each stage the kernel's high-water mark is reset
(/proc/self/clear_refs), so what a stage says is the most that it needed beyond the columns, in parts of their size.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS, BATCH, N_BATCHES = 20, 256, 10_000
ROWS, QUICK_ROWS, ROUNDS = 10_000_000, 1_000_000, 5
MOST_MEMORY, LEAST_SPEED = 0.3, 0.7  # the goals


def _status() -> dict[str, int]:
    """Fields of /proc/self/status in bytes."""
    lines = (line.split() for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) == 3 and words[2] == "kB"}


class Peaks:
    """The most memory that stages need beyond what was resident before the first.

    Args:
        size: What counts as 1.
    """

    def __init__(self, size: int) -> None:
        ctypes.CDLL(None).malloc_trim(0)
        self._before, self._size = _status()["VmRSS"], size
        self.parts: dict[str, float] = {}

    def stage(self, name: str, call: Callable[[], Any]) -> Any:
        """What a call returns; its peak is noted."""
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        result = call()
        self.parts[name] = (_status()["VmHWM"] - self._before) / self._size
        return result


def measure(rows: int, n_batches: int, rounds: int) -> dict[str, Any]:
    """Peaks of construction, split, drawing and many batches of 256, and how fast batches are beside ``np.stack``."""
    from keydnn.experiment.data import FeatureSet
    from keydnn.experiment.samplers import SimpleSampler

    names = [f"x{i:02}" for i in range(COLUMNS)]

    def built(columns: dict[str, np.ndarray]) -> Any:
        return FeatureSet.from_dict("large", columns, names, [])

    def drawn(fs: Any) -> Any:
        sampler = SimpleSampler(batch_size=BATCH, shuffle=True, seed=0, source=fs["train"])
        sampler.materialize_batches(show_progress=False)
        return sampler

    def read(sampler: Any) -> float:
        batches = sampler.get_batches()
        return sum(float(batches[i % len(batches)].materialize_batch().features[0, 0]) for i in range(n_batches))

    small = built({name: np.zeros(2 * BATCH, np.float32) for name in names})  # what is loaded or set up once does not count
    small.split_random({"train": 0.8, "test": 0.2})
    read(drawn(small))
    del small

    rng = np.random.default_rng(0)
    columns = {name: rng.random(rows, dtype=np.float32) for name in names}
    peaks = Peaks(sum(column.nbytes for column in columns.values()))
    fs = peaks.stage("construction", lambda: built(columns))
    peaks.stage("split", lambda: fs.split_random({"train": 0.8, "test": 0.2}))
    sampler = peaks.stage("drawing", lambda: drawn(fs))
    peaks.stage("batches", lambda: read(sampler))
    return {"rows": rows, "peaks": peaks.parts, "speed": _speed(sampler.get_batches()[:n_batches], list(columns.values()), rounds)}


def _speed(batches: list[Any], columns: list[np.ndarray], rounds: int) -> float:
    """Speed of batches in parts of that of ``np.stack`` over the same rows: the median of some rounds, taken in turn."""
    ratios = []
    for _ in range(rounds):
        start = time.perf_counter()
        for batch in batches:
            batch.materialize_batch()
        between = time.perf_counter()
        for batch in batches:
            rows = batch.role_indices["default"]
            np.stack([column.take(rows) for column in columns], 1)
        ratios.append((time.perf_counter() - between) / (between - start))
    return float(np.median(ratios))


def measured(rows: int, n_batches: int = N_BATCHES, rounds: int = ROUNDS) -> dict[str, Any]:
    """:func:`measure` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.data_memory", str(rows), str(n_batches), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[1])
    return json.loads(done.stdout.splitlines()[-1])


def report(quick: bool = False) -> dict[str, Any]:
    """:func:`measured`, shown beside the goals; where the kernel has no such files, why not."""
    if not Path("/proc/self/clear_refs").exists():
        return {"note": "needs /proc as Linux has it"}
    figures = measured(QUICK_ROWS if quick else ROWS)
    peaks = ", ".join(f"{stage} {part:.2f}" for stage, part in figures["peaks"].items())
    print(f"{figures['rows']:,} rows x {COLUMNS} float32, in parts of the size of the columns (goal {MOST_MEMORY}), peak memory of {peaks}")
    print(f"speed of {N_BATCHES:,} batches of {BATCH}, in parts of np.stack's (goal {LEAST_SPEED}): {figures['speed']:.2f}", flush=True)
    return figures


if __name__ == "__main__":
    from keydnn.experiment.context import ExperimentContext

    with ExperimentContext(registration_policy="overwrite").activate():
        print(json.dumps(measure(*map(int, sys.argv[1:4]))))
