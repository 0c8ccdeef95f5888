"""Losses as sums over elements; the result has shape ().

``pred`` comes first, ``target`` second; the shapes must be equal, broadcasting is refused.
"""

from __future__ import annotations

import numpy as np

from keydnn.autograd.primitive import bind
from keydnn.domain.errors import ShapeError
from keydnn.ops._primitive import primitive
from keydnn.ops.activation import log_softmax, softmax, softplus
from keydnn.ops.elementwise import limit_through
from keydnn.ops.shape import one_hot_p

LIMIT = 1e-7  # probabilities are limited to [LIMIT, 1 - LIMIT]


def _same_shape(name, pred, target):
    if pred.shape != target.shape:
        raise ShapeError(
            f"{name}: Shape mismatch: {pred.shape} vs {target.shape} (pred vs target; losses do not broadcast{_mend(pred, target)})"
        )


def _mend(pred, target):
    """What to do about two shapes that are often met."""
    if [n for n in pred.shape if n != 1] == [n for n in target.shape if n != 1]:
        return f"; reshape the target to {pred.shape}"
    if pred.shape[:-1] in (target.shape, target.shape[:-1]) and pred.ndim == 2:
        return "; for numbers of classes take cross_entropy on logits, or keydnn.one_hot(labels, n)"
    return ""


@primitive(broadcasts=True)
def sse_p(k, pred, target):
    """Sum of squared errors."""
    d = k.sub(pred, target)
    return k.sum(k.square(d), None, False), (pred, target), (d,)


@sse_p.gradient
def _(saved, g, needs):
    pred, target, d = saved
    dpred = (pred - target if d is None else d) * (g * 2.0)
    return dpred, -dpred if needs[1] else None


@primitive(broadcasts=True)
def mse_p(k, pred, target):
    """Mean of squared errors."""
    d = k.sub(pred, target)
    return k.mean(k.square(d), None, False), (pred, target), (d,)


@mse_p.gradient
def _(saved, g, needs):
    pred, target, d = saved
    dpred = (pred - target if d is None else d) * (g * (2.0 / pred.size))
    return dpred, -dpred if needs[1] else None


@primitive(broadcasts=True)
def bce_p(k, pred, target):
    """Mean binary cross-entropy of limited probabilities."""
    p = k.clamp(pred, LIMIT, 1.0 - LIMIT)
    terms = k.add(k.mul(target, k.log(p)), k.mul(k.sub(1.0, target), k.log(k.sub(1.0, p))))
    return k.neg(k.mean(terms, None, False)), (pred, target), (p,)


@bce_p.gradient
def _(saved, g, needs):
    pred, target, p = saved
    p = limit_through(pred, low=LIMIT, high=1.0 - LIMIT) if p is None else p
    return (p - target.detach()) / (p * (1.0 - p)) * (g * (1.0 / pred.size)), None


@primitive(broadcasts=True)
def cce_p(k, pred, target):
    """Cross-entropy of limited probabilities, per row."""
    p = k.clamp(pred, LIMIT, 1.0 - LIMIT)
    return k.div(k.sum(k.mul(target, k.log(p)), None, False), -float(pred.shape[0])), (pred, target), (p,)


@cce_p.gradient
def _(saved, g, needs):
    pred, target, p = saved
    p = limit_through(pred, low=LIMIT, high=1.0 - LIMIT) if p is None else p
    return target.detach() / p * (g * (-1.0 / pred.shape[0])), None


def sse(pred, target):
    """Sum of squared errors."""
    _same_shape("sse", pred, target)
    return bind(sse_p, (pred, target))


def mse(pred, target):
    """Mean of squared errors over all elements."""
    _same_shape("mse", pred, target)
    return bind(mse_p, (pred, target))


def bce(pred, target):
    """Mean of ``-(y ln p + (1-y) ln(1-p))`` over probabilities limited to [1e-7, 1 - 1e-7]; no gradient to the target.

    The gradient ``(p-y) / (p(1-p)) / numel`` uses the limited p and is not zeroed outside the limits.
    """
    _same_shape("bce", pred, target)
    return bind(bce_p, (pred, target))


def cce(pred, target):
    """``-sum(y ln p) / N`` over probabilities limited to [1e-7, 1 - 1e-7], y one-hot or soft (N, C); no gradient to the target.

    The gradient ``-(y/p) / N`` uses the limited p and is not zeroed outside the limits.
    """
    _same_shape("cce", pred, target)
    if len(pred.shape) == 0 or pred.shape[0] == 0:
        raise ShapeError(f"cce: expected pred (N, C) with N >= 1, got shape {pred.shape}")
    return bind(cce_p, (pred, target))


def bce_logits(pred, target):
    """Mean binary cross-entropy of logits: ``softplus(z) - y z``, finite for every z; no gradient to the target."""
    _same_shape("bce_logits", pred, target)
    return (softplus(pred) - target.detach() * pred).mean()


@primitive(n_outputs=2, n_graph=1)
def cross_entropy_p(k, logits, labels):
    """Rows of ``-log_softmax(logits)[label]``, and the probabilities."""
    loss, p = k.cross_entropy(logits, labels)
    return (loss, p), (logits, labels), (p,)


@cross_entropy_p.gradient
def _(saved, g, needs):
    logits, labels, p = saved
    if p is not None:
        return cross_entropy_grad(p, labels, g), None
    hot = one_hot_p(labels, n=logits.shape[1], dtype=logits.dtype)
    return (softmax(logits, 1) - hot) * g.reshape((g.shape[0], 1)), None


@primitive
def cross_entropy_grad(k, p, labels, g):
    """``(p - onehot(labels)) * g`` by rows."""
    return k.cross_entropy_grad(p, labels, g)


def whole_labels(target):
    """Labels as integers; floating ones must be whole."""
    if target.dtype.kind in "iu":
        return target
    labels, values = target.astype("int64"), target._data
    different = np.flatnonzero(labels._data != values)
    if different.size:
        row = different[0]
        raise ShapeError(
            f"cross_entropy: labels are class numbers, got {values[row]} in row {row}; probabilities have shape (N, C), and numbers to"
            " predict another loss, such as mse"
        )
    return labels


def cross_entropy(pred, target):
    """Mean cross-entropy of logits.

    Args:
        pred: Logits (N, C).
        target: Integer class labels (N,), or probabilities (N, C); no gradient flows to it.

    Raises:
        ValueError: Shapes do not fit, or a label is outside [0, C) or no whole number (not looked for in a recorded step).
    """
    if pred.ndim != 2 or pred.shape[0] == 0:
        raise ShapeError(f"cross_entropy: expected logits (N, C) with N >= 1, got shape {pred.shape}")
    if target.shape == pred.shape and target.dtype.kind == "f":
        return -(target.detach() * log_softmax(pred, 1)).sum() / pred.shape[0]
    if target.shape != pred.shape[:1]:
        raise ShapeError(
            f"cross_entropy: Shape mismatch: {pred.shape} vs {target.shape}; expected labels (N,) or probabilities (N, C)"
            f"{'; reshape the labels to (N,)' if target.size == pred.shape[0] else ''}"
        )
    labels = whole_labels(target)
    values = labels._data
    if values.min() < 0 or values.max() >= pred.shape[1]:
        raise ShapeError(f"cross_entropy: labels run from {values.min()} to {values.max()}, expected 0 to {pred.shape[1] - 1}")
    return bind(cross_entropy_p, (pred, labels), {})[0].mean()
