"""Outputs in cached memory: aligned, independent of each other, used again, and given back when there is too much."""

import gc
import os
import resource

import numpy as np
import pytest

from keydnn.kernels import native
from tests.native.common import native_table, needs_native

pytestmark = needs_native


@pytest.fixture
def module():
    loaded = native.load()
    loaded.trim_memory()
    yield loaded
    loaded.trim_memory()


@pytest.mark.parametrize("shape", [(), (3,), (0,), (8192,), (8193,), (100, 200), (1, 16, 32, 33)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_empty_makes_plain_arrays(module, shape, dtype):
    x = module.empty(shape, dtype)
    assert type(x) is np.ndarray
    assert (x.shape, x.dtype) == (shape, dtype)
    assert x.flags.c_contiguous and x.flags.writeable and x.flags.aligned
    x[...] = 3
    assert (x == 3).all()


def test_large_arrays_are_aligned_and_used_again(module):
    x = module.empty((100, 1000), np.float32)
    address = x.ctypes.data
    assert address % 64 == 0
    view = x[10:20]
    del x
    assert module.empty((100, 1000), np.float32).ctypes.data != address  # the view still holds it
    del view
    assert module.empty((100, 1000), np.float32).ctypes.data == address


def test_two_living_arrays_never_share(module):
    arrays = [module.empty((20000,), np.float32) for _ in range(50)]
    for i, x in enumerate(arrays):
        x.fill(i)
    assert all((x == i).all() for i, x in enumerate(arrays))


def test_live_and_cached_bytes_are_counted(module):
    before = module.memory_stats()["live_bytes"]
    x = module.empty((1 << 20,), np.float32)
    assert module.memory_stats()["live_bytes"] - before == x.nbytes
    del x
    stats = module.memory_stats()
    assert stats["live_bytes"] == before
    assert stats["cached_bytes"] >= 4 << 20
    module.trim_memory()
    assert module.memory_stats()["cached_bytes"] == 0


def test_the_cache_is_bounded(module):
    x = [module.empty((16 << 20,), np.float64) for _ in range(6)]  # 6 x 128 MiB, never touched
    del x
    assert module.memory_stats()["cached_bytes"] <= 512 << 20


def test_an_absurd_size_is_a_memory_error(module):
    with pytest.raises(MemoryError):
        module.empty((1 << 60,), np.float32)


def test_memory_does_not_grow_over_steps(module):
    table = native_table()
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((8, 8, 40, 40), np.float32), rng.standard_normal((8, 8, 3, 3), np.float32)
    geometry = ((1, 1), (1, 1), (1, 1), 1)

    def step():
        y = table.conv2d(x, w, None, *geometry)
        table.conv2d_grad_x(y, w, (40, 40), *geometry)
        table.conv2d_grad_w(x, y, (3, 3), *geometry)
        pooled, argmax = table.maxpool2d(y, (2, 2), (2, 2), (0, 0))
        table.maxpool2d_grad(pooled, argmax, (40, 40), (0, 0))

    gc.disable()
    try:
        for _ in range(20):
            step()
        asked, peak = module.memory_stats()["system_calls"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(200):
            step()
    finally:
        gc.enable()
    assert module.memory_stats()["system_calls"] <= asked + 32  # scratch: as many blocks as threads ever needed at once
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 1024  # KiB


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_child_frees_what_it_inherited(module):
    x = module.empty((1 << 20,), np.float32)
    x.fill(1)
    pid = os.fork()
    if pid == 0:
        del x
        os._exit(0 if module.empty((1 << 20,), np.float32) is not None else 1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert (x == 1).all()


def test_sizes_no_longer_asked_for_make_room(module):
    old = [module.empty((1 << 24,), np.float64) for _ in range(4)]  # 4 x 128 MiB: all that the cache holds
    del old
    new = module.empty((3 << 22,), np.float64)
    address = new.ctypes.data
    del new
    assert module.empty((3 << 22,), np.float64).ctypes.data == address


@pytest.mark.parametrize("n", [8193, 10240, 10241, 12288, 12289, 14337, 16384, 16385, 1 << 20, (1 << 20) + 1])
def test_a_block_is_at_most_a_quarter_larger_than_asked(module, n):
    before = module.memory_stats()["live_bytes"]
    x = module.empty((n,), np.float32)
    size = module.memory_stats()["live_bytes"] - before
    assert x.nbytes <= size <= 1.25 * x.nbytes
