"""A call that repeats the last one takes a short way, unless anything that it stood on has changed."""

import gc
import weakref

import numpy as np
import pytest

import keydnn
from keydnn.kernels import native
from keydnn.nn import BatchNorm1d, Dropout, Linear, Module, ReLU
from keydnn.optim import SGD, Adam
from keydnn.training import Sequential
from tests.compiler.steps import assert_same


def mlp():
    return Sequential(Linear(6, 16), ReLU(), Dropout(0.2), Linear(16, 1))


def batches(n, size=8):
    rng = np.random.default_rng(0)
    return [tuple(keydnn.tensor(rng.standard_normal((size, width)), dtype=np.float32) for width in (6, 1)) for _ in range(n)]


def freeze(model, optimizer):
    model[0].bias.requires_grad = False


def evaluate_dropout(model, optimizer):
    model[2].training = False


def another_rate(model, optimizer):
    optimizer.lr = 0.5


def another_beta(model, optimizer):
    optimizer.groups[0].options["beta1"] = 0.5


def replaced_memory(model, optimizer):
    model[0].weight._data = model[0].weight._data * 0.5


def another_layer(model, optimizer):
    model.add(ReLU())


def another_forward(model, optimizer):
    model[1].forward = lambda x: x * 2.0


CHANGES = [freeze, evaluate_dropout, another_rate, another_beta, replaced_memory, another_layer, another_forward]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_after_many_equal_calls_counts(change):
    def between(i, model, optimizer):
        if i == 6:
            assert model._repeat is not None or model.__dict__.get("_steps") is None  # the eager twin has none
            change(model, optimizer)

    assert_same(mlp, lambda p: Adam(p, lr=0.01), batches(10), loss="mse", between=between)


def steady():
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    data = batches(5)
    for x, y in data:
        model.train_on_batch(x, y, loss="mse", optimizer=optimizer)
    return model, optimizer, data[0]


def taken(model, x, y, **asked):
    """Whether the short way takes a call; it then has made a step."""
    options = {
        "loss": "mse",
        "optimizer": None,
        "metrics": None,
        "metric_names": None,
        "zero_grad": True,
        "backward": True,
        "step": True,
        "optimizer_kwargs": None,
        "clip_norm": None,
        "clip_value": None,
    }
    return model._repeat(x, y, tuple({**options, **asked}.values())) is not None


def test_the_short_way_is_taken_by_equal_calls_alone():
    model, optimizer, (x, y) = steady()
    assert taken(model, x, y, optimizer=optimizer)
    assert not taken(model, x, y, optimizer=SGD(model.parameters(), lr=0.1))
    assert not taken(model, x, y, optimizer=optimizer, loss="mae")
    assert not taken(model, x, y, optimizer=optimizer, clip_norm=1.0)
    assert not taken(model, x, y, optimizer=optimizer, zero_grad=False)


def test_the_short_way_needs_batches_of_the_same_kind():
    model, optimizer, (x, y) = steady()
    assert taken(model, keydnn.tensor(x.numpy()), y, optimizer=optimizer)
    assert not taken(model, x.numpy(), y, optimizer=optimizer)
    assert not taken(model, keydnn.tensor(x.numpy()[:4]), y, optimizer=optimizer)
    assert not taken(model, keydnn.tensor(x.numpy(), dtype=np.float64), y, optimizer=optimizer)
    assert not taken(model, x, x, optimizer=optimizer)
    assert not taken(model, keydnn.tensor(x.numpy(), requires_grad=True), y, optimizer=optimizer)
    with keydnn.no_grad():
        assert not taken(model, x, y, optimizer=optimizer)
    assert taken(model, x, y, optimizer=optimizer)


def test_gradients_that_were_touched_are_made_anew():
    model, optimizer, (x, y) = steady()
    weight = model[0].weight
    held, seen = weight.grad, weight.grad.numpy()
    assert taken(model, x, y, optimizer=optimizer)
    assert weight.grad is not held and not np.array_equal(weight.grad.numpy(), seen)
    np.testing.assert_array_equal(held.numpy(), seen)
    weight.grad = None
    unread = model[3].weight.grad
    assert taken(model, x, y, optimizer=optimizer)
    before = unread.numpy()
    assert weight.grad is not None and model[3].weight.grad is not unread
    assert taken(model, x, y, optimizer=optimizer)
    np.testing.assert_array_equal(unread.numpy(), before)


@pytest.mark.slow
def test_a_model_with_a_short_way_goes_when_nobody_needs_it():
    model = steady()[0]
    model[0].parent = [model]  # a cycle that only the collector can break
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def predictor():
    model = Sequential(Linear(6, 16), BatchNorm1d(16), ReLU(), Dropout(0.2), Linear(16, 2))
    x = keydnn.tensor(np.random.default_rng(1).standard_normal((4, 6)), dtype=np.float32)
    for _ in range(4):
        model.predict(x)
    assert model._predicted is not None and model._predicted(x) is not None
    return model, x


