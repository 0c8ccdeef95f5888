"""Gradient accumulation: the steps of a large batch, eager and recorded alike, also over an interruption."""

import random

import numpy as np
import pytest

import keydnn
from keydnn.nn import BatchNorm1d, Dropout, Linear, ReLU
from keydnn.optim import SGD, Adam
from keydnn.training import Callback, LambdaCallback, Model, Sequential, TrainingCheckpoint, recorded

RNG = np.random.default_rng(2)
X, LABELS, W = RNG.normal(size=(53, 5)), RNG.integers(0, 3, 53), RNG.uniform(size=53)


def run(compile=True, *, layers=(), callbacks=None, epochs=3, seed=1, dtype="f4", **options):
    random.seed(seed), np.random.seed(seed)
    model = Sequential(Linear(5, 8, dtype=dtype), *layers, ReLU(), Linear(8, 3, dtype=dtype))
    options = {"loss": "cross_entropy", "metrics": "acc", "batch_size": 8, "verbose": 0} | options
    optimizer = options.pop("optimizer", lambda params: Adam(params, lr=0.01))(model.parameters())
    history = model.fit(X, LABELS, optimizer=optimizer, epochs=epochs, compile=compile, callbacks=callbacks, **options)
    return model, history


def assert_same(one, other):
    assert one[1] == other[1]
    for name, array in one[0].state_dict().items():
        assert array.tobytes() == other[0].state_dict()[name].tobytes(), name
    for name, array in one[0].last_run.optimizer.get_state().items():
        assert array.tobytes() == other[0].last_run.optimizer.get_state()[name].tobytes(), name


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"sample_weight": W}, {"clip_norm": 0.05}, {"clip_value": 0.01}, {"loss": keydnn.nn.CrossEntropy(0.1)}]
)
def test_it_is_like_a_large_batch(options, compile):
    options = {"dtype": "f8", "optimizer": lambda params: SGD(params, lr=0.1, momentum=0.9)} | options
    large, small = run(compile, batch_size=24, **options), run(compile, batch_size=8, accumulate=3, **options)
    for name, array in large[0].state_dict().items():
        np.testing.assert_allclose(small[0].state_dict()[name], array, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(small[1].history["loss"], large[1].history["loss"], rtol=1e-9)


@pytest.mark.parametrize("weights", [None, W])
@pytest.mark.parametrize("every", [2, 3, 7, 100])
def test_recorded_steps_equal_eager_ones(every, weights):
    def twin(*args, **options):
        return run(*args, layers=(BatchNorm1d(8), Dropout(0.3)), accumulate=every, sample_weight=weights, clip_norm=1.0, **options)

    plan = twin(True)
    assert all(step.reason is None for variants in recorded.of(plan[0]).entries.values() for step in variants)
    assert_same(plan, twin(False))
    assert_same(plan, twin(True, callbacks=[LambdaCallback(on_batch_end=lambda batch, logs: None)]))


@pytest.mark.slow
@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("at", [None, 0, 1, 2, 6])
def test_a_resumed_run_ends_with_the_same_bits(at, compile, tmp_path):
    class Stop(Callback):
        comes_last = True

        def on_batch_end(self, batch, logs=None):
            if self.model.last_run.epoch == 1 and batch == at:
                raise KeyboardInterrupt

    def part(path, **options):
        listeners = [TrainingCheckpoint(path, every_n_batches=1 if at is not None else None), *options.pop("callbacks", [])]
        return run(compile, layers=(BatchNorm1d(8), Dropout(0.3)), accumulate=3, sample_weight=W, callbacks=listeners, **options)

    whole = part(tmp_path / "a", epochs=4)
    if at is None:
        part(tmp_path / "b", epochs=2)
    else:
        with pytest.raises(KeyboardInterrupt):
            part(tmp_path / "b", epochs=4, callbacks=[Stop()])
    assert_same(whole, part(tmp_path / "c", epochs=4, seed=9, resume=tmp_path / "b"))
    if at is not None:
        assert Sequential.load(tmp_path / "b").last_run.epoch == 1
        for accumulate in (1, 2):
            with pytest.raises(ValueError, match="pass accumulate=3"):
                run(accumulate=accumulate, epochs=4, layers=(BatchNorm1d(8), Dropout(0.3)), resume=tmp_path / "b")


def test_parameters_without_a_gradient_are_left_alone():
    class Half(Model):
        def __init__(self):
            super().__init__()
            self.used, self.idle = Linear(5, 3), Linear(5, 3)

        def forward(self, x):
            return self.used(x)

    model = Half()
    before = model.idle.weight.numpy()
    model.fit(X, LABELS, loss="cross_entropy", optimizer=Adam(model.parameters(), weight_decay=0.1), accumulate=2, verbose=0)
    np.testing.assert_array_equal(model.idle.weight.numpy(), before)


def test_all_weights_zero_is_no_gradient():
    model = Sequential(Linear(5, 3))
    before = model.state_dict()
    options = {"loss": "cross_entropy", "optimizer": SGD(model.parameters(), lr=1.0), "batch_size": 8, "verbose": 0}
    model.fit(X, LABELS, sample_weight=np.zeros(53), accumulate=2, **options)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_wrong_arguments():
    for value, error in [(0, ValueError), (1.5, TypeError), (True, TypeError)]:
        with pytest.raises(error, match="accumulate"):
            run(accumulate=value)

    class Own(Sequential):
        def train_on_batch(self, *args, **options):
            return super().train_on_batch(*args, **options)

    model = Own(Linear(5, 3))
    with pytest.raises(ValueError, match="Own has its own"):
        model.fit(X, LABELS, loss="cross_entropy", optimizer="sgd", accumulate=2, verbose=0)
