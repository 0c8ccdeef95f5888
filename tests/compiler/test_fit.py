"""Epochs that run natively equal epochs step by step."""

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import keydnn
from keydnn.nn import BatchNorm1d, Dropout, Linear, ReLU
from keydnn.optim import Adam, StepLR
from keydnn.training import Callback, Sequential, recorded


def run(compile, *, n=100, threads=None, callbacks=None, **options):
    np.random.seed(5)
    random.seed(5)
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((n, 6)).astype("f4"), rng.integers(0, 3, n)
    model = Sequential(Linear(6, 16), BatchNorm1d(16), ReLU(), Dropout(0.2), Linear(16, 3))
    options = {"loss": "cross_entropy", "metrics": "acc", "batch_size": 16, "epochs": 4, "verbose": 0} | options
    history = model.fit(x, y, optimizer=Adam(model.parameters(), lr=0.01), compile=compile, callbacks=callbacks, **options)
    return model, history, np.random.get_state()[1].copy()


def assert_equal(a, b):
    assert a[1].history == b[1].history
    for p, q in zip([*a[0].parameters(), *a[0].buffers()], [*b[0].parameters(), *b[0].buffers()], strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
    np.testing.assert_array_equal(a[2], b[2])


@pytest.mark.parametrize("n", [96, 100, 10])
@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_in_one_call_equals_single_steps(n, shuffle):
    eager, plan = run(False, n=n, shuffle=shuffle), run(True, n=n, shuffle=shuffle)
    assert_equal(eager, plan)
    assert all(step.reason is None for variants in recorded.of(plan[0]).entries.values() for step in variants)


def test_batch_hooks_are_told_of_every_batch():
    class Counter(Callback):
        seen = 0

        def on_batch_end(self, batch, logs=None):
            type(self).seen += 1

    assert_equal(run(False), run(True, callbacks=[Counter()]))
    assert Counter.seen == 4 * 7


def test_validation_and_schedules():
    rng = np.random.default_rng(2)
    validation = rng.standard_normal((30, 6)).astype("f4"), rng.integers(0, 3, 30)
    schedules = [StepLR(2, 0.5)]
    assert_equal(run(False, validation_data=validation, callbacks=schedules), run(True, validation_data=validation, callbacks=schedules))


def test_the_same_bits_for_any_number_of_threads():
    before = keydnn.threads.get_threads()
    try:
        runs = []
        for n in (1, 2, 3):
            keydnn.threads.set_threads(n)
            runs.append(run(True))
    finally:
        keydnn.threads.set_threads(before)
    assert_equal(runs[0], runs[1])
    assert_equal(runs[0], runs[2])


def wide(compile=True, threads=2):
    """A model after epochs over batches of 64 KiB and more, whose rows are gathered while the step before runs."""
    keydnn.threads.set_threads(threads)
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((300, 600)).astype("f4"), rng.integers(0, 3, 300)
    layers = [Linear(600, 64), ReLU(), Linear(64, 3)]
    for p in (p for layer in layers for p in layer.parameters()):
        p.copy_from_numpy(rng.standard_normal(p.shape).astype("f4") * 0.1)
    model = Sequential(*layers)
    options = {"optimizer": Adam(model.parameters()), "batch_size": 32, "epochs": 3, "shuffle": False, "verbose": 0, "compile": compile}
    history = model.fit(x, y, loss="cross_entropy", **options)
    return history.history["loss"], *(p.numpy() for p in model.parameters())


def test_rows_gathered_ahead_are_the_rows_of_the_batch():
    before = keydnn.threads.get_threads()
    try:
        runs = [wide(compile=False), *(wide(threads=n) for n in (1, 2, 3))]
        with ThreadPoolExecutor(2) as pool:  # one of two that train at once gathers as it did before
            runs += pool.map(lambda _: wide(), range(2))
    finally:
        keydnn.threads.set_threads(before)
    for run in runs[1:]:
        for a, b in zip(runs[0], run, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_model_with_its_own_train_on_batch_is_stepped_through_it():
    class Own(Sequential):
        calls = 0

        def train_on_batch(self, *args, **kwargs):
            type(self).calls += 1
            return super().train_on_batch(*args, **kwargs)

    rng = np.random.default_rng(1)
    model = Own(Linear(6, 3))
    data = rng.standard_normal((32, 6)).astype("f4"), rng.integers(0, 3, 32)
    model.fit(*data, loss="cross_entropy", optimizer=Adam(model.parameters()), epochs=3, batch_size=8, verbose=0)
    assert Own.calls == 12
