"""A graph of ONNX as a model: its floating constants are parameters, its nodes are computed one after the other.

>>> from keydnn.interop.onnx import load_onnx
>>> model = load_onnx("model.onnx")                                                                   # doctest: +SKIP
>>> model.predict(images)                                                                             # doctest: +SKIP
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.interop.onnx.errors import OnnxError, UnsupportedOnnxError, import_onnx
from keydnn.interop.onnx.rules import RULES
from keydnn.interop.onnx.values import Node, checked_size, dtype_of, value
from keydnn.nn import Parameter
from keydnn.training import Model

DOMAINS = {"", "ai.onnx", "ai.onnx.preview", "ai.onnx.preview.training"}  # whose operators have names of their own
EXTERNAL = 1  # TensorProto.DataLocation


@dataclass(frozen=True)
class Call:
    """A node with the names of its values."""

    node: Node
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    has_graph: bool = False


class Scope(dict[str, Any]):
    """The values of a graph while it is computed.

    Attributes:
        steps: How many steps all loops have taken, as the one element of a list that graphs inside share.
    """

    steps: list[int]

    def __init__(self, values: Mapping[str, Any], steps: list[int]) -> None:
        super().__init__(values)
        self.steps = steps

    def run(self, calls: Iterable[Call]) -> None:
        """Compute nodes one after the other."""
        for call in calls:
            found = _computed(call, [self[name] for name in call.inputs], self)
            self.update((name, x) for name, x in zip(call.outputs, found, strict=False) if name)


@dataclass(frozen=True)
class Graph:
    """A graph inside a node, with the names of its values; it sees those around it."""

    calls: tuple[Call, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: dict[str, Any]

    def __call__(self, node: Node, *inputs: Any) -> tuple[Any, ...]:
        """The outputs for the inputs, called by ``node``."""
        if len(inputs) != len(self.inputs):
            raise OnnxError(f"ONNX operator {node.op} {node.name!r}: its graph has {len(self.inputs)} inputs, got {len(inputs)}")
        scope = Scope({**node.scope, **self.constants, **dict(zip(self.inputs, inputs, strict=True))}, node.scope.steps)
        scope.run(self.calls)
        return tuple(scope[name] for name in self.outputs)


class OnnxModel(Model):
    """A graph of ONNX.

    Attributes:
        inputs: Names of the inputs, in order.
        outputs: Names of the outputs, in order.

    Made by :func:`from_onnx` and :func:`load_onnx`.  Parameters are called as in the graph, with ``_`` for what a name must not
    hold.  Called with Tensors or ndarrays, in order; gives one result, or a tuple of them.
    """

    def __init__(self, calls: Sequence[Call], inputs: Sequence[str], outputs: Sequence[str], constants: dict[str, Any]) -> None:
        super().__init__()
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self._calls = tuple(calls)
        self._constants: dict[str, Any] = {}
        self._named: dict[str, str] = {}  # name in the graph -> name of the parameter
        for name, array in constants.items():
            if not isinstance(array, Tensor):
                self._constants[name] = array
                continue
            parameter = Parameter(array.shape, dtype=array.dtype)
            parameter.copy_from_numpy(array.to_numpy())
            key = _attribute(name, self.__dict__.keys() | self._parameters.keys() | set(dir(type(self))))
            self.register_parameter(key, parameter)
            self._named[name] = key

    def forward(self, *inputs: Any) -> Any:
        """The outputs of the graph.

        Args:
            inputs: As many as the graph has; floating ones as Tensors.

        Raises:
            ValueError: Another number of inputs, shapes that do not fit, or a value that an operator does not take.
        """
        if len(inputs) != len(self.inputs):
            raise OnnxError(f"OnnxModel: expected {len(self.inputs)} inputs ({', '.join(self.inputs)}), got {len(inputs)}")
        values = Scope({"": None, **self._constants}, [0])
        values.update((name, self._parameters[key]) for name, key in self._named.items())
        values.update((name, x if isinstance(x, Tensor) and x.dtype.kind == "f" else value(_plain(x)))
                      for name, x in zip(self.inputs, inputs, strict=True))  # fmt: skip
        values.run(self._calls)
        results = tuple(_result(values[name]) for name in self.outputs)
        return results[0] if len(results) == 1 else results


def _plain(x: Any) -> Any:
    return x.to_numpy() if isinstance(x, Tensor) else x


def _result(x: Any) -> Any:
    return x if isinstance(x, Tensor) else Tensor(data=x, dtype=x.dtype)


def _computed(call: Call, inputs: list[Any], scope: Scope) -> tuple[Any, ...]:
    node = replace(call.node, scope=scope) if call.has_graph else call.node
    try:
        found = RULES[node.op](node, *inputs)
        node.check_all_were_asked()
    except OnnxError:
        raise
    except (AttributeError, IndexError, KeyError, MemoryError, OverflowError, TypeError, ValueError) as error:
        shapes = [None if x is None else (str(x.dtype), x.shape) for x in inputs]
        raise OnnxError(f"ONNX operator {call.node.op} {call.node.name!r}: inputs {shapes} do not fit: {error}") from error
    return found if isinstance(found, tuple) else (found,)


def _attribute(name: str, taken: Any) -> str:
    key = re.sub(r"\W", "_", name) or "constant"
    key = f"c{key}" if key[0].isdecimal() else key
    while key in taken:
        key += "_"
    return key


def load_onnx(path: str | os.PathLike[str]) -> OnnxModel:
    """The model in an ``.onnx`` file.

    Args:
        path: The file, with its weights inside.

    Raises:
        OnnxError: The file is damaged, or makes no sense (a ValueError).
        UnsupportedOnnxError: An operator or a type has no counterpart.
        ImportError: The package onnx is missing.
        OSError: The file cannot be read.
    """
    onnx = import_onnx(f"reading {os.fspath(path)}")
    from google.protobuf.message import DecodeError

    data = Path(path).read_bytes()
    try:
        proto = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise OnnxError(f"{os.fspath(path)} is no readable ONNX file, it may be damaged or truncated: {error}") from error
    if not proto.HasField("graph"):
        raise OnnxError(f"{os.fspath(path)} is no readable ONNX file: it has no graph")
    return from_onnx(proto)


def from_onnx(proto: Any) -> OnnxModel:
    """The model of a ``ModelProto``; arguments and errors as :func:`load_onnx`."""
    onnx = import_onnx("from_onnx")
    graph = proto.graph
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    version = next((versions[name] for name in ("", "ai.onnx") if name in versions), 1)
    constants = {tensor.name: tensor_value(tensor, onnx) for tensor in graph.initializer}
    if graph.sparse_initializer or proto.functions:
        raise UnsupportedOnnxError("ONNX: sparse constants and functions of a file's own have no counterpart here")
    for entry in graph.input:
        _check_type(entry)
    known = {"", *constants, *(entry.name for entry in graph.input)}
    calls = _calls(graph, version, onnx, known)
    inputs = [entry.name for entry in graph.input if entry.name not in constants]
    outputs = [entry.name for entry in graph.output]
    missing = [name for name in outputs if name not in known or not name]
    if missing:
        raise OnnxError(f"ONNX: the graph has no value for its output {missing[0]!r}")
    return OnnxModel(calls, inputs, outputs, constants)


def _calls(graph: Any, version: int, onnx: Any, known: set[str]) -> list[Call]:
    """The nodes of a graph; what they compute becomes known."""
    calls = []
    for node in graph.node:
        call = _call(node, version, onnx, known)
        unknown = [name for name in call.inputs if name not in known]
        if unknown:
            raise OnnxError(f"ONNX operator {node.op_type} {node.name!r}: no value is called {unknown[0]!r} before it")
        known.update(call.outputs)
        calls.append(call)
    return calls


def _inner_graph(graph: Any, version: int, onnx: Any, known: set[str]) -> Graph:
    """A graph inside a node; types of its inputs may be left out."""
    constants = {tensor.name: tensor_value(tensor, onnx) for tensor in graph.initializer}
    names = [entry.name for entry in graph.input if entry.name not in constants]
    for entry in graph.input:
        if entry.type.WhichOneof("value") not in (None, "tensor_type"):
            _check_type(entry)
    inside = {*known, *constants, *names}
    calls = _calls(graph, version, onnx, inside)
    outputs = [entry.name for entry in graph.output]
    missing = [name for name in outputs if name not in inside or not name]
    if missing:
        raise OnnxError(f"ONNX: a graph inside a node has no value for its output {missing[0]!r}")
    return Graph(tuple(calls), tuple(names), tuple(outputs), constants)


def _check_type(entry: Any) -> None:
    if entry.type.WhichOneof("value") != "tensor_type":
        raise UnsupportedOnnxError(
            f"ONNX: input {entry.name!r} is no plain tensor; sequences, maps and optional values have no counterpart"
        )
    dtype_of(entry.type.tensor_type.elem_type)


def _call(node: Any, version: int, onnx: Any, known: set[str]) -> Call:
    if node.domain not in DOMAINS or node.op_type not in RULES:
        where = "" if node.domain in DOMAINS else f" of domain {node.domain!r}"
        raise UnsupportedOnnxError(f"ONNX operator {node.op_type}{where} has no counterpart here")
    graphs = {a.name: _inner_graph(a.g, version, onnx, known) for a in node.attribute if a.type == onnx.AttributeProto.GRAPH}
    attributes = {a.name: _attribute_value(a, onnx) for a in node.attribute if a.name not in graphs}
    n_outputs = max((i + 1 for i, name in enumerate(node.output) if name), default=0)
    made = Node(node.op_type, {**attributes, **graphs}, version, n_outputs, node.name)
    return Call(made, tuple(node.input), tuple(node.output), bool(graphs))


def _attribute_value(attribute: Any, onnx: Any) -> Any:
    kinds = onnx.AttributeProto
    if attribute.type == kinds.TENSOR:
        return tensor_value(attribute.t, onnx)
    simple = {kinds.FLOAT: "f", kinds.INT: "i"}
    if attribute.type in simple:
        return getattr(attribute, simple[attribute.type])
    if attribute.type == kinds.STRING:
        return attribute.s.decode("utf-8", "replace")
    if attribute.type in (kinds.FLOATS, kinds.INTS):
        return list(attribute.floats if attribute.type == kinds.FLOATS else attribute.ints)
    if attribute.type == kinds.STRINGS:
        return [text.decode("utf-8", "replace") for text in attribute.strings]
    raise UnsupportedOnnxError(f"ONNX: the attribute {attribute.name!r} is of a kind without a counterpart")


def tensor_value(tensor: Any, onnx: Any) -> Any:
    """A ``TensorProto`` as a value.

    Raises:
        OnnxError: It is damaged, or its data lie in another file.
    """
    dtype = dtype_of(tensor.data_type)
    if tensor.data_location == EXTERNAL or tensor.external_data:
        raise UnsupportedOnnxError(f"ONNX: the data of {tensor.name!r} lie in another file; save the model with its weights inside")
    try:
        sizes = checked_size(tensor.dims)
        array = onnx.numpy_helper.to_array(tensor)
        return value(np.array(array, dtype).reshape(sizes))
    except OnnxError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise OnnxError(f"ONNX: the constant {tensor.name!r} is damaged: {error}") from error
