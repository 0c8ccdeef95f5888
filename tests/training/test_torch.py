"""The same networks, data and order of rows in PyTorch give the same losses.

In float64 the two differ by the order of rounding alone, which a few hundred steps of a smooth loss keep below 1e-7.
"""

import random

import numpy as np
import pytest
from numpy.testing import assert_allclose

from keydnn.nn import BatchNorm1d, Conv2d, Flatten, Linear, MaxPool2d, ReLU, Tanh
from keydnn.optim import SGD, Adam, StepLR
from keydnn.training import Sequential

pytestmark = pytest.mark.torch
F8 = np.float64
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 50)


def mlp(torch):
    ours = Sequential(Linear(6, 16, dtype=F8), Tanh(), BatchNorm1d(16, dtype=F8), Linear(16, 3, dtype=F8))
    theirs = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.BatchNorm1d(16), torch.nn.Linear(16, 3)).double()
    return ours, theirs, RNG.normal(size=(50, 6))


def cnn(torch):
    ours = Sequential(
        Conv2d(2, 5, 3, padding=1, dtype=F8), ReLU(), MaxPool2d(2), Conv2d(5, 4, 3, stride=2, dtype=F8), ReLU(), Flatten(),
        Linear(16, 3, dtype=F8),
    )  # fmt: skip
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(2, 5, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Conv2d(5, 4, 3, stride=2), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(16, 3),
    ).double()  # fmt: skip
    return ours, theirs, RNG.normal(size=(50, 2, 12, 12))


def copy_weights(torch, ours, theirs):
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        with torch.no_grad():
            q.copy_(torch.from_numpy(p.numpy()))


def train_theirs(torch, model, optimizer, loss, x, y, epochs, gamma, clip):
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma)
    history = []
    for _ in range(epochs):
        order = np.random.Generator(np.random.Philox(random.getrandbits(64))).permutation(len(x))
        total = 0.0
        for start in range(0, len(x), 16):
            rows = order[start : start + 16]
            optimizer.zero_grad()
            value = loss(model(torch.from_numpy(x[rows])), torch.from_numpy(y[rows]))
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            total += value.item() * len(rows)
        history.append(total / len(x))
        schedule.step()
    return history


@pytest.mark.parametrize("make", [mlp, cnn])
@pytest.mark.parametrize("rule", ["adam", "momentum"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_losses_of_every_epoch(make, rule, loss):
    import torch

    ours, theirs, x = make(torch)
    copy_weights(torch, ours, theirs)
    y = LABELS if loss == "cross_entropy" else np.eye(3)[LABELS]
    if rule == "adam":
        optimizer, twin = Adam(ours.parameters(), lr=0.01), torch.optim.Adam(theirs.parameters(), lr=0.01)
    else:
        optimizer, twin = SGD(ours.parameters(), lr=0.05, momentum=0.9), torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9)
    random.seed(3)
    history = ours.fit(
        x, y, loss=loss, optimizer=optimizer, batch_size=16, epochs=8, verbose=0, callbacks=[StepLR(2, 0.5)], clip_norm=0.5, metrics=["acc"]
    )
    random.seed(3)
    criterion = torch.nn.CrossEntropyLoss() if loss == "cross_entropy" else torch.nn.MSELoss()
    want = train_theirs(torch, theirs, twin, criterion, x, y, 8, 0.5, 0.5)
    assert_allclose(history.history["loss"], want, rtol=1e-7)
    assert want[-1] < want[0]
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_allclose(p.to_numpy(), q.detach().numpy(), rtol=1e-5, atol=1e-7)
