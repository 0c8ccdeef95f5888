"""What the user's Python reads beside tensors belongs to a plan: when it is another, the step is recorded anew."""

import copy
import pickle
from dataclasses import dataclass

import numpy as np
import pytest

import keydnn
from keydnn.compiler.outside import Outside
from keydnn.nn import Linear
from keydnn.training import recorded
from tests.compiler.steps import train

X, Y = np.random.default_rng(0).standard_normal((2, 8, 4)).astype("f4")
FACTOR, SETTINGS = 1.0, {"deep": [1.0]}


def loss_of_a_global(p, y):
    return ((p - y) ** 2).mean() * FACTOR


def loss_of_a_dict(p, y):
    return ((p - y) ** 2).mean() * SETTINGS["deep"][0]


class Weighted:
    factor = 1.0

    def __call__(self, p, y):
        return self._value(p, y)

    def _value(self, p, y):
        return ((p - y) ** 2).mean() * self.factor


@dataclass(slots=True)
class Settings:
    factor: float = 1.0


class Own(keydnn.Model):
    scale = 1.0

    def __init__(self):
        super().__init__()
        self.layer, self.factors, self.settings, self.idle = Linear(4, 4), [1.0], Settings(), keydnn.Dropout(0.5)

    def forward(self, x):
        return self.layer(x) * self.factors[0] * self.settings.factor * self.scale * self.idle.p


class HalfStep(keydnn.SGD):
    factor = [1.0]

    def _update(self, p, g, slots, rate, options):
        super()._update(p, g * HalfStep.factor[0], slots, rate, options)


def in_a_closure():
    factor = 1.0

    def loss(p, y):
        return ((p - y) ** 2).mean() * factor

    def change():
        nonlocal factor
        factor = 3.0

    return loss, change


def set_global():
    global FACTOR
    FACTOR = 3.0


def cases():
    plain, sgd = lambda: keydnn.Sequential(Linear(4, 4)), keydnn.SGD  # noqa: E731
    object_loss, closure = Weighted(), in_a_closure()
    yield "a global", plain, sgd, loss_of_a_global, lambda m: set_global()
    yield "a variable of the function around", plain, sgd, closure[0], lambda m: closure[1]()
    yield "an entry of a container in a dict", plain, sgd, loss_of_a_dict, lambda m: SETTINGS["deep"].__setitem__(0, 3.0)
    yield "an attribute of the loss", plain, sgd, object_loss, lambda m: setattr(object_loss, "factor", 3.0)
    yield "of an object whose method is the loss", plain, sgd, object_loss._value, lambda m: setattr(object_loss, "factor", 5.0)
    yield "a list of the model", Own, sgd, "mse", lambda m: m.factors.__setitem__(0, 3.0)
    yield "a module that does not run", Own, sgd, "mse", lambda m: setattr(m.idle, "p", 0.1)
    yield "slots of an object of the model", Own, sgd, "mse", lambda m: setattr(m.settings, "factor", 3.0)
    yield "an attribute of the model's class", Own, sgd, "mse", lambda m: setattr(Own, "scale", Own.scale * 3.0)
    yield "the rule of an optimizer", plain, HalfStep, "mse", lambda m: HalfStep.factor.__setitem__(0, 0.5)


@pytest.mark.parametrize("name", [case[0] for case in cases()])
def test_a_value_that_changes_between_steps_counts(name):
    def trained(compile):
        global FACTOR
        FACTOR, SETTINGS["deep"][0], Own.scale, HalfStep.factor[0] = 1.0, 1.0, 1.0, 1.0
        make, optimizer, loss, change = next(case[1:] for case in cases() if case[0] == name)
        between = lambda i, model, optimizer: change(model) if i == 5 else None  # noqa: E731
        data = [(keydnn.tensor(X), keydnn.tensor(Y))] * 8
        return train(make, lambda p: optimizer(p, lr=0.1), data, compile=compile, between=between, loss=loss)

    _, _, expected = trained(False)
    model, _, found = trained(True)
    assert expected == found
    ((old, new),) = [[step.replays for step in steps] for steps in recorded.of(model).entries.values()]
    assert (old, new) == (3, 5)  # the latest first: both were recorded and replayed


def test_compiled_functions_too():
    class Scaled:
        factor = 2.0

        @keydnn.compile
        def times(self, x):
            return x * self.factor

    scaled, x = Scaled(), keydnn.tensor([1.0, 2.0])
    assert [scaled.times(x).tolist() for _ in range(4)] == [[2.0, 4.0]] * 4
    scaled.factor = 3.0
    assert scaled.times(x).tolist() == [3.0, 6.0]
    assert Scaled().times(x).tolist() == [2.0, 4.0]


@keydnn.compile
def doubled(x):
    return x * 2.0


def test_compiled_functions_are_copied_and_pickled_without_their_plans():
    one = keydnn.tensor([1.0])
    assert [doubled(one).item() for _ in range(3)] == [2.0] * 3
    assert pickle.loads(pickle.dumps(doubled)) is doubled and copy.deepcopy(doubled) is doubled
    local = keydnn.compile(lambda x: x + 1.0)
    assert [local(one).item() for _ in range(3)] == [2.0] * 3 and copy.deepcopy(local)(one).item() == 2.0


def test_a_value_that_always_changes_ends_recording():
    numbers = iter(range(1000))
    settings = {}
    function = keydnn.compile(lambda x: x * settings["factor"])
    for factor in map(float, numbers):
        settings["factor"] = factor
        assert function(keydnn.tensor([1.0])).item() == factor
        if factor > 70:
            break
    assert function.plan_report().startswith("eager: what the function reads")


def test_signatures_tell_signed_zeros_and_types_apart():
    function = keydnn.compile(lambda x, c: 1.0 / (x * c[0]))
    one = keydnn.tensor([1.0])
    assert [function(one, (c,)).item() for c in (0.0, -0.0) for _ in range(3)] == [np.inf] * 3 + [-np.inf] * 3
    with pytest.raises(TypeError, match=r"argument 1 must be a Tensor, or a value .* got list; .* a tuple in place of a list"):
        function(one, [1.0])


def test_what_is_looked_at():
    settings = {"depth": 2}

    def recursive(n):
        return recursive(n - 1) if n else np.pi * len(settings)

    assert Outside([len, print, np.sum, keydnn.SGD, keydnn.nn.MSE(), object()]).is_empty
    outside = Outside([recursive])
    assert outside.is_same() and not outside.is_empty
    settings["width"] = 3
    assert not outside.is_same()
    settings = None
    assert not outside.is_same()
