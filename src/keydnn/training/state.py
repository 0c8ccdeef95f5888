"""The complete state of a training run, in memory and in a file.

It holds the parameters and buffers of the model, the optimizer, what the callbacks remember (schedules among them), the
number of finished epochs, the position within an unfinished one, both random generators and the History.  A run that is
continued from it ends with the same bits as one that was never stopped (on the same kernels; the file notes which).

The file is the one of :mod:`keydnn.saving.state`: arrays by name (``model/0.weight``, ``optimizer/0.m``,
``callbacks/...``), everything else as JSON.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from keydnn.domain.errors import CheckpointError
from keydnn.kernels.dispatch import native_status
from keydnn.nn.module import Module
from keydnn.optim import OPTIMIZERS, Optimizer
from keydnn.random import generator_state
from keydnn.saving import module_from_config, module_to_config, read_state, write_state
from keydnn.training.accumulation import Accumulator
from keydnn.training.callbacks import CallbackList
from keydnn.training.history import History
from keydnn.training.loop import Totals
from keydnn.training.streaming import StreamingMetric

KIND = "training"


@dataclass
class Run:
    """How far a run has come.

    Attributes:
        optimizer: The optimizer.
        callbacks: The callbacks; none once the run is over, so that a model is not kept alive by what it told.
        remembered: What they remember, once the run is over.
        history: What was logged.
        epoch: Finished epochs.
        totals: What the unfinished epoch has so far.
        key: What fixes the order of its rows.
        epoch_random: State of the generators at its start; None between epochs.
        streams: The streaming metrics, which hold what they have counted in it.
        sums: The gradients of its latest batches, if they are accumulated.
    """

    optimizer: Any = None
    callbacks: CallbackList = field(default_factory=CallbackList)
    remembered: list[dict[str, Any]] = field(default_factory=list)
    history: History = field(default_factory=History)
    epoch: int = 0
    totals: Totals = field(default_factory=Totals)
    key: int | None = None
    epoch_random: dict[str, Any] | None = None
    streams: list[StreamingMetric] = field(default_factory=list)
    sums: Accumulator | None = None

    def close(self) -> None:
        """Let go of the callbacks, keeping what they remember, of the metrics and of sums."""
        self.remembered, self.callbacks = self.callbacks.get_states(), CallbackList()
        self.streams, self.sums = [], None

    def progress(self) -> dict[str, Any]:
        """Finished epochs, and everything about an unfinished one."""
        found = {"epoch": self.epoch, "totals": asdict(self.totals), "key": self.key, "epoch_random": self.epoch_random}
        if self.streams and self.epoch_random is not None:
            found["metrics"] = [{"type": type(metric).__name__, "state": metric.get_state()} for metric in self.streams]
        if self.sums is not None and self.epoch_random is not None:
            found["gradients"] = self.sums.get_state()
        return found


@dataclass
class TrainingState:
    """Everything that a run needs to go on; see :func:`capture`.

    Attributes:
        arch: Structure of the model as a config node; None if its classes cannot be written.
        model: Parameters and buffers by name.
        optimizer: ``type``, ``config``, ``state`` and the names of its ``params``; None without an optimizer.
        callbacks: ``type`` and ``state`` of each callback that has some.
        progress: ``epoch``, ``totals``, ``key`` and ``epoch_random`` of :class:`Run`; within an epoch also what its
            ``metrics`` counted and its sums of ``gradients``.
        history: ``history`` and ``epoch`` of :class:`History`.
        random: State of both random generators.
        kernels: Which kernels computed.
    """

    arch: dict[str, Any] | None
    model: dict[str, np.ndarray]
    optimizer: dict[str, Any] | None
    callbacks: list[dict[str, Any]]
    progress: dict[str, Any]
    history: dict[str, Any]
    random: dict[str, Any]
    kernels: str

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write to a file, atomically.

        Raises:
            TypeError: A callback's state holds what neither JSON nor an array can say.
            OSError: The file cannot be written.
        """
        arrays: dict[str, np.ndarray] = {}
        meta = {"kind": KIND, **{name: _without_arrays(value, name, arrays) for name, value in vars(self).items()}}
        write_state(path, arrays, meta)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> TrainingState:
        """Read from a file.

        Raises:
            ValueError: The file is damaged, or no training state.
            OSError: It cannot be read.
        """
        arrays, meta = read_state(path)
        if not isinstance(meta, dict) or meta.get("kind") != KIND or set(meta) != {"kind", *cls.__dataclass_fields__}:
            raise CheckpointError(f"{os.fspath(path)} holds no training state; written by TrainingCheckpoint or model.save it would")
        return cls(**{name: _with_arrays(value, arrays) for name, value in meta.items() if name != "kind"})


