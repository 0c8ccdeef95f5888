"""Streaming metrics in fit, evaluate and train_on_batch: over all rows, eager and recorded alike, also over an interruption."""

import random

import numpy as np
import pytest

import keydnn
from keydnn import nn
from keydnn.compiler import usable
from keydnn.optim import Adam
from keydnn.training import Callback, LambdaCallback, Sequential, TrainingCheckpoint, recorded
from keydnn.training.streaming import AUC, F1, R2, RMSE, ConfusionMatrix, Precision, Recall, StreamingMetric, TopKAccuracy

needs_plans = pytest.mark.skipif(not usable(), reason="plans need the native kernels")

RNG = np.random.default_rng(5)
X, LABELS = RNG.normal(size=(101, 6)).astype("f4"), RNG.integers(0, 7, 101)
BINARY = RNG.integers(0, 2, (101, 1)).astype("f4")


class Largest(StreamingMetric):
    """A metric of the user's that runs after the step, in NumPy."""

    name = "largest"

    def __init__(self):
        super().__init__()
        self.top = -np.inf

    def reset(self):
        self.top = -np.inf

    def update(self, y_true, y_pred):
        self.top = max(self.top, float(y_pred.numpy().max()))

    def result(self):
        return self.top

    def get_state(self):
        return {"top": self.top}

    def set_state(self, state):
        self.top = state["top"]


def several():
    return ["acc", "top_5_accuracy", F1(n_classes=7), ConfusionMatrix(7)]


def binary():
    return ["precision", Recall(), "f1", "rmse", "r2", "mae", AUC(bins=50)]


def kept():
    return ["auc", Precision(0.4), Largest()]


KINDS = {"several": several, "binary": binary, "kept": kept}


def run(kind, compile=True, *, callbacks=None, epochs=3, seed=1, **options):
    random.seed(seed), np.random.seed(seed)
    last = [nn.Linear(16, 7)] if kind == "several" else [nn.Linear(16, 1), nn.Sigmoid()]
    model = Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.1), *last)
    y = LABELS if kind == "several" else BINARY
    options = {"metrics": KINDS[kind](), "validation_data": (X, y), "batch_size": 16, "verbose": 0} | options
    loss = "cross_entropy" if kind == "several" else "bce"
    optimizer = Adam(model.parameters(), lr=0.01)
    history = model.fit(X, y, loss=loss, optimizer=optimizer, epochs=epochs, compile=compile, callbacks=callbacks, **options)
    return model, history


def assert_same(one, other):
    assert one[1] == other[1]
    for name, array in one[0].state_dict().items():
        assert array.tobytes() == other[0].state_dict()[name].tobytes(), name


@needs_plans
@pytest.mark.parametrize("kind", KINDS)
def test_recorded_steps_equal_eager_ones(kind):
    plan = run(kind)
    steps = [step for variants in recorded.of(plan[0]).entries.values() for step in variants]
    assert len(steps) == 4 and all(step.reason is None for step in steps)
    assert_same(plan, run(kind, False))
    assert_same(plan, run(kind, callbacks=[LambdaCallback(on_batch_end=lambda batch, logs: None)]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("every", [None, 3])
def test_a_resumed_run_ends_with_the_same_bits(kind, every, tmp_path):
    class Stop(Callback):
        def on_batch_end(self, batch, logs=None):
            if self.model.last_run.epoch == 1 and batch == 3:
                raise KeyboardInterrupt

    whole = run(kind, epochs=4, callbacks=[TrainingCheckpoint(tmp_path / "a", every_n_batches=every)])
    listeners = [TrainingCheckpoint(tmp_path / "b", every_n_batches=every), *([Stop()] if every else [])]
    if every:
        with pytest.raises(KeyboardInterrupt):
            run(kind, epochs=4, callbacks=listeners)
    else:
        run(kind, epochs=2, callbacks=listeners)
    again = [TrainingCheckpoint(tmp_path / "c", every_n_batches=every)]
    assert_same(whole, run(kind, epochs=4, seed=9, callbacks=again, resume=tmp_path / "b"))
    if every:
        with pytest.raises(ValueError, match="other streaming metrics"):
            run(kind, epochs=4, metrics=[RMSE()], resume=tmp_path / "b")


def test_the_value_of_an_epoch_is_that_of_all_rows():
    model, history = run("several")
    scores = model.predict(X).numpy()
    matrix = ConfusionMatrix(7)
    got = model.evaluate(
        X, LABELS, loss="cross_entropy", metrics=["acc", TopKAccuracy(2), matrix], metric_names=["a", "b", "c"], batch_size=30
    )
    assert list(got) == ["loss", "a", "b"]
    assert got["b"] == pytest.approx(np.mean([y in np.argsort(-row)[:2] for y, row in zip(LABELS, scores, strict=True)]))
    assert matrix.result().sum() == 101 and matrix.result().trace() == round(got["a"] * 101)
    assert set(history.history) == {n + name for n in ("", "val_") for name in ("loss", "acc", "top_5_accuracy", "f1")}
    assert list(history.history)[:4] == ["loss", "acc", "top_5_accuracy", "f1"]
    seen = []
    run("binary", callbacks=[LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs["recall"]))])
    assert len(seen) == 3


