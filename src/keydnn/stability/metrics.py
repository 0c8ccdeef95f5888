"""What an instrumented run logs, and the choice of a part of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

PROFILES: dict[str, tuple[str, ...]] = {
    "core": (
        "loss", "rmse", "grad_norm", "raw_update_norm", "actual_update_norm", "curvature_proxy", "curvature_ema", "alpha", "alpha_would",
        "eta_eff", "diverged",
    ),
    "geometry": ("theta_norm", "optimizer_update_norm", "update_cosine", "update_angle_rad", "update_radius_ratio"),
    "stability": (
        "curvature_for_control", "curvature_valid", "hessian_lambda_max", "hessian_lambda_min", "hessian_spectral_norm",
        "hessian_residual", "stability_margin_lambda_raw", "stability_margin_lambda_ctrl", "stability_margin_norm_raw",
        "stability_margin_norm_ctrl", "spectral_radius_raw", "spectral_radius_ctrl", "stability_limit", "margin_to_limit",
    ),
    "teacher": ("forward_gain_spectral", "weight_error_fro"),
    "finite": ("loss_is_finite", "grad_is_finite", "theta_is_finite_before", "theta_is_finite_after"),
    "quantization": (
        "weight_saturation_fraction_max", "weight_near_rail_fraction_max", "gradient_saturation_fraction_max",
        "gradient_near_rail_fraction_max", "gradient_accum_saturation_fraction_max", "loss_scale", "update_saturation_fraction_max",
        "update_underflow_fraction_max",
        "state_saturation_fraction_max", "state_underflow_fraction_max", "adam_denominator_min",
    ),
    "controller_bounds": ("alpha_min_bound", "alpha_max_bound", "controller_feasible", "useful_alpha_min", "useful_alpha_max"),
}  # fmt: skip
ALL_METRICS = tuple(key for keys in PROFILES.values() for key in keys)
HESSIAN_METRICS = frozenset(PROFILES["stability"][2:])


@dataclass(frozen=True)
class MetricsConfig:
    """Which metrics an instrumented run computes and logs.

    Args:
        profiles: Names of groups: core, geometry, stability, teacher, finite, quantization, controller_bounds.
        reference_A: Teacher's weights, used when the call gives none.
        compute_analytic_hessian: False switches the Hessian off.
        include_fields: More metrics by name.
        exclude_fields: Metrics to leave out.

    Raises:
        ValueError: An unknown profile or metric.

    Example:
        >>> from keydnn.stability import MetricsConfig
        >>> sorted(MetricsConfig(profiles=(), include_fields=("loss", "alpha")).keys)
        ['alpha', 'loss']
    """

    profiles: tuple[str, ...] = ("core",)
    reference_A: Any = None
    compute_analytic_hessian: bool = True
    include_fields: Iterable[str] = ()
    exclude_fields: Iterable[str] = ()

    def __post_init__(self) -> None:
        unknown = [name for name in self.profiles if name not in PROFILES]
        if unknown:
            raise ValueError(f"MetricsConfig: unknown profile {', '.join(map(repr, unknown))}; there are {', '.join(PROFILES)}")
        unknown = [key for key in (*self.include_fields, *self.exclude_fields) if key not in ALL_METRICS]
        if unknown:
            raise ValueError(f"MetricsConfig: unknown metric {', '.join(map(repr, unknown))}; there are {', '.join(ALL_METRICS)}")

    @classmethod
    def all(cls, **options: Any) -> MetricsConfig:
        """Every metric."""
        return cls(profiles=tuple(PROFILES), **options)

    @property
    def keys(self) -> tuple[str, ...]:
        """The chosen metrics, in the order of the table."""
        chosen = {key for name in self.profiles for key in PROFILES[name]} | set(self.include_fields)
        return tuple(key for key in ALL_METRICS if key in chosen - set(self.exclude_fields))
