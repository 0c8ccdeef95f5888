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
from keydnn.optim.composed import LAMB, Adadelta, Adagrad, Adamax, Lion, NAdam, RMSprop
from keydnn.optim.optimizer import Group, Optimizer
from keydnn.optim.schedules import (
    SCHEDULES,
    CosineLR,
    CosineRestartsLR,
    ExponentialLR,
    InverseSqrtLR,
    LambdaLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    Schedule,
    StepLR,
    WarmupLR,
    schedule_from_config,
)
from keydnn.optim.sgd import SGD

OPTIMIZERS: dict[str, type[Optimizer]] = {  # the names that fit() takes
    cls.__name__.lower(): cls for cls in (SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta, Adamax, NAdam, Lion, LAMB)
}

__all__ = [
    "LAMB",
    "OPTIMIZERS",
    "Adadelta",
    "Adagrad",
    "Adamax",
    "Lion",
    "NAdam",
    "RMSprop",
    "CosineRestartsLR",
    "InverseSqrtLR",
    "OneCycleLR",
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
