"""Update rules as objects, and the curvature up to which each is stable.

    rule                                          proposal                                     stable while lambda is below
    SGD                                           -eta g                                       2 / eta
    Polyak      v <- beta v - eta g               v                                            2 (1 + beta) / eta
    Nesterov    the same v                        beta v - eta g                               2 (1 + beta) / (eta (1 + 2 beta))
    EMA         m <- beta m + (1 - beta) g        -eta m                                       2 (1 + beta) / (eta (1 - beta))
    Adam        P = diag(sqrt(vhat) + eps)        -eta mhat / P                                the same for P^-1 H (beta1)
    RMSProp     P = diag(sqrt(v) + eps)           -eta g / P                                   2 / eta for P^-1 H

Source: Polyak 1964; Cohen et al. 2021, arXiv:2103.00065, appendix B (the limits); Cohen et al. 2022, arXiv:2207.14484 (Adam).
State is kept in float64 unless a format is given for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Store = Callable[[str, int, np.ndarray], np.ndarray]  # (field, index of the parameter, exact state) -> stored state


def exact(field: str, i: int, state: np.ndarray) -> np.ndarray:
    """The state as it is."""
    return state


class UpdateRule(ABC):
    """From gradients to proposed changes of the parameters.

    Args:
        learning_rate: eta; None takes that of the run.
    """

    fields: tuple[str, ...] = ()  # names of its states, as a precision map calls them

    def __init__(self, learning_rate: float | None = None) -> None:
        if learning_rate is not None and not learning_rate > 0:
            raise ValueError(f"{type(self).__name__}: learning_rate must be above 0, got {learning_rate}")
        self.learning_rate = learning_rate
        self.store: Store = exact
        self.reset()

    def reset(self) -> None:
        """Forget all state."""
        self.state: dict[str, list[np.ndarray]] = {}
        self.steps = 0

    @abstractmethod
    def propose(self, grads: Sequence[np.ndarray], params: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What to add to each parameter, in float64; the state moves."""

    def preconditioner(self) -> list[np.ndarray] | None:
        """P of the present state, one array per parameter; None for rules without."""
        return None

    def frozen(self) -> UpdateRule:
        """The rule itself; for rules with a preconditioner, a copy that no longer moves it."""
        return self

    def state_dict(self) -> dict[str, Any]:
        """The state, copied."""
        return {"steps": self.steps, "state": {field: [a.copy() for a in arrays] for field, arrays in self.state.items()}}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Carry on from what `state_dict` gave."""
        self.steps = saved["steps"]
        self.state = {field: [a.copy() for a in arrays] for field, arrays in saved["state"].items()}

    @property
    def eta(self) -> float:
        """The learning rate.

        Raises:
            ValueError: There is none.
        """
        if self.learning_rate is None:
            raise ValueError(f"{type(self).__name__}: no learning rate; give learning_rate=, or use the rule in a run")
        return self.learning_rate

    def _moved(self, field: str, grads: Sequence[np.ndarray], move: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> list[np.ndarray]:
        old = self.state.get(field) or [np.zeros(g.shape) for g in grads]
        self.state[field] = [self.store(field, i, move(s, g.astype(np.float64))) for i, (s, g) in enumerate(zip(old, grads, strict=True))]
        return self.state[field]

    def __repr__(self) -> str:
        shown = {key: value for key, value in vars(self).items() if key not in ("state", "steps", "store") and key[0] != "_"}
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in shown.items())})"


class SGDRule(UpdateRule):
    """``-eta g``."""

    def propose(self, grads: Sequence[np.ndarray], params: Sequence[np.ndarray]) -> list[np.ndarray]:
        """-eta g."""
        return [-self.eta * g.astype(np.float64) for g in grads]


class MomentumRule(UpdateRule):
    """Momentum; state ``momentum``.

    Args:
        beta: Share of the velocity that stays, in [0, 1).
        nesterov: Whether to look ahead.
        ema: Whether the state is a mean of gradients, ``m <- beta m + (1 - beta) g``, instead of a velocity.
        learning_rate: eta; None takes that of the run.

    Raises:
        ValueError: beta out of range, or nesterov and ema together.
    """

    fields = ("momentum",)

    def __init__(self, beta: float = 0.9, nesterov: bool = False, ema: bool = False, learning_rate: float | None = None) -> None:
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"MomentumRule: beta must be in [0, 1), got {beta}")
        if nesterov and ema:
            raise ValueError("MomentumRule: nesterov and ema exclude each other")
        self.beta, self.nesterov, self.ema = float(beta), bool(nesterov), bool(ema)
        super().__init__(learning_rate)

    def propose(self, grads: Sequence[np.ndarray], params: Sequence[np.ndarray]) -> list[np.ndarray]:
        """v, beta v - eta g, or -eta m."""
        beta, eta = self.beta, self.eta
        if self.ema:
            return [-eta * m for m in self._moved("momentum", grads, lambda m, g: beta * m + (1.0 - beta) * g)]
        v = self._moved("momentum", grads, lambda v, g: beta * v - eta * g)
        return [beta * s - eta * g.astype(np.float64) for s, g in zip(v, grads, strict=True)] if self.nesterov else [s.copy() for s in v]


class AdamRule(UpdateRule):
    """Adam with bias correction; states ``adam_m`` and ``adam_v``.

    Args:
        beta1: Share of the mean that stays, in [0, 1).
        beta2: Share of the mean square that stays, in [0, 1).
        eps: Added to the square root.
        learning_rate: eta; None takes that of the run.

    Raises:
        ValueError: A share out of range.
    """

    fields = ("adam_m", "adam_v")

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, learning_rate: float | None = None) -> None:
        if not (0.0 <= beta1 < 1.0 and 0.0 <= beta2 < 1.0):
            raise ValueError(f"AdamRule: beta1 and beta2 must be in [0, 1), got {beta1} and {beta2}")
        self.beta1, self.beta2, self.eps = float(beta1), float(beta2), float(eps)
        super().__init__(learning_rate)

    def reset(self) -> None:
        """Forget all state."""
        super().reset()
        self._fixed: list[np.ndarray] | None = None

    def propose(self, grads: Sequence[np.ndarray], params: Sequence[np.ndarray]) -> list[np.ndarray]:
        """-eta mhat / (sqrt(vhat) + eps); with a frozen preconditioner -eta m / P."""
        self.steps += 1
        b1, b2 = self.beta1, self.beta2
        m = self._moved("adam_m", grads, lambda m, g: b1 * m + (1.0 - b1) * g)
        if self._fixed is not None:
            return [-self.eta * a / p for a, p in zip(m, self._fixed, strict=True)]
        self._moved("adam_v", grads, lambda v, g: b2 * v + (1.0 - b2) * g * g)
        correction = 1.0 - b1**self.steps
        return [-self.eta * (a / correction) / p for a, p in zip(m, self.preconditioner() or (), strict=True)]

    def preconditioner(self) -> list[np.ndarray] | None:
        """``sqrt(vhat) + eps``; None before the first step."""
        if self._fixed is not None or not self.steps:
            return self._fixed
        correction = 1.0 - self.beta2**self.steps
        return [np.sqrt(np.maximum(v, 0.0) / correction) + self.eps for v in self.state["adam_v"]]

    def frozen(self) -> AdamRule:
        """A copy that keeps the present preconditioner and starts with m = 0."""
        copy = AdamRule(self.beta1, self.beta2, self.eps, self.learning_rate)
        copy._fixed = self.preconditioner()
        return copy


class RMSPropRule(UpdateRule):
    """``-eta g / (sqrt(v) + eps)`` with ``v <- rho v + (1 - rho) g^2``; state ``optimizer_state``.

    Args:
        rho: Share of v that stays, in [0, 1).
        eps: Added to the square root.
        learning_rate: eta; None takes that of the run.
    """

    fields = ("optimizer_state",)

    def __init__(self, rho: float = 0.9, eps: float = 1e-8, learning_rate: float | None = None) -> None:
        if not 0.0 <= rho < 1.0:
            raise ValueError(f"RMSPropRule: rho must be in [0, 1), got {rho}")
        self.rho, self.eps = float(rho), float(eps)
        super().__init__(learning_rate)

    def propose(self, grads: Sequence[np.ndarray], params: Sequence[np.ndarray]) -> list[np.ndarray]:
        """-eta g / P."""
        self._moved("optimizer_state", grads, lambda v, g: self.rho * v + (1.0 - self.rho) * g * g)
        return [-self.eta * g.astype(np.float64) / p for g, p in zip(grads, self.preconditioner() or (), strict=True)]

    def preconditioner(self) -> list[np.ndarray] | None:
        """``sqrt(v) + eps``; None before the first step."""
        return [np.sqrt(np.maximum(v, 0.0)) + self.eps for v in self.state["optimizer_state"]] if self.state else None


KNOWN_LIMITS = (SGDRule, MomentumRule, AdamRule, RMSPropRule)


def stability_limit(rule: UpdateRule | None, learning_rate: float | None = None) -> float:
    """The curvature below which a rule converges on a quadratic; for Adam and RMSProp that of ``P^-1 H``.

    Args:
        rule: None is SGD.
        learning_rate: eta; None takes the rule's.

    Raises:
        TypeError: A rule whose limit is not known.
        ValueError: No learning rate.

    Example:
        >>> from keydnn.stability import AdamRule, MomentumRule, stability_limit
        >>> stability_limit(None, 0.5), stability_limit(MomentumRule(0.5), 0.5), round(stability_limit(AdamRule(), 1.0), 9)
        (4.0, 6.0, 38.0)
    """
    rule = SGDRule(learning_rate) if rule is None else rule
    eta = rule.eta if learning_rate is None else learning_rate
    if isinstance(rule, SGDRule | RMSPropRule):
        return 2.0 / eta
    if isinstance(rule, AdamRule):
        return 2.0 * (1.0 + rule.beta1) / (eta * (1.0 - rule.beta1))
    if isinstance(rule, MomentumRule):
        share = 1.0 - rule.beta if rule.ema else 1.0 + 2.0 * rule.beta if rule.nesterov else 1.0
        return 2.0 * (1.0 + rule.beta) / (eta * share)
    raise TypeError(f"stability_limit: the limit of {type(rule).__name__} is not known")
