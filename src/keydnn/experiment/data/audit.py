"""Audit: what makes results dishonest.

Overlapping splits, the same row in two splits, a scaler that saw too much, columns that say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.data.storage import to_arrow
from keydnn.experiment.data.subsets import real
from keydnn.experiment.names import COLUMN_DOMAINS, DOMAIN_FEATURES, DOMAIN_TAGS, REP_RAW
from keydnn.experiment.optional import need

MANY = 1000  # row numbers kept in one finding
_PRIME = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Finding:
    """One thing to look at.

    Attributes:
        kind: split_overlap, duplicate_rows, scaler_leak, nan_column or constant_column.
        columns: Full names it is about.
        splits: Splits it is about.
        count: How many rows.
        rows: The first of them, at most 1000.
    """

    kind: str
    columns: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    count: int = 0
    rows: tuple[int, ...] = ()


@dataclass
class AuditReport:
    """What an audit found.

    Attributes:
        findings: Everything, leaks first.

    Example:
        >>> from keydnn.experiment.data import FeatureSet
        >>> fs = FeatureSet.from_dict("few", {"x": [1.0, 2.0, 1.0, 4.0]}, "x", [])
        >>> fs.add_split(fs.take([0, 1], "train"))
        >>> fs.add_split(fs.take([2, 3], "test"))
        >>> [(finding.kind, finding.rows) for finding in fs.audit().findings]
        [('duplicate_rows', (0, 2))]
    """

    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def to_pandas(self) -> Any:
        """A DataFrame with one line per finding."""
        names = list(Finding.__dataclass_fields__)
        frame = need("pandas", "AuditReport.to_pandas").DataFrame
        return frame([{name: getattr(finding, name) for name in names} for finding in self.findings], columns=names)


def audit(fs: Any, splits: Sequence[str]) -> AuditReport:
    """Findings about a feature set and some of its splits.

    Raises:
        KeyError: No such split.
    """
    registry = fs.split_registry
    rows = {name: real(registry.rows(name)) for name in splits}
    found = [*_overlaps(registry, rows), *_duplicates(fs, registry, rows), *_scaler_leaks(fs, registry, rows), *_columns(fs)]
    return AuditReport(found)


def _finding(kind: str, rows: NDArray[Any], **about: Any) -> Finding:
    return Finding(kind, count=len(rows), rows=tuple(rows[:MANY].tolist()), **about)


def _unrelated(registry: Any, names: Any) -> list[tuple[str, str]]:
    """Pairs of splits of which none was cut from the other."""
    return [(a, b) for a, b in combinations(names, 2) if a not in registry.ancestors(b) and b not in registry.ancestors(a)]


def _overlaps(registry: Any, rows: dict[str, NDArray[np.int64]]) -> list[Finding]:
    shared = {pair: np.intersect1d(rows[pair[0]], rows[pair[1]]) for pair in _unrelated(registry, rows)}
    return [_finding("split_overlap", both, splits=pair) for pair, both in shared.items() if len(both)]


def _duplicates(fs: Any, registry: Any, rows: dict[str, NDArray[np.int64]]) -> list[Finding]:
    """Rows with equal raw features that stand in two unrelated splits."""
    names = [name for name in fs.get_all_keys() if name.startswith(f"{DOMAIN_FEATURES}.") and name.endswith(f".{REP_RAW}")]
    pairs = _unrelated(registry, rows)
    if not names or not pairs:
        return []
    keys = _row_keys([fs.values(name) for name in names])
    found = []
    for a, b in pairs:
        mine, theirs = np.setdiff1d(rows[a], rows[b]), np.setdiff1d(rows[b], rows[a])
        both = np.intersect1d(keys[mine], keys[theirs])
        twins = np.sort(np.concatenate([mine[np.isin(keys[mine], both)], theirs[np.isin(keys[theirs], both)]]))
        if len(twins):
            found.append(_finding("duplicate_rows", twins, columns=tuple(names), splits=(a, b)))
    return found


def _row_keys(columns: list[NDArray[Any]]) -> NDArray[np.int64]:
    """For each row a number that is equal for equal rows only: hashes, made exact by comparing rows whose hashes agree."""
    digest = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        for word in _words(column):
            digest = (digest ^ word) * _PRIME
            digest ^= digest >> np.uint64(29)
    _, first, inverse = np.unique(digest, return_index=True, return_inverse=True)
    same = np.ones(len(digest), dtype=bool)
    for column in columns:
        same &= _equal(column, column[first[inverse]])
    keys = inverse.astype(np.int64)
    keys[~same] = len(first) + np.flatnonzero(~same)  # two different rows with one hash
    return keys


def _equal(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    told = (a == b) | ((a != a) & (b != b)) if a.dtype.kind == "f" else a == b
    return told.reshape(len(a), -1).all(axis=1)


def _words(column: NDArray[Any]) -> list[NDArray[np.uint64]]:
    """A column as 64-bit words per row; equal values give equal words (-0.0 and 0.0 too)."""
    if column.dtype.kind not in "biufM":
        return [np.array([hash(str(value)) for value in column.tolist()], dtype=np.int64).view(np.uint64)]
    flat = column.reshape(len(column), -1)
    if flat.dtype.kind == "f":
        flat = flat.astype(np.float64) + 0.0
        flat[np.isnan(flat)] = np.nan
    else:
        flat = flat.astype(np.int64)
    return list(np.ascontiguousarray(flat).view(np.uint64).T)


def _scaler_leaks(fs: Any, registry: Any, rows: dict[str, NDArray[np.int64]]) -> list[Finding]:
    """Scalers fitted to rows of splits other than their own and those it was cut from or into."""
    found = []
    for record in fs.scaler_records:
        columns = tuple(f"{record.domain}.{key}.{record.rep_out}" for key in record.keys)
        if record.fit_split is None:
            if rows:
                everything = np.unique(np.concatenate(list(rows.values())))
                found.append(_finding("scaler_leak", everything, columns=columns, splits=tuple(rows)))
            continue
        fitted = real(registry.rows(record.fit_split)) if record.fit_split in registry.names else np.empty(0, np.int64)
        leaf = [name for name in rows if name != record.fit_split and not any(name in registry.ancestors(o) for o in rows if o != name)]
        seen = {name: np.intersect1d(fitted, rows[name]) for name in leaf if record.fit_split not in registry.ancestors(name)}
        touched = {name: both for name, both in seen.items() if len(both)}
        if touched:
            both = np.unique(np.concatenate(list(touched.values())))
            found.append(_finding("scaler_leak", both, columns=columns, splits=(record.fit_split, *touched)))
    return found


def _columns(fs: Any) -> list[Finding]:
    found = []
    for name in fs.get_all_keys():
        domain = name.split(".")[0]
        if domain not in COLUMN_DOMAINS or domain == DOMAIN_TAGS:
            continue
        values = fs.values(name)
        if values.dtype.kind == "f" and len(bad := np.flatnonzero(np.isnan(values).reshape(len(values), -1).any(axis=1))):
            found.append(_finding("nan_column", bad, columns=(name,)))
        if values.dtype == object and (nulls := to_arrow(values, name).null_count if values.ndim == 1 else 0):
            found.append(Finding("nan_column", columns=(name,), count=nulls))
        if len(values) > 1 and bool(_equal(values, np.broadcast_to(values[:1], values.shape)).all()):
            found.append(Finding("constant_column", columns=(name,), count=len(values)))
    return found
