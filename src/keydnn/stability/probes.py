"""Probes for training loops that accept ``measure(model, batch, loss) -> dict[str, float]``: curvature, margins, rails."""

from __future__ import annotations

import inspect
from typing import Any, Self

import numpy as np

from keydnn.stability.curvature import lanczos
from keydnn.stability.precision import ensure_precision_dict
from keydnn.stability.products import Hessian
from keydnn.stability.quantization import rail_stats
from keydnn.stability.rules import AdamRule, MomentumRule, RMSPropRule, SGDRule, UpdateRule, stability_limit

_RULES: dict[str, type[UpdateRule]] = {cls.__name__: cls for cls in (SGDRule, MomentumRule, AdamRule, RMSPropRule)}


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
        self.reset()

    def reset(self) -> None:
        """Forget the latest measurement."""
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

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"tol": self.tol, "max_iter": self.max_iter, "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The probe that a config describes."""
        return cls(**config)

    def get_state(self) -> dict[str, Any]:
        """The vector that the next measurement starts from, or None."""
        return {"vector": None if self._vector is None else np.array(self._vector)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back `get_state`."""
        self._vector = state["vector"]


class MarginProbe:
    """Curvature relative to the limit of an update rule: above 1 is unstable.

    Args:
        learning_rate: eta.
        rule: The update rule; None is SGD.
        curvature: The curvature probe to use; None makes one.
    """

    def __init__(self, learning_rate: float, rule: UpdateRule | None = None, curvature: CurvatureProbe | None = None) -> None:
        self.learning_rate, self.rule = learning_rate, rule
        self.limit = stability_limit(rule, learning_rate)
        self.curvature = CurvatureProbe() if curvature is None else curvature

    def reset(self) -> None:
        """Forget the latest measurement."""
        self.curvature.reset()

    def measure(self, model: Any, batch: Any, loss: Any) -> dict[str, float]:
        """``margin_to_limit`` and ``stability_limit``; arguments as for `CurvatureProbe`."""
        value = self.curvature.measure(model, batch, loss)["curvature_lambda_max"]
        return {"margin_to_limit": value / self.limit, "stability_limit": self.limit}

    def get_config(self) -> dict[str, Any]:
        """The arguments; of rule and curvature probe their own, the rule's with its name under ``rule``.

        Raises:
            TypeError: A rule that is none of KeyDNN's.
        """
        rule = None
        if self.rule is not None:
            name = type(self.rule).__name__
            if _RULES.get(name) is not type(self.rule):
                raise TypeError(f"MarginProbe: expected one of the rules {', '.join(_RULES)}, got {self.rule!r}")
            rule = {"rule": name, **{key: getattr(self.rule, key) for key in inspect.signature(type(self.rule)).parameters}}
        return {"learning_rate": self.learning_rate, "rule": rule, "curvature": self.curvature.get_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The probe that a config describes.

        Raises:
            KeyError: An unknown rule.
        """
        told = config["rule"]
        rule = None if told is None else _RULES[told["rule"]](**{key: value for key, value in told.items() if key != "rule"})
        return cls(config["learning_rate"], rule, CurvatureProbe.from_config(config["curvature"]))

    def get_state(self) -> dict[str, Any]:
        """That of the curvature probe."""
        return self.curvature.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back `get_state`."""
        self.curvature.set_state(state)


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

    def get_config(self) -> dict[str, Any]:
        """The formats, as texts."""
        return {"precision": None if self.precision is None else self.precision.to_dict()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The probe that a config describes."""
        return cls(**config)
