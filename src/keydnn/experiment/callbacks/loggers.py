"""Loggers: the metrics of a phase, a line per epoch, in files that grow while it runs.

A line is written whole when its epoch is over, so a kill loses one at most.  A checkpoint knows how long the file was; a run that is taken
up again cuts the file there and goes on, so nothing stands in it twice.
"""

from __future__ import annotations

import abc
import copy
import csv
import io
import json
import math
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from keydnn.experiment.callbacks.callback import Callback

LATE = 10  # execution order: behind what logs metrics
Metrics = Mapping[str, float]


class MetricsLogger(Callback):
    """Takes the metrics of every epoch when it is over, and at the end of a phase what was not taken yet; derive from it.

    A metric with entries for batches alone is taken as their mean.

    Args:
        label: Name; None takes that of the class.
        execution_order: Lower ones run first; behind evaluations and early stopping unless told otherwise.
    """

    def __init__(self, *, label: str | None = None, execution_order: int = LATE) -> None:
        super().__init__(label, execution_order)
        self._next = 0  # epoch

    @abc.abstractmethod
    def begin(self, experiment: Any, phase: Any) -> None:
        """A phase begins; not called when one is taken up again."""

    @abc.abstractmethod
    def write(self, phase: str, epoch: int | None, metrics: Metrics) -> None:
        """Take the metrics of an epoch; of a whole phase, with epoch None."""

    def on_phase_start(self, *, experiment: Any, phase: Any, results: Any) -> None:
        """Begin anew; a preview, which leaves no trace, is not logged."""
        self._next = 0
        if not experiment.is_preview:
            self.begin(experiment, phase)

    def on_epoch_end(self, *, experiment: Any, phase: Any, exec_ctx: Any, results: Any) -> None:
        """Take the metrics of the epoch."""
        if not experiment.is_preview:
            self._take(phase, results, exec_ctx.epoch_idx)

    def on_phase_end(self, *, experiment: Any, phase: Any, results: Any) -> None:
        """Take the metrics of a phase that has no epochs, and those of the phase as a whole."""
        if experiment.is_preview:
            return
        if self._next == 0:
            self._take(phase, results, 0)
        of_phase = metrics_of(results.metric_store, None)
        if of_phase:
            self.write(phase.label, None, of_phase)

    def _take(self, phase: Any, results: Any, epoch: int) -> None:
        metrics = metrics_of(results.metric_store, epoch)
        if metrics:
            self.write(phase.label, epoch, metrics)
        self._next = epoch + 1

    def get_state(self) -> dict[str, Any]:
        """How many epochs were taken."""
        return {"next": self._next}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back :meth:`get_state`."""
        self._next = state["next"]


def metrics_of(store: Any, epoch: int | None) -> dict[str, float]:
    """The metrics of an epoch by name: the entry of the epoch, else the mean of those of its batches."""
    found = {}
    for name in store.names:
        entries = store.of_epoch(name, epoch)
        whole = [float(entry.value) for entry in entries if entry.batch_idx is None]
        if entries:
            found[name] = whole[-1] if whole else math.fsum(float(entry.value) for entry in entries) / len(entries)
    return found


class FileLogger(MetricsLogger):
    """A logger that adds bytes to a file; derive from it.

    Args:
        path: The file; folders are made.
        append: Whether to go on behind what is there when a phase begins; else it is replaced.
        label: Name; None takes that of the class.
        execution_order: Lower ones run first.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, append: bool = False, label: str | None = None, execution_order: int = LATE
    ) -> None:
        super().__init__(label=label, execution_order=execution_order)
        self.path, self.append = Path(path), bool(append)
        self._size = 0  # of what stands in the file, as far as this logger knows

    def begin(self, experiment: Any, phase: Any) -> None:
        """Replace the file, or find its end."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.append:
            self.path.write_bytes(b"")
        self._size = self.path.stat().st_size if self.path.exists() else 0

    def add(self, data: bytes) -> None:
        """Put bytes behind what is known to be in the file; what stands there of a run that was cut off goes."""
        self.look()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("r+b" if self.path.exists() else "w+b") as file:
            file.seek(self._size)
            file.write(data)
            file.truncate()
            self._size = file.tell()

    def look(self) -> None:
        """Look whether the file still has what this logger wrote; if not, say so and go on with what there is.

        Warns:
            UserWarning: It is shorter, or gone.
        """
        there = self.path.stat().st_size if self.path.exists() else 0
        if there < self._size:
            warnings.warn(f"{self.label}: {self.path} has {there} bytes and had {self._size}: lines are lost", stacklevel=2)
            self._size = there

    def moved(self, where: Callable[[Path], Path]) -> Self:
        """A logger like this one that writes into another folder.

        Args:
            where: Folder to the folder instead.
        """
        made = copy.copy(self)
        made.path = where(self.path.parent) / self.path.name
        return made

    def get_config(self) -> dict[str, Any]:
        """Type, label, order, path and whether to append."""
        return {**self._base_config(), "path": str(self.path), "append": self.append}

    def get_state(self) -> dict[str, Any]:
        """How many epochs were taken, and how long the file is."""
        return {**super().get_state(), "size": self._size}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back :meth:`get_state`; the file is cut when the next line comes."""
        super().set_state(state)
        self._size = state["size"]


