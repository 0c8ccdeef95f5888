"""Losses element by element or row by row, composed of operations, and how terms become one number.

    the terms of mse, bce, bce_logits and cce, whose means are the primitives of :mod:`keydnn.ops.loss`
    mae      |p - y|
    huber    d^2 / 2 where d = |p - y| <= delta, else delta (d - delta / 2)          Huber 1964, doi:10.1214/aoms/1177703732
    kl       sum of y ln(y / p) along the last axis, both limited to [1e-7, 1]       Kullback, Leibler 1951, doi:10.1214/aoms/1177729694
    hinge    max(0, 1 - y p), y in {-1, 1}
    cross entropy of logits with smoothed labels, class weights and labels to ignore

``pred`` comes first, ``target`` second, shapes must be equal.  A reduction is ``mean``, ``sum`` or ``none``.
"""

from __future__ import annotations

from keydnn.autograd.primitive import bind
from keydnn.domain.errors import ShapeError
from keydnn.ops.activation import log_softmax, relu, softplus
from keydnn.ops.elementwise import limit_through
from keydnn.ops.loss import LIMIT, _same_shape, cross_entropy_p, whole_labels
from keydnn.ops.shape import take

REDUCTIONS = {"mean": lambda terms: terms.mean(), "sum": lambda terms: terms.sum(), "none": lambda terms: terms}


def square_terms(pred, target):
    """``(pred - target) ** 2`` by element."""
    _same_shape("mse", pred, target)
    return (pred - target).square()


def bce_terms(pred, target):
    """``-(y ln p + (1 - y) ln(1 - p))`` by element, limits and gradient as in ``bce``."""
    _same_shape("bce", pred, target)
    p, y = limit_through(pred, low=LIMIT, high=1.0 - LIMIT), target.detach()
    return -(y * p.log() + (1.0 - y) * (1.0 - p).log())


def bce_logits_terms(pred, target):
    """``softplus(z) - y z`` by element."""
    _same_shape("bce_logits", pred, target)
    return softplus(pred) - target.detach() * pred


def cce_terms(pred, target):
    """``-sum(y ln p)`` by row, over all axes but the first; limits and gradient as in ``cce``."""
    _same_shape("cce", pred, target)
    if pred.ndim == 0 or pred.shape[0] == 0:
        raise ShapeError(f"cce: expected pred (N, C) with N >= 1, got shape {pred.shape}")
    terms = target.detach() * limit_through(pred, low=LIMIT, high=1.0 - LIMIT).log()
    return -terms.sum(tuple(range(1, pred.ndim))) if pred.ndim > 1 else -terms


def mae(pred, target, reduction="mean"):
    """``|pred - target|``; the gradient at 0 is 0."""
    _same_shape("mae", pred, target)
    return REDUCTIONS[reduction]((pred - target).abs())


def huber(pred, target, delta=1.0, reduction="mean"):
    """Quadratic up to ``delta``, linear beyond: ``q (d - q / 2)`` with ``d = |pred - target|`` and ``q = min(d, delta)``."""
    _same_shape("huber", pred, target)
    d = (pred - target).abs()
    q = d.clamp(max=delta)
    return REDUCTIONS[reduction](q * (d - q * 0.5))


def kl(pred, target, reduction="mean"):
    """``sum(y ln(y / p))`` along the last axis, probabilities limited to [1e-7, 1]; no gradient flows to the target."""
    _same_shape("kl", pred, target)
    if pred.ndim == 0:
        raise ShapeError("kl: expected probabilities along a last axis, got shape ()")
    p, y = pred.clamp(min=LIMIT, max=1.0), target.detach().clamp(min=LIMIT, max=1.0)
    return REDUCTIONS[reduction]((y * (y.log() - p.log())).sum(-1))


def hinge(pred, target, reduction="mean"):
    """``max(0, 1 - y p)`` with y in {-1, 1}; no gradient flows to the target."""
    _same_shape("hinge", pred, target)
    return REDUCTIONS[reduction](relu(1.0 - target.detach() * pred))


def cross_entropy_rows(pred, target, *, label_smoothing=0.0, class_weights=None, ignore_index=None, reduction="mean"):
    """Cross-entropy of logits; with integer labels ``w_y ((1 - e) nll_y) + e / C sum_c w_c nll_c`` per row.

    The mean is the weighted one: it divides by the sum of the weights of the rows' classes, rows to ignore left out, as
    PyTorch's ``CrossEntropyLoss`` does.  With probabilities as target, rows count alike.

    Args:
        pred: Logits (N, C).
        target: Labels (N,) of an integer type, or probabilities (N, C); no gradient flows to it.
        label_smoothing: e in [0, 1]: the part of the target spread evenly over all classes (Szegedy et al. 2016, arXiv:1512.00567).
        class_weights: Tensor (C,) or None.
        ignore_index: A label whose rows do not count, or None.
        reduction: ``mean``, ``sum``, or ``none`` for (N,).

    Raises:
        ValueError: Shapes do not fit, or a label is outside [0, C).
    """
    rows, weights = cross_entropy_terms(pred, target, label_smoothing, class_weights, ignore_index)
    if reduction == "mean" and weights is not None:
        return rows.sum() / weights.sum()
    return REDUCTIONS[reduction](rows)


def cross_entropy_terms(pred, target, label_smoothing=0.0, class_weights=None, ignore_index=None):
    """The rows of :func:`cross_entropy_rows` (N,), and what each counts in their mean (N,); None if all count alike."""
    if pred.ndim != 2 or pred.shape[0] == 0:
        raise ShapeError(f"cross_entropy: expected logits (N, C) with N >= 1, got shape {pred.shape}")
    n_classes = pred.shape[1]
    if class_weights is not None and class_weights.shape != (n_classes,):
        raise ShapeError(f"cross_entropy: {n_classes} classes need class_weights ({n_classes},), got {class_weights.shape}")
    if target.shape == pred.shape and target.dtype.kind == "f":
        return _soft_rows(pred, target.detach(), label_smoothing, class_weights), None
    if target.shape != pred.shape[:1]:
        raise ShapeError(
            f"cross_entropy: Shape mismatch: {pred.shape} vs {target.shape}; expected labels (N,) or probabilities (N, C)"
            f"{'; reshape the labels to (N,)' if target.size == pred.shape[0] else ''}"
        )
    labels = whole_labels(target)
    counted = None
    if ignore_index is not None:
        counted = labels != ignore_index
        labels = labels * counted.astype(labels.dtype)
    values = labels._data
    if values.min() < 0 or values.max() >= n_classes:
        raise ShapeError(f"cross_entropy: labels run from {values.min()} to {values.max()}, expected 0 to {n_classes - 1}")
    rows = bind(cross_entropy_p, (pred, labels), {})[0]
    weights = None if class_weights is None else take(class_weights, labels)
    rows = rows if weights is None else rows * weights
    if label_smoothing:
        logs = log_softmax(pred, 1)
        even = -(logs if class_weights is None else logs * class_weights).sum(1)
        rows = rows * (1.0 - label_smoothing) + even * (label_smoothing / n_classes)
    if counted is not None:
        counted = counted.astype(pred.dtype)
        rows, weights = rows * counted, counted if weights is None else weights * counted
    return rows, weights


def _soft_rows(pred, target, label_smoothing, class_weights):
    if label_smoothing:
        target = target * (1.0 - label_smoothing) + label_smoothing / pred.shape[1]
    if class_weights is not None:
        target = target * class_weights
    return -(target * log_softmax(pred, 1)).sum(1)
