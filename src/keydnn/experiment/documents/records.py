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


class _Record:
    """See :func:`record`."""

    def __init__(
        self, what: str, cls: Any, fields: Fields, defaults: Mapping[str, Any], without: Iterable[str], more: Iterable[str]
    ) -> None:
        self._what, self._cls, self._fields, self._defaults = what, cls, fields, defaults
        self._without, self._more = frozenset(without), tuple(more)
        takes_any = any(one.kind is one.VAR_KEYWORD for one in inspect.signature(cls).parameters.values())
        self._is_open = takes_any and not self._more

    def _known(self) -> dict[str, Any]:
        """Key of the config to its default."""
        found = {name: one.default for name, one in arguments_of(self._cls).items() if name not in self._without}
        return {**found, **dict.fromkeys(self._more), **self._defaults}

    def tell(self, writer: Writer, config: Mapping[str, Any]) -> dict[str, Any]:
        """The document of a config: what differs from the defaults, named fields first."""
        given = self._known()
        document = {}
        for key in [*(key for key in self._fields if key in config), *(key for key in config if key not in self._fields)]:
            name, view = self._fields.get(key, (key, VALUE))
            value = config[key]
            empty = value is None or (isinstance(value, list | tuple | dict) and not value)
            if empty and key in given and same_values(value, given[key]):
                continue
            with writer.at(name):
                document[name] = view.tell(writer, value)
        return document

    def read(self, reader: Reader, document: Any) -> dict[str, Any]:
        """The config of a document.

        Raises:
            PlacedError: It has a key that means nothing, lacks one that is needed, or has a value of another type.
        """
        document, config = reader.mapping(document, self._what), self._known()
        keys = {self._fields[key][0] if key in self._fields else key: key for key in config}
        if self._is_open:
            keys = {**{name: name for name in document}, **keys}
        check_keys(reader, document, keys, self._what)
        for name, told in document.items():
            with reader.at(name):
                config[keys[name]] = self._value(reader, name, keys[name], told)
        missing = [name for name, key in keys.items() if config.get(key) is _NEEDED]
        if missing:
            reader.refuse(f"{self._what} needs {', '.join(missing)}")
        return config

    def _value(self, reader: Reader, name: str, key: str, told: Any) -> Any:
        if key in self._fields:
            return self._fields[key][1].read(reader, told)
        value, argument = VALUE.read(reader, told), arguments_of(self._cls).get(key)
        if argument is not None:
            check_type(reader, name, value, argument.annotation)
        return value


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
    made = _Record(what, cls, dict(fields or {}), dict(defaults or {}), without, more)

    def read(reader: Reader, document: Any) -> dict[str, Any]:
        config = made.read(reader, document)
        if check is not None:
            check(config)
        return config

    return View(made.tell, read)


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