@needs_plans
@pytest.mark.parametrize("most", [None, 1])
def test_metrics_that_run_after_the_step_see_each_batch(most, monkeypatch):
    """In native epochs they get the predictions of many steps, kept; the epochs still run natively."""
    if most is not None:
        monkeypatch.setattr(recorded, "_MOST_KEPT", most)

    def spread(y_true, y_pred):
        return float(y_pred.numpy().std() + y_true.numpy().sum())

    calls = []
    native = recorded.run_rows
    monkeypatch.setattr(recorded, "run_rows", lambda *args: calls.append(native(*args)) or calls[-1])
    metrics = [Largest(), "mae", spread, "auc", "acc"]
    plan, eager = run("kept", metrics=metrics), run("kept", False, metrics=metrics)
    assert_same(plan, eager)
    assert sum(len(columns[0]) for columns in calls) == 16  # 3 epochs of 6 whole batches, two of which came first
    assert all(len(columns) == 4 and len({len(column) for column in columns}) == 1 for columns in calls)
    assert list(plan[1].history)[:6] == ["loss", "largest", "mae", "spread", "auc", "acc"]


def test_batch_logs_tell_the_value_so_far():
    seen = []
    _, history = run("binary", callbacks=[LambdaCallback(on_batch_end=lambda batch, logs: seen.append(logs["rmse"]))])
    assert seen[6::7] == history.history["rmse"]


@needs_plans
def test_train_on_batch_a_name_starts_anew_and_an_object_goes_on():
    model = Sequential(nn.Linear(6, 1), nn.Sigmoid())
    options = {"loss": "bce", "optimizer": Adam(model.parameters(), lr=1e-30)}
    rmse = RMSE()
    for _ in range(4):  # recorded, checked, replayed
        batch = model.train_on_batch(X[:10], BINARY[:10], metrics="rmse", **options)
        assert batch["rmse"] == pytest.approx(np.sqrt(((model.predict(X[:10]).numpy() - BINARY[:10]) ** 2).mean()), rel=1e-5)
        rmse.reset()
        model.train_on_batch(X[:10], BINARY[:10], metrics=[rmse], **options)
        both = model.train_on_batch(X[10:], BINARY[10:], metrics=[rmse], **options)
        assert both["rmse"] == pytest.approx(np.sqrt(((model.predict(X).numpy() - BINARY) ** 2).mean()), rel=1e-5)
    assert all(step.reason is None for variants in recorded.of(model).entries.values() for step in variants)
    assert len(recorded.of(model).entries) == 5  # three of training, two of predicting


def test_metrics_are_checked():
    model = Sequential(nn.Linear(6, 1))
    for metrics, error, text in [
        (RMSE, TypeError, "the class RMSE"),
        (["nothing"], ValueError, "precision"),
        ([R2(), R2()], ValueError, "metric names must differ"),
    ]:
        with pytest.raises(error, match=text):
            model.evaluate(X, BINARY, loss="mse", metrics=metrics)
    assert model.evaluate(X, BINARY, loss="mse", metrics=AUC())["auc"] == pytest.approx(
        model.evaluate(keydnn.tensor(X), keydnn.tensor(BINARY), loss="mse", metrics="auc", compile=False, batch_size=7)["auc"]
    )
