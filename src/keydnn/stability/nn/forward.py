"""The quantised forward pass of one layer: where each kind of layer has its quantisation points.

    Dense:      z = Q.activation(Q.accumulator(z W^T) + Q.bias(b))      W = Q.weight(weight)
    Conv:       the same per output position
    BatchNorm:  s and t of the folded form y = x s + t from Q.gamma, Q.beta (else Q.value) and the statistics; own accumulator
    Embedding:  rows of Q.weight, then Q.activation
    recurrent:  see `keydnn.stability.nn.recurrent`
    others:     the layer with its parameters in their formats, Q.accumulator for a normalisation, then Q.activation

What is computed is computed by the layers of the engine, whose parameters are exchanged for quantised ones while they run.  All
quantisers pass gradients straight through.  The pass runs in float64, so a dot product is exact as long as its sums fit in 53
bits, and is rounded once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keydnn._tensor import Tensor
from keydnn.autograd.modes import no_grad
from keydnn.nn import Dense, Linear
from keydnn.nn.layers.embedding import Embedding
from keydnn.nn.layers.norm import BatchNorm1d, BatchNorm2d, Normalization
from keydnn.nn.layers.recurrent import GRU, LSTM, RNN, Recurrent
from keydnn.ops.inplace import assign_, ema_
from keydnn.stability.nn.quantisers import FLOAT64, PRODUCTS, Formats, exchanged, in_formats, wide
from keydnn.stability.nn.recurrent import STEP_FIELDS, over_steps


def _product(layer: Any, name: str, q: Formats, z: Tensor, training: bool) -> Tensor:
    """Dense and convolution: weights, accumulator, bias, activation."""
    if not q.has(name, "weight", "bias", "accumulator"):
        return _whole(layer, name, q, z, training)
    with exchanged((layer, {"weight": q(name, "weight", wide(layer.weight)), "bias": None})):
        z = q(name, "accumulator", layer.forward(z))
    if layer.bias is not None:
        b = q(name, "bias", wide(layer.bias))
        z = z + (b if isinstance(layer, Linear | Dense) else b.reshape(1, -1, *(1,) * (z.ndim - 2)))
    return q(name, "activation", z)


def _batch_norm(layer: Any, name: str, q: Formats, z: Tensor, training: bool) -> Tensor:
    if not q.has(name, "gamma", "beta", "value", "accumulator", "batchnorm_mean", "batchnorm_variance"):
        return _whole(layer, name, q, z, training)
    gamma = None if layer.gamma is None else q(name, "gamma", wide(layer.gamma), "value")
    beta = None if layer.beta is None else q(name, "beta", wide(layer.beta), "value")
    shape = (1, -1) + (1,) * (z.ndim - 2)
    if training:
        axes = tuple(i for i in range(z.ndim) if i != 1)
        mean = z.mean(axes)
        centred = z - mean.reshape(shape)
        var = (centred * centred).mean(axes)
        ema_(layer.running_mean, mean.detach().astype(layer.running_mean.dtype), momentum=layer.momentum)
        ema_(layer.running_var, var.detach().astype(layer.running_var.dtype), momentum=layer.momentum)
    else:
        mean, var = wide(layer.running_mean), wide(layer.running_var)
    mean, var = q(name, "batchnorm_mean", mean), q(name, "batchnorm_variance", var)
    s = (var + layer.eps).rsqrt()
    s = s if gamma is None else s * gamma
    t = -mean * s if beta is None else beta - mean * s
    return q(name, "activation", q(name, "accumulator", z * s.reshape(shape) + t.reshape(shape)))


def _embedding(layer: Any, name: str, q: Formats, z: Tensor, training: bool) -> Tensor:
    with exchanged((layer, {"weight": q(name, "weight", wide(layer.weight))})):
        return q(name, "activation", layer(z))


def _whole(layer: Any, name: str, q: Formats, z: Tensor, training: bool) -> Tensor:
    """The engine's layer in float64; running statistics move as they would in their own dtype."""
    buffers = [(m, own, t) for m in layer.modules() for own, t in m._buffers.items() if t.dtype.kind == "f" and t.dtype != FLOAT64]
    copies = [wide(t.detach()) for _, _, t in buffers]
    moved = [(module, {own: copy}) for (module, own, _), copy in zip(buffers, copies, strict=True)]
    with exchanged(*in_formats(layer, name, q), *moved):
        z = layer(z)
    if training:
        with no_grad():
            for (_, _, t), copy in zip(buffers, copies, strict=True):
                assign_(t, copy.astype(t.dtype))
    return q(name, "activation", q(name, "accumulator", z) if isinstance(layer, Normalization) else z)


def _recurrent(layer: Recurrent, name: str, q: Formats, z: Tensor, training: bool) -> Tensor:
    if not q.has(name, *STEP_FIELDS):
        return _whole(layer, name, q, z, training)
    with exchanged(*((cell, {"over": over_steps(cell, name, q, i)}) for i, cell in enumerate(layer.cells))):
        return layer(z)


Rule = Callable[[Any, str, Formats, Tensor, bool], Tensor]
RULES: dict[type, Rule] = {
    **dict.fromkeys(PRODUCTS, _product),
    **dict.fromkeys((BatchNorm1d, BatchNorm2d), _batch_norm),
    **dict.fromkeys((RNN, LSTM, GRU), _recurrent),
    Embedding: _embedding,
}


def layer_forward(layer: Any, name: str, q: Formats, z: Tensor, training: bool) -> Tensor:
    """One layer of a network under a precision map; see the top of the file."""
    return RULES.get(type(layer), _whole)(layer, name, q, z, training)
