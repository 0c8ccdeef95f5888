"""From steps to the metrics they log.

A `Block` holds what some steps in a row left behind, one row per step.  The eager loop measures blocks of one step, recorded
runs blocks of many; both come here, so both log the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn.stability.laws import Decision
from keydnn.stability.nn.hessian import hessian_values
from keydnn.stability.norms import dots, spectral_norms
from keydnn.stability.quantization import rail_stats
from keydnn.stability.rules import KNOWN_LIMITS, AdamRule, RMSPropRule, stability_limit

Columns = dict[str, np.ndarray]


@dataclass
class Block:
    """Steps to be measured; arrays have one row (or entry) per step.

    Attributes:
        theta: Parameters before each step, float64.
        after: Parameters after it, float64.
        gradient: Gradients after their quantisation, float64.
        raw: Updates before theirs, float64.
        squares: Sum of the squared residuals.
        loss: The logged loss.
        grad_norm: Norm of the gradient.
        proposal_norm: Norm of the update before the throttle.
        sensed: C, S, and whether C was measured.
        control: What the controller decided.
        elements: Elements of the batch's targets.
        eigenvalues: Of the Hessian, ascending: one row per step, one row for all, or None.
        hessian_residual: Of their estimate.
        weight_rails: Largest saturation and near-rail fractions of the stored parameters.
        gradient_rails: The same of the gradients.
        register: Largest share of the batch-sum register that was at a rail.
        loss_scale: The factor of the loss.
        update_saturation: Largest saturation of the updates.
        update_underflow: Largest underflow of the updates.
        states: Largest saturation and underflow of the states of the update rule.
        denominator: Adam's smallest denominator.
    """

    theta: np.ndarray
    after: np.ndarray
    gradient: np.ndarray
    raw: np.ndarray
    squares: np.ndarray
    loss: np.ndarray
    grad_norm: np.ndarray
    proposal_norm: np.ndarray
    sensed: tuple[np.ndarray, np.ndarray, np.ndarray]
    control: Decision
    elements: int
    eigenvalues: np.ndarray | None
    hessian_residual: Any
    weight_rails: tuple[Any, Any] = (0.0, 0.0)
    gradient_rails: tuple[Any, Any] = (0.0, 0.0)
    register: Any = 0.0
    loss_scale: Any = 1.0
    update_saturation: Any = 0.0
    update_underflow: Any = 0.0
    states: tuple[Any, Any] = (0.0, 0.0)
    denominator: Any = math.nan

    @property
    def steps(self) -> int:
        """How many."""
        return len(self.theta)


def measure(run: Any, b: Block) -> Columns:
    """The chosen metrics of some steps; ``loss`` and ``diverged`` are always among them for the loop's own rules."""
    found: Columns = {}
    chosen = set(run.keys)
    for keys, group in GROUPS:
        if chosen & keys or keys & _ALWAYS:
            found |= {key: _column(v, b.steps) for key, v in group(run, b).items()}
    return found


def _column(v: Any, n: int) -> np.ndarray:
    """n float64 numbers from an array of them, or from one number for all."""
    array = np.asarray(v, np.float64)
    return array if array.shape == (n,) else np.full(n, array)


def row_of(columns: Columns, i: int) -> dict[str, float]:
    """The metrics of one step."""
    return {key: float(values[i]) for key, values in columns.items()}


def rail_rows(x: np.ndarray, dtype: Any) -> tuple[Any, Any, Any]:
    """Saturation, near-rail and underflow fractions of each row of x; 0 without a format."""
    if dtype is None or not x.size:
        return 0.0, 0.0, 0.0
    stats = rail_stats(x, dtype, axis=1)
    return stats.saturation_fraction, stats.near_rail_fraction, stats.underflow_fraction


