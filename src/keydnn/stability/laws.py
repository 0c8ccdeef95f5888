"""The controllers of `keydnn.stability.controllers` as operations of the engine, for recorded steps.

The same formulas on tensors of float64, written so that each rounds as its counterpart on Python numbers does: of shape (), or of
shape (n,) for n runs side by side, whose vectors then have shape (n, size).
`Kind` is what the form of the operations depends on, `Knobs` are the numbers, and `State` is what the sensor and the controller
carry from step to step; knobs and state are read live, so one recorded step serves all their values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.ops import where
from keydnn.ops.inplace import assign_
from keydnn.stability import controllers as c


def scalar(value: float, shape: tuple[int, ...] = ()) -> Tensor:
    """A float64 tensor of one value."""
    return Tensor.full(shape, value, dtype=np.float64)


def _by_name(rows: Iterable[dict[str, float]]) -> dict[str, np.ndarray]:
    """The values of each name, by row."""
    found = list(rows)
    return {name: np.array([float(row[name]) for row in found]) for name in found[0]}


def larger(a: Tensor, b: Tensor) -> Tensor:
    """``max(a, b)`` of Python: b if b > a, else a."""
    return where(b > a, b, a)


def smaller(a: Tensor, b: Tensor) -> Tensor:
    """``min(a, b)`` of Python: b if b < a, else a."""
    return where(b < a, b, a)


@dataclass(frozen=True)
class Kind:
    """Which law a controller follows; `of` reads it from the objects."""

    law: type
    is_division_free: bool
    candidates: tuple[float, ...]
    uses_average: bool
    anti_windup: bool
    holds: bool  # C after a step of length 0

    @classmethod
    def of(cls, controller: Any, sensor: c.CurvatureSensor) -> Kind:
        """That of a controller and a sensor."""
        is_free = controller.law == "division_free"
        return cls(
            type(controller), is_free, tuple(controller._candidates) if is_free else (), controller.use_ema_max,
            bool(vars(controller).get("anti_windup")), sensor.on_zero_step == "hold",
        )  # fmt: skip


class Knobs:
    """The numbers of a sensor, a controller and a run.

    Args:
        shape: Of each: () or (runs,).
    """

    _OWN = ("chi", "eps", "alpha_min", "alpha_max", "k_alpha", "beta")

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.eta, self.quantum, self.rho, self.sensor_eps, self.one = (scalar(1.0, shape) for _ in range(5))
        self.chi, self.eps, self.alpha_min, self.alpha_max, self.k_alpha, self.beta = (scalar(0.0, shape) for _ in self._OWN)

    def take(self, *runs: Any) -> None:
        """Set all of them, from one run or from as many as there are."""
        for name, values in _by_name(self._of(run) for run in runs).items():
            getattr(self, name).copy_from_numpy(np.reshape(values, self.one.shape))

    def _of(self, run: Any) -> dict[str, float]:
        own = {name: vars(run.controller).get(name, 0.0) for name in self._OWN}
        eta, sensor = run.settings.learning_rate, run.sensor
        return {"eta": eta, "quantum": run.update_quantum, "rho": sensor.rho, "sensor_eps": sensor.eps, **own}


class State:
    """Sensor and controller between steps.

    Args:
        size: Number of parameters.
        shape: () or (runs,).
    """

    _NUMBERS = ("is_started", "curvature", "average", "d_theta", "d_gradient", "alpha", "velocity", "ratio")

    def __init__(self, size: int, shape: tuple[int, ...] = ()) -> None:
        self.theta, self.gradient = (Tensor(data=np.zeros((*shape, size)), dtype=np.float64) for _ in range(2))
        self.is_started, self.curvature, self.average, self.d_theta, self.d_gradient, self.alpha, self.velocity, self.ratio = (
            scalar(0.0, shape) for _ in self._NUMBERS
        )

    def tensors(self) -> list[Tensor]:
        """All of it."""
        return [self.theta, self.gradient, *(getattr(self, name) for name in self._NUMBERS)]

    def take(self, *runs: Any) -> None:
        """Copy what the objects of one run know, or of as many as there are."""
        for tensor, name in ((self.theta, "theta"), (self.gradient, "gradient")):
            known = [vars(run.sensor)[name] for run in runs]
            zeros = np.zeros(tensor.shape[-1])
            tensor.copy_from_numpy(np.reshape([zeros if v is None else v for v in known], tensor.shape))
        for name, values in _by_name(self._of(run.sensor, run.controller) for run in runs).items():
            getattr(self, name).copy_from_numpy(np.reshape(values, self.alpha.shape))

    def _of(self, sensor: c.CurvatureSensor, controller: c.BaseController) -> dict[str, float]:
        is_started = sensor.theta is not None and sensor.gradient is not None
        known = {"velocity": 0.0, "alpha": 1.0, "ratio": 0.0} | vars(sensor) | vars(controller) | {"is_started": float(is_started)}
        return {name: known[name] for name in self._NUMBERS}

    def give(self, sensor: c.CurvatureSensor, controller: c.BaseController) -> None:
        """Copy it back."""
        if self.is_started.item():
            sensor.theta, sensor.gradient = self.theta.numpy().copy(), self.gradient.numpy().copy()
        for owner, names in ((sensor, self._NUMBERS[1:5]), (controller, self._NUMBERS[5:])):
            for name in names:
                if name in vars(owner):
                    setattr(owner, name, getattr(self, name).item())


def sense(kind: Kind, knobs: Knobs, state: State, theta: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`CurvatureSensor.update`: C, S, and 1 where C was measured now."""
    step, change = theta - state.theta, gradient - state.gradient
    d_theta, d_gradient = (step * step).sum(-1).sqrt(), (change * change).sum(-1).sqrt()
    valid = (d_theta > 0.0) * state.is_started
    measured = valid if kind.holds else state.is_started
    curvature = where(measured, d_gradient / (d_theta + knobs.sensor_eps), state.curvature)
    average = where(measured, (1.0 - knobs.rho) * state.average + knobs.rho * curvature, state.average)
    assign_(state.d_theta, where(state.is_started, d_theta, state.d_theta))
    assign_(state.d_gradient, where(state.is_started, d_gradient, state.d_gradient))
    assign_(state.curvature, curvature)
    assign_(state.average, average)
    assign_(state.theta, theta)
    assign_(state.gradient, gradient)
    assign_(state.is_started, knobs.one)
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


