"""What hooks return: a payload, a metric, an artifact, an evaluation, the end of early stopping."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

Scope = tuple[int | None, int | None, str | None]


@dataclass
class CallbackResult:
    """Base of the results of hooks; who returned it and when is filled in when it is stored.

    Attributes:
        kind: Of the class.
        callback_label: Of the callback.
        phase_label: Of the phase.
        epoch_idx: Epoch; None at the start and end of the phase.
        batch_idx: Batch; None outside batches.
        edge: ``"start"`` or ``"end"`` of phase, epoch or batch; ``"exception"`` of ``on_exception``.
    """

    kind: ClassVar[str] = "result"

    callback_label: str | None = field(default=None, kw_only=True)
    phase_label: str | None = field(default=None, kw_only=True)
    epoch_idx: int | None = field(default=None, kw_only=True)
    batch_idx: int | None = field(default=None, kw_only=True)
    edge: str | None = field(default=None, kw_only=True)

    @property
    def epoch(self) -> int | None:
        """Epoch."""
        return self.epoch_idx

    @property
    def batch(self) -> int | None:
        """Batch."""
        return self.batch_idx

    @property
    def scope(self) -> Scope:
        """Epoch, batch and edge."""
        return self.epoch_idx, self.batch_idx, self.edge


@dataclass
class PayloadResult(CallbackResult):
    """Anything.

    Attributes:
        payload: What the hook returned.
    """

    kind: ClassVar[str] = "payload"

    payload: Any = None


@dataclass
class MetricResult(CallbackResult):
    """A number, which is logged among the metrics too.

    Attributes:
        metric_name: Its name there.
        metric_value: The number.

    Example:
        >>> from keydnn.experiment.callbacks import MetricResult
        >>> MetricResult("norm", 2.5).kind
        'metric'
    """

    kind: ClassVar[str] = "metric"

    metric_name: str
    metric_value: float


@dataclass
class ArtifactResult(CallbackResult):
    """Any object, which is kept among the artifacts too.

    Attributes:
        artifact_name: Its name there.
        artifact: The object.
    """

    kind: ClassVar[str] = "artifact"

    artifact_name: str
    artifact: Any


@dataclass
class EvaluationCallbackResult(CallbackResult):
    """The results of an evaluation phase, with shortcuts to what is asked of them most.

    Attributes:
        eval_results: Its EvalResults.
    """

    kind: ClassVar[str] = "evaluation"

    eval_results: Any

    @property
    def batch_indices(self) -> list[int]:
        """Indices of its batches."""
        return self.eval_results.batch_indices

    @property
    def n_batches(self) -> int:
        """Number of its batches."""
        return self.eval_results.n_batches

    def stacked_tensors(self, *args: Any, **kwargs: Any) -> Any:
        """All batches of a node joined; arguments as of EvalResults."""
        return self.eval_results.stacked_tensors(*args, **kwargs)

    def stacked_batches(self, *args: Any, **kwargs: Any) -> Any:
        """All output batches of a node as one; arguments as of EvalResults."""
        return self.eval_results.stacked_batches(*args, **kwargs)

    def aggregated_losses(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Label to loss over all batches; arguments as of EvalResults."""
        return self.eval_results.aggregated_losses(*args, **kwargs)

    def source_view(self, *args: Any, **kwargs: Any) -> Any:
        """The rows that were evaluated, of the one feature set; arguments as of EvalResults."""
        return self.eval_results.source_view(*args, **kwargs)

    def source_views(self, *args: Any, **kwargs: Any) -> Any:
        """The rows that were evaluated, by feature set; arguments as of EvalResults."""
        return self.eval_results.source_views(*args, **kwargs)


@dataclass
class EarlyStoppingResult(CallbackResult):
    """How early stopping ended.

    Attributes:
        best_epoch: Epoch of the best value; None if there was no value.
        best_value: The best value.
        stopped_epoch: Epoch at which the end was requested; None if it was not.
        restored: Whether the graph has the state of the best epoch again.
    """

    kind: ClassVar[str] = "early_stopping"

    best_epoch: int | None
    best_value: float | None
    stopped_epoch: int | None
    restored: bool
