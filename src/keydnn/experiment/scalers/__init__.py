"""Scalers: reversible changes of columns, our own and scikit-learn's.

scikit-learn's seven scalers are importable from here where it is installed.
"""

from typing import Any

from keydnn.experiment.optional import need
from keydnn.experiment.scalers.own import Absolute, Negate, PerSampleMinMaxScaler, PerSampleZeroStart
from keydnn.experiment.scalers.record import ScalerRecord
from keydnn.experiment.scalers.registry import scaler_registry, supported_scalers
from keydnn.experiment.scalers.scaler import Scaler
from keydnn.experiment.scalers.scikit import SCIKIT_SCALERS
from keydnn.experiment.scalers.segmented import SegmentedScaler

__all__ = [
    "Absolute",
    "Negate",
    "PerSampleMinMaxScaler",
    "PerSampleZeroStart",
    "Scaler",
    "ScalerRecord",
    "SegmentedScaler",
    "scaler_registry",
    "supported_scalers",
]


def __getattr__(name: str) -> Any:
    if name in SCIKIT_SCALERS:
        return getattr(need("sklearn.preprocessing", name), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
