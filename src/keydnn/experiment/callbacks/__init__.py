"""Callbacks: what watches phases and experiments while they run."""

from keydnn.experiment.callbacks.callback import Callback, ExperimentCallback
from keydnn.experiment.callbacks.early_stopping import EarlyStopping
from keydnn.experiment.callbacks.evaluation import Evaluation
from keydnn.experiment.callbacks.extras import GradientClipping, LearningRateLogger, ModelSummary, ProgressPrinter, TimeLimit
from keydnn.experiment.callbacks.loggers import CSVLogger, FileLogger, JSONLogger, MetricsLogger
from keydnn.experiment.callbacks.metrics import EvalLossMetric, EvaluationMetric, MetricCallback
from keydnn.experiment.callbacks.mlflow import MLflowLogger
from keydnn.experiment.callbacks.probe_logger import ProbeLogger, probe_registry
from keydnn.experiment.callbacks.results import (
    ArtifactResult,
    CallbackResult,
    EarlyStoppingResult,
    EvaluationCallbackResult,
    MetricResult,
    PayloadResult,
)
from keydnn.experiment.callbacks.scores import F1, MAE, R2, RMSE, Accuracy, Score
from keydnn.experiment.callbacks.tensorboard import TensorBoardLogger
from keydnn.experiment.phases.callback_configs import callback_registry

__all__ = [
    "F1",
    "MAE",
    "R2",
    "RMSE",
    "Accuracy",
    "ArtifactResult",
    "Callback",
    "CallbackResult",
    "EarlyStopping",
    "EarlyStoppingResult",
    "EvalLossMetric",
    "Evaluation",
    "EvaluationCallbackResult",
    "EvaluationMetric",
    "ExperimentCallback",
    "MetricCallback",
    "MetricResult",
    "PayloadResult",
    "ProbeLogger",
    "Score",
    "callback_registry",
    "probe_registry",
    "GradientClipping",
    "LearningRateLogger",
    "ModelSummary",
    "ProgressPrinter",
    "TimeLimit",
    "CSVLogger",
    "FileLogger",
    "JSONLogger",
    "MetricsLogger",
    "MLflowLogger",
    "TensorBoardLogger",
]
