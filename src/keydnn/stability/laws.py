"""The controllers of `keydnn.stability.controllers` as operations of the engine, for recorded steps.

The same formulas on tensors of shape () and float64, written so that each rounds as its counterpart on Python numbers does.
`State` is what the sensor and the controller carry from step to step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.ops import where
from keydnn.ops.inplace import assign_
from keydnn.stability import controllers as c


def scalar(value: float) -> Tensor:
    """A float64 tensor of shape ()."""
    return Tensor.full((), value, dtype=np.float64)


def larger(a: Any, b: Any) -> Any:
    """``max(a, b)`` of Python: b if b > a, else a."""
    return max(a, b) if not (isinstance(a, Tensor) or isinstance(b, Tensor)) else where(_above(b, a), b, a)


def smaller(a: Any, b: Any) -> Any:
    """``min(a, b)`` of Python: b if b < a, else a."""
    return min(a, b) if not (isinstance(a, Tensor) or isinstance(b, Tensor)) else where(_above(a, b), b, a)


def _above(a: Any, b: Any) -> Any:
    return a > b if isinstance(a, Tensor) else b < a


class State:
    """Sensor and controller between steps.

    Args:
        size: Number of parameters.
    """

    _NUMBERS = ("is_started", "curvature", "average", "d_theta", "d_gradient", "alpha", "velocity")

    def __init__(self, size: int) -> None:
        self.theta, self.gradient = (Tensor(data=np.zeros(size), dtype=np.float64) for _ in range(2))
        self.is_started, self.curvature, self.average, self.d_theta, self.d_gradient, self.alpha, self.velocity = (
            scalar(0.0) for _ in self._NUMBERS
        )

    def tensors(self) -> list[Tensor]:
        """All of it."""
        return [self.theta, self.gradient, *(getattr(self, name) for name in self._NUMBERS)]

    def take(self, sensor: c.CurvatureSensor, controller: c.BaseController) -> None:
        """Copy what the objects know."""
        is_started = sensor.theta is not None and sensor.gradient is not None
        if is_started:
            self.theta.copy_from_numpy(sensor.theta)
            self.gradient.copy_from_numpy(sensor.gradient)
        known = {"is_started": float(is_started), "velocity": 0.0, "alpha": 1.0} | vars(sensor) | vars(controller)
        for name in self._NUMBERS:
            getattr(self, name).fill(float(known[name]))

    def give(self, sensor: c.CurvatureSensor, controller: c.BaseController) -> None:
        """Copy it back."""
        if self.is_started.item():
            sensor.theta, sensor.gradient = self.theta.numpy().copy(), self.gradient.numpy().copy()
        for owner, names in ((sensor, self._NUMBERS[1:5]), (controller, self._NUMBERS[5:])):
            for name in names:
                if name in vars(owner):
                    setattr(owner, name, getattr(self, name).item())

    def sense(self, sensor: c.CurvatureSensor, theta: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`CurvatureSensor.update`: C, S, and 1 where C was measured now."""
        step, change = theta - self.theta, gradient - self.gradient
        d_theta, d_gradient = (step * step).sum().sqrt(), (change * change).sum().sqrt()
        valid = (d_theta > 0.0) * self.is_started
        measured = valid if sensor.on_zero_step == "hold" else self.is_started
        curvature = where(measured, d_gradient / (d_theta + sensor.eps), self.curvature)
        average = where(measured, self.average * (1.0 - sensor.rho) + curvature * sensor.rho, self.average)
        assign_(self.d_theta, where(self.is_started, d_theta, self.d_theta))
        assign_(self.d_gradient, where(self.is_started, d_gradient, self.d_gradient))
        assign_(self.curvature, curvature)
        assign_(self.average, average)
        assign_(self.theta, theta)
        assign_(self.gradient, gradient)
        assign_(self.is_started, scalar(1.0))
        return curvature, average, valid


@dataclass
class Decision:
    """`keydnn.stability.controllers.ControllerStep` with tensors, or with arrays of one entry per step, for numbers."""

    alpha: Any
    alpha_would: Any
    curvature_for_control: Any
    alpha_min: Any
    alpha_max: Any
    feasible: Any


def control(controller: Any, state: State, eta: float, curvature: Tensor, average: Tensor, grad_norm: Tensor, quantum: float) -> Decision:
    """`BaseController.step`."""
    chosen = larger(curvature, average) if controller.use_ema_max else curvature
    quotient = controller.chi / ((chosen + controller.eps) * eta)
    would = where(chosen <= controller.eps, 1.0, quotient)
    would = would.clamp(min=controller.alpha_min, max=controller.alpha_max)
    would = where(chosen == chosen, would, chosen)
    low, high, feasible = controller.alpha_min, controller.alpha_max, 1.0
    if type(controller) is c.QuantizationAwareOrder2Controller:
        useful = quantum / (grad_norm * eta + controller.eps) if quantum else 0.0
        low, high = larger(controller.alpha_min, useful), smaller(controller.alpha_max, would)
        feasible = (high >= low) if isinstance(low, float) else (low <= high)
        low = smaller(low, high)
    if controller.law == "division_free":
        would = _candidate(controller, state, eta)
    alpha = LAWS[type(controller)](controller, state, eta, chosen, would, low, high, average)
    return Decision(alpha, would, chosen, low, high, feasible)


def _candidate(controller: Any, state: State, eta: float) -> Any:
    limit = (state.d_theta * state.d_theta + controller.eps * controller.eps) * (controller.chi * controller.chi)
    found: Any = scalar(controller.alpha_min)
    for a in reversed(controller._candidates):
        fits = state.d_gradient * (a * a * eta * eta) * state.d_gradient <= limit
        found = where(fits, controller._clipped(a), found)
    return found


def _none(controller: Any, state: State, eta: float, chosen: Any, would: Any, low: Any, high: Any, average: Any) -> Any:
    return scalar(1.0)


def _order0(controller: Any, state: State, eta: float, chosen: Any, would: Any, low: Any, high: Any, average: Any) -> Any:
    return would


def _order1(controller: Any, state: State, eta: float, chosen: Any, would: Any, low: Any, high: Any, average: Any) -> Any:
    error = would - state.alpha if controller.law == "division_free" else controller.chi - state.alpha * eta * chosen
    alpha = (state.alpha + error * controller.k_alpha).clamp(min=controller.alpha_min, max=controller.alpha_max)
    assign_(state.alpha, alpha)
    return alpha


def _order2(controller: Any, state: State, eta: float, chosen: Any, would: Any, low: Any, high: Any, average: Any) -> Any:
    velocity = state.velocity * controller.beta + (controller.chi - state.alpha * eta * chosen) * controller.k_alpha
    free = state.alpha + velocity
    alpha = smaller(larger(free, low), high)
    if controller.anti_windup:
        velocity = where((free - alpha) * velocity > 0.0, 0.0, velocity)
    assign_(state.velocity, velocity)
    assign_(state.alpha, alpha)
    return alpha


def _rational(controller: Any, state: State, eta: float, chosen: Any, would: Any, low: Any, high: Any, average: Any) -> Any:
    return (1.0 / (average * controller.beta + 1.0)).clamp(min=controller.alpha_min, max=1.0)


Law = Callable[[Any, State, float, Any, Any, Any, Any, Any], Any]
LAWS: dict[type, Law] = {
    c.NoController: _none,
    c.GlobalThrottleOrder0Controller: _order0,
    c.GlobalThrottleOrder1Controller: _order1,
    c.GlobalThrottleOrder2Controller: _order2,
    c.QuantizationAwareOrder2Controller: _order2,
    c.RationalThrottleController: _rational,
}
