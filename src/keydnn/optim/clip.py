"""Gradient clipping, between ``backward()`` and ``step()``.

By norm: all gradients times ``min(1, max_norm / (norm + 1e-6))``, norm taken over all of them together, so the direction
stays.  By value: each element limited to [-value, value].
Source: Pascanu, Mikolov & Bengio 2013, https://proceedings.mlr.press/v28/pascanu13.html
"""

from __future__ import annotations

from collections.abc import Iterable

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.autograd.modes import no_grad
from keydnn.autograd.primitive import bind
from keydnn.ops import inplace
from keydnn.optim.optimizer import positive

_TINY = 1e-6  # keeps the quotient finite when all gradients are 0


def _grads(params: Iterable[Tensor] | Tensor) -> list[Tensor]:
    found = [params] if isinstance(params, Tensor) else list(params)
    unique = {id(p): p for p in found}.values()
    return [p.grad for p in unique if p.grad is not None]


@no_grad()
def clip_grad_norm(params: Iterable[Tensor] | Tensor, max_norm: float) -> Tensor | None:
    """Scale all gradients, in place, so that their common Euclidean norm is at most ``max_norm``.

    Nothing is read back to Python, so a step with clipping can be recorded.  A norm that is NaN makes the gradients NaN.

    Args:
        params: Parameters of one device; those without a gradient do not count.
        max_norm: Bound, above 0.

    Returns:
        The norm before clipping, shape (); None if there is no gradient.

    Raises:
        ValueError: ``max_norm`` is not above 0.
        TypeError: ``max_norm`` is no number.

    Example:
        >>> from keydnn.optim import clip_grad_norm
        >>> p = keydnn.tensor([3.0, 4.0], requires_grad=True)
        >>> (p * p).sum().backward()  # gradient (6, 8), norm 10
        >>> clip_grad_norm([p], 5.0).item()
        10.0
        >>> [round(g, 4) for g in p.grad.tolist()]
        [3.0, 4.0]
    """
    bound = positive("clip_grad_norm", "max_norm", max_norm)
    grads = _grads(params)
    if not grads:
        return None
    total = ops.norm(ops.stack([ops.norm(g) for g in grads]))
    scale = (bound / (total + _TINY)).clamp(max=1.0)
    for g in grads:
        bind(inplace.mul_, (g, scale.astype(g.dtype)))
    return total


@no_grad()
def clip_grad_value(params: Iterable[Tensor] | Tensor, value: float) -> None:
    """Limit every element of every gradient to [-value, value], in place.

    Args:
        params: Parameters; those without a gradient do not count.
        value: Bound, above 0.

    Raises:
        ValueError: ``value`` is not above 0.
        TypeError: ``value`` is no number.
    """
    bound = positive("clip_grad_value", "value", value)
    for g in _grads(params):
        bind(inplace.assign_, (g, g.clamp(min=-bound, max=bound)))
