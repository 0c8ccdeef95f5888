"""Records: mappings that stand for the arguments of a class; its signature says what is known, needed and of which type."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from keydnn.experiment.documents.sides import Reader, Writer, shown
from keydnn.experiment.documents.values import VALUE, View
from keydnn.experiment.equality import same_values

Fields = Mapping[str, tuple[str, View]]  # key of the config -> (key of the document, how its value is said)
_NEEDED = inspect.Parameter.empty
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "None": (type(None),),
    "Mapping": (Mapping,),
    "dict": (Mapping,),
    "Sequence": (list, tuple),
    "list": (list, tuple),
}


@functools.cache
def arguments_of(cls: Any) -> dict[str, inspect.Parameter]:
    """The arguments of a constructor that have a name."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: one for name, one in inspect.signature(cls).parameters.items() if one.kind not in variable}


def check_keys(reader: Reader, given: Iterable[Any], known: Iterable[str], what: str) -> None:
    """Refuse keys that mean nothing.

    Raises:
        PlacedError: One is not known.
    """
    known = list(known)
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            reader.refuse(f"{what} has no {key!r}; {hint}")


def check_type(reader: Reader, name: str, value: Any, annotation: Any) -> None:
    """Refuse a value of another type than the annotation of an argument says, as far as it says it in simple words.

    Raises:
        PlacedError: It is of another type.
    """
    words = [word.strip().partition("[")[0] for word in str(getattr(annotation, "__name__", annotation)).split(" | ")]
    if not all(word in _TYPES for word in words):
        return
    kinds = tuple(kind for word in words for kind in _TYPES[word])
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        reader.refuse(f"{name} must be {annotation}, got {shown(value)}")


def record(
    what: str,
    cls: Any,
    fields: Fields | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
    without: Iterable[str] = (),
    more: Iterable[str] = (),
    check: Callable[[dict[str, Any]], object] | None = None,
) -> View:
    """The view of a config whose keys are arguments of a class.

    Args:
        what: Name of the thing, for messages.
        cls: The class.
        fields: Keys that have another name, or values that have a view of their own; the rest is as in the config.
        defaults: What the config says where the document says nothing, if the signature says it otherwise.
        without: Arguments that documents do not have.
        more: Keys of the config that are no arguments; without them a class that takes any keyword takes any key.
        check: Called with the config that was read; it raises if the config cannot be used.
    """
    named, told_defaults, hidden, extra = dict(fields or {}), dict(defaults or {}), frozenset(without), tuple(more)

    def known() -> dict[str, Any]:
        """Key of the config to its default."""
        found = {name: one.default for name, one in arguments_of(cls).items() if name not in hidden}
        return {**found, **dict.fromkeys(extra), **told_defaults}

    is_open = not extra and any(one.kind is one.VAR_KEYWORD for one in inspect.signature(cls).parameters.values())

    def tell(writer: Writer, config: Mapping[str, Any]) -> dict[str, Any]:
        given = known()
        document = {}
        for key in [*(key for key in named if key in config), *(key for key in config if key not in named)]:
            name, view = named.get(key, (key, VALUE))
            value = config[key]
            empty = value is None or (isinstance(value, list | tuple | dict) and not value)
            if empty and key in given and same_values(value, given[key]):
                continue
            with writer.at(name):
                document[name] = view.tell(writer, value)
        return document

    def read(reader: Reader, document: Any) -> dict[str, Any]:
        document, given = reader.mapping(document, what), known()
        keys = {named[key][0] if key in named else key: key for key in given}
        if is_open:
            keys = {**{name: name for name in document}, **keys}
        check_keys(reader, document, keys, what)
        config = dict(given)
        for name, told in document.items():
            key = keys[name]
            with reader.at(name):
                config[key] = named[key][1].read(reader, told) if key in named else VALUE.read(reader, told)
                if key not in named and key in arguments_of(cls):
                    check_type(reader, name, config[key], arguments_of(cls)[key].annotation)
        missing = [name for name, key in keys.items() if config.get(key) is _NEEDED]
        if missing:
            reader.refuse(f"{what} needs {', '.join(missing)}")
        if check is not None:
            check(config)
        return config

    return View(tell, read)


def maybe(view: View) -> View:
    """The view of a value that may be None."""
    return View(
        lambda writer, value: None if value is None else view.tell(writer, value),
        lambda reader, told: None if told is None else view.read(reader, told),
    )


def listed(view: View, what: str) -> View:
    """The view of a list; a message says which of its items is meant, with the label if it has one."""

    def tell(writer: Writer, values: Any) -> list[Any]:
        document = []
        for i, value in enumerate(values or []):
            with writer.at(f"[{i}]"):
                document.append(view.tell(writer, value))
        return document

    def read(reader: Reader, told: Any) -> list[Any]:
        values = []
        for i, one in enumerate(reader.sequence(told, what)):
            label = one.get("label") if isinstance(one, Mapping) else None
            with reader.at(f"[{i}]" + ("" if label is None else f" {label!r}")):
                values.append(view.read(reader, one))
        return values

    return View(tell, read)


LABEL = View(lambda writer, value: writer.label_of(value), lambda reader, told: reader.id_of(told))
LABELS = maybe(listed(LABEL, "nodes"))
