"""Recorded training equals eager training: random models, and each thing that may change between steps."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keydnn
from keydnn import nn, optim
from keydnn.nn import (
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sigmoid,
    Tanh,
)
from keydnn.optim import SGD, Adam, AdamW
from keydnn.training import Sequential, recorded
from keydnn.training.model import Model
from tests.compiler.steps import assert_same, only_step, train

OPTIMIZERS = {
    "sgd": lambda p: SGD(p, lr=0.05),
    "momentum": lambda p: SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "nesterov": lambda p: SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: Adam(p, lr=0.01),
    "adamw": lambda p: AdamW(p, lr=0.01, weight_decay=0.1),
}


def batches(n, shape, size, *, classes=None, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        y = rng.integers(0, classes, size) if classes else rng.standard_normal((size, 1))
        made.append((keydnn.Tensor(data=rng.standard_normal((size, *shape)).astype(dtype)), keydnn.Tensor(data=y, dtype=dtype)))
    return made


def mlp(dtype=np.float32):
    return Sequential(Linear(6, 16, dtype=dtype), ReLU(), Linear(16, 1, dtype=dtype))


@st.composite
def dense_layers(draw):
    """A list of functions that make layers, from 6 features to 4."""
    width, makers = 6, []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["linear", "relu", "tanh", "sigmoid", "leaky", "norm", "layer_norm", "dropout"]))
        if kind == "linear":
            out = draw(st.sampled_from([1, 3, 8, 17]))
            makers.append(lambda d, n=width, out=out: Linear(n, out, dtype=d))
            width = out
        elif kind == "norm":
            makers.append(lambda d, n=width: BatchNorm1d(n, dtype=d))
        elif kind == "layer_norm":
            makers.append(lambda d, n=width: LayerNorm(n, dtype=d))
        elif kind == "dropout":
            p = draw(st.sampled_from([0.1, 0.5]))
            makers.append(lambda d, p=p: Dropout(p))
        else:
            makers.append(lambda d, c={"relu": ReLU, "tanh": Tanh, "sigmoid": Sigmoid, "leaky": LeakyReLU}[kind]: c())
    return [*makers, lambda d, n=width: Linear(n, 4, dtype=d)]


@st.composite
def image_layers(draw):
    """A list of functions that make layers, from (2, 8, 8) images to 4 numbers."""
    channels, side, makers = 2, 8, []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["conv", "norm", "relu", "sigmoid", "max", "average", "dropout"]))
        if kind == "conv":
            out, k, p = draw(st.sampled_from([3, 4])), draw(st.sampled_from([1, 3])), draw(st.integers(0, 1))
            if side + 2 * p - k + 1 < 1:
                continue
            makers.append(lambda d, c=channels, o=out, k=k, p=p: Conv2d(c, o, k, padding=p, dtype=d))
            channels, side = out, side + 2 * p - k + 1
        elif kind == "norm":
            makers.append(lambda d, c=channels: BatchNorm2d(c, dtype=d))
        elif kind in ("max", "average"):
            if side < 2:
                continue
            makers.append(lambda d, c={"max": MaxPool2d, "average": AvgPool2d}[kind]: c(2))
            side //= 2
        elif kind == "dropout":
            makers.append(lambda d: Dropout(0.3))
        else:
            makers.append(lambda d, c={"relu": ReLU, "sigmoid": Sigmoid}[kind]: c())
    if draw(st.booleans()):
        makers.append(lambda d: GlobalAvgPool2d())
        side = 1
    return [*makers, lambda d: Flatten(), lambda d, n=channels * side * side: Linear(n, 4, dtype=d)]


def check_random(makers, shape, optimizer, size, dtype, clip):
    data = batches(10, shape, size, classes=4, dtype=dtype)
    options = {"clip_norm": 0.5} if clip else {}
    assert_same(
        lambda: Sequential(*[make(dtype) for make in makers]),
        OPTIMIZERS[optimizer],
        data,
        loss="cross_entropy",
        metrics="acc",
        **options,
    )


@settings(max_examples=25, deadline=None)
@given(dense_layers(), st.sampled_from(sorted(OPTIMIZERS)), st.integers(2, 9), st.sampled_from([np.float32, np.float64]), st.booleans())
def test_ten_steps_of_random_dense_models_are_bit_equal_to_eager_ones(makers, optimizer, size, dtype, clip):
    check_random(makers, (6,), optimizer, size, dtype, clip)


@settings(max_examples=15, deadline=None)
@given(image_layers(), st.sampled_from(sorted(OPTIMIZERS)), st.integers(2, 5), st.sampled_from([np.float32, np.float64]))
def test_ten_steps_of_random_image_models_are_bit_equal_to_eager_ones(makers, optimizer, size, dtype):
    check_random(makers, (2, 8, 8), optimizer, size, dtype, False)


RESIZED = {
    "groups": lambda: [nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), nn.RMSNorm(6), nn.Hardtanh(), nn.Identity()],
    "uneven": lambda: [nn.AdaptiveAvgPool2d((4, 5)), nn.Upsample(2)],
    "even": lambda: [nn.AdaptiveAvgPool2d(3), nn.PixelShuffle(2)],
    "largest": lambda: [nn.Tanh(), nn.ZeroPad2d(1), nn.AdaptiveMaxPool2d((5, 3)), nn.Upsample((1, 2), "bilinear")],
}


@pytest.mark.parametrize("name", RESIZED)
def test_layers_written_in_operations(name):
    def make():
        return Sequential(Conv2d(3, 4, 3, padding=1), *RESIZED[name](), Flatten(), keydnn.Dense(1))

    def built():
        model = make()
        model.build((8, 3, 6, 6))
        return model

    assert_same(built, OPTIMIZERS["sgd"], batches(5, (3, 6, 6), 8), loss="mse", rtol=1e-5)


def test_volumes():
    def built():
        layers = [
            nn.Conv3d(2, 4, (2, 3, 3), padding=1),
            nn.Tanh(),
            nn.MaxPool3d(2),
            nn.Conv3d(4, 4, 2),
            nn.Tanh(),
            nn.AdaptiveMaxPool3d((1, 2, 1)),
        ]
        model = Sequential(*layers, Flatten(), keydnn.Dense(1))
        model.build((8, 2, 5, 6, 6))
        return model

    assert_same(built, OPTIMIZERS["sgd"], batches(5, (2, 5, 6, 6), 8), loss="mse", rtol=1e-5)


def test_layers_along_one_axis():
    def make():
        return Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.MaxPool1d(2), nn.AvgPool1d(2, 1), Flatten(), Linear(8, 1))

    assert_same(make, OPTIMIZERS["sgd"], batches(5, (3, 6), 8), loss="mse", rtol=1e-5)


@pytest.mark.parametrize("rule", sorted({"rmsprop", "adagrad", "adadelta", "adamax", "nadam", "lion", "lamb"}))
def test_rules_written_in_operations(rule):
    cls = optim.OPTIMIZERS[rule]
    assert_same(mlp, lambda p: cls(p, lr=0.01, weight_decay=0.1), batches(6, (6,), 8), loss="mse", rtol=1e-5)


@pytest.mark.parametrize("loss", ["mae", "huber", "hinge"])
def test_losses_written_in_operations(loss):
    assert_same(mlp, OPTIMIZERS["sgd"], batches(6, (6,), 8), loss=loss, rtol=1e-5)


@pytest.mark.parametrize("loss", ["mse", "sse", "bce_logits"])
def test_losses_of_one_number_per_row(loss):
    names = {"bce_logits": keydnn.ops.bce_logits}
    assert_same(mlp, OPTIMIZERS["adam"], batches(5, (6,), 8), loss=names.get(loss, loss), metrics=["mae", "mse"])


@pytest.mark.parametrize("loss", ["bce", "cce"])
def test_losses_of_probabilities(loss):
    def make():
        return Sequential(Linear(6, 4), Sigmoid())

    rng = np.random.default_rng(0)
    data = [
        (keydnn.Tensor(data=rng.standard_normal((8, 6)).astype("f4")), keydnn.Tensor(data=np.eye(4, dtype="f4")[rng.integers(0, 4, 8)]))
        for _ in range(5)
    ]
    assert_same(make, OPTIMIZERS["adam"], data, loss=loss, metrics="acc")


def test_a_changed_learning_rate_reaches_the_plan():
    def between(i, model, optimizer):
        optimizer.lr = 0.05 / (i + 1)

    model = assert_same(mlp, OPTIMIZERS["momentum"], batches(8, (6,), 8), loss="mse", between=between)
    assert only_step(model).replays == 8  # one recording served all


def test_a_short_batch_has_a_plan_of_its_own():
    data = [batch for size in (8, 8, 5, 8, 5, 8, 5) for batch in batches(1, (6,), size, seed=size)]
    model = assert_same(mlp, OPTIMIZERS["adam"], data, loss="mse")
    assert sorted(step.replays for (step,) in recorded.of(model).entries.values()) == [3, 4]


def test_frozen_parameters_stay_and_thaw():
    def between(i, model, optimizer):
        if i in (3, 6, 9):
            model[0].requires_grad_(i == 6)

    model = assert_same(mlp, OPTIMIZERS["adam"], batches(12, (6,), 8), loss="mse", between=between)
    assert model[0].weight.grad is None


def test_evaluation_between_steps_leaves_training_alone():
    def make():
        return Sequential(Linear(6, 16), BatchNorm1d(16), Dropout(0.4), Linear(16, 1))

    data = batches(8, (6,), 8)
    seen = []

    def between(i, model, optimizer):
        seen.append(model.evaluate(*data[0], loss="mse", metrics="mae", compile=len(seen) >= 8)["loss"])
        seen[-1] += float(model.predict(data[0][0], compile=len(seen) > 8).numpy().sum())

    eager = train(make, OPTIMIZERS["adam"], data, compile=False, between=between, loss="mse")
    plan = train(make, OPTIMIZERS["adam"], data, compile=True, between=between, loss="mse")
    assert seen[:8] == seen[8:]
    for p, q in zip(eager[0].parameters(), plan[0].parameters(), strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


def test_a_layer_kept_in_evaluation_mode_is_another_signature():
    class Frozen(BatchNorm1d):
        def train(self, mode=True):
            return super().train(False)

    def make():
        return Sequential(Linear(6, 8), Frozen(8), ReLU(), Linear(8, 1)).train()

    assert_same(make, OPTIMIZERS["sgd"], batches(4, (6,), 8), loss="mse")


@pytest.mark.parametrize("options", [{"clip_norm": 0.1}, {"clip_value": 0.01}, {"clip_norm": 0.1, "clip_value": 0.05}])
def test_clipping(options):
    assert_same(mlp, OPTIMIZERS["adam"], batches(6, (6,), 8), loss="mse", **options)


def test_gradients_add_up_without_zero_grad():
    data = batches(6, (6,), 8)
    found = {}
    for compile in (False, True):
        np.random.seed(3)
        model = mlp()
        optimizer = SGD(model.parameters(), lr=0.1)
        for i, (x, y) in enumerate(data):
            model.train_on_batch(x, y, loss="mse", optimizer=optimizer, zero_grad=i % 3 == 0, step=i % 3 == 2, compile=compile)
        found[compile] = [p.numpy() for p in model.parameters()] + [p.grad.numpy() for p in model.parameters()]
    for a, b in zip(found[False], found[True], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_gradient_that_was_kept_does_not_change_with_later_steps():
    data = batches(6, (6,), 8)
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    for x, y in data[:4]:
        model.train_on_batch(x, y, loss="mse", optimizer=optimizer)
    kept, copy = model[0].weight.grad, None
    unread = model[2].weight.grad
    copy = kept.numpy()
    model.train_on_batch(*data[4], loss="mse", optimizer=optimizer)
    np.testing.assert_array_equal(kept.numpy(), copy)
    assert model[0].weight.grad is not kept
    assert not np.array_equal(model[2].weight.grad.numpy(), unread.numpy())


def test_weights_loaded_in_place_are_read_by_the_plan():
    def between(i, model, optimizer):
        if i == 4:
            model.load_state_dict({name: np.full(p.shape, 0.1) for name, p in model.named_parameters()})

    model = assert_same(mlp, OPTIMIZERS["sgd"], batches(7, (6,), 8), loss="mse", between=between)
    assert only_step(model).replays == 7


def test_a_changed_structure_is_recorded_anew():
    def between(i, model, optimizer):
        if i == 3:
            model.add(Tanh())

    assert_same(mlp, OPTIMIZERS["sgd"], batches(6, (6,), 8), loss="mse", between=between)


def test_a_metric_of_the_users_own_may_read_numbers():
    def largest(y_true, y_pred):
        return float(np.abs(y_pred.to_numpy()).max())

    assert_same(mlp, OPTIMIZERS["sgd"], batches(5, (6,), 8), loss="mse", metrics=["mae", largest])


class Reads(Model):
    def __init__(self):
        super().__init__()
        self.inner = Linear(6, 1)

    def forward(self, x):
        y = self.inner(x)
        return y * 2.0 if y.sum().item() > 0 else y


class Counts(Model):
    def __init__(self):
        super().__init__()
        self.inner, self.calls = Linear(6, 1), 0

    def forward(self, x):
        self.calls += 1
        return self.inner(x)


@pytest.mark.parametrize(("make", "why"), [(Reads, "item"), (Counts, "Counts.calls")])
def test_a_step_that_cannot_be_recorded_trains_eagerly_and_says_where(make, why, caplog):
    data = batches(5, (6,), 8)
    eager = train(make, OPTIMIZERS["adam"], data, compile=False, loss="mse")
    with caplog.at_level("WARNING", logger="keydnn"):
        plan = train(make, OPTIMIZERS["adam"], data, compile=True, loss="mse")
    for p, q in zip(eager[0].parameters(), plan[0].parameters(), strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
    assert eager[2] == plan[2]
    (line,) = [r.getMessage() for r in caplog.records if "stays eager" in r.getMessage()]
    assert why in line and "test_training.py:" in line
    assert why in plan[0].plan_report()


class FirstIsSpecial(Model):
    def __init__(self):
        super().__init__()
        self.inner, self.shape = Linear(6, 1), None

    def forward(self, x):
        if self.shape is None:
            self.shape = x.shape
        return self.inner(x)


def test_a_step_whose_first_pass_was_special_is_recorded_later():
    data = batches(6, (6,), 8)
    eager = train(FirstIsSpecial, OPTIMIZERS["adam"], data, compile=False, loss="mse")
    plan = train(FirstIsSpecial, OPTIMIZERS["adam"], data, compile=True, loss="mse")
    assert eager[2] == plan[2]
    assert plan[0].plan_report().startswith("plan of")


def test_a_branch_on_something_outside_the_step_is_noticed():
    class Alternates(Model):
        turn = [0]

        def __init__(self):
            super().__init__()
            self.inner = Linear(6, 1)

        def forward(self, x):
            self.turn[0] += 1
            y = self.inner(x)
            return y * 2.0 if self.turn[0] % 2 else y

    model, _, _ = train(Alternates, OPTIMIZERS["sgd"], batches(3, (6,), 8), compile=True, loss="mse")
    assert "not do the same" in model.plan_report()


def test_a_bad_label_is_an_error_also_in_a_replay():
    model = Sequential(Linear(6, 4))
    optimizer = SGD(model.parameters(), lr=0.1)
    for x, y in batches(4, (6,), 8, classes=4):
        model.train_on_batch(x, y, loss="cross_entropy", optimizer=optimizer)
    with pytest.raises(ValueError, match="label"):
        model.train_on_batch(x, keydnn.Tensor(data=np.full(8, 9.0, "f4")), loss="cross_entropy", optimizer=optimizer)
    model.train_on_batch(x, y, loss="cross_entropy", optimizer=optimizer)


def test_a_shared_layer():
    class Twice(Model):
        def __init__(self):
            super().__init__()
            self.inner, self.head = Linear(6, 6), Linear(6, 1)

        def forward(self, x):
            return self.head(self.inner(self.inner(x).tanh()) + x)

    assert_same(Twice, OPTIMIZERS["adam"], batches(5, (6,), 8), loss="mse")


def test_x_and_y_may_be_the_same_tensor():
    x = keydnn.Tensor(data=np.random.default_rng(0).standard_normal((8, 6)).astype("f4"))
    assert_same(lambda: Sequential(Linear(6, 3), Tanh(), Linear(3, 6)), OPTIMIZERS["adam"], [(x, x)] * 5, loss="mse")


def test_plan_report_lists_operations_with_times():
    model, _, _ = train(mlp, OPTIMIZERS["adam"], batches(6, (6,), 8), compile=True, loss="mse")
    report = model.plan_report()
    assert "arena" in report and "6 steps replayed" in report
    assert isinstance(model, Module)


def test_gradients_nobody_reads_are_not_copied():
    model, optimizer, _ = train(mlp, OPTIMIZERS["sgd"], batches(6, (6,), 8), compile=True, loss="mse")
    unread = [id(p.grad) for p in model.parameters()]
    (batch,) = batches(1, (6,), 8)
    model.train_on_batch(*batch, loss="mse", optimizer=optimizer)
    assert [id(p.grad) for p in model.parameters()] == unread
    assert "_data" not in model[0].weight.grad.__dict__


def test_unread_gradients_can_be_copied_and_pickled():
    model, _, _ = train(mlp, OPTIMIZERS["sgd"], batches(4, (6,), 8), compile=True, loss="mse")
    a, b = copy.deepcopy(model[0].weight.grad), pickle.loads(pickle.dumps(model[2].weight.grad))
    twin = copy.deepcopy(model)
    np.testing.assert_array_equal(a.numpy(), model[0].weight.grad.numpy())
    np.testing.assert_array_equal(b.numpy(), model[2].weight.grad.numpy())
    np.testing.assert_array_equal(twin[0].bias.grad.numpy(), model[0].bias.grad.numpy())
