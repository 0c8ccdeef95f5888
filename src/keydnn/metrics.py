"""Metrics of ``fit``, ``evaluate`` and ``train_on_batch``: functions, and objects that count over all batches."""

from keydnn.training.metrics import METRICS, accuracy, mean_absolute_error, mean_squared_error
from keydnn.training.streaming import (
    AUC,
    F1,
    R2,
    RMSE,
    STREAMING,
    ConfusionMatrix,
    Precision,
    Recall,
    StreamingMetric,
    TopKAccuracy,
)

__all__ = [
    "AUC",
    "F1",
    "METRICS",
    "R2",
    "RMSE",
    "STREAMING",
    "ConfusionMatrix",
    "Precision",
    "Recall",
    "StreamingMetric",
    "TopKAccuracy",
    "accuracy",
    "mean_absolute_error",
    "mean_squared_error",
]
