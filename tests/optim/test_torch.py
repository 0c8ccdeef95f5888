"""The same steps as PyTorch, in float64: there the only difference is the order of rounding."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from keydnn import Tensor
from keydnn.optim import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    CosineLR,
    CosineRestartsLR,
    ExponentialLR,
    MultiStepLR,
    NAdam,
    OneCycleLR,
    PolynomialLR,
    RMSprop,
    StepLR,
    clip_grad_norm,
    clip_grad_value,
)

pytestmark = pytest.mark.torch

ROWS = [
    (SGD, "SGD", {"lr": 0.1}),
    (SGD, "SGD", {"lr": 0.1, "weight_decay": 0.2}),
    (SGD, "SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    (SGD, "SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (Adam, "Adam", {"lr": 0.1}),
    (Adam, "Adam", {"lr": 0.1, "betas": (0.7, 0.8), "eps": 1e-4, "weight_decay": 0.3}),
    (AdamW, "AdamW", {"lr": 0.1}),
    (RMSprop, "RMSprop", {"lr": 0.1}),
    (RMSprop, "RMSprop", {"lr": 0.1, "alpha": 0.8, "momentum": 0.6, "centered": True, "weight_decay": 0.1}),
    (Adagrad, "Adagrad", {"lr": 0.1, "weight_decay": 0.1}),
    (Adadelta, "Adadelta", {"lr": 1.0, "rho": 0.8, "weight_decay": 0.1}),
    (Adamax, "Adamax", {"lr": 0.1, "betas": (0.7, 0.8), "weight_decay": 0.1}),
    (NAdam, "NAdam", {"lr": 0.1, "betas": (0.7, 0.8), "weight_decay": 0.1}),
    (AdamW, "AdamW", {"lr": 0.1, "betas": (0.7, 0.8), "weight_decay": 0.3}),
]


def pairs(rng, shapes=((4, 3), (3,), ())):
    import torch

    values = [np.asarray(rng.normal(size=shape)) for shape in shapes]
    ours = [Tensor(data=v, requires_grad=True, dtype=np.float64) for v in values]
    return ours, [torch.tensor(v, requires_grad=True) for v in values]


def give_grads(ours, theirs, rng):
    import torch

    for p, q in zip(ours, theirs, strict=True):
        g = np.asarray(rng.normal(size=p.shape))
        p.grad, q.grad = Tensor(data=g, dtype=np.float64), torch.tensor(g)


@pytest.mark.parametrize(("ours", "theirs", "settings"), ROWS, ids=str)
def test_ten_steps(ours, theirs, settings):
    import torch

    rng = np.random.default_rng(0)
    params, twins = pairs(rng)
    optimizer, twin = ours(params, **settings), getattr(torch.optim, theirs)(twins, **settings)
    for _ in range(10):
        give_grads(params, twins, rng)
        optimizer.step(), twin.step()
    rtol = 1e-5 if ours is NAdam else 1e-11  # PyTorch keeps the product of NAdam's momenta in float32
    for p, q in zip(params, twins, strict=True):
        assert_allclose(p.to_numpy(), q.detach().numpy(), rtol=rtol, atol=rtol / 100)


def test_defaults_are_the_same():
    import torch

    p = Tensor((1,), requires_grad=True)
    for ours, theirs in ((Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)):
        config, defaults = ours([p]).get_config(), theirs([torch.zeros(1)]).defaults
        assert {key: tuple(v) if isinstance(v, list) else v for key, v in config.items()} == {key: defaults[key] for key in config}


def test_clipping():
    import torch

    rng = np.random.default_rng(1)
    params, twins = pairs(rng)
    give_grads(params, twins, rng)
    norm = clip_grad_norm(params, 0.7)
    assert_allclose(norm.item(), torch.nn.utils.clip_grad_norm_(twins, 0.7).item(), rtol=1e-13)
    clip_grad_value(params, 0.1)
    torch.nn.utils.clip_grad_value_(twins, 0.1)
    for p, q in zip(params, twins, strict=True):
        assert_allclose(p.grad.to_numpy(), q.grad.numpy(), rtol=1e-13)


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (StepLR(3, 0.5), "StepLR", {"step_size": 3, "gamma": 0.5}),
        (MultiStepLR([2, 5], 0.1), "MultiStepLR", {"milestones": [2, 5], "gamma": 0.1}),
        (ExponentialLR(0.8), "ExponentialLR", {"gamma": 0.8}),
        (CosineLR(8), "CosineAnnealingLR", {"T_max": 8}),
        (CosineRestartsLR(2, 2), "CosineAnnealingWarmRestarts", {"T_0": 2, "T_mult": 2}),
        (CosineRestartsLR(3), "CosineAnnealingWarmRestarts", {"T_0": 3}),
        (OneCycleLR(12, start=10.0), "OneCycleLR", {"max_lr": 0.3, "total_steps": 12, "div_factor": 10.0, "cycle_momentum": False}),
        (PolynomialLR(6, 2.0), "PolynomialLR", {"total_iters": 6, "power": 2.0}),
    ],
    ids=str,
)
def test_schedules(ours, theirs, settings):
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    schedule = getattr(torch.optim.lr_scheduler, theirs)(optimizer, **settings)
    for t in range(8):
        assert ours.lr(0.3, t) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-15)
        optimizer.step(), schedule.step()
