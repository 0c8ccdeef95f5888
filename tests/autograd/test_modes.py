"""Grad modes: nested, as decorators, per thread."""

import threading

import pytest

import keydnn
from keydnn import Tensor, enable_grad, is_grad_enabled, no_grad


@pytest.fixture(autouse=True)
def stays_on():
    assert is_grad_enabled()
    yield
    assert is_grad_enabled()


def test_no_grad_records_nothing():
    x = Tensor((1,), requires_grad=True)
    with no_grad():
        y = x * 2
        assert not is_grad_enabled() and not y.requires_grad and y._get_ctx() is None and x.requires_grad
    assert (x * 2).requires_grad


def test_nesting():
    with no_grad():
        with enable_grad():
            assert is_grad_enabled()
            with no_grad():
                assert not is_grad_enabled()
            assert is_grad_enabled()
        assert not is_grad_enabled()


def test_one_object_entered_twice():
    mode = no_grad()
    with mode:
        with mode:
            assert not is_grad_enabled()
        assert not is_grad_enabled()


def test_an_error_restores_the_mode():
    with pytest.raises(KeyError):
        with no_grad():
            raise KeyError


def test_as_a_decorator():
    @no_grad()
    def off(x, *, depth=0):
        assert not is_grad_enabled()
        if depth:
            off(x, depth=depth - 1)
            assert not is_grad_enabled()
        return x * 2

    @no_grad()
    @enable_grad()
    def on(x):
        return x * 2

    x = Tensor((1,), requires_grad=True)
    assert not off(x, depth=2).requires_grad and on(x).requires_grad and off.__name__ == "off"


def test_threads_have_modes_of_their_own():
    seen, inside, done = {}, threading.Event(), threading.Event()

    def worker():
        seen["start"] = is_grad_enabled()
        inside.set()
        done.wait(5)
        seen["end"] = is_grad_enabled()

    with no_grad():
        thread = threading.Thread(target=worker)
        thread.start()
        inside.wait(5)
    done.set()
    thread.join()
    assert seen == {"start": True, "end": True}


def test_a_decorated_function_in_two_threads():
    """One thread calls it while recording is off, then another while it is on; the first leaves first."""
    second_is_in, first_is_out, results = threading.Event(), threading.Event(), {}

    @no_grad()
    def call(once_inside, leave):
        once_inside()
        assert leave.wait(5)

    def second():
        call(second_is_in.set, first_is_out)
        results["second"] = is_grad_enabled()

    thread = threading.Thread(target=second)
    with no_grad():
        call(thread.start, second_is_in)
        results["first"] = is_grad_enabled()
    first_is_out.set()
    thread.join()
    assert results == {"first": False, "second": True}


def test_graphs_of_several_threads():
    grads = {}

    def work(i):
        x = Tensor(data=float(i), requires_grad=True)
        y = x
        for _ in range(200):
            y = y * 1.0 + x * 0.0
        y.backward()
        grads[i] = x.grad.item()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert grads == dict.fromkeys(range(4), 1.0)


def test_a_graph_recorded_before_survives_the_mode():
    x = Tensor(data=2.0, requires_grad=True)
    y = x * x
    with keydnn.no_grad():
        z = y * 3
    assert not z.requires_grad
    y.backward()
    assert x.grad.item() == 4.0
