"""From one step to the metrics it logs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keydnn.stability.controllers import ControllerStep
from keydnn.stability.nn.hessian import hessian_values
from keydnn.stability.quantization import rail_stats
from keydnn.stability.rules import AdamRule, RMSPropRule, stability_limit
from keydnn.stability.utils import spectral_norm_np


class Step:
    """What one step leaves to be measured.

    Args:
        eta: The learning rate.
        is_whole: Whether the batch is the whole data set.
    """

    x: np.ndarray
    batch: tuple[np.ndarray, np.ndarray]
    before: list[np.ndarray]
    after: list[np.ndarray]
    raw: list[np.ndarray]
    theta: np.ndarray
    theta_after: np.ndarray
    gradient: np.ndarray
    residual: np.ndarray
    eigenvalues: np.ndarray | None
    hessian_residual: float
    sensed: tuple[float, float, bool]
    control: ControllerStep
    alpha_is_active: bool

    def __init__(self, eta: float, is_whole: bool) -> None:
        self.eta, self.is_whole = eta, is_whole
        self.gradient_rails = self.update_rails = (0.0, 0.0)
        self.loss = self.grad_norm = self.proposal_norm = math.nan


def _norm(v: np.ndarray) -> float:
    return math.sqrt(float(v @ v))


def measure(run: Any, s: Step) -> dict[str, float]:
    """The chosen metrics of a step; ``loss`` and ``diverged`` are always among them for the loop's own rules."""
    row: dict[str, float] = {}
    chosen = set(run.keys)
    for keys, group in GROUPS:
        if chosen & keys or keys & _ALWAYS:
            row |= group(run, s)
    return row


def _core(run: Any, s: Step) -> dict[str, float]:
    c = s.control
    finite = {
        "loss_is_finite": float(math.isfinite(s.loss)),
        "grad_is_finite": float(np.isfinite(s.gradient).all()),
        "theta_is_finite_before": float(np.isfinite(s.theta).all()),
        "theta_is_finite_after": float(np.isfinite(s.theta_after).all()),
    }
    reached = run.diverge_loss is not None and math.isfinite(s.loss) and s.loss >= run.diverge_loss
    return finite | {
        "loss": s.loss,
        "rmse": math.sqrt(float(np.mean(s.residual * s.residual))),
        "grad_norm": s.grad_norm,
        "curvature_proxy": s.sensed[0],
        "curvature_ema": s.sensed[1],
        "curvature_valid": float(s.sensed[2]),
        "curvature_for_control": c.curvature_for_control,
        "alpha": c.alpha,
        "alpha_would": c.alpha_would,
        "eta_eff": c.eta_eff,
        "alpha_min_bound": c.alpha_min,
        "alpha_max_bound": c.alpha_max,
        "controller_feasible": float(c.feasible),
        "useful_alpha_min": run.update_quantum / (s.eta * s.grad_norm + run.controller.eps),
        "useful_alpha_max": run.controller.chi / (s.eta * c.curvature_for_control + run.controller.eps),
        "optimizer_update_norm": s.proposal_norm,
        "theta_norm": _norm(s.theta),
        "diverged": float(reached or not all(finite.values())),
    }


def _geometry(run: Any, s: Step) -> dict[str, float]:
    raw = np.concatenate([d.reshape(-1).astype(np.float64) for d in s.raw])
    moved = s.theta_after - s.theta
    intended, actual, eps = _norm(raw), _norm(moved), run.controller.eps
    product = intended * actual
    cosine = 1.0 if product <= eps else min(max(float(moved @ raw) / product, -1.0), 1.0)
    return {
        "raw_update_norm": intended,
        "actual_update_norm": actual,
        "update_cosine": cosine,
        "update_angle_rad": math.acos(cosine) if cosine == cosine else math.nan,
        "update_radius_ratio": 0.0 if intended <= eps else actual / intended,
    }


