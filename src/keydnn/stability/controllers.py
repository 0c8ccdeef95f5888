"""The curvature sensor, and controllers that throttle the learning rate: ``eta_eff = alpha * eta``.

    C_t = ||G_t - G_(t-1)|| / (||theta_t - theta_(t-1)|| + eps)      S_t = (1 - rho) S_(t-1) + rho C_t     C_ctrl = max(C_t, S_t)
    alpha_would = 1 if C_ctrl <= eps else chi / (eta (C_ctrl + eps)), clipped to [alpha_min, alpha_max]

For a quadratic loss on one batch C is a curvature along the last step, ``lambda_min <= C <= lambda_max``: it never over-estimates,
so directions orthogonal to the last step can be under-protected.  A change of the data between two steps enters G and makes C
large for one step, in which the throttle reacts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn.stability.norms import norm

CANDIDATES = (1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.1875, 0.125, 0.0625, 0.03125)
LAWS = ("standard", "division_free")


class CurvatureSensor:
    """Curvature along the last step, and its moving average.

    Args:
        rho: Weight of the newest value in the average, in [0, 1].
        eps: Added to the length of the step.
        on_zero_step: After a step of length 0 the quotient says nothing: ``"hold"`` keeps the last valid value (and
            reports it as invalid); ``"formula"`` evaluates it all the same.

    Raises:
        ValueError: An argument out of range.
    """

    def __init__(self, rho: float = 0.05, eps: float = 1e-12, on_zero_step: str = "hold") -> None:
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"CurvatureSensor: rho must be in [0, 1], got {rho}")
        if on_zero_step not in ("hold", "formula"):
            raise ValueError(f"CurvatureSensor: on_zero_step must be 'hold' or 'formula', got {on_zero_step!r}")
        self.rho, self.eps, self.on_zero_step = float(rho), float(eps), on_zero_step
        self.reset()

    def reset(self) -> None:
        """Forget everything; the next value is 0."""
        self.theta: np.ndarray | None = None
        self.gradient: np.ndarray | None = None
        self.curvature, self.average = 0.0, 0.0
        self.d_gradient, self.d_theta = 0.0, 0.0

    def update(self, theta: np.ndarray, G: np.ndarray) -> tuple[float, float, bool]:
        """Take the parameters before a step and the gradient there.

        Returns:
            C, S, and whether C was measured now (False at the first step and after a step of length 0).
        """
        last_theta, last_gradient = self.theta, self.gradient
        self.theta, self.gradient = np.array(theta, np.float64), np.array(G, np.float64)
        if last_theta is None or last_gradient is None:
            return self.curvature, self.average, False
        step, change = self.theta - last_theta, self.gradient - last_gradient
        self.d_theta, self.d_gradient = norm(step), norm(change)
        is_valid = self.d_theta > 0.0
        if not is_valid and self.on_zero_step == "hold":
            return self.curvature, self.average, False
        self.curvature = self.d_gradient / (self.d_theta + self.eps)
        self.average = (1.0 - self.rho) * self.average + self.rho * self.curvature
        return self.curvature, self.average, is_valid

    def get_state(self) -> dict[str, Any]:
        """What `set_state` needs to carry on."""
        return {"theta": self.theta, "gradient": self.gradient, "curvature": self.curvature, "average": self.average}

    def set_state(self, state: dict[str, Any]) -> None:
        """Carry on from a state."""
        self.theta, self.gradient = state["theta"], state["gradient"]
        self.curvature, self.average = state["curvature"], state["average"]


@dataclass(frozen=True)
class ControllerStep:
    """What a controller decided."""

    alpha: float
    alpha_would: float
    curvature_for_control: float
    eta_eff: float
    alpha_min: float
    alpha_max: float
    feasible: bool


class BaseController:
    """What all controllers share: their settings and the law of order 0.

    Args:
        chi: Target of ``alpha * eta * C``.
        eps: Guard of the quotients.
        curvature_ema_rho: Weight of the newest curvature in the sensor's average.
        alpha_min: Smallest factor.
        alpha_max: Largest factor.
        use_ema_max: Whether to control by max(C, S) instead of C.
        name: Shown in the repr; None is the identifier.

    Raises:
        ValueError: ``chi`` is not above 0, or the bounds are not ``0 <= alpha_min <= alpha_max``.
    """

    controller_id = "CTRL-BASE"
    direction_preserving = True
    law = "standard"

    def __init__(
        self,
        *,
        chi: float = 1.5,
        eps: float = 1e-12,
        curvature_ema_rho: float = 0.05,
        alpha_min: float = 0.0,
        alpha_max: float = 1.0,
        use_ema_max: bool = True,
        name: str | None = None,
    ) -> None:
        if not chi > 0.0:
            raise ValueError(f"{type(self).__name__}: chi must be above 0, got {chi}")
        if not 0.0 <= alpha_min <= alpha_max:
            raise ValueError(f"{type(self).__name__}: needs 0 <= alpha_min <= alpha_max, got {alpha_min} and {alpha_max}")
        self.chi, self.eps, self.curvature_ema_rho = float(chi), float(eps), float(curvature_ema_rho)
        self.alpha_min, self.alpha_max, self.use_ema_max = float(alpha_min), float(alpha_max), bool(use_ema_max)
        self.name = self.controller_id if name is None else name
        self.reset()

    def reset(self) -> None:
        """Return to the state of a new controller."""

    def get_state(self) -> dict[str, float]:
        """The state, for carrying on in another call."""
        return {key: getattr(self, key) for key in ("alpha", "velocity", "ratio") if key in vars(self)}

    def set_state(self, state: dict[str, float]) -> None:
        """Carry on from a state."""
        vars(self).update(state)

    def step(
        self,
        *,
        learning_rate: float,
        curvature_proxy: float,
        curvature_ema: float,
        grad_norm: float | None = None,
        update_quantum: float | None = None,
        sensor: CurvatureSensor | None = None,
    ) -> ControllerStep:
        """The factor for this step.

        Args:
            learning_rate: eta.
            curvature_proxy: C.
            curvature_ema: S.
            grad_norm: ``||G||``, for controllers that keep updates representable.
            update_quantum: Largest quantum of the update formats; None or 0 is none.
            sensor: Where the division-free laws read ``||dG||`` and ``||dtheta||``; None takes them as C and 1.
        """
        curvature = max(curvature_proxy, curvature_ema) if self.use_ema_max else curvature_proxy
        would = self.alpha_would(learning_rate, curvature)
        low, high, feasible = self._bounds(learning_rate, would, grad_norm, update_quantum)
        if self.law == "division_free":
            would = self._candidate(learning_rate, curvature_proxy, sensor)
        alpha = self._law(learning_rate, curvature, would, low, high)
        return ControllerStep(alpha, would, curvature, alpha * learning_rate, low, high, feasible)

    def alpha_would(self, learning_rate: float, curvature: float) -> float:
        """The law of order 0."""
        if curvature != curvature:
            return curvature
        free = 1.0 if curvature <= self.eps else self.chi / (learning_rate * (curvature + self.eps))
        return self._clipped(free)

    def _clipped(self, alpha: float) -> float:
        return min(max(alpha, self.alpha_min), self.alpha_max)

    def _bounds(self, eta: float, would: float, grad_norm: float | None, quantum: float | None) -> tuple[float, float, bool]:
        return self.alpha_min, self.alpha_max, True

    def _law(self, eta: float, curvature: float, would: float, low: float, high: float) -> float:
        raise NotImplementedError(f"{type(self).__name__} has no law; use one of {', '.join(_REGISTRY)}")

    _candidates: Sequence[float] = CANDIDATES

    def _candidate(self, eta: float, curvature_proxy: float, sensor: CurvatureSensor | None) -> float:
        """The largest a with ``a^2 eta^2 ||dG||^2 <= chi^2 (||dtheta||^2 + eps^2)``, without a division."""
        d_gradient, d_theta = (curvature_proxy, 1.0) if sensor is None else (sensor.d_gradient, sensor.d_theta)
        limit = self.chi * self.chi * (d_theta * d_theta + self.eps * self.eps)
        for a in self._candidates:
            if a * a * eta * eta * d_gradient * d_gradient <= limit:
                return self._clipped(a)
        return self.alpha_min

    def describe(self) -> str:
        """Identifier and settings on one line."""
        shown = [
            f"{key}={value!r}" for key, value in vars(self).items() if key not in ("name", "alpha", "velocity", "ratio") and key[0] != "_"
        ]
        return f"{type(self).__name__}({self.name}: {', '.join(shown)})"

    __repr__ = describe


class NoController(BaseController):
    """alpha = 1; ``alpha_would`` tells what the law of order 0 would do."""

    controller_id = "CTRL-NONE"

    def _law(self, eta: float, curvature: float, would: float, low: float, high: float) -> float:
        return 1.0


class GlobalThrottleOrder0Controller(BaseController):
    """alpha = alpha_would.

    Args:
        law: ``"standard"``, or ``"division_free"``: the largest candidate that keeps the margin, compared by squares.
        candidates: Factors that the division-free law tries, from the largest.
        settings: As for `BaseController`.
    """

    controller_id = "CTRL-GT-ORDER-0"

    def __init__(self, *, law: str = "standard", candidates: Sequence[float] = CANDIDATES, **settings: Any) -> None:
        self.law = _law_name(self, law)
        self._candidates = tuple(candidates)
        super().__init__(**settings)

    def _law(self, eta: float, curvature: float, would: float, low: float, high: float) -> float:
        return would


class GlobalThrottleOrder1Controller(BaseController):
    """An integrator of the margin: ``alpha <- clip(alpha + k_alpha (chi - eta alpha C_ctrl))``.

    For constant C it converges if ``0 < k_alpha eta C < 2``, without oscillation below 1.

    Args:
        k_alpha: Gain.
        initial_alpha: Where alpha starts.
        law: ``"standard"``, or ``"division_free"``: alpha moves towards the candidate of order 0,
            ``alpha <- clip(alpha + k_alpha (a - alpha))``.
        candidates: As for order 0.
        settings: As for `BaseController`.
    """

    controller_id = "CTRL-GT-ORDER-1"

    def __init__(
        self,
        *,
        k_alpha: float = 0.1,
        initial_alpha: float = 1.0,
        law: str = "standard",
        candidates: Sequence[float] = CANDIDATES,
        **settings: Any,
    ) -> None:
        self.k_alpha, self.initial_alpha = float(k_alpha), float(initial_alpha)
        self.law = _law_name(self, law)
        self._candidates = tuple(candidates)
        super().__init__(**settings)

    def reset(self) -> None:
        """alpha returns to ``initial_alpha``."""
        self.alpha = self.initial_alpha

    def _law(self, eta: float, curvature: float, would: float, low: float, high: float) -> float:
        error = would - self.alpha if self.law == "division_free" else self.chi - eta * self.alpha * curvature
        self.alpha = self._clipped(self.alpha + self.k_alpha * error)
        return self.alpha


class GlobalThrottleOrder2Controller(BaseController):
    """The integrator with momentum: ``v <- beta v + k_alpha (chi - eta alpha C_ctrl)``, ``alpha <- clip(alpha + v)``.

    Args:
        k_alpha: Gain.
        beta: Share of v that stays, in [0, 1).
        initial_alpha: Where alpha starts; v starts at 0.
        anti_windup: Whether v becomes 0 when alpha is clipped and v points further out.
        settings: As for `BaseController`.

    Raises:
        ValueError: beta out of range.
    """

    controller_id = "CTRL-GT-ORDER-2"

    def __init__(
        self, *, k_alpha: float = 0.1, beta: float = 0.8, initial_alpha: float = 1.0, anti_windup: bool = False, **settings: Any
    ) -> None:
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"{type(self).__name__}: beta must be in [0, 1), got {beta}")
        self.k_alpha, self.beta, self.initial_alpha, self.anti_windup = float(k_alpha), float(beta), float(initial_alpha), bool(anti_windup)
        super().__init__(**settings)

    def reset(self) -> None:
        """alpha returns to ``initial_alpha``, v to 0."""
        self.alpha, self.velocity = self.initial_alpha, 0.0

    def _law(self, eta: float, curvature: float, would: float, low: float, high: float) -> float:
        self.velocity = self.beta * self.velocity + self.k_alpha * (self.chi - eta * self.alpha * curvature)
        free = self.alpha + self.velocity
        self.alpha = min(max(free, low), high)
        if self.anti_windup and (free - self.alpha) * self.velocity > 0.0:
            self.velocity = 0.0
        return self.alpha


class QuantizationAwareOrder2Controller(GlobalThrottleOrder2Controller):
    """Order 2 projected into the interval in which steps are stable and representable.

        q_update / (eta ||G|| + eps) <= alpha <= alpha_would

    If the interval is empty the stability bound wins and the step is reported as infeasible.  The projected alpha is the
    state of the next step.  Arguments as for order 2.
    """

    controller_id = "CTRL-GT-ORDER-2-QA"

    def _bounds(self, eta: float, would: float, grad_norm: float | None, quantum: float | None) -> tuple[float, float, bool]:
        useful = quantum / (eta * grad_norm + self.eps) if quantum and grad_norm is not None else 0.0
        low, high = max(self.alpha_min, useful), min(self.alpha_max, would)
        return min(low, high), high, low <= high


class RationalThrottleController(BaseController):
    """An early form: ``alpha = clip(1 / (1 + beta S), alpha_min, 1)`` with its own slow average (decay 0.95).

    Args:
        beta: Strength.
        settings: As for `BaseController`; ``alpha_min`` is 0.01 and ``curvature_ema_rho`` 0.05 by default.
    """

    controller_id = "CTRL-GT-RATIONAL"

    def __init__(self, *, beta: float = 1.0, alpha_min: float = 0.01, **settings: Any) -> None:
        self.beta = float(beta)
        super().__init__(alpha_min=alpha_min, **settings)

    def step(self, **now: Any) -> ControllerStep:
        """As for every controller; the law uses S alone."""
        self._average = now["curvature_ema"]
        return super().step(**now)

    def _law(self, eta: float, curvature: float, would: float, low: float, high: float) -> float:
        return min(max(1.0 / (1.0 + self.beta * self._average), self.alpha_min), 1.0)


class AdGDController(BaseController):
    """Adaptive gradient descent: the throttle with ``chi = 1/2`` and a limit on how fast the step may grow.

        alpha <- clip(min(sqrt(1 + r) alpha, chi / (eta (C + eps)))),      r <- alpha / (last alpha + eps)

    On convex problems it converges for every eta.  It has no name in the registry, since those take chi from the run.
    Source: Malitsky & Mishchenko 2020, arXiv:1910.09529, algorithm 1.

    Args:
        initial_alpha: Where alpha starts; r starts at 0.
        settings: As for `BaseController`; ``chi`` is 0.5, ``use_ema_max`` False and ``alpha_min`` 1e-6 by default, so that alpha can
            grow again.
    """

    controller_id = "CTRL-ADGD"

    def __init__(
        self, *, initial_alpha: float = 1.0, chi: float = 0.5, use_ema_max: bool = False, alpha_min: float = 1e-6, **settings: Any
    ) -> None:
        self.initial_alpha = float(initial_alpha)
        super().__init__(chi=chi, use_ema_max=use_ema_max, alpha_min=alpha_min, **settings)

    def reset(self) -> None:
        """alpha returns to ``initial_alpha``, r to 0."""
        self.alpha, self.ratio = self.initial_alpha, 0.0

    def _law(self, eta: float, curvature: float, would: float, low: float, high: float) -> float:
        before = self.alpha
        self.alpha = self._clipped(min(would, math.sqrt(1.0 + self.ratio) * before))
        self.ratio = self.alpha / (before + self.eps)
        return self.alpha


def _law_name(owner: BaseController, law: str) -> str:
    if law not in LAWS:
        raise ValueError(f"{type(owner).__name__}: law must be one of {', '.join(LAWS)}, got {law!r}")
    return law


_REGISTRY: dict[str, Callable[..., BaseController]] = {
    "none": NoController,
    "gt-order-0": GlobalThrottleOrder0Controller,
    "gt-order-1": GlobalThrottleOrder1Controller,
    "gt-order-2": GlobalThrottleOrder2Controller,
    "gt-order-2-qa": QuantizationAwareOrder2Controller,
    "gt-rational": RationalThrottleController,
}


def make_controller(spec: Any = None, **settings: Any) -> BaseController:
    """A controller from its name.

    Args:
        spec: None, a controller (returned as it is), or a name, with or without ``ctrl-`` and in any case: ``none``,
            ``gt-order-0``, ``gt-order-1``, ``gt-order-2``, ``gt-order-2-qa``, ``gt-rational``.
        settings: Arguments of the controller; only with a name.

    Raises:
        ValueError: An unknown name, or settings with an object.
        TypeError: ``spec`` is none of these.

    Example:
        >>> from keydnn.stability import make_controller
        >>> make_controller("CTRL-GT-ORDER-0", chi=1.0).step(learning_rate=1.0, curvature_proxy=4.0, curvature_ema=0.5).alpha
        0.2499999999999375
    """
    if isinstance(spec, BaseController):
        if settings:
            raise ValueError(f"make_controller: {type(spec).__name__} has its settings already, got {', '.join(settings)}")
        return spec
    if spec is not None and not isinstance(spec, str):
        raise TypeError(f"make_controller: expected None, a controller or a name, got {spec!r}")
    name = "none" if spec is None else spec.strip().lower().removeprefix("ctrl-")
    if name not in _REGISTRY:
        raise ValueError(f"unknown controller {spec!r}; there are {', '.join(_REGISTRY)}")
    return _REGISTRY[name](**settings)


class Controller(BaseController):
    """Namespace of the registry."""

    from_str = staticmethod(make_controller)
    from_controller = staticmethod(make_controller)
