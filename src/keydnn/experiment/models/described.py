"""Described: a framework's module told in plain values, so that a config can hold it and a file can name it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.equality import same_values


class Described:
    """What a module is made of, without its weights.

    Args:
        backend: Whose module.
        tree: What the backend's adapter says of it.

    Example:
        >>> from keydnn.experiment.models.described import Described
        >>> told = Described.of("keydnn", keydnn.Sequential(keydnn.nn.Linear(3, 2), keydnn.nn.Tanh()))
        >>> told.make()[0].in_features
        3
    """

    def __init__(self, backend: Backend | str, tree: Mapping[str, Any]) -> None:
        self.backend, self.tree = Backend.from_value(backend), dict(tree)

    @classmethod
    def of(cls, backend: Backend | str, module: Any) -> Described | None:
        """A module told; None if it does not keep what it was made with."""
        tree = adapter(Backend.from_value(backend)).describe(module)
        return None if tree is None else cls(backend, tree)

    def make(self) -> Any:
        """A module of this kind with fresh weights."""
        return adapter(self.backend).made(self.tree)

    def get_config(self) -> dict[str, Any]:
        """``backend`` and ``tree``."""
        return {"backend": self.backend.value, "tree": self.tree}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Take back :meth:`get_config`."""
        return cls(config["backend"], config["tree"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Described) and same_values(self.get_config(), other.get_config())

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"Described({self.backend.value!r}, {self.tree})"
