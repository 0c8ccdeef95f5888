"""What was done to which columns by a scaler, kept so that it can be replayed, undone and inverted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.scalers.scaler import Scaler

Array = NDArray[Any]


@dataclass(eq=False)
class ScalerRecord:
    """One ``fit_transform`` of a feature set.

    Attributes:
        order: Position among the records, from 0.
        domain: Domain of the columns.
        keys: Keys in the order in which they were stacked.
        rep_in: Key to the representation that was read.
        rep_out: The representation that was written.
        fit_split: Split whose rows were fitted; None for all rows.
        merged_axes: What the caller asked for; None if the axes were plain.
        flatten_meta: ``shape`` (of the stacked columns), ``rows`` and ``columns`` (axes of the 2-D array's two sides).
        scaler_obj: A fitted copy.
    """

    order: int
    domain: str
    keys: tuple[str, ...]
    rep_in: dict[str, str]
    rep_out: str
    fit_split: str | None
    merged_axes: tuple[int, ...] | None
    flatten_meta: dict[str, Any]
    scaler_obj: Scaler

    def get_config(self) -> dict[str, Any]:
        """Everything but the scaler."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "scaler_obj"}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScalerRecord):
            return NotImplemented
        return self.get_config() == other.get_config() and self.scaler_obj == other.scaler_obj

    __hash__ = None  # type: ignore[assignment]


def flatten_plan(shape: Sequence[int], merged_axes: Sequence[int] | None) -> dict[str, Any]:
    """How stacked columns (N, K, *inner) become a 2-D array.

    Without ``merged_axes``: (N, K) stays, (N, 1, L) becomes (N, L).  With it the named axes form one side, the others the other side;
    the side that holds axis 0 is the rows.

    Raises:
        ValueError: A higher rank without ``merged_axes``, or axes that are not there.
    """
    shape = tuple(int(n) for n in shape)
    rank = len(shape)
    if merged_axes is None:
        if rank > 3 or (rank == 3 and shape[1] != 1):
            raise ValueError(
                f"stacked columns have shape {shape} (samples, columns, ...), a scaler needs two axes:"
                " name the axes that form one side with merged_axes, such as (0, 1) or (1, 2)"
            )
        return {"shape": shape, "rows": (0,), "columns": tuple(range(1, rank))}
    axes = tuple(merged_axes)
    if not axes or len(set(axes)) != len(axes) or any(not 0 <= axis < rank for axis in axes):
        raise ValueError(f"merged_axes {axes} must be distinct axes of the stacked shape {shape}")
    rest = tuple(axis for axis in range(rank) if axis not in axes)
    rows, columns = (axes, rest) if 0 in axes else (rest, axes)
    return {"shape": shape, "rows": rows, "columns": columns}


def flatten(stacked: Array, plan: dict[str, Any]) -> Array:
    """The 2-D array of stacked columns.

    Raises:
        ValueError: Another inner shape than the plan was made for.
    """
    if tuple(stacked.shape[1:]) != tuple(plan["shape"][1:]):
        raise ValueError(f"columns of stacked shape {stacked.shape} do not fit a scaler made for {tuple(plan['shape'])}")
    moved = stacked.transpose((*plan["rows"], *plan["columns"]))
    n_rows = int(np.prod(moved.shape[: len(plan["rows"])], dtype=np.int64))
    n_columns = int(np.prod(moved.shape[len(plan["rows"]) :], dtype=np.int64))
    return np.ascontiguousarray(moved.reshape(n_rows, n_columns))


def unflatten(flat: Array, plan: dict[str, Any], n_samples: int) -> Array:
    """Stacked columns again.

    Raises:
        ValueError: The scaler changed the number of rows or columns.
    """
    shape = (n_samples, *plan["shape"][1:])
    order = (*plan["rows"], *plan["columns"])
    moved = tuple(shape[axis] for axis in order)
    if flat.size != int(np.prod(moved, dtype=np.int64)):
        raise ValueError(f"the scaler returned shape {flat.shape} for stacked columns of shape {shape}; it must keep the shape")
    return flat.reshape(moved).transpose(np.argsort(order))
