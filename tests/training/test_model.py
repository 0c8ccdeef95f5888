"""predict, evaluate and train_on_batch: values, modes, strings, refusals."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from keydnn import Tensor
from keydnn.nn import MSE, BatchNorm1d, Dense, Dropout, Linear, ReLU, Sigmoid, mse_loss
from keydnn.optim import SGD, Adam
from keydnn.training import Model, Sequential, accuracy

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
Y = np.linspace(0, 1, 8, dtype=np.float32).reshape(4, 2)


def tensors():
    return Tensor(data=X), Tensor(data=Y)


def linear():
    np.random.seed(0)
    return Sequential(Linear(3, 2))


def mixed_modes():
    model = Sequential(Linear(3, 4), BatchNorm1d(4), Dropout(0.5), Sequential(Linear(4, 2), ReLU()))
    model[1].eval()
    model[3][1].eval()
    return model, [m.training for m in model.modules()]


# -- predict


def test_predict_evaluates_and_restores_each_flag():
    model, flags = mixed_modes()
    x, _ = tensors()
    assert model.predict(x).tolist() == model.predict(x).tolist()  # no dropout
    assert [m.training for m in model.modules()] == flags
    model.eval()
    model.predict(x)
    assert not any(m.training for m in model.modules())


def test_predict_restores_the_flags_after_an_error():
    model, flags = mixed_modes()
    with pytest.raises(ValueError):
        model.predict(Tensor((2, 7)))
    assert [m.training for m in model.modules()] == flags


def test_predict_takes_arrays_and_casts_them():
    model = linear()
    want = (X @ model[0].weight.to_numpy().T).tolist()
    for x in (X, X.astype(np.float64), Tensor(data=X)):
        result = model.predict(x)
        assert isinstance(result, Tensor) and result.dtype == np.float32
        assert_allclose(result.to_numpy(), want, rtol=1e-6)
    double = Sequential(Linear(3, 2, dtype=np.float64))
    assert double.predict(X).dtype == np.float64


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_predict_in_batches_gives_the_same(batch_size):
    model = linear()
    assert_allclose(model.predict(X, batch_size=batch_size).to_numpy(), model.predict(X).to_numpy(), rtol=1e-6)


def test_predict_records_a_graph_only_on_request():
    model = linear()
    assert not model.predict(X).requires_grad
    y = model.predict(X, requires_grad=True, batch_size=2)
    y.sum().backward()
    assert model[0].weight.grad is not None


@pytest.mark.parametrize("x", [X.tolist(), [X], None, "x", 3])
def test_predict_refuses_other_types(x):
    with pytest.raises(TypeError, match="Tensor or an ndarray"):
        linear().predict(x)


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_predict_refuses_bad_batch_sizes(size, error):
    with pytest.raises(error):
        linear().predict(X, batch_size=size)


# -- train_on_batch


def test_one_step_is_the_formula():
    model = linear()
    w, b = model[0].weight.numpy().astype(np.float64), model[0].bias.numpy().astype(np.float64)
    logs = model.train_on_batch(*tensors(), loss="mse", optimizer=SGD(model.parameters(), lr=0.5), metrics=["acc", "mae"])
    d = X.astype(np.float64) @ w.T + b - Y
    assert list(logs) == ["loss", "acc", "mae"] and all(type(v) is float for v in logs.values())
    assert_allclose(logs["loss"], (d**2).mean(), rtol=1e-5)
    assert_allclose(logs["mae"], np.abs(d).mean(), rtol=1e-5)
    assert_allclose(model[0].weight.to_numpy(), w - 0.5 * 2 * d.T @ X / d.size, rtol=1e-5, atol=1e-6)
    assert_allclose(model[0].bias.to_numpy(), b - 0.5 * 2 * d.sum(0) / d.size, rtol=1e-5, atol=1e-6)


def test_the_flags_leave_out_parts_of_the_step():
    model, (x, y) = linear(), tensors()
    optimizer = SGD(model.parameters(), lr=0.1)
    before = model[0].weight.numpy()
    model.train_on_batch(x, y, loss="mse", optimizer=optimizer, step=False)
    once = model[0].weight.grad.numpy()
    assert (model[0].weight.to_numpy() == before).all()
    model.train_on_batch(x, y, loss="mse", optimizer=optimizer, step=False, zero_grad=False)
    assert_allclose(model[0].weight.grad.to_numpy(), 2 * once, rtol=1e-6)
    model.train_on_batch(x, y, loss="mse", optimizer=optimizer, backward=False)
    assert model[0].weight.grad is None and (model[0].weight.to_numpy() == before).all()


def test_clipping_bounds_the_step():
    model, (x, y) = linear(), tensors()
    before = model[0].weight.numpy()
    model.train_on_batch(x, y, loss="sse", optimizer=SGD(model.parameters(), lr=1.0), clip_norm=1e-3)
    moved = np.sqrt(sum(((p.to_numpy() - q) ** 2).sum() for p, q in zip(model.parameters(), [before, np.zeros(2)], strict=True)))
    assert_allclose(moved, 1e-3, rtol=1e-2)
    model.train_on_batch(x, y, loss="sse", optimizer=SGD(model.parameters(), lr=1.0), clip_value=1e-4, step=False)
    assert max(np.abs(p.grad.to_numpy()).max() for p in model.parameters()) <= 1e-4 * (1 + 1e-6)


def test_arrays_are_taken_and_lists_are_not():
    model = linear()
    model.train_on_batch(X.astype(np.float64), Y, loss="mse", optimizer="sgd")
    assert model[0].weight.grad.dtype == np.float32
    with pytest.raises(
        TypeError, match=r"x_batch must be an array of real numbers, got one of dtype object; pass array.astype\('float32'\)"
    ):
        model.train_on_batch(X.astype(object), Y, loss="mse", optimizer="sgd")
    for bad in (X.tolist(), None, "x"):
        with pytest.raises(TypeError, match="x_batch must be a Tensor or an ndarray"):
            model.train_on_batch(bad, Y, loss="mse", optimizer="sgd")
        with pytest.raises(TypeError, match="y_batch"):
            model.train_on_batch(X, bad, loss="mse", optimizer="sgd")


def test_training_mode_is_set_and_a_failed_step_takes_it_back():
    model, flags = mixed_modes()
    x, y = tensors()
    with pytest.raises(ValueError):
        model.train_on_batch(x, Tensor((4, 9)), loss="mse", optimizer="sgd")
    assert [m.training for m in model.modules()] == flags
    model.train_on_batch(x, y, loss="mse", optimizer="sgd")
    assert all(m.training for m in model.modules())


@pytest.mark.parametrize("loss", ["mse", " MSE ", MSE(), mse_loss(), lambda p, y: ((p - y) * (p - y)).mean()])
def test_every_form_of_a_loss(loss):
    model, (x, y) = linear(), tensors()
    value = model.train_on_batch(x, y, loss=loss, optimizer=SGD(model.parameters()))["loss"]
    assert_allclose(value, ((X @ linear()[0].weight.to_numpy().T - Y) ** 2).mean(), rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["mse", "sse", "bce", "binary_crossentropy", "BinaryCrossentropy", "cce", " Categorical_Crossentropy", "categoricalcrossentropy"],
)
def test_every_name_of_a_loss(name):
    model = Sequential(Linear(3, 2), Sigmoid())
    assert np.isfinite(model.train_on_batch(X, Y, loss=name, optimizer="sgd")["loss"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"loss": "mean"}, ValueError, "unknown loss 'mean'.*mse"),
        ({"loss": 3}, TypeError, "loss must be"),
        ({"loss": None}, TypeError, "loss must be"),
        ({"loss": MSE}, TypeError, "class MSE"),
        ({"optimizer": "sdg"}, ValueError, "unknown optimizer 'sdg'.*adam"),
        ({"optimizer": None}, TypeError, "optimizer must be"),
        ({"optimizer": SGD}, TypeError, "class SGD"),
        ({"optimizer_kwargs": {"rho": 1}}, TypeError, "rho"),
        ({"optimizer_kwargs": {"lr": -1}}, ValueError, "lr must be above 0"),
        ({"metrics": ["brier"]}, ValueError, "unknown metric 'brier'.*acc"),
        ({"metrics": [3]}, TypeError, "metric 0"),
        ({"metrics": ["acc"], "metric_names": ["a", "b"]}, ValueError, "2 names for 1 metrics"),
        ({"metrics": ["acc", "acc"]}, ValueError, "must differ"),
        ({"metrics": ["acc"], "metric_names": ["loss"]}, ValueError, "must differ"),
        ({"loss": lambda p, y: 1.0}, TypeError, "backward"),
        ({"clip_norm": 0.0}, ValueError, "above 0"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    model = linear()
    before = model.state_dict()
    with pytest.raises(error, match=message):
        model.train_on_batch(X, Y, **{"loss": "mse", "optimizer": "sgd", **arguments})
    assert all((before[name] == array).all() for name, array in model.state_dict().items())


def test_an_optimizer_object_takes_no_kwargs():
    model = linear()
    with pytest.raises(ValueError, match="optimizer_kwargs"):
        model.train_on_batch(X, Y, loss="mse", optimizer=SGD(model.parameters()), optimizer_kwargs={"lr": 1})


def test_an_optimizer_of_another_model_is_refused():
    model = Sequential(Dense(2))
    early = SGD(model.parameters())
    model.build((1, 3))
    for optimizer in (early, SGD(linear().parameters())):
        with pytest.raises(RuntimeError, match=r"create the optimizer after build\(\)"):
            model.train_on_batch(X, Y, loss="mse", optimizer=optimizer)
        with pytest.raises(RuntimeError, match=r"create the optimizer after build\(\)"):
            model.fit(X, Y, loss="mse", optimizer=optimizer, verbose=0)
    model.train_on_batch(X, Y, loss="mse", optimizer=SGD([model[0].bias]))  # part of the model is enough


# -- optimizers by name


def test_a_named_optimizer_keeps_its_moments():
    model, twin = linear(), linear()
    optimizer = Adam(twin.parameters(), lr=0.1)
    for _ in range(3):
        model.train_on_batch(X, Y, loss="mse", optimizer="A-d_am ", optimizer_kwargs={"lr": 0.1})
        twin.train_on_batch(X, Y, loss="mse", optimizer=optimizer)
    assert (model[0].weight.to_numpy() == twin[0].weight.to_numpy()).all()


def test_a_named_optimizer_is_shared_with_fit_and_kept_per_settings():
    model = linear()
    model.train_on_batch(X, Y, loss="mse", optimizer="adam")
    model.fit(X, Y, loss="mse", optimizer="ADAM", verbose=0)
    first = model.last_run.optimizer
    assert first.get_state()["0.t"] == 2 and first.lr == 1e-3
    model.fit(X, Y, loss="mse", optimizer="adam", optimizer_kwargs={"learning_rate": 0.5, "betas": [0.8, 0.9]}, verbose=0)
    other = model.last_run.optimizer
    assert other is not first and other.lr == 0.5 and other.get_config()["betas"] == [0.8, 0.9]
    model.fit(X, Y, loss="mse", optimizer="adam", optimizer_kwargs={"learning_rate": 0.5, "betas": (0.8, 0.9)}, verbose=0)
    assert model.last_run.optimizer is other


def test_a_named_optimizer_is_dropped_when_the_parameters_change():
    model = linear()
    model.fit(X, Y, loss="mse", optimizer="adam", verbose=0)
    first = model.last_run.optimizer
    model.add(Linear(2, 2))
    model.fit(X, Y, loss="mse", optimizer="adam", verbose=0)
    second = model.last_run.optimizer
    assert second is not first and len(second.params) == 4
    model.register_module("1", Linear(2, 2))
    model.fit(X, Y, loss="mse", optimizer="adam", verbose=0)
    assert model.last_run.optimizer is not second
    assert first not in model.__dict__["_named_optimizers"].values()


# -- metrics and foreign objects


def test_metric_names():
    def closeness(y_true, y_pred):
        return 0.25

    model = linear()

    def names(**arguments):
        return list(model.train_on_batch(X, Y, loss="mse", optimizer="sgd", **arguments))

    class Nameless:
        def __call__(self, y_true, y_pred):
            return np.float32(1)

    assert names() == ["loss"]
    assert names(metrics=["acc", closeness, Nameless(), accuracy]) == ["loss", "acc", "closeness", "metric_2", "accuracy"]
    assert names(metrics=[closeness, "acc"], metric_names=["a", "b"]) == ["loss", "a", "b"]
    assert names(metrics="acc") == names(metrics=["acc"]) and names(metrics=closeness) == ["loss", "closeness"]


def test_metrics_get_truth_first_and_are_swapped_on_type_error():
    seen = []

    def picky(y_pred, y_true):
        if y_true.shape == y_pred.shape and (y_pred.to_numpy() == Y).all():
            raise TypeError("the prediction comes first here")
        seen.append((y_pred.to_numpy() == Y).all())
        return 1

    def always(y_true, y_pred):
        raise TypeError("never")

    model = linear()
    assert model.train_on_batch(X, Y, loss="mse", optimizer="sgd", metrics=picky)["picky"] == 1.0
    assert seen == [False]
    with pytest.raises(TypeError, match="never"):
        model.train_on_batch(X, Y, loss="mse", optimizer="sgd", metrics=always)


def test_metrics_leave_no_graph():
    results = []

    def keep(y_true, y_pred):
        results.append((y_pred * 2.0).requires_grad)
        return 0.0

    linear().train_on_batch(X, Y, loss="mse", optimizer="sgd", metrics=[keep])
    assert results == [False]


def test_a_foreign_loss_and_optimizer_need_only_their_protocol():
    class Loss:
        steps = 0

        def backward(self):
            Loss.steps += 1

        def to_numpy(self):
            return np.array(2.5)

    class Foreign:
        def __init__(self, params):
            self.params, self.calls = list(params), []

        def step(self):
            self.calls.append("step")

        def zero_grad(self):
            self.calls.append("zero_grad")

    model = linear()
    optimizer = Foreign(model.parameters())
    assert model.train_on_batch(X, Y, loss=lambda p, y: Loss(), optimizer=optimizer) == {"loss": 2.5}
    assert Loss.steps == 1 and optimizer.calls == ["zero_grad", "step"]


def test_a_model_of_ones_own():
    class Residual(Model):
        def __init__(self):
            super().__init__()
            self.inner = Dense(3)

        def forward(self, x):
            return x + self.inner(x)

    model = Residual()
    model.build((1, 3))
    first = model.train_on_batch(X, X * 2, loss="mse", optimizer="adam", optimizer_kwargs={"lr": 0.05})["loss"]
    for _ in range(60):
        last = model.train_on_batch(X, X * 2, loss="mse", optimizer="adam", optimizer_kwargs={"lr": 0.05})["loss"]
    assert last < 0.1 * first
    assert model.summary() == "Residual(\n  (inner): Dense\n)"


# -- evaluate


def test_evaluate_weighs_batches_and_restores_the_flags():
    model, flags = mixed_modes()
    whole = model.evaluate(X, Y, loss="mse", metrics=["acc"], batch_size=4)
    parts = model.evaluate(X, Y, loss="mse", metrics=["acc"], batch_size=3)
    assert list(whole) == ["loss", "acc"]
    assert_allclose(list(parts.values()), list(whole.values()), rtol=1e-6)
    assert [m.training for m in model.modules()] == flags
    assert model.evaluate([(X[:3], Y[:3]), (X[3:], Y[3:])], loss="mse") == pytest.approx({"loss": whole["loss"]})


def test_evaluate_records_nothing_and_draws_nothing():
    model, _ = mixed_modes()
    state = np.random.get_state()[1].copy()
    before = model.state_dict()
    model.evaluate(X, Y, loss="mse")
    assert (np.random.get_state()[1] == state).all()
    assert all((before[name] == array).all() for name, array in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_instance_overrides_are_honoured():
    model = linear()
    model.forward = lambda x: x * 0.0
    assert model.predict(X).tolist() == (X * 0).tolist()
    calls = []
    model.train_on_batch = lambda x, y, **options: calls.append(options) or {"loss": 1.0}
    history = model.fit(X, Y, loss="mse", optimizer="sgd", batch_size=2, verbose=0)
    assert history.history == {"loss": [1.0]} and len(calls) == 2
    assert set(calls[0]) == {"loss", "optimizer", "metrics", "metric_names"}
