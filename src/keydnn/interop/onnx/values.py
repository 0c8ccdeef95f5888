"""The values of a graph: floating ones are Tensors, all others (shapes, indices, truths) are ndarrays.

So what can be differentiated goes through our operations, and what is bookkeeping stays exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.interop.onnx.errors import OnnxError, UnsupportedOnnxError

Value = Any  # Tensor, ndarray or, for an input that is left out, None
Rule = Callable[..., Any]

HARMLESS = {  # attributes that change nothing here: what the inputs say too, precision inside, what only training looks at
    "kernel_shape", "hidden_size", "stash_type", "softmax_precision", "saturate", "round_mode", "storage_order", "seed", "ratio",
    "momentum", "spatial", "is_test", "consumed_inputs", "keepdims", "noop_with_empty_axes",
}  # fmt: skip
MOST_ELEMENTS = 1 << 27  # of what a graph may ask for without bringing the data itself
TYPES = {1: "f4", 2: "u1", 3: "i1", 4: "u2", 5: "i2", 6: "i4", 7: "i8", 9: "?", 11: "f8", 12: "u4", 13: "u8"}  # TensorProto.DataType


@dataclass
class Node:
    """One node of a graph while it is computed.

    Attributes:
        op: Name of the operator.
        attributes: By name; texts as str, tensors as values.
        version: Of the operator set.
        n_outputs: How many outputs are asked for.
        name: For messages.
        scope: The values around it, for nodes with graphs inside.
    """

    op: str
    attributes: dict[str, Any] = field(default_factory=dict)
    version: int = 18
    n_outputs: int = 1
    name: str = ""
    asked: set[str] = field(default_factory=set)
    scope: Any = None

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute; that it was asked for is noted."""
        self.asked.add(name)
        return self.attributes.get(name, default)

    def check_all_were_asked(self) -> None:
        """Raise if there is an attribute that nobody looked at: it may change what the operator means."""
        rest = self.attributes.keys() - self.asked - HARMLESS
        if rest:
            raise self.refuse(f"the attribute {sorted(rest)[0]!r}")

    def refuse(self, what: str) -> UnsupportedOnnxError:
        """What to raise for a setting without a counterpart."""
        return UnsupportedOnnxError(f"ONNX operator {self.op} {self.name!r}: {what} has no counterpart here")


def dtype_of(code: int) -> np.dtype:
    """The dtype of a type code of ONNX.

    Raises:
        UnsupportedOnnxError: It is not one of ours.
    """
    if code not in TYPES:
        raise UnsupportedOnnxError(f"ONNX: the element type {code} has no counterpart here; float32, float64, integers and bool have")
    return np.dtype(TYPES[code])


def value(array: Any) -> Value:
    """An array as a value."""
    found = np.asarray(array)
    if found.dtype.kind == "f" and found.dtype.itemsize >= 4:
        return Tensor(data=found, dtype=found.dtype)
    if found.dtype.kind not in "iub":
        raise UnsupportedOnnxError(f"ONNX: values of {found.dtype} have no counterpart here")
    return found


def host(x: Value) -> np.ndarray:
    """A value as an ndarray."""
    return x.to_numpy() if isinstance(x, Tensor) else np.asarray(x)


def ints(x: Value) -> list[int]:
    """A value as whole numbers.

    Raises:
        OnnxError: It is no list of integers.
    """
    found = host(x)
    if found.dtype.kind not in "iu" or found.ndim > 1:
        raise OnnxError(f"ONNX: expected a list of integers, got {found.dtype}{found.shape}")
    return [int(n) for n in found.reshape(-1)]


def checked_size(shape: Any) -> tuple[int, ...]:
    """A shape that a graph asks for.

    Raises:
        OnnxError: Negative, or out of all proportion.
    """
    sizes = tuple(int(n) for n in shape)
    count = 1
    for n in sizes:
        count *= n
    if any(n < 0 for n in sizes) or count > MOST_ELEMENTS:
        raise OnnxError(f"ONNX: a graph asks for an array of shape {sizes}")
    return sizes


def dual(of_tensors: Callable[..., Any], of_arrays: Callable[..., Any] | None) -> Rule:
    """A rule that takes the first function where an input is a Tensor, and the second (of ndarrays) elsewhere."""

    def rule(node: Node, *inputs: Value) -> Value:
        if any(isinstance(x, Tensor) for x in inputs):
            return of_tensors(*tensors(*inputs))
        if of_arrays is None:
            raise node.refuse(f"an input of {inputs[0].dtype}")
        return np.asarray(of_arrays(*inputs))

    return rule


def tensors(*inputs: Value) -> list[Any]:
    """All inputs as Tensors of the type of the first one that is one; None stays."""
    dtype = next(x.dtype for x in inputs if isinstance(x, Tensor))
    return [x if x is None or isinstance(x, Tensor) else Tensor(data=x, dtype=dtype) for x in inputs]


def constant(number: Any, like: Tensor) -> Tensor:
    """A number as a Tensor of the type of ``like``."""
    return Tensor(data=np.asarray(number), dtype=like.dtype)
