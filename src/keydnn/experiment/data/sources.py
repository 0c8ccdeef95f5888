"""Where samples come from: dicts, DataFrames with groups, NumPy arrays, torch data sets, Arrow, Parquet, CSV and polars."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from keydnn.experiment.backends.tensors import to_numpy
from keydnn.experiment.data.collection import SampleCollection
from keydnn.experiment.data.schema import raw_table
from keydnn.experiment.data.storage import is_text
from keydnn.experiment.errors import FeatureSetError
from keydnn.experiment.names import COLUMN_DOMAINS, as_list
from keydnn.experiment.optional import need
from keydnn.experiment.strata import codes_of

Keys = str | Sequence[str] | None
GROUP_LENGTH = "group_length"


def from_columns(values: Mapping[str, Any], features: Keys, targets: Keys, tags: Keys, what: str) -> SampleCollection:
    """A collection from columns by key.

    Raises:
        ValueError: Keys that are missing, or columns of different lengths.
    """
    chosen = {domain: as_list(keys) for domain, keys in zip(COLUMN_DOMAINS, (features, targets, tags), strict=True)}
    missing = [key for keys in chosen.values() for key in keys if key not in values]
    if missing:
        raise ValueError(f"{what} has no {', '.join(map(repr, missing))}; it has {', '.join(map(str, values))}")
    arrays = {domain: {key: _plain_column(values[key]) for key in keys} for domain, keys in chosen.items()}
    return SampleCollection.of_raw(raw_table(arrays))


def _plain_column(values: Any) -> Any:
    """Lists and arrays as they are; tensors and Series as arrays; other iterables as lists."""
    if isinstance(values, (np.ndarray, list)):  # a union of types would be made anew at every call
        return values
    if type(values).__module__.partition(".")[0] == "pandas":
        return series_values(values)
    if isinstance(values, tuple | Sequence) or isinstance(values, pa.Array | pa.ChunkedArray):
        return values.to_pylist() if isinstance(values, pa.Array | pa.ChunkedArray) else list(values)
    array = to_numpy(values)
    return array if array.ndim else list(values)


def series_values(series: Any) -> Any:
    """The values of a pandas Series: an array of its own, missing numbers as NaN, missing text as None."""
    array = series.to_numpy()
    if array.dtype != object:
        return np.array(array)
    column = pa.array(series, from_pandas=True)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if is_text(column.type):
        return column.to_numpy(zero_copy_only=False)
    if pa.types.is_boolean(column.type) and column.null_count:
        column = column.cast(pa.float64())
    return array if pa.types.is_nested(column.type) else column.to_numpy(zero_copy_only=False)


def from_frame(
    df: Any, features: Keys, targets: Keys, tags: Keys, group_by: Keys, sort_by: Keys, pad_groups: float | None
) -> SampleCollection:
    """A collection from a DataFrame, one sample per row or per group; see ``FeatureSet.from_pandas``."""
    needed = [*as_list(features), *as_list(targets), *as_list(tags)]
    extra = [*as_list(group_by), *(as_list(sort_by) if group_by is not None else [])]
    missing = [name for name in [*needed, *extra] if name not in df.columns]
    if missing:
        raise ValueError(f"the DataFrame has no column {', '.join(map(repr, missing))}; it has {', '.join(map(str, df.columns))}")
    values = {name: series_values(df[name]) for name in dict.fromkeys([*needed, *extra])}
    if group_by is None:
        return from_columns(values, features, targets, tags, "the DataFrame")
    groups = Groups([np.asarray(values[name]) for name in as_list(group_by)], [np.asarray(values[name]) for name in as_list(sort_by)])
    samples: dict[str, Any] = {name: groups.cells(values[name], name, pad_groups) for name in [*as_list(features), *as_list(targets)]}
    samples.update({name: groups.tag(values[name]) for name in as_list(tags)})
    names = as_list(tags)
    if pad_groups is not None:
        samples[GROUP_LENGTH] = groups.sizes
        names = [*names, GROUP_LENGTH]
    return from_columns(samples, features, targets, names, "the DataFrame")


class Groups:
    """Rows brought together by equal values, in order of first appearance.

    Args:
        by: Columns whose equal values make a group.
        sort_by: Columns that order the rows inside a group; none keeps their order.
    """

    def __init__(self, by: list[NDArray[Any]], sort_by: list[NDArray[Any]]) -> None:
        codes = codes_of(by)
        keys = [_sortable(column) for column in reversed(sort_by)]
        self._order = np.lexsort([*keys, codes]) if keys else np.argsort(codes, kind="stable")
        self._first = np.argsort(codes, kind="stable")
        self.sizes = np.bincount(codes) if len(codes) else np.zeros(0, dtype=np.int64)
        self._starts = np.cumsum(self.sizes) - self.sizes

    def cells(self, values: Any, name: str, pad: float | None) -> NDArray[Any]:
        """(n_groups, L), or (n_groups,) if every group has one row.

        Raises:
            FeatureSetError: Groups of different sizes, and no ``pad``.
        """
        ordered = np.asarray(values)[self._order]
        lengths = np.unique(self.sizes)
        if len(lengths) <= 1:
            length = int(lengths[0]) if len(lengths) else 0
            return ordered if length <= 1 else ordered.reshape(len(self.sizes), length, *ordered.shape[1:])
        if pad is None:
            told = ", ".join(str(n) for n in lengths[:6].tolist()) + (", ..." if len(lengths) > 6 else "")
            raise FeatureSetError(f"column {name!r}: groups have different sizes ({told}); give them one size, or pass pad_groups=value")
        if ordered.dtype.kind not in "biuf":
            raise FeatureSetError(f"column {name!r} holds {ordered.dtype} values; only numbers can be padded")
        dtype = np.result_type(ordered.dtype, np.min_scalar_type(pad)) if not float(pad).is_integer() or np.isnan(pad) else ordered.dtype
        out = np.full((len(self.sizes), int(lengths[-1]), *ordered.shape[1:]), pad, dtype=dtype)
        out[np.repeat(np.arange(len(self.sizes)), self.sizes), _ramp(self.sizes)] = ordered
        return out

    def tag(self, values: Any) -> Any:
        """One value per group if every group has one distinct value; else the list of its distinct values for every group."""
        column = np.asarray(values)
        ordered = column[self._first]
        codes = codes_of([column])[self._first]
        group = np.repeat(np.arange(len(self.sizes)), self.sizes)
        if (codes == codes[self._starts][group]).all():
            return ordered[self._starts]
        items = ordered.tolist()
        ends = (self._starts + self.sizes).tolist()
        return [list(dict.fromkeys(items[a:b])) for a, b in zip(self._starts.tolist(), ends, strict=True)]


def _ramp(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, ... within each group."""
    return np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _sortable(column: NDArray[Any]) -> NDArray[Any]:
    if column.dtype != object:
        return column
    order = sorted(set(column.tolist()), key=lambda value: (value is None, value))
    place = {value: i for i, value in enumerate(order)}
    return np.array([place[value] for value in column.tolist()])


