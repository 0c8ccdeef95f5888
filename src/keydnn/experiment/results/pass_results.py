"""EvalResults and FitResults: what one pass over the data left behind."""

from __future__ import annotations

from typing import Any

from keydnn.experiment.backends.tensors import concat
from keydnn.experiment.data import Batch, DataFormat, FeatureSetView
from keydnn.experiment.data.formats import backend_of_format
from keydnn.experiment.names import ROLE_DEFAULT
from keydnn.experiment.results.kinds import result_kind
from keydnn.experiment.results.phase_results import PhaseResults
from keydnn.experiment.training import LossRecord

_REDUCERS = ("mean", "sum", "first", "last")


class PassResults(PhaseResults):
    """Results of a phase that goes through its data once; abstract."""

    def stacked_tensors(
        self, node: Any, domain: str, *, role: str = ROLE_DEFAULT, fmt: DataFormat | str | None = None, unscale: bool = False
    ) -> Any:
        """The tensors of all batches joined along axis 0; arguments and errors of :meth:`PhaseResults.tensors`.

        Raises:
            ValueError: The node left no such tensors.
        """
        found = self.tensors(node, domain, role=role, fmt=fmt, unscale=unscale)
        if not len(found):
            raise ValueError(f"node {node!r} left no {domain} in phase {self.label!r}")
        return concat(found.values(), None if fmt is None else backend_of_format(DataFormat.from_value(fmt)))

    def stacked_batches(self, node: Any, *, fmt: DataFormat | str | None = None) -> Batch:
        """The output batches of a node joined along axis 0.

        Args:
            node: The node.
            fmt: Tensor-like format; None keeps the framework.

        Raises:
            KeyError: Unknown node.
            ValueError: The node left no batches, or batches that do not fit together.
        """
        found = self.batches(node)
        if not len(found):
            raise ValueError(f"node {node!r} left no batches in phase {self.label!r}")
        return Batch.concat(*found.values(), fmt=fmt)

    def aggregated_losses(self, node: Any, *, reducer: str = "mean") -> dict[str, float]:
        """Loss label to one number for all batches.

        Args:
            node: The node.
            reducer: "mean" (weighted by the sizes of the batches), "sum", "first" or "last".

        Raises:
            KeyError: Unknown node.
            ValueError: Unknown reducer.
        """
        if reducer not in _REDUCERS:
            raise ValueError(f"unknown reducer {reducer!r}; expected one of {', '.join(_REDUCERS)}")
        node_id = self._checked(node)
        found: dict[str, list[tuple[int, float]]] = {}
        for place in self._places(node_id):
            frame = place.frame.node(node_id)
            assert frame is not None
            for record in place.records():
                if record.node_id == node_id:
                    found.setdefault(record.label, []).append((frame.batch_size, _value(record)))
        return {label: _reduced(pairs, reducer) for label, pairs in found.items()}


def _value(record: LossRecord) -> float:
    return record.to_float()


def _reduced(pairs: list[tuple[int, float]], reducer: str) -> float:
    values = [value for _, value in pairs]
    if reducer == "mean":
        return sum(size * value for size, value in pairs) / sum(size for size, _ in pairs)
    return {"sum": sum(values), "first": values[0], "last": values[-1]}[reducer]


@result_kind("eval")
class EvalResults(PassResults):
    """Results of an evaluation.

    Args:
        label: Of the phase; the stores are made if they are not given, see :class:`PhaseResults`.
    """

    @property
    def batch_indices(self) -> list[int]:
        """Recorded batches."""
        return sorted({place.batch for place in self.context_store.places()})

    @property
    def n_batches(self) -> int:
        """Number of recorded batches."""
        return len(self.batch_indices)

    def source_views(  # type: ignore[override]
        self, node: Any, *, role: str = ROLE_DEFAULT, batch: int | None = None
    ) -> dict[str, FeatureSetView]:
        """See :meth:`PhaseResults.source_views`."""
        return self._views(node, role, None, batch)

    def source_view(self, node: Any, *, role: str = ROLE_DEFAULT, batch: int | None = None) -> FeatureSetView:  # type: ignore[override]
        """See :meth:`PhaseResults.source_view`."""
        return self._only_view(node, self._views(node, role, None, batch))

    def __repr__(self) -> str:
        return f"EvalResults(label={self.label!r}, batches={self.n_batches})"


@result_kind("fit")
class FitResults(PassResults):
    """Results of a fit.

    Args:
        label: Of the phase; the stores are made if they are not given, see :class:`PhaseResults`.
    """

    def source_views(self, node: Any, *, role: str = ROLE_DEFAULT) -> dict[str, FeatureSetView]:  # type: ignore[override]
        """See :meth:`PhaseResults.source_views`."""
        return self._views(node, role)

    def source_view(self, node: Any, *, role: str = ROLE_DEFAULT) -> FeatureSetView:  # type: ignore[override]
        """See :meth:`PhaseResults.source_view`."""
        return self._only_view(node, self._views(node, role))
