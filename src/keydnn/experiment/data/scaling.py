"""ScalerHistory: the scalers applied to a collection, in order, so that each can be replayed, undone and inverted.

``transformed`` always equals raw data sent through the stored fitted scalers in order; after an undo it is replayed, never inverted.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.data.collection import SampleCollection
from keydnn.experiment.names import COLUMN_DOMAINS, REP_RAW, REP_TRANSFORMED, as_list
from keydnn.experiment.scalers import Scaler, ScalerRecord
from keydnn.experiment.scalers.record import flatten, flatten_plan, unflatten

Array = NDArray[Any]
Rows = NDArray[np.int64]


class ScalerHistory:
    """Scaler records of one feature set; the oldest first."""

    def __init__(self, records: Sequence[ScalerRecord] = ()) -> None:
        self.records = list(records)

    # --- applying --------------------------------------------------------------------------------------------------

    def apply(
        self,
        collection: SampleCollection,
        scaler: Any,
        *,
        domain: str,
        keys: str | Sequence[str] | None,
        fit_split: str | None,
        fit_rows: Rows | None,
        merged_axes: int | Sequence[int] | None,
    ) -> None:
        """Fit a copy of a scaler to ``fit_rows``, transform all rows, store them as ``transformed`` and add a record.

        Raises:
            ValueError: Unknown domain or keys, shapes that need ``merged_axes``, or a scaler that changes the shape.
            TypeError: Columns of text, or no scaler.
        """
        wanted = checked_keys(collection, domain, keys)
        made = Scaler(scaler).clone_unfitted()
        reps = {key: _newest(collection, domain, key) for key in wanted}
        stacked = _stacked(collection, domain, wanted, reps)
        axes = None if merged_axes is None else (merged_axes,) if isinstance(merged_axes, int) else tuple(merged_axes)
        plan = flatten_plan(stacked.shape, axes)
        made.fit(flatten(stacked if fit_rows is None else stacked[fit_rows], plan))
        record = ScalerRecord(len(self.records), domain, wanted, reps, REP_TRANSFORMED, fit_split, axes, plan, made)
        _store(collection, record, _through(record, stacked))
        self.records.append(record)

    def replay(self, collection: SampleCollection, domain: str, keys: Sequence[str]) -> dict[str, Array]:
        """What ``transformed`` is for keys that a record uses: raw data through the stored scalers of these and all joined keys."""
        records = [record for record in self.records if record.domain == domain]
        involved = self.involved(domain, keys)
        values = {key: collection.array(f"{domain}.{key}.{REP_RAW}") for key in involved}
        touched: set[str] = set()
        for record in records:
            if set(record.keys) <= involved:
                stacked = stack_keys({key: values[key] for key in record.keys})
                columns = _columns(_through(record, stacked), record)
                values.update(columns)
                touched.update(columns)
        return {key: values[key] for key in keys if key in touched}

    def involved(self, domain: str, keys: Iterable[str]) -> set[str]:
        """Keys and all keys that were scaled together with them."""
        return _closure(set(keys), [record for record in self.records if record.domain == domain])

    # --- undoing ---------------------------------------------------------------------------------------------------

    def undo_last(self, collection: SampleCollection, domain: str, keys: str | Sequence[str] | None) -> ScalerRecord:
        """Remove the newest record with exactly these keys and replay what is left.

        Raises:
            ValueError: There is none, or a newer record shares a key with it.
        """
        wanted = set(checked_keys(collection, domain, keys))
        record = self._last(domain, wanted)
        self._remove(collection, record)
        return record

    def _last(self, domain: str, wanted: set[str]) -> ScalerRecord:
        mine = [record for record in reversed(self.records) if record.domain == domain]
        for i, record in enumerate(mine):
            if set(record.keys) == wanted:
                for newer in mine[:i]:
                    if wanted & set(newer.keys):
                        raise ValueError(
                            f"the transform of {_told(wanted)} in {domain} is blocked by a newer one on {_told(newer.keys)}:"
                            f" undo {_told(newer.keys)} first"
                        )
                return record
        for record in mine:
            if set(record.keys) > wanted:
                raise ValueError(
                    f"no transform on exactly {_told(wanted)} in {domain}; a joint one used {_told(record.keys)}: undo those keys first"
                )
        raise ValueError(f"nothing to undo: no transform on exactly {_told(wanted)} in {domain}")

    def _remove(self, collection: SampleCollection, record: ScalerRecord) -> None:
        before = self.records
        with contextlib.ExitStack() as undo:
            undo.callback(setattr, self, "records", before)
            self.records = [other for other in before if other is not record]
            values = self.replay(collection, record.domain, record.keys)
            undo.pop_all()
        if values:
            collection.add_reps(record.domain, REP_TRANSFORMED, values, overwrite=True)
        for key in record.keys:
            if key not in values:
                collection.delete_rep(record.domain, key, REP_TRANSFORMED)
        for order, other in enumerate(self.records):
            other.order = order

    def undo_all(self, collection: SampleCollection, domain: str | None, keys: str | Sequence[str] | None) -> None:
        """Undo every record of the domains, newest first; with keys, every record on exactly these keys.

        Raises:
            ValueError: A record is blocked by a newer one that shares a key: it stopped early.
        """
        for name in COLUMN_DOMAINS if domain is None else (domain,):
            if keys is None:
                checked_keys(collection, name, None)
                for record in [r for r in reversed(self.records) if r.domain == name]:
                    self._remove(collection, record)
                continue
            present = set(as_list(keys)) <= set(collection.schema.domain_keys(name))
            if domain is not None or present:
                self._undo_keys(collection, name, set(checked_keys(collection, name, keys)))

    def _undo_keys(self, collection: SampleCollection, domain: str, wanted: set[str]) -> None:
        done = 0
        while any(record.domain == domain and set(record.keys) == wanted for record in self.records):
            try:
                record = self._last(domain, wanted)
            except ValueError as error:
                raise ValueError(f"stopped early, after {done} undone: {error}") from error
            self._remove(collection, record)
            done += 1

    # --- inverting foreign data ------------------------------------------------------------------------------------

    def on_columns(self, domain: str, keys: Sequence[str]) -> Iterator[ScalerRecord]:
        """Records that have to be inverted for columns, newest first.

        Raises:
            ValueError: A joint scaler of more columns, a partial overlap, or no record at all.

        Warns:
            UserWarning: A joint scaler on some of the columns that cannot be applied to them alone: it stops there.
        """
        wanted = set(keys)
        touching = [r for r in reversed(self.records) if r.domain == domain and wanted & set(r.keys)]
        if not touching:
            raise ValueError(f"no scaler was applied to {_told(wanted)} in {domain}")
        for record in touching:
            theirs = set(record.keys)
            if theirs > wanted:
                raise ValueError(
                    f"a joint scaler on {_told(theirs)} cannot be inverted for {_told(wanted)} alone: ask for all of its columns"
                )
            if not theirs <= wanted:
                raise ValueError(f"a scaler on {_told(theirs)} overlaps {_told(wanted)} in part and cannot be inverted for them")
            if theirs < wanted and not record.scaler_obj.is_separable:
                told = f"{record.scaler_obj.scaler_name} on {_told(theirs)} mixes columns and covers only some of {_told(wanted)}"
                warnings.warn(f"{told}: unscaling stops before it and is partial", UserWarning, stacklevel=4)
                return
            yield record

    def unscale(self, data: Any, domain: str, keys: Sequence[str], rows: Rows | None = None) -> Array:
        """``data`` of columns back in raw units.

        Args:
            data: (n, K), (n,), (n, 1, L) or the stacked shape of the columns, in the order of ``keys``.
            domain: Domain of the columns.
            keys: Keys of the columns.
            rows: Rows of the feature set the data belong to, for scalers that remember rows.

        Raises:
            ValueError: See :meth:`on_columns`, or a shape that does not fit.
        """
        array = np.asarray(data)
        records = list(self.on_columns(domain, keys))
        if not records:
            return array.copy()
        inner = tuple(records[0].flatten_meta["shape"][2:])
        stacked = _as_stacked(array, len(keys), inner).copy()
        if stacked.dtype.kind != "f":
            stacked = stacked.astype(np.float64)
        for record in records:
            at = [list(keys).index(key) for key in record.keys]
            scaler = record.scaler_obj if rows is None else record.scaler_obj.for_rows(_flat_rows(rows, record))
            plan = {**record.flatten_meta, "shape": (len(stacked), *record.flatten_meta["shape"][1:])}
            back = scaler.inverse_transform(flatten(np.ascontiguousarray(stacked[:, at]), plan))
            stacked = stacked.astype(np.result_type(stacked, back), copy=False)
            stacked[:, at] = unflatten(back, plan, len(stacked))
        return stacked.reshape(array.shape)


def _flat_rows(rows: Rows, record: ScalerRecord) -> Rows:
    """Rows of the 2-D array a scaler saw that belong to rows of the feature set."""
    sizes = [record.flatten_meta["shape"][axis] for axis in record.flatten_meta["rows"]]
    grid = np.arange(int(np.prod(sizes, dtype=np.int64))).reshape(sizes)
    axis = record.flatten_meta["rows"].index(0)
    return np.take(grid, rows, axis=axis).reshape(-1)


def _as_stacked(array: Array, n_keys: int, inner: tuple[int, ...]) -> Array:
    want = (n_keys, *inner)
    size = int(np.prod(want, dtype=np.int64))
    fits = array.ndim >= 1 and len(array) * size == array.size
    if not fits or (array.ndim > 2 and tuple(n for n in array.shape[1:] if n != 1) != tuple(n for n in want if n != 1)):
        raise ValueError(
            f"data of shape {array.shape} do not fit {n_keys} columns of inner shape {inner}, expected (n, {n_keys}, *{inner})"
        )
    return array.reshape(len(array), *want)


def _told(keys: Any) -> str:
    return "{" + ", ".join(sorted(keys)) + "}"


def checked_keys(collection: SampleCollection, domain: str, keys: str | Sequence[str] | None) -> tuple[str, ...]:
    """Keys in the order given; all of the domain for None.

    Raises:
        ValueError: Unknown domain or key, a key twice, or no key at all.
    """
    known = collection.schema.domain_keys(domain)
    wanted = tuple(known if keys is None else as_list(keys))
    missing = [key for key in wanted if key not in known]
    if missing or len(set(wanted)) != len(wanted) or (not wanted and keys is not None):
        raise ValueError(f"keys {list(wanted)} of {domain}: expected distinct ones of {', '.join(known) or 'none'}")
    return wanted


def _newest(collection: SampleCollection, domain: str, key: str) -> str:
    return REP_TRANSFORMED if REP_TRANSFORMED in collection.schema.rep_keys(domain, key) else REP_RAW


def stack_keys(values: Mapping[str, Array]) -> Array:
    """Columns on a new axis 1, in the order given, as floats.

    Raises:
        ValueError: No column, or columns of different inner shapes.
        TypeError: Columns that hold no numbers.
    """
    shapes = {key: value.shape[1:] for key, value in values.items()}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"columns of different inner shapes cannot be scaled together: {shapes or 'no columns'}")
    for key, value in values.items():
        if value.dtype.kind not in "biuf":
            raise TypeError(f"column {key!r} holds {value.dtype} values; only numbers can be scaled (encode_labels(key) makes integers)")
    stacked = np.stack(list(values.values()), axis=1)
    return stacked if stacked.dtype.kind == "f" else stacked.astype(np.float64)


def _stacked(collection: SampleCollection, domain: str, keys: Sequence[str], reps: Mapping[str, str]) -> Array:
    return stack_keys({key: collection.array(f"{domain}.{key}.{reps[key]}") for key in keys})


def _through(record: ScalerRecord, stacked: Array) -> Array:
    out = record.scaler_obj.transform(flatten(stacked, record.flatten_meta))
    return unflatten(out, record.flatten_meta, len(stacked))


def _columns(stacked: Array, record: ScalerRecord) -> dict[str, Array]:
    return {key: stacked[:, i] for i, key in enumerate(record.keys)}


def _store(collection: SampleCollection, record: ScalerRecord, stacked: Array) -> None:
    collection.add_reps(record.domain, record.rep_out, _columns(stacked, record), overwrite=True)


def _closure(keys: set[str], records: Sequence[ScalerRecord]) -> set[str]:
    """The keys and all keys that were scaled together with them."""
    grown = set(keys)
    for _ in records:
        for record in records:
            if grown & set(record.keys):
                grown |= set(record.keys)
    return grown
