"""Buckets of rows with equal values in some columns, in order of first appearance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def codes_of(columns: list[NDArray[Any]]) -> NDArray[np.int64]:
    """For each row the number of its bucket; buckets are numbered in order of first appearance.

    Raises:
        ValueError: A column whose samples are not scalars.
    """
    code: NDArray[np.int64] | None = None
    for column in columns:
        if column.ndim != 1:
            raise ValueError(f"rows are grouped by columns of one value per sample, got samples of shape {column.shape[1:]}")
        inner = _ranks(column)
        code = inner if code is None else _ranks(code * (int(inner.max(initial=0)) + 1) + inner)
    if code is None:
        raise ValueError("rows are grouped by at least one column")
    return code


def _ranks(column: NDArray[Any]) -> NDArray[np.int64]:
    """Numbers of the distinct values in order of first appearance; NaN is one value."""
    if column.dtype == object:
        seen: dict[Any, int] = {}
        return np.fromiter((seen.setdefault(value, len(seen)) for value in column.tolist()), dtype=np.int64, count=len(column))
    _, first, inverse = np.unique(column, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return rank[inverse]


def buckets_of(codes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Positions of each bucket, ascending."""
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.cumsum(np.bincount(codes))[:-1]) if len(codes) else []
