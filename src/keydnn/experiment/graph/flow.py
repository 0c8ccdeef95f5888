"""Data on their way through a graph: SampleData, RoleData and Batch handled alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import to_backend
from keydnn.experiment.data import Batch, BatchView, RoleData, SampleData
from keydnn.experiment.names import DOMAIN_FEATURES, ROLE_DEFAULT

Flow = SampleData | RoleData | Batch


def checked(data: Any, what: str) -> Flow:
    """``data`` if it can flow; a BatchView is materialised.

    Raises:
        TypeError: Something else.
    """
    if isinstance(data, BatchView):
        return data.materialize_batch()
    if not isinstance(data, SampleData | RoleData | Batch):
        raise TypeError(f"{what} must be SampleData, RoleData or a Batch, got {type(data).__name__}")
    return data


def by_role(data: Flow) -> dict[str, SampleData]:
    """The samples by role; those without a role under the default one."""
    if isinstance(data, SampleData):
        return {ROLE_DEFAULT: data}
    return dict(data.role_data if isinstance(data, Batch) else data)


def rebuilt(like: Flow, samples: Mapping[str, SampleData]) -> Flow:
    """Samples by role as the type of ``like``, with its weights and masks."""
    if isinstance(like, SampleData):
        return samples[ROLE_DEFAULT]
    roles = RoleData(samples)
    if isinstance(like, RoleData):
        return roles
    return Batch.trusted(like.batch_size, roles, dict(like.role_weights), dict(like.role_masks))


def mapped(data: Flow, change: Callable[[SampleData], SampleData]) -> Flow:
    """The same type with every role's samples changed."""
    return rebuilt(data, {role: change(samples) for role, samples in by_role(data).items()})


def cut(output: Any, face: Any) -> Any:
    """An output without history."""
    return mapped(output, lambda samples: samples.with_domains({DOMAIN_FEATURES: face.cut(samples.features)}))


def joined(batch: Flow) -> tuple[np.ndarray, np.ndarray | None]:
    """Features and targets of all roles as arrays, one under the other; no targets if a role has none."""
    samples = list(by_role(batch).values())
    features = np.concatenate([to_backend(one.features, Backend.NUMPY) for one in samples])
    if any(one.targets is None for one in samples):
        return features, None
    return features, np.concatenate([to_backend(one.targets, Backend.NUMPY) for one in samples])


def as_batch(data: Flow) -> Batch:
    """Anything that flows as a Batch, with weights and masks of one where there are none."""
    if isinstance(data, Batch):
        return data
    samples = by_role(data)
    size = next(iter(samples.values())).n_samples
    return Batch(size, RoleData(samples), None, {r: np.ones(size) for r in samples}, {r: np.ones(size, np.int8) for r in samples})


def one_type(values: Sequence[Flow], label: str) -> None:
    """Refuse inputs of a merge that differ in type or roles.

    Raises:
        TypeError: Different types.
        ValueError: Different roles.
    """
    kinds = {type(value).__name__ for value in values}
    if len(kinds) != 1:
        raise TypeError(f"node {label!r} merges data of one type, got {', '.join(sorted(kinds))}")
    roles = [list(by_role(value)) for value in values]
    if any(set(other) != set(roles[0]) for other in roles[1:]):
        raise ValueError(f"node {label!r} merges data with the same roles, got {roles}")
