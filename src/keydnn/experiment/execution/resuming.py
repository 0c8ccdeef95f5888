"""Runs that survive: a folder that holds all a run needs to be taken up again, and taking it up.

start.exp.mml    the experiment as it was before the run, without the values of its samples
data/*.arrow     these values, each table once, by its fingerprint
start.ckpt.mml   what runs, under which id, and which table belongs to which feature set: written last, so that it makes the folder whole
checkpoints/     those of phases whose checkpointing names no directory, by the labels that lead to the phase
plan.ckpt.mml    the state of graph and run after the latest phase or group that is over

Every checkpoint of a run says the run's id and a number that rises.  A run goes on after the highest number that can be read.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from keydnn.experiment.callbacks.checkpoints import GRAPH, RUN, key_of
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import SampleCollection
from keydnn.experiment.errors import ArtifactError
from keydnn.experiment.execution import experiment_file, experiment_state, run_state
from keydnn.experiment.execution.cursor import DONE, FINISHED, Cursor
from keydnn.experiment.execution.subfolders import known_directories
from keydnn.experiment.io import Checkpoint
from keydnn.experiment.phases import ExperimentPhase, PhaseGroup, TrainPhase

START, PLAN, DATA, CHECKPOINTS = "start", "plan", "data", "checkpoints"
SUFFIX = ".ckpt.mml"
Item = ExperimentPhase | PhaseGroup
log = logging.getLogger("keydnn")


class Found(NamedTuple):
    """A checkpoint of a run.

    Attributes:
        path: The file.
        number: Its place among those of the run; 0 is the start.
    """

    path: Path
    number: int


class RunFolder:
    """The folder of one run.

    Args:
        path: The folder.
        run_id: Of the run.
        number: Of its latest checkpoint.
    """

    def __init__(self, path: Path, run_id: str, number: int = 0) -> None:
        self.path, self._run_id, self._number = path, run_id, number

    @classmethod
    def begun(cls, run_dir: str | os.PathLike[str], experiment: Any, item: Item, *, whole: bool) -> RunFolder:
        """A folder for a run that begins: with the start of it.

        Raises:
            FileExistsError: It holds a run already.
        """
        path = Path(run_dir).absolute()
        if (path / f"{START}{SUFFIX}").exists():
            raise FileExistsError(f"{path} holds a run already: go on with Experiment.resume({str(run_dir)!r}), or give another run_dir")
        made = cls(path, uuid.uuid4().hex)
        made._write_start(experiment, item, whole)
        return made

    def _write_start(self, experiment: Any, item: Item, whole: bool) -> None:
        tables = _write_data(experiment, self.path / DATA)
        experiment_file.write_experiment(experiment, self.path / START, overwrite=True, include_data=False)
        what = {"whole": whole, "is_group": isinstance(item, PhaseGroup), "config": None if whole else item.get_config()}
        drawn = [(path, _drawn(phase)) for path, phase in run_state.phases_of(item)]
        directory = None if experiment.checkpoint_dir is None else str(experiment.checkpoint_dir.absolute())
        entries = {"item": what, "data": tables, "samplers": drawn, "checkpoint_dir": directory}
        Checkpoint(entries, self.meta()).save(self.path / START, overwrite=True)

    # -- while it runs

    def directory_of(self, path: tuple[str, ...]) -> Path:
        """Where the folder of a phase lies."""
        return self.path.joinpath(CHECKPOINTS, *path[:-1])

    def meta(self) -> dict[str, Any]:
        """The run's id, and a number above all before."""
        told = {"run": self._run_id, "number": self._number}
        self._number += 1
        return told

    def keep(self, graph: Any, state: Mapping[str, Any]) -> None:
        """Write the state between two items of the plan."""
        entries = {RUN: state} if graph is None else {GRAPH: graph.get_state(), RUN: state}
        Checkpoint(entries, self.meta()).save(self.path / PLAN, overwrite=True)

    # -- afterwards

    def found(self, experiment: Any, item: Item) -> list[Found]:
        """The checkpoints of the run, the latest first; what a broken write left behind is cleared away."""
        own = [phase.checkpointing for _, phase in run_state.phases_of(item) if isinstance(phase, TrainPhase)]
        named = [one.directory for one in own if one is not None and one.directory is not None]
        files = [self.path / f"{PLAN}{SUFFIX}"]
        if experiment.checkpoint_dir is not None:
            named.append(experiment.checkpoint_dir)
        for folder in dict.fromkeys([self.path / CHECKPOINTS, *named]):
            files += sorted(folder.rglob(f"*{SUFFIX}"))
        for folder in {file.parent for file in files} | {self.path / DATA, *named}:
            for broken in folder.glob(".keydnn-*.tmp*"):
                broken.unlink(missing_ok=True)
        known = [Found(file, number) for file in files if (number := self._number_of(file)) is not None]
        self._number = max([one.number for one in known], default=0) + 1
        return sorted(known, key=lambda one: -one.number)

    def _number_of(self, file: Path) -> int | None:
        """The number of a checkpoint; None if it is not of this run, or cannot be read."""
        if not file.is_file():
            return None
        try:
            meta = Checkpoint.load(file, only=[]).meta
        except ArtifactError as error:
            log.warning("%s is left out: %s", file, error)
            return None
        return meta["number"] if meta.get("run") == self._run_id else None


