"""Model: a module that can be built, trained, evaluated, asked and saved."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.autograd.modes import enable_grad, no_grad
from keydnn.compiler.report import report
from keydnn.domain.device import Device
from keydnn.domain.errors import NotBuiltError
from keydnn.nn.module import Module, latest_stamp
from keydnn.saving import (
    KeyMap,
    from_payload,
    load_payload_,
    load_state_,
    read_json,
    read_weights,
    renamed,
    to_payload,
    write_json,
    write_weights,
)
from keydnn.saving.registry import warn_of_unknown
from keydnn.training import recorded, repeat
from keydnn.training.building import Buildable, building, generator_restored, is_building, is_unbuilt, sample_of
from keydnn.training.data import Batches, Rows, as_tensor, batch_size_of, input_batches, iter_minibatches_xy, make_batches
from keydnn.training.fit import Fit, checked_count, checked_settings, read_resume
from keydnn.training.history import History
from keydnn.training.inputs import data_batches
from keydnn.training.loop import evaluate_batches
from keydnn.training.resolve import resolve_loss, resolve_metrics, resolve_optimizer, resolve_weighted
from keydnn.training.state import Run, TrainingState, capture, model_from
from keydnn.training.step import StepPlan, read_logs, training_step
from keydnn.training.summary import shape_table, structure_text
from keydnn.training.turns import evaluation_mode, restore, training_turn
from keydnn.training.weights import row_weights

T = TypeVar("T", bound="Model")
_NOT_COPIED = (
    "_run",
    "_named_optimizers",
    "_stepped_by",
    "_ready_at",
    "_below",
    "_steps",
    "_repeat",
    "_predicted",
    "_weighted",
    "_named_metrics",
)


class Model(Buildable):
    """A module with training utilities; subclass it and write ``forward``, or use :class:`Sequential`.

    Example:
        >>> from keydnn.nn import Linear
        >>> from keydnn.training import Model
        >>> class Twice(Model):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.inner = Linear(2, 2)
        ...
        ...     def forward(self, x):
        ...         return self.inner(self.inner(x))
        >>> model = Twice()
        >>> history = model.fit(np.eye(2), np.eye(2), loss="mse", optimizer="adam", epochs=3, verbose=0)
        >>> len(history.history["loss"])
        3
    """

    _ready_at = -1  # structure stamp at which no lazy layer was without parameters
    _below: tuple[Module, ...] = ()  # every module below, at that stamp
    _run: Run | None = None
    _repeat: repeat.Training | None = None  # the last call of train_on_batch, ready to be made again
    _predicted: repeat.Prediction | None = None  # the last call of predict

    # -- building

    @property
    def is_built(self) -> bool:
        """Whether ``build`` succeeded (or a checkpoint was loaded) and no layer without parameters was added since."""
        return self._is_built and self._first_unbuilt() is None

    def build(self, x: Tensor | Sequence[int], *, device: Device | str | None = None, dtype: Any = np.float32) -> None:
        """Run one forward pass so that lazy layers make their parameters; a built model is left as it is.

        The pass runs in evaluation mode without a graph, with normalisation layers of a Sequential stepped over: no running
        statistics move, and random numbers are drawn for the new parameters alone.

        Args:
            x: A batch, or the full shape of one with the batch size, such as ``(1, 784)``.
            device: Where a batch of zeros is made; None is the model's ``device`` attribute if it has one, else the cpu.
            dtype: Of that batch.

        Raises:
            TypeError: ``x`` is neither Tensor nor shape.
            RuntimeError: The forward pass failed; the model stays unbuilt and has no new parameters.
        """
        sample = sample_of(self, x, device, dtype)
        if self.is_built:
            return
        with evaluation_mode(self), no_grad(), building(self):
            self._forward_to_build(sample)
        name = self._first_unbuilt()
        if name is not None:
            raise NotBuiltError(f"{type(self).__name__}.build: the forward pass did not reach layer {name}")
        self._mark_built()

    def _forward_to_build(self, x: Tensor) -> None:
        self.forward(x)

    def _mark_built(self) -> None:
        for module in self.modules():
            if isinstance(module, Model):
                module.__dict__["_is_built"] = True

    def _first_unbuilt(self) -> str | None:
        """Path and class of the first lazy layer without parameters, None if there is none."""
        stamp = latest_stamp()
        if self._ready_at == stamp:
            return None
        found = tuple(self.named_modules())
        for name, module in found:
            if is_unbuilt(module):
                return f"{name!r} ({type(module).__name__})"
        self.__dict__.update(_ready_at=stamp, _below=tuple(module for _, module in found[1:]))  # without self: no cycle
        return None

    def _require_built(self, what: str) -> None:
        if self._ready_at != latest_stamp() and not is_building():
            name = self._first_unbuilt()
            if name is not None:
                raise NotBuiltError(
                    f"{type(self).__name__}.{what}: layer {name} has no parameters yet; call build(x) first, with a batch or its full"
                    " shape, such as build((1, 784))"
                )

    # -- running

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call :meth:`forward`.

        Raises:
            RuntimeError: A lazy layer has no parameters yet; call ``build``.
        """
        self._require_built("__call__")
        return super().__call__(*args, **kwargs)

    def predict(self, x: Tensor | np.ndarray, *, requires_grad: bool = False, batch_size: int | None = None, compile: bool = True) -> Any:
        """Outputs in evaluation mode; every module has its training flag back afterwards.

        Args:
            x: Tensor, or ndarray, which is cast to the model's dtype; or a data set or loader, whose batches are taken in order and
                whose targets, if there are any, are left out.
            requires_grad: Whether to record a graph.
            batch_size: Rows per forward pass; None takes all at once (of a data set: 32).
            compile: Whether the pass may be recorded and replayed.

        Returns:
            What ``forward`` returns, joined along the first axis.

        Raises:
            TypeError: ``x`` is neither Tensor nor ndarray.
            ValueError: ``batch_size`` below 1.
            RuntimeError: The model is not built.
        """
        if self._predicted is not None and compile and batch_size is None and not requires_grad:
            y = self._predicted(x)
            if y is not None:
                return y
        self._require_built("predict")
        size = None if batch_size is None else checked_count("predict", "batch_size", batch_size)
        run = partial(recorded.predict, self) if compile else self
        with evaluation_mode(self), enable_grad() if requires_grad else no_grad():
            if isinstance(x, Rows | Batches):
                return ops.concat([run(batch) for batch in input_batches(x, size or 32, self._dtype(), "predict")])
            inputs = as_tensor(x, self._dtype(), "predict: x")
            n = batch_size_of(inputs)
            if size is None or n <= size:
                y = run(inputs)
                if compile:
                    repeat.remember_prediction(self, inputs)
                return y
            return ops.concat([run(inputs[start : start + size]) for start in range(0, n, size)])

    def _dtype(self) -> Any:
        """The dtype of the first parameter of floating type, float32 without one."""
        return next((p.dtype for p in self.parameters() if p.dtype.kind == "f"), np.dtype(np.float32))

    # -- training

    def train_on_batch(
        self,
        x_batch: Tensor | np.ndarray,
        y_batch: Tensor | np.ndarray,
        *,
        loss: Any,
        optimizer: Any,
        metrics: Any = None,
        metric_names: Sequence[str] | None = None,
        zero_grad: bool = True,
        backward: bool = True,
        step: bool = True,
        optimizer_kwargs: Mapping[str, Any] | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        compile: bool = True,
        sample_weight: Tensor | np.ndarray | None = None,
        class_weight: Mapping[int, float] | str | None = None,
    ) -> dict[str, float]:
        """One step: training mode, zero gradients, forward, loss, backward, clipping, update, metrics.

        Args:
            x_batch: Tensor, or ndarray, which is cast to the model's dtype.
            y_batch: Likewise.
            loss: Name, loss object or function (pred, target).
            optimizer: Optimizer, or a name; an optimizer made from a name is kept for later calls with the same settings.
            metrics: Names, functions (y_true, y_pred), or streaming metrics, which go on counting: a name starts anew.
            metric_names: Their names in the result.
            zero_grad: Whether to clear the gradients first.
            backward: Whether to compute gradients.
            step: Whether to update.
            optimizer_kwargs: Arguments for an optimizer given by name.
            clip_norm: Bound of the common norm of all gradients.
            clip_value: Bound of each element of the gradients.
            compile: Whether the step may be recorded and replayed; see :meth:`plan_report`.
            sample_weight: What each row counts in the loss (n,), at least 0: the loss is ``sum w_i l_i / sum w_i``.
            class_weight: Weights by class, see :meth:`fit`.

        Returns:
            ``loss`` and the metrics as floats.

        Raises:
            TypeError: A wrong type, or a loss value without ``backward``.
            ValueError: Unknown names, shapes that do not fit.
            RuntimeError: The model is not built, or the optimizer holds none of its parameters.
        """
        asked = (loss, optimizer, metrics, metric_names, zero_grad, backward, step, optimizer_kwargs, clip_norm, clip_value)
        is_weighted = sample_weight is not None or class_weight is not None
        if compile and self._repeat is not None and self.training and not is_weighted:
            logs = self._repeat(x_batch, y_batch, asked)
            if logs is not None:
                return logs
        self._require_built("train_on_batch")
        x = x_batch if isinstance(x_batch, Tensor) else as_tensor(x_batch, self._dtype(), "train_on_batch: x_batch")
        y = y_batch if isinstance(y_batch, Tensor) else as_tensor(y_batch, self._dtype(), "train_on_batch: y_batch")
        batch: tuple[Tensor, ...] = (x, y)
        if is_weighted:
            batch = (x, y, Tensor(data=row_weights(y, sample_weight, class_weight, "train_on_batch"), dtype=self._dtype()))
        functions, names = resolve_metrics(metrics, metric_names, self, "train_on_batch")
        loss = resolve_loss(loss)
        plan = StepPlan(
            loss,
            resolve_optimizer(self, optimizer, optimizer_kwargs),
            functions,
            names,
            zero_grad,
            backward,
            step,
            clip_norm,
            clip_value,
            resolve_weighted(self, loss) if is_weighted else None,
        )
        logs = read_logs(self._in_training_mode(batch, plan, recorded.train if compile else training_step), names)
        if compile and not is_weighted:
            repeat.remember_training(self, asked, x, y, plan)
        return logs

    def _in_training_mode(self, batch: Sequence[Tensor], plan: StepPlan, run: Callable[..., list[Any]]) -> list[Any]:
        """A step; if it fails, modules that were not in training mode get their flags back."""
        with training_turn(self), contextlib.ExitStack() as undo:
            if self.training and all(module.training or module._is_frozen for module in self._below):
                return run(self, batch, plan)
            before = [(module, module.training) for module in (self, *self._below)]
            undo.callback(restore, before)
            self.train()
            logs = run(self, batch, plan)
            undo.pop_all()
        return logs

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        loss: Any,
        optimizer: Any,
        metrics: Any = None,
        metric_names: Sequence[str] | None = None,
        batch_size: int = 32,
        epochs: int = 1,
        shuffle: bool = True,
        verbose: int = 1,
        validation_data: Any = None,
        callbacks: Any = None,
        optimizer_kwargs: Mapping[str, Any] | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        resume: str | os.PathLike[str] | TrainingState | None = None,
        compile: bool = True,
        validation_split: float | None = None,
        initial_epoch: int = 0,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | str | None = None,
        accumulate: int = 1,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_freq: int = 1,
    ) -> History:
        """Train for some epochs.

        Args:
            x: Tensor or ndarray (n, ...), or an array of another library that offers DLPack; or, without ``y``, a data set or
                loader (:mod:`keydnn.data`) or any iterable of pairs (x, y), walked once per epoch.  ndarrays are cast to the
                model's dtype.
            y: Tensor or ndarray (n, ...).
            loss: Name, loss object or function (pred, target).
            optimizer: Optimizer, or a name, such as ``adam``: one of :mod:`keydnn.optim`, case, ``-`` and ``_`` ignored.
            metrics: Names, functions (y_true, y_pred) or objects of :mod:`keydnn.training.streaming`.
            metric_names: Their names in the logs.
            batch_size: Rows per batch; the last batch may be shorter.
            epochs: Train until so many epochs are done.
            shuffle: Whether rows are in a new order each epoch, drawn from Python's global generator.
            verbose: 0 is silent, 1 shows the progress of each epoch, 2 adds a summary line.
            validation_data: ``(x, y)``, ``(x, y, sample_weight)`` or an iterable of pairs, evaluated after each epoch; adds ``val_*``
                to the logs.
            callbacks: Callbacks; a learning rate schedule is applied each epoch.
            optimizer_kwargs: Arguments for an optimizer given by name.
            clip_norm: Bound of the common norm of all gradients.
            clip_value: Bound of each element of the gradients.
            resume: State, or file of one, to continue from: the run then ends as if it had never stopped.
            compile: Whether steps may be recorded and replayed.
            validation_split: Share of the last rows to use as validation data.
            initial_epoch: Number of the first epoch.
            sample_weight: Tensor or ndarray (n,): what each row counts in the loss, at least 0; needs ``x`` and ``y`` as arrays.  The
                loss is then ``sum w_i l_i / sum w_i`` over the rows of a batch, see :mod:`keydnn.nn.weighted`; metrics count all
                rows alike.
            class_weight: Weight by class (1 for those not named), or ``"balanced"``: rows count in the loss by the class of their
                target, times ``sample_weight``; validation data are not changed by it.
            accumulate: Batches per update, which takes the mean of their gradients, weighted by their size (by the sum of weights):
                for losses that are means that of one large batch.  What remains at the end of an epoch makes an update too.
            steps_per_epoch: Batches of an epoch, None for all there are: the first in its order; of an iterator or generator, which
                may be endless, the next ones.
            validation_steps: Likewise for the batches of validation.
            validation_freq: Validate after every so many epochs.

        Returns:
            The values of each epoch: means over batches, weighted by their size; of a loss with weights, by their sum.

        Raises:
            TypeError: A wrong type; ``y`` is missing and ``x`` no iterable of pairs.
            ValueError: A number out of range, unknown names, shapes that do not fit, no rows.
            RuntimeError: The model is not built, or the optimizer holds none of its parameters.

        Warns:
            RuntimeWarning: The loss became NaN; training goes on.

        Example:
            >>> from keydnn.nn import Dense, Tanh
            >>> from keydnn.training import Sequential
            >>> x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
            >>> y = np.array([[0], [1], [1], [0]])
            >>> model = Sequential(Dense(8), Tanh(), Dense(1))
            >>> model.build((1, 2))
            >>> history = model.fit(x, y, loss="mse", optimizer="adam", optimizer_kwargs={"lr": 0.05}, epochs=200, verbose=0)
            >>> history.last()["loss"] < 0.05
            True
        """
        self._require_built("fit")
        settings = checked_settings(
            batch_size=batch_size,
            epochs=epochs,
            initial_epoch=initial_epoch,
            verbose=verbose,
            clip_norm=clip_norm,
            clip_value=clip_value,
            accumulate=accumulate,
            validation_freq=validation_freq,
        )
        if resume is not None and initial_epoch:
            raise ValueError("fit: resume knows the epoch to start at; leave initial_epoch at 0")
        state = read_resume(resume)
        data, validation, validates_weighted = data_batches(
            x,
            y,
            batch_size=settings.batch_size,
            shuffle=bool(shuffle),
            dtype=self._dtype(),
            validation_data=validation_data,
            validation_split=validation_split,
            sample_weight=sample_weight,
            class_weight=class_weight,
            steps_per_epoch=None if steps_per_epoch is None else checked_count("fit", "steps_per_epoch", steps_per_epoch),
            validation_steps=None if validation_steps is None else checked_count("fit", "validation_steps", validation_steps),
        )
        job = Fit(
            self,
            data,
            validation,
            settings=settings,
            validates_weighted=validates_weighted,
            loss=loss,
            optimizer=optimizer,
            optimizer_kwargs=optimizer_kwargs,
            metrics=metrics,
            metric_names=metric_names,
            callbacks=callbacks,
            compile=bool(compile),
            is_plain=type(self).train_on_batch is Model.train_on_batch and "train_on_batch" not in self.__dict__,
        )
        return job.run(state)

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        loss: Any,
        metrics: Any = None,
        batch_size: int = 32,
        metric_names: Sequence[str] | None = None,
        compile: bool = True,
        sample_weight: Any = None,
    ) -> dict[str, float]:
        """Loss and metrics in evaluation mode, without a graph: means over batches, weighted by their size.

        Args:
            x: As in :meth:`fit`.
            y: As in :meth:`fit`.
            loss: Name, loss object or function (pred, target).
            metrics: Names, functions (y_true, y_pred) or objects of :mod:`keydnn.training.streaming`.
            batch_size: Rows per batch.
            metric_names: Names of the metrics in the result.
            compile: Whether the pass may be recorded and replayed.
            sample_weight: What each row counts in the loss (n,), at least 0; needs ``x`` and ``y`` as arrays.

        Raises:
            TypeError: A wrong type.
            ValueError: A number out of range, unknown names, shapes that do not fit.
            RuntimeError: The model is not built.
        """
        self._require_built("evaluate")
        size = checked_count("evaluate", "batch_size", batch_size)
        weights = row_weights(y, sample_weight, None, "evaluate")
        batches = make_batches(x, y, batch_size=size, shuffle=False, dtype=self._dtype(), owner="evaluate", weights=weights)
        functions, names = resolve_metrics(metrics, metric_names, self, "evaluate")
        loss = resolve_loss(loss)
        measured = loss if weights is None else resolve_weighted(self, loss)
        return evaluate_batches(self, batches.epoch(None), measured, functions, names, compile)

    _batch_size_of = staticmethod(batch_size_of)
    _iter_minibatches_xy = staticmethod(iter_minibatches_xy)

    # -- saving

    def save_json(self, path: str | os.PathLike[str]) -> None:
        """Write structure, parameters and buffers as ``keydnn.json.ckpt.v1``, atomically; ``.gz`` is compressed.

        Raises:
            NotImplementedError: A class has no ``get_config``.
            OSError: The file cannot be written.

        Warns:
            UserWarning: The class of a layer is not registered, so the file could not be loaded.
        """
        payload = self.to_json_payload()
        warn_of_unknown(map(type, self._inner()), 2)
        write_json(path, payload)

    def _inner(self) -> list[Module]:
        return list(self.modules())[1:]

    @classmethod
    def load_json(cls: type[T], path: str | os.PathLike[str], *, device: Device | str | None = None) -> T:
        """The model in a file that :meth:`save_json` wrote.

        Args:
            path: The file.
            device: Where the parameters shall live; None takes what the file says.

        Raises:
            TypeError: It holds another kind of model.
            ValueError: Another format, a damaged file, an unknown layer, a wrong shape.
            KeyError: An entry is missing.
            OSError: The file cannot be read.
        """
        with generator_restored():
            model = from_payload(read_json(path), cls, device=device)
        model._mark_built()
        return model

    def to_json_payload(self) -> dict[str, Any]:
        """What :meth:`save_json` writes, as a dict."""
        return to_payload(self)

    def from_json_payload_(
        self, payload: dict[str, Any], *, strict: bool = True, key_map: KeyMap | None = None, prefix: str = ""
    ) -> tuple[list[str], list[str]]:
        """Take over the weights (parameters, and buffers if there are any) of a payload, in place; the structure is not looked at.

        Args:
            payload: What :meth:`to_json_payload` gave.
            strict: Whether every parameter must have an entry; entries that the model does not know are no error.
            key_map: Changes names of entries, see :func:`keydnn.saving.renamed`.
            prefix: Take only the entries under it, without it.

        Returns:
            The names that are missing and those that are unknown.

        Raises:
            ValueError: Another format or shape, or a damaged entry; nothing is changed.
            KeyError: A parameter's entry is missing; nothing is changed.
            RuntimeError: A lazy layer has no parameters yet, so its weights would be lost; call ``build``.
        """
        self._require_built("from_json_payload_")
        return load_payload_(self, payload, strict=strict, key_map=key_map, prefix=prefix)

    def save_weights(self, path: str | os.PathLike[str]) -> None:
        """Write parameters and buffers by name as a safetensors file, atomically.

        Raises:
            RuntimeError: A lazy layer has no parameters yet; call ``build``.
            OSError: The file cannot be written.
        """
        self._require_built("save_weights")
        write_weights(path, self.state_dict())

    def load_weights(
        self, path: str | os.PathLike[str], *, strict: bool = True, key_map: KeyMap | None = None, prefix: str = ""
    ) -> tuple[list[str], list[str]]:
        """Take over the weights of a file, in place, all or none.

        Args:
            path: safetensors, a JSON checkpoint (also ``.gz``), npz, or a training state.
            strict: Whether missing and unknown names are errors.
            key_map: Changes names of entries, see :func:`keydnn.saving.renamed`.
            prefix: Take only the entries under it, without it.

        Returns:
            The names that are missing and those that are unknown.

        Raises:
            ValueError: The file is damaged, or a shape differs.
            KeyError: Names are missing or unknown and ``strict`` is true.
            RuntimeError: A lazy layer has no parameters yet; call ``build``.
            OSError: The file cannot be read.

        Example:
            >>> model = keydnn.Sequential(keydnn.Linear(4, 3), keydnn.Linear(3, 2))
            >>> model.save_weights("weights.safetensors")
            >>> other = keydnn.Sequential(keydnn.Linear(4, 3), keydnn.Linear(3, 5))
            >>> other.load_weights("weights.safetensors", strict=False, key_map={"1.": None})
            (['1.weight', '1.bias'], [])
        """
        self._require_built("load_weights")
        return self.load_state_dict(renamed(read_weights(path), key_map, prefix), strict)

    def load_state_payload_(self, state: dict[str, Any]) -> None:
        """Take over the ``state`` part of a payload; errors as :meth:`from_json_payload_`."""
        self._require_built("load_state_payload_")
        load_state_(self, state)

    def save(self, path: str | os.PathLike[str], *, optimizer: Any = None) -> None:
        """Write the full training state: structure, parameters, buffers, optimizer, callbacks, epoch, random generators, History.

        Args:
            path: The file (safetensors inside), written atomically.
            optimizer: The optimizer; None takes that of the last ``fit``, if there was one.

        Raises:
            TypeError: The optimizer is not one of :mod:`keydnn.optim`.
            OSError: The file cannot be written.

        Warns:
            UserWarning: The class of a layer is not registered, so the file could not be loaded.
        """
        run = self._run or Run()
        if optimizer is not None:
            run = Run(**{**vars(run), "optimizer": optimizer})
        state = capture(self, run)
        warn_of_unknown(map(type, self._inner()), 2)
        state.write(path)

    @classmethod
    def load(cls: type[T], path: str | os.PathLike[str]) -> T:
        """The model in a file that :meth:`save` or TrainingCheckpoint wrote; ``last_run`` has its optimizer and History.

        Raises:
            TypeError: It holds another kind of model.
            ValueError: The file is damaged, or no training state; a layer is unknown.
            OSError: The file cannot be read.
        """
        with generator_restored():
            model, run = model_from(TrainingState.read(path), cls, os.fspath(path))
        model._mark_built()
        model.remember_run(run)
        return model

    @property
    def last_run(self) -> Run | None:
        """Optimizer, callbacks, History and number of epochs of the latest ``fit`` or of the loaded file; None before."""
        return self._run

    def remember_run(self, run: Run) -> None:
        """Keep ``run`` as :attr:`last_run`."""
        self.__dict__["_run"] = run

    def __getstate__(self) -> dict[str, Any]:
        """For ``copy``: everything but what belongs to runs, and what was noted about the structure."""
        return {key: value for key, value in self.__dict__.items() if key not in _NOT_COPIED}

    # -- showing

    def plan_report(self) -> str:
        """What became of the steps of this model: fused operations, memory, time per operation, or why a step stays eager."""
        return report(recorded.of(self).latest)

    def summary(self, input_shape: Sequence[int] | None = None, *, dtype: Any = np.float32) -> str:
        """The layers; with a full input shape (batch size included) also output shapes and parameter counts.

        An unbuilt model stays unbuilt.

        Raises:
            RuntimeError: The shape does not fit the model.
        """
        return structure_text(self) if input_shape is None else shape_table(self, input_shape, dtype)
