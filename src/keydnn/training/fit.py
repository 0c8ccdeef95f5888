"""``fit``: epochs of steps, validation, callbacks, progress, and how a run is taken up again.

An epoch goes: ``on_epoch_begin``; a key is drawn that fixes the order of the rows; steps over all batches; validation; the
line of progress; History; ``on_epoch_end``.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from math import isnan
from typing import Any

import numpy as np

from keydnn.compiler.step import usable
from keydnn.optim import Schedule
from keydnn.optim.optimizer import positive
from keydnn.random import generator_state, set_generator_state
from keydnn.training import recorded
from keydnn.training.accumulation import Accumulator
from keydnn.training.callbacks import Callback, CallbackList, LearningRateScheduler
from keydnn.training.data import ArrayBatches, Batches
from keydnn.training.history import History
from keydnn.training.loop import BatchHooks, Logs, Totals, all_logs, evaluate_batches, run_steps
from keydnn.training.progress import Progress, make_progress
from keydnn.training.resolve import resolve_loss, resolve_metrics, resolve_optimizer, resolve_weighted
from keydnn.training.state import Run, TrainingState, capture, check_epoch, install
from keydnn.training.step import StepPlan, apply_gradients, is_nan, read, read_logs, training_step
from keydnn.training.streaming import StreamingMetric
from keydnn.training.weights import total_weight


@dataclass(frozen=True)
class Settings:
    """The arguments of ``fit`` that are not data, checked."""

    batch_size: int
    epochs: int
    first_epoch: int
    verbose: int
    clip_norm: float | None
    clip_value: float | None
    accumulate: int = 1
    validation_freq: int = 1


def checked_count(owner: str, name: str, value: Any, least: int = 1) -> int:
    """``value`` as an int of at least ``least``.

    Raises:
        TypeError: It is no int.
        ValueError: It is smaller.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{owner}: {name} must be an int, got {value!r}")
    number = value.__index__()
    if number < least:
        raise ValueError(f"{owner}: {name} must be at least {least}, got {number}")
    return number


def checked_settings(*, verbose: Any, initial_epoch: Any, clip_norm: Any, clip_value: Any, **counts: Any) -> Settings:
    """The numbers that ``fit`` takes; ``counts`` are those that must be at least 1.

    Raises:
        TypeError: A number of a wrong type.
        ValueError: A number out of range.
    """
    return Settings(
        first_epoch=checked_count("fit", "initial_epoch", initial_epoch, 0),
        verbose=checked_count("fit", "verbose", int(verbose) if isinstance(verbose, bool) else verbose, 0),
        clip_norm=None if clip_norm is None else positive("fit", "clip_norm", clip_norm),
        clip_value=None if clip_value is None else positive("fit", "clip_value", clip_value),
        **{name: checked_count("fit", name, value) for name, value in counts.items()},
    )


def as_callback_list(callbacks: Any) -> CallbackList:
    """Callbacks, or a single one, as one object; schedules are wrapped.

    Raises:
        TypeError: An entry is no callback.
    """
    if callbacks is None or isinstance(callbacks, CallbackList):
        entries = [] if callbacks is None else callbacks.callbacks
    else:
        entries = [callbacks] if isinstance(callbacks, Callback | Schedule) else list(callbacks)
    return CallbackList(LearningRateScheduler(entry) if isinstance(entry, Schedule) else entry for entry in entries)


