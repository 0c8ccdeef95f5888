"""Values of users and tensors of frameworks in states: said by what a file can hold, and opened again with the same bits and types.

Plain values stay as they are.  Others become a :class:`Said`: a kind and an array or plain values.  What cannot be said so is pickled, and
only where that is asked for (:class:`~keydnn.experiment.io.values.UnsafePickle`).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter, backend_of, is_tensor
from keydnn.experiment.predicates import Predicate
from keydnn.experiment.references import (
    ExperimentNodeReference,
    FeatureSetColumnReference,
    FeatureSetReference,
    FeatureSetSplitReference,
    GraphNodeReference,
    ModelOutputReference,
)

_IN_MEMORY = ContextVar("keydnn_states_in_memory", default=False)
_AS_THEY_ARE = (type(None), bool, int, float, str, bytes)
_NAMES = (ExperimentNodeReference, GraphNodeReference, FeatureSetReference, FeatureSetSplitReference, FeatureSetColumnReference)
_OBJECTS = (*_NAMES, ModelOutputReference, Predicate)


@contextlib.contextmanager
def in_memory() -> Iterator[None]:
    """Inside the block states are made for another process of the same run, not for files: what a file could not hold stays as it is."""
    token = _IN_MEMORY.set(True)
    try:
        yield
    finally:
        _IN_MEMORY.reset(token)


def is_in_memory() -> bool:
    """Whether a state is made for another process."""
    return _IN_MEMORY.get()


class Unsayable(TypeError):
    """A value that a file can only hold as a pickle."""


class NotStored:
    """Stands where a value was that a file could not hold.

    Args:
        type_name: Of the value.
    """

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NotStored) and other.type_name == self.type_name

    def __hash__(self) -> int:
        return hash(self.type_name)

    def __repr__(self) -> str:
        return f"<not stored: {self.type_name}>"


class Said:
    """A value as a file can hold it.

    Args:
        kind: One of "tensor", "scalar", "objects", "time", "date", "span", "complex", "dict", "set", "frozenset" and "left_out".
        told: By kind an array, text or a dict.
    """

    def __init__(self, kind: str, told: Any) -> None:
        self.kind, self.told = kind, told

    def get_config(self) -> dict[str, Any]:
        """Kind and what is told."""
        return {"kind": self.kind, "told": self.told}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Said:
        """From :meth:`get_config`.

        Raises:
            ValueError: An unknown kind.
        """
        if config["kind"] not in _OPENERS:
            raise ValueError(f"a value of kind {config['kind']!r} is not known; is the file from a newer version?")
        return cls(config["kind"], config["told"])

    def open(self) -> Any:
        """The value."""
        return _OPENERS[self.kind](self.told)


def say_tensor(tensor: Any) -> Said:
    """A tensor, or a NumPy array, as an array with the name of its framework; its device is forgotten.

    Raises:
        Unsayable: An array of objects that are no plain values.
    """
    backend = backend_of(tensor)
    if backend is Backend.NUMPY:
        return _say_array(np.asarray(tensor))
    array, dtype = adapter(backend).to_bits(tensor)
    return Said("tensor", {"backend": backend.value, "dtype": dtype, "array": array})


def _say_array(array: np.ndarray) -> Said:
    if array.dtype.hasobject:
        if array.dtype.kind != "O":
            raise Unsayable(f"an array of dtype {array.dtype}")
        return Said("objects", {"shape": list(array.shape), "items": [say(item) for item in array.reshape(-1).tolist()]})
    if array.dtype.kind == "V":
        raise Unsayable(f"an array of dtype {array.dtype}")
    return Said("tensor", {"backend": Backend.NUMPY.value, "dtype": None, "array": array})


def _open_tensor(told: Mapping[str, Any]) -> Any:
    backend = Backend.from_value(told["backend"])
    if backend is Backend.NUMPY:
        return told["array"]
    return adapter(backend).from_bits(told["array"], told["dtype"])


def _open_objects(told: Mapping[str, Any]) -> np.ndarray:
    made = np.empty(len(told["items"]), object)
    made[:] = [opened(item) for item in told["items"]]
    return made.reshape(tuple(told["shape"]))


_OPENERS: dict[str, Callable[[Any], Any]] = {
    "tensor": _open_tensor,
    "scalar": lambda told: np.asarray(told)[()],
    "objects": _open_objects,
    "time": lambda told: datetime.fromisoformat(told[0]).replace(fold=told[1]),
    "date": date.fromisoformat,
    "span": lambda told: timedelta(days=told[0], seconds=told[1], microseconds=told[2]),
    "complex": lambda told: complex(*told),
    "set": lambda told: {opened(item) for item in told},
    "dict": lambda told: {opened(key): opened(item) for key, item in told},
    "left_out": lambda told: NotStored(str(told)),
    "frozenset": lambda told: frozenset(opened(item) for item in told),
}
_SAYERS: dict[type, Callable[[Any], Said]] = {
    datetime: lambda value: Said("time", [value.isoformat(), value.fold]),
    date: lambda value: Said("date", value.isoformat()),
    timedelta: lambda value: Said("span", [value.days, value.seconds, value.microseconds]),
    complex: lambda value: Said("complex", [value.real, value.imag]),
    set: lambda value: Said("set", [say(item) for item in sorted(value, key=repr)]),
    NotStored: lambda value: Said("left_out", value.type_name),
    frozenset: lambda value: Said("frozenset", [say(item) for item in sorted(value, key=repr)]),
}


def say(value: Any) -> Any:
    """A value of a user as a file can hold it.

    Raises:
        Unsayable: It would have to be pickled.
    """
    return _said(value, _refused)


def _refused(value: Any) -> Any:
    raise Unsayable(f"a {type_name(value)}")


def said_or_left_out(value: Any, what: str) -> Any:
    """Like :func:`say`; what would have to be pickled is left out.

    Args:
        value: The value.
        what: What it is, for the warning.

    Warns:
        UserWarning: Something is left out.
    """
    lost: list[str] = []

    def left_out(inner: Any) -> Said:
        lost.append(type_name(inner))
        return Said("left_out", lost[-1])

    said = _said(value, left_out)
    if lost:
        told = ", ".join(dict.fromkeys(lost))
        mend = "return plain values, arrays or tensors, or an ArtifactResult, which may be pickled"
        warnings.warn(f"{what} cannot be written and is left out: {told}; {mend}", UserWarning, stacklevel=2)
    return said


def type_name(value: Any) -> str:
    """Module and name of a value's type."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _said(value: Any, other: Callable[[Any], Any]) -> Any:
    kind = type(value)
    if kind in _AS_THEY_ARE or kind in _OBJECTS:
        return value
    if kind is list or kind is tuple:
        return kind(_said(item, other) for item in value)
    if kind is dict:
        pairs = [(_said(key, other), _said(item, other)) for key, item in value.items()]
        names = list(value)
        if all(type(name) is str for name in names) and names == sorted(names):
            return dict(pairs)
        return Said("dict", pairs)  # files sort the keys of dicts
    if kind in _SAYERS:
        return _SAYERS[kind](value)
    if isinstance(value, np.generic) and value.dtype.kind not in "VO":
        return Said("scalar", np.asarray(value))
    if kind is np.ndarray or (is_tensor(value) and not isinstance(value, np.ndarray)):
        try:
            return say_tensor(value)
        except Unsayable:
            return value if is_in_memory() else other(value)
    return value if is_in_memory() else other(value)


def opened(value: Any) -> Any:
    """What :func:`say` was given."""
    if isinstance(value, Said):
        found = value.open()
        return found.copy() if isinstance(found, np.ndarray) and not found.flags.writeable else found
    if isinstance(value, list | tuple):
        return type(value)(opened(item) for item in value)
    if isinstance(value, Mapping):
        return {key: opened(item) for key, item in value.items()}
    return value
