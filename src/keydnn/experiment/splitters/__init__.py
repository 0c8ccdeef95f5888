"""Splitters: how rows are cut into named parts so that nothing leaks."""

from keydnn.experiment.splitters.base import BaseSplitter
from keydnn.experiment.splitters.condition import ConditionSplitter
from keydnn.experiment.splitters.ordered import KFoldSplitter, TimeSplitter
from keydnn.experiment.splitters.random import RandomSplitter
from keydnn.experiment.splitters.record import SplitterRecord
from keydnn.experiment.splitters.registry import splitter_registry

__all__ = [
    "BaseSplitter",
    "ConditionSplitter",
    "KFoldSplitter",
    "RandomSplitter",
    "SplitterRecord",
    "TimeSplitter",
    "splitter_registry",
]
