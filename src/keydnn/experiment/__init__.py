"""Experiments on sample tables: data that stay honest.

>>> from keydnn.experiment import FeatureSet
>>> fs = FeatureSet.from_dict("cells", {"u": np.arange(10.0), "age": np.arange(10.0)}, "u", "age")
>>> fs.split_random({"train": 0.7, "test": 0.3})
>>> fs.audit().ok
True
"""

from keydnn.experiment.optional import need as _need

_need("pyarrow", "keydnn.experiment")

from keydnn.experiment.backends import Backend  # noqa: E402 - pyarrow first, with one clear error if it is missing
from keydnn.experiment.context import ExperimentContext, RegistrationPolicy  # noqa: E402
from keydnn.experiment.data import Batch, DataFormat, FeatureSet, FeatureSetView, SampleData  # noqa: E402
from keydnn.experiment.samplers import SimilarityCondition  # noqa: E402
from keydnn.experiment.scalers import Scaler, scaler_registry, supported_scalers  # noqa: E402

__all__ = [
    "Backend",
    "Batch",
    "DataFormat",
    "ExperimentContext",
    "FeatureSet",
    "FeatureSetView",
    "RegistrationPolicy",
    "SampleData",
    "Scaler",
    "SimilarityCondition",
    "scaler_registry",
    "supported_scalers",
]
