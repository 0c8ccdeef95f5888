"""Layers without parameters compute in the dtype of their input, or in the one that was chosen."""

import inspect
from functools import partial

import numpy as np
import pytest

import keydnn
from keydnn import nn
from keydnn.nn.layers.layer import Weightless
from keydnn.saving import registered, registered_names

WEIGHTLESS = {
    "Dropout": (4,), "MaxPool2d": (1, 1, 4, 4), "AvgPool2d": (1, 1, 4, 4), "GlobalAvgPool2d": (1, 1, 4, 4), "Flatten": (2, 3), "ReLU": (4,),
    "LeakyReLU": (4,), "Sigmoid": (4,), "Tanh": (4,), "Softmax": (4,), "LogSoftmax": (4,), "GELU": (4,), "SiLU": (4,), "ELU": (4,),
    "SELU": (4,), "Softplus": (4,), "Softsign": (4,), "Mish": (4,), "ReLU6": (4,), "Hardtanh": (4,), "HardSigmoid": (4,),
    "Hardswish": (4,), "Identity": (4,), "MaxPool1d": (1, 1, 4), "AvgPool1d": (1, 1, 4), "MaxPool3d": (1, 1, 2, 2, 2),
    "AvgPool3d": (1, 1, 2, 2, 2), "AdaptiveAvgPool1d": (1, 1, 4), "AdaptiveAvgPool2d": (1, 1, 4, 4), "AdaptiveAvgPool3d": (1, 1, 2, 2, 2),
    "AdaptiveMaxPool1d": (1, 1, 4), "AdaptiveMaxPool2d": (1, 1, 4, 4), "AdaptiveMaxPool3d": (1, 1, 2, 2, 2), "ZeroPad2d": (1, 1, 2, 2),
    "Upsample": (1, 1, 2, 2), "PixelShuffle": (1, 4, 2, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTLESS)
def test_a_layer_without_parameters_computes_in_the_chosen_dtype(name):
    cls = getattr(nn, name)
    asks = next((p for p in inspect.signature(cls).parameters.values() if p.default is p.empty), None)
    make = partial(cls, *([] if asks is None else [2]))
    x = keydnn.rand(WEIGHTLESS[name])
    plain = make().eval()
    assert plain.dtype is None and plain(x).dtype == np.float32 and "dtype" not in plain.get_config()
    for dtype in (np.float32, np.float64):
        chosen = make(dtype=dtype).eval()
        for given in (np.float32, np.float64):
            leaf = keydnn.tensor(x.to_numpy().astype(given), requires_grad=True)
            y = chosen(leaf)
            assert y.dtype == dtype
            np.testing.assert_allclose(y.to_numpy(), plain(x).to_numpy(), rtol=1e-6, atol=1e-7)
            y.sum().backward()
            assert leaf.grad.dtype == given
        assert chosen.get_config() == {**plain.get_config(), "dtype": np.dtype(dtype).name}
        assert f"dtype={np.dtype(dtype)}" in repr(chosen) and "dtype" not in repr(plain)
    with pytest.raises(TypeError, match=f"{name}.*int32"):
        make(dtype="int32")


def test_every_layer_takes_a_dtype():
    layers = [registered(name) for name in registered_names() if registered(name).__module__.startswith("keydnn.nn.layers.")]
    without = [cls for cls in layers if "dtype" not in inspect.signature(cls).parameters]
    assert without == [nn.Bidirectional]  # it takes that of the layer it is made of
    assert {cls.__name__ for cls in layers if issubclass(cls, Weightless)} == set(WEIGHTLESS)
