"""BatchView and SampledView: batches as row numbers; tensors are made when a batch is materialised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.data.access import Rows
from keydnn.experiment.data.batch import Batch
from keydnn.experiment.data.feature_set import FeatureSet
from keydnn.experiment.data.formats import DataFormat, backend_of_format
from keydnn.experiment.data.gather import gathering
from keydnn.experiment.data.roles import RoleData
from keydnn.experiment.data.selectors import Names
from keydnn.experiment.data.splitting import frozen_rows
from keydnn.experiment.data.view import FeatureSetView, check_rows
from keydnn.experiment.visualization.summary import summary_box


class BatchView:
    """Rows of a feature set by role; frozen.

    Args:
        source: The feature set.
        role_indices: Role to row numbers, -1 for padding; all of one length.
        role_indice_weights: Role to weights; None means 1.

    Raises:
        TypeError: ``source`` is no FeatureSet, or ``role_indices`` no dict.
        ValueError: No role, weights for other roles, or lengths that differ.
        IndexError: A row that is not there.
    """

    __slots__ = ("_indices", "_source", "_weights")
    _source: Any
    _indices: dict[str, Rows]
    _weights: dict[str, NDArray[Any]] | None

    def __init__(self, source: Any, role_indices: dict[str, Any], role_indice_weights: Mapping[str, Any] | None = None) -> None:
        if not isinstance(source, FeatureSet):
            raise TypeError(f"BatchView needs a FeatureSet, got {type(source).__name__}")
        if not isinstance(role_indices, dict):
            raise TypeError(f"role_indices must be a dict, got {type(role_indices).__name__}")
        indices = {role: frozen_rows(rows) for role, rows in role_indices.items()}
        if len({len(rows) for rows in indices.values()}) != 1:
            raise ValueError(f"roles must be there and have one length, got { {role: len(rows) for role, rows in indices.items()} }")
        for rows in indices.values():
            check_rows(rows, source.n_samples)
        weights = None if role_indice_weights is None else {role: np.asarray(w) for role, w in role_indice_weights.items()}
        if weights is not None and {r: len(w) for r, w in weights.items()} != {r: len(i) for r, i in indices.items()}:
            raise ValueError(f"weights must be given for the roles {sorted(indices)} in their lengths, got {sorted(weights)}")
        object.__setattr__(self, "_source", source)
        object.__setattr__(self, "_indices", indices)
        object.__setattr__(self, "_weights", weights)

    @classmethod
    def trusted(cls, source: Any, indices: dict[str, Rows], weights: dict[str, Any] | None) -> BatchView:
        """A view from parts that a sampler has checked already."""
        made = cls.__new__(cls)
        object.__setattr__(made, "_source", source)
        object.__setattr__(made, "_indices", indices)
        object.__setattr__(made, "_weights", weights)
        return made

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a BatchView is frozen; {name!r} cannot be set")

    @property
    def source(self) -> Any:
        """The feature set."""
        return self._source

    @property
    def role_indices(self) -> dict[str, Rows]:
        """Role to row numbers; a copy of the dict."""
        return dict(self._indices)

    @property
    def role_indice_weights(self) -> dict[str, NDArray[Any]] | None:
        """Role to weights; None means 1."""
        return None if self._weights is None else dict(self._weights)

    @property
    def roles(self) -> list[str]:
        """Names of the roles."""
        return list(self._indices)

    @property
    def n_samples(self) -> int:
        """Rows per role."""
        return len(next(iter(self._indices.values())))

    def __len__(self) -> int:
        return len(next(iter(self._indices.values())))

    def rows(self, role: str) -> Rows:
        """Row numbers of a role.

        Raises:
            KeyError: Unknown role.
        """
        if role not in self._indices:
            raise KeyError(f"no role {role!r}; there are {', '.join(self._indices)}")
        return self._indices[role]

    def get_role_mask(self, role: str) -> NDArray[np.int8]:
        """1 where a row is real, 0 where it is padding.

        Raises:
            KeyError: Unknown role.
        """
        return (self.rows(role) >= 0).astype(np.int8)

    @property
    def is_plain(self) -> bool:
        """Whether every row counts once: no weights, no padding."""
        return self._weights is None and not any(_is_padded(rows) for rows in self._indices.values())

    @property
    def role_masks(self) -> dict[str, NDArray[np.int8]]:
        """Masks of all roles."""
        return {role: self.get_role_mask(role) for role in self._indices}

    def get_role_view(self, role: str) -> FeatureSetView:
        """The rows of a role as a view with all columns.

        Raises:
            KeyError: Unknown role.
        """
        return FeatureSetView(self._source, self.rows(role), self._source.get_all_keys(), role)

    def materialize_batch(
        self,
        fmt: DataFormat | str = DataFormat.NUMPY,
        *,
        columns: Names = None,
        features: Names = None,
        targets: Names = None,
        tags: Names = None,
        rep: str | None = None,
    ) -> Batch:
        """The tensors.

        Args:
            fmt: Tensor-like format of features and targets; tags and ids are arrays.
            columns: Full names.
            features: Selectors; a domain without any has all of its columns.
            targets: Selectors.
            tags: Selectors.
            rep: Representation for selectors that name none.

        Raises:
            TypeError: A format that is not tensor-like.
            KeyError: No column fits.

        Warns:
            UserWarning: A key is taken in two representations.
        """
        fmt = DataFormat.from_value(fmt)
        if not fmt.is_tensor_like:
            raise TypeError(f"materialize_batch needs a tensor-like format such as 'numpy' or 'torch', got {fmt.value!r}")
        backend = backend_of_format(fmt)
        reader = gathering(self._source.collection, (columns, features, targets, tags), rep)
        data = {role: reader.read(rows, _is_padded(rows), backend) for role, rows in self._indices.items()}
        n = self.n_samples
        return Batch.trusted(n, RoleData(data), *self.weights_and_masks(np.ones(n), np.ones(n, dtype=np.int8)))

    def weights_and_masks(self, ones: NDArray[Any], mask: NDArray[np.int8]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Weights and masks by role; those of rows that are padding are 0.

        Args:
            ones: The weights where there are none, shape (n_samples,).
            mask: The mask where no row is padding, shape (n_samples,).
        """
        weights, masks = {}, {}
        for role, rows in self._indices.items():
            weights[role], masks[role] = ones if self._weights is None else self._weights[role], mask
            if _is_padded(rows):
                masks[role] = self.get_role_mask(role)
                weights[role] = weights[role] * masks[role]
        return weights, masks

    def summary(self, max_width: int = 88) -> str:
        """A box of text with source, size and roles."""
        rows: list[tuple[str, Any]] = [("source", self._source.label), ("n_samples", self.n_samples), ("roles", ", ".join(self.roles))]
        return summary_box("BatchView", rows, max_width)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BatchView):
            return NotImplemented
        mine, theirs = self._indices, other._indices
        same = self._source is other._source and mine.keys() == theirs.keys() and all(np.array_equal(mine[r], theirs[r]) for r in mine)
        return bool(same and _same_weights(self._weights, other._weights))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"BatchView(source='{self._source.label}', roles={self.roles}, n_samples={self.n_samples})"


