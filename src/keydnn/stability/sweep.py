"""Sweeps: many runs over a grid of settings, kept in one file that survives interruption.

The file has one JSON line per cell, in the order of the cells and without times, after a first line with the fingerprint of the
sweep.  A cell is known by the hash of its contents.  Whoever is killed and goes on ends with the same bytes as an uninterrupted
sweep: finished cells are never lost and never computed again.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keydnn.stability.configs import outcome, run_cells, run_config
from keydnn.threads import set_threads

Cell = dict[str, Any]
Runner = Callable[[Cell], Mapping[str, Any]]
SIDE_BY_SIDE = 8  # cells in one step: more would leave the cache
_FREE = (  # settings of the training in which they may differ
    "learning_rate", "curvature_ema_rho", "chi", "eps", "stop_loss", "stop_patience", "stop_min_steps", "min_loss_change", "diverge_loss",
)  # fmt: skip


def run_cell(cell: Cell) -> dict[str, Any]:
    """The outcome of one configuration, see `keydnn.stability.configs`."""
    return outcome(run_config(cell))


def _kind(cell: Cell) -> str:
    """A cell without what cells side by side may differ in."""
    train = cell.get("train")
    left = {k: v for k, v in train.items() if k not in _FREE} if isinstance(train, Mapping) else train
    return json.dumps({**cell, "train": left}, sort_keys=True, default=repr)


def _block(runs: Runner, cells: list[Cell]) -> tuple[list[Mapping[str, Any]], Exception | None]:
    """The outcomes of some cells, up to the first that is refused, and why it is."""
    if len(cells) == 1:
        return [runs(cells[0])], None
    try:
        return list(run_cells(cells)), None
    except (ValueError, TypeError):  # one of them is wrong: those before it count
        done: list[Mapping[str, Any]] = []
        for cell in cells:
            try:
                done.append(runs(cell))
            except (ValueError, TypeError) as error:
                return done, error
        return done, None


def fingerprint(value: Any) -> str:
    """A hash of JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()[:16]


