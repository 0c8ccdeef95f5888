"""The Hessian in the loop: exact where it is known, else estimated from where the last estimate ended."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keydnn.nn import Dense, Linear
from keydnn.stability.curvature import Hessian, lanczos, power
from keydnn.stability.metrics import HESSIAN_METRICS
from keydnn.stability.utils import gram_matrix, hessian_scale, metrics_from_eigenvalues

_MOST_PRODUCTS = 50


class HessianMonitor:
    """Eigenvalues for each step.

    Args:
        run: The instrumented run.
    """

    def __init__(self, run: Any) -> None:
        settings = run.settings
        self.run, self.mode, self.every = run, settings.hessian, settings.hessian_every
        layers = list(run.model.model.children())
        self.is_one_dense = len(layers) == 1 and type(layers[0]) in (Linear, Dense)
        wanted = bool(HESSIAN_METRICS & set(run.keys)) and run.config.compute_analytic_hessian
        if self.mode == "analytic":
            wanted = wanted and settings.compute_analytic_hessian and self.is_one_dense
        self.is_on = wanted and self.mode is not None
        self.vector: Any = None
        self._whole: np.ndarray | None = None
        self._last: tuple[Any, ...] | None = None
        self.operator: Hessian | None = None

    def look(self, s: Any, step: int, x: np.ndarray, y: np.ndarray) -> None:
        """Fill the step's eigenvalues (ascending) and residual; before the update."""
        s.eigenvalues, s.hessian_residual = None, math.nan
        s.batch = (x, y)
        if not self.is_on:
            return
        if self._last is None or step % self.every == 0:
            self._last = self._exact(s, x) if self.mode == "analytic" else self._estimated(x, y)
        s.eigenvalues, s.hessian_residual = self._last

    def _exact(self, s: Any, x: np.ndarray) -> tuple[np.ndarray, float]:
        layer = next(iter(self.run.model.model.children()))
        scale = hessian_scale(self.run.settings.loss_mode, layer.out_features)
        if not s.is_whole or self.run.settings.drift is not None:
            return scale * np.linalg.eigvalsh(gram_matrix(x, layer.bias is not None)), 0.0
        if self._whole is None:  # the order of the samples does not matter
            self._whole = scale * np.linalg.eigvalsh(gram_matrix(x, layer.bias is not None))
        return self._whole, 0.0

    def _estimated(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
        operator = Hessian(self.run.model, x, y, loss_mode=self.run.settings.loss_mode)
        solve = lanczos if self.mode == "lanczos" else power
        found = solve(operator, operator.size, v0=self.vector, max_iter=_MOST_PRODUCTS)
        self.vector = found.vectors[0]
        return np.array([found.lambda_min, found.lambda_max]), float(found.residuals[0])

    def probe(self, s: Any) -> float:
        """A curvature before the first update: three power iterations from the gradient."""
        operator = Hessian(self.run.model, *s.batch, loss_mode=self.run.settings.loss_mode)
        found = power(operator, operator.size, v0=s.gradient, max_iter=3)
        return max(float(np.abs(found.values[0])), 0.0)


def hessian_values(s: Any, a: float, eta: float) -> dict[str, float]:
    """The logged values of a step's eigenvalues; ``a`` is the throttle of the controlled margins."""
    names = ("hessian_lambda_max", "hessian_lambda_min", "hessian_spectral_norm")
    if s.eigenvalues is None:
        return dict.fromkeys(
            (*names, "hessian_residual", *(f"stability_margin_{n}_{c}" for n in ("lambda", "norm") for c in ("raw", "ctrl")),
             "spectral_radius_raw", "spectral_radius_ctrl"), math.nan,
        )  # fmt: skip
    found = metrics_from_eigenvalues(s.eigenvalues)
    found["hessian_residual"] = s.hessian_residual
    for suffix, factor in (("raw", 1.0), ("ctrl", a)):
        found[f"stability_margin_lambda_{suffix}"] = factor * eta * found["hessian_lambda_max"]
        found[f"stability_margin_norm_{suffix}"] = factor * eta * found["hessian_spectral_norm"]
        found[f"spectral_radius_{suffix}"] = float(np.max(np.abs(1.0 - factor * eta * s.eigenvalues)))
    return found
