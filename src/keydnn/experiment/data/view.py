"""FeatureSetView: some rows and columns of a feature set, without a copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data.access import Rows
from keydnn.experiment.data.collection import SampleCollection
from keydnn.experiment.data.splitting import Splittable, frozen_rows
from keydnn.experiment.data.subsets import check_positions, real
from keydnn.experiment.names import DOMAIN_SAMPLE_UUIDS
from keydnn.experiment.visualization.summary import summary_box

_FROZEN = ("source", "indices", "columns")


class FeatureSetView(Splittable):
    """Rows and columns of a feature set.

    Args:
        source: The feature set.
        indices: Row numbers, -1 for padding; kept as a read-only int64 array.
        columns: Full names.
        label: Name; None takes ``"<label of source>_view"``.

    Attributes:
        label: Name; it can be changed, the rest cannot.

    Raises:
        TypeError: ``source`` is no FeatureSet.
        IndexError: A row beyond the end.
        KeyError: A column that is not there.
    """

    def __init__(self, source: Any, indices: Any, columns: Sequence[str], label: str | None = None) -> None:
        if not isinstance(source, Splittable) or source._root is not source:
            raise TypeError(f"a view needs a FeatureSet, got {type(source).__name__}")
        rows = frozen_rows(indices)
        check_rows(rows, source.n_samples)
        names = source._names
        if columns is not names:  # a list of the set itself needs no check
            known = set(names)
            missing = [name for name in columns if name not in known]
            if missing:
                raise KeyError(f"no column {', '.join(missing)}; there are {', '.join(names)}")
        fields = {"source": source, "indices": rows, "columns": list(columns)}
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        self.label = f"{source.label}_view" if label is None else label

    source: Any
    indices: Rows
    columns: list[str]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FROZEN:
            raise AttributeError(f"{name} of a view is frozen; make another view instead")
        object.__setattr__(self, name, value)

    @classmethod
    def from_featureset(
        cls, fs: Any, *, rows: Any = None, columns: Sequence[str] | None = None, label: str | None = None
    ) -> FeatureSetView:
        """A view of a feature set; None means all rows, all columns."""
        return cls(fs, fs.absolute_rows() if rows is None else rows, fs.get_all_keys() if columns is None else columns, label)

    @property
    def _collection(self) -> SampleCollection:
        return self.source._collection

    @property
    def _rows(self) -> Rows | None:
        return self.indices

    @property
    def _names(self) -> Sequence[str]:
        return self.columns if DOMAIN_SAMPLE_UUIDS in self.columns else [*self.columns, DOMAIN_SAMPLE_UUIDS]

    @property
    def _root(self) -> Any:
        return self.source

    def _view(self, rows: Rows, columns: Sequence[str] | None, label: str | None) -> FeatureSetView:
        return FeatureSetView(self.source, rows, self.columns if columns is None else columns, label or f"{self.label}_view")

    @property
    def valid_indices(self) -> Rows:
        """Row numbers without padding."""
        return real(self.indices)

    def expand_columns(self, label: str | None = None) -> FeatureSetView:
        """The same rows with all columns of the feature set."""
        return FeatureSetView(self.source, self.indices, self.source.get_all_keys(), label or f"{self.label}_expanded")

    def get_overlap_with(self, other: Any) -> list[str]:
        """Ids of the samples that are in both: by row within one feature set, else by id; padding is ignored.

        Raises:
            TypeError: ``other`` is neither a FeatureSet nor a view.
        """
        if not isinstance(other, Splittable):
            raise TypeError(f"a FeatureSet or a view is expected, got {type(other).__name__}")
        mine = self.valid_indices
        if other._root is self.source:
            rows = mine[np.isin(mine, real(other.absolute_rows()))]
            return self._collection.uuids(rows).tolist()
        theirs = set(other._collection.uuids(real(other.absolute_rows())).tolist())
        return [uuid for uuid in self._collection.uuids(mine).tolist() if uuid in theirs]

    def is_disjoint_with(self, other: Any) -> bool:
        """Whether no sample is in both; see :meth:`get_overlap_with`."""
        return not self.get_overlap_with(other)

    def summary(self, max_width: int = 88) -> str:
        """A box of text with source, size and columns."""
        columns = [(name, self._collection.shape(name)) for name in self.columns]
        rows: list[tuple[str, Any]] = [("label", self.label), ("source", self.source.label), ("n_samples", self.n_samples)]
        return summary_box(type(self).__name__, [*rows, ("columns", columns)], max_width)

    def get_config(self) -> dict[str, Any]:
        """``source`` (label and id), ``indices``, ``columns`` and ``label``."""
        source = {"label": self.source.label, "node_id": self.source.node_id}
        return {"source": source, "indices": self.indices.tolist(), "columns": list(self.columns), "label": self.label}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> FeatureSetView:
        """The view a config describes, of the feature set in the active context.

        Raises:
            RuntimeError: The feature set is not there.
        """
        ctx, told = ExperimentContext.get_active(), config["source"]
        for selector in ({"node_id": told.get("node_id")}, {"label": told.get("label")}):
            if None not in selector.values() and ctx.has_node(**selector):
                source = ctx.get_node(**selector, enforce_type="FeatureSet")
                return cls(source, np.array(config["indices"], dtype=np.int64), config["columns"], config["label"])
        raise RuntimeError(f"the feature set {told.get('label')!r} of this view is not in the active context")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FeatureSetView):
            raise TypeError(f"a FeatureSetView cannot be compared with a {type(other).__name__}")
        same = self.source is other.source or self.source.node_id == other.source.node_id
        return bool(same and self.columns == other.columns and np.array_equal(self.indices, other.indices))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"FeatureSetView(source='{self.source.label}', n_samples={self.n_samples}, label='{self.label}')"


def check_rows(rows: Rows, n: int) -> None:
    """Refuse row numbers outside ``[-1, n)``; -1 is padding.

    Raises:
        IndexError: There is one.
    """
    check_positions(rows if not len(rows) or rows.min() >= 0 else np.where(rows == -1, 0, rows), n)
