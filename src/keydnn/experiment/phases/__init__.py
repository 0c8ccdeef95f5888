"""Phases: what is run over which data, and what is kept on the way."""

from keydnn.experiment.phases.checkpointing import Checkpointing
from keydnn.experiment.phases.recording import ResultRecording

__all__ = ["Checkpointing", "ResultRecording"]
