"""Losses of samples that do not count alike.

    loss = sum_i w_i l_i / sum_i w_i        l_i: the loss of row i alone;  0 where no weight is above 0

so a weight of 2 is like a row that comes twice and a weight of 0 like one that is not there; losses that are sums (SSE,
``reduction="sum"``) give ``sum_i w_i l_i``.  A loss with weights of its own, as CrossEntropy with ``class_weights`` or
``ignore_index``, multiplies them: ``sum_i w_i c_i l_i / sum_i w_i c_i``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.domain.errors import ShapeError
from keydnn.nn.losses import (
    MSE,
    SSE,
    BCEFn,
    BCEWithLogits,
    BinaryCrossEntropy,
    CategoricalCrossEntropy,
    CCEFn,
    LossFromFn,
    LossWithReduction,
    MSEFn,
    SSEFn,
)
from keydnn.nn.reduced_losses import CrossEntropy, ReducedLoss
from keydnn.ops.loss_terms import bce_logits_terms, bce_terms, cce_terms, cross_entropy_terms, square_terms

Terms = Callable[[Tensor, Tensor], Tensor]
WeightedLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def _cross_entropy(pred: Tensor, target: Tensor) -> Tensor:
    return cross_entropy_terms(pred, target)[0]


_TERMS: dict[Any, tuple[Terms, str]] = {  # loss -> its terms, by element or by row, and what becomes of them
    ops.sse: (square_terms, "sum"),
    ops.mse: (square_terms, "mean"),
    ops.bce: (bce_terms, "mean"),
    ops.cce: (cce_terms, "mean"),
    ops.bce_logits: (bce_logits_terms, "mean"),
    ops.cross_entropy: (_cross_entropy, "mean"),
    ops.mae: (lambda pred, target: ops.mae(pred, target, "none"), "mean"),
    ops.huber: (lambda pred, target: ops.huber(pred, target, reduction="none"), "mean"),
    ops.kl: (lambda pred, target: ops.kl(pred, target, "none"), "mean"),
    ops.hinge: (lambda pred, target: ops.hinge(pred, target, "none"), "mean"),
}
_SAME = {  # classes -> the function that computes the same
    SSE: ops.sse, MSE: ops.mse, BinaryCrossEntropy: ops.bce, CategoricalCrossEntropy: ops.cce, BCEWithLogits: ops.bce_logits,
    SSEFn: ops.sse, MSEFn: ops.mse, BCEFn: ops.bce, CCEFn: ops.cce,
}  # fmt: skip


def weighted(loss: Callable[[Any, Any], Any]) -> WeightedLoss:
    """The loss as a function of prediction, target and weights (N,).

    Args:
        loss: A loss of :mod:`keydnn.nn` (function or object); or any function of (prediction, target) that returns the losses
            of the rows, shape (N,) or (N, ...), whose mean over the other axes is taken.

    Example:
        >>> from keydnn.nn import MSE
        >>> from keydnn.nn.weighted import weighted
        >>> p, y, w = keydnn.tensor([1.0, 2.0]), keydnn.tensor([0.0, 0.0]), keydnn.tensor([3.0, 1.0])
        >>> weighted(MSE())(p, y, w).item()  # (3 * 1 + 1 * 4) / 4
        1.75
    """
    if isinstance(loss, CrossEntropy):
        return _weighted_cross_entropy(loss)
    key = loss.fn_cls if isinstance(loss, LossFromFn) else type(loss)
    function = _SAME.get(key, loss)
    if isinstance(loss, ReducedLoss):
        terms: Terms = type(loss).from_config({**loss.get_config(), "reduction": "none"})
        kind = "sum" if loss.reduction == "sum" else "mean"
    else:
        terms, kind = _TERMS.get(function, (function, "mean"))
        kind = "sum" if isinstance(loss, LossWithReduction) and loss.reduction == "sum" else kind

    def run(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        rows = _per_row(_checked(terms(pred, target), weight, loss), kind)
        return _reduced(rows, weight.astype(rows.dtype), None, kind)

    return run


def _weighted_cross_entropy(loss: CrossEntropy) -> WeightedLoss:
    kind = "sum" if loss.reduction == "sum" else "mean"

    def run(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        rows, own = loss.terms(pred, target)
        return _reduced(_checked(rows, weight, loss), weight.astype(rows.dtype), own, kind)

    return run


def _reduced(rows: Tensor, weight: Tensor, own: Tensor | None, kind: str) -> Tensor:
    """``own`` is what the rows count beside the weights; it is part of ``rows`` already."""
    total = (rows * weight).sum()
    if kind == "sum":
        return total
    divisor = (weight if own is None else weight * own).sum()
    return total / (divisor + (divisor == 0.0).astype(divisor.dtype))  # no row counts: 0 / 1


def _per_row(terms: Tensor, kind: str) -> Tensor:
    if terms.ndim < 2:
        return terms
    axes = tuple(range(1, terms.ndim))
    return terms.sum(axes) if kind == "sum" else terms.mean(axes)


def _checked(terms: Tensor, weight: Tensor, loss: Any) -> Tensor:
    """Terms that have a row for each weight.

    Raises:
        ValueError: They do not.
    """
    if terms.ndim == 0 or terms.shape[0] != weight.shape[0]:
        name = getattr(loss, "__name__", type(loss).__name__)
        raise ShapeError(
            f"{name}: weights {weight.shape} need a loss for each row\n  got     shape {terms.shape}\n  expected ({weight.shape[0]},) or"
            f" ({weight.shape[0]}, ...)\n  A function of your own must not take the mean when weights are used."
        )
    return terms
