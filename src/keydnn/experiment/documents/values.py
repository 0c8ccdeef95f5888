"""Values of any kind as plain ones and back: arguments of models, losses, optimizers, callbacks.

What YAML cannot say is a mapping with one key:

    $tuple [..]   $pairs [[key, value], ..]   $array {dtype, shape, values}   $bytes base64   $predicate {type, ..}
    $symbol path   $object {class, config}   $node label

References are mappings with ``ref_type``.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn.experiment import references
from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.contracts import IConfigurable
from keydnn.experiment.documents.sides import Reader, Writer, shown
from keydnn.experiment.documents.symbols import found, path_of
from keydnn.experiment.io.classes import BUILTINS
from keydnn.experiment.node import ExperimentNode
from keydnn.experiment.predicates import Predicate

_REGISTERED = ("FeatureSet", "ModelGraph", "ModelNode", "ConcatNode", "AddNode", "MeanNode", "MultiplyNode")  # contexts get to know these
_SCALARS = (bool, int, float, str, type(None))
_REFERENCES = {
    cls.__name__: cls
    for cls in (
        references.ExperimentNodeReference,
        references.GraphNodeReference,
        references.FeatureSetReference,
        references.FeatureSetSplitReference,
        references.FeatureSetColumnReference,
        references.ModelOutputReference,
    )
}


@dataclass(frozen=True)
class View:
    """Two ways through one door: from a config to a document and back.

    Attributes:
        tell: What a document says for a value of a config.
        read: The value of the config for what a document says.
    """

    tell: Callable[[Writer, Any], Any]
    read: Callable[[Reader, Any], Any]


# -- any value


def _tell(writer: Writer, value: Any) -> Any:
    if type(value) in _SCALARS:
        return {"$node": writer.label_of(value)} if writer.is_node(value) else value
    if isinstance(value, list):
        return [_tell(writer, item) for item in value]
    if isinstance(value, Mapping):
        return _tell_mapping(writer, value)
    for kind, mark, tell in _MARKED:
        if isinstance(value, kind):
            return {mark: tell(writer, value)}
    if type(value).__name__ in _REFERENCES:
        return REFERENCE.tell(writer, value)
    if isinstance(value, IConfigurable) and not isinstance(value, type):
        return {"$object": {"class": path_of(type(value)), "config": _tell(writer, value.get_config())}}
    if callable(value) and getattr(value, "__qualname__", None):
        return {"$symbol": path_of(value)}
    writer.refuse(f"a {type(value).__name__} cannot be written to YAML: {shown(value)}")


def _tell_mapping(writer: Writer, value: Mapping[Any, Any]) -> Any:
    plain = all(type(key) in _SCALARS for key in value)
    if plain and not any(isinstance(key, str) and (key.startswith("$") or key == "ref_type") for key in value):
        return {key: _tell(writer, item) for key, item in value.items()}
    return {"$pairs": [[_tell(writer, key), _tell(writer, item)] for key, item in value.items()]}


def _tell_array(writer: Writer, value: Any) -> Any:
    array = np.asarray(value)
    if array.dtype.kind not in "biufU":
        writer.refuse(f"an array of dtype {array.dtype} cannot be written to YAML")
    if isinstance(value, np.generic):
        return {"dtype": array.dtype.str, "values": array.tolist()}
    return {"dtype": array.dtype.str, "shape": list(array.shape), "values": array.ravel().tolist()}


_MARKED: tuple[tuple[type, str, Callable[[Writer, Any], Any]], ...] = (
    (tuple, "$tuple", lambda writer, value: [_tell(writer, item) for item in value]),
    (np.ndarray, "$array", _tell_array),
    (np.generic, "$array", _tell_array),
    (bytes, "$bytes", lambda writer, value: base64.b64encode(value).decode()),
    (Predicate, "$predicate", lambda writer, value: _tell(writer, value.to_dict())),
    (ExperimentNode, "$node", lambda writer, value: writer.label_of(value.node_id)),
)


def _read(reader: Reader, value: Any) -> Any:
    if isinstance(value, list):
        return [_read(reader, item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "ref_type" in value:
        return REFERENCE.read(reader, value)
    marks = [key for key in value if isinstance(key, str) and key.startswith("$")]
    if not marks:
        return {key: _read(reader, item) for key, item in value.items()}
    if len(value) != 1 or marks[0] not in _READERS:
        reader.refuse(f"unknown mark {', '.join(marks)}; expected one of {', '.join(_READERS)}, alone in its mapping")
    with reader.at(marks[0]):
        return _READERS[marks[0]](reader, value[marks[0]])


def _read_array(reader: Reader, told: Any) -> Any:
    told = reader.mapping(told, "an array")
    if {*told, "shape"} != {"dtype", "shape", "values"}:
        reader.refuse(f"an array has dtype, shape and values, a scalar no shape, got {', '.join(map(str, told))}")
    dtype = np.dtype(reader.text(told["dtype"], "dtype"))
    if dtype.kind not in "biufU" or dtype.itemsize > 1 << 16:
        reader.refuse(f"an array of dtype {told['dtype']!r} is not read from YAML")
    if "shape" not in told:
        return np.array(told["values"], dtype=dtype)[()]
    return np.array(reader.sequence(told["values"], "values"), dtype=dtype).reshape(reader.sequence(told["shape"], "shape"))


def _read_object(reader: Reader, told: Any) -> Any:
    told = reader.mapping(told, "an object")
    if set(told) != {"class", "config"}:
        reader.refuse(f"an object has class and config, got {', '.join(map(str, told))}")
    cls: Any = SYMBOL.read(reader, told["class"])
    if not isinstance(cls, type) or not (reader.allow_packaged_code or _may_be_made(cls)):
        reader.refuse(f"{told['class']!r} is no class whose objects stand in YAML")
    return cls.from_config(_read(reader, told["config"]))  # type: ignore[attr-defined]


def _may_be_made(cls: type) -> bool:
    """Whether objects of a class may be made without permission: small values of ours, and modules of the engine."""
    where = f"{cls.__module__}:{cls.__qualname__}"
    key = next((key for key, known in BUILTINS.items() if known == where), None)
    return key not in (None, *_REGISTERED) or adapter(Backend.KEYDNN).known.name_of(cls) is not None


def _read_predicate(reader: Reader, told: Any) -> Predicate:
    return Predicate.from_dict(dict(reader.mapping(_read(reader, told), "a condition")), allow_packaged_code=reader.allow_packaged_code)


def _read_pairs(reader: Reader, told: Any) -> dict[Any, Any]:
    return {_read(reader, key): _read(reader, item) for key, item in reader.sequence(told, "$pairs")}


_READERS: dict[str, Callable[[Reader, Any], Any]] = {
    "$tuple": lambda reader, told: tuple(_read(reader, item) for item in reader.sequence(told, "a tuple")),
    "$pairs": _read_pairs,
    "$array": _read_array,
    "$bytes": lambda reader, told: base64.b64decode(reader.text(told, "bytes") if told else "", validate=True),
    "$predicate": _read_predicate,
    "$symbol": lambda reader, told: SYMBOL.read(reader, told),
    "$object": _read_object,
    "$node": lambda reader, told: reader.id_of(told),
}
VALUE = View(_tell, _read)


# -- classes and functions


def _read_symbol(reader: Reader, told: Any) -> Any:
    path = reader.text(told, "an import path")
    return found(path, allow_packaged_code=reader.allow_packaged_code, place=reader.place)


def _tell_symbol_or_value(writer: Writer, value: Any) -> Any:
    return path_of(value) if callable(value) and getattr(value, "__qualname__", None) else VALUE.tell(writer, value)


def _read_symbol_or_value(reader: Reader, told: Any) -> Any:
    return _read_symbol(reader, told) if isinstance(told, str) and "." in told else VALUE.read(reader, told)


SYMBOL: View = View(lambda writer, value: path_of(value), _read_symbol)
SYMBOL_OR_VALUE = View(_tell_symbol_or_value, _read_symbol_or_value)  # text with a dot is a path, other text a name


# -- references


def _tell_reference(writer: Writer, reference: Any) -> dict[str, Any]:
    told = {"ref_type": type(reference).__name__, **reference.get_config()}
    if reference.node_id is not None:
        told["node_label"] = writer.label_of(reference.node_id)
        del told["node_id"]
    fields = {name: list(value) if isinstance(value, tuple) else value for name, value in told.items()}
    defaults = {name: cls_field.default for name, cls_field in type(reference).__dataclass_fields__.items()}
    return {name: value for name, value in fields.items() if name == "node_id" or value is not defaults.get(name, ...)}


def _read_reference(reader: Reader, told: Any) -> Any:
    told = dict(reader.mapping(told, "a reference"))
    cls = _REFERENCES.get(told.pop("ref_type", None))
    if cls is None:
        reader.refuse(f"a reference needs a ref_type, one of {', '.join(_REFERENCES)}")
    if unknown := [str(name) for name in told if name not in cls.__dataclass_fields__]:
        reader.refuse(f"{cls.__name__} has no {', '.join(unknown)}; it has {', '.join(cls.__dataclass_fields__)}")
    if told.get("node_label") is not None:
        node_id = reader.id_of(told["node_label"])
        told.setdefault("node_id", node_id)
    for name, value in told.items():
        texts = value if isinstance(value, list) and name in ("features", "targets", "tags") else [value]
        if any(not isinstance(text, str | None) for text in texts):
            reader.refuse(f"{name} must be text, got {shown(value)}")
    reference = cls.from_config(told)
    is_of_columns = isinstance(reference, references.FeatureSetReference | references.FeatureSetColumnReference)
    if is_of_columns and (reference.node_label, reference.node_id) != (None, None):
        reference.resolve(reader.ctx)
    return reference


REFERENCE: View = View(_tell_reference, _read_reference)
