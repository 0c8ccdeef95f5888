"""What phases leave behind: series of contexts, tensors, losses and metrics."""

from keydnn.experiment.results.contexts import ContextStore, EpochSteps
from keydnn.experiment.results.cv_results import CVResults
from keydnn.experiment.results.folders import ResultsConfig
from keydnn.experiment.results.frames import Frame
from keydnn.experiment.results.group_results import PhaseGroupResults
from keydnn.experiment.results.pass_results import EvalResults, FitResults
from keydnn.experiment.results.phase_results import PhaseResults
from keydnn.experiment.results.runs import ExperimentRun, PhaseExecutionMeta, PhaseGroupExecutionMeta
from keydnn.experiment.results.series import (
    ArtifactSeries,
    BatchSeries,
    CallbackSeries,
    ContextSeries,
    LossSeries,
    MetricSeries,
    ResultSeries,
    TensorSeries,
)
from keydnn.experiment.results.stores import ArtifactEntry, ArtifactStore, MetricEntry, MetricStore
from keydnn.experiment.results.train_results import TrainResults
from keydnn.experiment.series import AxisSeries

__all__ = [
    "ArtifactEntry",
    "ArtifactSeries",
    "ArtifactStore",
    "AxisSeries",
    "BatchSeries",
    "CVResults",
    "CallbackSeries",
    "ContextSeries",
    "ContextStore",
    "EpochSteps",
    "EvalResults",
    "ExperimentRun",
    "FitResults",
    "Frame",
    "LossSeries",
    "MetricEntry",
    "MetricSeries",
    "MetricStore",
    "PhaseExecutionMeta",
    "PhaseGroupExecutionMeta",
    "PhaseGroupResults",
    "PhaseResults",
    "ResultSeries",
    "ResultsConfig",
    "TensorSeries",
    "TrainResults",
]
