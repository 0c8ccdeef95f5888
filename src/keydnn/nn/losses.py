"""Losses in their four forms: module classes, factories, function classes, names.

    SSE   sum (p - y)^2                                          y of p's shape
    MSE   SSE / numel
    BCE   mean of -(y ln p + (1 - y) ln(1 - p))                  probabilities, limited to [1e-7, 1 - 1e-7]
    CCE   -sum(y ln p) / N                                       probabilities (N, C), limited likewise; y one-hot or soft
    BCEWithLogits   mean of softplus(z) - y z                    logits z

The prediction comes first, the target second; shapes must be equal, the result has shape ().  Losses with more settings
than a reduction stand in :mod:`keydnn.nn.reduced_losses`.

>>> from keydnn.nn import MSE, MSEFn, mse_loss
>>> p, y = keydnn.tensor([1.0, 2.0]), keydnn.tensor([0.0, 0.0])
>>> MSE()(p, y).item(), mse_loss()(p, y).item(), MSEFn.apply(p, y).item()
(2.5, 2.5, 2.5)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.autograd.context import Context, Function
from keydnn.autograd.modes import is_grad_enabled, no_grad
from keydnn.nn.layers.layer import Layer, StatelessConfigMixin
from keydnn.ops.loss import bce_p, cce_p, mse_p, sse_p
from keydnn.ops.loss_terms import REDUCTIONS, bce_logits_terms, bce_terms, cce_terms, square_terms
from keydnn.saving.registry import register_module

Loss = Callable[[Tensor, Tensor], Tensor]


# -- function classes


class _LossFn(Function):
    """A loss as a function class; ``backward`` returns (dpred, dtarget or None)."""

    @classmethod
    def as_loss(cls) -> LossFromFn:
        """The loss as a callable object."""
        return LossFromFn(cls)


def _forward(op: Loss, ctx: Context, pred: Tensor, target: Tensor) -> Tensor:
    ctx.save_for_backward(pred, target)
    wanted = is_grad_enabled() and (pred.requires_grad or target.requires_grad)
    with no_grad():
        out = op(pred, target)
    out.requires_grad = wanted
    return out


def _backward(rule: Any, ctx: Context, grad_out: Tensor) -> tuple[Tensor, Tensor | None]:
    pred, target = ctx.saved_tensors
    return rule((pred, target, None), grad_out, (True, target.requires_grad))


class SSEFn(_LossFn):
    """Sum of squared errors."""

    @staticmethod
    def forward(ctx: Context, pred: Tensor, target: Tensor) -> Tensor:  # type: ignore[override]
        """``sum((pred - target) ** 2)``."""
        return _forward(ops.sse, ctx, pred, target)

    @staticmethod
    def backward(ctx: Context, grad_out: Tensor) -> tuple[Tensor, Tensor | None]:
        """``2 (pred - target)`` and its negative, times the upstream gradient."""
        return _backward(sse_p.rule, ctx, grad_out)


class MSEFn(_LossFn):
    """Mean of squared errors."""

    @staticmethod
    def forward(ctx: Context, pred: Tensor, target: Tensor) -> Tensor:  # type: ignore[override]
        """``mean((pred - target) ** 2)``."""
        return _forward(ops.mse, ctx, pred, target)

    @staticmethod
    def backward(ctx: Context, grad_out: Tensor) -> tuple[Tensor, Tensor | None]:
        """``2 (pred - target) / numel`` and its negative, times the upstream gradient."""
        return _backward(mse_p.rule, ctx, grad_out)


class BinaryCrossEntropyFn(_LossFn):
    """Mean binary cross-entropy of probabilities."""

    @staticmethod
    def forward(ctx: Context, pred: Tensor, target: Tensor) -> Tensor:  # type: ignore[override]
        """Mean of ``-(y ln p + (1 - y) ln(1 - p))``."""
        return _forward(ops.bce, ctx, pred, target)

    @staticmethod
    def backward(ctx: Context, grad_out: Tensor) -> tuple[Tensor, Tensor | None]:
        """``(p - y) / (p (1 - p)) / numel`` with the limited p, times the upstream gradient; None for the target."""
        return _backward(bce_p.rule, ctx, grad_out)


class CategoricalCrossEntropyFn(_LossFn):
    """Cross-entropy of probabilities, per row."""

    @staticmethod
    def forward(ctx: Context, pred: Tensor, target: Tensor) -> Tensor:  # type: ignore[override]
        """``-sum(y ln p) / N``."""
        return _forward(ops.cce, ctx, pred, target)

    @staticmethod
    def backward(ctx: Context, grad_out: Tensor) -> tuple[Tensor, Tensor | None]:
        """``-(y / p) / N`` with the limited p, times the upstream gradient; None for the target."""
        return _backward(cce_p.rule, ctx, grad_out)


BCEFn = BinaryCrossEntropyFn
CCEFn = CategoricalCrossEntropyFn


@dataclass(frozen=True)
class LossFromFn:
    """A loss made from a function class; call it with the prediction and the target.

    Attributes:
        fn_cls: The function class.
    """

    fn_cls: type[Function]

    def __call__(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.fn_cls.apply(pred, target)


def sse_loss() -> LossFromFn:
    """Sum of squared errors as a callable ``f(pred, target)``."""
    return LossFromFn(SSEFn)


def mse_loss() -> LossFromFn:
    """Mean of squared errors as a callable ``f(pred, target)``."""
    return LossFromFn(MSEFn)


def bce_loss() -> LossFromFn:
    """Binary cross-entropy of probabilities as a callable ``f(pred, target)``."""
    return LossFromFn(BinaryCrossEntropyFn)


def cce_loss() -> LossFromFn:
    """Cross-entropy of probabilities as a callable ``f(pred, target)``."""
    return LossFromFn(CategoricalCrossEntropyFn)


# -- modules


class _LossModule(StatelessConfigMixin, Layer):
    """A loss as a module."""


class LossWithReduction(_LossModule):
    """A loss that is a mean, or what ``reduction`` says.

    Args:
        reduction: ``mean``, ``sum`` or ``none``.

    Raises:
        ValueError: Another reduction.
    """

    _mean: Loss
    _terms: Loss

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"{type(self).__name__}: reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
        self.reduction = reduction

    def _reduced(self, pred: Tensor, target: Tensor) -> Tensor:
        return self._mean(pred, target) if self.reduction == "mean" else REDUCTIONS[self.reduction](self._terms(pred, target))

    def get_config(self) -> dict[str, Any]:
        """Nothing, or the ``reduction`` if it is not the mean."""
        return {} if self.reduction == "mean" else {"reduction": self.reduction}


@register_module()
class SSE(_LossModule):
    """Sum of squared errors.

    Shapes: pred and target of one shape -> ().

    Raises:
        ValueError: The shapes differ.
    """

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """``sum((pred - target) ** 2)``."""
        return ops.sse(pred, target)


@register_module()
class MSE(LossWithReduction):
    """Mean of squared errors over all elements.

    Args:
        reduction: ``mean``, ``sum`` or ``none``.

    Shapes: pred and target of one shape -> (), or that shape with reduction ``none``.

    Raises:
        ValueError: The shapes differ, or another reduction.
    """

    _mean, _terms = staticmethod(ops.mse), staticmethod(square_terms)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """``mean((pred - target) ** 2)``, or as ``reduction`` says."""
        return self._reduced(pred, target)


@register_module()
class BinaryCrossEntropy(LossWithReduction):
    """Mean binary cross-entropy of probabilities, limited to [1e-7, 1 - 1e-7]; no gradient flows to the target.

    Args:
        reduction: ``mean``, ``sum`` or ``none``.

    Shapes: pred and target of one shape -> (), or that shape with reduction ``none``.

    Raises:
        ValueError: The shapes differ, or another reduction.
    """

    _mean, _terms = staticmethod(ops.bce), staticmethod(bce_terms)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Mean of ``-(y ln p + (1 - y) ln(1 - p))``, or as ``reduction`` says."""
        return self._reduced(pred, target)


