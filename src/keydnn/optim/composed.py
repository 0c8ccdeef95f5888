"""Update rules written in tensor operations: each is the formula of its paper, a few kernels per parameter.

g is the gradient plus ``weight_decay * p`` (an L2 penalty) unless a class says otherwise; t counts the steps of each
parameter from 1.  Nothing is read back to Python, so a step can be recorded.

    RMSprop    v = a v + (1 - a) g^2;  [m = a m + (1 - a) g;  v -= m^2 in the root if centered]
               d = g / (sqrt(v) + eps);  [b = mu b + d;  d = b]  p -= lr d
    Adagrad    s += g^2;  p -= lr g / (sqrt(s) + eps)
    Adadelta   v = rho v + (1 - rho) g^2;  d = g sqrt(u + eps) / sqrt(v + eps);  u = rho u + (1 - rho) d^2;  p -= lr d
    Adamax     m = b1 m + (1 - b1) g;  u = max(b2 u, |g| + eps);  p -= lr / (1 - b1^t) m / u
    NAdam      m, v as Adam;  mu_t = b1 (1 - 0.96^(0.004 t) / 2);  M_t = mu_1 ... mu_t
               p -= lr (mu_{t+1} m / (1 - M_{t+1}) + (1 - mu_t) g / (1 - M_t)) / (sqrt(v / (1 - b2^t)) + eps)
    Lion       p -= lr wd p;  p -= lr sign(b1 m + (1 - b1) g);  m = b2 m + (1 - b2) g
    LAMB       r = m^ / (sqrt(v^) + eps) + wd p;  p -= lr |p| / |r| r   (the quotient is 1 where a norm is 0)

Sources: Tieleman & Hinton 2012, Lecture 6.5 of Neural Networks for Machine Learning, and Graves 2013,
https://arxiv.org/abs/1308.0850 (centered); Duchi et al. 2011, https://jmlr.org/papers/v12/duchi11a.html; Zeiler 2012,
https://arxiv.org/abs/1212.5701; Kingma & Ba 2015, https://arxiv.org/abs/1412.6980 (Adamax); Dozat 2016,
https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ; Chen et al. 2023, https://arxiv.org/abs/2302.06675; You et al. 2020,
https://arxiv.org/abs/1904.00962.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.autograd.modes import no_grad
from keydnn.autograd.primitive import bind
from keydnn.ops import inplace
from keydnn.optim.optimizer import DEFAULT_LR, Optimizer, at_least_zero, fraction, positive


def _blend(running: Tensor, new: Tensor, share: float) -> None:
    """``running = share * running + (1 - share) * new``, in place."""
    bind(inplace.mul_, (running,), {"c": share})
    bind(inplace.add_, (running, new * (1.0 - share)))


class _Composed(Optimizer):
    """Base: names of the slots, and checks of settings by name."""

    _slots: tuple[str, ...] = ()
    _counts = False

    def _checked(self, options: dict[str, Any]) -> dict[str, Any]:
        checked: dict[str, Any] = {}
        for name, value in options.items():
            if name == "betas":
                if not isinstance(value, tuple | list) or len(value) != 2:
                    raise ValueError(f"{self._name}: betas must be a pair of numbers, got {value!r}")
                checked["betas"] = tuple(fraction(self._name, f"beta{i + 1}", beta) for i, beta in enumerate(value))
            elif isinstance(value, bool):
                checked[name] = value
            else:
                checked[name] = _CHECKS[name](self._name, name, value)
        return checked

    def _public(self, options: dict[str, Any]) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}

    def _new_slots(self, p: Tensor, options: dict[str, Any]) -> dict[str, Tensor]:
        slots = {name: Tensor(p.shape, p.device, dtype=p.dtype) for name in self._slots}
        return slots | ({"t": Tensor((), p.device, dtype=np.float64)} if self._counts else {})

    @no_grad()
    def _update(self, p: Tensor, g: Tensor, slots: dict[str, Tensor], rate: Tensor, options: dict[str, Any]) -> None:
        if self._counts:
            bind(inplace.add_, (slots["t"],), {"c": 1.0})
        self._move(p, g, slots, rate.astype(p.dtype), options)

    def _move(self, p: Tensor, g: Tensor, s: dict[str, Tensor], lr: Tensor, o: dict[str, Any]) -> None:
        """The formula."""
        raise NotImplementedError


_CHECKS = {
    "alpha": fraction,
    "rho": fraction,
    "eps": positive,
    "weight_decay": at_least_zero,
    "momentum": at_least_zero,
    "initial": at_least_zero,
}


def _with_decay(p: Tensor, g: Tensor, o: dict[str, Any]) -> Tensor:
    return g + p * o["weight_decay"] if o["weight_decay"] else g


def _subtract(p: Tensor, step: Tensor) -> None:
    bind(inplace.sub_, (p, step))


def _unbias(share: float, t: Tensor, dtype: Any) -> Tensor:
    """``1 - share ** t`` in ``dtype``, computed in float64."""
    return (1.0 - share**t).astype(dtype)


class RMSprop(_Composed):
    """RMSprop; formula and sources stand at the head of this module.

    Args:
        params: Iterable of parameters, or of groups (dicts with ``params`` and their own settings).
        lr: Learning rate, above 0.
        alpha: Share of the running mean of squares that stays, between 0 and 1.
        eps: Added to the denominator, above 0.
        weight_decay: L2 penalty, at least 0.
        momentum: Share of the velocity that stays, at least 0.
        centered: Whether to divide by the standard deviation instead of the root mean square.
        learning_rate: Another name for ``lr``.

    Raises:
        ValueError: A setting is out of range.
        TypeError: A parameter is no Tensor.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = DEFAULT_LR,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        learning_rate: float | None = None,
    ) -> None:
        options = {"alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum, "centered": bool(centered)}
        super().__init__(params, lr, learning_rate, options)

    def _new_slots(self, p: Tensor, options: dict[str, Any]) -> dict[str, Tensor]:
        names = ["v", *["m"] * options["centered"], *["velocity"] * (options["momentum"] > 0)]
        return {name: Tensor(p.shape, p.device, dtype=p.dtype) for name in names}

    def _move(self, p: Tensor, g: Tensor, s: dict[str, Tensor], lr: Tensor, o: dict[str, Any]) -> None:
        g = _with_decay(p, g, o)
        _blend(s["v"], g * g, o["alpha"])
        square = s["v"]
        if o["centered"]:
            _blend(s["m"], g, o["alpha"])
            square = square - s["m"] * s["m"]
        step = g / (square.sqrt() + o["eps"])
        if o["momentum"]:
            bind(inplace.mul_, (s["velocity"],), {"c": o["momentum"]})
            bind(inplace.add_, (s["velocity"], step))
            step = s["velocity"]
        _subtract(p, step * lr)


class Adagrad(_Composed):
    """Adagrad; formula and source stand at the head of this module.

    Args:
        params: Iterable of parameters, or of groups (dicts with ``params`` and their own settings).
        lr: Learning rate, above 0.
        eps: Added to the denominator, above 0.
        weight_decay: L2 penalty, at least 0.
        initial: What the sum of squares starts from, at least 0.
        learning_rate: Another name for ``lr``.

    Raises:
        ValueError: A setting is out of range.
        TypeError: A parameter is no Tensor.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = DEFAULT_LR,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        initial: float = 0.0,
        learning_rate: float | None = None,
    ) -> None:
        super().__init__(params, lr, learning_rate, {"eps": eps, "weight_decay": weight_decay, "initial": initial})

    def _new_slots(self, p: Tensor, options: dict[str, Any]) -> dict[str, Tensor]:
        return {"sum": Tensor.full(p.shape, options["initial"], device=p.device, dtype=p.dtype)}

    def _move(self, p: Tensor, g: Tensor, s: dict[str, Tensor], lr: Tensor, o: dict[str, Any]) -> None:
        g = _with_decay(p, g, o)
        bind(inplace.add_, (s["sum"], g * g))
        _subtract(p, g / (s["sum"].sqrt() + o["eps"]) * lr)


class Adadelta(_Composed):
    """Adadelta; formula and source stand at the head of this module.  The paper has no rate: that is ``lr=1.0``.

    Args:
        params: Iterable of parameters, or of groups (dicts with ``params`` and their own settings).
        lr: Learning rate, above 0.
        rho: Share of both running means that stays, between 0 and 1.
        eps: Added under both roots, above 0.
        weight_decay: L2 penalty, at least 0.
        learning_rate: Another name for ``lr``.

    Raises:
        ValueError: A setting is out of range.
        TypeError: A parameter is no Tensor.
    """

    _slots = ("v", "u")

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = DEFAULT_LR,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        learning_rate: float | None = None,
    ) -> None:
        super().__init__(params, lr, learning_rate, {"rho": rho, "eps": eps, "weight_decay": weight_decay})

    def _move(self, p: Tensor, g: Tensor, s: dict[str, Tensor], lr: Tensor, o: dict[str, Any]) -> None:
        g = _with_decay(p, g, o)
        _blend(s["v"], g * g, o["rho"])
        step = (s["u"] + o["eps"]).sqrt() / (s["v"] + o["eps"]).sqrt() * g
        _blend(s["u"], step * step, o["rho"])
        _subtract(p, step * lr)


class _WithBetas(_Composed):
    """Rules with two running means and the step count."""

    _slots = ("m", "v")
    _counts = True

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


class Adamax(_WithBetas):
    """Adamax, Adam by the largest gradient; formula and source stand at the head of this module.

    Args:
        params: Iterable of parameters, or of groups (dicts with ``params`` and their own settings).
        lr: Learning rate, above 0.
        betas: Shares of the running mean and of the running maximum that stay, each between 0 and 1.
        eps: Added to the absolute gradient, above 0.
        weight_decay: L2 penalty, at least 0.
        learning_rate: Another name for ``lr``.

    Raises:
        ValueError: A setting is out of range.
        TypeError: A parameter is no Tensor.
    """

    def _move(self, p: Tensor, g: Tensor, s: dict[str, Tensor], lr: Tensor, o: dict[str, Any]) -> None:
        g = _with_decay(p, g, o)
        _blend(s["m"], g, o["betas"][0])
        bind(inplace.assign_, (s["v"], ops.maximum(s["v"] * o["betas"][1], g.abs() + o["eps"])))
        _subtract(p, s["m"] / s["v"] * (lr / _unbias(o["betas"][0], s["t"], p.dtype)))


class NAdam(_WithBetas):
    """NAdam, Adam with a look ahead along the momentum; formula and source stand at the head of this module.

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
    """

    def _new_slots(self, p: Tensor, options: dict[str, Any]) -> dict[str, Tensor]:
        return super()._new_slots(p, options) | {"product": Tensor.ones((), device=p.device, dtype=np.float64)}

    def _move(self, p: Tensor, g: Tensor, s: dict[str, Tensor], lr: Tensor, o: dict[str, Any]) -> None:
        (b1, b2), t, product = o["betas"], s["t"], s["product"]
        g = _with_decay(p, g, o)
        _blend(s["m"], g, b1)
        _blend(s["v"], g * g, b2)
        now, following = ((1.0 - 0.5 * 0.96 ** (count * 0.004)) * b1 for count in (t, t + 1.0))
        bind(inplace.mul_, (product, now))
        by_gradient = ((1.0 - now) / (1.0 - product)).astype(p.dtype)
        by_mean = (following / (1.0 - product * following)).astype(p.dtype)
        root = (s["v"] / _unbias(b2, t, p.dtype)).sqrt() + o["eps"]
        _subtract(p, (g * by_gradient + s["m"] * by_mean) / root * lr)


class LAMB(_WithBetas):
    """LAMB, Adam with a rate per parameter tensor; formula and source stand at the head of this module.

    Args:
        params: Iterable of parameters, or of groups (dicts with ``params`` and their own settings).
        lr: Learning rate, above 0.
        betas: Shares of the running means that stay, each between 0 and 1.
        eps: Added to the denominator, above 0.
        weight_decay: Share of the parameter added to the direction, at least 0.
        learning_rate: Another name for ``lr``.

    Raises:
        ValueError: A setting is out of range.
        TypeError: A parameter is no Tensor.
    """

    def _move(self, p: Tensor, g: Tensor, s: dict[str, Tensor], lr: Tensor, o: dict[str, Any]) -> None:
        (b1, b2), t = o["betas"], s["t"]
        _blend(s["m"], g, b1)
        _blend(s["v"], g * g, b2)
        root = (s["v"] / _unbias(b2, t, p.dtype)).sqrt() + o["eps"]
        step = s["m"] / _unbias(b1, t, p.dtype) / root + p * o["weight_decay"]
        weight, length = ops.norm(p), ops.norm(step)
        quotient = weight / ops.where(length > 0, length, 1.0)
        _subtract(p, step * (ops.where((weight > 0) * (length > 0), quotient, 1.0) * lr))


class Lion(_Composed):
    """Lion, the sign of a running mean; formula and source stand at the head of this module.

    Args:
        params: Iterable of parameters, or of groups (dicts with ``params`` and their own settings).
        lr: Learning rate, above 0.
        betas: Shares of the mean that stay: in the direction, and in what is kept; each between 0 and 1.
        weight_decay: Share of each parameter that ``lr = 1`` would take away per step, at least 0.
        learning_rate: Another name for ``lr``.

    Raises:
        ValueError: A setting is out of range.
        TypeError: A parameter is no Tensor.
    """

    _slots = ("m",)

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = DEFAULT_LR,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        learning_rate: float | None = None,
    ) -> None:
        super().__init__(params, lr, learning_rate, {"betas": betas, "weight_decay": weight_decay})

    def _move(self, p: Tensor, g: Tensor, s: dict[str, Tensor], lr: Tensor, o: dict[str, Any]) -> None:
        b1, b2 = o["betas"]
        step = (s["m"] * b1 + g * (1.0 - b1)).sign()
        if o["weight_decay"]:
            step = step + p * o["weight_decay"]
        _subtract(p, step * lr)
        _blend(s["m"], g, b2)
