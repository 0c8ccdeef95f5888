"""Scaler: one face for registered names, classes and instances that have ``fit`` and ``transform``."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.contracts import IInvertible, IRowwise, IScaler
from keydnn.experiment.equality import same_values
from keydnn.experiment.errors import NotInvertibleError, ScalerTypeError
from keydnn.experiment.io import Saved
from keydnn.experiment.scalers.registry import scaler_registry
from keydnn.experiment.scalers.scikit import SCIKIT_SEPARABLE, arguments_of, learned_state, restore_state

Array = NDArray[Any]


class Scaler(Saved):
    """A reversible change of an array (n_samples, n_features), learned from data.

    Args:
        scaler: Name in ``supported_scalers`` (any case), class, instance, or another Scaler; instances are copied.
        scaler_kwargs: Constructor arguments for a name or a class.

    Attributes:
        scaler: The wrapped object.
        scaler_name: Name of its class.
        scaler_kwargs: Its constructor arguments.
        is_fit: Whether it has learned.

    Raises:
        ValueError: Unknown name.
        TypeError: Something without ``fit`` and ``transform`` (the error is an AttributeError as well).

    Example:
        >>> from keydnn.experiment.scalers import Scaler
        >>> Scaler("PerSampleZeroStart").fit_transform([[3.0, 5.0]]).tolist()
        [[0.0, 2.0]]
    """

    kind: ClassVar[str] = "sc"
    is_fit: bool
    scaler_kwargs: dict[str, Any]

    def __init__(self, scaler: Any, scaler_kwargs: Mapping[str, Any] | None = None) -> None:
        kwargs = dict(scaler_kwargs or {})
        if isinstance(scaler, Scaler):
            made, self.is_fit, known = copy.deepcopy(scaler.scaler), scaler.is_fit, dict(scaler.scaler_kwargs)
        elif isinstance(scaler, str | type):
            made, self.is_fit, known = _class_of(scaler)(**kwargs), False, kwargs
        elif isinstance(scaler, IScaler):
            made, known = copy.deepcopy(scaler), arguments_of(scaler)
            self.is_fit = bool(learned_state(scaler)["attributes"])
        else:
            raise ScalerTypeError(f"a scaler needs fit and transform, got {type(scaler).__name__}: {scaler!r}")
        if kwargs and known is not kwargs:
            raise ValueError("scaler_kwargs go with a name or a class; an instance has its arguments already")
        self.scaler: Any = made
        self.scaler_name = type(made).__name__
        self.scaler_kwargs = known

    @staticmethod
    def get_supported_scalers() -> list[str]:
        """Names that can be asked for here, sorted."""
        return sorted(scaler_registry)

    def fit(self, data: Any) -> Self:
        """Learn from data (n_samples, n_features); returns self."""
        self.scaler.fit(np.asarray(data))
        self.is_fit = True
        return self

    def transform(self, data: Any) -> Array:
        """The scaled data.

        Raises:
            RuntimeError: Before :meth:`fit`.
        """
        self._check_fit("transform")
        return np.asarray(self.scaler.transform(np.asarray(data)))

    def fit_transform(self, data: Any) -> Array:
        """:meth:`fit`, then :meth:`transform` of the same data."""
        return self.fit(data).transform(data)

    def inverse_transform(self, data: Any) -> Array:
        """What :meth:`transform` made of, up to rounding, ``data``.

        Raises:
            RuntimeError: Before :meth:`fit`.
            NotInvertibleError: There is no inverse, or none for these rows (it is a NotImplementedError).
        """
        self._check_fit("inverse_transform")
        if not isinstance(self.scaler, IInvertible):
            raise NotInvertibleError(f"{self.scaler_name} has no inverse_transform")
        return np.asarray(self.scaler.inverse_transform(np.asarray(data)))

    def _check_fit(self, what: str) -> None:
        if not self.is_fit:
            raise RuntimeError(f"{self.scaler_name}: {what} before fit; call fit(data) first")

    @property
    def is_separable(self) -> bool:
        """Whether each column is changed by itself."""
        return self.scaler_name in SCIKIT_SEPARABLE if _is_scikit(self.scaler) else bool(getattr(self.scaler, "separable", False))

    def for_rows(self, rows: Any) -> Scaler:
        """This scaler for some rows of its last transform, in this order; the same scaler if it remembers no rows."""
        if not isinstance(self.scaler, IRowwise):
            return self
        made = copy.copy(self)
        made.scaler = self.scaler.for_rows(rows)
        return made

    def copy(self) -> Scaler:
        """An independent copy with everything it learned."""
        return copy.deepcopy(self)

    def clone_unfitted(self) -> Scaler:
        """The same class and arguments, nothing learned."""
        return Scaler(type(self.scaler), copy.deepcopy(self.scaler_kwargs))

    def get_config(self) -> dict[str, Any]:
        """``scaler_cls`` and ``scaler_kwargs``."""
        return {"scaler_cls": type(self.scaler), "scaler_kwargs": dict(self.scaler_kwargs)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The unfitted scaler a config describes."""
        return cls(config["scaler_cls"], config.get("scaler_kwargs"))

    def get_state(self) -> dict[str, Any]:
        """``is_fit`` and everything learned."""
        return {"is_fit": self.is_fit, "learned": copy.deepcopy(learned_state(self.scaler))}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Put learned values back."""
        restore_state(self.scaler, copy.deepcopy(state["learned"]))
        self.is_fit = bool(state["is_fit"])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scaler):
            return NotImplemented
        return same_values(self.get_config(), other.get_config()) and same_values(self.get_state(), other.get_state())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.scaler_kwargs.items())
        return f"Scaler({self.scaler_name}({given}), is_fit={self.is_fit})"


def _class_of(scaler: str | type) -> type:
    if isinstance(scaler, str):
        if scaler not in scaler_registry:
            raise ValueError(f"unknown scaler {scaler!r}; supported: {', '.join(sorted(scaler_registry))}")
        return scaler_registry[scaler]
    if not issubclass(scaler, IScaler):
        raise ScalerTypeError(f"a scaler needs fit and transform; the class {scaler.__name__} lacks one")
    return scaler


def _is_scikit(scaler: Any) -> bool:
    return (inspect.getmodule(type(scaler)) or inspect).__name__.startswith("sklearn.")
