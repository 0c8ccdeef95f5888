"""CVResults: the results of every fold of a cross-validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn.experiment.results.group_results import PhaseGroupResults
from keydnn.experiment.results.kinds import result_kind
from keydnn.experiment.results.series import LossSeries
from keydnn.experiment.results.train_results import TrainResults
from keydnn.experiment.series import AxisSeries, Reducer, stacked

FOLD = "fold_"


@result_kind("cv")
class CVResults(PhaseGroupResults):
    """Results of folds, each a group with the results of the phases that ran in it: ``fold_0``, ``fold_1``, ...

    Args:
        label: Of the cross-validation.

    Example:
        >>> from keydnn.experiment.results import CVResults, PhaseGroupResults
        >>> results = CVResults("cv")
        >>> results.add_result(PhaseGroupResults("fold_0"))
        >>> results.n_folds, results.get_fold(0) is results.get_fold("fold_0")
        (1, True)
    """

    @property
    def n_folds(self) -> int:
        """Number of folds."""
        return len(self.fold_labels)

    @property
    def fold_labels(self) -> list[str]:
        """``fold_0``, ``fold_1``, ..."""
        return [label for label in self.group_results if label.startswith(FOLD)]

    def get_fold(self, fold: int | str) -> PhaseGroupResults:
        """Results of one fold, by number or label.

        Raises:
            KeyError: No such fold.
        """
        label = f"{FOLD}{fold}" if isinstance(fold, int) else fold
        if label not in self.fold_labels:
            raise KeyError(f"no fold {fold!r}; there are {', '.join(self.fold_labels) or 'none'}")
        return self.get_group_result(label)

    def collect(self, extractor: Callable[[PhaseGroupResults], Any]) -> AxisSeries:
        """What a function finds in the results of each fold.

        Args:
            extractor: Results of a fold to an object, or to a series.

        Returns:
            Objects by ``fold``; of series, their entries with the axis ``fold`` in front.

        Raises:
            ValueError: Series with different axes.
        """
        found = {i: extractor(self.get_fold(label)) for i, label in enumerate(self.fold_labels)}
        if any(isinstance(value, AxisSeries) for value in found.values()):
            return stacked("fold", found)
        return AxisSeries(("fold",), {(i,): value for i, value in found.items()})

    def losses(self, node: Any, *, phase: str | None = None) -> LossSeries:
        """LossRecords of a node by fold, epoch, batch and label.

        Args:
            node: The node.
            phase: Label of the training phase; None takes the only one.

        Raises:
            ValueError: No label, and none or several training phases.
            KeyError: Unknown node or phase.
        """
        return self.collect(lambda fold: _training(fold, phase).losses(node))  # type: ignore[return-value]

    def epoch_losses(self, node: Any, *, phase: str | None = None, reducer: str | Reducer = "mean") -> LossSeries:
        """LossRecords of a node by fold, epoch and label; see :meth:`TrainResults.epoch_losses` and :meth:`losses`."""
        return self.collect(lambda fold: _training(fold, phase).epoch_losses(node, reducer))  # type: ignore[return-value]

    def summary(self, metric: str) -> FoldSummary:
        """A metric at its last epoch in every fold, with mean and standard deviation.

        Args:
            metric: Its name; ``<phase>/<metric>`` where several phases have one of that name.

        Raises:
            KeyError: A fold has no such metric.
            ValueError: Several phases have it.
        """
        return FoldSummary(metric, tuple(_last(self.get_fold(label), metric) for label in self.fold_labels))


@dataclass(frozen=True)
class FoldSummary:
    """A metric over folds.

    Attributes:
        metric: Its name.
        per_fold: Its values, in the order of the folds.
    """

    metric: str
    per_fold: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over folds."""
        return float(np.mean(self.per_fold))

    @property
    def std(self) -> float:
        """Standard deviation over folds (divided by the number of folds)."""
        return float(np.std(self.per_fold))

    def __repr__(self) -> str:
        folds = ", ".join(f"{value:.6g}" for value in self.per_fold)
        return f"{self.metric}: {self.mean:.6g} ± {self.std:.6g} ({folds})"


def _training(fold: PhaseGroupResults, phase: str | None) -> TrainResults:
    """The results of one training phase, wherever in the fold it stands."""
    found = {label: one for label, one in fold.flatten().items() if isinstance(one, TrainResults)}
    if phase is None and len(found) != 1:
        raise ValueError(f"{fold.label!r} has several or no training phases, name one: {', '.join(found) or 'there is none'}")
    if phase is not None and phase not in found:
        raise KeyError(f"{fold.label!r} has no training phase {phase!r}; there are {', '.join(found) or 'none'}")
    return found[phase or next(iter(found))]


def _last(fold: PhaseGroupResults, metric: str) -> float:
    """The value of a metric at its last epoch."""
    found: dict[str, float] = {}
    for path, phase in fold._paths():
        for entry in phase.metric_store.entries():
            if entry.batch_idx is None and metric in (entry.name, f"{path}/{entry.name}"):
                found[path] = float(entry.value)
    if not found:
        raise KeyError(f"{fold.label!r} has no metric {metric!r}")
    if len(found) > 1:
        raise ValueError(
            f"several phases of {fold.label!r} have a metric {metric!r}: ask for {' or '.join(f'{p}/{metric}' for p in found)}"
        )
    return found.popitem()[1]
