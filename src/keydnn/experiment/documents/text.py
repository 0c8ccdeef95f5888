"""YAML text to plain values and back: the core schema of YAML 1.2, read with suspicion.

Tags, merge keys, dates and numbers to other bases mean nothing here: ``no``, ``2024-01-01`` and ``1:30`` are text, ``1e-3`` is a number.
Refused when reading: more than 4 MiB, 50,000 values (aliases counted as often as they stand for something) or 64 levels, tags, a key
that stands there twice, and what is no YAML.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
from pathlib import Path
from typing import Any

from keydnn.experiment.errors import ArtifactError
from keydnn.experiment.optional import need

MAX_BYTES = 4 << 20
MAX_VALUES = 50_000
MAX_DEPTH = 64
_WHAT = "a YAML file"
_CORE = {  # tag -> (what it looks like, what it may start with)
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}


def _tag(name: str) -> str:
    return f"tag:yaml.org,2002:{name}"


@functools.cache
def _faces() -> tuple[Any, Any]:
    """Loader and dumper: those of ``yaml.safe_load`` and ``safe_dump``, narrowed to the core schema.

    Raises:
        ImportError: PyYAML is not installed.
    """
    yaml = need("yaml", _WHAT)

    class Loader(yaml.SafeLoader):  # type: ignore[misc, name-defined]
        yaml_implicit_resolvers: dict[str, Any] = {}
        yaml_constructors = {
            _tag("null"): yaml.SafeLoader.construct_yaml_null,
            _tag("bool"): yaml.SafeLoader.construct_yaml_bool,
            _tag("int"): lambda loader, node: int(loader.construct_scalar(node)),
            _tag("float"): lambda loader, node: float(_plain_float(loader.construct_scalar(node))),
            _tag("str"): yaml.SafeLoader.construct_yaml_str,
            _tag("seq"): yaml.SafeLoader.construct_yaml_seq,
            _tag("map"): yaml.SafeLoader.construct_yaml_map,
            None: yaml.SafeLoader.construct_undefined,
        }

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for i, key in enumerate(keys):
                mark = node.value[i][0].start_mark
                if isinstance(key, list | dict):
                    raise yaml.constructor.ConstructorError(None, None, "a list or mapping cannot be a key", mark)
                if any(type(other) is type(key) and other == key for other in keys[:i]):
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands there twice", mark)
            return yaml.constructor.BaseConstructor.construct_mapping(self, node, deep=deep)

    class Dumper(yaml.SafeDumper):  # type: ignore[misc, name-defined]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    Dumper.add_representer(float, _represent_float)
    for name, (pattern, first) in _CORE.items():
        for face in (Loader, Dumper):
            face.add_implicit_resolver(_tag(name), re.compile(f"^(?:{pattern})$"), first)
    return Loader, Dumper


def _plain_float(text: str) -> str:
    return text.lower().replace(".inf", "inf").replace(".nan", "nan")


def _represent_float(dumper: Any, value: float) -> Any:
    text = ".nan" if math.isnan(value) else repr(value).replace("inf", ".inf")
    return dumper.represent_scalar(_tag("float"), text)


def to_text(value: Any) -> str:
    """Plain values as YAML.

    Raises:
        ArtifactError: More of them than would be read again.
        ImportError: PyYAML is not installed.
    """
    _, dumper = _faces()
    if _count(value, 1) > MAX_VALUES:
        raise ArtifactError(f"a document of more than {MAX_VALUES} values is too large for YAML; save() writes data to a file of its own")
    text: str = need("yaml", _WHAT).dump(value, Dumper=dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)
    return text


def _count(value: Any, depth: int) -> int:
    """Values in a document."""
    if depth > MAX_DEPTH:
        raise ArtifactError(f"a document of more than {MAX_DEPTH} levels is too deep for YAML")
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return 1 + sum(_count(one, depth + 1) for one in inner)


def from_text(text: str, name: str) -> Any:
    """The plain values in YAML.

    Args:
        text: The text.
        name: Of the file, for messages.

    Raises:
        ArtifactError: No YAML, or one that is not safe; the message tells line and column.
        ImportError: PyYAML is not installed.
    """
    yaml = need("yaml", _WHAT)
    loader, _ = _faces()
    try:
        _check_size(yaml.parse(text, Loader=loader), yaml.events, name)
        return yaml.load(text, Loader=loader)  # the loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        what = ": ".join(part for part in (error.context, error.problem) if part)
        raise ArtifactError(f"{name}{place}: {what}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"{name} is no YAML: {error}") from error


def _check_size(events: Any, kinds: Any, name: str) -> None:
    """Refuse depth, and more values than a document of ours has, each alias counted as what it stands for."""
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = []  # anchors of open collections, and the count when they were opened
    count = 0
    for event in events:
        if isinstance(event, kinds.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in opened):
                raise ArtifactError(f"{name}, line {event.start_mark.line + 1}: the alias {event.anchor!r} stands inside of what it names")
            count += sizes.get(event.anchor, 0)
        elif isinstance(event, kinds.ScalarEvent):
            count += 1
            sizes.update({} if event.anchor is None else {event.anchor: 1})
        elif isinstance(event, kinds.CollectionStartEvent):
            count += 1
            opened.append((event.anchor, count - 1))
        elif isinstance(event, kinds.CollectionEndEvent):
            anchor, before = opened.pop()
            sizes.update({} if anchor is None else {anchor: count - before})
        if count > MAX_VALUES or len(opened) > MAX_DEPTH:
            raise ArtifactError(f"{name} is refused: it holds more than {MAX_VALUES} values or {MAX_DEPTH} levels")


def read_text(path: Path) -> Any:
    """The plain values in a file.

    Raises:
        FileNotFoundError: No such file.
        ArtifactError: See :func:`from_text`; or the file is too large, or no UTF-8.
    """
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ArtifactError(f"{path} is refused: it holds more than {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path} is no YAML: {error}") from error
    return from_text(text, str(path))


def write_text(path: Path, text: str, *, overwrite: bool) -> None:
    """Write a file beside ``path`` and move it there; a reader sees the old file or the new one.

    Raises:
        FileExistsError: The file exists and ``overwrite`` is False.
    """
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; pass overwrite=True to replace it")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".keydnn-{os.urandom(8).hex()}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):  # the rename moved it away
            temporary.unlink()
