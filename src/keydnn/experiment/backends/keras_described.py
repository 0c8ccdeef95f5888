"""Keras models told in plain values: what Keras itself says of them, with classes in place of names of modules.

A config of Keras names what it is made of by module and class, and reading one imports what it names.  Here the classes are those of
the table of public ones (:mod:`keydnn.experiment.backends.tensorflow`), and what is given to Keras names nothing else.

{"class": Dense, "config": {..}, "build_config": {..}}   {"mark": "__keras_tensor__", "config": {..}}   anything else: itself
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from keydnn.experiment.backends.known import Known
from keydnn.experiment.optional import need

_ROOMS = {  # module, as Keras names it -> rooms of the table
    "keras": ("models", "policies"),
    "keras.src.models.functional": ("models",),
    "keras.layers": ("layers",),
    "keras.initializers": ("initializers",),
    "keras.regularizers": ("regularizers",),
    "keras.constraints": ("constraints",),
}
_MODULES = {room: module for module, rooms in _ROOMS.items() if "src" not in module for room in rooms}
_OTHER_NAMES = {"Functional": "Model"}
_MARKS = ("__keras_tensor__", "__numpy__", "__slice__", "__ellipsis__")
_BESIDE = ("build_config", "name", "inbound_nodes")  # what may stand beside the config of a layer
_NAMING = {"class_name", "module", "registered_name", "shared_object_id", "spec_name"}


class _Unknown(Exception):
    """A class that is not in the table."""


def describe(model: Any, known: Known) -> dict[str, Any] | None:
    """A model told.

    Args:
        model: A model or layer of Keras.
        known: The table of public classes.

    Returns:
        The tree; None if it holds anything that is not in the table, such as a ``Lambda`` or a layer of a user.
    """
    try:
        return _told(need("keras.saving", "a Keras model").serialize_keras_object(model), known)
    except (_Unknown, NotImplementedError):  # Keras says the latter of a layer that does not tell its arguments
        return None


def _told(said: Any, known: Known) -> Any:
    if isinstance(said, list | tuple):
        return [_told(value, known) for value in said]
    if not isinstance(said, Mapping):
        return said
    if "class_name" not in said:
        return {key: _told(value, known) for key, value in said.items()}
    name = said["class_name"]
    if name in _MARKS:
        return {"mark": name, "config": _told(said["config"], known)}
    found = (known.find(f"{room}.{_OTHER_NAMES.get(name, name)}") for room in _ROOMS.get(said.get("module", ""), ()))
    cls = next((value for value in found if value is not None), None)
    if cls is None or said.get("registered_name") not in (None, *_OTHER_NAMES):
        raise _Unknown(name)
    beside = {key: _told(said[key], known) for key in _BESIDE if key in said}
    return {"class": cls, "config": _told(said["config"], known), **beside}


def made(told: Mapping[str, Any], known: Known) -> Any:
    """The model that :func:`describe` told, with fresh weights.

    Raises:
        ValueError: It names what is not in the table, or Keras cannot make it.
    """
    read: Callable[..., Any] = need("keras.saving", "a Keras model").deserialize_keras_object
    errors = need("tensorflow.errors", "a Keras model")
    try:
        return read(_said(told, known), safe_mode=True)
    except errors.OpError as error:
        raise ValueError(f"Keras cannot make the model: {error}") from error


def _said(told: Any, known: Known) -> Any:
    if isinstance(told, list | tuple):
        return [_said(value, known) for value in told]
    if isinstance(told, type) or callable(told):
        raise ValueError(f"{told!r} stands where a Keras model has a value")
    if not isinstance(told, Mapping):
        return told
    if naming := sorted(_NAMING & {*told}):
        raise ValueError(f"a Keras model is told by its classes, here stands {', '.join(naming)}")
    if told.get("mark") in _MARKS and told.keys() == {"mark", "config"}:
        return {"class_name": told["mark"], "config": _said(told["config"], known)}
    if not isinstance(told.get("class"), type):
        return {key: _said(value, known) for key, value in told.items()}
    room, _, name = (known.name_of(told["class"]) or "").partition(".")
    if room not in _MODULES or not told.keys() <= {"class", "config", *_BESIDE}:
        raise ValueError(f"{told['class'].__name__} is no class that a file may name in a Keras model")
    beside = {key: _said(told[key], known) for key in _BESIDE if key in told}
    return {"module": _MODULES[room], "class_name": name, "config": _said(told["config"], known), "registered_name": None, **beside}
