"""Threads that use one model at the same time."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import keydnn
from keydnn.kernels.dispatch import native_status
from keydnn.nn import Dropout, Linear
from keydnn.training import repeat
from keydnn.training.turns import evaluation_mode, training_turn

X = np.random.default_rng(0).standard_normal((4, 8, 6)).astype("f4")


def model():
    return keydnn.Sequential(Linear(6, 16), Dropout(0.5), Linear(16, 3))


def in_threads(*functions):
    """Run functions at the same time; raises what one of them raised."""
    with ThreadPoolExecutor(len(functions)) as pool:
        for future in [pool.submit(function) for function in functions]:
            future.result(60)


def test_the_last_thread_that_evaluates_gives_the_flags_back():
    net, inside, done = model(), threading.Event(), threading.Event()
    net[1].eval()

    def first():
        with evaluation_mode(net):
            inside.set()
            done.wait(60)

    def second():
        inside.wait(60)
        net.predict(X[0])
        assert not net.training
        done.set()

    in_threads(first, second)
    assert net.training and not net[1].training and net[0].training


def test_training_waits_for_those_who_evaluate_and_they_for_it():
    net, order, inside = model(), [], threading.Event()

    def evaluates():
        with evaluation_mode(net):
            inside.set()
            with training_turn(net):  # a thread that is inside never waits
                order.append("evaluated")

    def trains():
        inside.wait(60)
        with training_turn(net):
            assert net.training
            order.append("trained")
            net.predict(X[0])
            assert net.training

    in_threads(evaluates, trains)
    assert order == ["evaluated", "trained"]


def test_predictions_from_threads_while_one_trains():
    net, other = model(), model()
    optimizer = keydnn.SGD(other.parameters(), lr=0.01)
    expected = [net.predict(x, compile=False).numpy() for x in X]

    def predicts(i):
        for _ in range(40):
            np.testing.assert_allclose(net.predict(X[i]).numpy(), expected[i], rtol=1e-5, atol=1e-6)
            other.predict(X[i])
            other.evaluate(X[i], X[i][:, :3], loss="mse")

    def trains():
        other.fit(np.concatenate(X), np.concatenate(X)[:, :3], loss="mse", optimizer=optimizer, epochs=20, batch_size=8, verbose=0)

    in_threads(*(lambda i=i: predicts(i) for i in range(3)), trains)
    assert all(module.training for module in (*net.modules(), *other.modules()))


def test_predictions_are_repeated_by_the_step_that_made_them():
    """Whatever else the model did between, in this thread or another one: the short way of ``predict`` is a prediction's."""
    net = model()
    x, y = keydnn.tensor(X[0]), keydnn.tensor(X[0][:, :3])
    expected = net.predict(x, compile=False).numpy()
    for _ in range(4):
        net.predict(X[1][:5])
    for _ in range(4):
        net.evaluate(x, y, loss="mse")
    net.predict(x, requires_grad=True)
    for _ in range(4):
        np.testing.assert_allclose(net.predict(x).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_thread_that_evaluates_between_training_and_its_short_way(monkeypatch):
    net = model()
    optimizer = keydnn.SGD(net.parameters(), lr=0.01)
    x, y = X[0], X[0][:, :3]
    remember = repeat.remember_training

    def evaluates_before(*args):
        in_threads(lambda: net.evaluate(x, y, loss="mse"))
        remember(*args)

    monkeypatch.setattr(repeat, "remember_training", evaluates_before)
    for _ in range(4):
        logs = net.train_on_batch(keydnn.tensor(x), keydnn.tensor(y), loss="mse", optimizer=optimizer)
    weights = net[0].weight.numpy().copy()
    net.train_on_batch(keydnn.tensor(x), keydnn.tensor(y), loss="mse", optimizer=optimizer)
    assert set(logs) == {"loss"}
    assert (net._repeat is not None and net._repeat.step.is_training) == native_status().loaded
    assert not np.array_equal(weights, net[0].weight.numpy())
