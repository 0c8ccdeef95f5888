"""AxisSeries: a small table whose rows are named by a value per axis, such as (phase, epoch, batch)."""

from __future__ import annotations

import copy
import numbers
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from keydnn.experiment.backends.tensors import concat, is_tensor
from keydnn.experiment.optional import need

Key = tuple[Any, ...]
Reducer = Callable[[Sequence[Any]], Any]

ENDS: dict[str, Reducer] = {"first": lambda values: values[0], "last": lambda values: values[-1]}
NUMBERS: dict[str, Reducer] = {**ENDS, "sum": sum, "mean": lambda values: sum(values) / len(values)}
TENSORS: dict[str, Reducer] = {**ENDS, "concat": concat}


class Later:
    """An object of a series that is made each time somebody asks for it.

    Args:
        make: Makes the object.
        *given: Its arguments.
    """

    __slots__ = ("_given", "_make")

    def __init__(self, make: Callable[..., Any], *given: Any) -> None:
        self._make, self._given = make, given

    def open(self) -> Any:
        """The object."""
        return self._make(*self._given)


def _opened(value: Any) -> Any:
    return value.open() if type(value) is Later else value


def reducers_for(value: Any) -> Mapping[str, Reducer]:
    """The named reducers that values like this one allow: of numbers mean and sum, of tensors concat, of everything first and last."""
    if isinstance(value, numbers.Number):
        return NUMBERS
    return TENSORS if is_tensor(value) else ENDS


def _sorted(values: Iterable[Any]) -> list[Any]:
    """Distinct values in order: None first, unlike types apart."""
    return sorted(
        dict.fromkeys(values), key=lambda value: (value is not None, "" if isinstance(value, numbers.Real) else str(type(value)), value)
    )


def _matches(value: Any, wanted: Any) -> bool:
    if callable(wanted) and not isinstance(wanted, type):
        return bool(wanted(value))
    if value == wanted:
        return True
    return isinstance(wanted, Collection) and not isinstance(wanted, str | bytes) and value in wanted


