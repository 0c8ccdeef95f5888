"""What is kept of a run beside its results: where, with which versions and seeds, when, how it ended; and runs side by side."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import sys
import traceback
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import keydnn
from keydnn.experiment.optional import need
from keydnn.experiment.results import PhaseGroupResults

COMPLETED, FAILED, STOPPED = "completed", "failed", "stopped"
_PACKAGES = {"numpy": "numpy", "pandas": "pandas", "pyarrow": "pyarrow", "torch": "torch", "tensorflow": "tensorflow"}
_PACKAGES |= {"sklearn": "scikit-learn"}


class Span:
    """A run, a group or a phase while it goes on.

    Args:
        label: Of what runs.

    Attributes:
        started_at: When it began, in UTC.
        ended_at: When it ended.
        status: "completed", "failed" (an exception) or "stopped" (from the keyboard).
        metadata: Facts found on the way.
        inner: Of a group, what ran in it.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.started_at = self.ended_at = datetime.now(UTC)
        self.status = COMPLETED
        self.metadata: dict[str, Any] = {}
        self.inner: list[Span] | None = None
        self._is_open = False

    def so_far(self, is_over: bool = False) -> Span:
        """A copy as of now, in which what still goes on was stopped, or, if told so, is over."""
        made = Span(self.label)
        made.started_at, made.ended_at, made.metadata = self.started_at, self.ended_at, dict(self.metadata)
        made.status, made.inner = self.status, None if self.inner is None else [span.so_far() for span in self.inner]
        if self._is_open:
            made.ended_at, made.status = datetime.now(UTC), COMPLETED if is_over else STOPPED
        return made

    @contextlib.contextmanager
    def timed(self, *, goes_on: bool = False) -> Iterator[None]:
        """A block whose time and end are noted; of what ``goes_on`` the begin stays."""
        if not goes_on:
            self.started_at = datetime.now(UTC)
        self.status, self._is_open = FAILED, True
        try:
            yield
            self.status = COMPLETED
        except KeyboardInterrupt:
            self.status = STOPPED
            raise
        finally:
            self.ended_at, self._is_open = datetime.now(UTC), False


def machine_facts() -> dict[str, Any]:
    """``host``, ``system``, ``python``, versions of ``packages`` that are loaded, ``git_revision`` of the working directory or None."""
    loaded = [package for module, package in _PACKAGES.items() if module in sys.modules]
    versions = {package: found for package in loaded if (found := _version(package)) is not None}
    return {**_system(), "packages": {"keydnn": keydnn.__version__, **versions}, "git_revision": git_revision(Path.cwd())}


@functools.cache
def _system() -> dict[str, str]:
    return {"host": platform.node(), "system": platform.platform(), "python": platform.python_version()}


@functools.cache
def _version(package: str) -> str | None:
    from importlib import metadata  # brings the parsers of e-mails and of archives

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git_revision(folder: Path) -> str | None:
    """The commit that is checked out in a folder or above it, read from the repository's own files; None outside of one."""
    for place in (str(folder), *map(str, folder.parents)):
        mark = os.path.join(place, ".git")
        if os.path.isdir(mark):
            return _head(mark)
        if os.path.isfile(mark):  # a worktree names its folder
            return _head(os.path.join(place, (_text(mark) or "").removeprefix("gitdir:").strip()))
    return None


def _head(git: str) -> str | None:
    head = _text(os.path.join(git, "HEAD"))
    if head is None or not head.startswith("ref:"):
        return head
    name = head.removeprefix("ref:").strip()
    common = _text(os.path.join(git, "commondir"))
    for home in [git] if common is None else [git, os.path.join(git, common)]:
        found = _text(os.path.join(home, name))
        if found is not None:
            return found
        for line in (_text(os.path.join(home, "packed-refs")) or "").splitlines():
            if line.endswith(f" {name}"):
                return line.split()[0]
    return None


def _text(file: str) -> str | None:
    try:
        with open(file, encoding="utf-8") as f:
            return f.read().strip()
    except OSError:
        return None


def error_facts(error: BaseException, phase: Any) -> dict[str, Any]:
    """An exception as text: ``type``, ``message``, ``traceback``, and label of the ``phase`` it came from."""
    return {
        "type": type(error).__name__,
        "message": str(error),
        "traceback": "".join(traceback.format_exception(error)),
        "phase": None if phase is None else phase.label,
    }


def sampler_seeds(phases: Sequence[Any]) -> dict[str, list[int]]:
    """Phase label to the seeds of its samplers, in the order of its inputs; phases without samplers are left out."""
    seeds = {phase.label: [b.sampler.seed for b in phase.input_sources if b.sampler is not None] for phase in phases}
    return {label: found for label, found in seeds.items() if found}


# -- runs side by side ------------------------------------------------------------------------------------------------------


def run_table(history: Sequence[Any]) -> Any:
    """A line per run: label, status, start, duration in seconds, seed, error, and the latest epoch's value of every metric.

    Metrics are named ``<phase>/<metric>``, inside of groups ``<group>/<phase>/<metric>``; where a run has none stands NaN.
    """
    lines = [
        {
            "label": run.label,
            "status": run.status,
            "started_at": run.started_at,
            "duration_seconds": run.duration_seconds,
            "seed": run.metadata.get("seed"),
            "error": (run.metadata.get("error") or {}).get("message"),
            **final_metrics(run.results),
        }
        for run in history
    ]
    pandas = need("pandas", "a table of runs")
    first = ["label", "status", "started_at", "duration_seconds", "seed", "error"]
    return pandas.DataFrame(lines, columns=[*first, *dict.fromkeys(name for line in lines for name in line if name not in first)])


def final_metrics(results: Any) -> dict[str, float]:
    """The value of every metric at the latest epoch that has one, by path."""
    found: dict[str, float] = {}
    for path, phase_results in phase_results_of(results):
        latest: dict[str, tuple[int, float]] = {}
        for entry in phase_results.metric_store.entries():
            if entry.batch_idx is None and np.ndim(entry.value) == 0:
                epoch = -1 if entry.epoch_idx is None else entry.epoch_idx
                if entry.name not in latest or epoch >= latest[entry.name][0]:
                    latest[entry.name] = (epoch, float(entry.value))
        found |= {"/".join((*path, name)): value for name, (_, value) in latest.items()}
    return found


def phase_results_of(results: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Results of all phases in results of a phase or a group, each with the labels that lead to it."""
    return _leaves(results, () if isinstance(results, PhaseGroupResults) else (results.label,))


def _leaves(results: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Results of phases, each with the labels that lead to it."""
    if not isinstance(results, PhaseGroupResults):
        yield path, results
        return
    for label, one in results.items():
        yield from _leaves(one, (*path, label))
