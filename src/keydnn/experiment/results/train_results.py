"""TrainResults: what a training phase left behind."""

from __future__ import annotations

from typing import Any

from keydnn.experiment.optional import need
from keydnn.experiment.results.disk_stores import callback_entries
from keydnn.experiment.results.kinds import result_kind
from keydnn.experiment.results.phase_results import PhaseResults
from keydnn.experiment.results.series import LossSeries, ResultSeries
from keydnn.experiment.series import Later, Reducer

EVALUATION = "evaluation"


@result_kind("train")
class TrainResults(PhaseResults):
    """Results of a training phase.

    Args:
        label: Of the phase; the stores are made if they are not given, see :class:`PhaseResults`.

    Example:
        >>> from keydnn.experiment.results import TrainResults
        >>> results = TrainResults("train")
        >>> for epoch, value in enumerate([2.0, 1.0]):
        ...     results.metric_store.log(name="train_loss", value=value, epoch_idx=epoch)
        >>> results.history["train_loss"].tolist()
        [2.0, 1.0]
    """

    @property
    def epoch_indices(self) -> list[int]:
        """Recorded epochs."""
        return self.context_store.epochs

    @property
    def n_epochs(self) -> int:
        """Number of recorded epochs."""
        return len(self.context_store.epochs)

    @property
    def history(self) -> Any:
        """A frame of the metrics of whole epochs: a row per epoch, a column per metric, NaN where there is none.

        Raises:
            ImportError: pandas is not installed.
        """
        pandas = need("pandas", "history")
        entries = [entry for entry in self.metric_store if entry.batch_idx is None and entry.epoch_idx is not None]
        epochs = sorted({entry.epoch_idx for entry in entries if entry.epoch_idx is not None})
        table: dict[str, dict[int | None, float]] = {}
        for entry in entries:
            table.setdefault(entry.name, dict.fromkeys(epochs, float("nan")))[entry.epoch_idx] = entry.value
        columns = {name: list(values.values()) for name, values in table.items()}
        return pandas.DataFrame(columns, index=pandas.Index(epochs, name="epoch", dtype="int64"))

    def validation(self, label: str | None = None) -> ResultSeries:
        """EvalResults of evaluation callbacks by epoch; those of before the first epoch stand at None.

        Args:
            label: Of the callback; None takes the only one.

        Raises:
            ValueError: No label, and several evaluation callbacks.
            KeyError: No evaluation callback of this label.
        """
        some = [(key, one) for key, one in callback_entries(self.callback_results) if key[0] == EVALUATION]
        labels = list(dict.fromkeys(key[1] for key, _ in some))
        if label is None and len(labels) > 1:
            raise ValueError(f"several evaluations left results: {', '.join(labels)}; name one")
        if label is not None and label not in labels:
            raise KeyError(f"no evaluation {label!r} left results; there are: {', '.join(labels) or 'none'}")
        mine = [(key, one) for key, one in some if label is None or key[1] == label]
        return ResultSeries(("epoch",), {(None if edge == "start" else epoch,): _evaluated(one) for (*_, epoch, _, edge), one in mine})

    def epoch_losses(self, node: Any, reducer: str | Reducer = "mean") -> LossSeries:
        """LossRecords of a node by epoch and label.

        Args:
            node: The node.
            reducer: What becomes of the steps of an epoch: "mean", "sum", "first", "last" or a function of a list of records.

        Raises:
            KeyError: Unknown node.
            ValueError: An unknown reducer, or nothing was recorded of the node.
        """
        return self.losses(node).collapse("batch", reducer)

    def __repr__(self) -> str:
        return f"TrainResults(label={self.label!r}, epochs={self.n_epochs})"


def _evaluated(one: Any) -> Any:
    """The EvalResults of a callback's result, read from disk when they are asked for if they lie there."""
    return Later(lambda: one.open().eval_results) if isinstance(one, Later) else one.eval_results
