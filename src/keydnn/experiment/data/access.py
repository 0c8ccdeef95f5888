"""SampleAccess: reading rows and columns, common to a FeatureSet and its views."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from keydnn.experiment.data.collection import SampleCollection
from keydnn.experiment.data.formats import DataFormat, convert, convert_uuids
from keydnn.experiment.data.row_ids import PADDED_UUID
from keydnn.experiment.data.sample_data import SampleData
from keydnn.experiment.data.selectors import Names, doubled_keys, select
from keydnn.experiment.data.spelling import facts_of, of_domain, spelled, unique
from keydnn.experiment.data.storage import to_arrow
from keydnn.experiment.errors import ResolutionError
from keydnn.experiment.names import (
    COLUMN_DOMAINS,
    DOMAIN_FEATURES,
    DOMAIN_SAMPLE_UUIDS,
    DOMAIN_TAGS,
    DOMAIN_TARGETS,
)
from keydnn.experiment.references import FeatureSetColumnReference, FeatureSetReference, parse_column

Rows = NDArray[np.int64]
MASK_COLUMN = "__mask__"


class SampleAccess:
    """What can be read from some rows and columns of a feature set; abstract.

    A class that derives from it says ``_collection``, ``_rows`` (None: all rows; -1: padding), ``_names`` (full names, ids last) and
    ``_root`` (the feature set).
    """

    label: str

    @property
    def _collection(self) -> SampleCollection:
        raise NotImplementedError

    @property
    def _rows(self) -> Rows | None:
        raise NotImplementedError

    @property
    def _names(self) -> Sequence[str]:
        raise NotImplementedError

    @property
    def _root(self) -> Any:
        raise NotImplementedError

    # --- rows ------------------------------------------------------------------------------------------------------

    @property
    def n_samples(self) -> int:
        """Number of rows, padding included."""
        return self._collection.n_samples if self._rows is None else len(self._rows)

    def __len__(self) -> int:
        return self.n_samples

    @property
    def sample_mask(self) -> NDArray[np.int8] | None:
        """None on a FeatureSet; on a view (n_samples,) with 0 where a row is padding."""
        return None if self._rows is None else (self._rows >= 0).astype(np.int8)

    def values(self, name: str) -> NDArray[Any]:
        """Values of one column by full name, ``(n_samples, *inner)``; padded rows hold the fill value.

        Raises:
            KeyError: No such column.
        """
        return take_padded(self._collection, name, self._rows)

    # --- names and facts -------------------------------------------------------------------------------------------

    def _spelled(self, domain: str, suffix: bool, prefix: bool) -> list[str]:
        return unique(spelled(name, prefix, suffix) for name in of_domain(self._names, domain))

    def get_feature_keys(self, *, include_rep_suffix: bool = True, include_domain_prefix: bool = True) -> list[str]:
        """Names of the features, sorted."""
        return self._spelled(DOMAIN_FEATURES, include_rep_suffix, include_domain_prefix)

    def get_target_keys(self, *, include_rep_suffix: bool = True, include_domain_prefix: bool = True) -> list[str]:
        """Names of the targets, sorted."""
        return self._spelled(DOMAIN_TARGETS, include_rep_suffix, include_domain_prefix)

    def get_tag_keys(self, *, include_rep_suffix: bool = True, include_domain_prefix: bool = True) -> list[str]:
        """Names of the tags, sorted."""
        return self._spelled(DOMAIN_TAGS, include_rep_suffix, include_domain_prefix)

    def get_all_keys(self, *, include_rep_suffix: bool = True, include_domain_prefix: bool = True) -> list[str]:
        """Names of features, targets and tags, each sorted, then ``sample_uuids`` (with prefixes only)."""
        names = [name for name in self._names if include_domain_prefix or name != DOMAIN_SAMPLE_UUIDS]
        return unique(spelled(name, include_domain_prefix, include_rep_suffix) for name in names)

    def get_feature_shapes(self, *, include_rep_suffix: bool = True, include_domain_prefix: bool = True) -> dict[str, tuple[int, ...]]:
        """Inner shape by name, of the features."""
        return facts_of(self._names, DOMAIN_FEATURES, include_rep_suffix, include_domain_prefix, self._collection.shape)

    def get_target_shapes(self, *, include_rep_suffix: bool = True, include_domain_prefix: bool = True) -> dict[str, tuple[int, ...]]:
        """Inner shape by name, of the targets."""
        return facts_of(self._names, DOMAIN_TARGETS, include_rep_suffix, include_domain_prefix, self._collection.shape)

    def get_tag_shapes(self, *, include_rep_suffix: bool = True, include_domain_prefix: bool = True) -> dict[str, tuple[int, ...]]:
        """Inner shape by name, of the tags."""
        return facts_of(self._names, DOMAIN_TAGS, include_rep_suffix, include_domain_prefix, self._collection.shape)

    def get_feature_dtypes(self, *, include_rep_suffix: bool = True, include_domain_prefix: bool = True) -> dict[str, str]:
        """Dtype by name, of the features."""
        return facts_of(self._names, DOMAIN_FEATURES, include_rep_suffix, include_domain_prefix, self._collection.dtype)

    def get_target_dtypes(self, *, include_rep_suffix: bool = True, include_domain_prefix: bool = True) -> dict[str, str]:
        """Dtype by name, of the targets."""
        return facts_of(self._names, DOMAIN_TARGETS, include_rep_suffix, include_domain_prefix, self._collection.dtype)

    def get_tag_dtypes(self, *, include_rep_suffix: bool = True, include_domain_prefix: bool = True) -> dict[str, str]:
        """Dtype by name, of the tags."""
        return facts_of(self._names, DOMAIN_TAGS, include_rep_suffix, include_domain_prefix, self._collection.dtype)

    # --- data ------------------------------------------------------------------------------------------------------

    def get_data(
        self,
        *,
        columns: Names = None,
        features: Names = None,
        targets: Names = None,
        tags: Names = None,
        rep: str | None = None,
        fmt: DataFormat | str = DataFormat.DICT_NUMPY,
        include_domain_prefix: bool = True,
        include_rep_suffix: bool = True,
    ) -> Any:
        """The union of all selected columns in a container; nothing selected gives an empty dict.

        Args:
            columns: Full names.
            features: Selectors; see :mod:`keydnn.experiment.data.selectors`.
            targets: Selectors.
            tags: Selectors.
            rep: Representation for selectors that name none.
            fmt: The container.
            include_domain_prefix: Whether names tell the domain (forced when domains are mixed).
            include_rep_suffix: Whether names tell the representation (forced when several are there).

        Raises:
            KeyError: No column fits.
            ValueError: A selector with another domain in front.
        """
        chosen = {"columns": columns, "features": features, "targets": targets, "tags": tags}
        if all(value is None for value in chosen.values()):
            return {}
        names = select(self._names, **chosen, rep=rep, otherwise=self._by_text)
        return self._read(names, fmt, include_domain_prefix, include_rep_suffix, rep)

    def _by_text(self, text: str) -> str:
        try:
            return self.column_reference(text).column
        except ResolutionError as error:
            raise KeyError(str(error)) from error

    def _read(self, names: Sequence[str], fmt: Any, prefix: bool, suffix: bool, rep: str | None = None) -> Any:
        fmt = DataFormat.from_value(fmt)
        if fmt.is_tensor_like and rep is None and (doubled := doubled_keys(names)):
            _warn_doubled(doubled, "the tensor contains both; pass rep=", 4)
        parts = [name.split(".") for name in names if name != DOMAIN_SAMPLE_UUIDS]
        prefix = prefix or len({p[0] for p in parts}) > 1
        suffix = suffix or len({p[2] for p in parts}) > 1
        return convert({spelled(name, prefix, suffix): self.values(name) for name in names}, fmt)

    def _domain_data(self, domain: str, selectors: Names, rep: str | None, fmt: Any, prefix: bool, suffix: bool) -> Any:
        names = of_domain(self._names, domain)
        if selectors is not None or (rep is not None and names):
            names = select(self._names, **{domain: "*" if selectors is None else selectors}, rep=rep)  # type: ignore[arg-type]
        return self._read(names, fmt, prefix, suffix, rep)

    def get_features(
        self,
        fmt: DataFormat | str = DataFormat.DICT_NUMPY,
        *,
        features: Names = None,
        rep: str | None = None,
        include_domain_prefix: bool = False,
        include_rep_suffix: bool = False,
    ) -> Any:
        """Features in a container: by default every column in every representation.

        Raises:
            KeyError: No column fits.
        """
        return self._domain_data(DOMAIN_FEATURES, features, rep, fmt, include_domain_prefix, include_rep_suffix)

    def get_targets(
        self,
        fmt: DataFormat | str = DataFormat.DICT_NUMPY,
        *,
        targets: Names = None,
        rep: str | None = None,
        include_domain_prefix: bool = False,
        include_rep_suffix: bool = False,
    ) -> Any:
        """Targets in a container; see :meth:`get_features`."""
        return self._domain_data(DOMAIN_TARGETS, targets, rep, fmt, include_domain_prefix, include_rep_suffix)

    def get_tags(
        self,
        fmt: DataFormat | str = DataFormat.DICT_NUMPY,
        *,
        tags: Names = None,
        rep: str | None = None,
        include_domain_prefix: bool = False,
        include_rep_suffix: bool = False,
    ) -> Any:
        """Tags in a container; see :meth:`get_features`."""
        return self._domain_data(DOMAIN_TAGS, tags, rep, fmt, include_domain_prefix, include_rep_suffix)

    def get_sample_uuids(self, fmt: DataFormat | str = DataFormat.NUMPY) -> Any:
        """Ids of the rows, shape (n_samples,); ``"N/A"`` at padding."""
        return convert_uuids(self.values(DOMAIN_SAMPLE_UUIDS), fmt, DOMAIN_SAMPLE_UUIDS)

    def to_arrow(self) -> pa.Table:
        """The rows and columns as an Arrow table with full names, ``sample_uuids`` among them."""
        if self._rows is None and len(self._names) == len(self._collection.names()):
            return self._collection.table.select(list(self._names))
        return pa.table({name: to_arrow(self.values(name), name) for name in self._names})

    def to_pandas(self, *, include_padded: bool = False, include_mask: bool = False) -> Any:
        """The rows and columns as a DataFrame with full names.

        Args:
            include_padded: Whether padded rows are kept.
            include_mask: Whether there is a column ``__mask__``, 0 at padding.
        """
        arrays = {name: self.values(name) for name in self._names}
        mask = np.ones(self.n_samples, dtype=np.int8) if self.sample_mask is None else self.sample_mask
        if include_mask:
            arrays[MASK_COLUMN] = mask
        if not include_padded and not mask.all():
            arrays = {name: array[mask == 1] for name, array in arrays.items()}
        return convert(arrays, DataFormat.PANDAS)

    def to_sample_collection(self) -> SampleCollection:
        """An independent collection of the real rows; ids are kept."""
        if self._rows is None:
            return self._collection.select(self._names)
        return self._collection.take_rows(self._rows[self._rows >= 0], self._names)

    def to_featureset(self, label: str) -> Any:
        """An independent FeatureSet of the real rows; ids are kept."""
        return type(self._root)(label, self.to_sample_collection())

    def to_sample_data(self, fmt: DataFormat | str = DataFormat.NUMPY) -> SampleData:
        """Features and targets as tensors, tags and ids as arrays.

        Raises:
            ValueError: A format that is not tensor-like.
        """
        fmt = DataFormat.from_value(fmt)
        if not fmt.is_tensor_like:
            raise ValueError(f"to_sample_data needs a tensor-like format such as 'numpy' or 'torch', got {fmt.value!r}")
        parts = {domain: of_domain(self._names, domain) for domain in COLUMN_DOMAINS}
        formats = {DOMAIN_TAGS: DataFormat.NUMPY}
        data = {domain: self._read(names, formats.get(domain, fmt), True, True) for domain, names in parts.items() if names}
        return SampleData({**data, DOMAIN_SAMPLE_UUIDS: self.get_sample_uuids()})

    # --- references ------------------------------------------------------------------------------------------------

    def reference(
        self, columns: Names = None, *, features: Names = None, targets: Names = None, tags: Names = None, rep: str | None = None
    ) -> FeatureSetReference:
        """A reference to columns of the feature set; a domain without a selector includes all of its columns.

        Args:
            columns: Full names.
            features: Selectors.
            targets: Selectors.
            tags: Selectors.
            rep: Completes selectors; a domain without one still includes all representations: write ``features="*.transformed"``.

        Raises:
            KeyError: No column fits.
            ValueError: A selector with another domain in front.

        Warns:
            UserWarning: A key is included in two representations.
        """
        named = {domain: [n for n in as_columns(columns) if n.startswith(f"{domain}.")] for domain in COLUMN_DOMAINS}
        select(self._names, columns=columns)
        chosen: dict[str, tuple[str, ...]] = {}
        for domain, selectors in zip(COLUMN_DOMAINS, (features, targets, tags), strict=True):
            whole = selectors is None and not named[domain]
            found = of_domain(self._names, domain) if whole else select(self._names, **{domain: selectors or ()}, rep=rep)  # type: ignore[arg-type]
            chosen[domain] = tuple(sorted({*found, *named[domain]}))
        if doubled := doubled_keys(name for names in chosen.values() for name in names):
            _warn_doubled(doubled, "the reference includes both; select one, such as features='*.", 3)
        return FeatureSetReference(self._root.label, self._root.node_id, **chosen)

    def column_reference(
        self,
        column: str | None = None,
        *,
        feature: str | None = None,
        target: str | None = None,
        tag: str | None = None,
        rep: str | None = None,
    ) -> FeatureSetColumnReference:
        """A reference to exactly one column.

        Raises:
            TypeError: A selector that is not text.
            ResolutionError: No column, or more than one.
        """
        given = {"column": column, "features": feature, "targets": target, "tags": tag}
        wanted = {name: value for name, value in given.items() if value is not None}
        for value in (*wanted.values(), *([rep] if rep is not None else [])):
            if not isinstance(value, str):
                raise TypeError(f"column_reference takes text, got {type(value).__name__}: {value!r}")
        if len(wanted) != 1:
            raise ResolutionError(f"column_reference needs exactly one of column, feature, target and tag, got {len(wanted)}")
        ((domain, text),) = wanted.items()
        known = {"node_id": self._root.node_id} | ({"rep": rep} if rep else {}) | ({} if domain == "column" else {"domain": domain})
        return parse_column(text, [self._root], known)


def _warn_doubled(doubled: Sequence[str], mend: str, level: int) -> None:
    warnings.warn(f"{', '.join(doubled)}: raw and transformed are both selected; {mend}'transformed'", UserWarning, stacklevel=level + 1)


def as_columns(columns: Names) -> list[str]:
    """None, one name or several as a new list."""
    return [] if columns is None else [columns] if isinstance(columns, str) else list(columns)


def take_padded(collection: SampleCollection, name: str, rows: Rows | None) -> NDArray[Any]:
    """Values of a column; where a row is negative 0, False, empty text or (ids) ``"N/A"``."""
    if rows is None or not len(rows) or rows.min() >= 0:
        return collection.array(name, rows)
    if not collection.n_samples:
        raise ValueError(f"column {name!r} has no sample that padding could take its shape from")
    values = collection.array(name, np.maximum(rows, 0))
    values = values if values.flags.writeable and values.base is None else values.copy()
    fill: Any = PADDED_UUID if name == DOMAIN_SAMPLE_UUIDS else "" if values.dtype.kind in "OU" else np.zeros((), dtype=values.dtype)
    values[rows < 0] = fill
    return values
