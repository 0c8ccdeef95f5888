"""Metrics over many batches that no mean of batch values gives: counts and sums are kept, the value comes at the end.

    precision = TP / (TP + FP);  recall = TP / (TP + FN);  F1 = 2 TP / (2 TP + FP + FN)       (0 where the divisor is 0)
    RMSE = sqrt(mean (y - p)^2);  R^2 = 1 - sum (y - p)^2 / sum (y - mean y)^2
    AUC = P(score of a positive > score of a negative) + P(equal) / 2                 (Hanley & McNeil 1982)

Pass them in ``metrics`` of ``fit`` and ``evaluate`` (an object, or its name: ``precision``, ``recall``, ``f1``, ``auc``, ``rmse``,
``r2``, ``top_5_accuracy``), or use them alone:

>>> from keydnn.training.streaming import Recall
>>> recall = Recall()
>>> recall.update(np.array([1, 0, 1]), np.array([0.9, 0.8, 0.1]))
>>> recall.result()
0.5

Counts are float64 tensors that operations of the step write, so they are kept inside recorded steps and nothing is read
back until the value is asked for.  AUC without ``bins`` keeps every score and runs after the step.
"""

from collections.abc import Callable

from keydnn.training.streaming.base import StreamingMetric
from keydnn.training.streaming.classes import ConfusionMatrix, TopKAccuracy
from keydnn.training.streaming.decisions import F1, Precision, Recall
from keydnn.training.streaming.errors import R2, RMSE
from keydnn.training.streaming.ranks import AUC

STREAMING: dict[str, Callable[[], StreamingMetric]] = {
    "precision": Precision,
    "recall": Recall,
    "f1": F1,
    "auc": AUC,
    "rmse": RMSE,
    "r2": R2,
    "top_5_accuracy": TopKAccuracy,
}

__all__ = [
    "AUC",
    "F1",
    "R2",
    "RMSE",
    "STREAMING",
    "ConfusionMatrix",
    "Precision",
    "Recall",
    "StreamingMetric",
    "TopKAccuracy",
]
