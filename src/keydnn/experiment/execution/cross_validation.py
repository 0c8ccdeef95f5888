"""CrossValidation: one plan run on every fold, each from the same weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.contracts import IExperiment
from keydnn.experiment.execution.executors import IExecutor, make_executor
from keydnn.experiment.execution.executors.executor import checked_whole
from keydnn.experiment.execution.folds import CVBinding, Fold
from keydnn.experiment.execution.plan_running import check_keywords
from keydnn.experiment.execution.tasks import Task, perform_elsewhere
from keydnn.experiment.execution.worker import threads_of
from keydnn.experiment.phases import PhaseGroup, TrainPhase
from keydnn.experiment.progress import showing, task
from keydnn.experiment.registration import in_notebook
from keydnn.experiment.results.cv_results import FOLD, CVResults


class CrossValidation:
    """Runs a plan once per fold.

    In fold i the split ``train_split_name`` of every binding is its pool without part i and ``val_split_name`` is part i; splits cut
    from one of them are cut again, scalers are fitted again on the same splits, and every other split is as it was.  Every fold starts
    from the weights and optimizer states there are, with random numbers of its own; afterwards everything is as before but the
    experiment's history, also after an exception.

    Args:
        label: Name; the runs stand in the history as ``<label>_fold_<i>``.
        bindings: What is cut into folds: one CVBinding or several, of different feature sets.
        n_folds: Number of folds.
        seed: Of the :class:`~keydnn.experiment.splitters.RandomSplitter` that cuts.
        phase: TrainPhase or PhaseGroup; None takes the plan of the experiment.
        experiment: None takes that of the active context.
        executor: Where folds run: "serial" (here, one after the other), "processes", "ray", or an executor, which knows its own workers.
            Numbers are the same bit for bit where ``threads_per_task`` is.
        workers: How many folds run at once elsewhere; None: as many as fit.
        threads_per_task: Threads a fold computes with; None: here what is set, elsewhere the processors are shared.
        retries: How often folds are given out again after a worker died.

    Raises:
        TypeError: No experiment, no binding, or a phase of another kind.
        ValueError: ``n_folds`` no whole number of at least 1, two bindings of one set, one of a set of another context, or folds that
            cannot be cut; see :meth:`CVBinding.folds`.

    Example:
        >>> from keydnn.experiment import CrossValidation, CVBinding, Experiment, ExperimentContext, FeatureSet
        >>> exp = Experiment("ageing", ctx=ExperimentContext(), seed=7)
        >>> with exp.ctx.activate():
        ...     fs = FeatureSet.from_dict("cells", {"u": np.arange(10.0)}, "u", [])
        ...     fs.split_random({"train": 0.7, "val": 0.3})
        ...     cv = CrossValidation(bindings=CVBinding(fs, ["train", "val"]), n_folds=5)
        >>> cv.folds[0][0].val.tolist(), cv.folds[0][0].train.tolist()
        ([6, 1], [0, 2, 3, 4, 5, 7, 8, 9])
    """

    def __init__(
        self,
        *,
        label: str = "CV",
        bindings: CVBinding | Sequence[CVBinding],
        n_folds: int = 5,
        seed: int = 13,
        phase: TrainPhase | PhaseGroup | None = None,
        experiment: IExperiment | None = None,
        executor: str | IExecutor = "serial",
        workers: int | None = None,
        threads_per_task: int | None = None,
        retries: int = 2,
    ) -> None:
        self.label, self.threads_per_task = label, threads_per_task
        self.executor = make_executor(executor, workers=workers, threads_per_task=threads_per_task, retries=retries)
        self.experiment = _checked_experiment(experiment)
        self.bindings = _checked_bindings(bindings, self.experiment)
        self.phase = self.experiment.execution_plan if phase is None else phase
        if not isinstance(self.phase, TrainPhase | PhaseGroup):
            raise TypeError(f"phase must be a TrainPhase or a PhaseGroup, got {type(phase).__name__}")
        self.n_folds, self.seed = checked_whole("n_folds", n_folds, 1), checked_whole("seed", seed, 0)
        self.folds: list[list[Fold]] = [binding.folds(self.n_folds, self.seed) for binding in self.bindings]

    def run(
        self, *, show_fold_progress: bool = True, persist_progress: bool | None = None, reset_weights: bool = False, **kwargs: Any
    ) -> CVResults:
        """Run the plan on every fold.

        Args:
            show_fold_progress: Whether a bar shows the folds.
            persist_progress: Whether bars stay; None means in notebooks.
            reset_weights: Whether every fold starts from fresh weights, which are those that the experiment's seed gives.
            **kwargs: As of :meth:`Experiment.run`, for the phases.

        Raises:
            TypeError: Unknown keywords.
        """
        stays = in_notebook() if persist_progress is None else persist_progress
        options = {"reset_weights": reset_weights, "persist_progress": stays, **kwargs}
        check_keywords(self._group(0), {name: value for name, value in options.items() if name != "reset_weights"})
        results = CVResults(self.label)
        with showing(show_fold_progress, persist=stays), task("folds", self.n_folds) as advance:
            here = (self._here(i, options, advance) for i in range(self.n_folds))
            for one in here if self.executor is None else self._elsewhere(self.executor, options, advance):
                results.add_result(one)
        return results

    def run_fold(self, i: int, *, reset_weights: bool = False, **kwargs: Any) -> Any:
        """Run one fold here; see :meth:`run`.

        Args:
            i: Its number.
            reset_weights: Whether it starts from fresh weights.
            **kwargs: For the phases.

        Returns:
            PhaseGroupResults with the label ``fold_<i>``.
        """
        with self.experiment.ctx.activate():
            sets = [binding.folded(folds[i]) for binding, folds in zip(self.bindings, self.folds, strict=True)]
        group = self._group(i)
        with threads_of(self.threads_per_task):
            return self.experiment.run_apart(
                group, label=f"{self.label}_{group.label}", featuresets=sets, reset_weights=reset_weights, **kwargs
            )

    def _group(self, i: int) -> PhaseGroup:
        """The plan, as the group that fold i runs."""
        return PhaseGroup(f"{FOLD}{i}", self.phase.all if isinstance(self.phase, PhaseGroup) else [self.phase])

    def _here(self, i: int, options: dict[str, Any], advance: Callable[[int], None]) -> Any:
        found = self.run_fold(i, **options)
        advance(1)
        return found

    def _elsewhere(self, executor: IExecutor, options: dict[str, Any], advance: Callable[[int], None]) -> list[Any]:
        quiet = {"show_sampler_progress": False, "show_training_progress": False, "show_eval_progress": False}
        tasks = []
        for i in range(self.n_folds):
            rows = {one.featureset.node_id: one.parts(folds[i]) for one, folds in zip(self.bindings, self.folds, strict=True)}
            tasks.append(Task(f"{self.label}_{FOLD}{i}", f"{FOLD}{i}", rows, {**options, **quiet}))
        return perform_elsewhere(executor, self.experiment, self._group(0), tasks, advance)

    def __repr__(self) -> str:
        return f"CrossValidation({self.label!r}, {self.bindings}, n_folds={self.n_folds}, seed={self.seed})"


def _checked_experiment(experiment: IExperiment | None) -> IExperiment:
    found = ExperimentContext.get_active().get_experiment() if experiment is None else experiment
    if found is None:
        raise TypeError("no experiment: pass experiment=, or activate the context of one")
    if not isinstance(found, IExperiment):
        raise TypeError(f"experiment must be an Experiment, got {type(found).__name__}")
    return found


def _checked_bindings(bindings: Any, experiment: IExperiment) -> list[CVBinding]:
    given = [bindings] if isinstance(bindings, CVBinding) else list(bindings)
    if not given or not all(isinstance(binding, CVBinding) for binding in given):
        raise TypeError(f"bindings must be one or more CVBindings, got {bindings!r}")
    sets = [binding.featureset.node_id for binding in given]
    if len(set(sets)) < len(sets):
        raise ValueError(f"two bindings cut the same feature set: {', '.join(binding.featureset.label for binding in given)}")
    known = experiment.ctx.available_featuresets
    for binding in given:
        if known.get(binding.featureset.node_id) is not binding.featureset:
            labels = ", ".join(repr(fs.label) for fs in known.values()) or "none"
            raise ValueError(f"feature set {binding.featureset.label!r} is not in the context of the experiment, which has {labels}")
    return given