def from_arrays(features: Any, targets: Any, tags: Any) -> SampleCollection:
    """A collection from dicts of arrays, or bare arrays, which get the keys ``x0``, ``y0`` and ``tag0``."""
    named = []
    for given, name in ((features, "x0"), (targets, "y0"), (tags, "tag0")):
        named.append({} if given is None else dict(given) if isinstance(given, Mapping) else {name: given})
    return SampleCollection(raw_table(dict(zip(COLUMN_DOMAINS, named, strict=True))))


def from_dataset(dataset: Any) -> SampleCollection:
    """A collection from a torch data set: its ``tensors`` if it keeps them, else item by item.

    Raises:
        FeatureSetError: Items that are neither tensors nor (input, target) pairs.
    """
    tensors = getattr(dataset, "tensors", None)
    columns = list(tensors) if tensors is not None else _items(dataset)
    if not 1 <= len(columns) <= 2:
        raise FeatureSetError(f"a data set of inputs, or of (input, target) pairs, is expected; an item has {len(columns)} parts")
    arrays = [to_numpy(column) for column in columns]
    return from_arrays(arrays[0], arrays[1] if len(arrays) == 2 else None, None)


def _items(dataset: Any) -> list[NDArray[Any]]:
    length = len(dataset) if hasattr(dataset, "__len__") else None
    items = [dataset[i] for i in range(length)] if length is not None and hasattr(dataset, "__getitem__") else list(dataset)
    rows = [item if isinstance(item, tuple | list) else (item,) for item in items]
    return [np.stack([to_numpy(part) for part in column]) for column in zip(*rows, strict=True)]


def from_mapped_file(path: str | os.PathLike[str], memory_map: bool) -> SampleCollection:
    """A collection over an Arrow IPC file, read where it is mapped.

    Raises:
        FileNotFoundError: No such file.
        SampleLoadError: No Arrow file of samples.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}")
    source = pa.memory_map(str(path)) if memory_map else pa.OSFile(str(path))
    found = SampleCollection.from_arrow(source, str(path), trusted=memory_map)
    found.is_mapped = memory_map
    return found


def read_parquet(source: Any, columns: Sequence[str]) -> pa.Table:
    """Some columns of a Parquet file."""
    import pyarrow.parquet

    return _needed(pyarrow.parquet.read_table(_path(source)), columns)


def read_csv(source: Any, columns: Sequence[str]) -> pa.Table:
    """Some columns of a CSV file with a header line."""
    import pyarrow.csv

    return _needed(pyarrow.csv.read_csv(_path(source)), columns)


def read_polars(source: Any, columns: Sequence[str]) -> pa.Table:
    """Some columns of a polars DataFrame or LazyFrame.

    Raises:
        TypeError: Neither.
    """
    polars = need("polars", "from_polars")
    if isinstance(source, polars.LazyFrame):
        source = source.collect()
    if not isinstance(source, polars.DataFrame):
        raise TypeError(f"from_polars needs a polars DataFrame or LazyFrame, got {type(source).__name__}")
    return _needed(source.to_arrow(), columns)


def _path(source: Any) -> Any:
    return str(source) if isinstance(source, os.PathLike) else source


def _needed(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise ValueError(f"the table has no column {', '.join(map(repr, missing))}; it has {', '.join(table.column_names)}")
    return table.select(list(dict.fromkeys(columns)))


def from_plain_table(table: pa.Table, features: Keys, targets: Keys, tags: Keys) -> SampleCollection:
    """A collection from an Arrow table with columns named as the caller likes; columns stay where they are."""
    columns, names = [], []
    for domain, keys in zip(COLUMN_DOMAINS, (features, targets, tags), strict=True):
        for key in as_list(keys):
            columns.append(_normal(table[key]))
            names.append(f"{domain}.{key}.raw")
    return SampleCollection(pa.table(columns, names=names))


def _normal(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Missing numbers as NaN, dictionaries as their values, null columns as text."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type)
    if pa.types.is_null(kind):
        return column.cast(pa.string())
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if numeric and column.null_count:
        floats = kind if pa.types.is_floating(kind) else pa.float64()
        return column.cast(floats).fill_null(float("nan"))
    return column
