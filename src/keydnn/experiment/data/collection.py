"""SampleCollection: an immutable-by-contract Arrow table of samples, its schema and the ids of its rows.

``raw`` columns are what the user gave and never change.  Ids are computed from the row number when asked for
(:mod:`keydnn.experiment.uuids`) unless the user supplied them as a column.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from keydnn.experiment.data import collection_file
from keydnn.experiment.data.collection_reading import CollectionReading
from keydnn.experiment.data.column import Column, Places
from keydnn.experiment.data.formats import DataFormat, convert
from keydnn.experiment.data.row_ids import RowIds, checked_uuids
from keydnn.experiment.data.schema import SampleSchema, metadata_of
from keydnn.experiment.data.storage import dtype_name, regular, to_arrow
from keydnn.experiment.names import (
    COLUMN_DOMAINS,
    DOMAIN_SAMPLE_UUIDS,
    METADATA_SCHEMA_VERSION_KEY,
    METADATA_UUID_KEY,
    REP_RAW,
    SCHEMA_VERSION,
    check_key,
    check_name,
)  # fmt: skip
from keydnn.experiment.uuids import check_uuid_key, new_key


class SampleCollection(CollectionReading):
    """Samples as a table of columns ``<domain>.<key>.<representation>``.

    Args:
        table: The columns, and possibly ``sample_uuids``.
        schema: None infers it from the names.
        uuid_key: The 128-bit key of computed ids; None draws one.

    Raises:
        TypeError: Not a table, or ids that are not text.
        ValueError: A column name twice, or one that is no column name.

    Warns:
        UserWarning: Supplied ids are not unique: all of them are replaced.

    Example:
        >>> from keydnn.experiment.data import SampleCollection, build_sample_schema_table
        >>> table = build_sample_schema_table(features={"x": np.ones((4, 3))}, targets={"y": np.arange(4)})
        >>> SampleCollection(table).get_features("np").shape
        (4, 1, 3)
    """

    is_mapped = False  # whether values stay in a file until they are asked for

    def __init__(self, table: pa.Table, schema: SampleSchema | None = None, *, uuid_key: int | None = None) -> None:
        if not isinstance(table, pa.Table):
            raise TypeError(f"SampleCollection needs a pyarrow.Table, got {type(table).__name__}")
        names = table.column_names
        if len(set(names)) != len(names):
            raise ValueError(f"column names stand twice: {', '.join(sorted({name for name in names if names.count(name) > 1}))}")
        stored = checked_uuids(table[DOMAIN_SAMPLE_UUIDS]) if DOMAIN_SAMPLE_UUIDS in names else None
        self._ids = RowIds(table.num_rows, check_uuid_key(uuid_key), stored)
        if DOMAIN_SAMPLE_UUIDS in names:
            table = table.drop_columns([DOMAIN_SAMPLE_UUIDS])
        lists = [i for i, kind in enumerate(table.schema.types) if isinstance(kind, pa.ListType | pa.LargeListType)]
        for i in lists:
            table = table.set_column(i, table.column_names[i], regular(table.column(i)))
        self._set(table, schema)
        _ = self._schema  # names are checked here, not when they are first needed

    @classmethod
    def of_raw(cls, table: pa.Table) -> Self:
        """A collection over a table from :func:`~keydnn.experiment.data.schema.raw_table`, which has been checked."""
        made = cls.__new__(cls)
        made._ids = RowIds(table.num_rows, new_key())
        made._set(table)
        return made

    def _set(self, table: pa.Table, schema: SampleSchema | None = None) -> None:
        if schema is not None and sorted(schema.names()) != sorted(table.column_names):
            raise ValueError(f"the schema names {', '.join(schema.names())}, the table has {', '.join(table.column_names)}")
        self._table = table
        self._columns: dict[str, Column] = {}
        self._derived: dict[Hashable, Any] = {}
        self.__dict__.pop("_names", None)
        self.__dict__.pop("_schema", None)
        if schema is not None:
            self._schema = schema

    @functools.cached_property
    def _schema(self) -> SampleSchema:
        return SampleSchema.from_table(self._table)

    @functools.cached_property
    def _names(self) -> list[str]:
        return [*self._schema.names(), DOMAIN_SAMPLE_UUIDS]

    # --- facts -----------------------------------------------------------------------------------------------------

    @property
    def columns_table(self) -> pa.Table:
        """The table without ids; nothing is computed."""
        return self._table

    @property
    def table(self) -> pa.Table:
        """The table with metadata and the column ``sample_uuids``, which is computed here if it is not stored."""
        told = {**(self._table.schema.metadata or {}), **metadata_of({f.name: f.type for f in self._table.schema})}
        return self._table.append_column(DOMAIN_SAMPLE_UUIDS, self._ids.column()).replace_schema_metadata(told)

    @property
    def schema(self) -> SampleSchema:
        """Which columns there are."""
        return self._schema

    @property
    def table_version(self) -> str:
        """Version of the layout."""
        told = self._table.schema.metadata or {}
        return told.get(METADATA_SCHEMA_VERSION_KEY.encode(), SCHEMA_VERSION.encode()).decode()

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return self._ids.n

    @property
    def has_tags(self) -> bool:
        """Whether there is a tag."""
        return bool(self._schema.tags)

    @property
    def available_domains(self) -> list[str]:
        """Domains that have columns."""
        return [domain for domain in COLUMN_DOMAINS if self._schema.domain_keys(domain)]

    @property
    def ids(self) -> RowIds:
        """The ids of the rows."""
        return self._ids

    @property
    def uuid_key(self) -> int:
        """The key of computed ids."""
        return self._ids.key

    @property
    def stores_uuids(self) -> bool:
        """Whether ids are a stored column."""
        return self._ids.stored is not None

    def names(self) -> list[str]:
        """Full names of all columns in the order of the domains, keys sorted, ``sample_uuids`` last."""
        return list(self._names)

    def column(self, name: str) -> Column:
        """The reader of a column.

        Raises:
            KeyError: No such column.
        """
        found = self._columns.get(name)
        if found is None:
            if name not in self._table.column_names:
                raise KeyError(f"no column {name!r}; there are {', '.join(self._names)}")
            found = self._columns[name] = Column(self._table[name])
        return found

    def array(self, name: str, rows: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """Values of a column, or ids, of some rows (all for None)."""
        return self.uuids(rows) if name == DOMAIN_SAMPLE_UUIDS else self.column(name).take(rows)

    def arrays(self, names: Sequence[str], rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """:meth:`array` of several columns; where the rows lie among the chunks is worked out once."""
        places: dict[bytes, Places] = {}
        found = {}
        for name in names:
            if name == DOMAIN_SAMPLE_UUIDS or (reader := self.column(name)).array is not None or not len(rows):
                found[name] = self.array(name, rows)
                continue
            key = reader.starts.tobytes()
            if key not in places:
                places[key] = Places(reader.starts, rows)
            found[name] = reader.take(rows, places[key])
        return found

    def shared_arrays(self, names: Sequence[str]) -> list[NDArray[Any]] | None:
        """The whole columns as shared arrays, if all are that and have one shape and dtype; else None."""
        arrays = [array for name in names if (array := self.column(name).array) is not None]
        kinds = {(array.shape, array.dtype) for array in arrays}
        return arrays if len(kinds) == 1 and len(arrays) == len(names) else None

    def derived(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, made once for ``key`` and forgotten when columns come or go."""
        if key not in self._derived:
            self._derived[key] = make()
        return self._derived[key]

    def shape(self, name: str) -> tuple[int, ...]:
        """Inner shape of a column; () for ids."""
        return () if name == DOMAIN_SAMPLE_UUIDS else self.column(name).shape

    def dtype(self, name: str) -> str:
        """Name of a column's dtype."""
        return "string" if name == DOMAIN_SAMPLE_UUIDS else dtype_name(self._table.schema.field(name).type)

    def uuids(self, rows: NDArray[np.int64] | None) -> NDArray[Any]:
        """Ids of some rows (all for None), shape (n,)."""
        return self._ids.of(rows)

    def rows_of_uuids(self, uuids: Sequence[str]) -> NDArray[np.int64]:
        """For each id its row; -1 where there is none."""
        return self._ids.rows_of(uuids)

    # --- representations -------------------------------------------------------------------------------------------

    def add_rep(self, domain: str, key: str, rep: str, data: NDArray[Any], *, overwrite: bool = False) -> None:
        """Add a representation of a column.

        Raises:
            TypeError: ``data`` is no array.
            ValueError: ``rep`` is raw, the key is unknown, the length is not N, or the representation exists.
        """
        self.add_reps(domain, rep, {key: data}, overwrite=overwrite)

    def add_reps(self, domain: str, rep: str, data: Mapping[str, NDArray[Any]], *, overwrite: bool = False) -> None:
        """:meth:`add_rep` for several keys at once: all or none."""
        if rep == REP_RAW:
            raise ValueError("raw columns are what the user gave; they cannot be written")
        check_name(rep, "representation")
        fresh: dict[str, pa.Array] = {}
        for key, values in data.items():
            self.check_key(domain, key)
            if not isinstance(values, np.ndarray):
                raise TypeError(f"representation {rep!r} of {key!r} must be an ndarray, got {type(values).__name__}")
            if values.ndim == 0 or len(values) != self._ids.n:
                raise ValueError(f"representation {rep!r} of {key!r} has shape {values.shape}, expected {self._ids.n} samples")
            if rep in self._schema.rep_keys(domain, key) and not overwrite:
                raise ValueError(f"column {key!r} has a representation {rep!r}; pass overwrite=True to replace it")
            fresh[f"{domain}.{key}.{rep}"] = to_arrow(values, f"{domain}.{key}.{rep}")
        table = self._table
        for name, column in fresh.items():
            at = table.schema.get_field_index(name)
            table = table.append_column(name, column) if at < 0 else table.set_column(at, name, column)
        self._swap(table, fresh)

    def add_raw(self, domain: str, key: str, values: NDArray[Any]) -> None:
        """Add a column that was computed from raw ones.

        Raises:
            ValueError: The key exists or is none, or the length is not N.
        """
        if len(values) != self._ids.n:
            raise ValueError(f"column {key!r} has {len(values)} values, expected {self._ids.n}")
        name = f"{domain}.{check_key(key)}.{REP_RAW}"
        self._swap(self._table.append_column(name, to_arrow(values, name)), [name])

    def delete_rep(self, domain: str, key: str, rep: str) -> None:
        """Remove a representation.

        Raises:
            ValueError: ``rep`` is raw, or the domain is unknown.
            KeyError: There is no such column.
        """
        if rep == REP_RAW:
            raise ValueError("raw columns are what the user gave; they cannot be deleted")
        name = f"{domain}.{key}.{rep}"
        if name not in self._table.column_names:
            self._schema.domain_keys(domain)
            raise KeyError(f"no column {name!r}; there are {', '.join(self._names)}")
        self._swap(self._table.drop_columns([name]), [name])

    def _swap(self, table: pa.Table, changed: Any) -> None:
        readers = {name: reader for name, reader in self._columns.items() if name not in changed}
        self._set(table, SampleSchema.from_table(table))
        self._columns = readers

    # --- copies and files ------------------------------------------------------------------------------------------

    def copy(self, *, raw_only: bool = False, deep: bool = False) -> SampleCollection:
        """A collection that can get other representations; buffers are shared unless ``deep``.  Ids are kept."""
        names = [name for name in self._table.column_names if not raw_only or name.endswith(f".{REP_RAW}")]
        made = self.select(names)
        if deep:
            made._set(collection_file.deep_copy(made._table))
        return made

    def select(self, columns: Sequence[str]) -> SampleCollection:
        """The same samples with fewer columns; ids are kept.

        Raises:
            KeyError: No such column.
        """
        names = [name for name in columns if name != DOMAIN_SAMPLE_UUIDS]
        missing = [name for name in names if name not in self._table.column_names]
        if missing:
            raise KeyError(f"no column {', '.join(missing)}; there are {', '.join(self._names)}")
        made = SampleCollection.__new__(SampleCollection)
        made._ids = self._ids
        made.is_mapped = self.is_mapped
        made._set(self._table.select(names))
        made._columns = {name: reader for name, reader in self._columns.items() if name in names}
        return made

    def with_uuid_key(self, key: int) -> SampleCollection:
        """The same samples with ids computed from another key; stored ids stay.

        Raises:
            ValueError: Not an integer of 128 bits.
        """
        made = self.copy()
        made._ids = RowIds(self.n_samples, check_uuid_key(key), self._ids.stored)
        return made

    def adopt(self, other: SampleCollection) -> None:
        """Take over the columns and ids of a snapshot made with :meth:`copy`."""
        self._ids = other._ids
        self._set(other._table)
        self._columns = dict(other._columns)

    def take_rows(self, rows: NDArray[np.int64], columns: Sequence[str]) -> SampleCollection:
        """Some rows of some columns as an independent collection; ids are stored, so they stay the same."""
        arrays = {name: to_arrow(self.array(name, rows), name) for name in columns if name != DOMAIN_SAMPLE_UUIDS}
        arrays[DOMAIN_SAMPLE_UUIDS] = pa.array(self.uuids(rows))
        return SampleCollection(pa.table(arrays))

    def to_dict(self) -> dict[str, list[Any]]:
        """Full names to nested lists, ``sample_uuids`` among them."""
        return {name: self.array(name).tolist() for name in self._names}

    def to_pandas(self) -> Any:
        """A DataFrame with full names, one cell per sample and column."""
        return convert({name: self.array(name) for name in self._names}, DataFormat.PANDAS)

    def stored_table(self) -> pa.Table:
        """What a file holds: ids only if they are stored, their key in the metadata."""
        told = metadata_of({field.name: field.type for field in self._table.schema})
        table = self._table.replace_schema_metadata({**told, METADATA_UUID_KEY: f"{self._ids.key:032x}"})
        return table if self._ids.stored is None else table.append_column(DOMAIN_SAMPLE_UUIDS, self._ids.stored)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write ``<path>.arrow`` (uncompressed Arrow IPC) and return its path."""
        return collection_file.write(self.stored_table(), path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: No such file.
            SampleLoadError: No Arrow file, or a damaged one.
        """
        source = collection_file.existing(path)
        return cls.from_arrow(source.read_bytes(), str(source))

    @classmethod
    def from_arrow(cls, source: Any, name: str, *, trusted: bool = False) -> Self:
        """The collection in an Arrow IPC file or the bytes of one.

        Args:
            source: Bytes, or an open Arrow file, which is read where it is mapped.
            name: For messages.
            trusted: Whether to skip the check of every value, which would read a mapped file whole.

        Raises:
            SampleLoadError: No Arrow file, or a damaged one.
        """
        with collection_file.readable(name):
            table = collection_file.read(source, trusted)
            return cls(table, uuid_key=collection_file.uuid_key_of(table))

    @classmethod
    def of_stored(cls, table: pa.Table) -> Self:
        """The collection that :meth:`stored_table` told of; nothing is copied."""
        return cls(table, uuid_key=collection_file.uuid_key_of(table))

    def __len__(self) -> int:
        return self._ids.n

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SampleCollection):
            raise TypeError(f"a SampleCollection cannot be compared with a {type(other).__name__}")
        names = self._names[:-1]
        return self._ids == other._ids and other._names[:-1] == names and all(_same_column(self._table[n], other._table[n]) for n in names)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"SampleCollection(n_samples={self._ids.n}, columns={self._names[:-1]})"


def _same_column(a: pa.ChunkedArray, b: pa.ChunkedArray) -> bool:
    """Equal types and values; NaN equals NaN."""
    if a.type != b.type or len(a) != len(b):
        return False
    if a.equals(b):
        return True
    x, y = Column(a).take(None), Column(b).take(None)
    return x.dtype.kind == "f" and bool(np.array_equal(x, y, equal_nan=True))
