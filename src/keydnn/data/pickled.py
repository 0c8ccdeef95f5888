"""Plain values from a pickle file, without running it.

A pickle is a program for a small stack machine; the usual reader runs it, and such a program may call anything.  This one
knows the few instructions that make dicts, lists, tuples, numbers, texts, bytes and uint8 arrays, which is what the CIFAR files
hold, and refuses all others.  Nothing is imported or called by name.

Source: the instruction list in the standard library's ``pickletools``, which also splits the file into instructions.
"""

from __future__ import annotations

import math
import pickletools
from typing import Any

import numpy as np

from keydnn.domain.errors import CheckpointError

RECONSTRUCT = {"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"}
NAMES = {*RECONSTRUCT, "numpy ndarray", "numpy dtype", "_codecs encode"}
_MARK = object()


class _Name(str):
    """A name that the file would import; only ever compared."""


class _Array:
    """An array in the making: ``state`` is (version, shape, dtype, is_fortran, bytes)."""

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        if not isinstance(dtype, _Type) or dtype.text not in ("u1", "|u1"):
            raise ValueError("only arrays of uint8 are read")
        raw = data.encode("latin-1") if isinstance(data, str) else data
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) != len(raw):
            raise ValueError(f"an array of shape {shape!r} has {len(raw)} bytes")
        self.value = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if is_fortran else "C")


class _Type:
    """A dtype in the making."""

    def __init__(self, text: Any) -> None:
        self.text = text

    def set_state(self, state: Any) -> None:
        """Byte order and the like; bytes have none."""


def read_plain(data: bytes) -> Any:
    """The value in a pickle.

    Args:
        data: Contents of the file.

    Returns:
        Dicts, lists, tuples, numbers, str, bytes, None and uint8 arrays.

    Raises:
        ValueError: The file is damaged, or holds anything else.
    """
    machine = _Machine()
    try:
        for code, argument, _ in pickletools.genops(data):
            machine.run(code.name, argument)
        return _finished(machine.result, 0)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"no plain pickle, it may be damaged or truncated: {error}") from error


def _finished(value: Any, depth: int) -> Any:
    """``value`` with the arrays put in."""
    if depth > 20:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        return {key: _finished(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_finished(item, depth + 1) for item in value)
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("an array without contents")
        return value.value
    if isinstance(value, _Name | _Type):
        raise ValueError(f"holds {value!r} by name")
    return value


_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE",
    "BINBYTES", "SHORT_BINBYTES", "INT", "LONG", "FLOAT", "STRING", "UNICODE",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_GETS, _PUTS = {"GET", "BINGET", "LONG_BINGET"}, {"PUT", "BINPUT", "LONG_BINPUT"}


class _Machine:
    """The stack machine, with the instructions that are safe."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.result: Any = None

    def run(self, code: str, argument: Any) -> None:
        """One instruction."""
        if code in _VALUES:
            self.stack.append(argument)
        elif code in _CONSTANTS:
            self.stack.append(_CONSTANTS[code])
        elif code in _TUPLES:
            self.stack[-_TUPLES[code] :] = [tuple(self.stack[-_TUPLES[code] :])]
        elif code in _GETS:
            self.stack.append(self.memo[int(argument)])
        elif code in _PUTS:
            self.memo[int(argument)] = self.stack[-1]
        else:
            rule = getattr(self, f"_{code.lower()}", None)
            if rule is None:
                raise ValueError(f"instruction {code} is refused")
            rule(argument)

    def _since_mark(self) -> list[Any]:
        start = len(self.stack) - 1 - self.stack[::-1].index(_MARK)
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def _proto(self, version: int) -> None:
        if version > 5:
            raise ValueError(f"protocol {version}")

    def _frame(self, _: Any) -> None: ...

    def _mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _stop(self, _: Any) -> None:
        self.result = self.stack.pop()

    def _empty_dict(self, _: Any) -> None:
        self.stack.append({})

    def _empty_list(self, _: Any) -> None:
        self.stack.append([])

    def _empty_tuple(self, _: Any) -> None:
        self.stack.append(())

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _list(self, _: Any) -> None:
        self.stack.append(self._since_mark())

    def _dict(self, _: Any) -> None:
        items = self._since_mark()
        self.stack.append(dict(zip(items[::2], items[1::2], strict=True)))

    def _append(self, _: Any) -> None:
        self._extend([self.stack.pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise TypeError("only a list can be appended to")
        self.stack[-1].extend(items)

    def _setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def _setitems(self, _: Any) -> None:
        self._update(self._since_mark())

    def _update(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not dict:
            raise TypeError("only a dict has items")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def _global(self, name: str) -> None:
        if name not in NAMES:
            raise ValueError(f"the name {name!r} is refused")
        self.stack.append(_Name(name))

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self._global(f"{module} {name}")

    def _reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise ValueError("a call of something that is no name")
        if function in RECONSTRUCT:
            self.stack.append(_Array())
        elif function == "numpy dtype":
            self.stack.append(_Type(arguments[0]))
        elif function == "_codecs encode" and isinstance(arguments[0], str):  # bytes, as protocols below 3 write them
            self.stack.append(arguments[0].encode("latin-1"))
        else:
            raise ValueError(f"a call of {function} is refused")

    def _build(self, _: Any) -> None:
        state, goal = self.stack.pop(), self.stack[-1]
        if not isinstance(goal, _Array | _Type):
            raise ValueError("a state for something that has none")
        goal.set_state(state)
