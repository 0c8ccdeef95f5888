"""The registry of splitters."""

from __future__ import annotations

from keydnn.experiment.registry import Registry

_HERE = "keydnn.experiment.splitters"
splitter_registry = Registry(
    "splitter",
    {
        "RandomSplitter": f"{_HERE}.random:RandomSplitter",
        "ConditionSplitter": f"{_HERE}.condition:ConditionSplitter",
        "KFoldSplitter": f"{_HERE}.ordered:KFoldSplitter",
        "TimeSplitter": f"{_HERE}.ordered:TimeSplitter",
    },
)