class AxisSeries:
    """Objects under tuple keys with one value per named axis, in the order they were added.

    Args:
        axes: Names of the axes.
        _data: Key to object, or to a :class:`Later`; a key has one value per axis.

    Raises:
        ValueError: An axis is named twice, or a key has another length.

    Example:
        >>> from keydnn.experiment.results import AxisSeries
        >>> losses = AxisSeries(("epoch", "batch"), {(0, 0): 3.0, (0, 1): 1.0, (1, 0): 0.5})
        >>> losses.where(epoch=0).values()
        [3.0, 1.0]
        >>> losses.collapse("batch", "mean").to_dict()
        {(0,): 2.0, (1,): 0.5}
    """

    def __init__(self, axes: Sequence[str], _data: Mapping[Key, Any]) -> None:
        self._axes = tuple(axes)
        if len(set(self._axes)) != len(self._axes):
            raise ValueError(f"axes must differ, got {', '.join(self._axes)}")
        for key in _data:
            if not isinstance(key, tuple) or len(key) != len(self._axes):
                raise ValueError(f"a key must be a tuple with a value for each of the axes {self._axes}, got {key!r}")
        self._data = dict(_data)

    def _like(self, axes: Sequence[str], data: Mapping[Key, Any]) -> Self:
        """A series of the same class."""
        other = copy.copy(self)
        other._axes, other._data = tuple(axes), dict(data)
        return other

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes."""
        return self._axes

    @property
    def data(self) -> dict[Key, Any]:
        """Key to object."""
        return {key: _opened(value) for key, value in self._data.items()}

    @property
    def shape(self) -> dict[str, int]:
        """Axis to how many distinct values it has."""
        return {axis: len(self.axis_values(axis)) for axis in self._axes}

    def _place(self, axis: str) -> int:
        if axis not in self._axes:
            raise KeyError(f"no axis {axis!r}; the axes are {', '.join(self._axes) or 'none'}")
        return self._axes.index(axis)

    def axis_values(self, axis: str) -> list[Any]:
        """The distinct values of an axis, sorted, None first.

        Raises:
            KeyError: No such axis.
        """
        place = self._place(axis)
        return _sorted(key[place] for key in self._data)

    def axes_values(self) -> dict[str, list[Any]]:
        """Axis to its distinct values."""
        return {axis: self.axis_values(axis) for axis in self._axes}

    def at(self, **coords: Any) -> Any:
        """The object at a value of every axis.

        Raises:
            KeyError: An axis is missing or unknown, or there is nothing.
        """
        for axis in coords:
            self._place(axis)
        missing = [axis for axis in self._axes if axis not in coords]
        if missing:
            raise KeyError(f"at() needs every axis; missing {', '.join(missing)}")
        return self[tuple(coords[axis] for axis in self._axes)]

    def __getitem__(self, key: Any) -> Any:
        full = key if isinstance(key, tuple) else (key,)
        if full not in self._data:
            raise KeyError(f"nothing at {dict(zip(self._axes, full, strict=False))}; there are {self.axes_values()}")
        return _opened(self._data[full])

    def where(self, **coords: Any) -> Self:
        """The part of the series that fits.

        Args:
            **coords: Per axis a value, a collection of values, or a function of a value that returns whether it fits.

        Raises:
            KeyError: No such axis.
        """
        places = [(self._place(axis), wanted) for axis, wanted in coords.items()]
        return self._like(
            self._axes, {key: value for key, value in self._data.items() if all(_matches(key[place], wanted) for place, wanted in places)}
        )

    def select(self, **coords: Any) -> list[Any]:
        """The objects that fit, see :meth:`where`."""
        return self.where(**coords).values()

    def one(self) -> Any:
        """The only object.

        Raises:
            ValueError: There are none or several.
        """
        if len(self._data) != 1:
            raise ValueError(f"one() needs exactly one entry, there are {len(self._data)}")
        return self.values()[0]

    def values(self) -> list[Any]:
        """The objects."""
        return [value.open() if type(value) is Later else value for value in self._data.values()]

    def keys(self) -> list[Key]:
        """The keys."""
        return list(self._data)

    def items(self) -> list[tuple[Key, Any]]:
        """Pairs of key and object."""
        return [(key, _opened(value)) for key, value in self._data.items()]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def _in_order(self, sort_by: str | Sequence[str] | None) -> list[Any]:
        if not self._data:
            raise ValueError("the series is empty")
        if sort_by is None:
            return list(self._data.values())
        ranks = []
        for axis in [sort_by] if isinstance(sort_by, str) else sort_by:
            place = self._place(axis)
            rank = {value: i for i, value in enumerate(self.axis_values(axis))}
            ranks.append((place, rank))
        return [self._data[key] for key in sorted(self._data, key=lambda key: [rank[key[place]] for place, rank in ranks])]

    def first(self, *, sort_by: str | Sequence[str] | None = None) -> Any:
        """The object that was added first, or comes first by the values of one or several axes.

        Raises:
            ValueError: The series is empty.
            KeyError: No such axis.
        """
        return _opened(self._in_order(sort_by)[0])

    def last(self, *, sort_by: str | Sequence[str] | None = None) -> Any:
        """The object that was added last, or comes last by the values of one or several axes.

        Raises:
            ValueError: The series is empty.
            KeyError: No such axis.
        """
        return _opened(self._in_order(sort_by)[-1])

    def reducers(self) -> Mapping[str, Reducer]:
        """The named reducers that the objects allow."""
        return reducers_for(_opened(next(iter(self._data.values()))))

    def collapse(self, axis: str, reducer: str | Reducer) -> Self:
        """One object for all values of an axis.

        Args:
            axis: The axis that goes.
            reducer: "first" or "last"; "mean" or "sum" of numbers and losses; "concat" of tensors; or a function of a list.

        Raises:
            KeyError: No such axis.
            ValueError: The series is empty, or its objects do not allow the reducer.
        """
        place = self._place(axis)
        if not self._data:
            raise ValueError("the series is empty")
        known = self.reducers()
        if not callable(reducer) and reducer not in known:
            kind = type(_opened(next(iter(self._data.values())))).__name__
            raise ValueError(f"reducer {reducer!r} does not suit {kind}; expected a function or one of {', '.join(known)}")
        reduce = reducer if callable(reducer) else known[reducer]
        groups: dict[Key, list[Any]] = {}
        for key, value in self._data.items():
            groups.setdefault(key[:place] + key[place + 1 :], []).append(value)
        axes = self._axes[:place] + self._axes[place + 1 :]
        return self._like(axes, {key: reduce([_opened(value) for value in values]) for key, values in groups.items()})

    def squeeze(self) -> Self:
        """Without the axes that have a single value; an empty series stays as it is."""
        if not self._data:
            return self._like(self._axes, {})
        places = [place for place, axis in enumerate(self._axes) if len(self.axis_values(axis)) > 1]
        return self._like(
            [self._axes[place] for place in places], {tuple(key[place] for place in places): value for key, value in self._data.items()}
        )

    def map(self, fn: Callable[[Any], Any]) -> AxisSeries:
        """A plain series with ``fn`` of every object."""
        return AxisSeries(self._axes, {key: fn(value) for key, value in self.items()})

    def to_dict(self) -> dict[Key, Any]:
        """Key to object."""
        return self.data

    def _cells(self, value: Any) -> dict[str, Any]:
        """What stands in a frame for an object, by column."""
        return {"value": value}

    def to_pandas(self) -> Any:
        """A frame with a column per axis and a column ``value``, or, where objects have several numbers, a column for each.

        Raises:
            ImportError: pandas is not installed.
        """
        pandas = need("pandas", "to_pandas()")
        rows = [(key, self._cells(value)) for key, value in self.items()]
        columns = list(rows[0][1]) if rows else ["value"]
        return pandas.DataFrame([(*key, *cells.values()) for key, cells in rows], columns=[*self._axes, *columns])

    def __repr__(self) -> str:
        sizes = ", ".join(f"{axis}: {size}" for axis, size in self.shape.items())
        return f"{type(self).__name__}({len(self._data)} entries; {sizes})"


def stacked(axis: str, parts: Mapping[Any, AxisSeries]) -> AxisSeries:
    """Series joined to one of the first one's class, with an axis in front that names the part.

    Args:
        axis: Its name.
        parts: Value on that axis to series, at least one.

    Raises:
        ValueError: They have different axes.

    Example:
        >>> from keydnn.experiment.series import AxisSeries, stacked
        >>> stacked("fold", {0: AxisSeries(("epoch",), {(0,): 2.0}), 1: AxisSeries(("epoch",), {(0,): 3.0})}).to_dict()
        {(0, 0): 2.0, (1, 0): 3.0}
    """
    axes = {part.axes for part in parts.values()}
    if len(axes) != 1:
        raise ValueError(f"series with different axes cannot be joined: {', '.join(map(str, axes))}")
    first = next(iter(parts.values()))
    return first._like((axis, *first.axes), {(at, *key): value for at, part in parts.items() for key, value in part._data.items()})
