"""What a graph of ONNX is written with: nodes, constants, fresh names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn._tensor import Tensor


@dataclass(frozen=True)
class State:
    """A value of the graph in the making.

    Attributes:
        name: Its name.
        value: What it is for an input of zeros: shape and dtype are looked at.
    """

    name: str
    value: Any


class Writer:
    """A graph in the making.

    Args:
        onnx: The package.
        dtype: Of the floating values.
    """

    def __init__(self, onnx: Any, dtype: np.dtype) -> None:
        self.onnx, self.dtype = onnx, dtype
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self._by_tensor: dict[int, tuple[Any, str]] = {}
        self._count = 0

    def fresh(self, hint: str) -> str:
        """A name that no other value has."""
        self._count += 1
        return f"{hint.lower()}_{self._count}"

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; returns the name of its output, or a list of several."""
        names = [self.fresh(op) for _ in range(outputs)]
        given = {key: v for key, v in attributes.items() if v is not None}
        self.nodes.append(self.onnx.helper.make_node(op, list(inputs), names, name=self.fresh("node"), **given))
        return names[0] if outputs == 1 else names

    def constant(self, array: Any, hint: str = "constant") -> str:
        """The name of a constant: a Tensor (once, however often it is used), integers, or floats in the type of the graph."""
        if isinstance(array, Tensor):
            found = self._by_tensor.get(id(array))
            if found is None:
                found = self._by_tensor[id(array)] = (array, self._add(array.numpy(), hint))
            return found[1]
        made = np.asarray(array)
        return self._add(made.astype(self.dtype) if made.dtype.kind == "f" else made.astype(np.int64), hint)

    def constant_of(self, array: np.ndarray, hint: str = "constant") -> str:
        """The name of a constant in its own type, for what is not computed in that of the graph."""
        return self._add(array, hint)

    def _add(self, array: np.ndarray, hint: str) -> str:
        name = hint
        while name in self.constants:
            name = self.fresh(hint)
        self.constants[name] = array
        return name


Rule = Callable[[Writer, Any, State, str], Any]  # (writer, module, x, path of the module) -> State, or a tuple of several
