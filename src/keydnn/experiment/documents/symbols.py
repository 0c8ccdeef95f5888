"""Classes and functions as import paths: ours, public ones of the frameworks, registered ones; others only with permission."""

from __future__ import annotations

import importlib
import math
import sys
import types
from typing import Any

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.infer import infer_backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.errors import ExperimentError, PackagedCodeError, SymbolResolutionError
from keydnn.experiment.io.classes import BUILTINS, REGISTRIES, import_string

_FRAMEWORKS = (Backend.KEYDNN, Backend.TORCH, Backend.TENSORFLOW, Backend.SCIKIT)


class NoPathError(ExperimentError, ImportError):
    """No import path leads to a class or function."""


def path_of(symbol: Any) -> str:
    """The path that :func:`found` follows to a class or function.

    Raises:
        NoPathError: It stands in ``__main__``, inside a function, or is a lambda: no path leads to it.
    """
    where = f"{symbol.__module__}:{symbol.__qualname__}"
    if where in BUILTINS.values():
        public = f"{_room(symbol.__module__)}.{symbol.__name__}"
        return public if _public(public) is symbol else where.replace(":", ".")
    backend = infer_backend(symbol)
    if backend is not None and (name := adapter(backend).known.name_of(symbol)) is not None:
        room, _, own = name.rpartition(".")
        return f"{adapter(backend).known.module_of(room)}.{own}"
    path = where.replace(":", ".")
    if symbol.__module__ == "__main__" or _at(sys.modules.get(symbol.__module__), symbol.__qualname__) is not symbol:
        raise NoPathError(f"no import path leads to {path}: define it at the top of a module that can be imported")
    return path


def found(path: str, *, allow_packaged_code: bool, place: str) -> Any:
    """The class or function at a path.

    Args:
        path: Names joined by dots.
        allow_packaged_code: Whether a module that is none of ours may be imported for it.
        place: Of the path in its file, for messages.

    Raises:
        PackagedCodeError: It is not ours, no public one of a framework, not registered, and there is no permission.
        SymbolResolutionError: There is no such thing.
    """
    for known in (_ours, _of_a_framework, _registered, _of_math):
        symbol = known(path)
        if symbol is not None:
            return symbol
    if not allow_packaged_code:
        raise PackagedCodeError(
            f"{place}: {path!r} is no class of KeyDNN, no public one of a framework and not registered: register it,"
            " or pass allow_packaged_code=True to import it"
        )
    return _imported(path, place)


def _room(module: str) -> str:
    """``keydnn.experiment.graph.concat_node`` -> ``keydnn.experiment.graph``."""
    return ".".join(module.split(".")[:3])


def _public(path: str) -> Any:
    """What one of our public rooms holds under a name."""
    room, _, name = path.rpartition(".")
    return vars(importlib.import_module(room)).get(name)


def _ours(path: str) -> Any:
    for where in BUILTINS.values():
        module, _, name = where.partition(":")
        if path == f"{module}.{name}":
            return import_string(where)
        if path in (f"{_room(module)}.{name}", f"keydnn.experiment.{name}") and _public(path) is import_string(where):
            return import_string(where)
    return None


def _of_a_framework(path: str) -> Any:
    module, _, name = path.rpartition(".")
    for backend in _FRAMEWORKS:
        known = adapter(backend).known
        for room in known.rooms_at(module):
            if (symbol := known.find(f"{room}.{name}")) is not None:
                return symbol
    return None


def _registered(path: str) -> Any:
    for registry in ("sampler", "splitter", "callback", "probe"):
        for symbol in import_string(REGISTRIES[registry]).values():
            if f"{symbol.__module__}.{symbol.__qualname__}" == path:
                return symbol
    return None


def _of_math(path: str) -> Any:
    module, _, name = path.rpartition(".")
    symbol = getattr(math, name, None) if module == "math" else None
    return symbol if isinstance(symbol, types.BuiltinFunctionType) else None


def _imported(path: str, place: str) -> Any:
    """What an import finds: the longest part of the path that is a module, and the names behind it."""
    parts = path.split(".")
    for n in range(len(parts) - 1, 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError as error:
            if error.name is None or not ".".join(parts[:n]).startswith(error.name):
                raise  # the module is there, and something it needs is not
            continue
        symbol = _at(module, ".".join(parts[n:]))
        if symbol is not None:
            return symbol
        break
    raise SymbolResolutionError(f"{place}: nothing can be imported from {path!r}")


def _at(holder: Any, qualname: str) -> Any:
    for name in qualname.split("."):
        holder = getattr(holder, name, None)
    return holder
