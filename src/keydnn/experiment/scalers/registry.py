"""The registry of scalers: our own, and scikit-learn's where it is installed."""

from __future__ import annotations

from keydnn.experiment.optional import is_installed
from keydnn.experiment.registry import Registry
from keydnn.experiment.scalers.scikit import SCIKIT_SCALERS

_OWN = "keydnn.experiment.scalers"


def _is_available(path: str) -> bool:
    return not path.startswith("sklearn") or is_installed("sklearn")


scaler_registry = Registry(
    "scaler",
    {
        **{name: f"{_OWN}.own:{name}" for name in ("Absolute", "Negate", "PerSampleMinMaxScaler", "PerSampleZeroStart")},
        "SegmentedScaler": f"{_OWN}.segmented:SegmentedScaler",
        **{name: f"sklearn.preprocessing:{name}" for name in SCIKIT_SCALERS},
    },
    _is_available,
)
supported_scalers = scaler_registry