class PrecisionSweep:
    """Runs over a grid.

    Args:
        base: Settings that all cells share; a nested dict, as `run_config` takes it.
        axes: Dotted name to values: all combinations, the last axis fastest.  Or a list of dicts: these cells.
        runs: Maps a cell's settings to a dict of JSON values; None runs `run_config`.  For several workers it must be
            importable.
        out: The file.

    Raises:
        ValueError: No axes, or an axis without values.

    Example:
        >>> from keydnn.stability import PrecisionSweep
        >>> sweep = PrecisionSweep({"a": {"b": 1}}, {"a.b": [1, 2], "c": [3]}, lambda cell: {"sum": cell["a"]["b"] + cell["c"]}, "s.jsonl")
        >>> [row["sum"] for row in sweep.run()]
        [4, 5]
    """

    def __init__(
        self, base: Mapping[str, Any] | None = None, axes: Any = None, runs: Runner | None = None, out: Any = "sweep.jsonl"
    ) -> None:
        self.base, self.axes = dict(base or {}), axes
        self.runs: Runner = run_cell if runs is None else runs
        self.out = Path(out)
        empty = [name for name, values in axes.items() if not len(values)] if isinstance(axes, Mapping) else []
        if not axes or empty:
            raise ValueError(f"PrecisionSweep: axes must name at least one setting with values, got {axes!r}")
        if isinstance(axes, Mapping):
            self.points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        else:
            self.points = [dict(point) for point in axes]
        self.cells = [_with(self.base, point) for point in self.points]
        self.keys = [fingerprint(cell) for cell in self.cells]

    @property
    def fingerprint(self) -> str:
        """A hash of all cells, in order."""
        return fingerprint(self.keys)

    # -- running

    def run(self, *, resume: bool = False, workers: int = 1, progress: Callable[[int, int], None] | None = None) -> list[dict[str, Any]]:
        """Run what is not in the file yet.

        Args:
            resume: Whether to go on with a file that exists.
            workers: Processes, of one thread each if there are several; results are written in the order of the cells all the same.
            progress: Called with (finished, total) after each cell.

        Returns:
            The table, see `to_table`.

        Raises:
            FileExistsError: The file exists and ``resume`` is False.
            ValueError: The file belongs to another configuration, or is damaged before its end.
        """
        done = self._begin(resume)
        total = len(self.cells)
        with self.out.open("a", encoding="utf-8") as file:
            for i, result in enumerate(self._results(self.cells[done:], workers), start=done):
                line = json.dumps({"key": self.keys[i], "point": self.points[i], "result": dict(result)}, sort_keys=True)
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
                if progress is not None:
                    progress(i + 1, total)
        return self.to_table()

    def _results(self, cells: Sequence[Cell], workers: int) -> Iterator[Mapping[str, Any]]:
        together = functools.partial(_block, self.runs)
        with contextlib.ExitStack() as stack:
            spread: Callable[..., Iterator[tuple[list[Mapping[str, Any]], Exception | None]]] = map
            if workers > 1:
                import multiprocessing
                from concurrent.futures import ProcessPoolExecutor

                pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), set_threads, (1,))
                spread = stack.enter_context(pool).map
            for results, error in spread(together, self._blocks(cells)):
                yield from results
                if error is not None:
                    raise error

    def _blocks(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """Cells in a row that differ in numbers of the training alone; a runner of one's own takes them one by one."""
        if self.runs is not run_cell:
            return [[cell] for cell in cells]
        found = []
        for _, row in itertools.groupby(cells, _kind):
            same = list(row)
            found += [same[i : i + SIDE_BY_SIDE] for i in range(0, len(same), SIDE_BY_SIDE)]
        return found

    def _begin(self, resume: bool) -> int:
        """Make the file, or check it; returns how many cells are finished."""
        head = json.dumps({"cells": len(self.cells), "sweep": self.fingerprint}, sort_keys=True) + "\n"
        if not self.out.exists() or self.out.stat().st_size == 0:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.out.write_text(head, encoding="utf-8")
            return 0
        if not resume:
            raise FileExistsError(f"{self.out} exists; resume it, or choose another file")
        text = self.out.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]  # a line that was being written when the process died is no line
        lines = whole.decode("utf-8").splitlines()
        if not lines and head.encode().startswith(text):  # not even the first line was finished
            self.out.write_text(head, encoding="utf-8")
            return 0
        self._check(lines, head)
        if len(whole) < len(text):
            with self.out.open("r+b") as file:
                file.truncate(len(whole))
        return len(lines) - 1

    def _check(self, lines: list[str], head: str) -> None:
        if not lines or lines[0] + "\n" != head:
            raise ValueError(f"{self.out} belongs to another sweep (it begins {lines[:1]}, expected {head.strip()}); choose another file")
        for i, line in enumerate(lines[1:]):
            try:
                key = json.loads(line)["key"]
            except (json.JSONDecodeError, KeyError, TypeError):
                raise ValueError(f"{self.out}: line {i + 2} is damaged; remove it and what follows to go on") from None
            if i >= len(self.keys) or key != self.keys[i]:
                raise ValueError(f"{self.out}: line {i + 2} is of another cell than number {i} of this sweep")

    # -- reading

    def to_table(self) -> list[dict[str, Any]]:
        """The finished cells: their point and their result, in one dict each.

        Raises:
            FileNotFoundError: There is no file yet.
        """
        return read_table(self.out)

    def divergence_fraction(self) -> float:
        """Share of finished cells whose result says ``diverged``; NaN if there is none."""
        rows = self.to_table()
        return sum(bool(row.get("diverged")) for row in rows) / len(rows) if rows else float("nan")

    def phase_diagram(self, x: str, y: str, value: str) -> tuple[list[Any], list[Any], np.ndarray]:
        """Values over two axes.

        Returns:
            The values of x, those of y, and the matrix (y, x); NaN where there is no finished cell or no number.
        """
        return phase_diagram(self.to_table(), x, y, value)

    def pareto(self, bits: str, error: str) -> list[dict[str, Any]]:
        """The cells that no other beats in both columns, by bits."""
        rows = [row for row in self.to_table() if row.get(bits) is not None and row.get(error) is not None]
        front: list[dict[str, Any]] = []
        for row in sorted(rows, key=lambda r: (r[bits], r[error])):
            if not front or row[error] < front[-1][error]:
                front.append(row)
        return front


def read_table(path: Any) -> list[dict[str, Any]]:
    """The finished cells of a sweep file.

    Raises:
        ValueError: The file is no sweep.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    if not lines or '"sweep"' not in lines[0]:
        raise ValueError(f"{path} is no sweep file: its first line has no fingerprint")
    rows = [json.loads(line) for line in lines[1:] if line.endswith("}")]
    return [{**row["point"], **row["result"]} for row in rows]


def phase_diagram(rows: list[dict[str, Any]], x: str, y: str, value: str) -> tuple[list[Any], list[Any], np.ndarray]:
    """See `PrecisionSweep.phase_diagram`.

    Raises:
        ValueError: A column that no row has.
    """
    for name in (x, y, value):
        if not any(name in row for row in rows):
            raise ValueError(f"phase_diagram: no cell has {name!r}; there are {', '.join(rows[0]) if rows else 'no cells'}")
    xs, ys = (list(dict.fromkeys(row[name] for row in rows)) for name in (x, y))
    matrix = np.full((len(ys), len(xs)), np.nan)
    for row in rows:
        found = row.get(value)
        matrix[ys.index(row[y]), xs.index(row[x])] = np.nan if found is None or isinstance(found, str) else float(found)
    return xs, ys, matrix


def _with(base: Mapping[str, Any], point: Mapping[str, Any]) -> Cell:
    """The base with the settings of a point, which are named by dots."""
    cell = copy.deepcopy(dict(base))
    for name, value in point.items():
        *path, last = name.split(".")
        inner = cell
        for part in path:
            if inner.get(part) is None:
                inner[part] = {}
            inner = inner[part]
        inner[last] = value
    return cell
