"""DataFormat: the containers that data can be asked for in, and turning a dict of arrays into each.

Tensor-like formats join all columns by stacking on axis 1: two columns () give (N, 2), one column (10,) gives (N, 1, 10).
Tensors of frameworks are float32; NumPy keeps the dtype of the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.choices import Choice
from keydnn.experiment.optional import need

Arrays = Mapping[str, np.ndarray]


class DataFormat(Choice):
    """Containers for data; every ``fmt`` argument takes a member or one of its strings, in any case."""

    DICT_NUMPY = "dict_numpy"
    DICT = "dict"
    DICT_LIST = "dict_list"
    DICT_TORCH = "dict_torch"
    DICT_TENSORFLOW = "dict_tensorflow"
    DICT_KEYDNN = "dict_keydnn"
    NUMPY = "numpy"
    TORCH = "torch"
    TENSORFLOW = "tensorflow"
    KEYDNN = "keydnn"
    PANDAS = "pandas"
    LIST = "list"

    @classmethod
    def synonyms(cls) -> Mapping[str, str]:
        """Other spellings of values, in lower case."""
        return _SPELLINGS

    @property
    def is_tensor_like(self) -> bool:
        """Whether all columns become one tensor."""
        return self in _TENSOR_BACKENDS


_SPELLINGS = {
    "np": "numpy",
    "torch.tensor": "torch",
    "tf": "tensorflow",
    "tensorflow.tensor": "tensorflow",
    "kd": "keydnn",
    "keydnn.tensor": "keydnn",
    "pd": "pandas",
    "df": "pandas",
}
_TENSOR_BACKENDS = {
    DataFormat.NUMPY: Backend.NUMPY,
    DataFormat.TORCH: Backend.TORCH,
    DataFormat.TENSORFLOW: Backend.TENSORFLOW,
    DataFormat.KEYDNN: Backend.KEYDNN,
}
_DICT_BACKENDS = {
    DataFormat.DICT_TORCH: Backend.TORCH,
    DataFormat.DICT_TENSORFLOW: Backend.TENSORFLOW,
    DataFormat.DICT_KEYDNN: Backend.KEYDNN,
}


def backend_of_format(fmt: DataFormat) -> Backend:
    """The backend whose tensors a tensor-like format gives.

    Raises:
        ValueError: Not tensor-like.
    """
    if fmt not in _TENSOR_BACKENDS:
        raise ValueError(f"format {fmt.value!r} is not tensor-like; expected one of {', '.join(f.value for f in _TENSOR_BACKENDS)}")
    return _TENSOR_BACKENDS[fmt]


def format_of_backend(backend: Backend) -> DataFormat:
    """The tensor-like format of a backend: NumPy for scikit, numpy and none."""
    return {b: f for f, b in _TENSOR_BACKENDS.items()}.get(backend, DataFormat.NUMPY)


def float32_tensor(array: np.ndarray, backend: Backend) -> Any:
    """An array as a float32 tensor of a framework; for NumPy the array itself.

    Raises:
        TypeError: Text.
    """
    return array if backend is Backend.NUMPY else adapter(backend).to_tensor(float32_array(array, backend))


def float32_array(array: np.ndarray, backend: Backend) -> np.ndarray:
    """An array as float32, the dtype of all columns in tensors of a framework.

    Raises:
        TypeError: Text.
    """
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"columns of dtype {array.dtype} cannot become a {backend.value} tensor: encode text as integers, with encode_labels(key)"
        )
    return array.astype(np.float32, copy=False)


def stack_columns(arrays: Arrays) -> np.ndarray:
    """All columns joined on a new axis 1; ranks that differ by axes of size 1 are aligned first.

    Raises:
        ValueError: Columns whose shapes cannot be aligned.
    """
    columns = list(arrays.values())
    if not columns:
        return np.empty((0, 0))
    shapes = {array.shape[1:] for array in columns}
    if len(shapes) > 1:
        columns = _aligned(arrays)
    if len(columns) == 1:
        return columns[0][:, None]
    return np.stack(columns, axis=1)


def _aligned(arrays: Arrays) -> list[np.ndarray]:
    columns = list(arrays.values())
    squeezed = {tuple(n for n in array.shape[1:] if n != 1) for array in columns}
    widest = max((array.shape[1:] for array in columns), key=len)
    if len(squeezed) > 1:
        told = ", ".join(f"{name} {array.shape[1:]}" for name, array in arrays.items())
        raise ValueError(f"columns of different shapes cannot become one tensor: {told}; select fewer, or ask for a dict format")
    return [array.reshape(len(array), *widest) for array in columns]


def _rows(arrays: Arrays) -> list[list[Any]]:
    return [list(row) for row in zip(*(array.tolist() for array in arrays.values()), strict=True)]


def _frame(arrays: Arrays) -> Any:
    pandas = need("pandas", "the format 'pandas'")
    return pandas.DataFrame({name: array if array.ndim == 1 else pandas.Series(list(array)) for name, array in arrays.items()})


def _lists(arrays: Arrays) -> dict[str, list[Any]]:
    return {name: array.tolist() for name, array in arrays.items()}


_OTHER: dict[DataFormat, Callable[[Arrays], Any]] = {
    DataFormat.DICT_NUMPY: dict,
    DataFormat.DICT: _lists,
    DataFormat.DICT_LIST: _lists,
    DataFormat.LIST: _rows,
    DataFormat.PANDAS: _frame,
}


def convert(arrays: Arrays, fmt: DataFormat | str) -> Any:
    """A dict of columns, each (N, *inner), in another container.

    Args:
        arrays: Full names to arrays.
        fmt: The container.

    Raises:
        ValueError: Unknown format, or columns that cannot be stacked.
        TypeError: Text asked for as tensors of a framework.
        ImportError: The framework is not installed.

    Example:
        >>> from keydnn.experiment.data.formats import convert
        >>> convert({"a": np.arange(3), "b": np.arange(3)}, "np").shape
        (3, 2)
    """
    fmt = DataFormat.from_value(fmt)
    if fmt in _OTHER:
        return _OTHER[fmt](arrays)
    if fmt in _DICT_BACKENDS:
        return {name: float32_tensor(array, _DICT_BACKENDS[fmt]) for name, array in arrays.items()}
    return float32_tensor(stack_columns(arrays), _TENSOR_BACKENDS[fmt])


def convert_uuids(uuids: np.ndarray, fmt: DataFormat | str, name: str) -> Any:
    """Sample ids, shape (N,), in a container; one array or list where the format is not a dict or a frame.

    Raises:
        TypeError: A format of a framework.
    """
    fmt = DataFormat.from_value(fmt)
    if fmt is DataFormat.NUMPY:
        return uuids
    if fmt is DataFormat.LIST:
        return uuids.tolist()
    return convert({name: uuids}, fmt)


def names_of(arrays: Arrays | Sequence[str]) -> str:
    """Names for a message."""
    return ", ".join(arrays) or "none"