def _core(run: Any, b: Block) -> dict[str, Any]:
    c, eta, eps = b.control, run.settings.learning_rate, run.controller.eps
    finite = {
        "loss_is_finite": np.isfinite(b.loss),
        "grad_is_finite": np.isfinite(b.gradient).all(axis=1),
        "theta_is_finite_before": np.isfinite(b.theta).all(axis=1),
        "theta_is_finite_after": np.isfinite(b.after).all(axis=1),
    }
    reached = np.zeros(b.steps, bool) if run.diverge_loss is None else finite["loss_is_finite"] & (b.loss >= run.diverge_loss)
    return finite | {
        "loss": b.loss,
        "rmse": np.sqrt(b.squares / b.elements),
        "grad_norm": b.grad_norm,
        "curvature_proxy": b.sensed[0],
        "curvature_ema": b.sensed[1],
        "curvature_valid": b.sensed[2],
        "curvature_for_control": c.curvature_for_control,
        "alpha": c.alpha,
        "alpha_would": c.alpha_would,
        "eta_eff": c.alpha * eta,
        "alpha_min_bound": c.alpha_min,
        "alpha_max_bound": c.alpha_max,
        "controller_feasible": c.feasible,
        "useful_alpha_min": run.update_quantum / (eta * b.grad_norm + eps),
        "useful_alpha_max": run.controller.chi / (eta * np.asarray(c.curvature_for_control) + eps),
        "optimizer_update_norm": b.proposal_norm,
        "theta_norm": np.sqrt(dots(b.theta, b.theta)),
        "diverged": reached | ~np.logical_and.reduce(list(finite.values())),
    }


def _geometry(run: Any, b: Block) -> dict[str, Any]:
    moved, eps = b.after - b.theta, run.controller.eps
    intended, actual = np.sqrt(dots(b.raw, b.raw)), np.sqrt(dots(moved, moved))
    product = intended * actual
    cosine = np.where(product <= eps, 1.0, np.clip(dots(moved, b.raw) / product, -1.0, 1.0))
    return {
        "raw_update_norm": intended,
        "actual_update_norm": actual,
        "update_cosine": cosine,
        "update_angle_rad": [math.acos(v) if v == v else math.nan for v in cosine.tolist()],
        "update_radius_ratio": np.where(intended <= eps, 0.0, actual / intended),
    }


def _teacher(run: Any, b: Block) -> dict[str, Any]:
    if run.first is None:
        return {"forward_gain_spectral": math.nan, "weight_error_fro": math.nan}
    W = np.ascontiguousarray(b.after[:, run.slices[run.first]])
    error: Any = math.nan
    if run.reference_A is not None:
        apart = W - run.reference_A.reshape(-1)
        error = np.sqrt(dots(apart, apart))
    return {"forward_gain_spectral": spectral_norms(W.reshape(-1, *run.params[run.first].shape)), "weight_error_fro": error}


def _hessian(run: Any, b: Block) -> dict[str, Any]:
    eta = run.settings.learning_rate
    found = hessian_values(b, b.control.alpha if run.alpha_is_active else b.control.alpha_would, eta)
    has_limit = run.rule is None or isinstance(run.rule, KNOWN_LIMITS)
    limit = stability_limit(run.rule, eta if run.rule is None else None) if has_limit else math.nan
    is_scaled = isinstance(run.rule, AdamRule | RMSPropRule)  # there the limit is one of the preconditioned Hessian
    found["stability_limit"] = limit
    found["margin_to_limit"] = (run.hessian.scaled if is_scaled else found["hessian_lambda_max"]) / limit
    return found


def _quantization(run: Any, b: Block) -> dict[str, Any]:
    return {
        "weight_saturation_fraction_max": b.weight_rails[0],
        "weight_near_rail_fraction_max": b.weight_rails[1],
        "gradient_saturation_fraction_max": b.gradient_rails[0],
        "gradient_near_rail_fraction_max": b.gradient_rails[1],
        "gradient_accum_saturation_fraction_max": b.register,
        "loss_scale": b.loss_scale,
        "update_saturation_fraction_max": b.update_saturation,
        "update_underflow_fraction_max": b.update_underflow,
        "state_saturation_fraction_max": b.states[0],
        "state_underflow_fraction_max": b.states[1],
        "adam_denominator_min": b.denominator,
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
    "gradient_near_rail_fraction_max", "gradient_accum_saturation_fraction_max", "loss_scale", "update_saturation_fraction_max",
    "update_underflow_fraction_max",
    "state_saturation_fraction_max", "state_underflow_fraction_max", "adam_denominator_min",
}  # fmt: skip
GROUPS = (
    (_CORE_KEYS, _core),
    (_GEOMETRY_KEYS, _geometry),
    ({"forward_gain_spectral", "weight_error_fro"}, _teacher),
    (_HESSIAN_KEYS, _hessian),
    (_QUANTIZATION_KEYS, _quantization),
)
