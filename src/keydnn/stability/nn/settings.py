"""The arguments of an instrumented run, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keydnn.stability.controllers import BaseController, CurvatureSensor, NoController, make_controller
from keydnn.stability.curvature import METHODS
from keydnn.stability.dataset import DriftModel
from keydnn.stability.metrics import MetricsConfig
from keydnn.stability.products import LOSS_MODES
from keydnn.stability.rules import UpdateRule


def _check(holds: bool, name: str, expected: str, got: Any) -> None:
    if not holds:
        raise ValueError(f"train_instrumented: {name} must be {expected}, got {got!r}")


@dataclass
class Settings:
    """See `BaseModel.train_instrumented`."""

    epochs: int
    batch_size: int
    learning_rate: float
    shuffle: bool
    loss_mode: str
    curvature_ema_rho: float
    chi: float
    eps: float
    use_controller: bool
    compute_analytic_hessian: bool
    reference_A: Any
    precision_dict: Any
    controller: Any
    metrics: Any
    verbose: Any
    progress_interval: int | None
    stop_loss: Any
    stop_patience: int
    stop_min_steps: int
    min_loss_change: float | None
    diverge_loss: Any
    update_rule: Any
    resume: Any
    drift: Any
    callbacks: Sequence[Any]
    sensor: Any
    hessian: str | None
    hessian_every: int
    quantize_initial: bool
    first_step: str
    loss_scale: Any

    def __post_init__(self) -> None:
        _check(self.loss_mode in LOSS_MODES, "loss_mode", f"one of {', '.join(LOSS_MODES)}", self.loss_mode)
        _check(self.learning_rate > 0, "learning_rate", "above 0", self.learning_rate)
        for name in ("epochs", "batch_size", "stop_patience", "hessian_every"):
            value = getattr(self, name)
            _check(isinstance(value, int) and value >= 1, name, "an integer of at least 1", value)
        _check(self.hessian in ("analytic", *METHODS, None), "hessian", f"'analytic', one of {', '.join(METHODS)}, or None", self.hessian)
        _check(self.first_step in ("free", "probe"), "first_step", "'free' or 'probe'", self.first_step)
        _check(self.verbose in (None, False, True, "progressbar"), "verbose", "None, False, True or 'progressbar'", self.verbose)
        scale = self.loss_scale
        is_scale = scale is None or scale == "dynamic" or (isinstance(scale, int | float) and scale > 0)
        _check(is_scale, "loss_scale", "above 0, 'dynamic' or None", scale)
        for name in ("stop_loss", "diverge_loss"):
            value = getattr(self, name)
            _check(not isinstance(value, str) or value == "auto", name, "a number, 'auto' or None", value)
        for name, kind in (("drift", DriftModel), ("update_rule", UpdateRule), ("sensor", CurvatureSensor), ("metrics", MetricsConfig)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise TypeError(f"train_instrumented: {name} must be a {kind.__name__} or None, got {value!r}")

    def make_controller(self) -> BaseController:
        """The controller that the arguments ask for."""
        own = {"chi": self.chi, "eps": self.eps, "curvature_ema_rho": self.curvature_ema_rho}
        if isinstance(self.controller, BaseController):
            return self.controller
        name = self.controller if self.controller is not None else "gt-order-0" if self.use_controller else "none"
        return make_controller(name, **own)

    def make_sensor(self, controller: BaseController) -> CurvatureSensor:
        """The sensor; an object passed as controller brings its own settings."""
        if self.sensor is not None:
            return self.sensor
        return CurvatureSensor(rho=controller.curvature_ema_rho, eps=controller.eps)

    @property
    def config(self) -> MetricsConfig:
        """Which metrics to log."""
        return MetricsConfig.all() if self.metrics is None else self.metrics

    def described(self) -> dict[str, Any]:
        """The arguments as JSON values, for the history."""
        plain = (str, int, float, bool, type(None))
        skipped = ("precision_dict", "resume", "reference_A", "callbacks")
        return {name: v if isinstance(v, plain) else repr(v) for name, v in vars(self).items() if name not in skipped}


def is_active(controller: BaseController) -> bool:
    """Whether a controller changes anything."""
    return not isinstance(controller, NoController)