@register_module()
class CategoricalCrossEntropy(LossWithReduction):
    """Cross-entropy of probabilities, limited to [1e-7, 1 - 1e-7], per row; no gradient flows to the target.

    Args:
        reduction: ``mean``, ``sum`` or ``none``.

    Shapes: pred (N, C), target (N, C) one-hot or soft -> (), or (N,) with reduction ``none``.

    Raises:
        ValueError: The shapes differ, or another reduction, or there are no rows.
    """

    _mean, _terms = staticmethod(ops.cce), staticmethod(cce_terms)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """``-sum(y ln p) / N``, or as ``reduction`` says."""
        return self._reduced(pred, target)


@register_module()
class BCEWithLogits(LossWithReduction):
    """Mean binary cross-entropy of logits, finite for all of them; no gradient flows to the target.

    Args:
        reduction: ``mean``, ``sum`` or ``none``.

    Shapes: pred (logits) and target of one shape -> (), or that shape with reduction ``none``.

    Raises:
        ValueError: The shapes differ, or another reduction.
    """

    _mean, _terms = staticmethod(ops.bce_logits), staticmethod(bce_logits_terms)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Mean of ``softplus(z) - y z``, or as ``reduction`` says."""
        return self._reduced(pred, target)


BCE = BinaryCrossEntropy
CCE = CategoricalCrossEntropy

# -- names

LOSSES: dict[str, Loss] = {
    "sse": ops.sse,
    "mse": ops.mse,
    "bce": ops.bce,
    "binary_crossentropy": ops.bce,
    "binarycrossentropy": ops.bce,
    "cce": ops.cce,
    "categorical_crossentropy": ops.cce,
    "categoricalcrossentropy": ops.cce,
    "bce_logits": ops.bce_logits,
    "cross_entropy": ops.cross_entropy,
    "sparse_cce": ops.cross_entropy,
    "mae": ops.mae,
    "mean_absolute_error": ops.mae,
    "huber": ops.huber,
    "kl": ops.kl,
    "kl_divergence": ops.kl,
    "hinge": ops.hinge,
}
