"""FeatureSetSources: the constructors of a feature set, one per kind of source."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import pyarrow as pa

from keydnn.experiment.data import sources
from keydnn.experiment.data.collection import SampleCollection
from keydnn.experiment.data.schema import SampleSchema
from keydnn.experiment.names import as_list


class FeatureSetSources:
    """Makes feature sets; abstract.  A class that derives from it is called with a label and a collection."""

    def __init__(self, label: str, collection: SampleCollection, **kwargs: Any) -> None:
        raise NotImplementedError

    @classmethod
    def from_dict(
        cls,
        label: str,
        data: Mapping[str, Any],
        feature_keys: str | Sequence[str],
        target_keys: str | Sequence[str],
        tag_keys: str | Sequence[str] | None = None,
    ) -> Self:
        """A set from columns by key.

        Args:
            label: Name.
            data: Key to list, array, tensor or Series with one entry per sample.  Numeric NumPy arrays are shared, not copied: do not
                write to them afterwards.
            feature_keys: Inputs.
            target_keys: Targets; may be empty.
            tag_keys: Metadata.

        Raises:
            ValueError: Keys that are missing, bad or doubled, or columns of different lengths.
        """
        return cls(label, sources.from_columns(data, feature_keys, target_keys, tag_keys, "data"))

    @classmethod
    def from_pandas(
        cls,
        label: str,
        df: Any,
        feature_cols: str | Sequence[str],
        target_cols: str | Sequence[str],
        group_by: str | Sequence[str] | None = None,
        tag_cols: str | Sequence[str] | None = None,
        sort_by: str | Sequence[str] | None = None,
        pad_groups: float | None = None,
    ) -> Self:
        """A set from a DataFrame: one sample per row, or per group of rows.

        Args:
            label: Name.
            df: The DataFrame; its index does not matter, its values are copied.
            feature_cols: Inputs.
            target_cols: Targets; may be empty.
            group_by: Columns whose equal values make one sample, in order of first appearance: features and targets become arrays
                of the group's values (scalars if every group has one row); tags the one distinct value of each group, or, if some
                group has several, the list of distinct values for every group.
            tag_cols: Metadata.
            sort_by: Columns that order the rows inside a group; without ``group_by`` ignored.
            pad_groups: Value that fills groups up to the longest; adds a tag ``group_length``.

        Raises:
            ValueError: Columns that are missing.
            FeatureSetError: Groups of different sizes without ``pad_groups``.
        """
        return cls(label, sources.from_frame(df, feature_cols, target_cols, tag_cols, group_by, sort_by, pad_groups))

    from_df = from_pandas

    @classmethod
    def from_pyarrow_table(cls, label: str, table: pa.Table, schema: SampleSchema | None = None, **kwargs: Any) -> Self:
        """A set over an Arrow table with columns ``<domain>.<key>.<representation>``; nothing is copied.

        Raises:
            TypeError: Not a table.
            ValueError: A column name that is none, or stands twice.
        """
        return cls(label, SampleCollection(table, schema), **kwargs)

    @classmethod
    def from_numpy(cls, label: str, features: Any, targets: Any = None, tags: Any = None) -> Self:
        """A set from dicts of arrays or bare arrays (keys ``x0``, ``y0``, ``tag0``) with samples along axis 0.

        Raises:
            ValueError: Arrays of different lengths.
        """
        return cls(label, sources.from_arrays(features, targets, tags))

    @classmethod
    def from_torch_dataset(cls, label: str, dataset: Any) -> Self:
        """A set from a torch data set of inputs, or of (input, target) pairs.

        Raises:
            FeatureSetError: Items of another form.
        """
        return cls(label, sources.from_dataset(dataset))

    @classmethod
    def from_arrow_file(cls, label: str, path: str | os.PathLike[str], *, memory_map: bool = True) -> Self:
        """A set over an Arrow IPC file with columns ``<domain>.<key>.<representation>``.

        Args:
            label: Name.
            path: The file.
            memory_map: Whether values stay in the file until they are asked for.

        Raises:
            FileNotFoundError: No such file.
            SampleLoadError: No Arrow file of samples.
        """
        return cls(label, sources.from_mapped_file(path, memory_map))

    @classmethod
    def _from_table(cls, label: str, read: Any, source: Any, features: Any, targets: Any, tags: Any) -> Self:
        table = read(source, [*as_list(features), *as_list(targets), *as_list(tags)])
        return cls(label, sources.from_plain_table(table, features, targets, tags))

    @classmethod
    def from_parquet(cls, label: str, source: Any, feature_cols: Any, target_cols: Any, tag_cols: Any = None) -> Self:
        """A set from columns of a Parquet file, one sample per row.

        Raises:
            ValueError: Columns that are missing.
        """
        return cls._from_table(label, sources.read_parquet, source, feature_cols, target_cols, tag_cols)

    @classmethod
    def from_csv(cls, label: str, source: Any, feature_cols: Any, target_cols: Any, tag_cols: Any = None) -> Self:
        """A set from columns of a CSV file with a header line, one sample per row.

        Raises:
            ValueError: Columns that are missing.
        """
        return cls._from_table(label, sources.read_csv, source, feature_cols, target_cols, tag_cols)

    @classmethod
    def from_polars(cls, label: str, source: Any, feature_cols: Any, target_cols: Any, tag_cols: Any = None) -> Self:
        """A set from columns of a polars DataFrame or LazyFrame, one sample per row.

        Raises:
            ValueError: Columns that are missing.
            TypeError: No polars frame.
            ImportError: polars is not installed.
        """
        return cls._from_table(label, sources.read_polars, source, feature_cols, target_cols, tag_cols)