def _is_padded(rows: Rows) -> bool:
    return bool(len(rows)) and bool(rows.min() < 0)


def _same_weights(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    return all(np.array_equal(a[role], b[role]) for role in a)


class SampledView:
    """Streams of batches; an immutable mapping stream to list of batches.

    Args:
        streams: Stream to list of BatchView, all of one length.

    Raises:
        ValueError: No stream, or lists of different lengths.
        TypeError: A name that is not text, a value that is no list, or an element that is no BatchView.
    """

    def __init__(self, streams: Mapping[str, list[BatchView]]) -> None:
        if not streams:
            raise ValueError("SampledView needs at least one stream")
        for name, batches in streams.items():
            if not isinstance(name, str) or not isinstance(batches, list):
                raise TypeError(f"SampledView maps text to lists, got {type(name).__name__} to {type(batches).__name__}")
            for batch in batches:
                if not isinstance(batch, BatchView):
                    raise TypeError(f"stream {name!r} holds a {type(batch).__name__}, expected BatchView")
        if len({len(batches) for batches in streams.values()}) > 1:
            raise ValueError(f"streams differ in length: { {name: len(batches) for name, batches in streams.items()} }")
        self._streams = dict(streams)

    @property
    def stream_names(self) -> list[str]:
        """Names of the streams."""
        return list(self._streams)

    @property
    def num_streams(self) -> int:
        """Number of streams."""
        return len(self._streams)

    @property
    def num_batches(self) -> int:
        """Batches per stream."""
        return len(next(iter(self._streams.values())))

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[dict[str, BatchView]]:
        for i in range(self.num_batches):
            yield {name: batches[i] for name, batches in self._streams.items()}

    def get_stream(self, name: str) -> list[BatchView]:
        """Batches of a stream.

        Raises:
            KeyError: Unknown stream.
        """
        if name not in self._streams:
            raise KeyError(f"no stream {name!r}; there are {', '.join(self._streams)}")
        return self._streams[name]

    def __getitem__(self, name: str) -> list[BatchView]:
        return self.get_stream(name)

    def __getattr__(self, name: str) -> list[BatchView]:
        streams = self.__dict__.get("_streams", {})
        if name not in streams:
            raise AttributeError(f"SampledView has no stream or attribute {name!r}; streams: {', '.join(streams)}")
        return streams[name]

    def to_dict(self) -> dict[str, list[BatchView]]:
        """Stream to list of batches."""
        return {name: list(batches) for name, batches in self._streams.items()}

    def summary(self, max_width: int = 88) -> str:
        """A box of text with streams and their numbers of batches."""
        rows: list[tuple[str, Any]] = [("num_batches", self.num_batches)]
        streams = [(name, ", ".join(batches[0].roles) if batches else "") for name, batches in self._streams.items()]
        return summary_box("SampledView", [*rows, ("streams", streams)], max_width)

    def __repr__(self) -> str:
        return f"SampledView(streams={self.stream_names}, num_batches={self.num_batches})"
