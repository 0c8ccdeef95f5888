"""scikit-learn estimators as models."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import numpy as np

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.models.base import BaseModel, Shape, as_shape
from keydnn.experiment.optional import need

_METHODS = ("predict", "predict_proba", "decision_function", "transform")


class ScikitTrainingMode(enum.Enum):
    """How an estimator learns: batch by batch, from all rows at once, or whichever it can."""

    AUTO = "auto"
    PARTIAL_FIT = "partial_fit"
    BATCH_FIT = "batch_fit"

    @classmethod
    def from_value(cls, value: ScikitTrainingMode | str) -> ScikitTrainingMode:
        """A member, or the one a text means.

        Raises:
            ValueError: Neither.
        """
        for member in cls:
            if value is member or (isinstance(value, str) and value.strip().lower() == member.value):
                return member
        raise ValueError(f"unknown training_mode {value!r}; expected one of {', '.join(member.value for member in cls)}")


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
        super().__init__(Backend.SCIKIT, model=model, training_mode=mode.value, output_method=output_method, partial_fit_kwargs=kwargs)
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
            y: Targets; a single column becomes (N,).
        """
        self._model.fit(_rows(x), None if y is None else _column(y))

    def partial_fit(self, x: Any, y: Any = None, **kwargs: Any) -> None:
        """Learn from some rows.

        Raises:
            AttributeError: The estimator cannot.
        """
        if not self.supports_partial_fit:
            raise AttributeError(f"{type(self._model).__name__} has no partial_fit")
        self._model.partial_fit(_rows(x), None if y is None else _column(y), **{**self._partial_kwargs, **kwargs})

    def reset_weights(self) -> None:
        """An unfitted clone in the estimator's place."""
        self._model = need("sklearn.base", "a scikit-learn model").clone(self._model)

    def get_weights(self) -> dict[str, np.ndarray]:
        """What the estimator learned, as one array of bytes ``estimator`` (skops, which runs no code when read)."""
        skops = need("skops.io", "keeping a fitted scikit-learn model")
        return {"estimator": np.frombuffer(skops.dumps(self._model), dtype=np.uint8)}

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take back :meth:`get_weights`.

        Raises:
            ValueError: The bytes hold types that are not scikit-learn's own.
        """
        skops = need("skops.io", "reading a fitted scikit-learn model")
        data = np.asarray(weights["estimator"], dtype=np.uint8).tobytes()
        foreign = skops.get_untrusted_types(data=data)
        if foreign:
            raise ValueError(f"the estimator holds types that are not trusted: {', '.join(foreign)}")
        self._model = skops.loads(data)

    def __repr__(self) -> str:
        return f"ScikitModelWrapper({type(self._model).__name__})"


def _rows(x: Any) -> np.ndarray:
    array = np.asarray(x)
    return array.reshape(len(array), -1) if array.ndim != 2 else array


def _column(y: Any) -> np.ndarray:
    array = np.asarray(y)
    return array.reshape(len(array)) if array.size == len(array) else array.reshape(len(array), -1)
