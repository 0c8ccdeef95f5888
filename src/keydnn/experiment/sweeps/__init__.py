"""Sweeps: one experiment, many settings."""

from keydnn.experiment.sweeps.results import SweepResults, Trial
from keydnn.experiment.sweeps.sweep import Sweep

__all__ = ["Sweep", "SweepResults", "Trial"]
