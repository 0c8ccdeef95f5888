"""What the quantised forward passes share: quantisers by layer and field, and layers whose parameters are exchanged for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.autograd.context import Function
from keydnn.nn import Conv2d, Dense, Linear, Module
from keydnn.nn.layers.conv import Conv2dTranspose
from keydnn.nn.layers.embedding import Embedding
from keydnn.nn.layers.layer import Weightless
from keydnn.nn.layers.one_axis import Conv1d
from keydnn.nn.layers.recurrent import Recurrent
from keydnn.nn.layers.three_axes import Conv3d
from keydnn.stability.keys import key_of
from keydnn.stability.precision import CELL_FIELDS, PrecisionDict
from keydnn.stability.quantization import quantize_tensor

FLOAT64 = np.dtype(np.float64)
_MISSING = object()


class _OfGradients(Function):
    """The identity, whose gradient is sent through a quantiser."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, *, quantiser: Any) -> Tensor:
        ctx.quantiser = quantiser
        return z * 1.0

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return ctx.quantiser(g)


class Formats:
    """Quantisers of one step, by layer and field.

    Args:
        precision: The map.
        seed: Of the run; stochastic rounding draws from (seed, layer, field, step).
        step: Number of the step.
    """

    def __init__(self, precision: PrecisionDict, seed: Any = None, step: int = 0) -> None:
        self.precision, self.seed, self.step = precision, seed, step

    def has(self, layer: str, *fields: str) -> bool:
        """Whether one of the fields has a format."""
        return any(self.precision.has(layer, field) for field in fields)

    def __call__(self, layer: str, field: str, z: Tensor, *otherwise: str, turn: int | None = None) -> Tensor:
        """z in the format of the first of the fields that has an entry; z itself where that is None, or there is none.

        Args:
            layer: Its name.
            field: The field.
            z: The tensor.
            otherwise: Fields to look at next.
            turn: Which of several uses in one step this is, for stochastic rounding.
        """
        name = next((name for name in (field, *otherwise) if self.precision.lists(layer, name)), None)
        dtype = None if name is None else self.precision.dtype(layer, name)
        if dtype is None:
            return z
        parts = (layer, name, self.step) if turn is None else (layer, name, self.step, turn)
        return quantize_tensor(z, dtype, key=key_of(dtype, self.seed, *parts))

    def of_gradient(self, layer: str, field: str, z: Tensor, turn: int | None = None) -> Tensor:
        """z, whose gradient takes the format of a field on its way back."""
        if not self.has(layer, field):
            return z
        return _OfGradients.apply(z, quantiser=lambda g: self(layer, field, g, turn=turn))


def wide(t: Tensor) -> Tensor:
    """t in float64."""
    return t.astype(FLOAT64)


@contextlib.contextmanager
def exchanged(*changes: tuple[Module, dict[str, Any]]) -> Iterator[None]:
    """Modules with other attributes for the time of a block; nothing about them is registered or marked as changed."""
    before = [(vars(module), name, vars(module).get(name, _MISSING)) for module, values in changes for name in values]
    try:
        for module, values in changes:
            vars(module).update(values)
        yield
    finally:
        for attributes, name, value in reversed(before):
            if value is _MISSING:
                del attributes[name]
            else:
                attributes[name] = value


PRODUCTS = (Linear, Dense, Conv1d, Conv2d, Conv2dTranspose, Conv3d)
_PRODUCT_FIELDS = {"weight": "weight", "bias": "bias"}


def fields_of(layer: Any) -> dict[str, str]:
    """The fields of a layer's parameters by their own name; what is not listed has the field ``value``."""
    if isinstance(layer, Recurrent):
        return CELL_FIELDS
    return _PRODUCT_FIELDS if isinstance(layer, (*PRODUCTS, Embedding)) else {}


def in_formats(layer: Module, name: str, q: Formats) -> list[tuple[Module, dict[str, Any]]]:
    """For `exchanged`: all parameters below a layer in their formats, and no cast to another dtype."""
    changes: list[tuple[Module, dict[str, Any]]] = []
    fields = fields_of(layer)
    for module in layer.modules():
        values: dict[str, Any] = {own: q(name, fields.get(own, own), wide(p), "value") for own, p in module._parameters.items()}
        if isinstance(module, Weightless) and module.dtype is not None:
            values["dtype"] = None
        changes.append((module, values))
    return changes
