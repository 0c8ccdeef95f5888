"""Conditions on columns: which rows meet a scalar, a collection or a callable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.errors import ResolutionError
from keydnn.experiment.predicates import is_member
from keydnn.experiment.references import FeatureSetColumnReference


def column_name(root: Any, column: Any) -> str:
    """Full name of the column that a text or a reference means in a feature set.

    Raises:
        ResolutionError: No column, or more than one.
    """
    if isinstance(column, FeatureSetColumnReference):
        if column.column not in root.get_all_keys():
            raise ResolutionError(f"{root.label!r} has no column {column.column!r}; it has {', '.join(root.get_all_keys())}")
        return column.column
    return root.column_reference(column).column


def rows_that_meet(view: Any, root: Any, conditions: Mapping[Any, Any]) -> NDArray[np.bool_]:
    """For each row of a view whether it meets all conditions; padding meets none.

    Raises:
        ValueError: Unknown column, or a callable that does not answer once per sample.
        TypeError: A scalar or a collection for a column whose samples are not scalars.
    """
    met = np.ones(view.n_samples, dtype=bool) if view.sample_mask is None else view.sample_mask.astype(bool)
    for column, condition in conditions.items():
        try:
            name = column_name(root, column)
        except ResolutionError as error:
            raise ValueError(f"condition on an unknown column: {error}") from error
        met &= _meets(view.values(name), condition, name)
    return met


def _meets(values: NDArray[Any], condition: Any, name: str) -> NDArray[np.bool_]:
    if callable(condition):
        told = condition(values) if values.ndim == 1 else [bool(condition(sample)) for sample in values]
        answer = np.asarray(told)
        if answer.shape != (len(values),):
            raise ValueError(
                f"the condition on {name} answered with shape {answer.shape}, expected one answer for each of {len(values)} samples"
            )
        return answer.astype(bool)
    if values.ndim > 1:
        raise TypeError(f"{name} has samples of shape {values.shape[1:]}: a scalar or a list cannot be compared with them, use a function")
    many = isinstance(condition, list | tuple | set | frozenset | np.ndarray)
    return is_member(values, condition if many else [condition])
