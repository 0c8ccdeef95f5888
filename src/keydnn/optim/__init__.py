"""Update rules, gradient clipping and learning rate schedules.

>>> from keydnn.optim import SGD
>>> p = keydnn.tensor([1.0, 2.0], requires_grad=True)
>>> optimizer = SGD([p], lr=0.25)
>>> (p * p).sum().backward()
>>> optimizer.step()
>>> p.tolist()
[0.5, 1.0]
"""

from keydnn.optim.adam import Adam, AdamW
from keydnn.optim.clip import clip_grad_norm, clip_grad_value
from keydnn.optim.optimizer import Group, Optimizer
from keydnn.optim.schedules import (
    SCHEDULES,
    CosineLR,
    ExponentialLR,
    LambdaLR,
    MultiStepLR,
    PolynomialLR,
    Schedule,
    StepLR,
    WarmupLR,
    schedule_from_config,
)
from keydnn.optim.sgd import SGD

OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}  # the names that fit() takes

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "Adam",
    "AdamW",
    "CosineLR",
    "ExponentialLR",
    "Group",
    "LambdaLR",
    "MultiStepLR",
    "Optimizer",
    "PolynomialLR",
    "Schedule",
    "StepLR",
    "WarmupLR",
    "clip_grad_norm",
    "clip_grad_value",
    "schedule_from_config",
]
