"""Training: models, the loop, callbacks, metrics, and the state of a run.

>>> from keydnn.nn import Dense, ReLU
>>> from keydnn.training import Sequential
>>> model = Sequential(Dense(8), ReLU(), Dense(1))
>>> model.build((1, 3))
>>> model.predict(np.zeros((2, 3))).shape
(2, 1)
"""

from keydnn.training.callbacks import (
    Callback,
    CallbackList,
    CSVLogger,
    EarlyStopping,
    ICallback,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ProgressBar,
    ReduceLROnPlateau,
    TerminateOnNaN,
    TrainingCheckpoint,
)
from keydnn.training.history import History
from keydnn.training.loop import BatchHooks, Totals, run_steps
from keydnn.training.metrics import METRICS, accuracy, mean_absolute_error, mean_squared_error
from keydnn.training.mixed import MixedPrecision
from keydnn.training.model import Model
from keydnn.training.sequential import Sequential
from keydnn.training.state import Run, TrainingState

__all__ = [
    "METRICS",
    "BatchHooks",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "ICallback",
    "LambdaCallback",
    "ProgressBar",
    "LearningRateScheduler",
    "MixedPrecision",
    "Model",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "Run",
    "Sequential",
    "TerminateOnNaN",
    "Totals",
    "TrainingCheckpoint",
    "TrainingState",
    "accuracy",
    "mean_absolute_error",
    "mean_squared_error",
    "run_steps",
]
