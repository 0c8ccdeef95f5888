"""What a sampler drew, and how it is kept in its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import BatchView, FeatureSet

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Samples:
    """What a sampler drew for one stream.

    Attributes:
        role_indices: Role to absolute row numbers, all of one length.
        role_weights: Role to weights; None means 1.
    """

    role_indices: dict[str, Rows]
    role_weights: dict[str, NDArray[np.float64]] | None = None


def feature_set_of(told: Mapping[str, Any]) -> FeatureSet:
    """The feature set in the active context that a state names, by id, then by label.

    Raises:
        RuntimeError: It is not there.
    """
    ctx = ExperimentContext.get_active()
    for selector in ({"node_id": told["node_id"]}, {"label": told["label"]}):
        if ctx.has_node(**selector):
            return ctx.get_node(**selector, enforce_type="FeatureSet")
    raise RuntimeError(f"the feature set {told['label']!r} of this sampler is not in the active context")


def packed(batches: list[BatchView], fs: FeatureSet, samples: Samples) -> dict[str, Any]:
    """Batches as one array per role and their lengths, and what they were made of."""
    roles = list(samples.role_indices)
    rows = {role: _joined([batch.role_indices[role] for batch in batches]) for role in roles}
    weighted = samples.role_weights is not None
    weights = {role: _joined([(batch.role_indice_weights or {})[role] for batch in batches]) for role in roles} if weighted else None
    return {
        "source": {"node_id": fs.node_id, "label": fs.label},
        "lengths": np.array([len(batch) for batch in batches], dtype=np.int64),
        "rows": rows,
        "weights": weights,
        "drawn": samples.role_indices,
        "drawn_weights": samples.role_weights,
    }


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def unpacked(fs: FeatureSet, told: Mapping[str, Any]) -> list[BatchView]:
    """The batches that :func:`packed` put away."""
    ends = np.cumsum(told["lengths"])[:-1]
    rows = {role: np.split(np.asarray(all_rows), ends) for role, all_rows in told["rows"].items()}
    weights = None if told["weights"] is None else {role: np.split(np.asarray(w), ends) for role, w in told["weights"].items()}
    batches = []
    for i in range(len(told["lengths"])):
        mine = None if weights is None else {role: parts[i] for role, parts in weights.items()}
        batches.append(BatchView(fs, {role: parts[i] for role, parts in rows.items()}, mine))
    return batches
