"""One recorded step, replayed five times from its kernel calls alone, gives the bits of five eager steps."""

import copy

import numpy as np
import pytest

from keydnn import Tensor, ops
from keydnn.nn import BatchNorm1d, BatchNorm2d, Conv2d, Dense, Dropout, Flatten, MaxPool2d, Parameter, ReLU
from keydnn.optim import SGD, Adam, clip_grad_norm, clip_grad_value
from keydnn.training import Model, Sequential
from tests.replayer import Replayer

STEPS = 5


def mlp():
    model = Sequential(Dense(16), BatchNorm1d(16), ReLU(), Dropout(0.3), Dense(8), ReLU(), Dense(3))
    model.build((1, 6))
    return model, (10, 6)


def cnn():
    model = Sequential(Conv2d(2, 4, 3, padding=1), BatchNorm2d(4), ReLU(), MaxPool2d(2), Dropout(0.2), Flatten(), Dense(3))
    model.build((1, 2, 6, 6))
    return model, (5, 2, 6, 6)


def batches(shape, n=STEPS + 1):
    rng = np.random.default_rng(1)
    return [(rng.normal(size=shape).astype(np.float32), rng.normal(size=(shape[0], 3)).astype(np.float32)) for _ in range(n)]


def stepper(model, optimizer, x, y, loss):
    def step():
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        clip_grad_norm(optimizer.params, 0.5)
        clip_grad_value(optimizer.params, 0.2)
        optimizer.step()
        return value

    return step


def everything(model, optimizer, x, y):
    slots = [tensor for group in optimizer.groups for slots in group.slots for tensor in slots.values()]
    return [x, y, *model.parameters(), *model.buffers(), *slots, *{id(g.rate): g.rate for g in optimizer.groups}.values()]


class Shared(Model):
    """One gradient array reaches several leaves, one leaf gets several gradients."""

    def __init__(self):
        super().__init__()
        self.weight = Parameter((6, 3), initializer="xavier")
        self.a, self.b, self.c = (Parameter((10, 3), initializer="xavier") for _ in range(3))

    def forward(self, x):
        return (x @ self.weight + (self.a + self.b) + (self.b + self.c)) * 2.0 - self.c


def shared():
    return Shared(), (10, 6)


@pytest.mark.parametrize("make", [mlp, cnn, shared])
@pytest.mark.parametrize("loss", [ops.mse, lambda p, y: ops.cce(p.softmax(), y.softmax()), lambda p, y: ops.cross_entropy(p, y.softmax())])
@pytest.mark.parametrize("optimizer", [lambda ps: Adam(ps, lr=0.01, weight_decay=0.1), lambda ps: SGD(ps, lr=0.01, momentum=0.9)])
def test_five_replays_equal_five_eager_steps(make, loss, optimizer):
    model, shape = make()
    data = batches(shape)
    x, y = (Tensor(data=part) for part in data[0])
    first = optimizer(list(model.parameters()))
    replayer = Replayer(everything(model, first, x, y))
    twin = copy.deepcopy(model)
    second = type(first).from_config(first.get_config(), twin.parameters())

    np.random.seed(5)
    replayed = [replayer.record(stepper(model, first, x, y, loss)).item()]
    for i in range(1, STEPS + 1):
        if i == 3:
            first.lr = 0.002
        x.copy_from_numpy(data[i][0])
        y.copy_from_numpy(data[i][1])
        replayed.append(replayer.replay().item())

    np.random.seed(5)
    eager = []
    for i, batch in enumerate(data):
        if i == 3:
            second.lr = 0.002
        eager.append(stepper(twin, second, *(Tensor(data=part) for part in batch), loss)().item())

    assert replayed == eager
    assert len(set(eager)) == STEPS + 1
    for name, array in model.state_dict().items():
        assert array.tobytes() == twin.state_dict()[name].tobytes(), name
    for name, array in first.get_state().items():
        assert array.tobytes() == second.get_state()[name].tobytes(), name


def test_array_work_outside_the_table_is_found():
    x = Tensor(data=np.ones(3, np.float32))
    with pytest.raises(AssertionError, match="outside the kernel table"):
        Replayer([x]).record(lambda: x * Tensor(data=x.to_numpy() + 1))
