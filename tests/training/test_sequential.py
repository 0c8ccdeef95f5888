"""Sequential: an ordered, named, nestable chain; building; unbuilt models."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose

import keydnn
from keydnn import Tensor
from keydnn.nn import BatchNorm1d, Dense, Dropout, LayerNorm, Linear, Module, ReLU, Tanh
from keydnn.training import Model, Sequential


def chain():
    return Sequential(Dense(4), ReLU(), Dense(2))


def test_layers_are_named_by_position_and_kept_in_order():
    a, b = ReLU(), Tanh()
    model = Sequential(a, b)
    assert model.layers() == (a, b) and list(model) == [a, b] and len(model) == 2
    assert model[0] is a and model[-1] is b and model["1"] is b
    assert [name for name, _ in model.named_children()] == ["0", "1"] == model.order
    assert model._layers == [a, b]


def test_add_with_names():
    model = Sequential(ReLU())
    model.add(Tanh(), name="squash")
    model.add(Linear(2, 2))
    assert model.order == ["0", "squash", "2"]
    assert [name for name, _ in model.named_parameters()] == ["2.weight", "2.bias"]
    assert model.squash is model["squash"]


@pytest.mark.parametrize("layer", [None, ReLU, lambda x: x, "ReLU"])
def test_only_modules_are_added(layer):
    model = Sequential(ReLU())
    with pytest.raises(TypeError, match="expected a Module"):
        model.add(layer)
    with pytest.raises(TypeError):
        Sequential(ReLU(), layer)
    assert len(model) == 1


@pytest.mark.parametrize("name", ["0", "forward", "layers", "training", "", "a.b"])
def test_taken_and_impossible_names_are_refused(name):
    model = Sequential(ReLU())
    with pytest.raises(ValueError):
        model.add(Tanh(), name=name)
    assert len(model) == 1 and callable(model.forward)


def test_position_names_stay_free_of_clashes():
    model = Sequential()
    model.add(ReLU(), name="1")
    with pytest.raises(ValueError, match="'1' is taken"):
        model.add(Tanh())


def test_slices_share_layers():
    model = chain()
    part = model[1:]
    assert isinstance(part, Sequential) and part.layers() == model.layers()[1:] and part.order == ["1", "2"]
    with pytest.raises(IndexError):
        model[7]
    with pytest.raises(KeyError):
        model["x"]


def test_the_input_is_passed_on_as_it_is():
    class Pair(Module):
        def forward(self, pair):
            return pair[0] + pair[1]

    assert Sequential(Pair())(("a", "b")) == "ab"
    assert Sequential()(3) == 3


def test_summary_has_no_shapes():
    assert chain().summary() == "Sequential(\n  (0): Dense\n  (1): ReLU\n  (2): Dense\n)"


def test_summary_with_shapes_builds_a_copy():
    model = Sequential(Dense(4), BatchNorm1d(4), Sequential(ReLU(), Dense(2)))
    state = np.random.get_state()[1].copy()
    text = model.summary((5, 3))
    assert "(5, 4)" in text and "(5, 2)" in text
    assert [line.split()[-1] for line in text.splitlines()[2:5]] == ["16", "8", "10"]
    assert text.splitlines()[-1] == "Sequential: 34 parameters, 34 of them trained"
    assert not model.is_built and list(model[0].parameters()) == []
    assert (np.random.get_state()[1] == state).all()
    model.build((1, 3))
    model[0].requires_grad_(False)
    assert model.summary((5, 3)).splitlines()[-1] == "Sequential: 34 parameters, 18 of them trained"
    assert model.training


def test_replacing_a_layer_keeps_its_place():
    model = Sequential(ReLU(), Tanh())
    new = Linear(2, 2)
    model.register_module("0", new)
    assert model.layers()[0] is new and len(model) == 2


def test_config_is_empty_and_gives_an_empty_chain():
    assert chain().get_config() == {}
    assert len(Sequential.from_config({})) == 0


# -- building


@pytest.mark.parametrize("x", [(3, 5), [3, 5], Tensor((3, 5))])
def test_build_makes_the_parameters_once(x):
    model = chain()
    assert not model.is_built
    assert model.build(x) is None
    assert model.is_built and model[0].in_features == 5
    parameters = list(model.parameters())
    model.build((1, 5))
    model.build((1, 9))  # built: nothing happens
    assert [id(p) for p in model.parameters()] == [id(p) for p in parameters]


@pytest.mark.parametrize("x", ["3", 5, None, np.zeros((2, 5)), (2, "a"), (2, 5.0), (True, 5), {"shape": 3}])
def test_build_refuses_other_things(x):
    model = chain()
    with pytest.raises(TypeError, match="Tensor or a shape"):
        model.build(x)
    assert not model.is_built


def test_build_leaves_modes_and_statistics_alone_and_draws_only_for_parameters():
    model = Sequential(Dense(4), BatchNorm1d(4), Dropout(0.5), LayerNorm(4), Dense(2))
    model[2].eval()
    np.random.seed(1)
    model.build(Tensor(data=np.ones((6, 3), np.float32)))
    assert [m.training for m in model] == [True, True, False, True, True] and model.training
    assert model[1].running_mean.tolist() == [0.0] * 4 and model[1].running_var.tolist() == [1.0] * 4
    np.random.seed(1)
    twin = Sequential(Linear(3, 4), Linear(4, 2))
    assert np.array_equal(twin[1].weight.to_numpy(), model[4].weight.to_numpy())
    assert all(p._node is None and p.grad is None for p in model.parameters())


def test_normalisation_is_stepped_over_also_in_nested_chains():
    model = Sequential(BatchNorm1d(3), Sequential(LayerNorm(3), Dense(2)))
    x = Tensor(data=np.array([[1.0, 2.0, 6.0]], np.float32))
    model.build(x)
    direct = x @ model[1][1].weight.T + model[1][1].bias
    assert_allclose(model.forward(x, _skip_norm=True).to_numpy(), direct.to_numpy(), rtol=1e-6)
    assert not np.allclose(model.eval()(x).to_numpy(), direct.to_numpy(), rtol=1e-3)


def test_a_failed_build_leaves_nothing_behind():
    model = Sequential(Dense(4), Linear(5, 2))
    before = np.random.get_state()[1].copy()
    with pytest.raises(RuntimeError, match="build failed") as error:
        model.build((1, 3))
    assert isinstance(error.value.__cause__, ValueError)
    assert not model.is_built and list(model[0].parameters()) == [] and model[0].in_features is None and not model[0].is_built
    assert (np.random.get_state()[1] == before).all() and model.training
    model.add(ReLU())
    model.register_module("1", Linear(4, 2))
    model.build((1, 3))
    assert model.is_built and len(list(model.parameters())) == 4


def test_a_layer_added_later_is_built_by_the_next_build():
    model = chain()
    model.build((1, 3))
    model.add(Dense(7))
    assert not model.is_built
    with pytest.raises(RuntimeError, match="'3' \\(Dense\\).*build"):
        model(Tensor((1, 3)))
    model.build((1, 3))
    assert model.is_built and model(Tensor((1, 3))).shape == (1, 7)


def test_nested_models_are_built_with_the_outer_one():
    inner = Sequential(Dense(3), Sequential(Dense(2)))
    outer = Sequential(Dense(4), inner)
    outer.build((1, 5))
    assert outer.is_built and inner.is_built and inner[1].is_built
    assert [name for name, _ in outer.named_parameters()] == [
        "0.weight", "0.bias", "1.0.weight", "1.0.bias", "1.1.0.weight", "1.1.0.bias",
    ]  # fmt: skip
    assert outer(Tensor((2, 5))).shape == (2, 2)


def test_a_layer_the_forward_pass_does_not_reach():
    class Half(Model):
        def __init__(self):
            super().__init__()
            self.used, self.spare = Dense(2), Dense(2)

        def forward(self, x):
            return self.used(x)

    model = Half()
    with pytest.raises(RuntimeError, match="did not reach layer 'spare'"):
        model.build((1, 3))
    assert not model.is_built


@pytest.mark.parametrize(
    "use",
    [
        lambda m, x: m(x),
        lambda m, x: m.predict(x),
        lambda m, x: m.evaluate(x, x, loss="mse"),
        lambda m, x: m.fit(x, x, loss="mse", optimizer="sgd", verbose=0),
        lambda m, x: m.train_on_batch(x, x, loss="mse", optimizer="sgd"),
    ],
)
def test_an_unbuilt_model_says_what_to_call(use):
    model, x = Sequential(ReLU(), Sequential(Dense(3))), Tensor((2, 3))
    with pytest.raises(RuntimeError, match=r"layer '1\.0' \(Dense\) has no parameters yet; call build"):
        use(model, x)
    assert list(model.parameters()) == []


def test_a_model_without_lazy_layers_works_without_build():
    model = Sequential(Linear(3, 2))
    assert not model.is_built
    assert model(Tensor((1, 3))).shape == model.predict(Tensor((1, 3))).shape == (1, 2)
    model.fit(np.zeros((2, 3)), np.zeros((2, 2)), loss="mse", optimizer="sgd", verbose=0)
    model.build((1, 3))
    assert model.is_built


def test_the_device_of_a_built_sample():
    with pytest.raises(ValueError, match="Invalid device"):
        chain().build((1, 3), device="tpu")
    model = chain()
    model.build((1, 3), device=keydnn.Device("cpu"), dtype=np.float64)
    assert model.is_built


def test_to_takes_devices_and_strings_and_returns_self():
    model = chain()
    model.build((1, 3))
    assert model.to("cpu") is model and model.to_(keydnn.Device("cpu")) is model


def test_a_copy_is_independent():
    model = chain()
    model.build((1, 3))
    model.fit(np.zeros((2, 3)), np.zeros((2, 2)), loss="mse", optimizer="adam", verbose=0)
    twin = copy.deepcopy(model)
    assert twin.is_built and twin.last_run is None
    twin.fit(np.zeros((2, 3)), np.ones((2, 2)), loss="mse", optimizer="adam", verbose=0)
    assert model.last_run.optimizer is not twin.last_run.optimizer
    assert all(p is not q for p, q in zip(model.parameters(), twin.parameters(), strict=True))
