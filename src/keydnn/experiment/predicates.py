"""Predicates: conditions on one value, as objects that can be compared, combined with ``& | ~`` and written to a file."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from keydnn.experiment.lambda_text import compile_lambda


class Predicate:
    """A condition; called with a scalar it answers a bool, with an array an array of bools."""

    type_name: ClassVar[str] = ""

    def __call__(self, x: Any) -> Any:
        """Whether ``x`` meets the condition, elementwise."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """``{"type": ..., ...}`` in plain values."""
        raise NotImplementedError

    @staticmethod
    def from_dict(d: dict[str, Any], *, allow_packaged_code: bool = True) -> Predicate:
        """The predicate that :meth:`to_dict` described.

        Args:
            d: The description.
            allow_packaged_code: False refuses lambda text beyond simple arithmetic and comparisons, as files need.

        Raises:
            ValueError: Unknown type.
            PackagedCodeError: Lambda text that needs permission.
        """
        kind = d.get("type")
        if kind in _VALUE:
            return _VALUE[kind](d["value"])
        if kind in _VALUES:
            return _VALUES[kind](d["values"])
        if kind == Lambda.type_name:
            return Lambda(d["source"], allow_any=allow_packaged_code)
        if kind in _COMBINED:
            parts = [Predicate.from_dict(part, allow_packaged_code=allow_packaged_code) for part in d["parts"]]
            return _COMBINED[kind](*parts)
        raise ValueError(f"unknown predicate type {kind!r}; known: {', '.join((*_VALUE, *_VALUES, Lambda.type_name, *_COMBINED))}")

    def __and__(self, other: Predicate) -> Predicate:
        return And(self, other)

    def __or__(self, other: Predicate) -> Predicate:
        return Or(self, other)

    def __invert__(self) -> Predicate:
        return Not(self)


@dataclass(frozen=True)
class _Comparison(Predicate):
    value: Any
    function: ClassVar[Callable[[Any, Any], Any]] = operator.eq

    def __call__(self, x: Any) -> Any:
        return type(self).function(np.asarray(x) if isinstance(x, list | tuple) else x, self.value)

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.type_name, "value": plain(self.value)}


class LT(_Comparison):
    """``x < value``."""

    type_name, function = "lt", operator.lt


class LTE(_Comparison):
    """``x <= value``."""

    type_name, function = "lte", operator.le


class GT(_Comparison):
    """``x > value``."""

    type_name, function = "gt", operator.gt


class GTE(_Comparison):
    """``x >= value``."""

    type_name, function = "gte", operator.ge


class EQ(_Comparison):
    """``x == value``."""

    type_name, function = "eq", operator.eq


class NE(_Comparison):
    """``x != value``."""

    type_name, function = "ne", operator.ne


@dataclass(frozen=True)
class _Membership(Predicate):
    values: tuple[Any, ...]
    negated: ClassVar[bool] = False

    def __init__(self, values: Iterable[Any]) -> None:
        object.__setattr__(self, "values", tuple(values))

    def __call__(self, x: Any) -> Any:
        if isinstance(x, np.ndarray | list | tuple):
            return is_member(np.asarray(x), self.values) != self.negated
        return (x in self.values) != self.negated

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.type_name, "values": [plain(value) for value in self.values]}


class In(_Membership):
    """``x`` is one of ``values``."""

    type_name = "in"


class NotIn(_Membership):
    """``x`` is none of ``values``."""

    type_name, negated = "not_in", True


class Lambda(Predicate):
    """A condition written as the text of a lambda with one argument.

    Args:
        source: For example ``"lambda x: 0 < x <= 3"``.
        allow_any: False accepts comparisons, boolean and arithmetic operators, constants and calls to abs, min, max, len,
            round and isinstance only; such text is interpreted, never given to ``eval``.

    Raises:
        ValueError: Not the text of a lambda with one argument.
        PackagedCodeError: Text that needs permission.

    Example:
        >>> from keydnn.experiment.predicates import Lambda
        >>> Lambda("lambda x: abs(x) > 1")(np.array([-2, 0, 2]))
        array([ True, False,  True])
    """

    type_name = "lambda"

    def __init__(self, source: str, *, allow_any: bool = True) -> None:
        self.source = source
        self._function = compile_lambda(source, allow_any=allow_any)

    def __call__(self, x: Any) -> Any:
        if isinstance(x, np.ndarray | list | tuple):
            items = x.tolist() if isinstance(x, np.ndarray) else x
            return np.fromiter((bool(self._function(item)) for item in items), dtype=bool, count=len(items))
        return bool(self._function(x))

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.type_name, "source": self.source}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lambda) and other.source == self.source

    def __hash__(self) -> int:
        return hash(self.source)

    def __repr__(self) -> str:
        return f"Lambda({self.source!r})"


@dataclass(frozen=True)
class And(Predicate):
    """Both conditions."""

    a: Predicate
    b: Predicate
    type_name = "and"

    def __call__(self, x: Any) -> Any:
        return np.logical_and(self.a(x), self.b(x)) if np.ndim(x) else bool(self.a(x) and self.b(x))

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.type_name, "parts": [self.a.to_dict(), self.b.to_dict()]}


@dataclass(frozen=True)
class Or(Predicate):
    """At least one of the conditions."""

    a: Predicate
    b: Predicate
    type_name = "or"

    def __call__(self, x: Any) -> Any:
        return np.logical_or(self.a(x), self.b(x)) if np.ndim(x) else bool(self.a(x) or self.b(x))

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.type_name, "parts": [self.a.to_dict(), self.b.to_dict()]}


@dataclass(frozen=True)
class Not(Predicate):
    """The contrary of a condition."""

    a: Predicate
    type_name = "not"

    def __call__(self, x: Any) -> Any:
        return np.logical_not(self.a(x)) if np.ndim(x) else not self.a(x)

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.type_name, "parts": [self.a.to_dict()]}


_VALUE: dict[str, Any] = {cls.type_name: cls for cls in (LT, LTE, GT, GTE, EQ, NE)}
_VALUES: dict[str, Any] = {cls.type_name: cls for cls in (In, NotIn)}
_COMBINED: dict[str, Any] = {cls.type_name: cls for cls in (And, Or, Not)}


def plain(value: Any) -> Any:
    """A NumPy scalar as the Python value it holds; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def is_member(values: np.ndarray, wanted: Iterable[Any]) -> np.ndarray:
    """For each of the values whether it is among the wanted ones; types are not mixed (the text "1" is not the number 1)."""
    wanted = [plain(item) for item in wanted]
    if values.dtype.kind in "biuf":
        numbers = [item for item in wanted if isinstance(item, bool | int | float)]
        return np.isin(values, numbers) if numbers else np.zeros(len(values), dtype=bool)
    known = set(wanted)
    return np.fromiter((item in known for item in values.tolist()), dtype=bool, count=len(values))
