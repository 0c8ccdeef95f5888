"""Sweep: the plan of an experiment run under many settings, each from fresh weights; what is finished is never lost or done again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.documents.files import document_of, experiment_of
from keydnn.experiment.execution.executors import IExecutor, make_executor
from keydnn.experiment.execution.executors.executor import checked_whole
from keydnn.experiment.execution.run_record import final_metrics
from keydnn.experiment.execution.shipping import Classes, heard, packed, unpacked
from keydnn.experiment.execution.subfolders import files_told, keep_files_as_told, known_directories
from keydnn.experiment.execution.tasks import surroundings, tables_of
from keydnn.experiment.execution.worker import answer, threads_of, working
from keydnn.experiment.experiment import Experiment
from keydnn.experiment.progress import showing, task
from keydnn.experiment.results.state import run_from_state
from keydnn.experiment.sweeps.log import TrialLog
from keydnn.experiment.sweeps.overrides import overridden
from keydnn.experiment.sweeps.points import Point, make_proposer
from keydnn.experiment.sweeps.results import SweepResults, Trial

_QUIET: dict[str, Any] = {"show_sampler_progress": False, "show_training_progress": False, "show_eval_progress": False}


class Sweep:
    """Runs the plan of an experiment once per setting.

    Settings are overrides of what :meth:`Experiment.to_yaml` writes, named by the way to them: ``model_graph.optimizer.opt_kwargs.lr``,
    ``model_graph.nodes.<label>.model_kwargs.hidden_dim``, ``phases.<label>.n_epochs``, ``seed``.  Every trial is a new experiment over
    the same feature sets, with the weights that its seed gives; the experiment itself is never touched.

    Args:
        space: Way to a list of choices, or to a range; see :mod:`keydnn.experiment.sweeps.points`.
        metric: What is looked at, ``<phase>/<metric>`` as in ``Experiment.run_table``, at its last epoch.
        direction: "min" or "max".
        mode: "grid" (every combination), "random", or "optuna".
        n_trials: How many; None only for a grid: all.
        seed: Of the points.
        experiment: None takes that of the active context.
        executor: "serial", "processes", "ray" or an executor, which knows its own workers; Optuna is asked for as many trials at once
            as there are workers.
        workers: How many trials run at once elsewhere.
        threads_per_task: Threads of a trial.
        retries: How often trials are given out again after a worker died.

    Raises:
        TypeError: No experiment, or a metric that is no name.
        ValueError: A space, mode, direction or way that makes no sense.
        ArtifactError: The experiment holds something that YAML cannot say.

    Example:
        >>> from keydnn.experiment import Experiment, ExperimentContext
        >>> from keydnn.experiment.sweeps import Sweep
        >>> exp = Experiment("ageing", ctx=ExperimentContext(), seed=7)
        >>> Sweep(space={"seed": [1, 2, 3]}, metric="train/train_loss", experiment=exp)
        Sweep({'seed': [1, 2, 3]}, 'train/train_loss', direction='min', mode='grid')
    """

    def __init__(
        self,
        *,
        space: Mapping[str, Any],
        metric: str,
        direction: str = "min",
        mode: str = "grid",
        n_trials: int | None = None,
        seed: int = 13,
        experiment: Experiment | None = None,
        executor: str | IExecutor = "serial",
        workers: int | None = None,
        threads_per_task: int | None = None,
        retries: int = 2,
    ) -> None:
        if direction not in ("min", "max"):
            raise ValueError(f"direction must be 'min' or 'max', got {direction!r}")
        found = ExperimentContext.get_active().get_experiment() if experiment is None else experiment
        if not isinstance(found, Experiment):
            raise TypeError("no experiment: pass experiment=, or activate the context of one")
        if not isinstance(metric, str) or not metric:
            raise TypeError(f"metric must be a name such as 'train/train_loss', got {metric!r}")
        self.space: dict[str, Any] = {name: _plain(values) for name, values in dict(space).items()}
        self.metric, self.direction, self.mode, self.experiment = metric, direction, mode, found
        self.n_trials, self.seed, self.threads_per_task = n_trials, checked_whole("seed", seed, 0), threads_per_task
        self.executor = make_executor(executor, workers=workers, threads_per_task=threads_per_task, retries=retries)
        self._document = _without_ids(document_of(found))
        for point in self._proposer().propose([], 1):
            self._check(point)

    def _check(self, point: Point) -> None:
        """Make the experiment of a point, so that mistakes show before anything runs."""
        with ExperimentContext().activate() as ctx:
            for fs in self.experiment.ctx.available_featuresets.values():
                ctx.register_experiment_node(fs)
            experiment_of(overridden(self._document, point), "the first trial")

    def _proposer(self) -> Any:
        return make_proposer(self.mode, self.space, self.n_trials, self.seed, self.direction)

    def run(self, *, out: str | os.PathLike[str] | None = None, resume: bool = False, show_progress: bool = True) -> SweepResults:
        """Run all trials, or those that are missing in a file.

        Args:
            out: A file with one line per finished trial (JSON lines); None keeps none.
            resume: Whether the file may be there; its trials are taken from it.
            show_progress: Whether a bar shows the trials.

        Raises:
            FileExistsError: The file is there and ``resume`` is False.
            ValueError: The file is of another sweep, or a trial ended without the metric.
            TaskFailed: Workers died too often; finished trials are in the file.
        """
        log = None if out is None else TrialLog(Path(out), self.fingerprint)
        trials = [] if log is None else log.begin(resume)
        proposer, at_once = self._proposer(), self._at_once()
        with showing(show_progress), task("trials", self._total()) as advance:
            advance(len(trials))
            if self.mode == "optuna":  # it is asked again as it was asked before
                for i in range(0, len(trials), at_once):
                    asked = proposer.propose([trial.value for trial in trials[:i]], at_once)[len(trials) - i :]
                    self._do(asked, trials, log, advance)
            while points := proposer.propose([trial.value for trial in trials], at_once):
                self._do(points, trials, log, advance)
        return SweepResults(self.metric, self.direction, trials)

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides what comes out: experiment, data, space, mode, seed."""
        sets = {fs.label: _set_fingerprint(fs) for fs in self.experiment.ctx.available_featuresets.values()}
        ways = [[name, dimension] for name, dimension in self.space.items()]
        told = [self._document, sets, ways, self.metric, self.direction, self.mode, self.n_trials, self.seed]
        told += [self._at_once()] if self.mode == "optuna" else []
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=repr).encode()).hexdigest()

    def _at_once(self) -> int:
        if self.mode != "optuna":
            return 2**31
        return 1 if self.executor is None else getattr(self.executor, "workers", None) or 1

    def _total(self) -> int | None:
        return self.n_trials if self.mode != "grid" else len(self._proposer().propose([], 2**31))

    def _do(self, points: Sequence[Point], trials: list[Trial], log: TrialLog | None, advance: Callable[[int], None]) -> None:
        """Run trials; they enter the list and the file in the order of their numbers."""
        ctx, first = self.experiment.ctx, len(trials)
        classes: Classes = {}
        base = packed({**surroundings(ctx), "files": files_told(self.experiment)}, classes)
        tasks = [packed({"document": overridden(self._document, point), "number": first + i}, classes) for i, point in enumerate(points)]
        tables, waiting = tables_of(ctx), {}

        def done(i: int, told: bytes) -> None:
            waiting[i] = self._trial(first + i, points[i], heard(told, classes))
            advance(1)
            while len(trials) - first in waiting:
                trials.append(waiting.pop(len(trials) - first))
                if log is not None:
                    log.add(trials[-1])

        if points and self.executor is not None:
            self.executor.run(perform_trial, base, tables, tasks, done)
            return
        for i, one in enumerate(tasks):
            done(i, perform_trial(base, one, self.threads_per_task, list(tables), *tables.values()))

    def _trial(self, number: int, point: Point, told: Mapping[str, Any]) -> Trial:
        if told["error"] is not None:
            return Trial(number, point, None, error=f"{type(told['error']).__name__}: {told['error']}")
        with self.experiment.ctx.activate():
            metrics = final_metrics(run_from_state(told["run"]).results)
        if self.metric not in metrics:
            raise ValueError(f"trial {number} ended without {self.metric!r}; its metrics are {', '.join(metrics) or 'none'}")
        return Trial(number, point, metrics[self.metric], metrics)

    def __repr__(self) -> str:
        return f"Sweep({self.space}, {self.metric!r}, direction={self.direction!r}, mode={self.mode!r})"


