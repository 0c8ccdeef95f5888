"""scikit-learn: arrays in and out, estimators as models, functions of :mod:`sklearn.metrics` and of users as losses."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from keydnn.experiment.backends.known import Known, subclass_of
from keydnn.experiment.backends.numpy import (
    beside,
    concat,
    constant,
    cut,
    detach,
    is_tensor,
    is_whole,
    mean,
    no_gradient,
    reshape,
    row_means,
    take,
    to_numpy,
    to_tensor,
    to_whole,
    total,
    weighted_sum,
)
from keydnn.experiment.optional import need

__all__ = [
    "beside",
    "concat",
    "constant",
    "cut",
    "describe",
    "detach",
    "is_model",
    "is_tensor",
    "is_whole",
    "known",
    "losses",
    "made",
    "make_loss",
    "mean",
    "no_gradient",
    "reshape",
    "row_means",
    "small_model",
    "take",
    "to_numpy",
    "to_tensor",
    "to_whole",
    "total",
    "wants_classes",
    "weighted_sum",
]


def is_model(value: Any) -> bool:
    """Whether a value is an estimator; scikit-learn is not imported for the question."""
    base = sys.modules.get("sklearn.base")
    return base is not None and isinstance(value, base.BaseEstimator)


def squared_error(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """``(p - y)^2`` per element."""
    return np.square(outputs - targets)


def absolute_error(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """``|p - y|`` per element."""
    return np.abs(outputs - targets)


def losses() -> dict[str, Any]:
    """Name to loss: ``mse`` and ``mae``, a value per element."""
    return {"mse": squared_error, "mae": absolute_error}


def make_loss(found: Any, reduction: str, kwargs: Any) -> Any:
    """The function itself, or its mean or sum."""
    reduce: Any = {"none": lambda raw: raw, "mean": np.mean, "sum": np.sum}[reduction]
    return lambda outputs, targets: reduce(found(outputs, targets, **kwargs))


def wants_classes(loss: Any) -> bool:
    """False."""
    return False


def small_model(n_in: int, n_out: int, dropout: float = 0.5) -> Any:
    """A model that learns batch by batch, to check this adapter with."""
    return need("sklearn.linear_model", "a scikit-learn model").SGDRegressor(random_state=0)


def _is_part(value: Any) -> bool:
    """Whether a value is an estimator or a kernel of Gaussian processes."""
    kernels = sys.modules.get("sklearn.gaussian_process.kernels")
    return not isinstance(value, type) and (is_model(value) or (kernels is not None and isinstance(value, kernels.Kernel)))


def describe(model: Any) -> dict[str, Any] | None:
    """Class and arguments of an estimator, with those of the estimators among them; None of anything else."""
    if not _is_part(model):
        return None
    return {"class": type(model), "kwargs": {name: _told(value) for name, value in model.get_params(deep=False).items()}}


def _told(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _told(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_told, value))
    return {"estimator": describe(value)} if _is_part(value) else value


def made(told: Mapping[str, Any]) -> Any:
    """The estimator that :func:`describe` told, which has learned nothing."""
    return told["class"](**{name: _untold(value) for name, value in told["kwargs"].items()})


def _untold(value: Any) -> Any:
    if isinstance(value, dict):
        is_part = value.keys() == {"estimator"} and isinstance(value["estimator"], dict) and "class" in value["estimator"]
        return made(value["estimator"]) if is_part else {key: _untold(inner) for key, inner in value.items()}
    return type(value)(map(_untold, value)) if isinstance(value, list | tuple) else value


_ROOMS = """
calibration cluster compose covariance cross_decomposition decomposition discriminant_analysis dummy ensemble
feature_selection gaussian_process impute isotonic kernel_approximation kernel_ridge linear_model manifold
mixture multiclass multioutput naive_bayes neighbors neural_network pipeline preprocessing random_projection
semi_supervised svm tree
""".split()
_SCORES = "chi2 f_classif f_regression mutual_info_classif mutual_info_regression r_regression".split()
known = Known(
    {
        **{room: (f"sklearn.{room}", subclass_of("sklearn.base:BaseEstimator")) for room in _ROOMS},
        "gaussian_process.kernels": ("sklearn.gaussian_process.kernels", subclass_of("sklearn.gaussian_process.kernels:Kernel")),
        "feature_selection.scores": ("sklearn.feature_selection", lambda value: getattr(value, "__name__", "") in _SCORES),
    }
)
