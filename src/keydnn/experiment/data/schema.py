"""SampleSchema: which columns there are, by domain, key and representation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from keydnn.experiment.data.storage import dtype_name, inner_shape, to_arrow
from keydnn.experiment.names import (
    ALL_REPS,
    COLUMN_DOMAINS,
    DOMAIN_SAMPLE_UUIDS,
    METADATA_PREFIX,
    METADATA_SCHEMA_VERSION_KEY,
    REP_RAW,
    SCHEMA_VERSION,
    check_key,
    check_name,
    split_column,
)  # fmt: skip

Types = Mapping[str, Mapping[str, pa.DataType]]


class SampleSchema:
    """Columns by domain, key and representation, with their Arrow types; compared by value.

    Args:
        features: Key to representation to type.
        targets: Likewise.
        tags: Likewise.

    Raises:
        ValueError: A key that stands in two domains, is reserved or has a forbidden character.
    """

    def __init__(self, features: Types = {}, targets: Types = {}, tags: Types = {}) -> None:  # noqa: B006 - never changed
        self._domains = {
            domain: {key: dict(reps) for key, reps in types.items()}
            for domain, types in zip(COLUMN_DOMAINS, (features, targets, tags), strict=True)
        }
        owner: dict[str, str] = {}
        for domain, types in self._domains.items():
            for key, reps in types.items():
                check_key(key)
                for rep in reps:
                    if rep not in ALL_REPS:
                        check_name(rep, "representation")
                if owner.setdefault(key, domain) != domain:
                    raise ValueError(f"column key {key!r} stands in {owner[key]} and in {domain}; a key belongs to one domain")

    @property
    def features(self) -> dict[str, dict[str, pa.DataType]]:
        """Key to representation to type, of the inputs."""
        return self._domains["features"]

    @property
    def targets(self) -> dict[str, dict[str, pa.DataType]]:
        """Key to representation to type, of the targets."""
        return self._domains["targets"]

    @property
    def tags(self) -> dict[str, dict[str, pa.DataType]]:
        """Key to representation to type, of the tags."""
        return self._domains["tags"]

    def _domain(self, domain: str) -> dict[str, dict[str, pa.DataType]]:
        if domain not in self._domains:
            raise ValueError(f"unknown domain {domain!r}; expected one of {', '.join(COLUMN_DOMAINS)}")
        return self._domains[domain]

    def domain_keys(self, domain: str) -> list[str]:
        """Keys of a domain, sorted.

        Raises:
            ValueError: Unknown domain.
        """
        return sorted(self._domain(domain))

    def domain_types(self, domain: str) -> dict[str, dict[str, pa.DataType]]:
        """Key to representation to type of a domain.

        Raises:
            ValueError: Unknown domain.
        """
        return {key: dict(reps) for key, reps in self._domain(domain).items()}

    def rep_keys(self, domain: str, key: str) -> list[str]:
        """Representations of a column.

        Raises:
            ValueError: Unknown domain.
            KeyError: Unknown key.
        """
        return list(self.rep_types(domain, key))

    def rep_types(self, domain: str, key: str) -> dict[str, pa.DataType]:
        """Representation to type of a column.

        Raises:
            ValueError: Unknown domain.
            KeyError: Unknown key.
        """
        types = self._domain(domain)
        if key not in types:
            raise KeyError(f"no column {key!r} in {domain}; there are {', '.join(sorted(types)) or 'none'}")
        return dict(types[key])

    @classmethod
    def from_table(cls, table: pa.Table) -> SampleSchema:
        """The schema that the column names of a table say.

        Raises:
            ValueError: A name that is not ``<domain>.<key>.<representation>``.
        """
        domains: dict[str, dict[str, dict[str, pa.DataType]]] = {domain: {} for domain in COLUMN_DOMAINS}
        for name, kind in zip(table.column_names, table.schema.types, strict=True):
            if name != DOMAIN_SAMPLE_UUIDS:
                domain, key, rep = split_column(name)
                domains[domain].setdefault(key, {})[rep] = kind
        return cls(**domains)

    def names(self) -> list[str]:
        """Full names of all columns: features, targets, tags, each sorted."""
        return [
            f"{domain}.{key}.{rep}"
            for domain in COLUMN_DOMAINS
            for key in sorted(self._domains[domain])
            for rep in _in_order(self._domains[domain][key])
        ]

    def __eq__(self, other: object) -> bool:
        return self._domains == other._domains if isinstance(other, SampleSchema) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        told = ", ".join(f"{domain}={self.domain_keys(domain)}" for domain in COLUMN_DOMAINS)
        return f"SampleSchema({told})"


def _in_order(reps: Mapping[str, Any]) -> list[str]:
    """raw first, then by alphabet."""
    return sorted(reps, key=lambda rep: (rep != REP_RAW, rep))


def metadata_of(fields: Mapping[str, pa.DataType]) -> dict[str, str]:
    """The metadata of a table: version, and shape and dtype per column."""
    told = {METADATA_SCHEMA_VERSION_KEY: SCHEMA_VERSION}
    for name, kind in fields.items():
        told[f"{METADATA_PREFIX}.{name}.shape"] = str(list(inner_shape(kind)[0]))
        told[f"{METADATA_PREFIX}.{name}.dtype"] = dtype_name(kind)
    return told


def build_sample_schema_table(
    *, features: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray], tags: Mapping[str, np.ndarray] | None = None
) -> pa.Table:
    """A table of raw columns from arrays with samples along axis 0.

    Args:
        features: Key to array ``(N, *inner)``; a trailing axis of size 1 is dropped.
        targets: Likewise.
        tags: Likewise.

    Returns:
        A table with columns ``<domain>.<key>.raw``; numeric arrays are shared, not copied.

    Raises:
        ValueError: No axis, lengths that differ, a bad key, or a key in two domains.

    Example:
        >>> from keydnn.experiment.data import build_sample_schema_table
        >>> build_sample_schema_table(features={"x": np.ones((4, 3))}, targets={"y": np.arange(4)}).column_names
        ['features.x.raw', 'targets.y.raw']
    """
    table = raw_table({"features": features, "targets": targets, "tags": tags or {}})
    return table.replace_schema_metadata(metadata_of({field.name: field.type for field in table.schema}))


def raw_table(domains: Mapping[str, Mapping[str, Any]]) -> pa.Table:
    """:func:`build_sample_schema_table` without the metadata, from domain to key to values."""
    columns: dict[str, pa.Array] = {}
    owner: dict[str, str] = {}
    for domain, arrays in domains.items():
        for key, values in arrays.items():
            if owner.setdefault(check_key(key), domain) != domain:
                raise ValueError(f"column key {key!r} stands in {owner[key]} and in {domain}; a key belongs to one domain")
            name = f"{domain}.{key}.{REP_RAW}"
            columns[name] = to_arrow(values, name)
    if len({len(column) for column in columns.values()}) > 1:
        told = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        raise ValueError(f"columns have different numbers of samples: {told}")
    return pa.table(columns)
