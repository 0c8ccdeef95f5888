"""Losses of torch whose mean over all elements torch computes in one step, forward and backward."""

from __future__ import annotations

import copy
from typing import Any

_ELEMENTWISE = ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss")


def mean_of(loss: Any) -> Any:
    """What gives the mean of the values of a loss object, for inputs of one shape; None if that takes a step of its own."""
    kind = type(loss)
    if kind.__module__ != "torch.nn.modules.loss" or kind.__name__ not in _ELEMENTWISE or loss.reduction != "none":
        return None
    mean = copy.copy(loss)
    mean.reduction = "mean"
    hooks = (mean._forward_hooks, mean._forward_pre_hooks, mean._backward_hooks, mean._backward_pre_hooks)
    return mean if any(hooks) else mean.forward  # beside hooks a call of a module does nothing else