class CSVLogger(FileLogger):
    """Metrics as comma-separated values: phase, epoch, and a column per metric with all digits.

    A metric that comes later gets a column of its own; the file is written anew then, at once.

    Args:
        path: The file; folders are made.
        append: Whether to go on behind what is there when a phase begins; else it is replaced.
        label: Name; None takes that of the class.
        execution_order: Lower ones run first.

    Example:
        >>> from keydnn.experiment.callbacks import CSVLogger
        >>> CSVLogger("metrics.csv")
        CSVLogger(label='CSVLogger', execution_order=10, path='metrics.csv', append=False)
    """

    def write(self, phase: str, epoch: int | None, metrics: Metrics) -> None:
        """Add a line."""
        self.look()
        columns = self._columns()
        wider = [*(columns or ("phase", "epoch")), *(name for name in metrics if name not in columns)]
        if wider != columns:
            self._widen(wider)
        told = {"phase": phase, "epoch": "" if epoch is None else epoch, **{name: repr(value) for name, value in metrics.items()}}
        self.add(_line([told.get(name, "") for name in wider]))

    def _known(self) -> str:
        """The text that is known to stand in the file."""
        return self.path.read_bytes()[: self._size].decode() if self._size and self.path.exists() else ""

    def _columns(self) -> list[str]:
        return next(csv.reader(io.StringIO(self._known(), newline="")), [])

    def _widen(self, columns: list[str]) -> None:
        _, *rows = [*csv.reader(io.StringIO(self._known(), newline=""))] or [[]]
        data = b"".join([_line(columns), *(_line([*row, *[""] * (len(columns) - len(row))]) for row in rows)])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(self.path.name + ".new")
        beside.write_bytes(data)
        os.replace(beside, self.path)
        self._size = len(data)


def _line(cells: list[Any]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


class JSONLogger(FileLogger):
    """Metrics as a line of JSON per epoch: ``{"phase": "train", "epoch": 0, "metrics": {"train_loss": 0.5}}``.

    Numbers that are not finite are the texts ``"nan"``, ``"inf"`` and ``"-inf"``, since JSON has none.

    Args:
        path: The file; folders are made.
        append: Whether to go on behind what is there when a phase begins; else it is replaced.
        label: Name; None takes that of the class.
        execution_order: Lower ones run first.

    Example:
        >>> from keydnn.experiment.callbacks import JSONLogger
        >>> JSONLogger("metrics.jsonl", append=True)
        JSONLogger(label='JSONLogger', execution_order=10, path='metrics.jsonl', append=True)
    """

    def write(self, phase: str, epoch: int | None, metrics: Metrics) -> None:
        """Add a line."""
        told = {name: value if math.isfinite(value) else repr(value) for name, value in metrics.items()}
        self.add((json.dumps({"phase": phase, "epoch": epoch, "metrics": told}) + "\n").encode())
