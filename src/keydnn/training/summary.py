"""Text about the structure of a model: its layers, and, given an input shape, their shapes and parameter counts."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.nn.module import Module


def structure_text(model: Module) -> str:
    """Name and class of each child.

    Example:
        >>> from keydnn.nn import ReLU
        >>> from keydnn.training import Sequential
        >>> print(Sequential(ReLU()).summary())
        Sequential(
          (0): ReLU
        )
    """
    lines = [f"  ({name}): {type(child).__name__}" for name, child in model.named_children()]
    return "\n".join([f"{type(model).__name__}(", *lines, ")"]) if lines else f"{type(model).__name__}()"


def shape_rows(model: Any, input_shape: Sequence[int], dtype: Any = np.float32) -> dict[str, Any]:
    """The layers as values: ``{"type", "layers": [{"name", "type", "output_shape", "parameters"}], "parameters", "trained"}``.

    The shapes come from one forward pass of zeros in evaluation mode.  An unbuilt model is built as a copy: the model and the
    random generators stay as they are.

    Raises:
        RuntimeError: The model cannot be built with the shape.
        ValueError: A layer refuses it.
    """
    random = np.random.get_state()
    try:
        twin = copy.deepcopy(model)
        shapes: dict[str, Any] = {}
        for name, child in twin.named_children():
            child.register_forward_hook(lambda module, args, output, name=name: shapes.update({name: _shape_of(output)}))
        twin.build(tuple(input_shape), dtype=dtype)
        twin.predict(Tensor(input_shape, dtype=dtype), compile=False)
    finally:
        np.random.set_state(random)
    layers = [
        {"name": name, "type": type(child).__name__, "output_shape": shapes.get(name), "parameters": _count(child.parameters())}
        for name, child in twin.named_children()
    ]
    trained = _count(p for p in twin.parameters() if p.requires_grad)
    return {"type": type(model).__name__, "layers": layers, "parameters": _count(twin.parameters()), "trained": trained}


def shape_table(model: Any, input_shape: Sequence[int], dtype: Any) -> str:
    """A row per child: name, class, shape of its output, number of parameters; then totals; see :func:`shape_rows`."""
    found = shape_rows(model, input_shape, dtype)
    rows = [("layer", "type", "output shape", "parameters")]
    for layer in found["layers"]:
        shape = "not reached" if layer["output_shape"] is None else str(layer["output_shape"])
        rows.append((layer["name"], layer["type"], shape, f"{layer['parameters']:,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row[:3], widths, strict=False)), row[3].rjust(widths[3])]) for row in rows]
    rule = "-" * len(lines[0])
    tail = f"{found['type']}: {found['parameters']:,} parameters, {found['trained']:,} of them trained"
    return "\n".join([lines[0], rule, *lines[1:], rule, tail])


def _shape_of(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.shape
    return [_shape_of(part) for part in output] if isinstance(output, tuple | list) else type(output).__name__


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)
