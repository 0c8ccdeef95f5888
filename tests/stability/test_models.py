"""Models: names, initial weights, seeds, weights in and out, plain training."""

import numpy as np
import pytest

import keydnn
from keydnn.stability import AffineDataset, BaseModel, LinearBlockModel

DATA = AffineDataset(40, seed=1)


def names(**options):
    return [name for name, _ in LinearBlockModel(DATA, **options).model.named_children()]


def test_layers_and_names():
    assert names() == ["dense0", "dense1", "dense2"]
    assert names(num_hidden=[3, 5], activation="relu", use_batchnorm=True) == [
        "dense0", "activation0", "batchnorm0", "dense1", "activation1", "batchnorm1", "dense2",
    ]  # fmt: skip
    assert names(num_hidden=[3, 2], activation="tanh") == ["dense0", "activation0", "dense1", "activation1"]
    assert names(num_hidden=[]) == ["dense0"] and names(num_hidden=[2]) == ["dense0"]
    model = LinearBlockModel(DATA, num_hidden=[3], activation=keydnn.Tanh(), use_bias=False)
    assert [path for path, _ in model.model.named_parameters()] == ["dense0.weight", "dense1.weight"]
    assert (model.input_shape, model.output_shape) == ((4,), (2,))
    assert len({id(layer) for layer in LinearBlockModel(DATA, activation=keydnn.Tanh()).model.children()}) == 5


def test_initial_weights():
    model = LinearBlockModel(DATA, num_hidden=[50], use_batchnorm=True, seed=3)
    W, b, gamma, beta, *_ = model.get_weights()
    assert W.dtype == np.float32 and np.abs(W).max() <= np.sqrt(6 / 54) and np.abs(W).max() > 0.9 * np.sqrt(6 / 54)
    assert not b.any() and (gamma == 1).all() and not beta.any()
    assert LinearBlockModel(DATA, dtype="float64").get_weights()[0].dtype == np.float64


def test_seeds():
    first, again, other = (LinearBlockModel(DATA, seed=seed).get_weights() for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True)) and not np.array_equal(first[0], other[0])
    np.random.seed(9)
    before = np.random.get_state()[1].copy()
    LinearBlockModel(DATA, seed=5)
    assert np.array_equal(np.random.get_state()[1], before)


def test_reinitialize_gives_the_same_start():
    model = LinearBlockModel(DATA, num_hidden=[3], use_batchnorm=True)
    start = model.get_weights()
    model.train(*DATA.get(), epochs=2)
    assert not np.array_equal(start[0], model.get_weights()[0]) and model.model["batchnorm0"].running_mean.numpy().any()
    model.reinitialize_weights()
    assert all(np.array_equal(a, b) for a, b in zip(start, model.get_weights(), strict=True))
    assert not model.model["batchnorm0"].running_mean.numpy().any()


def test_weights_in_and_out():
    model = LinearBlockModel(DATA, num_hidden=[3])
    weights = [np.full_like(w, i) for i, w in enumerate(model.get_weights())]
    model.set_weights(weights)
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))
    with pytest.raises(ValueError, match="expected shapes"):
        model.set_weights(weights[:-1])


class Empty(BaseModel):
    pass


def test_without_a_network(capsys):
    model = Empty(DATA, name="nothing")
    trained = (lambda: model.train(*DATA.get()), lambda: model.train_instrumented(*DATA.get()))
    for call in (model.reinitialize_weights, model.get_weights, *trained):
        with pytest.raises(ValueError, match="no network"):
            call()
    model.summary()
    assert "no network" in capsys.readouterr().out and "no network" in repr(model)
    assert Empty(DATA).metrics is not Empty(DATA).metrics


class Convolutional(BaseModel):
    """A model of another kind, as users write them."""

    def __post_init__(self):
        super().__post_init__()
        self.model = keydnn.Sequential()
        self.model.add(keydnn.Linear(4, 6), name="first")
        self.model.add(keydnn.Tanh(), name="bend")
        self.model.add(keydnn.Linear(6, 2), name="last")


def test_a_model_of_its_own_kind():
    model = Convolutional(DATA, seed=0)
    h = model.train_instrumented(*DATA.get(), epochs=3, batch_size=40, learning_rate=0.1)
    assert h["loss"][-1] < h["loss"][0] and np.isnan(h["hessian_lambda_max"]).all()
    model.reinitialize_weights()
    assert model.train_instrumented(*DATA.get(), epochs=1, batch_size=40)["loss"][0] == h["loss"][0]
    assert model._layer_and_field_for_variable(model.model["last"].bias) == ("last", "bias")
    assert model._layer_and_field_for_variable(keydnn.tensor([1.0])) == ("unknown", "value")


def test_train_and_compile():
    model = LinearBlockModel(DATA, num_hidden=[], seed=1)
    model._compile(optimizer="sgd", loss="mse", lr=0.1)
    losses = model.train(*DATA.get(), epochs=3, batch_size=16)["loss"]
    assert losses.shape == (9,) and losses[-1] < losses[0]
    with pytest.raises(ValueError, match="unknown loss"):
        model._compile(loss="no such loss")
    with pytest.raises(ValueError, match="samples"):
        model.train(DATA.X, DATA.Y[:3])


def test_bad_models():
    with pytest.raises(ValueError, match="unknown activation"):
        LinearBlockModel(DATA, activation="wave")
    images = AffineDataset(4, seed=0)
    images.X = np.zeros((4, 2, 2))
    with pytest.raises(ValueError, match="vectors"):
        LinearBlockModel(images)


def test_verbose_is_the_only_thing_that_prints(capsys):
    LinearBlockModel(DATA).reinitialize_weights()
    assert capsys.readouterr().out == ""
    LinearBlockModel(DATA, verbose=True).reinitialize_weights()
    assert "dense0" in capsys.readouterr().out
