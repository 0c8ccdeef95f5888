"""Contracts: what the rooms of this wing expect of each other, as structural types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self, runtime_checkable


@runtime_checkable
class IConfigurable(Protocol):
    """Says what the user chose, as plain values."""

    def get_config(self) -> dict[str, Any]: ...


@runtime_checkable
class IStateful(Protocol):
    """Says what a run learned, and takes it back."""

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class INode(Protocol):
    """What a context registers."""

    label: str

    @property
    def node_id(self) -> str: ...


@runtime_checkable
class IColumns(INode, Protocol):
    """A node with columns."""

    def get_all_keys(self, *, include_rep_suffix: bool = True, include_domain_prefix: bool = True) -> list[str]: ...

    def select(self, columns: Any = None) -> Any: ...


@runtime_checkable
class IScaler(Protocol):
    """Learns from an array of shape (n_samples, n_features) and changes such arrays."""

    def fit(self, X: Any) -> Any: ...

    def transform(self, X: Any) -> Any: ...


@runtime_checkable
class IInvertible(Protocol):
    """A scaler that can be undone."""

    def inverse_transform(self, X: Any) -> Any: ...


@runtime_checkable
class IRowwise(Protocol):
    """A scaler whose inverse belongs to the rows of its last transform."""

    def for_rows(self, rows: Any) -> Self: ...


@runtime_checkable
class ISplitter(Protocol):
    """Cuts a view into named parts."""

    def split(self, view: Any, *, return_views: bool = True) -> Mapping[str, Any]: ...


@runtime_checkable
class ISampler(Protocol):
    """Turns a source of samples into batches."""

    def bind_sources(self, sources: Any) -> None: ...

    def materialize_batches(self, *, show_progress: bool = True) -> None: ...


@runtime_checkable
class IDrawable(Protocol):
    """Describes itself as a diagram."""

    def diagram(self, options: Any = None) -> Any: ...
