"""The structure of a module as plain JSON values, and back.

    node = {"type": registered name, "config": get_config(), "children": {name: node, ...}}

with two further keys where they say something:

* ``order``: the names of a container's children, when they are not in the order that readers assume without it
  (whole numbers first and by value, then the other names by alphabet);
* ``shared_with``: the dotted path of the node whose module this is too, when a module is reached by several paths.  A class
  with ``_aliases`` (second name of a child to its first) has those children written out twice instead, and ties them again in
  ``_post_load``.

Reading makes each module with ``from_config(config)``, registers the children under their names in order (replacing
what the constructor made) and then calls the module's ``_post_load()`` if it has one.  Weights are not part of this; a
parameter that modules share is written once for each, and ``_post_load`` is the place to tie it again.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from keydnn.domain.device import Device
from keydnn.domain.errors import CheckpointError, MissingKeyError
from keydnn.domain.protocols import IContainer
from keydnn.saving.registry import name_of, registered


def module_to_config(module: Any) -> dict[str, Any]:
    """The node of ``module`` and everything below it.

    Args:
        module: A module; classes that shall be read back must be registered, see :func:`register_module`.

    Returns:
        Fresh dicts, lists, strings, numbers, booleans and None only.

    Raises:
        NotImplementedError: A class has no ``get_config``.
        TypeError: A config holds something that JSON cannot say.

    Example:
        >>> keydnn.module_to_config(keydnn.Dropout(0.25))
        {'type': 'Dropout', 'config': {'p': 0.25}, 'children': {}}
    """
    return _node_of(module, "", {})


def _node_of(module: Any, path: str, paths: dict[int, str]) -> dict[str, Any]:
    first = paths.setdefault(id(module), path)
    children = module._modules
    aliases = getattr(module, "_aliases", {})  # second names of children, which older readers want written out
    node: dict[str, Any] = {
        "type": name_of(type(module)),
        "config": _plain(_config_of(module), type(module).__name__),
        "children": {name: _node_of(child, join(path, name), {} if name in aliases else paths) for name, child in children.items()},
    }
    if isinstance(module, IContainer) and list(children) != in_assumed_order(children):
        node["order"] = list(children)
    if first != path:
        node["shared_with"] = first
    return node


def _config_of(module: Any) -> dict[str, Any]:
    config = module.get_config()
    if not isinstance(config, dict):
        raise TypeError(f"{type(module).__name__}.get_config() must return a dict, got {type(config).__name__}")
    return config


def join(path: str, name: str) -> str:
    """``path.name``, or ``name`` at the root."""
    return f"{path}.{name}" if path else name


def in_assumed_order(names: Iterable[str]) -> list[str]:
    """Whole numbers first and by value (so ``"10"`` follows ``"9"``), then the other names by alphabet."""
    return sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))


def _plain(value: Any, owner: str) -> Any:
    """``value`` in the types of JSON: tuples become lists, NumPy scalars numbers, devices and dtypes their names."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item, f"{owner}[{key!r}]") for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item, owner) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Device):
        return str(value)
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return np.dtype(value).name
    raise TypeError(f"config of {owner}: a {type(value).__name__} cannot be written as JSON; get_config() must give plain values")


def module_from_config(node: Any, *, root: type | None = None, device: Device | str | None = None) -> Any:
    """The module that ``node`` describes, with fresh weights.

    Args:
        node: What :func:`module_to_config` returned, possibly after a round trip through JSON.
        root: Class of the outermost module if it should not be registered.
        device: Where the parameters shall live; None takes what the configs say.

    Raises:
        ValueError: A node is malformed, names an unknown type, or its class refuses the config.
        KeyError: A node has no ``type``.

    Warns:
        UserWarning: The configs ask for CUDA, which is not there; the module is made on the cpu.
    """
    builder = _Builder(node, root, device)
    module = builder.module("")
    for lost in sorted(builder.lost):
        warnings.warn(f"checkpoint: device '{lost}' is not available, loaded on 'cpu' instead", UserWarning, stacklevel=2)
    return module


