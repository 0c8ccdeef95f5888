"""Callbacks that write files: the model when it is best, the whole run to resume from."""

from __future__ import annotations

import os
import sys
from typing import Any

from keydnn.training.callbacks.base import Callback, Logs
from keydnn.training.callbacks.monitor import Monitor


class ModelCheckpoint(Callback):
    """Write ``model.save_json`` at the end of epochs, atomically; parent directories are created.

    Args:
        filepath: File; may contain ``{epoch}`` (from 1) and names of logs in the style of ``str.format``.  A template that
            cannot be formatted is used as it stands.
        monitor: Name in the logs.
        mode: ``min``, ``max``, or ``auto``: ``max`` if the name contains ``acc``, else ``min``.
        save_best_only: Whether to write only when the monitor is better than ever.
        verbose: 1 prints a line per file.

    Attributes:
        best: Best value of the monitor; infinite before the first.

    Raises:
        ValueError: A bad mode.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        *,
        monitor: str = "val_loss",
        mode: str = "auto",
        save_best_only: bool = True,
        verbose: int = 0,
    ) -> None:
        self._monitor = Monitor("ModelCheckpoint", monitor, mode)
        self.filepath, self.monitor, self.mode = os.fspath(filepath), monitor, self._monitor.mode
        self.save_best_only, self.verbose = save_best_only, verbose

    @property
    def best(self) -> float:
        """Best value so far."""
        return self._monitor.best

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Forget earlier runs."""
        self._monitor.reset()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write if it is due."""
        if self.save_best_only:
            value = self._monitor.read(logs)
            if value is None or not self._monitor.is_better(value):
                return
            self._monitor.best = value
        path = self.path(epoch, logs)
        self.model.save_json(path)
        if self.verbose:
            sys.stdout.write(f"ModelCheckpoint: epoch {epoch + 1} saved to {path}\n")

    def path(self, epoch: int, logs: Logs | None = None) -> str:
        """The file for an epoch (counted from 0) with these logs."""
        try:
            return self.filepath.format(**{**(logs or {}), "epoch": epoch + 1})
        except (KeyError, IndexError, ValueError, AttributeError, TypeError):
            return self.filepath

    def get_state(self) -> dict[str, Any]:
        """The best value."""
        return self._monitor.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        self._monitor.set_state(state)


class TrainingCheckpoint(Callback):
    """Write the complete state of the run; ``fit(..., resume=path)`` continues from it bit-identically.

    The file holds parameters, buffers, optimizer, callbacks (schedules among them), epoch, position in the epoch, random
    generators and History; each write replaces it atomically.

    Args:
        path: The file.
        every_n_epochs: Write at the end of every n-th epoch.
        every_n_batches: Also write after every n-th batch of an epoch; None does not.

    Raises:
        ValueError: A count below 1.
    """

    comes_last = True

    def __init__(self, path: str | os.PathLike[str], *, every_n_epochs: int = 1, every_n_batches: int | None = None) -> None:
        for name, value in (("every_n_epochs", every_n_epochs), ("every_n_batches", every_n_batches)):
            if value is not None and value < 1:
                raise ValueError(f"TrainingCheckpoint: {name} must be at least 1, got {value!r}")
        self.path, self.every_n_epochs, self.every_n_batches = os.fspath(path), every_n_epochs, every_n_batches
        if every_n_batches is not None:
            self.on_batch_end = self._after_batch  # type: ignore[method-assign] # a batch hook costs speed: only if asked for

    def _after_batch(self, batch: int, logs: Logs | None = None) -> None:
        if self.every_n_batches is not None and (batch + 1) % self.every_n_batches == 0:
            self._write()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write if it is due."""
        if (epoch + 1) % self.every_n_epochs == 0:
            self._write()

    def _write(self) -> None:
        if self.snapshot is None:
            raise RuntimeError("TrainingCheckpoint writes the state of a run: pass it to fit()")
        self.snapshot().write(self.path)
