"""Phases: what is run over which data, and what is kept on the way."""

from keydnn.experiment.phases.checkpointing import Checkpointing

__all__ = ["Checkpointing"]
