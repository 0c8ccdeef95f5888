"""Metrics of callbacks: MetricCallback, EvaluationMetric, and the loss of an evaluation as a metric."""

from __future__ import annotations

import abc
import copy
import itertools
from collections.abc import Mapping
from typing import Any

from keydnn.experiment.callbacks.callback import Callback
from keydnn.experiment.callbacks.results import MetricResult
from keydnn.experiment.equality import same_values
from keydnn.experiment.phases import TrainPhase
from keydnn.experiment.training import AppliedLoss

RESERVED = ("train_loss",)
REDUCERS = ("mean", "sum")


class MetricCallback(Callback):
    """Base of callbacks whose hooks return a :class:`MetricResult`; the label is the name.

    Args:
        name: Of the metric.

    Raises:
        ValueError: The name is reserved.
    """

    def __init__(self, *, name: str) -> None:
        if name in RESERVED:
            raise ValueError(f"the metric name {name!r} is reserved for what training itself logs; choose another one")
        super().__init__(label=name)
        self.name = name

    def get_config(self) -> dict[str, Any]:
        """Type, name and order; a subclass adds its arguments."""
        config = self._base_config()
        config["name"] = config.pop("label")
        return config


class EvaluationMetric(MetricCallback):
    """Base of metrics read from the results of an evaluation.

    In ``Evaluation(metrics=[...])`` it is read after every evaluation in the course of training; among the callbacks of an EvalPhase or a
    FitPhase when that phase is over.

    Args:
        name: Of the metric.

    Raises:
        ValueError: The name is reserved.

    Example:
        >>> from keydnn.experiment.callbacks import EvaluationMetric, MetricResult
        >>> class Batches(EvaluationMetric):
        ...     def extract(self, *, eval_result, exec_ctx=None):
        ...         return MetricResult(self.name, eval_result.n_batches)
        >>> Batches("val_batches").label
        'val_batches'
    """

    def __init__(self, name: str) -> None:
        super().__init__(name=name)

    def attach(self, phase: Any) -> None:
        """Told by a phase that took this metric among its callbacks.

        Raises:
            TypeError: A training phase, which has nothing to read from.
        """
        if isinstance(phase, TrainPhase):
            raise TypeError(
                f"metric {self.name!r} is read from an evaluation, and {phase.label!r} trains: give it an Evaluation with"
                f" metrics=[{type(self).__name__}(...)], or put the metric among the callbacks of an EvalPhase"
            )
        super().attach(phase)
        self.prepare(phase)

    def on_phase_end(self, *, experiment: Any, phase: Any, results: Any) -> Any:
        """Read from the results of the phase that took it among its callbacks."""
        return self.extract(eval_result=results)

    def prepare(self, eval_phase: Any) -> None:
        """Told the phase that will be evaluated; a metric that needs something of it asks for it here."""

    @abc.abstractmethod
    def extract(self, *, eval_result: Any, exec_ctx: Any = None) -> MetricResult | None:
        """The metric; None if there is none.

        Args:
            eval_result: The EvalResults.
            exec_ctx: The last step of the epoch that was evaluated; None before training.
        """


class EvalLossMetric(EvaluationMetric):
    """A loss over the evaluated samples.

    Args:
        loss: The loss; the evaluation phase computes it, and is given it if it does not.
        reducer: ``"mean"``, weighted by the number of samples of each batch, or ``"sum"`` over batches.
        name: Of the metric.

    Raises:
        TypeError: ``loss`` is no AppliedLoss.
        ValueError: Unknown reducer, or reserved name.
    """

    def __init__(self, *, loss: AppliedLoss, reducer: str = "mean", name: str = "val_loss") -> None:
        if not isinstance(loss, AppliedLoss):
            raise TypeError(f"loss must be an AppliedLoss, got {type(loss).__name__}")
        if reducer not in REDUCERS:
            raise ValueError(f"reducer must be one of {', '.join(REDUCERS)}, got {reducer!r}")
        super().__init__(name)
        self.loss, self.reducer = loss, reducer
        self._label = loss.label  # among the losses of the phase

    def prepare(self, eval_phase: Any) -> None:
        """Reuse an equal loss of the phase, else add this one, under a label of its own if another loss has its label."""
        there = {loss.label: loss for loss in eval_phase.losses}
        for label in self._labels():
            if label not in there:
                mine = self.loss if label == self.loss.label else _renamed(self.loss, label)
                eval_phase.add_loss(mine)
            elif not _same(there[label], self.loss):
                continue
            self._label = label
            return

    def _labels(self) -> Any:
        """The loss's own label, then private ones."""
        yield self.loss.label
        yield f"{self.loss.label}_{self.name}"
        yield from (f"{self.loss.label}_{self.name}_{i}" for i in itertools.count(2))

    def extract(self, *, eval_result: Any, exec_ctx: Any = None) -> MetricResult:
        """The loss over all batches."""
        losses = eval_result.aggregated_losses(self.loss.node_id, reducer=self.reducer)
        return MetricResult(self.name, float(losses[self._label]))

    def get_config(self) -> dict[str, Any]:
        """Type, name, order, the config of the loss, reducer."""
        return {**super().get_config(), "loss": self.loss.get_config(), "reducer": self.reducer}

    @classmethod
    def _from_arguments(cls, arguments: dict[str, Any]) -> EvalLossMetric:
        loss = arguments["loss"]
        found = AppliedLoss.from_config(loss) if isinstance(loss, Mapping) else loss
        return super()._from_arguments({**arguments, "loss": found})


def _renamed(loss: AppliedLoss, label: str) -> AppliedLoss:
    other = copy.copy(loss)
    other.label = label
    return other


def _same(a: AppliedLoss, b: AppliedLoss) -> bool:
    """Whether two losses say the same, whatever their labels."""
    return a is b or same_values({**a.get_config(), "label": None}, {**b.get_config(), "label": None})
