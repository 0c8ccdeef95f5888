"""Writing models of ours as ONNX: one short rule per layer.

A model is written as it computes in evaluation mode, so dropout leaves no trace.  Shapes are found by running each layer on zeros;
the batch size stays open.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.autograd.modes import no_grad
from keydnn.interop.onnx.errors import UnsupportedOnnxError, import_onnx
from keydnn.interop.onnx.export_rules import write_module
from keydnn.interop.onnx.graph import OnnxModel
from keydnn.interop.onnx.writer import State, Writer
from keydnn.nn import Embedding, Module
from keydnn.saving import write_atomically
from keydnn.training import Sequential
from keydnn.training.turns import evaluation_mode

IR_VERSION, OPSET = 9, 18


def to_onnx(model: Module, input_shape: Sequence[int], *, dtype: Any = None, open_axes: Sequence[int] = (0,)) -> Any:
    """A ``ModelProto`` that computes what ``model`` computes in evaluation mode.

    Args:
        model: A built model of layers that have an ONNX form (Sequential, also nested, or a single layer).
        input_shape: Full shape of an input, with the batch.
        dtype: Of the input; None is the dtype of the parameters, int64 where an Embedding comes first.
        open_axes: Axes of the input that may have any size later (the batch is axis 1 before recurrent layers).

    Returns:
        The checked model, operator set 18.

    Raises:
        UnsupportedOnnxError: A layer has no ONNX form; its name is in the message.
        ImportError: The package onnx is missing.

    Example:
        >>> from keydnn.interop.onnx import to_onnx
        >>> model = keydnn.Sequential(keydnn.Linear(4, 3), keydnn.ReLU())
        >>> proto = to_onnx(model, (1, 4))                                                            # doctest: +SKIP
        >>> [node.op_type for node in proto.graph.node]                                               # doctest: +SKIP
        ['Gemm', 'Relu']
    """
    onnx = import_onnx("to_onnx")
    if isinstance(model, OnnxModel):
        raise UnsupportedOnnxError("to_onnx: a model that was read from ONNX is not written again; keep its file")
    floating = next((p.dtype for p in model.parameters() if p.dtype.kind == "f"), np.dtype(np.float32))
    first = _first_layer(model)
    chosen = np.dtype(dtype) if dtype is not None else np.dtype(np.int64) if isinstance(first, Embedding) else floating
    writer = Writer(onnx, floating)
    with evaluation_mode(model), no_grad():
        start = State("input", Tensor(data=np.zeros(tuple(input_shape)), dtype=chosen))
        found = write_module(writer, model, start, "model")
    results = list(found) if isinstance(found, tuple) else [found]
    helper = onnx.helper
    open_sizes = {axis % len(input_shape) for axis in open_axes}
    sizes = [f"n{axis}" if axis in open_sizes else int(n) for axis, n in enumerate(input_shape)]
    outputs = []
    for i, state in enumerate(results):
        name = "output" if len(results) == 1 else f"output_{i}"
        writer.nodes.append(helper.make_node("Identity", [state.name], [name], name=f"name_{name}"))
        outputs.append(helper.make_tensor_value_info(name, _code(onnx, state.value.dtype), [None] * state.value.ndim))
    graph = helper.make_graph(
        writer.nodes,
        type(model).__name__,
        [helper.make_tensor_value_info("input", _code(onnx, chosen), sizes)],
        outputs,
        [onnx.numpy_helper.from_array(np.array(array, order="C"), name) for name, array in writer.constants.items()],
    )
    made = helper.make_model(graph, producer_name="keydnn", opset_imports=[helper.make_opsetid("", OPSET)])
    made.ir_version = IR_VERSION
    onnx.checker.check_model(made)
    return made


def _code(onnx: Any, dtype: np.dtype) -> int:
    return onnx.helper.np_dtype_to_tensor_dtype(dtype)


def _first_layer(model: Module) -> Module:
    return _first_layer(model[0]) if isinstance(model, Sequential) and len(model) else model


def save_onnx(
    model: Module, path: str | os.PathLike[str], input_shape: Sequence[int], *, dtype: Any = None, open_axes: Sequence[int] = (0,)
) -> None:
    """Write ``model`` as an ``.onnx`` file, atomically; arguments and errors as :func:`to_onnx`."""
    write_atomically(path, to_onnx(model, input_shape, dtype=dtype, open_axes=open_axes).SerializeToString())
