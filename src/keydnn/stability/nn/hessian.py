"""The Hessian in the loop: exact where it is known, else estimated from where the last estimate ended."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keydnn.nn import Dense, Linear
from keydnn.stability.curvature import lanczos, power
from keydnn.stability.metrics import HESSIAN_METRICS
from keydnn.stability.products import Hessian
from keydnn.stability.utils import gram_matrix, hessian_scale

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
        self.scaled, self.scaled_vector = math.nan, None  # of the preconditioned Hessian
        self._whole: np.ndarray | None = None
        self._last: tuple[Any, ...] | None = None
        self._operators: dict[tuple[int, ...], Hessian] = {}  # by the shape of the batch

    def at(self, step: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray | None, float]:
        """Eigenvalues (ascending) and residual for a step on a batch; before the update."""
        if not self.is_on:
            return None, math.nan
        if self._last is None or step % self.every == 0:
            self._last = self._exact(x) if self.mode == "analytic" else self._estimated(x, y)
        return self._last

    @property
    def is_estimate(self) -> bool:
        """Whether the values depend on the parameters."""
        return self.is_on and self.mode != "analytic"

    def _exact(self, x: np.ndarray) -> tuple[np.ndarray, float]:
        is_whole = len(x) == len(self.run.X) and self.run.drift is None
        if is_whole and self._whole is not None:
            return self._whole, 0.0
        layer = next(iter(self.run.model.model.children()))
        scale = hessian_scale(self.run.settings.loss_mode, layer.out_features)
        found = scale * np.linalg.eigvalsh(gram_matrix(x, layer.bias is not None))
        if is_whole:  # a batch that holds every sample has them in order
            self._whole = found
        return found, 0.0

    def _estimated(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
        operator = self._operator(x, y)
        solve = lanczos if self.mode == "lanczos" else power
        found = solve(operator, operator.size, v0=self.vector, max_iter=_MOST_PRODUCTS)
        self.vector = found.vectors[0]
        self._measure_scaled(operator)
        return np.array([found.lambda_min, found.lambda_max]), float(found.residuals[0])

    def _operator(self, x: np.ndarray, y: np.ndarray) -> Hessian:
        """The Hessian at the present parameters."""
        known = self._operators.get(x.shape)
        if known is None:
            known = self._operators[x.shape] = Hessian(self.run.model, x, y, loss_mode=self.run.settings.loss_mode)
        else:
            known.move(self.run.model, x, y)
        return known

    def _measure_scaled(self, operator: Hessian) -> None:
        """The largest eigenvalue of ``P^-1 H`` for a rule with a preconditioner P, which it has after its first step."""
        rule = self.run.rule
        scale = None if rule is None else rule.preconditioner()
        if scale is None:
            return
        root = np.sqrt(np.concatenate([p.reshape(-1) for p in scale]))
        found = lanczos(lambda v: operator(v / root) / root, operator.size, v0=self.scaled_vector, max_iter=_MOST_PRODUCTS)
        self.scaled, self.scaled_vector = found.lambda_max, found.vectors[0]

    def probe(self, batch: tuple[np.ndarray, np.ndarray], gradient: np.ndarray) -> float:
        """A curvature before the first update: three power iterations from the gradient."""
        operator = self._operator(*batch)
        found = power(operator, operator.size, v0=gradient, max_iter=3)
        return max(float(np.abs(found.values[0])), 0.0)


def hessian_values(b: Any, a: Any, eta: float) -> dict[str, Any]:
    """The logged values of the steps of a block; ``a`` has the throttles of the controlled margins."""
    names = ("hessian_lambda_max", "hessian_lambda_min", "hessian_spectral_norm")
    if b.eigenvalues is None:
        return dict.fromkeys(
            (*names, "hessian_residual", *(f"stability_margin_{n}_{c}" for n in ("lambda", "norm") for c in ("raw", "ctrl")),
             "spectral_radius_raw", "spectral_radius_ctrl"), math.nan,
        )  # fmt: skip
    low, high = b.eigenvalues[:, 0], b.eigenvalues[:, -1]
    size = np.maximum(np.abs(low), np.abs(high))
    found = {**dict(zip(names, (high, low, size), strict=True)), "hessian_residual": b.hessian_residual}
    for suffix, factor in (("raw", 1.0), ("ctrl", np.asarray(a))):
        step = factor * eta
        found[f"stability_margin_lambda_{suffix}"] = step * high
        found[f"stability_margin_norm_{suffix}"] = step * size
        found[f"spectral_radius_{suffix}"] = np.max(np.abs(1.0 - np.reshape(step, (-1, 1)) * b.eigenvalues), axis=1)
    return found