def _drawn(phase: ExperimentPhase) -> list[Any]:
    """What samplers drew before the run; None of those that have not."""
    samplers = [binding.sampler for binding in phase.input_sources if binding.sampler is not None]
    return [sampler.get_state() if sampler.is_materialized else None for sampler in samplers]


def _write_data(experiment: Any, folder: Path) -> dict[str, str]:
    """Every table once; label of a feature set to the name of its file."""
    names: dict[str, str] = {}
    for fs in experiment.ctx.available_featuresets.values():
        table, name = fs.collection.stored_table(), fs.fingerprint
        twins = [other for other in dict.fromkeys(names.values()) if other.split("-")[0] == name]
        same = next((one for one in twins if SampleCollection.load(folder / one).stored_table().equals(table, check_metadata=True)), None)
        if same is None:
            same = f"{name}-{len(twins)}" if twins else name
            unfinished = fs.collection.save(folder / f".keydnn-{same}.tmp")
            os.replace(unfinished, folder / f"{same}.arrow")
        names[fs.label] = same
    return names


# -- taking up ----------------------------------------------------------------------------------------------------------------


class TakenUp(NamedTuple):
    """A run that can go on.

    Attributes:
        experiment: As it was before the run, with graph, callbacks and checkpointings as they were at the checkpoint.
        item: What runs.
        whole: Whether it is the experiment's plan.
        folder: Of the run.
        state: Of the run; None if it begins anew.
    """

    experiment: Any
    item: Item
    whole: bool
    folder: RunFolder
    state: Mapping[str, Any] | None


def taken_up(cls: Any, path: str | os.PathLike[str], *, allow_packaged_code: bool) -> TakenUp:
    """The run in a folder, ready to go on after its latest checkpoint; see ``Experiment.resume``."""
    home = Path(path).absolute()
    if not (home / f"{START}{SUFFIX}").is_file():
        raise FileNotFoundError(f"{home} holds no run: there is no {START}{SUFFIX}; a run that can be taken up is begun with run_dir=...")
    start = Checkpoint.load(home / START, allow_packaged_code=allow_packaged_code)
    active = ExperimentContext.get_active()
    is_free = not active.available_nodes and active.model_graph is None and active.get_experiment() is None
    ctx = active if is_free else ExperimentContext()
    with ctx.activate(), known_directories():
        experiment = _read(cls, home, start, allow_packaged_code)
        if start.entries["checkpoint_dir"] is not None:
            experiment.set_checkpoint_dir(start.entries["checkpoint_dir"])
        told = start.entries["item"]
        if told["whole"]:
            experiment.set_history(experiment.history, experiment_state.start_of(experiment))
        item = _item(experiment, told)
        _restore_draws(item, start.entries["samplers"])
        folder = RunFolder(home, start.meta["run"])
        state = _latest(experiment, item, folder, allow_packaged_code)
    if not is_free:
        ExperimentContext.set_active(ctx)
        log.info("the active context is in use; the experiment %r lives in a new one, active from now on", experiment.label)
    return TakenUp(experiment, item, told["whole"], folder, state)


def _read(cls: Any, home: Path, start: Checkpoint, allow_packaged_code: bool) -> Any:
    tables = start.entries["data"]
    return experiment_file.read_experiment(
        cls,
        home / START,
        allow_packaged_code=allow_packaged_code,
        overwrite=False,
        data=lambda label: SampleCollection.load(home / DATA / tables[label]),
    )


def _item(experiment: Any, told: Mapping[str, Any]) -> Item:
    """What ran: the plan, or a phase or group by its config."""
    if told["whole"]:
        return experiment.execution_plan  # type: ignore[no-any-return]
    return PhaseGroup.from_config(told["config"]) if told["is_group"] else ExperimentPhase.from_config(told["config"])


def _restore_draws(item: Item, drawn: Any) -> None:
    phases = dict(run_state.phases_of(item))
    for path, states in drawn:
        samplers = [binding.sampler for binding in phases[tuple(path)].input_sources if binding.sampler is not None]
        for sampler, state in zip(samplers, states, strict=True):
            if state is not None:
                sampler.set_state(state)


def _latest(experiment: Any, item: Item, folder: RunFolder, allow_packaged_code: bool) -> Mapping[str, Any] | None:
    """The state in the latest checkpoint that can be read, given to graph, callbacks and checkpointings; None if there is none."""
    for found in folder.found(experiment, item):
        try:
            entries = Checkpoint.load(found.path, allow_packaged_code=allow_packaged_code).entries
        except ArtifactError as error:
            log.warning("%s is left out: %s", found.path, error)
            continue
        if GRAPH in entries:
            experiment.model_graph.set_state(entries[GRAPH])
        cursor = run_state.restore(item, entries[RUN], experiment=experiment, folder=folder.path)
        if cursor.hook == FINISHED:
            log.warning("%s: this run is over; there is nothing to go on with", folder.path)
        elif cursor.hook != DONE:
            _record(item, cursor, found.path)
        return entries[RUN]  # type: ignore[no-any-return]
    return None


def _record(item: Item, cursor: Cursor, path: Path) -> None:
    """The checkpointing of the phase knows the file from which the phase goes on, which was written after it was asked."""
    phase = dict(run_state.phases_of(item))[cursor.path]
    if isinstance(phase, TrainPhase) and phase.checkpointing is not None:
        phase.checkpointing.record_disk(key_of(cursor.hook, cursor.epoch, cursor.batch), path)
