"""Losses and optimizers as values, and the records of losses."""

from keydnn.experiment.training.applied_loss import AppliedLoss
from keydnn.experiment.training.loss import Loss
from keydnn.experiment.training.optimizer import Optimizer
from keydnn.experiment.training.records import LossCollection, LossRecord

__all__ = ["AppliedLoss", "Loss", "LossCollection", "LossRecord", "Optimizer"]
