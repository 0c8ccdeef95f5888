"""Experiments on sample tables: data that stay honest.

>>> from keydnn.experiment import FeatureSet
>>> fs = FeatureSet.from_dict("cells", {"u": np.arange(10.0), "age": np.arange(10.0)}, "u", "age")
>>> fs.split_random({"train": 0.7, "test": 0.3})
>>> fs.audit().ok
True
"""

from keydnn.experiment.optional import need as _need

_need("pyarrow", "keydnn.experiment")

from typing import Any as _Any  # noqa: E402 - pyarrow first, with one clear error if it is missing

from keydnn.experiment.backends import Backend  # noqa: E402
from keydnn.experiment.backends.accelerator import Accelerator  # noqa: E402
from keydnn.experiment.callbacks import Callback, EarlyStopping, EvalLossMetric, Evaluation, ExperimentCallback  # noqa: E402
from keydnn.experiment.context import ExperimentContext, RegistrationPolicy  # noqa: E402
from keydnn.experiment.data import Batch, DataFormat, FeatureSet, FeatureSetView, SampleData  # noqa: E402
from keydnn.experiment.execution import CrossValidation, CVBinding  # noqa: E402
from keydnn.experiment.experiment import Experiment  # noqa: E402
from keydnn.experiment.graph import ConcatNode, ModelGraph, ModelNode  # noqa: E402
from keydnn.experiment.models import BaseModel, KeydnnBaseModel, wrap_model  # noqa: E402
from keydnn.experiment.phases import (  # noqa: E402
    BatchSchedulingPolicy,
    Checkpointing,
    EvalPhase,
    FitPhase,
    InputBinding,
    PhaseGroup,
    ResultRecording,
    TrainPhase,
)
from keydnn.experiment.references import ModelOutputReference  # noqa: E402
from keydnn.experiment.results import CVResults, EvalResults, FitResults, PhaseGroupResults, ResultsConfig, TrainResults  # noqa: E402
from keydnn.experiment.samplers import SimilarityCondition  # noqa: E402
from keydnn.experiment.scalers import Scaler, scaler_registry, supported_scalers  # noqa: E402
from keydnn.experiment.sweeps import Sweep, SweepResults  # noqa: E402
from keydnn.experiment.training import AppliedLoss, Loss, Optimizer  # noqa: E402

__all__ = [
    "Accelerator",
    "AppliedLoss",
    "Backend",
    "BaseModel",
    "Batch",
    "BatchSchedulingPolicy",
    "CVBinding",
    "CVResults",
    "Callback",
    "Checkpointing",
    "ConcatNode",
    "CrossValidation",
    "DataFormat",
    "EarlyStopping",
    "EvalLossMetric",
    "EvalPhase",
    "EvalResults",
    "Evaluation",
    "Experiment",
    "ExperimentCallback",
    "ExperimentContext",
    "FeatureSet",
    "FeatureSetView",
    "FitPhase",
    "FitResults",
    "InputBinding",
    "KeydnnBaseModel",
    "Loss",
    "ModelGraph",
    "ModelNode",
    "ModelOutputReference",
    "Optimizer",
    "PhaseGroup",
    "PhaseGroupResults",
    "RegistrationPolicy",
    "ResultRecording",
    "ResultsConfig",
    "SampleData",
    "Scaler",
    "SimilarityCondition",
    "Sweep",
    "SweepResults",
    "TensorflowBaseModel",  # noqa: F822 - through __getattr__
    "TorchBaseModel",  # noqa: F822 - through __getattr__
    "TrainPhase",
    "TrainResults",
    "scaler_registry",
    "supported_scalers",
    "wrap_model",
]


def __getattr__(name: str) -> _Any:
    """The bases that need a framework."""
    if name in ("TensorflowBaseModel", "TorchBaseModel"):
        from keydnn.experiment import models

        return getattr(models, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
