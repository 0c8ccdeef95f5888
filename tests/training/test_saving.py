"""Models as JSON checkpoints: what comes back, in what order, and what is refused."""

import json

import numpy as np
import pytest

import keydnn
from keydnn import Tensor
from keydnn.nn import BatchNorm1d, Conv2d, Dense, Dropout, Flatten, Linear, MaxPool2d, ReLU, Softmax
from keydnn.saving import register_module
from keydnn.training import Model, Sequential

X = np.random.default_rng(0).normal(size=(5, 1, 6, 6)).astype(np.float32)


@register_module("tests.Residual")
class Residual(Model):
    def __init__(self, n):
        super().__init__()
        self.n = n
        self.inner = Linear(n, n)

    def forward(self, x):
        return x + self.inner(x)

    def get_config(self):
        return {"n": self.n}

    @classmethod
    def from_config(cls, config):
        return cls(config["n"])


def rich_model():
    model = Sequential(Conv2d(1, 3, 3, padding=1), ReLU(), MaxPool2d(2), Flatten())
    model.add(Sequential(Dense(8), BatchNorm1d(8), Dropout(0.2)), name="body")
    model.add(Residual(8), name="a_residual")
    model.add(Dense(3), name="Head")
    model.add(Softmax(), name="0probabilities")
    model.build((1, 1, 6, 6))
    model.fit(X, np.eye(3)[[0, 1, 2, 0, 1]], loss="cce", optimizer="adam", epochs=3, verbose=0)
    return model


@pytest.mark.parametrize("name", ["model.json", "deep/model.json.gz"])
def test_a_model_comes_back_whole(name, tmp_path):
    model = rich_model()
    model.save_json(tmp_path / name)
    before = np.random.get_state()[1].copy()
    again = Sequential.load_json(tmp_path / name)
    assert (np.random.get_state()[1] == before).all()
    assert again.is_built and again["body"].is_built and again.order == model.order
    assert again.predict(X).to_numpy().tobytes() == model.predict(X).to_numpy().tobytes()
    assert again.to_json_payload() == model.to_json_payload()
    assert [a.tobytes() for a in again.state_dict().values()] == [a.tobytes() for a in model.state_dict().values()]  # buffers too


def test_the_envelope_is_the_format():
    payload = rich_model().to_json_payload()
    assert set(payload) == {"format", "arch", "state"} and payload["format"] == "keydnn.json.ckpt.v1"
    assert payload["arch"]["type"] == "Sequential" and payload["arch"]["config"] == {}
    assert "body.1.running_mean" in payload["state"] and "a_residual.inner.weight" in payload["state"]
    json.dumps(payload)


def test_more_than_ten_layers_keep_their_order(tmp_path):
    model = Sequential(*[Linear(2, 2) for _ in range(12)])
    model.save_json(tmp_path / "m.json")
    again = Sequential.load_json(tmp_path / "m.json")
    assert again.order == [str(i) for i in range(12)]
    assert again.predict(np.ones((1, 2))).tolist() == model.predict(np.ones((1, 2))).tolist()


def test_weights_go_in_place():
    model, other = rich_model(), rich_model()
    tensors = [*other.parameters(), *other.buffers()]
    arrays = [t.to_numpy() for t in tensors]
    other.from_json_payload_(model.to_json_payload())
    assert other.predict(X).tolist() == model.predict(X).tolist()
    assert all(t.to_numpy() is a for t, a in zip([*other.parameters(), *other.buffers()], arrays, strict=True))
    assert [id(t) for t in [*other.parameters(), *other.buffers()]] == [id(t) for t in tensors]
    model.load_state_payload_(other.to_json_payload()["state"])


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda p: p.update(format="keydnn.json.ckpt.v9"), ValueError),
        (lambda p: p.pop("state"), KeyError),
        (lambda p: p["state"].pop("1.bias"), KeyError),
        (lambda p: p["state"]["1.bias"].update(shape=[7]), ValueError),
        (lambda p: p["state"]["1.bias"].update(b64="????"), ValueError),
    ],
)
def test_a_payload_that_does_not_fit_changes_nothing(spoil, error):
    model, payload = Sequential(Linear(2, 3), Linear(3, 2)), Sequential(Linear(2, 3), Linear(3, 2)).to_json_payload()
    before = model.state_dict()
    spoil(payload)
    with pytest.raises(error):
        model.from_json_payload_(payload)
    assert all((before[name] == array).all() for name, array in model.state_dict().items())


def test_another_class_is_refused(tmp_path):
    Sequential(Linear(2, 2)).save_json(tmp_path / "m.json")
    with pytest.raises(TypeError, match="Sequential"):
        Residual.load_json(tmp_path / "m.json")
    assert isinstance(Model.load_json(tmp_path / "m.json"), Sequential)
    Residual(3).save_json(tmp_path / "r.json")
    assert Residual.load_json(tmp_path / "r.json").n == 3


def test_a_class_without_config_cannot_be_written(tmp_path):
    class Own(Model):
        pass

    with pytest.raises(NotImplementedError, match="Own.*get_config"):
        Own().save_json(tmp_path / "m.json")
    assert list(tmp_path.iterdir()) == []


def test_a_shared_layer_is_shared_again(tmp_path):
    shared = Linear(2, 2)
    model = Sequential(shared, ReLU(), shared)
    model.save_json(tmp_path / "m.json")
    model.save(tmp_path / "m.state")
    for again in (Sequential.load_json(tmp_path / "m.json"), Sequential.load(tmp_path / "m.state")):
        assert again[0] is again[2] and len(list(again.parameters())) == 2
        assert again.predict(np.ones((1, 2))).tolist() == model.predict(np.ones((1, 2))).tolist()


def test_an_unbuilt_model_comes_back_unbuilt_layers_and_all(tmp_path):
    model = Sequential(Dense(3), ReLU())
    model.save_json(tmp_path / "m.json")
    again = Sequential.load_json(tmp_path / "m.json")
    assert not again.is_built
    with pytest.raises(RuntimeError, match="build"):
        again(Tensor((1, 2)))
    again.build((1, 2))
    assert again(Tensor((1, 2))).shape == (1, 3)


class Unregistered(ReLU):
    def get_config(self):
        return {}


@pytest.mark.parametrize("save", ["save_json", "save"])
def test_saving_warns_of_classes_that_no_file_can_name(save, tmp_path):
    with pytest.warns(UserWarning, match=r"Unregistered: not registered.*register_module") as caught:
        getattr(Sequential(Unregistered(), Unregistered()), save)(tmp_path / "model")
    assert len(caught) == 1 and caught[0].filename == __file__


def test_an_unknown_class_in_a_file_says_what_to_do():
    payload = Sequential(Unregistered()).to_json_payload()
    with pytest.raises(ValueError, match=r"unknown module type 'Unregistered'; a class of your own needs @keydnn.register_module"):
        keydnn.module_from_config(payload["arch"])


def test_the_outermost_class_need_not_be_registered(tmp_path):
    class Own(Sequential):
        pass

    Own(ReLU()).save_json(tmp_path / "model.json")
    assert type(Own.load_json(tmp_path / "model.json")) is Own
