"""Stochastic gradient descent, with momentum on request.

    d = g + weight_decay * p;   v = momentum * v + d;   p -= lr * (d + momentum * v  if nesterov else  v)

Without momentum ``p -= lr * d``.  Source: Sutskever et al. 2013, https://proceedings.mlr.press/v28/sutskever13.html
(in the form PyTorch uses: the rate multiplies the velocity, not the gradient inside it).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from keydnn._tensor import Tensor
from keydnn.autograd.primitive import bind
from keydnn.ops import inplace
from keydnn.optim.optimizer import DEFAULT_LR, Optimizer, at_least_zero


class SGD(Optimizer):
    """Gradient descent: ``p -= lr * (g + weight_decay * p)``, with momentum on request.

    Args:
        params: Iterable of parameters, or of groups (dicts with ``params`` and their own settings).
        lr: Learning rate, above 0.
        momentum: Share of the velocity that stays, at least 0; 0 keeps no velocity.
        nesterov: Whether to look ahead along the velocity; needs momentum.
        weight_decay: L2 penalty added to the gradient, at least 0.
        learning_rate: Another name for ``lr``.

    Raises:
        ValueError: A setting is out of range.
        TypeError: A parameter is no Tensor.

    Example:
        >>> from keydnn.optim import SGD
        >>> p = keydnn.tensor([1.0, 2.0], requires_grad=True)
        >>> (p * p).sum().backward()
        >>> SGD([p], lr=0.25).step()
        >>> p.tolist()
        [0.5, 1.0]
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = DEFAULT_LR,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        learning_rate: float | None = None,
    ) -> None:
        super().__init__(params, lr, learning_rate, {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay})

    def _checked(self, options: dict[str, Any]) -> dict[str, Any]:
        momentum = at_least_zero("SGD", "momentum", options["momentum"])
        nesterov = bool(options["nesterov"])
        if nesterov and momentum == 0:
            raise ValueError("SGD: nesterov needs a momentum above 0")
        return {"momentum": momentum, "nesterov": nesterov, "weight_decay": at_least_zero("SGD", "weight_decay", options["weight_decay"])}

    def _new_slots(self, p: Tensor, options: dict[str, Any]) -> dict[str, Tensor]:
        return {"velocity": Tensor(p.shape, p.device, dtype=p.dtype)} if options["momentum"] else {}

    def _update(self, p: Tensor, g: Tensor, slots: dict[str, Tensor], rate: Tensor, options: dict[str, Any]) -> None:
        if slots:
            bind(inplace.momentum_, (p, g, slots["velocity"], rate), options)
        else:
            bind(inplace.sgd_, (p, g, rate), {"weight_decay": options["weight_decay"]})
