"""Columns on Arrow: arrays with samples along axis 0, stored so that they are read back exactly and without a Python loop.

A column of inner shape (a, b) is a fixed-size list of a fixed-size list over one contiguous buffer of values, so its shape stands in
its Arrow type.  Arrays without missing values are shared with NumPy in both directions, not copied.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from keydnn.experiment.errors import SampleLoadError


def to_arrow(values: Any, name: str = "column") -> pa.Array:
    """A column from values with samples along axis 0.

    Args:
        values: Array, list or anything NumPy understands; None becomes NaN among numbers and stays None among text.
        name: For messages.

    Raises:
        ValueError: No axis at all, or an inner axis of length 0.
        SampleLoadError: Values that no column can hold.
    """
    if type(values) is np.ndarray and values.ndim == 1 and values.dtype in _NUMERIC and values.flags.carray:
        return _shared(values)
    array = as_array(values, name)
    if array.ndim == 0:
        raise ValueError(f"{name}: a column needs one value per sample, got the single value {values!r}")
    if array.ndim > 1 and array.shape[-1] == 1:
        array = array[..., 0]
    if 0 in array.shape[1:]:
        raise ValueError(f"{name}: shape {array.shape} has an inner axis of length 0")
    flat = np.ascontiguousarray(array).reshape(-1)
    column = _text_or_objects(flat, name) if flat.dtype.kind in "OUST" else _numbers(flat, name)
    for length in reversed(array.shape[1:]):
        column = pa.FixedSizeListArray.from_arrays(column, int(length))
    return column


_NUMERIC = {np.dtype(kind): pa.from_numpy_dtype(kind) for kind in "bhilqBHILQefd"}  # native byte order, one value after the other


def _shared(flat: np.ndarray) -> pa.Array:
    """The column over the memory of an array; what ``pa.array`` gives too, in half the time."""
    return pa.Array.from_buffers(_NUMERIC[flat.dtype], len(flat), [None, pa.py_buffer(flat)], 0)


def _numbers(flat: np.ndarray, name: str) -> pa.Array:
    if not flat.dtype.isnative:
        flat = flat.astype(flat.dtype.newbyteorder("="))
    if flat.dtype in _NUMERIC and flat.flags.aligned:
        return _shared(flat)
    try:
        return pa.array(flat)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise SampleLoadError(f"{name}: values of dtype {flat.dtype} cannot be stored: {error}") from error


def _text_or_objects(flat: np.ndarray, name: str) -> pa.Array:
    items = flat.tolist()
    if flat.dtype.kind == "S":
        items = [item.decode() for item in items]
    try:
        return pa.array(items)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise SampleLoadError(f"{name}: these values cannot be stored in one column: {error}") from error


def as_array(values: Any, name: str) -> np.ndarray:
    """Values as an array; lists of arrays of one shape are stacked, missing numbers are NaN, other objects stay objects."""
    try:
        array = np.asarray(values)
    except ValueError:  # lists of unequal lengths
        array = _objects(values)
    if array.dtype != object:
        if array.dtype.kind in "US" and isinstance(values, list | tuple) and not _all_text(values):
            array = _objects(values)  # NumPy would have turned numbers beside text into text
        else:
            return array
    if array.ndim == 1 and len(array) and isinstance(array[0], np.ndarray | list | tuple):
        shapes = {np.shape(item) for item in array.tolist()} if _is_regular(array) else set()
        return np.stack([np.asarray(item) for item in array.tolist()]) if len(shapes) == 1 else array
    return _with_nan(array)


def _all_text(values: Sequence[Any]) -> bool:
    return all(isinstance(item, str | bytes | list | tuple | np.ndarray | np.str_) for item in values)


def _objects(values: Any) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = list(values)
    return array


def _is_regular(array: np.ndarray) -> bool:
    try:
        return len({np.asarray(item).shape for item in array.tolist()}) == 1
    except ValueError:  # an item is itself ragged
        return False


def _with_nan(array: np.ndarray) -> np.ndarray:
    """Objects that are numbers and None as floats with NaN; numbers alone as numbers; else unchanged."""
    items = array.reshape(-1).tolist()
    kinds = {type(item) for item in items}
    if kinds <= {bool}:
        return array.astype(bool) if items else array
    if kinds <= {bool, int, float, type(None)} and kinds != {type(None)} and not kinds <= {bool, type(None)}:
        return array.astype(np.float64) if kinds & {float, type(None)} else array.astype(np.int64)
    return array


def inner_shape(kind: pa.DataType) -> tuple[tuple[int, ...], pa.DataType]:
    """Inner shape and leaf type of a column type, as stored."""
    shape: list[int] = []
    if isinstance(kind, pa.FixedShapeTensorType):
        return tuple(kind.shape), kind.value_type
    while pa.types.is_fixed_size_list(kind):
        shape.append(kind.list_size)
        kind = kind.value_type
    return tuple(shape), kind


def without_trailing_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the axes of size 1 at its end."""
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


@functools.lru_cache(maxsize=1024)
def dtype_name(kind: pa.DataType) -> str:
    """``"float64"``, ``"int64"``, ``"string"``, ``"bool"``, ... of the values of a column type."""
    _, leaf = inner_shape(kind)
    if pa.types.is_dictionary(leaf):
        leaf = leaf.value_type
    if pa.types.is_list(leaf) or pa.types.is_large_list(leaf):
        return f"list<{dtype_name(leaf.value_type)}>"
    if is_text(leaf):
        return "string"
    return "null" if pa.types.is_null(leaf) else np.dtype(leaf.to_pandas_dtype()).name if not pa.types.is_temporal(leaf) else str(leaf)


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's text types."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_shared(kind: pa.DataType) -> bool:
    """Whether arrays of a leaf type without nulls are read without a copy."""
    return (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_temporal(kind)) and not pa.types.is_boolean(kind)


def to_numpy(array: pa.Array) -> np.ndarray:
    """A column, or a part of one, as (n, *inner shape as stored); shared where possible, then read-only.

    Raises:
        SampleLoadError: A sample is missing as a whole.
    """
    n = len(array)
    shape: tuple[int, ...] = ()
    if isinstance(array, pa.ExtensionArray):
        shape, array = inner_shape(array.type)[0], array.storage
        array = array.flatten()
    while pa.types.is_fixed_size_list(array.type):
        if array.null_count:
            raise SampleLoadError(f"{array.null_count} samples of a column of inner shape {inner_shape(array.type)[0]} are missing")
        shape = (*shape, array.type.list_size)
        array = array.flatten()
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return _ragged(array).reshape(n, *shape)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_boolean(array.type) and array.null_count:
        array = array.cast(pa.float64())
    return array.to_numpy(zero_copy_only=False).reshape(n, *shape)


def _ragged(array: pa.Array) -> np.ndarray:
    """Lists of unequal length: an array of lists."""
    out = np.empty(len(array), dtype=object)
    out[:] = array.to_pylist() if len(array) else []
    return out


def regular(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of variable lists that all have one length as a column of fixed lists; any other column as it is."""
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not len(column) or column.null_count:
        return column
    lengths = {int(length) for chunk in column.chunks for length in np.unique(np.diff(chunk.offsets.to_numpy()))}
    if len(lengths) != 1 or 0 in lengths:
        return column
    (length,) = lengths
    chunks = [pa.FixedSizeListArray.from_arrays(chunk.flatten(), length) for chunk in column.chunks]
    return pa.chunked_array(chunks)