def _without_arrays(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """``value`` with each array put into ``arrays`` and its name left in its place."""
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"array": name}
    if isinstance(value, dict):
        return {key: _without_arrays(item, f"{name}/{key}", arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(item, f"{name}/{i}", arrays) for i, item in enumerate(value)]
    return value


def _with_arrays(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"array"} and isinstance(value["array"], str):
            return arrays[value["array"]]
        return {key: _with_arrays(item, arrays) for key, item in value.items()}
    return [_with_arrays(item, arrays) for item in value] if isinstance(value, list) else value


def _kernels() -> str:
    status = native_status()
    return status.isa if status.loaded else "numpy"


def capture(model: Module, run: Run) -> TrainingState:
    """The state of ``run`` on ``model`` at this moment; arrays are copies.

    Raises:
        TypeError: The optimizer is not one of :mod:`keydnn.optim`.
    """
    try:
        arch = module_to_config(model)
    except NotImplementedError:  # a class without get_config: its weights can be resumed, the object must be made by the user
        arch = None
    return TrainingState(
        arch=arch,
        model=model.state_dict(),
        optimizer=None if run.optimizer is None else _optimizer_state(model, run.optimizer),
        callbacks=[*run.remembered, *run.callbacks.get_states()],
        progress=run.progress(),
        history=asdict(run.history),
        random=generator_state(),
        kernels=_kernels(),
    )


def _optimizer_state(model: Module, optimizer: Any) -> dict[str, Any]:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"the state of a {type(optimizer).__name__} cannot be saved; it is no optimizer of keydnn.optim")
    return {**optimizer.state_dict(), "params": _names(model, optimizer)}


def _names(model: Module, optimizer: Optimizer) -> list[str | None]:
    """The model's name of each parameter of the optimizer, None for a foreign one."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [names.get(id(p)) for p in optimizer.params]


def install(state: TrainingState, model: Module, run: Run) -> None:
    """Put ``state`` into ``model``, the optimizer of ``run`` and ``run`` itself, all or nothing; callbacks and generators are left alone.

    Raises:
        ValueError: Parameters or optimizer do not fit.
        KeyError: Entries are missing or unknown.
        TypeError: Another kind of optimizer.
    """
    if run.optimizer is not None:
        _check_optimizer(state, model, run.optimizer)
    counted = state.progress.get("metrics", [])
    sums = state.progress.get("gradients")
    before = model.state_dict()
    model.load_state_dict(state.model)
    try:
        if run.optimizer is not None:
            run.optimizer.load_state_dict(state.optimizer)
    except (KeyError, TypeError, ValueError):
        model.load_state_dict(before)
        raise
    run.epoch, run.totals = state.progress["epoch"], Totals(**state.progress["totals"])
    run.key, run.epoch_random = state.progress["key"], state.progress["epoch_random"]
    run.history = History(**state.history)
    for metric, saved in zip(run.streams, counted, strict=False):  # none were saved between epochs
        metric.set_state(saved["state"])
    if sums is not None and run.sums is not None:
        run.sums.set_state(sums)
    if state.kernels != _kernels():
        warnings.warn(
            f"the run was computed by {state.kernels} kernels and goes on with {_kernels()} ones; its bits may differ",
            UserWarning,
            stacklevel=4,
        )


def _check_optimizer(state: TrainingState, model: Module, optimizer: Any) -> None:
    if state.optimizer is None:
        raise CheckpointError("the state to resume from has no optimizer; save it with model.save(path, optimizer=...)")
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"a {type(optimizer).__name__} cannot be resumed; it is no optimizer of keydnn.optim")
    if state.optimizer["params"] != _names(model, optimizer):
        raise CheckpointError(
            f"the optimizer to resume steps other parameters\n  saved   {state.optimizer['params']}\n  present {_names(model, optimizer)}"
        )


def check_epoch(state: TrainingState, run: Run) -> None:
    """Raise unless ``run`` can go on with the unfinished epoch of ``state``, if there is one.

    Raises:
        ValueError: It had other streaming metrics, or another number of batches per update.
    """
    if state.progress["epoch_random"] is None:
        return
    before, now = [entry["type"] for entry in state.progress.get("metrics", [])], [type(metric).__name__ for metric in run.streams]
    if before != now:
        raise CheckpointError(f"the epoch to resume had other streaming metrics\n  saved   {before}\n  present {now}")
    sums = state.progress.get("gradients")
    every, present = 1 if sums is None else sums["every"], 1 if run.sums is None else run.sums.every
    if every != present:
        raise CheckpointError(f"the epoch to resume updates every {every} batches; pass accumulate={every}, not {present}")
    if sums is not None and run.sums is not None:
        run.sums.check(sums)


def model_from(state: TrainingState, cls: type[Any], where: str) -> tuple[Any, Run]:
    """The model that ``state`` describes, and how far its run has come, with the optimizer if its kind is known.

    Raises:
        ValueError: The structure was not saved, or makes no sense.
        TypeError: The model is not a ``cls``.
    """
    if state.arch is None:
        raise CheckpointError(
            f"{where} has weights but no structure, since a class has no get_config; make the model and call"
            " model.load_state_dict(TrainingState.read(path).model)"
        )
    model: Any = module_from_config(state.arch, root=cls)
    if not isinstance(model, cls):
        raise TypeError(f"{where} holds a {type(model).__name__}, which is not a {cls.__name__}")
    run = Run()
    kinds = {kind.__name__: kind for kind in OPTIMIZERS.values()}
    saved = state.optimizer
    params = dict(model.named_parameters())
    if saved is not None and saved["type"] in kinds and all(name in params for name in saved["params"]):
        run.optimizer = kinds[saved["type"]].from_config(saved["config"], [params[name] for name in saved["params"]])
    install(state, model, run)
    return model, run
