"""scikit-learn estimators as models."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.choices import Choice
from keydnn.experiment.equality import same_values
from keydnn.experiment.io.packed import Packed
from keydnn.experiment.models import estimator_file
from keydnn.experiment.models.base import BaseModel, Shape, as_shape
from keydnn.experiment.models.described import Described
from keydnn.experiment.optional import need

_METHODS = ("predict", "predict_proba", "decision_function", "transform")


class ScikitTrainingMode(Choice):
    """How an estimator learns: batch by batch, from all rows at once, or whichever it can."""

    AUTO = "auto"
    PARTIAL_FIT = "partial_fit"
    BATCH_FIT = "batch_fit"


class ScikitModelWrapper(BaseModel):
    """An estimator.

    Args:
        model: The estimator.
        training_mode: "auto" (partial_fit if the estimator has it), "partial_fit" or "batch_fit".
        output_method: "auto" (``predict``, or ``transform`` of pure transformers), "predict", "predict_proba", "decision_function" or
            "transform".
        partial_fit_kwargs: Arguments of every ``partial_fit``, such as ``{"classes": [0, 1]}``.

    Raises:
        TypeError: ``model`` is no estimator.
        ValueError: An unknown mode or method.
    """

    def __init__(
        self,
        model: Any,
        *,
        training_mode: ScikitTrainingMode | str = "auto",
        output_method: str = "auto",
        partial_fit_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        mode = ScikitTrainingMode.from_value(training_mode)
        kwargs = dict(partial_fit_kwargs or {})
        super().__init__(Backend.SCIKIT, model=type(model))
        if not adapter(Backend.SCIKIT).is_model(model):
            raise TypeError(f"ScikitModelWrapper needs a scikit-learn estimator, got {type(model).__name__}")
        if output_method not in ("auto", *_METHODS):
            raise ValueError(f"unknown output_method {output_method!r}; expected one of auto, {', '.join(_METHODS)}")
        if mode is ScikitTrainingMode.PARTIAL_FIT and not hasattr(model, "partial_fit"):
            raise ValueError(f"{type(model).__name__} has no partial_fit; use training_mode='batch_fit'")
        self._model, self._mode, self._method, self._partial_kwargs = model, mode, output_method, kwargs
        self._input_shape: Shape | None = None
        self._output_shape: Shape | None = None

    # -- what it is

    @property
    def model(self) -> Any:
        """The estimator."""
        return self._model

    @property
    def input_shape(self) -> Shape | None:
        """Shape of an input; None until it is known."""
        return self._input_shape

    @property
    def output_shape(self) -> Shape | None:
        """Shape of an output; None until it is known."""
        return self._output_shape

    @property
    def supports_partial_fit(self) -> bool:
        """Whether the estimator can learn batch by batch."""
        return hasattr(self._model, "partial_fit")

    @property
    def training_mode(self) -> ScikitTrainingMode:
        """The mode that was asked for."""
        return self._mode

    @property
    def resolved_training_mode(self) -> ScikitTrainingMode:
        """The mode that is used: never "auto"."""
        if self._mode is not ScikitTrainingMode.AUTO:
            return self._mode
        return ScikitTrainingMode.PARTIAL_FIT if self.supports_partial_fit else ScikitTrainingMode.BATCH_FIT

    @property
    def output_method(self) -> str:
        """The method that gives the outputs."""
        if self._method != "auto":
            return self._method
        return "transform" if hasattr(self._model, "transform") and not hasattr(self._model, "predict") else "predict"

    @property
    def is_fitted(self) -> bool:
        """Whether the estimator has learned anything."""
        check = need("sklearn.utils.validation", "a scikit-learn model").check_is_fitted
        error = need("sklearn.exceptions", "a scikit-learn model").NotFittedError
        try:
            check(self._model)
        except error:
            return False
        return True

    @property
    def takes_any_output_shape(self) -> bool:
        """True: targets tell an estimator what to give."""
        return True

    # -- building and use

    def build(self, input_shape: Shape | None = None, output_shape: Shape | None = None, *, force: bool = False) -> None:
        """Keep the shapes; with ``force`` also forget what was learned."""
        if force:
            self.reset_weights()
        self._input_shape = as_shape(input_shape, "input_shape") or self._input_shape
        self._output_shape = as_shape(output_shape, "output_shape") or self._output_shape or (1,)

    def forward(self, x: Any, training: bool = False) -> np.ndarray:
        """The outputs, at least of rank 2.

        Raises:
            RuntimeError: The estimator is not fitted.
        """
        if not self.is_fitted:
            raise RuntimeError(f"{self!r} is not fitted: run a fit step first")
        out = np.asarray(getattr(self._model, self.output_method)(_rows(x)))
        return out[:, None] if out.ndim == 1 else out

    def fit(self, x: Any, y: Any = None) -> None:
        """Learn from all rows.

        Args:
            x: Inputs (N, ...), flattened to (N, features).
            y: Targets; a single column becomes (N,). Unsupervised estimators get none.
        """
        self._model.fit(_rows(x), self._targets(y))

    def partial_fit(self, x: Any, y: Any = None, **kwargs: Any) -> None:
        """Learn from some rows.

        Raises:
            AttributeError: The estimator cannot.
        """
        if not self.supports_partial_fit:
            raise AttributeError(f"{type(self._model).__name__} has no partial_fit")
        self._model.partial_fit(_rows(x), self._targets(y), **{**self._partial_kwargs, **kwargs})

    @property
    def takes_targets(self) -> bool:
        """Whether the estimator learns from targets: a classifier, a regressor, or one whose ``fit`` cannot do without."""
        base = need("sklearn.base", "a scikit-learn model")
        if base.is_classifier(self._model) or base.is_regressor(self._model):
            return True
        y = inspect.signature(self._model.fit).parameters.get("y")
        return self._model.__sklearn_tags__().target_tags.required or (y is not None and y.default is inspect.Parameter.empty)

    def _targets(self, y: Any) -> np.ndarray | None:
        return None if y is None or not self.takes_targets else _column(y)

    def reset_weights(self) -> None:
        """An unfitted clone in the estimator's place."""
        self._model = need("sklearn.base", "a scikit-learn model").clone(self._model)

    def get_weights(self) -> dict[str, Any]:
        """The estimator with what it learned, as bytes ``estimator`` (of skops, which runs no code when read)."""
        return {"estimator": Packed(estimator_file.dumps(self._model))}

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        """Take back :meth:`get_weights`.

        Raises:
            PackagedCodeError: The bytes come from a file, name types that are not scikit-learn's own, and that was not permitted.
            ArtifactError: They are damaged or hostile, or hold an estimator of another class.
        """
        packed = weights["estimator"]
        self._model = estimator_file.estimator_of(packed.data, packed.is_trusted, self._model)

    # -- config

    def get_config(self) -> dict[str, Any]:
        """Keys of every model, with the class of the estimator, and ``model_params training_mode output_method partial_fit_kwargs``.

        Estimators among the parameters are described.
        """
        fresh = need("sklearn.base", "a scikit-learn model").clone(self._model)  # estimators inside are not shared
        return {
            **super().get_config(),
            "model_params": told(fresh.get_params(deep=False)),
            "training_mode": self._mode.value,
            "output_method": self._method,
            "partial_fit_kwargs": dict(self._partial_kwargs),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The model a config describes, with an estimator that has learned nothing."""
        settings = {name: config[name] for name in ("training_mode", "output_method", "partial_fit_kwargs")}
        made = cls(config["init_args"]["model"](**untold(config["model_params"])), **settings)
        made._input_shape = as_shape(config["input_shape"], "input_shape")
        made._output_shape = as_shape(config["output_shape"], "output_shape")
        return made

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScikitModelWrapper):
            return False
        settings = (self._mode, self._method, self._partial_kwargs) == (other._mode, other._method, other._partial_kwargs)
        return settings and alike(self._model, other._model)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"ScikitModelWrapper({type(self._model).__name__})"


def told(value: Any) -> Any:
    """Arguments of an estimator as a config can hold them: estimators and kernels among them are described."""
    if isinstance(value, Mapping):
        return {key: told(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(told, value))
    return Described.of(Backend.SCIKIT, value) or value


def untold(value: Any) -> Any:
    """Take back :func:`told`."""
    if isinstance(value, Mapping):
        return {key: untold(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(untold, value))
    return value.make() if isinstance(value, Described) else value


def alike(a: Any, b: Any) -> bool:
    """Whether two estimators, or what they hold, are of one class and say the same, bit by bit."""
    if type(a) is not type(b) or isinstance(a, Mapping | list | tuple | np.ndarray | np.generic | str | type) or a is None:
        return _alike_values(a, b)
    inner = a.__getstate__() if not callable(a) else None
    return bool(same_values(a, b)) if inner is None else alike(inner, b.__getstate__())


def _alike_values(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    return same_values(a, b)


def _rows(x: Any) -> np.ndarray:
    array = np.asarray(x)
    return array.reshape(len(array), -1) if array.ndim != 2 else array


def _column(y: Any) -> np.ndarray:
    array = np.asarray(y)
    return array.reshape(len(array)) if array.size == len(array) else array.reshape(len(array), -1)
