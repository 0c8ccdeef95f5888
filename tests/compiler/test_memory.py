"""The arena: buffers alive at the same time never overlap; a steady step allocates nothing."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keydnn
from keydnn.compiler.ir import Buffer
from keydnn.compiler.memory import ALIGN, layout, rounded
from keydnn.kernels import native
from keydnn.nn import BatchNorm2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU
from keydnn.optim import Adam
from keydnn.training import Sequential
from tests.compiler.steps import only_step

LIVES = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 20), st.integers(0, 20)), max_size=30)


@given(LIVES)
def test_buffers_alive_together_do_not_overlap(entries):
    lives = {Buffer("made", n, np.empty(0)): (min(a, b), max(a, b)) for n, a, b in entries}
    offsets, total = layout(lives)
    assert offsets.keys() == lives.keys()
    for a, at in offsets.items():
        assert at % ALIGN == 0 and at + a.nbytes <= total
        for b, other in offsets.items():
            together = lives[a][0] <= lives[b][1] and lives[b][0] <= lives[a][1]
            if a is not b and together:
                assert at + rounded(a.nbytes) <= other or other + rounded(b.nbytes) <= at


def test_a_chain_needs_two_buffers():
    chain = {Buffer("made", 640, np.empty(0)): (i, i + 1) for i in range(10)}
    assert layout(chain)[1] == 2 * 640


def trained():
    model = Sequential(Conv2d(1, 4, 3), BatchNorm2d(4), ReLU(), MaxPool2d(2), Flatten(), Dropout(0.5), Linear(4 * 9, 3))
    rng = np.random.default_rng(0)
    x, y = keydnn.Tensor(data=rng.standard_normal((16, 1, 8, 8)).astype("f4")), keydnn.Tensor(data=rng.integers(0, 3, 16), dtype=np.int64)
    optimizer = Adam(model.parameters())
    step = lambda: model.train_on_batch(x, y, loss="cross_entropy", optimizer=optimizer)  # noqa: E731
    for _ in range(20):
        step()
    return model, step


def test_a_steady_step_asks_the_system_for_nothing():
    model, step = trained()
    before = native.load().memory_stats()
    for _ in range(200):
        step()
    after = native.load().memory_stats()
    assert after["system_calls"] == before["system_calls"]
    assert after["live_bytes"] == before["live_bytes"]
    assert only_step(model).replays == 220


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_memory_does_not_grow_over_many_steps():
    if not os.path.exists("/proc/self/statm"):
        return
    _, step = trained()
    before = resident()
    for _ in range(2000):
        step()
    assert resident() - before < 1 << 20


def test_recording_and_checking_give_their_memory_back():
    """After the first two steps, which also run eagerly, nothing waits in the cache but what the plan asks for."""
    x, y = np.random.rand(64, 8, 16, 16).astype("f4"), np.random.randint(0, 3, 64)
    model = keydnn.Sequential(
        keydnn.Conv2d(8, 32, 3, padding=1), keydnn.Tanh(), keydnn.GlobalAvgPool2d(), keydnn.Flatten(), keydnn.Linear(32, 3)
    )
    sgd = keydnn.SGD(model.parameters(), lr=0.1)
    held, kept = [], []
    for _ in range(4):
        model.train_on_batch(x, y, loss="cross_entropy", optimizer=sgd)
        held.append(model[0].weight.grad)
        kept.append(held[-1].to_numpy().copy())
    assert all(np.array_equal(g.to_numpy(), k) for g, k in zip(held, kept, strict=True))
    assert not np.array_equal(kept[0], kept[1])
    stats = native.load().memory_stats()
    assert stats["cached_bytes"] < 64 * 32 * 16 * 16 * 4  # one activation; the eager step holds six of them
