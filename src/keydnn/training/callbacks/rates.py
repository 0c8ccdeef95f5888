"""Callbacks that change the learning rate."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from keydnn.optim import Schedule
from keydnn.training.callbacks.base import Callback, Logs
from keydnn.training.callbacks.monitor import Monitor


class LearningRateScheduler(Callback):
    """Set the rate by a schedule.

    The starting rate is that of the optimizer when training begins for the first time; later runs with the same optimizer
    keep it.

    Args:
        schedule: A :class:`keydnn.optim.Schedule`, or a function ``(count, present rate) -> rate``.
        by: ``epoch`` or ``step``: what is counted.
        verbose: 1 prints a line when an epoch starts.

    Raises:
        TypeError: ``schedule`` is neither.
        ValueError: ``by`` is neither.

    Example:
        >>> from keydnn.optim import CosineLR, WarmupLR
        >>> from keydnn.training import LearningRateScheduler
        >>> callback = LearningRateScheduler(WarmupLR(100, CosineLR(900)), by="step")
    """

    def __init__(self, schedule: Schedule | Callable[[int, float], float], *, by: str = "epoch", verbose: int = 0) -> None:
        if not callable(schedule):
            raise TypeError(f"LearningRateScheduler: expected a schedule or a function (count, rate), got {type(schedule).__name__}")
        if by not in ("epoch", "step"):
            raise ValueError(f"LearningRateScheduler: by must be 'epoch' or 'step', got {by!r}")
        self.schedule, self.by, self.verbose = schedule, by, verbose
        self.base_lr: float | None = None
        self.steps = 0
        self._known: Any = None
        if by == "step":
            self.on_batch_begin = self._before_batch  # type: ignore[method-assign] # a batch hook costs speed: only if asked for

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Note the starting rate."""
        if self.optimizer is not self._known or self.base_lr is None:
            self._known, self.base_lr = self.optimizer, self.optimizer.lr
        self.steps = 0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Set the rate of the epoch."""
        if self.by == "epoch":
            self._set(epoch)
        if self.verbose:
            sys.stdout.write(f"LearningRateScheduler: epoch {epoch + 1} with lr {self.optimizer.lr:g}\n")

    def _before_batch(self, batch: int, logs: Logs | None = None) -> None:
        self._set(self.steps)
        self.steps += 1

    def _set(self, t: int) -> None:
        if isinstance(self.schedule, Schedule):
            self.optimizer.lr = self.schedule.lr(self.base_lr, t)  # type: ignore[arg-type]
        else:
            self.optimizer.lr = float(self.schedule(t, self.optimizer.lr))

    def get_state(self) -> dict[str, Any]:
        """Starting rate and steps."""
        return {"base_lr": self.base_lr, "steps": self.steps}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        self.base_lr, self.steps = state["base_lr"], state["steps"]


class ReduceLROnPlateau(Callback):
    """Multiply the rate by ``factor`` when a value has not improved for ``patience`` epochs.

    Args:
        monitor: Name in the logs.
        factor: Between 0 and 1.
        patience: Epochs without improvement to accept, at least 1.
        mode: ``min``, ``max``, or ``auto``: ``max`` if the name contains ``acc``, else ``min``.
        min_delta: What counts as improvement.
        cooldown: Epochs after a reduction in which nothing is counted.
        min_lr: The rate does not fall below.
        verbose: 1 prints a line per reduction.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        *,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
        verbose: int = 0,
    ) -> None:
        if not 0 < factor < 1:
            raise ValueError(f"ReduceLROnPlateau: factor must lie between 0 and 1, got {factor!r}")
        for name, value, least in (("patience", patience, 1), ("cooldown", cooldown, 0), ("min_lr", min_lr, 0)):
            if not value >= least:
                raise ValueError(f"ReduceLROnPlateau: {name} must be at least {least}, got {value!r}")
        self._monitor = Monitor("ReduceLROnPlateau", monitor, mode, min_delta)
        self.monitor, self.factor, self.patience, self.cooldown, self.min_lr = monitor, factor, patience, cooldown, min_lr
        self.mode, self.min_delta, self.verbose = self._monitor.mode, self._monitor.min_delta, verbose
        self.wait = self.resting = 0

    @property
    def best(self) -> float:
        """Best value so far."""
        return self._monitor.best

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Forget earlier runs."""
        self._monitor.reset()
        self.wait = self.resting = 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Compare, and reduce if it is time."""
        value = self._monitor.read(logs)
        if value is None:
            return
        if self.resting:
            self.resting, self.wait = self.resting - 1, 0
        if self._monitor.is_better(value):
            self._monitor.best, self.wait = value, 0
        elif not self.resting:
            self.wait += 1
            if self.wait >= self.patience:
                self._reduce(epoch)

    def _reduce(self, epoch: int) -> None:
        before = self.optimizer.lr
        if before > self.min_lr:
            self.optimizer.lr = max(before * self.factor, self.min_lr)
            self.resting, self.wait = self.cooldown, 0
            if self.verbose:
                sys.stdout.write(f"ReduceLROnPlateau: epoch {epoch + 1} reduces lr from {before:g} to {self.optimizer.lr:g}\n")

    def get_state(self) -> dict[str, Any]:
        """Best value and counters."""
        return {**self._monitor.get_state(), "wait": self.wait, "resting": self.resting}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        self._monitor.set_state(state)
        self.wait, self.resting = state["wait"], state["resting"]