class Fit(BatchHooks):
    """One call of ``fit``: everything is checked when it is made, :meth:`run` does the work.

    Args:
        model: The model; its ``train_on_batch`` runs each step.
        data: Training batches.
        validation: Validation batches or None.
        loss: As in ``fit``.
        optimizer: As in ``fit``.
        optimizer_kwargs: As in ``fit``.
        metrics: As in ``fit``.
        metric_names: As in ``fit``.
        callbacks: As in ``fit``.
        settings: The numbers.
        validates_weighted: Whether the batches of validation are triples (x, y, weights).
        compile: Whether steps may be recorded and replayed.
        is_plain: Whether the model's ``train_on_batch`` is the one of Model, so that an epoch may run without Python.
    """

    def __init__(
        self,
        model: Any,
        data: Batches,
        validation: Batches | None,
        *,
        loss: Any,
        optimizer: Any,
        optimizer_kwargs: Any,
        metrics: Any,
        metric_names: Any,
        callbacks: Any,
        settings: Settings,
        validates_weighted: bool,
        compile: bool,
        is_plain: bool,
    ) -> None:
        self.compile, self.is_plain, self.validates_weighted = compile, is_plain, validates_weighted
        self.model, self.data, self.validation, self.settings = model, data, validation, settings
        if settings.accumulate > 1 and not is_plain:
            raise ValueError(f"fit: accumulate needs the train_on_batch of Model, {type(model).__name__} has its own")
        self.loss = resolve_loss(loss)
        self.metrics, self.names = resolve_metrics(metrics, metric_names, model, "fit")
        self.callbacks = as_callback_list(callbacks)
        optimizer = resolve_optimizer(model, optimizer, optimizer_kwargs)
        self.streams = {n: m for n, m in zip(self.names, self.metrics, strict=True) if isinstance(m, StreamingMetric)}
        self.quick = [(n, m) for n, m in self.streams.items() if m.in_step and m.is_number]  # values that are told after each batch
        streams = list(self.streams.values())
        sums = None if settings.accumulate == 1 else Accumulator(optimizer.params, settings.accumulate)
        self.state = Run(optimizer=optimizer, callbacks=self.callbacks, epoch=settings.first_epoch, streams=streams, sums=sums)
        self.progress: Progress = make_progress(settings.verbose, settings.epochs, data.n_batches)
        self.clipping = {name: getattr(settings, name) for name in ("clip_norm", "clip_value") if getattr(settings, name) is not None}
        made = StepPlan(self.loss, optimizer, self.metrics, self.names, **self.clipping, weighted=resolve_weighted(model, self.loss))
        self.update = made
        self.plan = made if sums is None else replace(made, step=False, clip_norm=None, clip_value=None, sums=sums)
        self._warned = False

    def run(self, resume: TrainingState | None) -> History:
        """Train until the last epoch, or until a callback ends it."""
        model, state = self.model, self.state
        self.callbacks.set_model(model)
        self.callbacks.set_run(state.optimizer, lambda: capture(model, state))  # without self: no cycle through the callbacks
        remembered = []
        if resume is not None:
            remembered = self.callbacks.match(resume.callbacks)
            check_epoch(resume, state)
            now = generator_state()
            set_generator_state(resume.random)  # raises for a state that makes no sense, before anything is changed
            set_generator_state(now)
            install(resume, self.model, state)
        self.callbacks.on_train_begin({})
        for callback, values in remembered:
            callback.set_state(values)
        if resume is not None:
            set_generator_state(resume.random)
        self.model.remember_run(state)
        try:
            while state.epoch < self.settings.epochs and not self.callbacks.stop_training:
                self._epoch(state)
            self.callbacks.on_train_end(state.history.last())
        finally:
            self.progress.close()
            state.close()
        return state.history

    def _epoch(self, state: Run) -> None:
        epoch = state.epoch
        rows = self._rows()
        if rows is None:
            batches = self._begin(state)
            self.progress.begin(epoch)
            run_steps(self._step, batches, state.totals, self)
        else:
            if state.epoch_random is None:
                self._draw(state)
            self.progress.begin(epoch)
            self._run_rows(state, rows)
        if state.totals.batches % self.settings.accumulate:
            self._update()
        totals, logs = state.totals, all_logs(state.totals.means(), self.metrics, self.names)
        if self.validation is not None and (epoch + 1) % self.settings.validation_freq == 0:
            loss = resolve_weighted(self.model, self.loss) if self.validates_weighted else self.loss
            values = evaluate_batches(self.model, self.validation.epoch(None), loss, self.metrics, self.names, self.compile)
            logs.update({f"val_{name}": value for name, value in values.items()})
        self.progress.end(totals.batches, logs, totals.samples)
        state.history.append_epoch(epoch, logs)
        state.epoch, state.totals, state.key, state.epoch_random = epoch + 1, Totals(), None, None
        self.callbacks.on_epoch_end(epoch, logs)

    def _begin(self, state: Run) -> Any:
        """The batches of a fresh epoch, or the rest of an interrupted one."""
        if state.epoch_random is None:
            self._draw(state)
            return self.data.epoch(state.key)
        now = generator_state()
        set_generator_state(state.epoch_random)  # an iterable may draw from it while the batches that are done go by
        return _resumed(self.data.epoch(state.key, state.totals.batches), now)

    def _draw(self, state: Run) -> None:
        """Begin an epoch: its hooks, and the key of its order."""
        for metric in state.streams:
            metric.reset()
        self.callbacks.on_epoch_begin(state.epoch, {})
        state.epoch_random = generator_state()
        state.key = self.data.draw_key()

    def _step(self, *batch: Any) -> Logs:
        """One step; values of streaming metrics are left for the end of the epoch, when they are worth their price."""
        if self.is_plain and (self.streams or self.state.sums is not None):
            values = self.model._in_training_mode(batch, self.plan, recorded.train if self.compile else training_step)
            return read_logs(values, self.names, streaming=False)
        options: dict[str, Any] = dict(self.clipping)
        if len(batch) > 2:
            options["sample_weight"] = batch[2]
        if self.is_plain and not self.compile:
            options["compile"] = False
        logs = self.model.train_on_batch(
            *batch[:2], loss=self.loss, optimizer=self.state.optimizer, metrics=self.metrics, metric_names=self.names, **options
        )
        return {name: value for name, value in logs.items() if name not in self.streams} if self.streams else logs

    def _update(self) -> None:
        """The update of batches whose gradients were accumulated."""
        if self.state.sums is not None:
            self.state.sums.take()
            apply_gradients(self.update)

    # -- epochs that run without Python between steps

    def _rows(self) -> tuple[np.ndarray, ...] | None:
        """All data arrays if the epoch may run natively: arrays, no hooks around batches."""
        if not (self.compile and self.is_plain and isinstance(self.data, ArrayBatches)) or self.callbacks.has_batch_hooks:
            return None
        return self.data.whole() if usable() else None

    def _run_rows(self, state: Run, arrays: tuple[np.ndarray, ...]) -> None:
        """The rest of an epoch: many steps per native call once the step is recorded, single ones before and at the short end."""
        assert isinstance(self.data, ArrayBatches)
        totals, size = state.totals, self.data.batch_size
        n = min(self.data.n_rows, self.data.n_batches * size)
        order = self.data.order(state.key)
        index = np.arange(n) if order is None else order
        every = self.settings.accumulate
        while totals.batches < self.data.n_batches:
            start, first = totals.batches * size, totals.batches
            rows = index[start : start + (n - start) // size * size]
            if every > 1:
                rows = rows[: (every - first % every) * size]
            columns = self._some_steps(arrays, rows, order, first)
            weights = None if len(arrays) < 3 else self._weights(arrays[2], index[start:], len(columns["loss"]))
            totals.add_columns(columns, min(size, n - start), weights)
            if totals.batches % every == 0:
                self._update()
            nan = next((i for i, loss in enumerate(columns["loss"]) if loss != loss), None) if isnan(totals.sums["loss"]) else None
            if nan is not None:
                self._warn_nan(first + nan, 6)
            self.progress.update(totals.batches, self._so_far(totals) if self.settings.verbose else {})

    def _weights(self, weights: np.ndarray, rows: np.ndarray, steps: int) -> list[float]:
        size = self.data.batch_size  # type: ignore[attr-defined]
        return [total_weight(weights[rows[i * size : (i + 1) * size]]) for i in range(steps)]

    def _some_steps(self, arrays: tuple[np.ndarray, ...], rows: np.ndarray, order: Any, first: int) -> dict[str, recorded.Column]:
        """Run at least one step; returns the values of each log, one per step."""
        size = self.data.batch_size  # type: ignore[attr-defined]
        shapes = tuple(((size, *array.shape[1:]), array.dtype) for array in arrays)
        step = recorded.warm(self.model, shapes, False, self.plan) if len(rows) else None
        if step is None:
            logs = self._step(*self.data.batch(order, first))  # type: ignore[attr-defined]
            return {name: [float(value)] for name, value in logs.items()}
        names = ("loss", *(name for name in self.names if name not in self.streams))
        return dict(zip(names, recorded.run_rows(step, arrays, rows, size, 0.1, self.metrics), strict=True))

    # -- around each batch

    def _so_far(self, totals: Totals) -> Logs:
        """Means of the epoch so far, and streaming metrics that give their value at once."""
        return {**totals.means(), **{name: read(metric) for name, metric in self.quick}}

    def before(self, i: int) -> None:
        """Tell the callbacks."""
        if self.callbacks.has_batch_hooks:
            self.callbacks.on_batch_begin(i, {})

    def after(self, i: int, logs: Logs, totals: Totals) -> bool:
        """Tell the callbacks and the user."""
        if totals.batches % self.settings.accumulate == 0:
            self._update()
        if is_nan(logs):
            self._warn_nan(i, 7)
        self.progress.update(totals.batches, self._so_far(totals) if self.settings.verbose else {})
        if not self.callbacks.has_batch_hooks:
            return False
        self.callbacks.on_batch_end(i, {**logs, **{name: read(metric) for name, metric in self.quick}})
        return self.callbacks.stop_epoch

    def _warn_nan(self, i: int, stacklevel: int) -> None:
        """Warn once, at the line that called ``fit``, ``stacklevel`` frames up."""
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"fit: the loss is NaN (epoch {self.state.epoch + 1}, batch {i}); training goes on (TerminateOnNaN stops it)",
                RuntimeWarning,
                stacklevel=stacklevel,
            )


def _resumed(batches: Any, random: dict[str, Any]) -> Any:
    first = next(batches, None)
    set_generator_state(random)
    if first is not None:
        yield first
        yield from batches


def read_resume(resume: Any) -> TrainingState | None:
    """The state to start from: None, a TrainingState, or the path of one.

    Raises:
        TypeError: Something else.
        ValueError: The file is damaged, or no training state.
        OSError: It cannot be read.
    """
    if resume is None or isinstance(resume, TrainingState):
        return resume
    if not isinstance(resume, str | os.PathLike):
        raise TypeError(f"fit: resume must be a path or a TrainingState, got {type(resume).__name__}")
    return TrainingState.read(resume)
