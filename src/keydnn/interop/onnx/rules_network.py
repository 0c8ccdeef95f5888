"""Operators of ONNX that networks are made of: products, convolutions, pools, normalisations, losses."""

from __future__ import annotations

from typing import Any

import numpy as np

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.interop.onnx.errors import OnnxError
from keydnn.interop.onnx.values import Node, Rule, Value, dual, host, tensors
from keydnn.interop.onnx.windows import average_pool, convolve, convolve_transposed, local_response, lp_pool, max_pool


def _gemm(node: Node, a: Value, b: Value, c: Value = None) -> Value:
    is_integer = not isinstance(a, Tensor)
    a = a.transpose(1, 0) if node.get("transA", 0) else a
    b = b.transpose(1, 0) if node.get("transB", 0) else b
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    if is_integer:
        y = alpha * (a @ b) + (0 if c is None else beta * c)
        return np.asarray(y, a.dtype)
    y = ops.matmul(a, b)
    y = y if alpha == 1.0 else y * alpha
    if c is None or beta == 0.0:
        return y
    c = tensors(y, c)[1]
    return y + (c if beta == 1.0 else c * beta)


def _einsum(node: Node, *inputs: Tensor) -> Tensor:
    equation = node.get("equation").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms, arrays = left.split(","), list(inputs)
    if not arrow:  # all letters that come once, by the alphabet
        letters = left.replace(",", "").replace("...", "")
        right = ("..." if "..." in left else "") + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    for i, term in enumerate(terms):
        while twice := next((c for c in term if c != "." and term.count(c) > 1), None):
            term, arrays[i] = _diagonal(node, term, arrays[i], twice)
        terms[i] = term
    return ops.einsum(f"{','.join(terms)}->{right}", *arrays)


def _diagonal(node: Node, term: str, x: Tensor, letter: str) -> tuple[str, Tensor]:
    """The elements for which both axes of a letter are at the same place, as one axis: the last."""
    signs = list(term.replace("...", "." * (x.ndim - len(term.replace(".", "")))))  # one per axis
    a = signs.index(letter)
    b = signs.index(letter, a + 1)
    n, rest = x.shape[a], [i for i in range(x.ndim) if i not in (a, b)]
    if x.shape[b] != n:
        raise OnnxError(f"ONNX operator Einsum {node.name!r}: {letter!r} is {n} and {x.shape[b]}")
    rows = x.transpose(*rest, a, b).reshape((*(x.shape[i] for i in rest), n * n))
    return term.replace(letter, "") + letter, ops.take(rows, np.arange(n) * (n + 1), axis=-1)


