"""Adam and AdamW: steps scaled by running means of the gradient and of its square.

    m = beta1 * m + (1 - beta1) * g;   v = beta2 * v + (1 - beta2) * g * g
    p -= lr * (m / (1 - beta1 ** t)) / (sqrt(v / (1 - beta2 ** t)) + eps)

t counts the steps of each parameter from 1.  Adam adds ``weight_decay * p`` to g (an L2 penalty); AdamW instead shrinks p
by ``lr * weight_decay * p`` first.  Sources: Kingma & Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 1;
Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.autograd.primitive import bind
from keydnn.ops import inplace
from keydnn.optim.optimizer import DEFAULT_LR, Optimizer, at_least_zero, fraction, positive


class _Adaptive(Optimizer):
    """What Adam and AdamW share."""

    _decoupled: bool

    def _checked(self, options: dict[str, Any]) -> dict[str, Any]:
        betas = options["betas"]
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ValueError(f"{self._name}: betas must be a pair of numbers, got {betas!r}")
        return {
            "beta1": fraction(self._name, "beta1", betas[0]),
            "beta2": fraction(self._name, "beta2", betas[1]),
            "eps": positive(self._name, "eps", options["eps"]),
            "weight_decay": at_least_zero(self._name, "weight_decay", options["weight_decay"]),
            "decoupled": self._decoupled,
        }

    def _public(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"betas": [options["beta1"], options["beta2"]], "eps": options["eps"], "weight_decay": options["weight_decay"]}

    def _new_slots(self, p: Tensor, options: dict[str, Any]) -> dict[str, Tensor]:
        m, v = (Tensor(p.shape, p.device, dtype=p.dtype) for _ in range(2))
        return {"m": m, "v": v, "t": Tensor((), p.device, dtype=np.int64)}

    def _update(self, p: Tensor, g: Tensor, slots: dict[str, Tensor], rate: Tensor, options: dict[str, Any]) -> None:
        bind(inplace.adam_, (p, g, slots["m"], slots["v"], slots["t"], rate), options)


class Adam(_Adaptive):
    """Adam; ``weight_decay`` is an L2 penalty added to the gradient.

    Args:
        params: Iterable of parameters, or of groups (dicts with ``params`` and their own settings).
        lr: Learning rate, above 0.
        betas: Shares of the running means that stay, each between 0 and 1.
        eps: Added to the denominator, above 0.
        weight_decay: L2 penalty, at least 0.
        learning_rate: Another name for ``lr``.

    Raises:
        ValueError: A setting is out of range.
        TypeError: A parameter is no Tensor.

    Example:
        >>> from keydnn.optim import Adam
        >>> p = keydnn.tensor([1.0, -2.0], requires_grad=True)
        >>> (p * p).sum().backward()
        >>> Adam([p], lr=0.5).step()
        >>> p.tolist()  # the first step is lr times the sign
        [0.5, -1.5]
    """

    _decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = DEFAULT_LR,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        learning_rate: float | None = None,
    ) -> None:
        super().__init__(params, lr, learning_rate, {"betas": betas, "eps": eps, "weight_decay": weight_decay})


class AdamW(_Adaptive):
    """Adam with decoupled weight decay: each step first does ``p -= lr * weight_decay * p``.

    Args:
        params: Iterable of parameters, or of groups (dicts with ``params`` and their own settings).
        lr: Learning rate, above 0.
        betas: Shares of the running means that stay, each between 0 and 1.
        eps: Added to the denominator, above 0.
        weight_decay: Share of each parameter that ``lr = 1`` would take away per step, at least 0.
        learning_rate: Another name for ``lr``.

    Raises:
        ValueError: A setting is out of range.
        TypeError: A parameter is no Tensor.
    """

    _decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = DEFAULT_LR,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        learning_rate: float | None = None,
    ) -> None:
        super().__init__(params, lr, learning_rate, {"betas": betas, "eps": eps, "weight_decay": weight_decay})
