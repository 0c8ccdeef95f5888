"""Ready-made metrics of an evaluation; the values are those of scikit-learn.

Outputs and targets of all batches of a node are joined and compared:

    accuracy  share of rows with the right class           MAE  mean |y - t|          RMSE  sqrt(mean (y - t)^2)
    F1        2 TP / (2 TP + FP + FN)                       R2  1 - sum (y - t)^2 / sum (t - mean t)^2
"""

from __future__ import annotations

import abc
from typing import Any

import numpy as np

from keydnn import metrics
from keydnn.experiment.callbacks.metrics import EvaluationMetric
from keydnn.experiment.callbacks.results import MetricResult
from keydnn.experiment.contracts import INode
from keydnn.experiment.names import DOMAIN_OUTPUTS, DOMAIN_TARGETS, ROLE_DEFAULT

AVERAGES = ("binary", "macro", "micro", "weighted")


class Score(EvaluationMetric):
    """Base of metrics that compare the outputs of a node with its targets.

    Args:
        node: The node, its id or its label; None takes the only one that ran and that no other one reads.
        name: Of the metric.
        role: Of the samples.
        unscale: Whether outputs and targets are taken back to the units of the raw data.

    Raises:
        ValueError: The name is reserved.
    """

    default_name = "score"

    def __init__(self, node: Any = None, *, name: str | None = None, role: str = ROLE_DEFAULT, unscale: bool = False) -> None:
        super().__init__(self.default_name if name is None else name)
        self.node = node.node_id if isinstance(node, INode) and not isinstance(node, str) else node
        self.role, self.unscale = role, unscale

    def extract(self, *, eval_result: Any, exec_ctx: Any = None) -> MetricResult:
        """The value over all batches.

        Raises:
            ValueError: Several nodes could be meant, there are no targets, or shapes do not fit.
        """
        node = self.node if self.node is not None else self._only_tail(eval_result)
        outputs, targets = (
            eval_result.stacked_tensors(node, domain, role=self.role, fmt="np", unscale=self.unscale)
            for domain in (DOMAIN_OUTPUTS, DOMAIN_TARGETS)
        )
        return MetricResult(self.name, float(self.value(np.asarray(targets), np.asarray(outputs))))

    def _only_tail(self, eval_result: Any) -> str:
        """The one node that ran and that none of the others read."""
        ran = eval_result.execution_contexts().first().outputs
        read = {parent for node_id in ran for parent in eval_result.nodes.notes[node_id].parents}
        found = [node_id for node_id in ran if node_id not in read]
        if len(found) != 1:
            raise ValueError(f"metric {self.name!r}: {len(found)} nodes were evaluated that no other one reads; say which one: node=...")
        return found[0]

    @abc.abstractmethod
    def value(self, targets: np.ndarray, outputs: np.ndarray) -> float:
        """The value for targets and outputs of all rows, (N, ...) each."""

    def get_config(self) -> dict[str, Any]:
        """Type, name, order, node, role, unscale."""
        return {**super().get_config(), "node": self.node, "role": self.role, "unscale": self.unscale}