def _conv(node: Node, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    return convolve(node, x, w, b)


def _spatial(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


def _per_channel(v: Tensor, x: Tensor) -> Tensor:
    return v.reshape((-1, *(1,) * (x.ndim - 2)))


def _batch_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Any:
    eps = node.get("epsilon", 1e-5)
    scale, bias, mean, var = (v if v.dtype == x.dtype else v.astype(x.dtype) for v in (scale, bias, mean, var))
    if not node.get("training_mode", 0):
        return ops.normalize_by(x, mean, var, scale, bias, eps)
    rows = x.reshape((x.shape[0], x.shape[1], -1, 1)) if x.ndim > 2 else x
    y, batch_mean, batch_var = ops.batch_norm(rows, scale, bias, eps)
    kept = node.get("momentum", 0.9)
    return y.reshape(x.shape), mean * kept + batch_mean * (1 - kept), var * kept + batch_var * (1 - kept)


def _standardized(x: Tensor, axes: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """x with mean 0 and variance 1 over axes; the mean, and 1 over the deviation."""
    mean = ops.mean(x, axes, True)
    centred = x - mean
    inverse = ops.rsqrt(ops.mean(centred * centred, axes, True) + eps)
    return centred * inverse, mean, inverse


def _layer_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Any:
    axis = node.get("axis", -1) % x.ndim
    axes, eps = tuple(range(axis, x.ndim)), node.get("epsilon", 1e-5)
    if node.n_outputs == 1 and scale.shape == x.shape[axis:] and (bias is None or bias.shape == scale.shape):
        return ops.layer_norm(x, scale.shape, scale, bias, eps)
    y, mean, inverse = _standardized(x, axes, eps)
    y = y * scale
    y = y if bias is None else y + bias
    return (y, mean, inverse)[: node.n_outputs] if node.n_outputs > 1 else y


def _rms_norm(node: Node, x: Tensor, scale: Tensor) -> Tensor:
    axes = tuple(range(node.get("axis", -1) % x.ndim, x.ndim))
    return x * ops.rsqrt(ops.mean(x * x, axes, True) + node.get("epsilon", 1e-5)) * scale


def _instance_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    y, _, _ = _standardized(x, _spatial(x), node.get("epsilon", 1e-5))
    return y * _per_channel(scale, x) + _per_channel(bias, x)


def _group_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups, n = node.get("num_groups"), x.shape[0]
    y, _, _ = _standardized(x.reshape((n, groups, -1)), (2,), node.get("epsilon", 1e-5))
    if node.version < 21:  # one scale per group
        y = y * scale.reshape((groups, 1)) + bias.reshape((groups, 1))
        return y.reshape(x.shape)
    return y.reshape(x.shape) * _per_channel(scale, x) + _per_channel(bias, x)


def _mean_variance(node: Node, x: Tensor) -> Tensor:
    axes = tuple(node.get("axes", (0, 2, 3)))
    mean = ops.mean(x, axes, True)
    square = ops.mean(x * x, axes, True)
    return (x - mean) / (ops.sqrt(square - mean * mean) + 1e-9)


def _global_max(node: Node, x: Tensor) -> Tensor:
    return ops.max(x, _spatial(x), True)


def _global_average(node: Node, x: Tensor) -> Tensor:
    return ops.mean(x, _spatial(x), True)


def _likelihood(node: Node, log_p: Tensor, labels: Value, weight: Value = None) -> Value:
    """``-w[label] log_p[label]`` over axis 1, reduced as asked."""
    rows, classes = host(labels), log_p.shape[1]
    ignored = node.get("ignore_index")
    is_kept = np.ones(rows.shape, bool) if ignored is None else rows != ignored
    safe = np.where(is_kept, rows, 0)
    if safe.size and not (0 <= safe.min() and safe.max() < classes):
        raise OnnxError(f"ONNX operator {node.op} {node.name!r}: a label is outside 0 to {classes - 1}")
    per_class = np.ones(classes) if weight is None else host(weight)
    w = Tensor(data=per_class[safe] * is_kept, dtype=log_p.dtype)
    chosen = ops.gather(log_p, 1, Tensor(data=np.expand_dims(safe, 1), dtype=np.int64)).reshape(rows.shape)
    loss = -(chosen * w)
    mode = node.get("reduction", "mean")
    if mode == "none":
        return loss
    return ops.sum(loss) if mode == "sum" else ops.sum(loss) / ops.sum(w)


def _softmax_loss(node: Node, scores: Tensor, labels: Value, weight: Value = None) -> Any:
    log_p = ops.log_softmax(scores, 1)
    loss = _likelihood(node, log_p, labels, weight)
    return (loss, log_p) if node.n_outputs > 1 else loss


NETWORK: dict[str, Rule] = {
    "MatMul": dual(ops.matmul, np.matmul),
    "Gemm": _gemm,
    "Einsum": _einsum,
    "Conv": _conv,
    "ConvTranspose": convolve_transposed,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "LpPool": lp_pool,
    "GlobalMaxPool": _global_max,
    "GlobalAveragePool": _global_average,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "MeanVarianceNormalization": _mean_variance,
    "LRN": local_response,
    "NegativeLogLikelihoodLoss": _likelihood,
    "SoftmaxCrossEntropyLoss": _softmax_loss,
}
