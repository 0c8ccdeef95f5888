"""Losses with settings; the formulas stand in :mod:`keydnn.ops.loss_terms`.

A reduction is ``mean``, ``sum`` or ``none``, which gives a value per element, or per row where the loss belongs to rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.nn.arguments import integer, label, number
from keydnn.nn.layers.layer import Layer
from keydnn.ops.loss_terms import REDUCTIONS, cross_entropy_terms
from keydnn.saving.registry import register_module


class ReducedLoss(Layer):
    """A loss whose terms become one number, or none.

    Args:
        reduction: ``mean``, ``sum`` or ``none``.

    Raises:
        ValueError: Another reduction.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"{label(self)}: reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
        self.reduction = reduction

    def get_config(self) -> dict[str, Any]:
        """``reduction``."""
        return {"reduction": self.reduction}


@register_module()
class MAE(ReducedLoss):
    """Absolute error ``|pred - target|``.

    Shapes: pred and target of one shape -> (), or that shape with reduction ``none``.

    Raises:
        ValueError: The shapes differ, or another reduction.
    """

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """``|pred - target|``, reduced."""
        return ops.mae(pred, target, self.reduction)


@register_module()
class Huber(ReducedLoss):
    """Quadratic for errors up to ``delta``, linear beyond.

    Args:
        delta: Where it turns, above 0.
        reduction: ``mean``, ``sum`` or ``none``.

    Shapes: pred and target of one shape -> (), or that shape with reduction ``none``.

    Raises:
        TypeError: ``delta`` is no number.
        ValueError: The shapes differ, ``delta`` is not above 0, or another reduction.

    Example:
        >>> from keydnn.nn import Huber
        >>> Huber(reduction="none")(keydnn.tensor([0.5, 3.0]), keydnn.zeros((2,))).tolist()
        [0.125, 2.5]
    """

    def __init__(self, delta: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.delta = number("delta", delta, self)
        if self.delta <= 0:
            raise ValueError(f"Huber: delta must be above 0, got {delta!r}")

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """``d^2 / 2`` or ``delta (d - delta / 2)``, reduced."""
        return ops.huber(pred, target, self.delta, self.reduction)

    def get_config(self) -> dict[str, Any]:
        """``delta, reduction``."""
        return {"delta": self.delta, **super().get_config()}


@register_module()
class KLDivergence(ReducedLoss):
    """``sum(y ln(y / p))`` along the last axis; probabilities are limited to [1e-7, 1], no gradient flows to the target.

    Shapes: pred and target (..., C) -> (), or (...) with reduction ``none``.

    Raises:
        ValueError: The shapes differ, or another reduction.
    """

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """``sum(y ln(y / p))``, reduced."""
        return ops.kl(pred, target, self.reduction)


@register_module()
class Hinge(ReducedLoss):
    """``max(0, 1 - y p)`` with y in {-1, 1}; no gradient flows to the target.

    Shapes: pred and target of one shape -> (), or that shape with reduction ``none``.

    Raises:
        ValueError: The shapes differ, or another reduction.
    """

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """``max(0, 1 - y p)``, reduced."""
        return ops.hinge(pred, target, self.reduction)


@register_module()
class CrossEntropy(ReducedLoss):
    """Cross-entropy of logits, finite for all of them; no gradient flows to the target.

    Args:
        label_smoothing: Part of the target that is spread evenly over all classes, in [0, 1].
        class_weights: A weight per class, or None; the mean is then the weighted one.
        ignore_index: A label whose rows do not count, or None.
        reduction: ``mean``, ``sum``, or ``none`` for a value per row.

    Shapes: pred (logits) (N, C), target integer labels (N,) or probabilities (N, C) -> (), or (N,).

    Raises:
        TypeError: A setting of another type.
        ValueError: A setting out of range, shapes that do not fit, or a label outside [0, C).

    Example:
        >>> from keydnn.nn import CrossEntropy
        >>> labels = keydnn.tensor([0, 1], dtype="int64")
        >>> round(CrossEntropy()(keydnn.tensor([[9.0, 0.0], [0.0, 9.0]]), labels).item(), 6)
        0.000123
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.label_smoothing = number("label_smoothing", label_smoothing, self)
        if not 0 <= self.label_smoothing <= 1:
            raise ValueError(f"CrossEntropy: label_smoothing must be in [0, 1], got {label_smoothing!r}")
        self.class_weights = None if class_weights is None else [number("a class weight", w, self) for w in class_weights]
        if self.class_weights is not None and (min(self.class_weights, default=0) < 0 or not any(self.class_weights)):
            raise ValueError(f"CrossEntropy: class_weights must be at least 0 and not all 0, got {self.class_weights}")
        self.ignore_index = None if ignore_index is None else integer("ignore_index", ignore_index, self)
        self._weights: dict[Any, Tensor] = {}

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """``-sum(y log_softmax(z))`` by rows, reduced."""
        if not self.label_smoothing and self.class_weights is None and self.ignore_index is None and self.reduction == "mean":
            return ops.cross_entropy(pred, target)
        return ops.cross_entropy_rows(
            pred,
            target,
            label_smoothing=self.label_smoothing,
            class_weights=self._weights_as(pred),
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )

    def terms(self, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """The values of the rows (N,), and what each counts in their mean; None if all count alike."""
        return cross_entropy_terms(pred, target, self.label_smoothing, self._weights_as(pred), self.ignore_index)

    def _weights_as(self, pred: Tensor) -> Tensor | None:
        """The class weights in the type of the logits."""
        if self.class_weights is None:
            return None
        if pred.dtype not in self._weights:
            self._weights[pred.dtype] = Tensor(data=self.class_weights, dtype=pred.dtype)
        return self._weights[pred.dtype]

    def get_config(self) -> dict[str, Any]:
        """``label_smoothing, class_weights, ignore_index, reduction``."""
        own = {"label_smoothing": self.label_smoothing, "class_weights": self.class_weights, "ignore_index": self.ignore_index}
        return {**own, **super().get_config()}
