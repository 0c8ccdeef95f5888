"""FeatureSetScalers: fitting, undoing and inverting the scalers of a feature set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from keydnn.experiment.data.collection import SampleCollection
from keydnn.experiment.data.scaling import ScalerHistory
from keydnn.experiment.names import REP_RAW, as_list
from keydnn.experiment.references import parse_column
from keydnn.experiment.scalers import Scaler, ScalerRecord


class FeatureSetScalers:
    """The scalers of a feature set; abstract.

    A class that derives from it has ``_samples``, ``_scalers``, ``label`` and ``node_id``, and says ``get_split``.
    """

    _samples: SampleCollection
    _scalers: ScalerHistory
    label: str
    node_id: Any

    def get_split(self, split_name: str) -> Any:
        """A split by name.

        Raises:
            KeyError: No such split.
        """
        raise NotImplementedError

    @property
    def scaler_records(self) -> list[ScalerRecord]:
        """The scalers applied, oldest first; a copy."""
        return list(self._scalers.records)

    records = scaler_records

    def fit_transform(
        self,
        scaler: Any,
        *,
        domain: str,
        keys: str | Sequence[str] | None = None,
        fit_to_split: str | None = None,
        merged_axes: int | Sequence[int] | None = None,
    ) -> None:
        """Fit a scaler to one split, transform all rows and store the result as ``transformed``.

        Args:
            scaler: Scaler, registered name, class or instance; a copy is fitted.
            domain: features, targets or tags.
            keys: Columns, scaled together in this order; None for all of the domain.  Each continues from its newest representation.
            fit_to_split: Split whose rows are fitted; None for all rows.
            merged_axes: Axes of the stacked columns ``(N, K, *inner)`` that form one side of the scaler's 2-D array.

        Raises:
            ValueError: Unknown domain or keys, or shapes that need ``merged_axes``.
            KeyError: No such split; nothing is changed.
            TypeError: Text, or no scaler.
        """
        rows = None if fit_to_split is None else self.get_split(fit_to_split).valid_indices
        self._scalers.apply(self._samples, scaler, domain=domain, keys=keys, fit_split=fit_to_split, fit_rows=rows, merged_axes=merged_axes)

    def undo_last_transform(self, domain: str, keys: str | Sequence[str] | None = None) -> None:
        """Undo the newest transform on exactly these keys (None: all of the domain); values are replayed from raw.

        Raises:
            ValueError: There is none, or a newer one shares a key.
        """
        self._scalers.undo_last(self._samples, domain, keys)

    def undo_all_transforms(self, domain: str | None = None, keys: str | Sequence[str] | None = None) -> None:
        """Undo every transform of the domain (None: all domains); with keys, every one on exactly these keys.

        Raises:
            ValueError: One is blocked by a newer one; it stopped early.
        """
        self._scalers.undo_all(self._samples, domain, keys)

    def _keys_of(self, domain: str, columns: str | Sequence[str]) -> list[str]:
        return [
            parse_column(text, [self], {"node_id": self.node_id, "domain": domain, **_rep_of(text)}).key or "" for text in as_list(columns)
        ]

    def iter_scalers_on_cols(self, *, domain: str, columns: str | Sequence[str]) -> Iterator[Scaler]:
        """The scalers whose inverses bring these columns back to raw, newest first.

        Raises:
            ValueError: A joint scaler of more columns, a partial overlap, or no record.
        """
        for record in self._scalers.on_columns(domain, self._keys_of(domain, columns)):
            yield record.scaler_obj

    def unscale_data_for_cols(self, *, data: NDArray[Any], domain: str, columns: str | Sequence[str]) -> NDArray[Any]:
        """Data in the scaled units of columns, back in raw units.

        Args:
            data: (n, K), (n,), (n, 1, L) or the stacked shape of the columns, in the order of ``columns``.
            domain: Domain of the columns.
            columns: Their names.

        Raises:
            ValueError: See :meth:`iter_scalers_on_cols`, or a shape that does not fit.
            NotInvertibleError: A scaler has no inverse, or remembers other rows; then use :meth:`unscale_rows`.
        """
        return self._scalers.unscale(data, domain, self._keys_of(domain, columns))

    def unscale_rows(self, *, data: NDArray[Any], sample_uuids: Sequence[str], domain: str, columns: str | Sequence[str]) -> NDArray[Any]:
        """Like :meth:`unscale_data_for_cols` for data of known samples, so that scalers that remember rows find theirs.

        Raises:
            ValueError: An id that is not in this set, or a shape that does not fit.
        """
        rows = self._samples.rows_of_uuids(list(sample_uuids))
        if (rows < 0).any():
            raise ValueError(f"{int((rows < 0).sum())} of {len(rows)} ids are not in {self.label!r}")
        return self._scalers.unscale(data, domain, self._keys_of(domain, columns), rows)

    def replayed(self, domain: str, keys: Sequence[str]) -> dict[str, NDArray[Any]]:
        """What ``transformed`` should be: raw values through the stored fitted scalers, by key."""
        return self._scalers.replay(self._samples, domain, keys)

    def scaled_together(self, domain: str, keys: Sequence[str]) -> set[str]:
        """Keys, and all keys of the domain that were scaled together with them."""
        return self._scalers.involved(domain, keys)

    def scaled(self, domain: str, raw: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """New raw values as the stored fitted scalers make them, by key; keys that no scaler was applied to are left out.

        Args:
            domain: Domain of the columns.
            raw: Key to array (n, ...), all of one length; nothing of it, and no stored scaler, is changed.

        Raises:
            ValueError: A scaler was fitted to these and other columns together, and the others are missing.
        """
        copies = ScalerHistory([replace(record, scaler_obj=record.scaler_obj.copy()) for record in self._scalers.records])
        missing = self.scaled_together(domain, list(raw)) - set(raw)
        if missing:
            raise ValueError(f"columns of {self.label!r} were scaled together with {', '.join(sorted(missing))}: these are needed, too")
        columns = {f"{domain}.{key}.{REP_RAW}": values for key, values in raw.items()}
        return copies.replay(_Arrays(columns), domain, list(raw))  # type: ignore[arg-type]


class _Arrays:
    """Columns as a collection gives them."""

    def __init__(self, columns: Mapping[str, NDArray[Any]]) -> None:
        self._columns = columns

    def array(self, name: str) -> NDArray[Any]:
        return self._columns[name]


def _rep_of(text: str) -> dict[str, str]:
    """Columns are named by key here: raw stands in for an unnamed representation, without a warning."""
    return {} if text.split(".")[-1] in ("raw", "transformed") else {"rep": REP_RAW}
