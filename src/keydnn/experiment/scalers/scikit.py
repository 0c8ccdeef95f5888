"""scikit-learn's scalers: which are offered, and what of a scaler is learned state."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from keydnn.experiment.contracts import IStateful

SCIKIT_SCALERS = (
    "StandardScaler",
    "MinMaxScaler",
    "MaxAbsScaler",
    "RobustScaler",
    "Normalizer",
    "QuantileTransformer",
    "PowerTransformer",
)
SCIKIT_SEPARABLE = frozenset(SCIKIT_SCALERS) - {"Normalizer"}  # each column by itself
_INNER = {"PowerTransformer": ("_scaler", "StandardScaler")}  # a scaler inside a scaler, under a private name


def arguments_of(scaler: Any) -> dict[str, Any]:
    """Constructor arguments of an object that keeps each under its own name, as scikit-learn asks."""
    parameters = inspect.signature(type(scaler)).parameters.values()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {p.name: getattr(scaler, p.name) for p in parameters if p.kind not in kinds and p.name in vars(scaler)}


def learned_state(scaler: Any) -> dict[str, Any]:
    """Everything a scaler learned: attributes that end in ``_``, and what its own ``get_state()`` gives."""
    learned = {name: value for name, value in vars(scaler).items() if name.endswith("_") and not name.startswith("__")}
    state: dict[str, Any] = {"attributes": learned}
    if isinstance(scaler, IStateful):
        state["own"] = scaler.get_state()
    inner = _INNER.get(type(scaler).__name__)
    if inner is not None and getattr(scaler, inner[0], None) is not None:
        state["inner"] = learned_state(getattr(scaler, inner[0]))["attributes"]
    return state


def restore_state(scaler: Any, state: Mapping[str, Any]) -> None:
    """Put learned state back into an object with the same arguments."""
    for name, value in state["attributes"].items():
        setattr(scaler, name, _as_learned(value))
    if "own" in state:
        scaler.set_state(state["own"])
    inner = _INNER.get(type(scaler).__name__)
    if inner is not None and "inner" in state:
        import sklearn.preprocessing

        part = getattr(sklearn.preprocessing, inner[1])(copy=False)
        for name, value in state["inner"].items():
            setattr(part, name, _as_learned(value))
        setattr(scaler, inner[0], part)


def _as_learned(value: Any) -> Any:
    """Numbers that a file kept as arrays without axes are NumPy scalars again; arrays can be written to."""
    if not isinstance(value, np.ndarray):
        return value
    return value[()] if value.ndim == 0 else value.copy()
