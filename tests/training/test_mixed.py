"""Mixed precision: parameters keep their dtype, layers compute in the other; astype."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import keydnn
from keydnn import nn
from keydnn.compiler import usable
from keydnn.models import MixedPrecision
from keydnn.training import Sequential

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(40, 1, 8, 8))
STEPS = RNG.normal(size=(5, 40, 3))
TOKENS = RNG.integers(0, 7, (40, 5))


def cnn():
    return Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.PReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 3)
    )


def rnn():
    return Sequential(nn.Bidirectional(nn.LSTM(3, 4)), nn.GRU(8, 4, return_sequences=False, return_state=False), nn.Linear(4, 3))


def text():
    layers = nn.Embedding(7, 4), nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.0), nn.Flatten(), nn.Linear(20, 3)
    return Sequential(*layers)


NETWORKS = {"cnn": (cnn, IMAGES), "rnn": (rnn, STEPS), "text": (text, TOKENS)}
networks = pytest.mark.parametrize("name", NETWORKS)


def made(name, dtype="float64"):
    np.random.seed(0)
    return NETWORKS[name][0]().astype(dtype)


def grads(model, x):
    loss = (model(x) ** 2).sum()
    loss.backward()
    return loss.item(), [p.grad for p in model.parameters()]


@networks
def test_values_and_gradients_are_those_of_float32_in_float64(name):
    x = keydnn.tensor(NETWORKS[name][1], dtype="float64")
    exact, mixed, single = made(name), MixedPrecision(made(name)), made(name, "float32")
    kinds = {id(layer): [] for layer in mixed.modules()}
    for layer in mixed.inner:
        layer.register_forward_hook(lambda layer, args, y: kinds[id(layer)].append(y.dtype))
    y = mixed(x)
    assert y.dtype == np.float64
    assert {kind for found in kinds.values() for kind in found} == {np.dtype(np.float32)}
    (loss, want), (mixed_loss, got) = grads(exact, x), grads(mixed, x)
    (single_loss, _) = grads(single, keydnn.tensor(x.numpy(), dtype="float32"))
    assert_allclose([mixed_loss, single_loss], loss, rtol=1e-4)
    assert mixed_loss != loss
    for a, b in zip(got, want, strict=True):
        assert a.dtype == np.float64
        assert_allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-4 * abs(b.numpy()).max() + 1e-5)


@networks
def test_everything_is_put_back(name):
    model = MixedPrecision(made(name))
    model(keydnn.tensor(NETWORKS[name][1], dtype="float64"))
    with pytest.raises((ValueError, TypeError)):
        model(keydnn.ones((1, 1)))
    for module in model.modules():
        assert "forward" not in module.__dict__
        assert all(module.__dict__[key] is parameter for key, parameter in module._parameters.items())
    assert all(type(p) is nn.Parameter and p.dtype == np.float64 for p in model.parameters())


@pytest.mark.skipif(not usable(), reason="plans need the native kernels")
@networks
def test_recorded_steps_are_the_eager_ones(name):
    y, ends = RNG.integers(0, 3, 40), []
    for compile in (True, False):
        model = MixedPrecision(made(name))
        x = NETWORKS[name][1]
        batches = [(x[:, :20] if name == "rnn" else x[:20], y[:20]), (x[:, 20:] if name == "rnn" else x[20:], y[20:])]
        np.random.seed(1)
        model.fit(batches, loss="cross_entropy", optimizer="sgd", optimizer_kwargs={"lr": 0.1}, epochs=4, verbose=0, compile=compile)
        assert not compile or model.plan_report().startswith("plan of")
        ends.append(model.state_dict())
    for key, value in ends[0].items():
        assert value.dtype == np.float64
        assert_allclose(value, ends[1][key], rtol=1e-3, atol=1e-5)


def test_updates_too_small_for_float32_add_up():
    x, y = np.ones((4, 1)), np.zeros((4, 1))
    ends = []
    for wrap, dtype in ((MixedPrecision, "float64"), (lambda model: model, "float32")):
        layers = Sequential(nn.Linear(1, 1, bias=False, initializer="ones")).astype(dtype)
        wrap(layers).fit(x, y, loss="mse", optimizer="sgd", optimizer_kwargs={"lr": 1e-9}, epochs=50, verbose=0)
        ends.append(1.0 - float(layers[0].weight.item()))
    assert ends[0] == pytest.approx(50 * 2e-9, rel=1e-6) and ends[1] == 0.0


def test_saved_built_and_refused(tmp_path):
    model = MixedPrecision(Sequential(nn.Dense(4), nn.BatchNorm1d(4), nn.Dense(2)).astype("float64"))
    with pytest.raises(RuntimeError, match="build"):
        model.predict(np.ones((2, 3)))
    model.build((1, 3))
    assert {p.dtype for p in model.parameters()} == {np.dtype(np.float64)}
    model.fit(np.ones((4, 3)), np.ones((4, 2)), loss="mse", optimizer="adam", verbose=0)
    model.save_json(tmp_path / "m.json")
    again = MixedPrecision.load_json(tmp_path / "m.json")
    assert again.compute == model.compute
    assert again.predict(np.ones((2, 3))).numpy().tobytes() == model.predict(np.ones((2, 3))).numpy().tobytes()
    with pytest.raises(TypeError, match="MixedPrecision: expected a Module, got int"):
        MixedPrecision(3)
    with pytest.raises(TypeError, match="MixedPrecision: dtype must be float32 or float64, got int"):
        MixedPrecision(nn.ReLU(), "int32")


def test_astype_keeps_objects_and_says_what_layers_are():
    layer = nn.Linear(3, 2)
    layer(keydnn.ones((1, 3))).sum().backward()
    weight, values = layer.weight, layer.weight.numpy()
    model = Sequential(layer, nn.BatchNorm1d(2), nn.LSTMCell(2, 2), nn.ReLU())
    assert model.astype(np.float64) is model and layer.weight is weight and weight.grad is None
    assert weight.dtype == np.float64 and weight.numpy().tolist() == values.tolist()
    assert model[1].running_mean.dtype == np.float64
    assert [m.get_config().get("dtype") for m in model] == ["float64", "float64", "float64", None]
    assert {p.dtype.name for p in keydnn.module_from_config(keydnn.module_to_config(model)).parameters()} == {"float64"}
    assert model.astype("float32")[0].weight.numpy().dtype == np.float32
    with pytest.raises(TypeError, match="Sequential: dtype must be float32 or float64"):
        model.astype("float16")
