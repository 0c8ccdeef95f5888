"""Optimizers, learning rate schedules, gradient clipping."""

from keydnn.optim import (
    SGD,
    Adam,
    AdamW,
    CosineLR,
    ExponentialLR,
    LambdaLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
    WarmupLR,
    clip_grad_norm,
    clip_grad_value,
)

__all__ = [
    "Adam",
    "AdamW",
    "CosineLR",
    "ExponentialLR",
    "LambdaLR",
    "MultiStepLR",
    "PolynomialLR",
    "SGD",
    "StepLR",
    "WarmupLR",
    "clip_grad_norm",
    "clip_grad_value",
]
