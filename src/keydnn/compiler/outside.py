"""What the Python of a step reads beside tensors: globals, variables of enclosing functions, attributes and entries of objects.

A plan holds such values as they were when the step was recorded.  :class:`Outside` finds them by walking the user's code from the
functions a step is known to call (which names the byte code loads, and what they stand for now) and tells later whether they are
still the very same objects: ``beta`` in ``mse + beta * penalty`` may be a global, a variable of the function around, an attribute
of the loss or an entry of a dict.  The package's own code is not walked: what it reads is part of a step's signature or stamps.

Not found: attributes whose name is computed (``getattr(config, name)``), entries of containers that have more than 64, and what the code
of installed libraries reads, unless the step's own functions are from there.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import inspect
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import numpy as np

from keydnn.kernels import native

_PACKAGE = __name__.partition(".")[0]
_PLAIN = (int, float, complex, bool, str, bytes, type(None), range, np.generic, np.ndarray)
_CONTAINERS = (list, dict, set, deque, OrderedDict, defaultdict)
_MOST_ENTRIES = 64
_MOST = 500  # functions and objects that are looked at
_MISSING = object()


class _Names:
    """The variables of a namespace as attributes."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.__dict__ = namespace


class Outside:
    """Values that the Python of a step reads, as they are now.

    Args:
        functions: What the step calls: functions, bound methods, objects that can be called, and classes.
        modules: The modules that it runs.
        arguments: Other objects that it is handed.
    """

    def __init__(self, functions: Iterable[Any], modules: Iterable[Any] = (), arguments: Iterable[Any] = ()) -> None:
        self._pairs: dict[tuple[int, str], tuple[Any, str, Any]] = {}
        self._containers: dict[int, tuple[Any, tuple[Any, ...]]] = {}
        self._seen: set[tuple[int, int]] = set()
        self._alive: list[Any] = []  # what was seen by its id
        given, modules = list(arguments), list(modules)
        functions = list(functions)
        self._homes = {_top(f) for f in (*functions, *map(type, modules))}  # installed or not, their code is the user's
        self._run = {id(module) for module in modules}
        for function in functions:
            self._callable(function, given)
        for module in modules:
            self._module(module)
        found = list(self._pairs.values())
        self._attributes = tuple(zip(*found, strict=True)) if found else ((), (), ())
        self._contents = list(self._containers.values())
        native_module = native.load()
        self._same_attributes, self._same_items = native_module.same_attributes, native_module.same_items
        del self._pairs, self._containers, self._seen, self._alive

    @property
    def is_empty(self) -> bool:
        """Whether nothing was found."""
        return not self._attributes[0] and not self._contents

    def is_same(self) -> bool:
        """Whether every name still stands for the object it stood for, and every container has the entries it had."""
        try:
            if not self._same_attributes(*self._attributes):
                return False
        except (AttributeError, ValueError):  # a name, an attribute or the value of a variable is gone
            return False
        return all(self._same_items(_entries(container), entries) for container, entries in self._contents)

    # -- what is walked

    def _callable(self, f: Any, arguments: Iterable[Any] = ()) -> None:
        if isinstance(f, functools.partial):
            self._callable(f.func, [*arguments, *f.args, *f.keywords.values()])
        elif isinstance(f, MethodType):
            self._method(f, arguments)
        elif isinstance(f, FunctionType):
            self._function(f, arguments)
        elif isinstance(f, type):
            if not self._is_foreign(f):
                self._functions_of(f, ())
        elif isinstance(call := inspect.getattr_static(type(f), "__call__", None), FunctionType):
            if self._is_known(call):
                self._held(f, getattr(f, "__dict__", {}).values())
            else:
                self._function(call, [f, *arguments])

    def _held(self, holder: Any, values: Iterable[Any]) -> None:
        """What a function or object of the package calls for the user."""
        if self._is_new(holder, None):
            for value in values:
                if isinstance(value, FunctionType | MethodType | functools.partial) or not self._is_foreign(type(value)):
                    self._homes.add(_top(value))
                    self._callable(value)

    def _method(self, f: MethodType, arguments: Iterable[Any]) -> None:
        owner, function = f.__self__, f.__func__
        if isinstance(function, FunctionType) and not self._is_known(function):
            self._function(function, [owner, *arguments])
        elif not isinstance(owner, type):
            for cls in type(owner).__mro__:  # a rule of the user's under a method of the package, as in an optimizer
                if not self._is_foreign(cls):
                    self._functions_of(cls, [owner])

    def _functions_of(self, cls: type, arguments: Iterable[Any]) -> None:
        for value in vars(cls).values():
            inner = getattr(value, "__func__", value)  # of a static or class method
            if isinstance(inner, FunctionType):
                self._function(inner, arguments)

    def _module(self, module: Any) -> None:
        """A module's ``forward`` and what its attributes call; that an attribute is another one shows in the module's stamp."""
        self._callable(module.forward)
        for value in vars(module).values():
            if isinstance(value, FunctionType | functools.partial | MethodType):
                self._callable(value)

    def _function(self, f: FunctionType, arguments: Iterable[Any]) -> None:
        code = f.__code__
        if self._is_known(f):
            self._held(f, _cells(f))
            return
        arguments = [a for a in arguments if not isinstance(a, _PLAIN)]
        if not self._is_new(f, code):
            for argument in arguments:  # known code, perhaps with another object
                self._object(argument, code)
            return
        for name, cell in zip(code.co_freevars, f.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
            self._value(value, cell, "cell_contents", code, is_noted=name != "__class__")
        space = f.__globals__
        for name in _global_names(code):
            if name in space:
                self._value(space[name], _Names(space), name, code)
        for value in (*(f.__defaults__ or ()), *(f.__kwdefaults__ or {}).values(), *arguments):
            self._object(value, code)

    def _value(self, value: Any, holder: Any, name: str, code: CodeType, is_noted: bool = True) -> None:
        """``holder.name``, which code reads: note which object it is, then look into it."""
        if isinstance(value, ModuleType):
            if not self._is_other(value.__name__.partition(".")[0]):
                for read in _attribute_names(code) & vars(value).keys():
                    self._value(vars(value)[read], value, read, code)
            return
        if is_noted:
            key = (id(holder.__dict__ if isinstance(holder, _Names) else holder), name)
            self._pairs[key] = (holder, name, value)
        self._object(value, code)

    def _object(self, value: Any, code: CodeType) -> None:
        """What ``code`` may read of an object: entries, attributes, and what its methods read."""
        if _is_module(value) and id(value) not in self._run:
            self._pairs[id(value), "_stamp"] = value, "_stamp", value._stamp
        if isinstance(value, _PLAIN) or not self._is_new(value, code):
            return
        if isinstance(value, tuple) or type(value) in _CONTAINERS:
            if len(value) <= _MOST_ENTRIES:
                if not isinstance(value, tuple):
                    self._containers[id(value)] = value, _entries(value)
                for entry in value.values() if isinstance(value, dict) else value:
                    self._object(entry, code)
        elif isinstance(value, FunctionType | MethodType | functools.partial):
            self._callable(value)
        elif isinstance(value, type):
            if not self._is_foreign(value):
                self._attributes_of(value, code)
                self._functions_of(value, ())
        elif not self._is_foreign(type(value)):
            self._attributes_of(value, code)
            self._callable(value)
        elif not _is_ours(_top(type(value))):  # an object of a library: what it holds counts, its code does not
            own = getattr(value, "__dict__", {})
            for name in _attribute_names(code) & own.keys():
                self._value(own[name], value, name, code)

    def _attributes_of(self, owner: Any, code: CodeType) -> None:
        """The attributes of an object whose names ``code`` loads."""
        is_stamped = _is_module(owner)
        for name in _attribute_names(code):
            found = inspect.getattr_static(owner, name, _MISSING)
            if isinstance(found, property):
                if isinstance(found.fget, FunctionType):
                    self._function(found.fget, [owner])
            elif isinstance(inner := getattr(found, "__func__", found), FunctionType) and name not in getattr(owner, "__dict__", ()):
                self._function(inner, [] if isinstance(owner, type) else [owner])
            elif isinstance(found, MemberDescriptorType):
                if (value := getattr(owner, name, _MISSING)) is not _MISSING:
                    self._value(value, owner, name, code)
            elif found is not _MISSING and inspect.getattr_static(type(found), "__get__", None) is None:
                is_own = name in getattr(owner, "__dict__", ())
                home = None if is_own else next((cls for cls in _classes(owner) if name in vars(cls)), None)
                if is_own or (home is not None and not self._is_foreign(home)):
                    holder = home if is_stamped and not is_own else owner
                    self._value(found, holder, name, code, is_noted=not (is_stamped and is_own))

    def _is_other(self, top: str) -> bool:
        return _is_ours(top) or (_is_installed(top) and top not in self._homes)

    def _is_foreign(self, value: Any) -> bool:
        """Whether a function or class is none of the user's code."""
        return self._is_other(_top(value))

    def _is_known(self, f: FunctionType) -> bool:
        return _top(f) != "builtins" and self._is_foreign(f)

    def _is_new(self, value: Any, code: CodeType | None) -> bool:
        key = id(value), id(code)
        if key in self._seen or len(self._seen) >= _MOST:
            return False
        self._seen.add(key)
        self._alive += [value, code]
        return True


def _is_module(value: Any) -> bool:
    """Whether ``value`` is a Module, whose stamp shows that attributes were assigned; asked without knowing the class."""
    return not isinstance(value, type) and "_stamp" in getattr(value, "__dict__", ())


def _entries(container: Any) -> tuple[Any, ...]:
    return (*container, *container.values()) if isinstance(container, dict) else tuple(container)


def _classes(owner: Any) -> tuple[type, ...]:
    return owner.__mro__ if isinstance(owner, type) else type(owner).__mro__


def _cells(f: FunctionType) -> Iterable[Any]:
    for cell in f.__closure__ or ():
        with contextlib.suppress(ValueError):  # not assigned yet
            yield cell.cell_contents


@functools.cache
def _is_ours(top: str) -> bool:
    """Whether a top-level module is the package, NumPy or Python."""
    return top in ("builtins", "numpy", _PACKAGE) or (top != "__main__" and top in sys.stdlib_module_names)


@functools.cache
def _is_installed(top: str) -> bool:
    file = getattr(sys.modules.get(top), "__file__", None) or ""
    return top != "__main__" and ("site-packages" in file or "dist-packages" in file)


def _top(value: Any) -> str:
    """The top-level module that a function, class or object comes from; "" for what ``exec`` made."""
    if isinstance(value, MethodType | functools.partial):
        value = value.__func__ if isinstance(value, MethodType) else value.func
    module = getattr(value, "__module__", None)
    return module.partition(".")[0] if isinstance(module, str) else ""


def _codes(code: CodeType) -> Iterable[CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _codes(const)


def _loaded(code: CodeType, wanted: Callable[[str], bool]) -> frozenset[str]:
    return frozenset(
        i.argval for part in _codes(code) for i in dis.get_instructions(part) if wanted(i.opname) and isinstance(i.argval, str)
    )


@functools.lru_cache(512)
def _global_names(code: CodeType) -> frozenset[str]:
    return _loaded(code, lambda op: op in ("LOAD_GLOBAL", "LOAD_NAME"))


@functools.lru_cache(512)
def _attribute_names(code: CodeType) -> frozenset[str]:
    return _loaded(code, lambda op: "ATTR" in op or op == "LOAD_METHOD")
