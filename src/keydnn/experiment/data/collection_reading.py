"""CollectionReading: names, shapes, dtypes and values of the columns of a collection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.data.formats import DataFormat, convert, convert_uuids
from keydnn.experiment.data.schema import SampleSchema
from keydnn.experiment.data.spelling import facts_of, of_domain, spelled, unique
from keydnn.experiment.names import DOMAIN_FEATURES, DOMAIN_SAMPLE_UUIDS, DOMAIN_TAGS, DOMAIN_TARGETS, REP_RAW, as_list, split_column


class CollectionReading:
    """What can be read from the columns of a collection; abstract.

    A class that derives from it says ``_names`` (full names in order, ids last), ``schema``, and ``shape``, ``dtype`` and ``array`` of a
    column.
    """

    @property
    def _names(self) -> Sequence[str]:
        raise NotImplementedError

    @property
    def schema(self) -> SampleSchema:
        """Which columns there are."""
        raise NotImplementedError

    def array(self, name: str, rows: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """Values of a column, or ids, of some rows (all for None)."""
        raise NotImplementedError

    def shape(self, name: str) -> tuple[int, ...]:
        """Inner shape of a column; () for ids."""
        raise NotImplementedError

    def dtype(self, name: str) -> str:
        """Name of a column's dtype."""
        raise NotImplementedError

    # --- keys ------------------------------------------------------------------------------------------------------

    def _domain_names(self, domain: str, suffix: bool, prefix: bool) -> list[str]:
        return unique(spelled(name, prefix, suffix) for name in of_domain(self._names, domain))

    def get_feature_keys(self, *, include_rep_suffix: bool = False, include_domain_prefix: bool = False) -> list[str]:
        """Names of the features, sorted."""
        return self._domain_names(DOMAIN_FEATURES, include_rep_suffix, include_domain_prefix)

    def get_target_keys(self, *, include_rep_suffix: bool = False, include_domain_prefix: bool = False) -> list[str]:
        """Names of the targets, sorted."""
        return self._domain_names(DOMAIN_TARGETS, include_rep_suffix, include_domain_prefix)

    def get_tag_keys(self, *, include_rep_suffix: bool = False, include_domain_prefix: bool = False) -> list[str]:
        """Names of the tags, sorted."""
        return self._domain_names(DOMAIN_TAGS, include_rep_suffix, include_domain_prefix)

    def get_all_keys(self, *, include_rep_suffix: bool = True, include_domain_prefix: bool = True) -> list[str]:
        """Names of features, targets and tags, each sorted, then ``sample_uuids`` (with prefixes only)."""
        names = self._names if include_domain_prefix else self._names[:-1]
        return unique(spelled(name, include_domain_prefix, include_rep_suffix) for name in names)

    # --- shapes and dtypes -----------------------------------------------------------------------------------------

    def get_feature_shapes(self, *, include_rep_suffix: bool = True, include_domain_prefix: bool = False) -> dict[str, tuple[int, ...]]:
        """Inner shape by name, of the features."""
        return facts_of(self._names, DOMAIN_FEATURES, include_rep_suffix, include_domain_prefix, self.shape)

    def get_target_shapes(self, *, include_rep_suffix: bool = True, include_domain_prefix: bool = False) -> dict[str, tuple[int, ...]]:
        """Inner shape by name, of the targets."""
        return facts_of(self._names, DOMAIN_TARGETS, include_rep_suffix, include_domain_prefix, self.shape)

    def get_tag_shapes(self, *, include_rep_suffix: bool = True, include_domain_prefix: bool = False) -> dict[str, tuple[int, ...]]:
        """Inner shape by name, of the tags."""
        return facts_of(self._names, DOMAIN_TAGS, include_rep_suffix, include_domain_prefix, self.shape)

    def get_feature_dtypes(self, *, include_rep_suffix: bool = True, include_domain_prefix: bool = False) -> dict[str, str]:
        """Dtype by name, of the features."""
        return facts_of(self._names, DOMAIN_FEATURES, include_rep_suffix, include_domain_prefix, self.dtype)

    def get_target_dtypes(self, *, include_rep_suffix: bool = True, include_domain_prefix: bool = False) -> dict[str, str]:
        """Dtype by name, of the targets."""
        return facts_of(self._names, DOMAIN_TARGETS, include_rep_suffix, include_domain_prefix, self.dtype)

    def get_tag_dtypes(self, *, include_rep_suffix: bool = True, include_domain_prefix: bool = False) -> dict[str, str]:
        """Dtype by name, of the tags."""
        return facts_of(self._names, DOMAIN_TAGS, include_rep_suffix, include_domain_prefix, self.dtype)

    def get_reps(self, domain: str, key: str) -> list[str]:
        """Representations of a column.

        Raises:
            ValueError: Unknown domain or key.
        """
        self.check_key(domain, key)
        return self.schema.rep_keys(domain, key)

    def check_key(self, domain: str, key: str) -> None:
        """Refuse a key that is not there.

        Raises:
            ValueError: Unknown domain or key.
        """
        if key not in self.schema.domain_keys(domain):
            raise ValueError(f"no column {key!r} in {domain}; there are {', '.join(self.schema.domain_keys(domain)) or 'none'}")

    # --- data ------------------------------------------------------------------------------------------------------

    def get_features(
        self,
        fmt: DataFormat | str = DataFormat.DICT_NUMPY,
        *,
        keys: str | Sequence[str] | None = None,
        rep: str | None = REP_RAW,
        include_rep_suffix: bool = False,
        include_domain_prefix: bool = False,
    ) -> Any:
        """Features in a container.

        Args:
            fmt: The container.
            keys: Which; None for all.
            rep: Which representation; None for all, with their names as suffixes.
            include_rep_suffix: Whether names tell the representation.
            include_domain_prefix: Whether names tell the domain.

        Raises:
            ValueError: Unknown key.
        """
        return self._domain_data(DOMAIN_FEATURES, fmt, keys, rep, include_rep_suffix, include_domain_prefix)

    def get_targets(
        self,
        fmt: DataFormat | str = DataFormat.DICT_NUMPY,
        *,
        keys: str | Sequence[str] | None = None,
        rep: str | None = REP_RAW,
        include_rep_suffix: bool = False,
        include_domain_prefix: bool = False,
    ) -> Any:
        """Targets in a container; see :meth:`get_features`."""
        return self._domain_data(DOMAIN_TARGETS, fmt, keys, rep, include_rep_suffix, include_domain_prefix)

    def get_tags(
        self,
        fmt: DataFormat | str = DataFormat.DICT_NUMPY,
        *,
        keys: str | Sequence[str] | None = None,
        rep: str | None = REP_RAW,
        include_rep_suffix: bool = False,
        include_domain_prefix: bool = False,
    ) -> Any:
        """Tags in a container; see :meth:`get_features`."""
        return self._domain_data(DOMAIN_TAGS, fmt, keys, rep, include_rep_suffix, include_domain_prefix)

    def _domain_data(self, domain: str, fmt: Any, keys: Any, rep: str | None, suffix: bool, prefix: bool) -> Any:
        wanted = self.schema.domain_keys(domain) if keys is None else sorted(set(as_list(keys)))
        names = []
        for key in wanted:
            self.check_key(domain, key)
            reps = self.schema.rep_keys(domain, key)
            if rep is not None and rep not in reps:
                raise ValueError(f"column {key!r} has no representation {rep!r}; it has {', '.join(reps)}")
            names += [f"{domain}.{key}.{r}" for r in reps if rep in (None, r)]
        arrays = {spelled(name, prefix, suffix or rep is None): self.array(name) for name in names}
        return convert(arrays, fmt)

    def get_columns(
        self,
        *,
        columns: str | Sequence[str],
        fmt: DataFormat | str = DataFormat.DICT_NUMPY,
        include_domain_prefix: bool = True,
        include_rep_suffix: bool = True,
    ) -> Any:
        """Columns by full name; prefix and suffix are kept where names would otherwise be ambiguous.

        Raises:
            KeyError: No such column.
        """
        names = as_list(columns)
        parts = [split_column(name) for name in names if name != DOMAIN_SAMPLE_UUIDS]
        prefix = include_domain_prefix or len({domain for domain, _, _ in parts}) > 1
        suffix = include_rep_suffix or len({rep for _, _, rep in parts}) > 1
        return convert({spelled(name, prefix, suffix): self.array(name) for name in names}, fmt)

    def get_sample_uuids(self, fmt: DataFormat | str = DataFormat.NUMPY) -> Any:
        """Ids of all rows, shape (N,)."""
        return convert_uuids(self.array(DOMAIN_SAMPLE_UUIDS), fmt, DOMAIN_SAMPLE_UUIDS)
