"""Phases: what is trained, evaluated and fitted, on which rows, in which order, and what is kept on the way."""

from keydnn.experiment.bindings import InputBinding
from keydnn.experiment.phases.checkpointing import Checkpointing
from keydnn.experiment.phases.eval import EvalPhase
from keydnn.experiment.phases.fit import FitPhase
from keydnn.experiment.phases.group import PhaseGroup
from keydnn.experiment.phases.phase import ExperimentPhase
from keydnn.experiment.phases.recording import ResultRecording
from keydnn.experiment.phases.schedule import BatchSchedulingPolicy
from keydnn.experiment.phases.train import TrainPhase

__all__ = [
    "BatchSchedulingPolicy",
    "Checkpointing",
    "EvalPhase",
    "ExperimentPhase",
    "FitPhase",
    "InputBinding",
    "PhaseGroup",
    "ResultRecording",
    "TrainPhase",
]
