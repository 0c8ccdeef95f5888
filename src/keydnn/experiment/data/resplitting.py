"""A feature set with other rows in some of its splits: what was cut from these is cut again, scalers are fitted again.

Raw columns are shared, so this costs what the scalers cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keydnn.experiment.data.access import Rows
from keydnn.experiment.data.feature_set import FeatureSet
from keydnn.experiment.data.splitting import frozen_rows
from keydnn.experiment.data.view import FeatureSetView


def resplit(fs: FeatureSet, rows: Mapping[str, Any]) -> FeatureSet:
    """A set with the id, label and ids of samples of another one, and other rows in some splits; nobody registers it.

    Args:
        fs: The set; it stays as it is.
        rows: Name of a split to its rows; splits that are not named keep theirs, unless they were cut from named ones.

    Raises:
        ValueError: A split that was cut from a named one would get no samples now.

    Example:
        >>> import numpy as np
        >>> from keydnn.experiment.data import FeatureSet
        >>> from keydnn.experiment.data.resplitting import resplit
        >>> fs = FeatureSet.from_dict("resplit", {"x": np.arange(8.0)}, "x", [])
        >>> fs.split_random({"train": 0.5, "test": 0.5}, seed=0)
        >>> fs["train"].split_random({"fit": 0.5, "tune": 0.5}, seed=0)
        >>> other = resplit(fs, {"train": [0, 1]})
        >>> [other[name].indices.tolist() for name in ("train", "fit", "tune")], other["test"] == fs["test"]
        ([[0, 1], [0], [1]], True)
    """
    made = FeatureSet(fs.label, fs.collection.copy(raw_only=True), node_id=fs.node_id, register=False)
    splits = fs.split_registry.get_state()
    splits["rows"] = _cut_again(fs, {**splits["rows"], **{name: frozen_rows(chosen) for name, chosen in rows.items()}}, set(rows))
    made.set_state(
        {
            **made.get_state(),
            "splits": splits,
            "splitter_records": fs.splitter_records,
            "label_classes": fs.label_classes,
        }
    )
    for record in fs.scaler_records:
        made.fit_transform(
            record.scaler_obj,
            domain=record.domain,
            keys=record.keys,
            fit_to_split=record.fit_split,
            merged_axes=record.merged_axes,
        )
    return made


def _cut_again(fs: FeatureSet, rows: dict[str, Rows], given: set[str]) -> dict[str, Rows]:
    """Rows of all splits, those included that the recorded splitters cut from the given ones, in the order in which they cut."""
    changed = set(given)
    for record in fs.splitter_records:
        if record.applied_to not in changed:
            continue
        parent = FeatureSetView(fs, rows[record.applied_to], fs.get_all_keys(), record.applied_to)
        parts = parent.split(record.splitter, return_views=True, register=False) or {}
        new = {name: part.absolute_rows() for name, part in parts.items() if name in record.produced_splits and name not in given}
        rows = {**rows, **new}
        changed.update(new)
    return rows
