"""EarlyStopping: training ends when a metric has not improved for a while.

At the end of an epoch the value v is the entry of the epoch if there is one, else that of its batches by the reducer.  It improves on the
best b if it is the first one, or v < b - min_delta (mode "min"), v > b + min_delta ("max"); NaN never does.  After ``patience`` epochs
in a row without an improvement training ends.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from keydnn.experiment.callbacks.callback import Callback
from keydnn.experiment.callbacks.checkpoints import kept_state
from keydnn.experiment.callbacks.evaluation import Evaluation
from keydnn.experiment.callbacks.results import EarlyStoppingResult

MODES = ("min", "max")
REDUCERS: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda values: math.fsum(values) / len(values),
    "sum": math.fsum,
    "last": lambda values: values[-1],
    "first": lambda values: values[0],
}


class EarlyStopping(Callback):
    """Ends training when a metric has not improved for some epochs.

    Args:
        monitor: Name of the metric.
        mode: ``"min"`` or ``"max"``: what is better.
        patience: Epochs in a row without an improvement after which training ends.
        min_delta: By how much a value must be better than the best.
        restore_best: Whether the graph has the state of the best epoch again afterwards.
        reducer: Of the values of batches, where the epoch has no value of its own: ``"mean"``, ``"sum"``, ``"last"`` or ``"first"``.
        label: Name; None takes that of the class.
        execution_order: Lower ones run first; evaluations have 0.

    Attributes:
        best_epoch: Epoch of the best value; None before there is one.
        best_value: The best value.
        stopped_epoch: Epoch at which the end was requested; None if it was not.

    Raises:
        ValueError: Unknown mode or reducer, ``patience`` below 1, or a negative ``min_delta``.

    Warns:
        UserWarning: The metric never appeared.
    """

    def __init__(
        self,
        *,
        monitor: str = "val_loss",
        mode: str = "min",
        patience: int = 5,
        min_delta: float = 0.0,
        restore_best: bool = False,
        reducer: str = "last",
        label: str | None = None,
        execution_order: int = 1,
    ) -> None:
        for what, value, allowed in (("mode", mode, MODES), ("reducer", reducer, tuple(REDUCERS))):
            if value not in allowed:
                raise ValueError(f"{what} must be one of {', '.join(allowed)}, got {value!r}")
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise ValueError(f"patience must be a whole number of at least 1, got {patience!r}")
        if not min_delta >= 0:
            raise ValueError(f"min_delta must be at least 0, got {min_delta!r}")
        super().__init__(label, execution_order)
        self.monitor, self.mode, self.reducer = monitor, mode, reducer
        self.patience, self.min_delta, self.restore_best = patience, float(min_delta), bool(restore_best)
        self._forget()

    def _forget(self) -> None:
        self.best_epoch: int | None = None
        self.best_value: float | None = None
        self.stopped_epoch: int | None = None
        self._waited = 0
        self._seen = False
        self._last_epoch: int | None = None
        self._snapshot: Any = None  # of the best epoch, where no checkpoint holds it

    def on_phase_start(self, *, experiment: Any, phase: Any, results: Any) -> None:
        """Forget an earlier run."""
        self._forget()

    def on_epoch_start(self, *, experiment: Any, phase: Any, exec_ctx: Any, results: Any) -> None:
        """Secure the state of the epoch before, if it was the best and no checkpoint holds it."""
        if self.restore_best and self.best_epoch is not None and self.best_epoch == self._last_epoch and self._snapshot is None:
            if not self._is_checkpointed(phase):
                self._snapshot = experiment.model_graph.get_state()

    def on_epoch_end(self, *, experiment: Any, phase: Any, exec_ctx: Any, results: Any) -> None:
        """Compare the value of the epoch with the best."""
        epoch = self._last_epoch = exec_ctx.epoch_idx
        value = self._value(results, epoch)
        if value is None and self._is_pause(phase, epoch):
            return
        self._seen = self._seen or value is not None
        if value is not None and self._improves(value):
            self.best_epoch, self.best_value, self._waited, self._snapshot = epoch, value, 0, None
            if self.restore_best and phase.checkpointing is not None:
                phase.checkpointing.spare(self.label, epoch)
            return
        self._waited += 1
        if self._waited >= self.patience and self.stopped_epoch is None:
            self.stopped_epoch = epoch
            phase.request_stop()

    def on_phase_end(self, *, experiment: Any, phase: Any, results: Any) -> EarlyStoppingResult:
        """Restore the best state, if asked."""
        if not self._seen and self._last_epoch is not None:
            known = ", ".join(map(repr, results.metric_store.names)) or "none"
            warnings.warn(f"{self.label}: the metric {self.monitor!r} never appeared; there are: {known}", UserWarning, stacklevel=2)
        restored = self.restore_best and self.best_epoch is not None
        if restored and self.best_epoch is not None and self.best_epoch != self._last_epoch:
            checkpointed = self._is_checkpointed(phase)
            experiment.model_graph.set_state(kept_state(phase.checkpointing, self.best_epoch) if checkpointed else self._snapshot)
        self._snapshot = None
        return EarlyStoppingResult(self.best_epoch, self.best_value, self.stopped_epoch, restored)

    def _value(self, results: Any, epoch: int) -> float | None:
        entries = results.metric_store.of_epoch(self.monitor, epoch)
        of_epoch = [entry.value for entry in entries if entry.batch_idx is None]
        if of_epoch:
            return float(of_epoch[-1])
        return float(REDUCERS[self.reducer]([float(entry.value) for entry in entries])) if entries else None

    def _improves(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.best_value is None:
            return True
        return value < self.best_value - self.min_delta if self.mode == "min" else value > self.best_value + self.min_delta

    def _is_pause(self, phase: Any, epoch: int) -> bool:
        """Whether the metric is one of evaluations, and none of them runs in this epoch."""
        owners = [one for one in phase.callbacks if isinstance(one, Evaluation) and self.monitor in [metric.name for metric in one.metrics]]
        return bool(owners) and not any(one.runs_in(epoch) for one in owners)

    def _is_checkpointed(self, phase: Any) -> bool:
        kept = phase.checkpointing
        return kept is not None and kept.save_on == "epoch_end" and kept.has_key(self.best_epoch)

    def get_config(self) -> dict[str, Any]:
        """Type and the arguments."""
        names = ("monitor", "mode", "patience", "min_delta", "restore_best", "reducer")
        return {**self._base_config(), **{name: getattr(self, name) for name in names}}

    _STATE = ("best_epoch", "best_value", "stopped_epoch", "_waited", "_seen", "_last_epoch", "_snapshot")

    def get_state(self) -> dict[str, Any]:
        """The best value and epoch, how long it has waited, and the state it may have to restore."""
        return {name.strip("_"): getattr(self, name) for name in self._STATE}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back :meth:`get_state`."""
        for name in self._STATE:
            setattr(self, name, state[name.strip("_")])
