"""BaseSplitter: cutting the rows of a view into named parts."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.equality import same_values
from keydnn.experiment.io import InYaml, Saved
from keydnn.experiment.names import as_list
from keydnn.experiment.splitters.registry import splitter_registry

Positions = NDArray[np.int64]


class BaseSplitter(Saved, InYaml):
    """Cuts the rows of a view into named parts; derive from it and register the class to add a way to cut."""

    kind: ClassVar[str] = "sp"

    def split(self, view: Any, *, return_views: bool = True) -> Mapping[str, Any]:
        """The parts of a view.

        Args:
            view: A FeatureSetView.
            return_views: Whether to answer with views, or with positions in ``view``.

        Raises:
            NotImplementedError: A subclass has to say.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how to split")

    @staticmethod
    def checked_positions(positions: Sequence[int] | Positions, n: int) -> Positions:
        """Positions as an int64 array.

        Raises:
            IndexError: One is outside ``[0, n)``.
        """
        array = np.asarray(positions, dtype=np.int64)
        if array.size and (array.min() < 0 or array.max() >= n):
            raise IndexError(f"split positions must lie in [0, {n}), got {array.min()} .. {array.max()}")
        return array

    def _answer(self, view: Any, parts: Mapping[str, Positions], return_views: bool) -> dict[str, Any]:
        parts = {name: self.checked_positions(positions, len(view)) for name, positions in parts.items()}
        return {name: view.take(positions, name) for name, positions in parts.items()} if return_views else dict(parts)

    def get_config(self) -> dict[str, Any]:
        """``splitter_name``, of a class that is not registered the class itself, and the arguments."""
        return {"splitter_name": splitter_registry.name_of(type(self)) or type(self), **self._arguments()}

    def _arguments(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The splitter a config describes; called on the base, ``splitter_name`` tells the class.

        Raises:
            ValueError: Unknown name.
        """
        made, arguments = splitter_registry.described(config, cls, BaseSplitter)
        return made._from_arguments(arguments)

    @classmethod
    def _from_arguments(cls, arguments: dict[str, Any]) -> Self:
        return cls(**arguments)

    def __eq__(self, other: object) -> bool:
        return same_values(self.get_config(), other.get_config()) if isinstance(other, BaseSplitter) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._arguments().items())})"


def checked_ratios(ratios: Mapping[str, float], owner: str) -> dict[str, float]:
    """Split name to fraction, checked.

    Raises:
        ValueError: No split, a fraction outside [0, 1], or a sum other than 1.
    """
    told = {name: float(ratio) for name, ratio in ratios.items()}
    if not told or any(not 0 <= ratio <= 1 for ratio in told.values()) or not np.isclose(sum(told.values()), 1.0):
        raise ValueError(f"{owner}: ratios must lie in [0, 1] and sum to 1, got {told} (sum {sum(told.values()):g})")
    return told


def part_sizes(ratios: Mapping[str, float], n: int) -> dict[str, int]:
    """Counts: the floor of ``ratio * n``, the rest to the largest remainders (ties: order of the dict).

    Example:
        >>> from keydnn.experiment.splitters.base import part_sizes
        >>> part_sizes({"train": 0.5, "val": 0.3, "test": 0.2}, 7)
        {'train': 4, 'val': 2, 'test': 1}
    """
    exact = {name: ratio * n for name, ratio in ratios.items()}
    sizes = {name: int(np.floor(value)) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: sizes[name] - exact[name])
    left = n - sum(sizes.values())  # ratios that sum to 1 within a tolerance may leave more, or too few
    step, order = (1, by_remainder) if left >= 0 else (-1, by_remainder[::-1])
    for i in range(abs(left)):
        sizes[order[i % len(order)]] += step
    return sizes


def cut(positions: Positions, sizes: Mapping[str, int]) -> dict[str, Positions]:
    """Consecutive blocks of the given sizes."""
    ends = np.cumsum(list(sizes.values()))
    return {name: positions[end - size : end] for (name, size), end in zip(sizes.items(), ends.tolist(), strict=True)}


def check_not_empty(parts: Mapping[str, Any], owner: str, what: str = "samples") -> None:
    """Refuse a part without members.

    Raises:
        ValueError: There is one.
    """
    empty = [name for name, members in parts.items() if not (members if isinstance(members, int) else len(members))]
    if empty:
        raise ValueError(f"{owner}: split {', '.join(map(repr, empty))} would get no {what}; give it a larger ratio, or more data")


def drawn_seed(seed: int | None) -> int:
    """A seed as it is; for None one from the system, which is then kept."""
    return secrets.randbits(63) if seed is None else int(seed)


def name_list(names: Any) -> list[Any] | None:
    """None, or one or several column names or references as a list."""
    if names is None:
        return None
    return as_list(names) if isinstance(names, str | list | tuple) else [names]
