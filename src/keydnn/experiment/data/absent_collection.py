"""AbsentCollection: schema and ids of samples whose values stayed elsewhere; whatever needs a value says so."""

from __future__ import annotations

from typing import Any, NoReturn

import pyarrow as pa

from keydnn.experiment.data.collection import SampleCollection
from keydnn.experiment.data.fingerprint import fingerprint
from keydnn.experiment.data.row_ids import RowIds
from keydnn.experiment.data.storage import inner_shape, without_trailing_ones
from keydnn.experiment.errors import SampleLoadError


class AbsentColumn:
    """What is known of a column without its values.

    Args:
        name: Full name.
        kind: Type of a value.

    Attributes:
        shape: Inner shape of a sample.
    """

    array = None

    def __init__(self, name: str, kind: pa.DataType) -> None:
        self._name = name
        self.shape = without_trailing_ones(inner_shape(kind)[0])

    @property
    def starts(self) -> NoReturn:
        """Refused."""
        _refuse(self._name)

    def take(self, rows: Any = None, places: Any = None) -> NoReturn:
        """Refused.

        Raises:
            SampleLoadError: Always.
        """
        _refuse(self._name)


class AbsentCollection(SampleCollection):
    """Samples without their values.

    Args:
        table: The columns, without rows.
        ids: Ids of the rows.
        told_fingerprint: What :func:`~keydnn.experiment.data.fingerprint.fingerprint` gave where the values are.
    """

    def __init__(self, table: pa.Table, ids: RowIds, told_fingerprint: str) -> None:
        self._ids, self.told_fingerprint = ids, told_fingerprint
        self._set(table.slice(0, 0))
        _ = self._schema

    @classmethod
    def of(cls, collection: SampleCollection) -> AbsentCollection:
        """What stays of a collection when its values go."""
        if isinstance(collection, AbsentCollection):
            return collection
        return cls(collection.columns_table, collection.ids, fingerprint(collection))

    @property
    def columns_table(self) -> pa.Table:
        """Refused: there are no values."""
        _refuse("the table")

    @property
    def table(self) -> pa.Table:
        """Refused: there are no values."""
        _refuse("the table")

    @property
    def schema_table(self) -> pa.Table:
        """The columns, without rows."""
        return self._table

    def stored_table(self) -> pa.Table:
        """Refused: there are no values."""
        _refuse("the table")

    def column(self, name: str) -> Any:
        """Shape of a column; its values are refused when they are asked for.

        Raises:
            KeyError: No such column.
        """
        if name not in self._table.column_names:
            raise KeyError(f"no column {name!r}; there are {', '.join(self._names)}")
        return AbsentColumn(name, self._table.schema.field(name).type)

    def select(self, columns: Any) -> AbsentCollection:
        """The same samples with fewer columns; ids are kept."""
        kept = super().select(columns)
        return AbsentCollection(kept.columns_table, self._ids, self.told_fingerprint)

    def add_reps(self, domain: str, rep: str, data: Any, *, overwrite: bool = False) -> None:
        """Refused: columns come from values."""
        _refuse(f"{domain}.*.{rep}")

    def add_raw(self, domain: str, key: str, values: Any) -> None:
        """Refused: columns come from values."""
        _refuse(f"{domain}.{key}")


def _refuse(name: str) -> NoReturn:
    raise SampleLoadError(
        f"{name}: these samples were saved without their values (include_data=False); load the feature set from its own file with"
        " FeatureSet.load(path, overwrite=True), or save the experiment with include_data=True where the data are"
    )