class _Builder:
    """Makes the module of each path once, in whatever order ``shared_with`` needs."""

    def __init__(self, node: Any, root: type | None, device: Device | str | None) -> None:
        self._root, self._device = root, None if device is None else str(Device(str(device)))
        self._nodes = dict(nodes_of(node))
        self._modules: dict[str, Any] = {}
        self._in_work: set[str] = set()
        self.lost: set[str] = set()  # devices that are not available

    def module(self, path: str) -> Any:
        if path not in self._modules:
            if path in self._in_work:
                raise CheckpointError(f"checkpoint: the module at {path!r} is said to contain itself (shared_with)")
            self._in_work.add(path)
            self._modules[path] = self._make(path)
        return self._modules[path]

    def _make(self, path: str) -> Any:
        node = self._nodes[path]
        if "shared_with" in node:
            return self._shared(path, node["shared_with"])
        cls = self._class(path, node["type"])
        module = self._from_config(cls, path, self._placed(node.get("config") or {}))
        for name in _ordered(node, path):
            module.register_module(name, self.module(join(path, name)))
        finish = getattr(module, "_post_load", None)
        if finish is not None:
            finish()
        return module

    def _shared(self, path: str, target: Any) -> Any:
        if target not in self._nodes:
            raise CheckpointError(f"checkpoint: {path!r} is shared with {target!r}, which is not in the file")
        return self.module(target)

    def _class(self, path: str, name: str) -> Any:
        if path == "" and self._root is not None and name == name_of(self._root):
            return self._root
        return registered(name)

    def _placed(self, config: dict[str, Any]) -> dict[str, Any]:
        """``config`` with its devices, also those of inner configs, replaced by ones that can be had."""
        return {key: self._placed_value(key, value) for key, value in config.items()}

    def _placed_value(self, key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return self._placed(value)
        if key != "device" or value is None:
            return value
        if self._device is not None:
            return self._device
        if Device(value).is_cuda():  # no kernel table serves it yet
            self.lost.add(value)
            return "cpu"
        return value

    def _from_config(self, cls: Any, path: str, config: dict[str, Any]) -> Any:
        try:
            return cls.from_config(config)
        except (KeyError, TypeError, ValueError) as error:
            where = f" at {path!r}" if path else ""
            kind = MissingKeyError if isinstance(error, KeyError) else CheckpointError
            raise kind(f"checkpoint: {cls.__name__}{where} cannot be made from config {config}: {error}") from error


def nodes_of(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node of a structure with its dotted path, parents first and children in order, checked for its form.

    Raises:
        ValueError: A node is malformed.
        KeyError: A node has no ``type``.
    """
    where = f"node {path!r}" if path else "the root node"
    if not isinstance(node, dict):
        raise CheckpointError(f"checkpoint: {where} must be an object, got {type(node).__name__}")
    if "type" not in node:
        raise MissingKeyError(f"checkpoint: {where} has no 'type'")
    for key, kind in (("type", str), ("config", dict), ("children", dict), ("shared_with", str)):
        if node.get(key) is not None and not isinstance(node[key], kind):
            raise CheckpointError(f"checkpoint: {key!r} of {where} is {node[key]!r}, expected a {kind.__name__}")
    yield path, node
    for name in _ordered(node, where):
        if not name or "." in name:
            raise CheckpointError(f"checkpoint: {where} has a child named {name!r}; names are non-empty and hold no dots")
        yield from nodes_of(node["children"][name], join(path, name))


def _ordered(node: dict[str, Any], where: str) -> list[str]:
    names = in_assumed_order(node.get("children") or {})
    order = node.get("order")
    if order is None:
        return names
    if not isinstance(order, list) or not all(isinstance(name, str) for name in order) or sorted(order) != sorted(names):
        raise CheckpointError(f"checkpoint: 'order' of {where} is {order!r}, its children are {names}")
    return order


def known_arguments(cls: type, config: dict[str, Any]) -> dict[str, Any]:
    """The entries of ``config`` that the constructor of ``cls`` takes; others come from newer files and are dropped.

    Example:
        >>> known_arguments(keydnn.Dropout, {"p": 0.1, "noise_shape": None})
        {'p': 0.1}
    """
    parameters = inspect.signature(cls).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return dict(config)
    return {key: value for key, value in config.items() if key in parameters}
