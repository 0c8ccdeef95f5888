"""The thread pool: the number of threads, calls from several threads at once, and life after fork()."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from keydnn import threads
from keydnn.kernels import native
from tests.native.common import native_table, needs_native, using_threads

GEOMETRY = ((1, 1), (1, 1), (1, 1), 1)


def big_convolution(table):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((12, 16, 30, 30), np.float32), rng.standard_normal((16, 16, 3, 3), np.float32)
    return table.conv2d(x, w, None, *GEOMETRY)


def in_new_process(code, **environment):
    """The standard output of a fresh interpreter."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_number_is_kept():
    for n in (1, 3, np.int64(2)):
        with using_threads(n):
            assert threads.get_threads() == n


@pytest.mark.parametrize("bad", [0, -1, 5000])
def test_a_number_out_of_range_is_refused(bad):
    before = threads.get_threads()
    with pytest.raises(ValueError, match=f"between 1 and 4096, got {bad}"):
        threads.set_threads(bad)
    assert threads.get_threads() == before


@pytest.mark.parametrize("bad", [1.0, "2", None, True], ids=repr)
def test_another_type_is_refused(bad):
    with pytest.raises(TypeError, match=f"integer, got {type(bad).__name__}"):
        threads.set_threads(bad)


@pytest.mark.slow
def test_the_default_is_the_affinity_and_the_environment_overrides():
    code = "import keydnn.threads as t; print(t.get_threads())"
    environment = {k: v for k, v in os.environ.items() if k != "KEYDNN_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) == native.requested_threads() or "KEYDNN_NUM_THREADS" in os.environ
    assert in_new_process(code, KEYDNN_NUM_THREADS="3") == "3"
    refusal = "\ntry:\n    t.get_threads()\nexcept ValueError as e:\n    print(e)"
    code = "import keydnn.threads as t" + refusal
    assert in_new_process(code, KEYDNN_NUM_THREADS="many") == "KEYDNN_NUM_THREADS must be a positive integer, got 'many'"


def test_the_number_is_kept_without_the_native_module(monkeypatch):
    def missing():
        raise native.NativeUnavailable("not built")

    monkeypatch.setattr(native, "load", missing)
    monkeypatch.setattr(threads, "_chosen", [])
    assert threads.get_threads() == native.requested_threads()
    threads.set_threads(7)
    assert threads.get_threads() == 7


@needs_native
def test_calls_from_several_threads_at_once_agree():
    table = native_table()
    want = big_convolution(table).tobytes()
    wrong = []

    def work():
        for _ in range(20):
            if big_convolution(table).tobytes() != want:
                wrong.append(threading.get_ident())

    with using_threads(3):
        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
    assert not any(worker.is_alive() for worker in workers)
    assert not wrong


@needs_native
def test_the_pool_survives_many_changes_of_its_size():
    table = native_table()
    want = big_convolution(table).tobytes()
    for n in (1, 4, 2, 3, 1, 2) * 3:
        with using_threads(n):
            assert big_convolution(table).tobytes() == want


@needs_native
def test_more_chunks_than_the_pool_counts_one_by_one():
    """With a weight that is not finite this gradient goes plane by plane, each a chunk: 1.2 million."""
    g = np.random.default_rng(0).standard_normal((1_200_000, 1, 1, 1), np.float32)
    w = np.full((1, 1, 1, 1), np.inf, np.float32)
    with using_threads(3):
        dx = native_table().conv2d_grad_x(g, w, (1, 1), (1, 1), (0, 0), (1, 1), 1)
    np.testing.assert_array_equal(dx, g * np.inf)


def wait_for(pid, timeout_s):
    """Exit code of a child, or None if it still runs after the time (then it is killed)."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return None


@needs_native
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_runs_kernels():
    """Workers of the parent do not exist in the child, which must not wait for them, not even to end them."""
    table = native_table()
    with using_threads(3):
        want = big_convolution(table).tobytes()
        for n in (3, 2, 1):
            pid = os.fork()
            if pid == 0:
                before = big_convolution(table).tobytes()
                threads.set_threads(n)
                os._exit(0 if before == big_convolution(table).tobytes() == want else 1)
            assert wait_for(pid, 30) == 0
        assert big_convolution(table).tobytes() == want


@needs_native
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_fork_while_another_thread_is_inside_a_kernel():
    table = native_table()
    stop = threading.Event()
    with using_threads(3):
        want = big_convolution(table).tobytes()

        def work():
            while not stop.is_set():
                big_convolution(table)

        worker = threading.Thread(target=work)
        worker.start()
        try:
            for _ in range(10):
                pid = os.fork()
                if pid == 0:
                    os._exit(0 if big_convolution(table).tobytes() == want else 1)
                assert wait_for(pid, 30) == 0
        finally:
            stop.set()
            worker.join(60)
