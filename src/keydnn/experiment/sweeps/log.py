"""The file of a sweep: a first line that tells which sweep, then a line per finished trial, in order."""

from __future__ import annotations

import json
import os
from pathlib import Path

from keydnn.experiment.sweeps.results import Trial


class TrialLog:
    """Finished trials in a file of JSON lines; a line that was being written when the process died is no line.

    Args:
        path: The file.
        fingerprint: Of the sweep.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self._head = json.dumps({"sweep": fingerprint}) + "\n"

    def begin(self, resume: bool) -> list[Trial]:
        """Make the file, or read it; returns the finished trials.

        Raises:
            FileExistsError: The file is there and ``resume`` is False.
            ValueError: It is of another sweep, or damaged.
        """
        if not self.path.exists() or not self.path.read_bytes().partition(b"\n")[1]:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(self._head, encoding="utf-8")
            return []
        if not resume:
            raise FileExistsError(f"{self.path} exists; pass resume=True, or choose another file")
        text = self.path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        head, *lines = whole.decode("utf-8", errors="replace").splitlines(keepends=True)
        if head != self._head:
            raise ValueError(f"{self.path} is of another sweep: experiment, data, space, mode or seed differ; choose another file")
        trials = [self._read(i, line) for i, line in enumerate(lines)]
        if len(whole) < len(text):
            os.truncate(self.path, len(whole))
        return trials

    def _read(self, number: int, line: str) -> Trial:
        try:
            told = json.loads(line)
            trial = Trial(told["number"], dict(told["point"]), told["value"], told["metrics"], told["error"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path}: line {number + 2} is no trial: {error}") from error
        if trial.number != number:
            raise ValueError(f"{self.path}: line {number + 2} holds trial {trial.number}, expected {number}")
        return trial

    def add(self, trial: Trial) -> None:
        """Write a finished trial."""
        told = {"number": trial.number, "point": list(trial.point.items()), "value": trial.value}
        line = json.dumps({**told, "metrics": dict(trial.metrics), "error": trial.error}) + "\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