def perform_trial(base: bytes, task: bytes, threads: int | None, names: Sequence[str], *tables: pa.Table) -> bytes:
    """Run the plan of an experiment that is made from its document; see :func:`~keydnn.experiment.execution.worker.perform`."""
    told, asked = unpacked(base), unpacked(task)
    with threads_of(threads), working(told, dict(zip(names, tables, strict=True))):
        made: list[Experiment] = []

        def run() -> None:
            name = f"trial_{asked['number']}"
            with known_directories():
                made.append(experiment_of(asked["document"], name.replace("_", " ")))
            keep_files_as_told(made[0], [made[0].execution_plan], told["files"], name)
            made[0].run(**_QUIET)

        return answer(run, made)


def _plain(value: Any) -> Any:
    """A dimension whose numbers JSON knows: those of NumPy become Python's."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _without_ids(document: Any) -> Any:
    """A document without ids of nodes, which are other ones in every process."""
    if isinstance(document, Mapping):
        return {key: _without_ids(value) for key, value in document.items() if key != "node_id"}
    return [_without_ids(value) for value in document] if isinstance(document, list) else document


def _set_fingerprint(fs: Any) -> list[Any]:
    """Data, splits and scalers of a feature set."""
    splits = {name: hashlib.sha256(fs.get_split(name).indices.tobytes()).hexdigest() for name in fs.available_splits}
    return [fs.fingerprint, splits, [[repr(record.get_config()), repr(record.scaler_obj)] for record in fs.scaler_records]]
