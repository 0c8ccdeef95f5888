"""FeatureSet: samples with named splits and reversible scalers.

Rows identify samples inside a set; ids (uuids) identify them across sets, copies and files.  The table is shared and never written
to: splits are row numbers, scalers add columns.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from keydnn.experiment.data import feature_set_file
from keydnn.experiment.data.absent_collection import AbsentCollection
from keydnn.experiment.data.access import Rows
from keydnn.experiment.data.audit import AuditReport, audit
from keydnn.experiment.data.collection import SampleCollection
from keydnn.experiment.data.diagram import feature_set_diagram
from keydnn.experiment.data.feature_set_scalers import FeatureSetScalers
from keydnn.experiment.data.feature_set_sources import FeatureSetSources
from keydnn.experiment.data.fingerprint import fingerprint
from keydnn.experiment.data.scaling import ScalerHistory
from keydnn.experiment.data.selectors import Names
from keydnn.experiment.data.splitting import SplitRegistry, Splittable
from keydnn.experiment.data.view import FeatureSetView
from keydnn.experiment.names import COLUMN_DOMAINS, DOMAIN_SAMPLE_UUIDS, REP_RAW
from keydnn.experiment.node import ExperimentNode
from keydnn.experiment.predicates import plain
from keydnn.experiment.references import FeatureSetReference, parse_column
from keydnn.experiment.registration import in_notebook
from keydnn.experiment.scalers import ScalerRecord
from keydnn.experiment.splitters import SplitterRecord
from keydnn.experiment.strata import codes_of
from keydnn.experiment.visualization.visualizer import Visualizer


class FeatureSet(ExperimentNode, FeatureSetSources, FeatureSetScalers, Splittable):
    """A table of samples: features, targets and tags, with splits and scalers.

    Args:
        label: Name; registered in the active context.
        collection: The samples.
        **kwargs: ``node_id`` (when loading), ``register`` (True), ``uuid_key`` (128-bit key of the samples' ids).

    Raises:
        TypeError: ``collection`` is no SampleCollection.
        ValueError: The label is taken.

    Example:
        >>> from keydnn.experiment.data import FeatureSet
        >>> fs = FeatureSet.from_dict("cells", {"u": np.arange(10.0), "age": np.arange(10)}, "u", "age")
        >>> fs.split_random({"train": 0.7, "test": 0.3})
        >>> fs.fit_transform("PerSampleZeroStart", domain="features", fit_to_split="train")
        >>> fs["test"].get_features("np", rep="raw").shape
        (3, 1)
    """

    kind: ClassVar[str] = "fs"

    def __init__(self, label: str, collection: SampleCollection, **kwargs: Any) -> None:
        if not isinstance(collection, SampleCollection):
            raise TypeError(f"FeatureSet needs a SampleCollection, got {type(collection).__name__}; see FeatureSet.from_dict and others")
        key = kwargs.pop("uuid_key", None)
        self._samples = collection if key is None else collection.with_uuid_key(key)
        self._registry = SplitRegistry(collection.n_samples)
        self._splitter_records: list[SplitterRecord] = []
        self._scalers = ScalerHistory()
        self._classes: dict[str, list[Any]] = {}
        super().__init__(label, **kwargs)

    # --- what SampleAccess and SampleSubsets ask for ---------------------------------------------------------------

    @property
    def collection(self) -> SampleCollection:
        """The samples."""
        return self._samples

    @property
    def _collection(self) -> SampleCollection:
        return self._samples

    @property
    def _rows(self) -> Rows | None:
        return None

    @property
    def _names(self) -> Sequence[str]:
        return self._samples._names

    @property
    def _root(self) -> FeatureSet:
        return self

    def _view(self, rows: Rows, columns: Sequence[str] | None, label: str | None) -> FeatureSetView:
        return FeatureSetView(self, rows, self._names if columns is None else columns, label)

    @property
    def uuid_key(self) -> int:
        """The 128-bit key from which ids are computed."""
        return self._samples.uuid_key

    @property
    def fingerprint(self) -> str:
        """Hash of schema and raw values in row order; labels and ids do not count."""
        return self._samples.told_fingerprint if isinstance(self._samples, AbsentCollection) else fingerprint(self._samples)

    # --- splits ----------------------------------------------------------------------------------------------------

    @property
    def available_splits(self) -> list[str]:
        """Names of the splits, in the order of registration."""
        return self._registry.names

    @property
    def splits(self) -> dict[str, FeatureSetView]:
        """All splits by name."""
        return {name: self.get_split(name) for name in self._registry.names}

    @property
    def n_splits(self) -> int:
        """Number of splits."""
        return len(self._registry.names)

    def get_split(self, split_name: str) -> FeatureSetView:
        """A split with all columns there are now.

        Raises:
            KeyError: No such split.
        """
        return FeatureSetView(self, self._registry.rows(split_name), self._names, split_name)

    def __getitem__(self, split_name: str) -> FeatureSetView:
        return self.get_split(split_name)

    def add_split(self, split: FeatureSetView) -> None:
        """Register a view of this set under its label.

        Raises:
            ValueError: Not a view of this set, or a label that is taken or forbidden.

        Warns:
            SplitOverlapWarning: It shares samples with registered splits.
        """
        if not isinstance(split, FeatureSetView) or split.source is not self:
            raise ValueError(f"add_split needs a view of {self.label!r}, got {split!r}")
        self._registry.add({split.label: split.indices})

    def clear_splits(self) -> None:
        """Forget all splits and how they were made."""
        self._registry.clear()
        self._splitter_records.clear()

    @property
    def splitter_records(self) -> list[SplitterRecord]:
        """How the splits were made, in order; a copy."""
        return list(self._splitter_records)

    @property
    def split_registry(self) -> SplitRegistry:
        """The splits with the splits they were cut from."""
        return self._registry

    def register_parts(self, splitter: Any, cut: Splittable, parts: Mapping[str, Rows]) -> None:
        """Keep the parts into which this set, or a view of it, was cut, and a record of it.

        Raises:
            ValueError: A name is taken or forbidden; nothing is registered.
        """
        parent = None if cut is self else self._registry.name_of(cut.absolute_rows(), cut.label)
        self._registry.add(parts, parent)
        applied_to = None if cut is self else cut.label
        self._splitter_records.append(SplitterRecord(len(self._splitter_records), splitter, applied_to, tuple(parts)))

    def to_view(self) -> FeatureSetView:
        """All rows and columns as a view."""
        return FeatureSetView(self, self.absolute_rows(), self._names, self.label)

    # --- labels ----------------------------------------------------------------------------------------------------

    @property
    def label_classes(self) -> dict[str, list[Any]]:
        """Key of an encoded column to its classes: code i means class i; a copy."""
        return {key: list(classes) for key, classes in self._classes.items()}

    def encode_labels(self, key: str) -> str:
        """Add an integer column ``<key>_code`` in the same domain; codes number the sorted classes.

        Returns:
            The new key.

        Raises:
            ResolutionError: Unknown key.
            ValueError: The samples are not scalars, or the new key exists.
        """
        column = parse_column(key, [self], {"node_id": self.node_id, "rep": REP_RAW})
        values = self._samples.array(column.column)
        name = f"{column.key}_code"
        if any(name in self._samples.schema.domain_keys(domain) for domain in COLUMN_DOMAINS):
            raise ValueError(f"column {name!r} exists already")
        codes = codes_of([values])
        first = np.unique(codes, return_index=True)[1]
        found = [plain(value) for value in values[first].tolist()]
        order = sorted(range(len(found)), key=lambda i: (found[i] is None, found[i]))
        rank = np.empty(len(found), dtype=np.int64)
        rank[order] = np.arange(len(found))
        self._samples.add_raw(column.domain, name, rank[codes])
        self._classes[name] = [found[i] for i in order]
        return name

    # --- copies, state, files --------------------------------------------------------------------------------------

    def copy(
        self,
        *,
        label: str | None = None,
        share_raw_data_buffer: bool = True,
        restore_splits: bool = False,
        restore_scalers: bool = False,
        register: bool = False,
    ) -> FeatureSet:
        """A new set with the raw columns and the same ids.

        Args:
            label: None takes ``"<label>_copy"``.
            share_raw_data_buffer: Whether the columns are shared or copied.
            restore_splits: Whether the copy gets identical splits.
            restore_scalers: Whether it gets the fitted scalers and the transformed columns.
            register: Whether the active context learns about it.

        Raises:
            ValueError: ``restore_splits`` or ``restore_scalers`` without ``register``, or scalers fitted to splits that are not restored.
        """
        if (restore_splits or restore_scalers) and not register:
            raise ValueError("restore_splits and restore_scalers need register=True")
        fitted = [record.fit_split for record in self._scalers.records if record.fit_split is not None]
        if restore_scalers and fitted and not restore_splits:
            raise ValueError(f"scalers were fitted to the splits {', '.join(sorted(set(fitted)))}: pass restore_splits=True as well")
        samples = self._samples.copy(raw_only=not restore_scalers, deep=not share_raw_data_buffer)
        made = FeatureSet(f"{self.label}_copy" if label is None else label, samples, register=register)
        if restore_splits:
            made._registry.set_state(self._registry.get_state())
            made._splitter_records = list(self._splitter_records)
        if restore_scalers:
            made._scalers = ScalerHistory(_copied(self._scalers.records))
        made._classes = self.label_classes
        return made

    def get_state(self) -> dict[str, Any]:
        """What can change; tables, row numbers and records are shared, so this is cheap."""
        return {
            "super": super().get_state(),
            "sample_collection": self._samples.copy(),
            "splits": self._registry.get_state(),
            "splitter_records": list(self._splitter_records),
            "scaler_records": list(self._scalers.records),
            "label_classes": self.label_classes,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        super().set_state(state["super"])
        self._samples.adopt(state["sample_collection"])
        self._registry = SplitRegistry(self._samples.n_samples)
        self._registry.set_state(state["splits"])
        self._splitter_records = list(state["splitter_records"])
        self._scalers = ScalerHistory(state["scaler_records"])
        for order, record in enumerate(self._scalers.records):
            record.order = order
        self._classes = {key: list(classes) for key, classes in state["label_classes"].items()}

    def with_new_id(self) -> FeatureSet:
        """This very content under another id, not registered."""
        made = FeatureSet(self.label, self._samples, register=False)
        made.set_state(self.get_state())
        return made

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, register: bool = True) -> Self:
        """An empty set with the label and id of a config."""
        return cls(config["label"], SampleCollection(pa.table({})), node_id=config.get("node_id"), register=register)

    def save(self, filepath: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write data, splits, scalers and records to ``<name>.fs.mml``; see :mod:`keydnn.experiment.io`.

        Raises:
            FileExistsError: The file exists and ``overwrite`` is False.
            PackagedCodeError: A splitter or scaler that cannot be written.
        """
        return feature_set_file.save(self, filepath, overwrite=overwrite)

    @classmethod
    def load(cls, filepath: str | os.PathLike[str], *, allow_packaged_code: bool = False, overwrite: bool = False) -> FeatureSet:
        """Read a set and register it.

        Args:
            filepath: The file, with or without its suffix.
            allow_packaged_code: Whether code in the file may be run.
            overwrite: Whether a registered set with the same id is replaced; else an identical one is returned, and beside another
                one the loaded set gets a new id.

        Raises:
            FileNotFoundError: No such file.
            ArtifactError: No artifact, or a damaged or hostile one.
            PackagedCodeError: It brings code, and that is not permitted.

        Warns:
            UserWarning: Stored transformed values differ from what the stored scalers give.
        """
        return feature_set_file.load(cls, filepath, allow_packaged_code=allow_packaged_code, overwrite=overwrite)

    # --- looking ---------------------------------------------------------------------------------------------------

    def reference(  # type: ignore[override]
        self, columns: Names = None, *, features: Names = None, targets: Names = None, tags: Names = None, rep: str | None = None
    ) -> FeatureSetReference:
        """A reference to columns; see :meth:`SampleAccess.reference`."""
        return Splittable.reference(self, columns, features=features, targets=targets, tags=tags, rep=rep)

    def audit(self, *, splits: Sequence[str] | None = None) -> AuditReport:
        """Look for leaks and useless columns; see :class:`~keydnn.experiment.data.audit.AuditReport`.

        Raises:
            KeyError: No such split.
        """
        return audit(self, self._registry.names if splits is None else list(splits))

    def diagram(self, options: Any = None) -> Any:
        """The set and its splits as a diagram; see :class:`~keydnn.experiment.visualization.Visualizer`."""
        return feature_set_diagram(self, options)

    def visualize(self, display_options: Any = None) -> None:
        """Show the set and its splits: drawn in a notebook, as Mermaid text elsewhere."""
        Visualizer(self, display_options).show(in_notebook())

    def _summary_rows(self) -> list[tuple[str, Any]]:
        columns = [(name, self._samples.shape(name)) for name in self._names if name != DOMAIN_SAMPLE_UUIDS]
        splits = [(name, len(self._registry.rows(name))) for name in self.available_splits]
        scalers = [(record.order, f"{record.scaler_obj.scaler_name} on {', '.join(record.keys)}") for record in self._scalers.records]
        return [*super()._summary_rows(), ("n_samples", self.n_samples), ("columns", columns), ("splits", splits), ("scalers", scalers)]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FeatureSet):
            raise TypeError(f"a FeatureSet cannot be compared with a {type(other).__name__}")
        same = (self.node_id, self.label, self.available_splits) == (other.node_id, other.label, other.available_splits)
        same = same and all(np.array_equal(self._registry.rows(n), other._registry.rows(n)) for n in self.available_splits)
        same = same and self._splitter_records == other._splitter_records and self._scalers.records == other._scalers.records
        return bool(same and self._classes == other._classes and self._samples == other._samples)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"FeatureSet(label='{self.label}', n_samples={self.n_samples})"


def _copied(records: Sequence[ScalerRecord]) -> list[ScalerRecord]:
    return [ScalerRecord(**{**record.get_config(), "scaler_obj": record.scaler_obj.copy()}) for record in records]
