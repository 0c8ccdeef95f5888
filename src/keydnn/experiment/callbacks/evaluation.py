"""Evaluation: an evaluation phase in the course of training."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from keydnn.experiment.callbacks.callback import Callback
from keydnn.experiment.callbacks.dispatch import store
from keydnn.experiment.callbacks.metrics import EvaluationMetric
from keydnn.experiment.callbacks.results import EvaluationCallbackResult, Scope
from keydnn.experiment.phases import EvalPhase
from keydnn.experiment.phases.callback_configs import callback_config
from keydnn.experiment.results import EvalResults

KEEP = ("all", "metrics")


class Evaluation(Callback):
    """Runs an evaluation phase at the end of every n-th epoch, keeps its results, and reads metrics from them.

    Training does not notice: the phase runs as a preview.

    Args:
        eval_phase: The phase; callbacks of its own do not run.
        every_n_epochs: At the end of every so many epochs.
        run_on_start: Whether it also runs before the first epoch.
        label: Name; None takes that of the phase.
        metrics: EvaluationMetric objects.
        keep: ``"all"``, or ``"metrics"``: outputs, targets and losses of the steps are dropped once the metrics are read.

    Raises:
        TypeError: ``eval_phase`` is no EvalPhase, or a metric no EvaluationMetric.
        ValueError: ``every_n_epochs`` below 1, unknown ``keep``, or two metrics of one name.

    Warns:
        UserWarning: The phase has callbacks.
    """

    def __init__(
        self,
        *,
        eval_phase: EvalPhase,
        every_n_epochs: int = 1,
        run_on_start: bool = False,
        label: str | None = None,
        metrics: Sequence[EvaluationMetric] | None = None,
        keep: str = "all",
    ) -> None:
        if not isinstance(eval_phase, EvalPhase):
            raise TypeError(f"eval_phase must be an EvalPhase, got {type(eval_phase).__name__}")
        if isinstance(every_n_epochs, bool) or not isinstance(every_n_epochs, int) or every_n_epochs < 1:
            raise ValueError(f"every_n_epochs must be a whole number of at least 1, got {every_n_epochs!r}")
        if keep not in KEEP:
            raise ValueError(f"keep must be one of {', '.join(KEEP)}, got {keep!r}")
        super().__init__(eval_phase.label if label is None else label)
        self.eval_phase, self.every_n_epochs, self.run_on_start, self.keep = eval_phase, every_n_epochs, bool(run_on_start), keep
        self._metrics: list[EvaluationMetric] = []
        if eval_phase.callbacks:
            labels = ", ".join(repr(callback.label) for callback in eval_phase.callbacks)
            warnings.warn(
                f"evaluation {self.label!r}: callbacks {labels} of its phase do not run inside training", UserWarning, stacklevel=2
            )
        for metric in metrics or ():
            self.attach_metric(metric)

    @classmethod
    def from_split(
        cls,
        *,
        label: str,
        split: str,
        losses: Sequence[Any] | None = None,
        active_nodes: Sequence[Any] | None = None,
        batch_size: int | None = None,
        every_n_epochs: int = 1,
        run_on_start: bool = False,
        metrics: Sequence[EvaluationMetric] | None = None,
        keep: str = "all",
    ) -> Evaluation:
        """An evaluation of one split, see :meth:`EvalPhase.from_split`."""
        phase = EvalPhase.from_split(label, split=split, losses=losses, active_nodes=active_nodes, batch_size=batch_size)
        return cls(eval_phase=phase, every_n_epochs=every_n_epochs, run_on_start=run_on_start, metrics=metrics, keep=keep)

    @property
    def metrics(self) -> list[EvaluationMetric]:
        """The metrics; a copy of the list."""
        return list(self._metrics)

    def attach_metric(self, metric: EvaluationMetric) -> None:
        """Read one more metric; what it needs of the phase, such as a loss, is added there.

        Raises:
            TypeError: No EvaluationMetric.
            ValueError: There is one of this name.
        """
        if not isinstance(metric, EvaluationMetric):
            raise TypeError(f"an Evaluation takes EvaluationMetric objects, got {type(metric).__name__}")
        if metric.name in [one.name for one in self._metrics]:
            raise ValueError(f"evaluation {self.label!r} has a metric {metric.name!r} already")
        metric.prepare(self.eval_phase)
        self._metrics.append(metric)

    def runs_in(self, epoch: int) -> bool:
        """Whether it runs at the end of an epoch."""
        return (epoch + 1) % self.every_n_epochs == 0

    def on_phase_start(self, *, experiment: Any, phase: Any, results: Any) -> Any:
        """Evaluate before the first epoch, if asked."""
        return self._evaluate(experiment, phase, None, results, (None, None, "start")) if self.run_on_start else None

    def on_epoch_end(self, *, experiment: Any, phase: Any, exec_ctx: Any, results: Any) -> Any:
        """Evaluate every n-th epoch."""
        epoch = exec_ctx.epoch_idx
        return self._evaluate(experiment, phase, exec_ctx, results, (epoch, None, "end")) if self.runs_in(epoch) else None

    def _evaluate(self, experiment: Any, phase: Any, exec_ctx: Any, results: Any, scope: Scope) -> EvaluationCallbackResult:
        found = experiment.preview_phase(self._without_callbacks())
        for metric in self._metrics:
            value = metric.extract(eval_result=found, exec_ctx=exec_ctx)
            store(results, value, callback_label=metric.label, phase_label=phase.label, scope=scope)
        if self.keep == "metrics":
            found = EvalResults(found.label, metric_store=found.metric_store)
        return EvaluationCallbackResult(found)

    def _without_callbacks(self) -> EvalPhase:
        bare = copy.copy(self.eval_phase)
        bare.callbacks = []
        return bare

    def get_config(self) -> dict[str, Any]:
        """Type, label, order, the configs of phase and metrics, and the rest."""
        return {
            **self._base_config(),
            "eval_phase": self.eval_phase.get_config(),
            "every_n_epochs": self.every_n_epochs,
            "run_on_start": self.run_on_start,
            "metrics": [callback_config(metric) for metric in self._metrics],
            "keep": self.keep,
        }

    def get_state(self) -> dict[str, Any]:
        """By name, the states of the metrics that have one."""
        told = {metric.name: metric.get_state() for metric in self._metrics}
        return {"metrics": {name: state for name, state in told.items() if state}}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back :meth:`get_state`."""
        for metric in self._metrics:
            if metric.name in state["metrics"]:
                metric.set_state(state["metrics"][metric.name])

    @classmethod
    def _from_arguments(cls, arguments: dict[str, Any]) -> Evaluation:
        phase, metrics = arguments["eval_phase"], arguments.get("metrics") or []
        found = {
            "eval_phase": EvalPhase.from_config(phase) if isinstance(phase, Mapping) else phase,
            "metrics": [EvaluationMetric.from_config(one) if isinstance(one, Mapping) else one for one in metrics],
        }
        return super()._from_arguments({**arguments, **found})