def _teacher(run: Any, s: Step) -> dict[str, float]:
    if run.first is None:
        return {"forward_gain_spectral": math.nan, "weight_error_fro": math.nan}
    W = s.after[run.first].astype(np.float64)
    error = math.nan if run.reference_A is None else float(np.linalg.norm(W - run.reference_A))
    return {"forward_gain_spectral": spectral_norm_np(W), "weight_error_fro": error}


def _hessian(run: Any, s: Step) -> dict[str, float]:
    found = hessian_values(s, s.control.alpha if s.alpha_is_active else s.control.alpha_would, s.eta)
    limit = stability_limit(run.rule, s.eta if run.rule is None else None)
    is_scaled = isinstance(run.rule, AdamRule | RMSPropRule)  # there the limit is one of the preconditioned Hessian
    found["stability_limit"] = limit
    found["margin_to_limit"] = math.nan if is_scaled else found["hessian_lambda_max"] / limit
    return found


def _quantization(run: Any, s: Step) -> dict[str, float]:
    weights = run.model._rail_max_for_variables(run.params, run.precision, fields=("weight", "bias"))
    lost = 0.0
    if run.precision is not None:
        lost = max(rail_stats(d, f).underflow_fraction for d, f in zip(s.raw, run.update_formats, strict=True))
    states = [rail_stats(state, dtype) for state, dtype in run.state_rails]
    denominators = run.rule.preconditioner() if isinstance(run.rule, AdamRule) else None
    return {
        "weight_saturation_fraction_max": weights[0],
        "weight_near_rail_fraction_max": weights[1],
        "gradient_saturation_fraction_max": s.gradient_rails[0],
        "gradient_near_rail_fraction_max": s.gradient_rails[1],
        "update_saturation_fraction_max": s.update_rails[0],
        "update_underflow_fraction_max": lost,
        "state_saturation_fraction_max": max((r.saturation_fraction for r in states), default=0.0),
        "state_underflow_fraction_max": max((r.underflow_fraction for r in states), default=0.0),
        "adam_denominator_min": math.nan if denominators is None else min(float(d.min()) for d in denominators),
    }


_CORE_KEYS = {
    "loss", "rmse", "grad_norm", "curvature_proxy", "curvature_ema", "curvature_valid", "curvature_for_control", "alpha", "alpha_would",
    "eta_eff", "alpha_min_bound", "alpha_max_bound", "controller_feasible", "useful_alpha_min", "useful_alpha_max",
    "optimizer_update_norm", "theta_norm", "diverged", "loss_is_finite", "grad_is_finite", "theta_is_finite_before",
    "theta_is_finite_after",
}  # fmt: skip
_ALWAYS = {"loss"}
_GEOMETRY_KEYS = {"raw_update_norm", "actual_update_norm", "update_cosine", "update_angle_rad", "update_radius_ratio"}
_HESSIAN_KEYS = {
    "hessian_lambda_max", "hessian_lambda_min", "hessian_spectral_norm", "hessian_residual", "stability_margin_lambda_raw",
    "stability_margin_lambda_ctrl", "stability_margin_norm_raw", "stability_margin_norm_ctrl", "spectral_radius_raw",
    "spectral_radius_ctrl", "stability_limit", "margin_to_limit",
}  # fmt: skip
_QUANTIZATION_KEYS = {
    "weight_saturation_fraction_max", "weight_near_rail_fraction_max", "gradient_saturation_fraction_max",
    "gradient_near_rail_fraction_max", "update_saturation_fraction_max", "update_underflow_fraction_max",
    "state_saturation_fraction_max", "state_underflow_fraction_max", "adam_denominator_min",
}  # fmt: skip
GROUPS = (
    (_CORE_KEYS, _core),
    (_GEOMETRY_KEYS, _geometry),
    ({"forward_gain_spectral", "weight_error_fro"}, _teacher),
    (_HESSIAN_KEYS, _hessian),
    (_QUANTIZATION_KEYS, _quantization),
)
