"""Threads that use one model at the same time."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import keydnn
from keydnn.nn import Dropout, Linear
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
