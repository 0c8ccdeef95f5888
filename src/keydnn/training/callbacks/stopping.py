"""Callbacks that end training early."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keydnn.training.callbacks.base import Callback, Logs
from keydnn.training.callbacks.monitor import Monitor


class EarlyStopping(Callback):
    """Stop when a value has not improved for some epochs.

    Training ends once ``wait`` (epochs since the best) reaches ``max(patience, 1)``.  NaN is never better.  A monitor that is
    not logged gives one warning and nothing else.

    Args:
        monitor: Name in the logs.
        mode: ``min``, ``max``, or ``auto``: ``max`` if the name contains ``acc``, else ``min``.
        patience: Epochs without improvement to accept.
        min_delta: What counts as improvement.
        restore_best_weights: Whether the model gets the parameters and buffers of the best epoch back, in place, when
            training stops or ends.

    Attributes:
        best: Best value; infinite before the first.
        best_epoch: Its epoch, -1 before.
        wait: Epochs since.
        stopped_epoch: Epoch at whose end training was stopped; -1 if it was not.
        stop_training: Whether to stop.

    Raises:
        ValueError: A bad mode, or a negative ``patience`` or ``min_delta``.
    """

    def __init__(
        self,
        *,
        monitor: str = "val_loss",
        mode: str = "auto",
        patience: int = 0,
        min_delta: float = 0.0,
        restore_best_weights: bool = False,
    ) -> None:
        if not patience >= 0:
            raise ValueError(f"EarlyStopping: patience must be at least 0, got {patience!r}")
        self._monitor = Monitor("EarlyStopping", monitor, mode, min_delta)
        self.monitor, self.mode, self.patience, self.min_delta = monitor, self._monitor.mode, patience, self._monitor.min_delta
        self.restore_best_weights = restore_best_weights
        self._reset()

    def _reset(self) -> None:
        self._monitor.reset()
        self.best_epoch, self.wait, self.stopped_epoch, self.stop_training = -1, 0, -1, False
        self._weights: dict[str, np.ndarray] | None = None

    @property
    def best(self) -> float:
        """Best value so far."""
        return self._monitor.best

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Forget earlier runs."""
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Compare, remember, and stop if it is time."""
        value = self._monitor.read(logs)
        if value is None:
            return
        if self._monitor.is_better(value):
            self._monitor.best, self.best_epoch, self.wait = value, epoch, 0
            if self.restore_best_weights:
                self._weights = self.model.state_dict()
            return
        self.wait += 1
        if self.wait >= max(self.patience, 1):
            self.stopped_epoch, self.stop_training = epoch, True
            self._restore()

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Give the best weights back if training was not stopped before."""
        if not self.stop_training:
            self._restore()

    def _restore(self) -> None:
        if self._weights is not None:
            self.model.load_state_dict(self._weights)

    def get_state(self) -> dict[str, Any]:
        """Everything remembered, the best weights included."""
        return {
            **self._monitor.get_state(),
            "best_epoch": self.best_epoch,
            "wait": self.wait,
            "stopped_epoch": self.stopped_epoch,
            "stop_training": self.stop_training,
            "weights": self._weights,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        self._monitor.set_state(state)
        self.best_epoch, self.wait = state["best_epoch"], state["wait"]
        self.stopped_epoch, self.stop_training = state["stopped_epoch"], state["stop_training"]
        self._weights = state["weights"]


class TerminateOnNaN(Callback):
    """Stop at once when the loss of a batch is NaN or infinite."""

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Forget earlier runs."""
        self.stop_training = self.stop_epoch = False

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Look at the loss."""
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            self.stop_training = self.stop_epoch = True
