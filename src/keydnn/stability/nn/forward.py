"""The quantised forward pass of one layer: where each kind of layer has its quantisation points.

    Dense:    z = Q.activation(Q.accumulator(z W^T) + Q.bias(b))      W = Q.weight(weight)
    Conv:     the same per output position
    norm:     s and t of the folded form y = x s + t from Q.gamma, Q.beta (else Q.value) and the statistics; own accumulator
    others:   z = Q.activation(layer(z))

All quantisers pass gradients straight through.  The pass runs in float64, so a dot product is exact as long as its sums fit in
53 bits, and is rounded once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.nn import Conv2d, Dense, Linear
from keydnn.nn.layers.conv import Conv2dTranspose
from keydnn.nn.layers.norm import BatchNorm1d, BatchNorm2d, LayerNorm
from keydnn.ops.inplace import ema_
from keydnn.stability.keys import key_of
from keydnn.stability.precision import PrecisionDict
from keydnn.stability.quantization import quantize_tensor

FLOAT64 = np.dtype(np.float64)


class Formats:
    """Quantisers of one step, by layer and field.

    Args:
        precision: The map.
        seed: Of the run; stochastic rounding draws from (seed, layer, field, step).
        step: Number of the step.
    """

    def __init__(self, precision: PrecisionDict, seed: Any = None, step: int = 0) -> None:
        self.precision, self.seed, self.step = precision, seed, step

    def __call__(self, layer: str, field: str, z: Tensor, *otherwise: str) -> Tensor:
        """z in the format of the field, or of the first of the other fields that has one; z itself without."""
        for name in (field, *otherwise):
            dtype = self.precision.dtype(layer, name)
            if dtype is not None:
                return quantize_tensor(z, dtype, key=key_of(dtype, self.seed, layer, name, self.step))
        return z


def _wide(t: Tensor) -> Tensor:
    return t.astype(FLOAT64)


def _dense(layer: Any, name: str, q: Formats, z: Tensor, training: bool) -> Tensor:
    weight = q(name, "weight", _wide(layer.weight))
    z = q(name, "accumulator", ops.matmul(z, weight.transpose(1, 0)))
    if layer.bias is not None:
        z = z + q(name, "bias", _wide(layer.bias))
    return q(name, "activation", z)


def _without_bias(layer: Any, weight: Tensor) -> Any:
    """A twin of a layer with the same geometry, another weight and no bias; the layer itself is not touched."""
    twin = copy.copy(layer)
    twin.__dict__.update(weight=weight, bias=None)
    return twin


def _conv(layer: Any, name: str, q: Formats, z: Tensor, training: bool) -> Tensor:
    weight = q(name, "weight", _wide(layer.weight))
    z = q(name, "accumulator", _without_bias(layer, weight).forward(z))
    if layer.bias is not None:
        z = z + q(name, "bias", _wide(layer.bias)).reshape(1, -1, 1, 1)
    return q(name, "activation", z)


def _scale_and_shift(layer: Any, name: str, q: Formats) -> tuple[Tensor | None, Tensor | None]:
    gamma = None if layer.gamma is None else q(name, "gamma", _wide(layer.gamma), "value")
    beta = None if layer.beta is None else q(name, "beta", _wide(layer.beta), "value")
    return gamma, beta


def _batch_norm(layer: Any, name: str, q: Formats, z: Tensor, training: bool) -> Tensor:
    gamma, beta = _scale_and_shift(layer, name, q)
    shape = (1, -1) + (1,) * (z.ndim - 2)
    if training:
        axes = tuple(i for i in range(z.ndim) if i != 1)
        mean = z.mean(axes)
        centred = z - mean.reshape(shape)
        var = (centred * centred).mean(axes)
        ema_(layer.running_mean, mean.detach().astype(layer.running_mean.dtype), momentum=layer.momentum)
        ema_(layer.running_var, var.detach().astype(layer.running_var.dtype), momentum=layer.momentum)
    else:
        mean, var = _wide(layer.running_mean), _wide(layer.running_var)
    mean, var = q(name, "batchnorm_mean", mean), q(name, "batchnorm_variance", var)
    s = (var + layer.eps).rsqrt()
    s = s if gamma is None else s * gamma
    t = -mean * s if beta is None else beta - mean * s
    return q(name, "activation", q(name, "accumulator", z * s.reshape(shape) + t.reshape(shape)))


def _layer_norm(layer: Any, name: str, q: Formats, z: Tensor, training: bool) -> Tensor:
    gamma, beta = _scale_and_shift(layer, name, q)
    y = ops.layer_norm(z, layer.normalized_shape, gamma, beta, layer.eps)
    return q(name, "activation", q(name, "accumulator", y))


def _any(layer: Any, name: str, q: Formats, z: Tensor, training: bool) -> Tensor:
    return q(name, "activation", layer(z))


Rule = Callable[[Any, str, Formats, Tensor, bool], Tensor]
RULES: dict[type, Rule] = {
    Linear: _dense,
    Dense: _dense,
    Conv2d: _conv,
    Conv2dTranspose: _conv,
    BatchNorm1d: _batch_norm,
    BatchNorm2d: _batch_norm,
    LayerNorm: _layer_norm,
}
PARAMETER_FIELDS: dict[type, dict[str, str]] = {
    kind: {"weight": "weight", "bias": "bias"} for kind in (Linear, Dense, Conv2d, Conv2dTranspose)
}


def layer_forward(layer: Any, name: str, q: Formats, z: Tensor, training: bool) -> Tensor:
    """One layer of a network under a precision map; see the top of the file."""
    return RULES.get(type(layer), _any)(layer, name, q, z, training)
