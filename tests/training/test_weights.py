"""Weights of samples and classes: the loss by its definition, rows that repeat, eager and recorded steps, resuming."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keydnn
from keydnn import Tensor, nn, ops
from keydnn.compiler import usable
from keydnn.nn import BatchNorm1d, Dropout, Linear, ReLU
from keydnn.nn.losses import LOSSES
from keydnn.nn.weighted import weighted
from keydnn.optim import SGD, Adam
from keydnn.training import Callback, LambdaCallback, Model, Sequential, TrainingCheckpoint, recorded

needs_plans = pytest.mark.skipif(not usable(), reason="plans need the native kernels")

N, C = 6, 4
KINDS = {  # loss -> kind of prediction and target
    **dict.fromkeys(("sse", "mse", "mae", "huber", "hinge", "bce_logits"), "values"),
    **dict.fromkeys(("bce", "cce", "kl"), "probabilities"),
    "cross_entropy": "labels",
}
OBJECTS = [
    nn.SSE(), nn.MSE(), nn.mse_loss(), nn.MAE(), nn.MAE("sum"), nn.Huber(0.5), nn.Hinge(), nn.BCEWithLogits(), nn.BinaryCrossEntropy(),
    nn.CategoricalCrossEntropy(), nn.KLDivergence(), nn.CrossEntropy(), nn.CrossEntropy(0.1, [1.0, 2.0, 0.5, 3.0]),
    nn.CrossEntropy(reduction="sum"), nn.MSE("sum"), nn.BinaryCrossEntropy("sum"), nn.CategoricalCrossEntropy("sum"),
]  # fmt: skip


def data(kind, seed=0, n=N):
    rng = np.random.default_rng(seed)
    p = rng.normal(size=(n, C))
    if kind == "values":
        return p, rng.normal(size=(n, C))
    if kind == "labels":
        return p, rng.integers(0, C, n)
    p, y = (np.exp(a) / np.exp(a).sum(1, keepdims=True) for a in (p, rng.normal(size=(n, C))))
    return p, y


def kind_of(loss):
    if isinstance(loss, nn.CrossEntropy):
        return "labels"
    return "probabilities" if isinstance(loss, nn.BinaryCrossEntropy | nn.CategoricalCrossEntropy | nn.KLDivergence) else "values"


def value_and_gradient(function, p, *rest):
    p = Tensor(data=p, dtype="float64", requires_grad=True)
    loss = function(p, *rest)
    loss.backward()
    return loss.item(), p.grad.numpy()


def target(y):
    return Tensor(data=y, dtype="int64" if y.dtype.kind == "i" else "float64")


CASES = [(LOSSES[name], kind) for name, kind in KINDS.items()] + [(loss, kind_of(loss)) for loss in OBJECTS]


@pytest.mark.parametrize("loss, kind", CASES, ids=lambda v: getattr(v, "__name__", None) or (v if isinstance(v, str) else type(v).__name__))
def test_whole_weights_are_rows_that_come_so_often(loss, kind):
    p, y = data(kind)
    w = np.array([1, 0, 2, 3, 0, 1])
    repeated = np.repeat(np.arange(N), w)
    want, grad = value_and_gradient(loss, p[repeated], target(y[repeated]))
    got, dp = value_and_gradient(lambda *args: weighted(loss)(*args, keydnn.tensor(w, dtype="float64")), p, target(y))
    assert got == pytest.approx(want, rel=1e-12)
    summed = np.zeros_like(dp)
    np.add.at(summed, repeated, grad)
    np.testing.assert_allclose(dp, summed, rtol=1e-9, atol=1e-15)
    nothing = value_and_gradient(lambda *args: weighted(loss)(*args, keydnn.zeros((N,))), p, target(y))
    assert nothing[0] == 0.0 and not nothing[1].any()


@given(w=st.lists(st.floats(0, 1e6), min_size=N, max_size=N), scale=st.floats(1e-3, 1e3))
@settings(max_examples=50, deadline=None)
def test_the_mean_does_not_depend_on_the_scale_of_the_weights(w, scale):
    p, y = data("labels")
    w = np.array(w)
    w[w < 1e-3] = 0.0
    loss = weighted(ops.cross_entropy)
    a, b = (loss(Tensor(data=p, dtype="float64"), target(y), Tensor(data=v, dtype="float64")).item() for v in (w, w * scale))
    rows = -(p - np.log(np.exp(p).sum(1, keepdims=True)))[np.arange(N), y]
    assert a == pytest.approx(np.average(rows, weights=w) if w.any() else 0.0, rel=1e-12)
    assert a == pytest.approx(b, rel=1e-12)


def test_labels_to_ignore_do_not_count():
    p, y = data("labels")
    loss = nn.CrossEntropy(ignore_index=int(y[0]))
    kept, w = y != y[0], np.arange(1.0, N + 1)
    want = weighted(nn.CrossEntropy())(*(Tensor(data=a, dtype="float64") for a in (p[kept], y[kept], w[kept]))).item()
    assert weighted(loss)(*(Tensor(data=a, dtype="float64") for a in (p, y, w))).item() == pytest.approx(want, rel=1e-12)


def test_a_function_of_the_user_gives_a_value_per_row():
    def quartic(pred, y):
        return (pred - y) ** 4

    p, y = data("values")
    w = np.arange(float(N))
    got = weighted(quartic)(*(Tensor(data=a, dtype="float64") for a in (p, y, w))).item()
    assert got == pytest.approx(np.average(((p - y) ** 4).mean(1), weights=w), rel=1e-12)
    with pytest.raises(ValueError, match=r"quartic.*\n.*\n *expected \(3,\)"):
        weighted(quartic)(keydnn.ones((6, 4)), keydnn.ones((6, 4)), keydnn.ones((3,)))
    with pytest.raises(ValueError, match="must not take the mean"):
        weighted(lambda p, y: (p - y).mean())(keydnn.ones((2,)), keydnn.ones((2,)), keydnn.ones((2,)))
    with pytest.raises(ValueError, match="Shape mismatch"):
        weighted(ops.mse)(keydnn.ones((2, 1)), keydnn.ones((2,)), keydnn.ones((2,)))


# -- in fit

RNG = np.random.default_rng(3)
X, LABELS = RNG.normal(size=(43, 5)).astype("f4"), RNG.integers(0, 3, 43)
W = RNG.uniform(0.0, 3.0, 43)


def run(compile=True, *, callbacks=None, epochs=3, seed=1, x=X, y=LABELS, **options):
    random.seed(seed), np.random.seed(seed)
    model = Sequential(Linear(5, 8), BatchNorm1d(8), ReLU(), Dropout(0.2), Linear(8, 3))
    options = {"loss": "cross_entropy", "metrics": "acc", "batch_size": 8, "verbose": 0} | options
    history = model.fit(x, y, optimizer=Adam(model.parameters(), lr=0.01), epochs=epochs, compile=compile, callbacks=callbacks, **options)
    return model, history


def assert_same(one, other):
    assert one[1] == other[1]
    for name, array in one[0].state_dict().items():
        assert array.tobytes() == other[0].state_dict()[name].tobytes(), name


WEIGHTS = {
    "sample": {"sample_weight": W},
    "class": {"class_weight": {0: 0.5, 2: 3.0}},
    "balanced": {"class_weight": "balanced"},
    "both": {"sample_weight": keydnn.tensor(W), "class_weight": {1: 4.0}, "validation_split": 0.25},
    "validation": {"sample_weight": W, "validation_data": (X, LABELS, W)},
}


@pytest.mark.parametrize("options", WEIGHTS.values(), ids=WEIGHTS)
def test_recorded_steps_equal_eager_ones(options):
    plan = run(True, **options)
    assert all(step.reason is None for variants in recorded.of(plan[0]).entries.values() for step in variants)
    eager = run(False, **options)
    assert_same(eager, plan)
    assert_same(plan, run(True, callbacks=[LambdaCallback(on_batch_end=lambda batch, logs: None)], **options))  # without native epochs
    assert plan[1].history["loss"] != run(True, **{k: v for k, v in options.items() if k.startswith("validation")})[1].history["loss"]


@needs_plans
@pytest.mark.parametrize("name", KINDS)
def test_every_loss_is_recorded_with_weights(name):
    rng = np.random.default_rng(6)
    kind = KINDS[name]
    x, (_, y), w = rng.normal(size=(21, 5)).astype("f4"), data(kind, n=21), rng.uniform(size=21)
    results = []
    for compile in (True, False):
        np.random.seed(1)
        model = Sequential(Linear(5, C), *([nn.Softmax()] if kind == "probabilities" else []))
        optimizer = Adam(model.parameters(), lr=0.01)
        losses = [model.train_on_batch(x, y, loss=name, optimizer=optimizer, sample_weight=w, compile=compile)["loss"] for _ in range(4)]
        if compile:
            assert [step.reason for variants in recorded.of(model).entries.values() for step in variants] == [None]
        results.append((losses, model.state_dict()))
    (a, p), (b, q) = results
    np.testing.assert_allclose(a, b, rtol=1e-6)
    for key, array in p.items():
        np.testing.assert_allclose(array, q[key], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("every", [None, 3])
def test_a_resumed_run_ends_with_the_same_bits(every, tmp_path):
    class Stop(Callback):
        def on_batch_end(self, batch, logs=None):
            if self.model.last_run.epoch == 1 and batch == 3:
                raise KeyboardInterrupt

    options = WEIGHTS["both"]
    whole = run(epochs=4, callbacks=[TrainingCheckpoint(tmp_path / "a", every_n_batches=every)], **options)
    listeners = [TrainingCheckpoint(tmp_path / "b", every_n_batches=every), *([Stop()] if every else [])]
    if every:
        with pytest.raises(KeyboardInterrupt):
            run(epochs=4, callbacks=listeners, **options)
    else:
        run(epochs=2, callbacks=listeners, **options)
    resumed = run(epochs=4, seed=9, callbacks=[TrainingCheckpoint(tmp_path / "c", every_n_batches=every)], resume=tmp_path / "b", **options)
    assert_same(whole, resumed)


def test_the_loss_of_an_epoch_is_that_of_all_rows():
    model = Sequential(Linear(5, 3))
    rows = -np.log(np.exp(z := model.predict(X).numpy().astype("f8")) / np.exp(z).sum(1, keepdims=True))[np.arange(43), LABELS]
    got = model.evaluate(X, LABELS, loss="cross_entropy", metrics="acc", batch_size=8, sample_weight=W)
    assert got["loss"] == pytest.approx(np.average(rows, weights=W), rel=1e-5)
    assert got["acc"] == pytest.approx((z.argmax(1) == LABELS).mean())
    options = {"loss": "cross_entropy", "optimizer": SGD(model.parameters(), lr=1e-30), "batch_size": 8, "verbose": 0}
    history = model.fit(X, LABELS, sample_weight=W, validation_data=(X, LABELS), **options)
    assert history.last()["loss"] == pytest.approx(np.average(rows, weights=W), rel=1e-5)
    assert history.last()["val_loss"] == pytest.approx(rows.mean(), rel=1e-5)
    only = model.fit(
        X, LABELS, loss="cross_entropy", optimizer=SGD(model.parameters(), lr=1e-30), verbose=0, validation_data=(X, LABELS, W)
    )
    assert only.last()["val_loss"] == pytest.approx(np.average(rows, weights=W), rel=1e-5)


def test_class_weights_are_those_of_the_loss():
    a = run(class_weight={0: 0.5, 1: 1.0, 2: 3.0})[1]
    b = run(loss=nn.CrossEntropy(class_weights=[0.5, 1.0, 3.0]))[1]
    np.testing.assert_allclose(a.history["acc"], b.history["acc"])  # the same steps; the loss of an epoch counts batches otherwise
    counts = np.bincount(LABELS)
    balanced = {c: 43 / (3 * counts[c]) for c in range(3)}
    np.testing.assert_allclose(run(class_weight="balanced")[1].history["loss"], run(class_weight=balanced)[1].history["loss"], rtol=1e-5)
    hot = keydnn.one_hot(LABELS, 3)
    np.testing.assert_allclose(
        run(class_weight=balanced, y=hot)[1].history["loss"], run(class_weight=balanced)[1].history["loss"], rtol=1e-5
    )


def test_class_weights_of_an_iterable_and_a_model_with_a_step_of_its_own():
    pairs = [(X[i : i + 8], LABELS[i : i + 8]) for i in range(0, 43, 8)]
    arrays = run(shuffle=False, class_weight={1: 4.0}, validation_data=(X, LABELS))
    from_pairs = run(x=pairs, y=None, class_weight={1: 4.0}, validation_data=pairs)
    np.testing.assert_allclose(from_pairs[1].history["loss"], arrays[1].history["loss"], rtol=1e-6)
    np.testing.assert_allclose(from_pairs[1].history["val_loss"], arrays[1].history["val_loss"], rtol=1e-6)

    class Own(Model):
        def __init__(self):
            super().__init__()
            self.inner, self.seen = Linear(5, 3), []

        def forward(self, x):
            return self.inner(x)

        def train_on_batch(self, x_batch, y_batch, **options):
            self.seen.append(options["sample_weight"].shape)
            return super().train_on_batch(x_batch, y_batch, **options)

    model = Own()
    model.fit(X, LABELS, loss="cross_entropy", optimizer="sgd", sample_weight=W, batch_size=40, verbose=0)
    assert model.seen == [(40,), (3,)]


def test_train_on_batch():
    model = Sequential(Linear(5, 3))
    options = {"loss": "cross_entropy", "optimizer": SGD(model.parameters(), lr=1e-30)}
    plain = model.train_on_batch(X, LABELS, **options)["loss"]
    for _ in range(4):  # recorded, checked, replayed
        assert model.train_on_batch(X, LABELS, sample_weight=np.full(43, 2.0), **options)["loss"] == pytest.approx(plain, rel=1e-6)
        first = np.eye(43)[0]
        alone = model.train_on_batch(X[:1], LABELS[:1], **options)["loss"]
        assert model.train_on_batch(X, LABELS, sample_weight=first, **options)["loss"] == pytest.approx(alone, rel=1e-5)
        assert model.train_on_batch(X, LABELS, class_weight={0: 0.0, 1: 0.0, 2: 0.0}, **options)["loss"] == 0.0


@pytest.mark.parametrize(
    "options, error, text",
    [
        ({"sample_weight": W[:5]}, ValueError, r"sample_weight has shape \(5,\), expected one weight per row \(43,\)"),
        ({"sample_weight": -W}, ValueError, "at least 0"),
        ({"sample_weight": np.full(43, np.nan)}, ValueError, "finite"),
        ({"sample_weight": W.tolist()}, TypeError, "sample_weight must be a Tensor or an ndarray"),
        ({"class_weight": [1.0]}, TypeError, "class_weight must map classes"),
        ({"class_weight": {0: -1.0}}, ValueError, "class 0"),
        ({"class_weight": {0: 1.0}, "y": np.linspace(0, 1, 43)}, ValueError, "whole numbers"),
        ({"class_weight": {0: 1.0}, "y": np.zeros((43, 2, 2))}, ValueError, r"\(43, 2, 2\)"),
        ({"x": [(X, LABELS)], "y": None, "sample_weight": W}, ValueError, "needs x and y as arrays"),
        ({"x": [(X, LABELS)], "y": None, "class_weight": "balanced"}, ValueError, "needs x and y as arrays"),
    ],
)
def test_wrong_weights(options, error, text):
    with pytest.raises(error, match=text):
        run(**options)
