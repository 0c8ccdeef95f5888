"""Training leaves nothing behind: with the garbage collector off, memory does not grow from step to step."""

import contextlib
import gc
import weakref

import numpy as np
import pytest

from keydnn import Tensor
from keydnn.nn import BatchNorm1d, Dense, Dropout, ReLU
from keydnn.optim import Adam, StepLR
from keydnn.training import EarlyStopping, LambdaCallback, LearningRateScheduler, Sequential

RNG = np.random.default_rng(0)


def resident():
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.fixture
def collector_off():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def mlp():
    model = Sequential(Dense(128), BatchNorm1d(128), ReLU(), Dropout(0.2), Dense(64), ReLU(), Dense(10))
    model.build((1, 256))
    return model


@pytest.mark.slow
def test_memory_stays_flat_from_step_50_to_200(collector_off):
    model = mlp()
    optimizer = Adam(model.parameters())
    x = Tensor(data=RNG.normal(size=(64, 256)).astype(np.float32))
    y = Tensor(data=np.eye(10, dtype=np.float32)[RNG.integers(0, 10, 64)])
    sizes = {}
    for step in range(201):
        model.train_on_batch(x, y, loss="mse", optimizer=optimizer, metrics=["acc"], clip_norm=1.0)
        if step in (50, 200):
            sizes[step] = resident()
    assert sizes[200] - sizes[50] < 2**20


@pytest.mark.slow
def test_memory_stays_flat_in_fit(collector_off):
    model = mlp()
    x, y = RNG.normal(size=(64 * 25, 256)).astype(np.float32), RNG.normal(size=(64 * 25, 10)).astype(np.float32)
    sizes = []
    note = LambdaCallback(on_epoch_end=lambda epoch, logs: sizes.append(resident()))
    model.fit(x, y, loss="mse", optimizer="adam", batch_size=64, epochs=8, verbose=0, validation_data=(x[:64], y[:64]), callbacks=[note])
    assert sizes[7] - sizes[1] < 2**20  # 150 steps


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True])
def test_a_dropped_model_is_freed_at_once(collector_off, fails):
    model = mlp()
    callbacks = [EarlyStopping(monitor="loss", restore_best_weights=True), LearningRateScheduler(StepLR(2))]
    y = np.zeros((4, 10))
    with pytest.raises(ValueError) if fails else contextlib.nullcontext():
        model.fit(np.zeros((4, 256)), y[:, :9] if fails else y, loss="mse", optimizer="adam", verbose=0, callbacks=callbacks)
    del callbacks
    model.predict(np.zeros((4, 256)))
    gone = [weakref.ref(model), weakref.ref(model[0]), weakref.ref(model[0].weight)]
    del model
    assert [ref() for ref in gone] == [None, None, None]
