"""Configs and states as JSON plus array members, and back.

JSON says None, booleans, numbers, text, lists and dicts with text keys.  Anything else is a dict with one key:

    $tuple [..]   $dict [[key, value], ..]   $array member   $packed member   $bytes base64   $predicate {..}   $symbol spec
    $object {class, config, state}   $unsafe {member, type}: a pickle, opened only with permission

Equal arrays are one member, and one array again when they are read.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import pickle
import tokenize
from collections.abc import Mapping
from typing import Any

import numpy as np

from keydnn.experiment.contracts import IConfigurable, IStateful
from keydnn.experiment.errors import ArtifactError, PackagedCodeError
from keydnn.experiment.io.classes import Symbols, spec_of
from keydnn.experiment.io.packed import Packed
from keydnn.experiment.predicates import Predicate

_OWN = (None, "keydnn")  # frameworks whose objects are read from a config without importing what it names
_PICKLING = (pickle.PickleError, TypeError, AttributeError, ValueError, RecursionError, ImportError, EOFError, IndexError, KeyError)


class UnsafePickle:
    """A value of a user that only a pickle can hold; opening a pickle can run any code, so a file is read without it.

    Args:
        data: The pickle; None if the file may not be trusted.
        type_name: Of what it holds.
    """

    def __init__(self, data: bytes | None, type_name: str) -> None:
        self.data, self.type_name = data, type_name

    @classmethod
    def of(cls, value: Any) -> UnsafePickle:
        """A value, pickled.

        Raises:
            TypeError: It cannot be pickled either.
        """
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        try:
            return cls(pickle.dumps(value, protocol=5), name)
        except _PICKLING as error:
            raise TypeError(f"a {name} cannot be written to a file, and not be pickled either: {error}") from error

    @property
    def is_permitted(self) -> bool:
        """Whether it may be opened."""
        return self.data is not None

    def open(self) -> Any:
        """The value.

        Raises:
            PackagedCodeError: That was not permitted.
            ArtifactError: What it needs is not there, or it is damaged.
        """
        if self.data is None:
            raise PackagedCodeError(f"a pickle of a {self.type_name} can run code: pass allow_packaged_code=True if you trust the file")
        try:
            return pickle.loads(self.data)
        except _PICKLING as error:
            raise ArtifactError(f"the pickle of a {self.type_name} cannot be opened: {type(error).__name__}: {error}") from error


class Encoder:
    """Turns values into JSON; arrays and packaged sources become members.

    Args:
        folder: What the names of arrays start with.

    Attributes:
        members: Name to bytes.
    """

    def __init__(self, folder: str = "") -> None:
        self.members: dict[str, Any] = {}
        self._folder = folder
        self._known: dict[bytes, str] = {}  # hash of an array to its member

    def encode(self, value: Any) -> Any:
        """JSON for a value.

        Raises:
            TypeError: A value that a file cannot say.
            PackagedCodeError: A class or function that cannot be packaged.
        """
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, list):
            return [self.encode(item) for item in value]
        if isinstance(value, tuple):
            return {"$tuple": [self.encode(item) for item in value]}
        if isinstance(value, Mapping):
            return self._mapping(value)
        if isinstance(value, np.ndarray | np.generic):
            return {"$array": self._array(np.asarray(value))}
        if isinstance(value, Packed):
            name = f"{self._folder}packed/{len(self.members):05d}.bin"
            self.members[name] = value.data
            return {"$packed": name}
        if isinstance(value, bytes):
            return {"$bytes": base64.b64encode(value).decode()}
        if isinstance(value, UnsafePickle):
            return {"$unsafe": self._unsafe(value)}
        if isinstance(value, Predicate):
            return {"$predicate": self.encode(value.to_dict())}
        if isinstance(value, set | frozenset):
            raise TypeError("a set has no order and cannot be written to a file; use a list")
        if isinstance(value, IConfigurable) and not isinstance(value, type):
            return {"$object": self.object(value)}
        if callable(value) and getattr(value, "__qualname__", None):
            return {"$symbol": spec_of(value, self.members)}
        raise TypeError(f"a {type(value).__name__} cannot be written to a file: {value!r}")

    def object(self, value: Any) -> dict[str, Any]:
        """Class, config and, where there is one, state of an object.

        Raises:
            TypeError: An object of a framework: its own ``from_config`` imports what a config names.
        """
        spec = spec_of(type(value), self.members)
        if spec.get("backend") not in _OWN:
            raise TypeError(f"a {type(value).__name__} of {spec['backend']} cannot be written by itself; make it in a class of your own")
        told = getattr(value, "artifact_config", value.get_config)()
        described = {"class": spec, "config": self.encode(told)}
        if isinstance(value, IStateful):
            described["state"] = self.encode(value.get_state())
        return described

    def _mapping(self, value: Mapping[Any, Any]) -> Any:
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: self.encode(item) for key, item in value.items()}
        return {"$dict": [[self.encode(key), self.encode(item)] for key, item in value.items()]}

    def _array(self, array: np.ndarray) -> str:
        if array.dtype.hasobject:
            array = np.asarray(array.tolist())
        if array.dtype.hasobject or array.dtype.kind == "V":
            raise TypeError(f"an array of dtype {array.dtype} cannot be written to a file")
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.asarray(array, order="C"), allow_pickle=False)
        data = buffer.getvalue()
        digest = hashlib.sha256(data).digest()
        name = self._known.get(digest)
        if name is None:
            name = self._known[digest] = f"{self._folder}arrays/{len(self.members):05d}.npy"
            self.members[name] = data
        return name

    def _unsafe(self, value: UnsafePickle) -> dict[str, Any]:
        if value.data is None:
            return {"member": None, "type": value.type_name}
        name = f"{self._folder}unsafe/{len(self.members):05d}.pkl"
        self.members[name] = value.data
        return {"member": name, "type": value.type_name}


class Decoder:
    """Turns JSON of a file back into values.

    Args:
        symbols: Finds classes; it also reads the members.
    """

    def __init__(self, symbols: Symbols) -> None:
        self._symbols = symbols
        self._arrays: dict[str, np.ndarray] = {}

    def decode(self, value: Any) -> Any:
        """The value that JSON says.

        Raises:
            ArtifactError: JSON that says nothing known.
        """
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        marks = [key for key in value if key.startswith("$")]
        if not marks:
            return {key: self.decode(item) for key, item in value.items()}
        if len(value) != 1 or marks[0] not in self._MARKS:
            raise ArtifactError(f"unknown mark {', '.join(marks)} in a file; is it from a newer version?")
        return self._MARKS[marks[0]](self, value[marks[0]])

    def object(self, described: Any, **arguments: Any) -> Any:
        """The object with a class, config and state."""
        cls: Any = self._symbols.find(described["class"])
        if not isinstance(cls, type) or described["class"].get("backend") not in _OWN:
            raise ArtifactError(f"{cls!r} is no class whose objects a file may hold")
        make: Any = cls
        made = make.from_config(self.decode(described["config"]), **arguments)
        if "state" in described:
            made.set_state(self.decode(described["state"]))
        return made

    def _array(self, name: Any) -> np.ndarray:
        found = self._arrays.get(str(name))
        if found is None:
            found = self._arrays[str(name)] = read_npy(self._symbols._archive.read(str(name)), str(name))
        return found

    def _unsafe(self, told: Any) -> UnsafePickle:
        member = told["member"]
        trusted = member is not None and self._symbols.allow_packaged_code
        return UnsafePickle(self._symbols._archive.read(str(member)) if trusted else None, str(told["type"]))

    def _packed(self, name: Any) -> Packed:
        return Packed(self._symbols._archive.read(str(name)), is_trusted=self._symbols.allow_packaged_code)

    def _predicate(self, told: Any) -> Predicate:
        return Predicate.from_dict(self.decode(told), allow_packaged_code=self._symbols.allow_packaged_code)

    _MARKS = {
        "$tuple": lambda self, told: tuple(self.decode(item) for item in told),
        "$dict": lambda self, told: {self.decode(key): self.decode(item) for key, item in told},
        "$array": _array,
        "$packed": _packed,
        "$bytes": lambda self, told: base64.b64decode(told),
        "$predicate": _predicate,
        "$unsafe": _unsafe,
        "$symbol": lambda self, told: self._symbols.find(told),
        "$object": lambda self, told: self.object(told),
    }


def read_npy(data: bytes, name: str) -> np.ndarray:
    """The array in the bytes of an ``.npy`` file, which must be exactly as long as its header says; read-only.

    Raises:
        ArtifactError: Anything else.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(stream)
        body = memoryview(data)[stream.tell() :]
        size = dtype.itemsize
        for length in shape:
            size *= length
        if dtype.hasobject or size != len(body) or min(shape, default=0) < 0:
            raise ValueError(f"the header says {shape} of {dtype}, the member holds {len(body)} bytes")
        return np.frombuffer(body, dtype=dtype).reshape(shape, order="F" if fortran else "C")
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, OverflowError, RecursionError) as error:
        raise ArtifactError(f"array {name!r} is damaged: {error}") from error


def lambda_source(function: Any) -> str:
    """The text of the one lambda in the statement that defines ``function``.

    Raises:
        ValueError: It cannot be found; use ``Lambda(source)``.
    """
    import inspect

    mend = "use keydnn.experiment.predicates.Lambda with its text instead"
    try:
        lines, start = inspect.getsourcelines(inspect.getmodule(function) or function)
        tree = ast.parse("".join(lines))
    except (OSError, TypeError, SyntaxError) as error:
        raise ValueError(f"the source of {function!r} cannot be read; {mend}") from error
    line = function.__code__.co_firstlineno - max(start - 1, 0)
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda) and node.lineno <= line <= (node.end_lineno or line)]
    if len(found) != 1 or function.__closure__:
        raise ValueError(f"{len(found)} lambdas stand on line {line} or it uses outer variables; {mend}")
    return ast.unparse(found[0])