def control(kind: Kind, knobs: Knobs, state: State, curvature: Tensor, average: Tensor, grad_norm: Tensor) -> Decision:
    """`BaseController.step`."""
    k = knobs
    chosen = larger(curvature, average) if kind.uses_average else curvature
    would = where(chosen <= k.eps, 1.0, k.chi / (k.eta * (chosen + k.eps)))
    would = where(chosen == chosen, _clipped(k, would), chosen)
    low, high, feasible = k.alpha_min, k.alpha_max, k.one
    if kind.law is c.QuantizationAwareOrder2Controller:
        useful = k.quantum / (k.eta * grad_norm + k.eps)
        low, high = larger(k.alpha_min, useful), smaller(k.alpha_max, would)
        feasible = low <= high
        low = smaller(low, high)
    if kind.is_division_free:
        would = _candidate(kind, k, state)
    alpha = LAWS[kind.law](kind, k, state, chosen, would, low, high, average)
    return Decision(alpha, would, chosen, low, high, feasible)


def _clipped(k: Knobs, alpha: Tensor) -> Tensor:
    return smaller(larger(alpha, k.alpha_min), k.alpha_max)


def _candidate(kind: Kind, k: Knobs, state: State) -> Tensor:
    limit = k.chi * k.chi * (state.d_theta * state.d_theta + k.eps * k.eps)
    found = k.alpha_min
    for a in reversed(kind.candidates):
        fits = a * a * k.eta * k.eta * state.d_gradient * state.d_gradient <= limit
        found = where(fits, _clipped(k, scalar(a)), found)
    return found


def _none(kind: Kind, k: Knobs, state: State, chosen: Tensor, would: Tensor, low: Tensor, high: Tensor, average: Tensor) -> Tensor:
    return k.one


def _order0(kind: Kind, k: Knobs, state: State, chosen: Tensor, would: Tensor, low: Tensor, high: Tensor, average: Tensor) -> Tensor:
    return would


def _order1(kind: Kind, k: Knobs, state: State, chosen: Tensor, would: Tensor, low: Tensor, high: Tensor, average: Tensor) -> Tensor:
    error = would - state.alpha if kind.is_division_free else k.chi - k.eta * state.alpha * chosen
    alpha = _clipped(k, state.alpha + k.k_alpha * error)
    assign_(state.alpha, alpha)
    return alpha


def _order2(kind: Kind, k: Knobs, state: State, chosen: Tensor, would: Tensor, low: Tensor, high: Tensor, average: Tensor) -> Tensor:
    velocity = k.beta * state.velocity + k.k_alpha * (k.chi - k.eta * state.alpha * chosen)
    free = state.alpha + velocity
    alpha = smaller(larger(free, low), high)
    if kind.anti_windup:
        velocity = where((free - alpha) * velocity > 0.0, 0.0, velocity)
    assign_(state.velocity, velocity)
    assign_(state.alpha, alpha)
    return alpha


def _rational(kind: Kind, k: Knobs, state: State, chosen: Tensor, would: Tensor, low: Tensor, high: Tensor, average: Tensor) -> Tensor:
    return smaller(larger(1.0 / (1.0 + k.beta * average), k.alpha_min), k.one)


def _adgd(kind: Kind, k: Knobs, state: State, chosen: Tensor, would: Tensor, low: Tensor, high: Tensor, average: Tensor) -> Tensor:
    alpha = _clipped(k, smaller(would, (1.0 + state.ratio).sqrt() * state.alpha))
    assign_(state.ratio, alpha / (state.alpha + k.eps))
    assign_(state.alpha, alpha)
    return alpha


Law = Callable[[Kind, Knobs, State, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
LAWS: dict[type, Law] = {
    c.NoController: _none,
    c.GlobalThrottleOrder0Controller: _order0,
    c.GlobalThrottleOrder1Controller: _order1,
    c.GlobalThrottleOrder2Controller: _order2,
    c.QuantizationAwareOrder2Controller: _order2,
    c.RationalThrottleController: _rational,
    c.AdGDController: _adgd,
}