class _Classes(Score):
    """Outputs are scores of classes (N, C), the largest wins, or one number per row, above the threshold for class 1."""

    def __init__(
        self, node: Any = None, *, threshold: float = 0.5, name: str | None = None, role: str = ROLE_DEFAULT, unscale: bool = False
    ) -> None:
        super().__init__(node, name=name, role=role, unscale=unscale)
        self.threshold = threshold

    def get_config(self) -> dict[str, Any]:
        """Those of a Score, and the threshold."""
        return {**super().get_config(), "threshold": self.threshold}

    def classes(self, targets: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """True and found class of every row, (N,) int64 each, and how many classes there are."""
        n = len(outputs)
        scores, truth = outputs.reshape(n, -1), targets.reshape(n, -1)
        n_classes = scores.shape[1]
        if n_classes == 1:
            found, n_classes = (scores[:, 0] > self.threshold).astype(np.int64), 2
        else:
            found = scores.argmax(axis=1)
            truth = truth.argmax(axis=1)[:, None] if truth.shape[1] == n_classes else truth
        if truth.shape[1] != 1:
            raise ValueError(f"metric {self.name!r}: targets {targets.shape} fit neither one class per row nor the outputs {outputs.shape}")
        classes = truth[:, 0]
        if np.any(classes != np.floor(classes)) or classes.min(initial=0) < 0 or classes.max(initial=0) >= n_classes:
            raise ValueError(f"metric {self.name!r}: targets must be classes 0 .. {n_classes - 1}, got {np.unique(classes)[:10]}")
        return classes.astype(np.int64), found, n_classes


class Accuracy(_Classes):
    """Share of rows with the right class.

    Args:
        node: The node, its id or its label; None takes the only one that ran and that no other one reads.
        threshold: Of outputs with one number per row, above which they say class 1; 0.0 for logits.
        name: Of the metric.
        role: Of the samples.
        unscale: Whether outputs and targets are taken back to the units of the raw data.

    Example:
        >>> from keydnn.experiment.callbacks import Accuracy
        >>> Accuracy().value(np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]))
        0.6666666666666666
    """

    default_name = "val_accuracy"

    def value(self, targets: np.ndarray, outputs: np.ndarray) -> float:
        """The share."""
        right, found, _ = self.classes(targets, outputs)
        return float(np.mean(right == found))


class F1(_Classes):
    """Harmonic mean of precision and recall.

    Args:
        node: The node, its id or its label; None takes the only one that ran and that no other one reads.
        average: ``"binary"``: of class 1; of several classes ``"macro"``, ``"micro"`` or ``"weighted"``. None takes ``"binary"`` for two
            classes and ``"macro"`` for more.
        threshold: Of outputs with one number per row, above which they say class 1; 0.0 for logits.
        name: Of the metric.
        role: Of the samples.
        unscale: Whether outputs and targets are taken back to the units of the raw data.

    Raises:
        ValueError: Unknown average, or reserved name.
    """

    default_name = "val_f1"

    def __init__(
        self,
        node: Any = None,
        *,
        average: str | None = None,
        threshold: float = 0.5,
        name: str | None = None,
        role: str = ROLE_DEFAULT,
        unscale: bool = False,
    ) -> None:
        if average is not None and average not in AVERAGES:
            raise ValueError(f"average must be one of {', '.join(AVERAGES)}, got {average!r}")
        super().__init__(node, threshold=threshold, name=name, role=role, unscale=unscale)
        self.average = average

    def get_config(self) -> dict[str, Any]:
        """Those of a Score, average and threshold."""
        return {**super().get_config(), "average": self.average}

    def value(self, targets: np.ndarray, outputs: np.ndarray) -> float:
        """The value; 0 where there is nothing to divide by."""
        right, found, n_classes = self.classes(targets, outputs)
        average = self.average or ("binary" if n_classes == 2 else "macro")
        if average == "binary" and n_classes != 2:
            raise ValueError(f"metric {self.name!r}: average='binary' needs two classes, the outputs have {n_classes}")
        counted = metrics.F1() if average == "binary" else metrics.F1(n_classes=n_classes, average=average)
        counted.update(right, found)
        return counted.result()


class _Errors(Score):
    """Numbers compared with numbers, element by element, in float64."""

    def value(self, targets: np.ndarray, outputs: np.ndarray) -> float:
        """The value over all elements.

        Raises:
            ValueError: There are not as many outputs as targets.
        """
        if targets.size != outputs.size:
            raise ValueError(
                f"metric {self.name!r}: targets {targets.shape} and outputs {outputs.shape} have not the same number of elements"
            )
        n = len(outputs)
        return self.error(targets.reshape(n, -1).astype(np.float64), outputs.reshape(n, -1).astype(np.float64))

    @abc.abstractmethod
    def error(self, truth: np.ndarray, found: np.ndarray) -> float:
        """The value for arrays of one shape, (N, n)."""


class MAE(_Errors):
    """Mean absolute error over all elements; arguments as of :class:`Score`."""

    default_name = "val_mae"

    def error(self, truth: np.ndarray, found: np.ndarray) -> float:
        """The mean of the absolute differences."""
        return float(np.abs(truth - found).mean())


class RMSE(_Errors):
    """Root of the mean squared error over all elements; arguments as of :class:`Score`."""

    default_name = "val_rmse"

    def error(self, truth: np.ndarray, found: np.ndarray) -> float:
        """The root."""
        counted = metrics.RMSE()
        counted.update(truth, found)
        return counted.result()


class R2(_Errors):
    """Share of the targets' variance that is explained, the mean over their columns; arguments as of :class:`Score`."""

    default_name = "val_r2"

    def error(self, truth: np.ndarray, found: np.ndarray) -> float:
        """The mean of the shares; NaN where the targets of a column are all equal."""
        shares = []
        for column in range(truth.shape[1]):
            counted = metrics.R2()
            counted.update(truth[:, column], found[:, column])
            shares.append(counted.result())
        return float(np.mean(shares))
