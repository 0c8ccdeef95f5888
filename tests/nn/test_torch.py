"""Layers and losses against PyTorch, in float64 where only the order of rounding differs.

Where the two are meant to differ the difference is put into the PyTorch side: its BatchNorm keeps the unbiased variance in the
running statistics, its losses do not limit probabilities in the same way.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from keydnn import Tensor, nn

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")]

X2, X4, X5 = (6, 4), (2, 4, 7, 6), (2, 4, 5, 7, 6)


def same(*settings, **options):
    """Both sides are made with the same arguments."""
    return lambda cls, other: (cls(*settings, **options, dtype="f8"), other(*settings, **options, dtype=_f8()))


def plain(*settings, **options):
    return lambda cls, other: (cls(*settings, **options), other(*settings, **options))


def _f8():
    import torch

    return torch.float64


LAYERS = {  # name -> our class, PyTorch's, how to make both, shape of x
    "Linear": ("Linear", "Linear", same(4, 5), X2),
    "Linear-no-bias": ("Linear", "Linear", same(4, 5, bias=False), X2),
    "Linear-volume": (
        "Linear",
        "Linear",
        lambda cls, other: (cls(6, 3, dtype="f8", any_rank=True), other(6, 3, dtype=_f8())),
        X4,
    ),
    "Conv2d": ("Conv2d", "Conv2d", same(4, 6, 3), X4),
    "Conv2d-geometry": ("Conv2d", "Conv2d", same(4, 6, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(1, 2), groups=2), X4),
    "Conv2d-same": ("Conv2d", "Conv2d", same(4, 6, (4, 3), padding="same", dilation=(1, 2)), X4),
    "Conv2d-valid": ("Conv2d", "Conv2d", same(4, 2, 2, padding="valid", bias=False), X4),
    "Conv2dTranspose": ("Conv2dTranspose", "ConvTranspose2d", same(4, 3, 3), X4),
    "Conv2dTranspose-geometry": (
        "Conv2dTranspose",
        "ConvTranspose2d",
        same(4, 6, (3, 2), stride=(3, 2), padding=(1, 0), output_padding=(2, 1), groups=2, dilation=(1, 2)),
        X4,
    ),
    "BatchNorm1d": ("BatchNorm1d", "BatchNorm1d", same(4, eps=0.01, momentum=0.2), X2),
    "BatchNorm1d-plain": ("BatchNorm1d", "BatchNorm1d", same(4, affine=False), X2),
    "BatchNorm2d": ("BatchNorm2d", "BatchNorm2d", same(4, eps=0.01, momentum=0.2), X4),
    "MaxPool2d": ("MaxPool2d", "MaxPool2d", plain(2), X4),
    "MaxPool2d-geometry": ("MaxPool2d", "MaxPool2d", plain((3, 2), stride=(1, 2), padding=1), X4),
    "AvgPool2d": ("AvgPool2d", "AvgPool2d", plain(2), X4),
    "AvgPool2d-geometry": ("AvgPool2d", "AvgPool2d", plain((3, 2), stride=(1, 2), padding=1), X4),
    "Flatten": ("Flatten", "Flatten", plain(), X4),
    "ReLU": ("ReLU", "ReLU", plain(), X2),
    "LeakyReLU": ("LeakyReLU", "LeakyReLU", plain(0.2), X2),
    "Sigmoid": ("Sigmoid", "Sigmoid", plain(), X2),
    "Tanh": ("Tanh", "Tanh", plain(), X2),
    "GELU": ("GELU", "GELU", plain(), X2),
    "SiLU": ("SiLU", "SiLU", plain(), X2),
    "ELU": ("ELU", "ELU", plain(1.5), X2),
    "SELU": ("SELU", "SELU", plain(), X2),
    "Softplus": ("Softplus", "Softplus", plain(), X2),
    "Softsign": ("Softsign", "Softsign", plain(), X2),
    "Mish": ("Mish", "Mish", plain(), X2),
    "ReLU6": ("ReLU6", "ReLU6", plain(), X2),
    "HardSigmoid": ("HardSigmoid", "Hardsigmoid", plain(), X2),
    "Hardswish": ("Hardswish", "Hardswish", plain(), X2),
    "PReLU": ("PReLU", "PReLU", same(), X2),
    "PReLU-channels": ("PReLU", "PReLU", same(4), X4),
    "Softmax": ("Softmax", "Softmax", lambda cls, other: (cls(axis=1), other(dim=1)), X4),
    "LogSoftmax": ("LogSoftmax", "LogSoftmax", lambda cls, other: (cls(), other(dim=-1)), X2),
    "LayerNorm": ("LayerNorm", "LayerNorm", lambda cls, other: (cls((7, 6), eps=0.1, dtype="f8"), other((7, 6), eps=0.1, dtype=_f8())), X4),
    "LayerNorm-plain": (
        "LayerNorm",
        "LayerNorm",
        lambda cls, other: (cls(6, affine=False, dtype="f8"), other(6, elementwise_affine=False, dtype=_f8())),
        X4,
    ),
    "GroupNorm": ("GroupNorm", "GroupNorm", same(2, 4, eps=0.01), X4),
    "InstanceNorm2d": ("InstanceNorm2d", "InstanceNorm2d", same(4, eps=0.01, affine=True), X4),
    "RMSNorm": ("RMSNorm", "RMSNorm", same(6, eps=0.01), X4),
    "Conv1d": ("Conv1d", "Conv1d", same(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), (2, 4, 11)),
    "MaxPool1d": ("MaxPool1d", "MaxPool1d", plain(3, stride=2, padding=1), (2, 4, 11)),
    "AvgPool1d": ("AvgPool1d", "AvgPool1d", plain(3, stride=2, padding=1), (2, 4, 11)),
    "AdaptiveAvgPool2d": ("AdaptiveAvgPool2d", "AdaptiveAvgPool2d", plain((3, 4)), X4),
    "AdaptiveAvgPool1d": ("AdaptiveAvgPool1d", "AdaptiveAvgPool1d", plain(3), (2, 4, 11)),
    "AdaptiveAvgPool3d": ("AdaptiveAvgPool3d", "AdaptiveAvgPool3d", plain((2, 3, 5)), X5),
    "AdaptiveMaxPool1d": ("AdaptiveMaxPool1d", "AdaptiveMaxPool1d", plain(4), (2, 4, 11)),
    "AdaptiveMaxPool2d": ("AdaptiveMaxPool2d", "AdaptiveMaxPool2d", plain((3, 4)), X4),
    "AdaptiveMaxPool3d": ("AdaptiveMaxPool3d", "AdaptiveMaxPool3d", plain((2, 3, 5)), X5),
    "Conv3d": (
        "Conv3d",
        "Conv3d",
        same(4, 6, (2, 3, 2), stride=(1, 2, 1), padding=(1, 0, 2), dilation=(2, 1, 1), groups=2),
        X5,
    ),
    "MaxPool3d": ("MaxPool3d", "MaxPool3d", plain((3, 2, 2), stride=(1, 2, 1), padding=1), X5),
    "AvgPool3d": ("AvgPool3d", "AvgPool3d", plain((3, 2, 2), stride=(1, 2, 1), padding=1), X5),
    "ZeroPad2d": ("ZeroPad2d", "ZeroPad2d", plain((1, 2, 0, 3)), X4),
    "Upsample-bilinear": ("Upsample", "Upsample", lambda cls, other: (cls((2, 3), "bilinear"), other(None, (2, 3), "bilinear")), X4),
    "Upsample-corners": (
        "Upsample",
        "Upsample",
        lambda cls, other: (cls((2, 3), "bilinear", True), other(None, (2, 3), "bilinear", True)),
        X4,
    ),
    "Upsample": ("Upsample", "Upsample", lambda cls, other: (cls((2, 3)), other(scale_factor=(2, 3))), X4),
    "PixelShuffle": ("PixelShuffle", "PixelShuffle", plain(2), X4),
    "Identity": ("Identity", "Identity", plain(), X4),
    "Hardtanh": ("Hardtanh", "Hardtanh", plain(), X2),
    "GlobalAvgPool2d": ("GlobalAvgPool2d", "AdaptiveAvgPool2d", lambda cls, other: (cls(), other(1)), X4),
    "Dropout": ("Dropout", "Dropout", plain(0.5), X2),
}
THEIR_NAMES = {"gamma": "weight", "beta": "bias"}


def pair_of(name):
    """Both layers with equal weights away from their start, and an input for each."""
    import torch

    ours, theirs, make, shape = LAYERS[name]
    layer, other = make(getattr(nn, ours), getattr(torch.nn, theirs))
    rng = np.random.default_rng(3)
    for key, parameter in layer.named_parameters():
        values = rng.normal(size=parameter.shape)
        parameter.copy_from_numpy(values)
        getattr(other, THEIR_NAMES.get(key, key)).data = torch.tensor(values)
    x = rng.normal(size=shape) * 3.0
    return layer, other, Tensor(data=x, requires_grad=True, dtype="f8"), torch.tensor(x, requires_grad=True)


@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients(name):
    import torch

    layer, other, x, z = pair_of(name)
    for training in (True, False):
        if name == "Dropout" and training:
            continue
        layer.train(training)
        other.train(training)
        y, want = layer(x), other(z)
        assert_allclose(y.to_numpy(), want.detach().numpy(), rtol=1e-9, atol=1e-11)
        g = np.random.default_rng(4).normal(size=y.shape)
        layer.zero_grad()
        other.zero_grad()
        x.grad = z.grad = None
        y.backward(Tensor(data=g, dtype="f8"))
        want.backward(torch.tensor(g))
        assert_allclose(x.grad.to_numpy(), z.grad.numpy(), rtol=1e-7, atol=1e-9)
        for key, parameter in layer.named_parameters():
            theirs = getattr(other, THEIR_NAMES.get(key, key)).grad.numpy()
            assert_allclose(parameter.grad.to_numpy(), theirs, rtol=1e-7, atol=1e-9, err_msg=key)
        if "BatchNorm" in name:  # from here on both evaluate with the same statistics
            assert_allclose(layer.running_mean.to_numpy(), other.running_mean.numpy(), rtol=1e-9)
            n = x.size // 4
            kept = (1.0 - layer.momentum) * 1.0
            unbiased = (layer.running_var.to_numpy() - kept) * n / (n - 1) + kept
            if training:
                assert_allclose(unbiased, other.running_var.numpy(), rtol=1e-9)
            other.running_var.copy_(torch.tensor(layer.running_var.to_numpy()))


def test_max_pooling_breaks_ties_alike():
    import torch

    x = np.round(np.random.default_rng(0).normal(size=(2, 3, 9, 9)))
    ours, theirs = Tensor(data=x, requires_grad=True, dtype="f8"), torch.tensor(x, requires_grad=True)
    nn.MaxPool2d(3, 1, 1)(ours).sum().backward()
    torch.nn.MaxPool2d(3, 1, 1)(theirs).sum().backward()
    assert_allclose(ours.grad.to_numpy(), theirs.grad.numpy())


@pytest.mark.parametrize("name", ["MSE", "SSE", "BinaryCrossEntropy", "BCEWithLogits", "CrossEntropy", "CrossEntropy-soft"])
def test_losses(name):
    import torch

    rng = np.random.default_rng(5)
    probability = name == "BinaryCrossEntropy"
    p = rng.uniform(0.05, 0.95, (5, 4)) if probability else rng.normal(size=(5, 4)) * 3.0
    y = rng.integers(0, 4, 5) if name == "CrossEntropy" else rng.uniform(size=(5, 4))
    theirs = {
        "MSE": torch.nn.MSELoss(),
        "SSE": torch.nn.MSELoss(reduction="sum"),
        "BinaryCrossEntropy": torch.nn.BCELoss(),
        "BCEWithLogits": torch.nn.BCEWithLogitsLoss(),
        "CrossEntropy": torch.nn.CrossEntropyLoss(),
        "CrossEntropy-soft": torch.nn.CrossEntropyLoss(),
    }[name]
    ours = getattr(nn, name.split("-")[0])()
    a, b = Tensor(data=p, requires_grad=True, dtype="f8"), torch.tensor(p, requires_grad=True)
    target = Tensor(data=y, dtype="int64" if y.ndim == 1 else "f8")
    loss, want = ours(a, target), theirs(b, torch.tensor(y))
    loss.backward()
    want.backward()
    assert_allclose(loss.item(), want.item(), rtol=1e-12)
    assert_allclose(a.grad.to_numpy(), b.grad.numpy(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("name", "settings", "theirs", "their_settings"),
    [
        ("MSE", {}, "MSELoss", {}),
        ("BCEWithLogits", {}, "BCEWithLogitsLoss", {}),
        ("MAE", {}, "L1Loss", {}),
        ("Huber", {"delta": 0.7}, "HuberLoss", {"delta": 0.7}),
        ("CrossEntropy", {}, "CrossEntropyLoss", {}),
        ("CrossEntropy", {"label_smoothing": 0.2}, "CrossEntropyLoss", {"label_smoothing": 0.2}),
        ("CrossEntropy", {"class_weights": [1.0, 2.0, 0.5, 3.0]}, "CrossEntropyLoss", {"weight": [1.0, 2.0, 0.5, 3.0]}),
        ("CrossEntropy", {"ignore_index": 2}, "CrossEntropyLoss", {"ignore_index": 2}),
        ("CrossEntropy", {"ignore_index": -100, "label_smoothing": 0.1}, "CrossEntropyLoss", {"label_smoothing": 0.1}),
        (
            "CrossEntropy",
            {"label_smoothing": 0.1, "class_weights": [1.0, 2.0, 0.5, 3.0], "ignore_index": 0},
            "CrossEntropyLoss",
            {"label_smoothing": 0.1, "weight": [1.0, 2.0, 0.5, 3.0], "ignore_index": 0},
        ),
    ],
)
def test_losses_with_settings(name, settings, theirs, their_settings, reduction):
    import torch

    rng = np.random.default_rng(6)
    p = rng.normal(size=(7, 4)) * 2.0
    y = rng.integers(0, 4, 7) if name == "CrossEntropy" else rng.normal(size=(7, 4))
    if settings.get("ignore_index") == -100:
        y[3] = -100
    their_settings = {k: torch.tensor(v, dtype=torch.float64) if k == "weight" else v for k, v in their_settings.items()}
    a, b = Tensor(data=p, requires_grad=True, dtype="f8"), torch.tensor(p, requires_grad=True)
    loss = getattr(nn, name)(reduction=reduction, **settings)(a, Tensor(data=y, dtype="int64" if y.ndim == 1 else "f8"))
    want = getattr(torch.nn, theirs)(reduction=reduction, **their_settings)(b, torch.tensor(y))
    assert loss.shape == tuple(want.shape)
    loss.sum().backward()
    want.sum().backward()
    assert_allclose(loss.to_numpy(), want.detach().numpy(), rtol=1e-12)
    assert_allclose(a.grad.to_numpy(), b.grad.numpy(), rtol=1e-10, atol=1e-14)