def loaded(model, x):
    model.load_state_dict({name: np.full(p.shape, 0.1) for name, p in model.named_parameters()}, strict=False)


def trained(model, x):
    y = keydnn.tensor(np.ones((4, 2)), dtype=np.float32)
    model.train_on_batch(x, y, loss="mse", optimizer=SGD(model.parameters(), lr=0.1))


def replaced_layer(model, x):
    model.add(ReLU())


def replaced_weight(model, x):
    model[0].weight._data = model[0].weight._data * 2.0


def unchanged(model, x):
    pass


@pytest.mark.parametrize("change", [loaded, trained, replaced_layer, replaced_weight, unchanged])
def test_a_prediction_after_a_change_is_the_eager_one(change):
    model, x = predictor()
    flags = [module.training for module in model.modules()]
    for _ in range(3):
        change(model, x)
        np.testing.assert_array_equal(model.predict(x).numpy(), model.predict(x, compile=False).numpy())
    assert [module.training for module in model.modules()][: len(flags)] == flags


def test_looking_at_a_model_leaves_its_gradients_alone():
    model, x = predictor()
    y = keydnn.ones((4, 2))
    compiled = keydnn.compile(model)
    looks = (lambda: model.predict(x), lambda: model.evaluate(x, y, loss="mse"), lambda: compiled(x))
    with keydnn.no_grad():
        for _ in range(4):  # their plans are made while no parameter has a gradient
            [look() for look in looks]
    model(x).sum().backward()
    gradients = [p.grad for p in model.parameters()]
    assert None not in gradients
    with keydnn.no_grad():
        for look in looks * 4:
            look()
            assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))


def test_a_gradient_from_outside_of_a_parameter_that_the_loss_does_not_reach():
    class Half(Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = Linear(6, 1), Linear(6, 1)

        def forward(self, x):
            return self.used(x)

    def between(i, model, optimizer):
        if i in (4, 5):
            model[0].idle.weight.grad = keydnn.ones((1, 6))  # zero_grad takes it away before the update

    assert_same(lambda: Sequential(Half()), lambda p: Adam(p, lr=0.01), batches(8), loss="mse", between=between)


def test_predictions_of_other_inputs():
    model, x = predictor()
    twice = keydnn.tensor(np.concatenate([x.numpy()] * 2))
    for other in (x.numpy(), x.numpy()[::-1], twice[::2], x.numpy().astype("f8"), twice, keydnn.tensor(x.numpy() * 2.0)):
        np.testing.assert_array_equal(model.predict(other).numpy(), model.predict(other, compile=False).numpy())
    first = model.predict(x)
    kept = first.numpy()
    model.predict(x * 2.0)
    np.testing.assert_array_equal(first.numpy(), kept)  # each result has memory of its own
    assert model.predict(x, requires_grad=True).requires_grad and not model.predict(x).requires_grad
    assert model.predict(x, batch_size=2).shape == (4, 2)


def test_a_module_with_a_mode_of_its_own_has_no_short_way():
    class Stubborn(Dropout):
        def train(self, mode=True):
            return super().train(True)

    model = Sequential(Linear(6, 4), Stubborn(0.5))
    x = keydnn.ones((3, 6))
    for _ in range(4):
        model.predict(x)
    assert model._predicted is None


def test_training_on_arrays_with_gaps():
    data = [(keydnn.tensor(np.concatenate([x.numpy()] * 2, 1))[:, :6], y) for x, y in batches(3)] + batches(3)
    rows = [(keydnn.Tensor(data=x.numpy()[::-1]), y) for x, y in data]
    assert_same(mlp, lambda p: SGD(p, lr=0.1), [*batches(4), *rows], loss="mse")


def test_the_questions_of_the_short_way():
    module = native.load()
    x = keydnn.ones((2, 3))
    names, values = ("_data", "grad"), (x._data, x.grad)
    assert module.same_attributes((x, x), names, values)
    assert not module.same_attributes((x, x), names, (x._data.copy(), None))
    with pytest.raises(AttributeError, match="nothing"):
        module.same_attributes((x,), ("nothing",), (None,))
    with pytest.raises(ValueError, match="one length"):
        module.same_attributes((x,), (), ())
    assert module.same_items((x, 1), (x, 1)) and not module.same_items((x,), (x, x)) and not module.same_items((x,), (None,))
    a = np.zeros((2, 3), "f4")
    assert (
        module.alike(a, a + 1)
        and not module.alike(np.zeros((3, 2), "f4").T, a)
        and not module.alike(a, a.T)
        and not module.alike(a, a.astype("f8"))
        and not module.alike(a, [1])
    )
