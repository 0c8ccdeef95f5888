"""Callbacks: listeners that ``fit`` tells what happens, one file per kind."""

from keydnn.training.callbacks.base import Callback, CallbackList, ICallback
from keydnn.training.callbacks.checkpoints import ModelCheckpoint, TrainingCheckpoint
from keydnn.training.callbacks.logs import CSVLogger, LambdaCallback, ProgressBar
from keydnn.training.callbacks.rates import LearningRateScheduler, ReduceLROnPlateau
from keydnn.training.callbacks.stopping import EarlyStopping, TerminateOnNaN

__all__ = [
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "ICallback",
    "LambdaCallback",
    "ProgressBar",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
    "TrainingCheckpoint",
]
