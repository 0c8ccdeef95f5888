"""Probes for training loops that accept ``measure(model, batch, loss) -> dict[str, float]``: curvature, margins, rails."""

from __future__ import annotations

from typing import Any

from keydnn.stability.curvature import lanczos
from keydnn.stability.precision import ensure_precision_dict
from keydnn.stability.products import Hessian
from keydnn.stability.quantization import rail_stats
from keydnn.stability.rules import UpdateRule, stability_limit


class CurvatureProbe:
    """The largest curvature of the loss on a batch, warm-started from the last one.

    Args:
        tol: Of the Lanczos residual, relative.
        max_iter: Most products.
        seed: Of the first start vector.

    Example:
        >>> from keydnn.stability import CurvatureProbe
        >>> net, batch = keydnn.Sequential(keydnn.Linear(2, 1, bias=False)), (np.eye(2), np.zeros((2, 1)))
        >>> round(CurvatureProbe().measure(net, batch, "mse")["curvature_lambda_max"], 6)
        1.0
    """

    def __init__(self, tol: float = 1e-3, max_iter: int = 50, seed: int = 0) -> None:
        self.tol, self.max_iter, self.seed = tol, max_iter, seed
        self._vector: Any = None

    def measure(self, model: Any, batch: Any, loss: Any) -> dict[str, float]:
        """``curvature_lambda_max`` and ``curvature_products``.

        Args:
            model: A network.
            batch: ``(inputs, targets)``.
            loss: ``"half_mse"``, ``"keras_mse"``, ``"mse"`` (the same), or a differentiable function (prediction, target).
        """
        operator = Hessian(model, *batch, loss_mode="keras_mse" if loss == "mse" else loss)
        start = self._vector if self._vector is not None and self._vector.shape == (operator.size,) else None
        found = lanczos(operator, operator.size, tol=self.tol, max_iter=self.max_iter, v0=start, seed=self.seed)
        self._vector = found.vectors[0]
        return {"curvature_lambda_max": found.lambda_max, "curvature_products": float(found.products)}


class MarginProbe:
    """Curvature relative to the limit of an update rule: above 1 is unstable.

    Args:
        learning_rate: eta.
        rule: The update rule; None is SGD.
        curvature: The curvature probe to use; None makes one.
    """

    def __init__(self, learning_rate: float, rule: UpdateRule | None = None, curvature: CurvatureProbe | None = None) -> None:
        self.limit = stability_limit(rule, learning_rate)
        self.curvature = CurvatureProbe() if curvature is None else curvature

    def measure(self, model: Any, batch: Any, loss: Any) -> dict[str, float]:
        """``margin_to_limit`` and ``stability_limit``; arguments as for `CurvatureProbe`."""
        value = self.curvature.measure(model, batch, loss)["curvature_lambda_max"]
        return {"margin_to_limit": value / self.limit, "stability_limit": self.limit}


class RailProbe:
    """How much of each parameter lies at the rails of its format.

    Args:
        precision: Formats by layer and field; a parameter without one is left out.
    """

    def __init__(self, precision: Any) -> None:
        self.precision = ensure_precision_dict(precision)

    def measure(self, model: Any, batch: Any, loss: Any) -> dict[str, float]:
        """``<parameter>.saturation`` and ``<parameter>.near_rail`` by dotted name."""
        found = {}
        for path, parameter in model.named_parameters():
            layer, _, own = path.partition(".")
            dtype = None if self.precision is None else self.precision.dtype(layer, own)
            if dtype is not None:
                stats = rail_stats(parameter.numpy(), dtype)
                found[f"{path}.saturation"], found[f"{path}.near_rail"] = stats.saturation_fraction, stats.near_rail_fraction
        return found
