"""Matrix products along every path: few rows, turned, packed by chunks or beforehand; odd sizes; the same bits on any threads."""

import numpy as np
import pytest

from keydnn.kernels import native
from tests.native.common import needs_native

pytestmark = needs_native

# (m, n, k): dots, one chunk, narrow with panels of its own, turned, packed beforehand; whole and broken vectors, several blocks of k;
# then few columns (turned where a is), rows packed as strips: by one thread, by blocks of k, many; panels packed together; rows of
# c written along, in one go and in two
SIZES = [
    (1, 40, 33), (3, 7, 5), (7, 3, 90), (17, 19, 23), (31, 33, 40), (13, 300, 97), (64, 128, 256), (61, 130, 400), (48, 700, 390),
    (200, 97, 70), (256, 150, 65), (257, 200, 390), (300, 50, 70), (130, 40, 800), (513, 49, 33), (40, 17, 1500), (1030, 100, 20),
    (32, 8, 32), (100, 5, 70), (256, 400, 64), (70, 900, 128), (512, 40, 512),
    (100, 130, 520), (541, 60, 300), (1100, 33, 530), (43, 700, 520),
    (5, 9, 1), (37, 17, 63), (19, 64, 64), (8, 15, 65), (33, 1, 47),
    (40, 1613, 60), (61, 1552, 128), (36, 785, 40), (64, 1568, 129), (300, 205, 129), (1027, 333, 40), (261, 600, 380),
]  # fmt: skip


def operands(m, n, k, dtype, turned_a, turned_b):
    rng = np.random.default_rng(m * 7 + n * 3 + k)
    a = rng.standard_normal((k, m) if turned_a else (m, k)).astype(dtype)
    b = rng.standard_normal((n, k) if turned_b else (k, n)).astype(dtype)
    return a, b


def assert_product(c, a, b, bias=0.0):
    a, b = a.astype("f8"), b.astype("f8")
    exact, size = a @ b + bias, np.abs(a) @ np.abs(b) + np.abs(bias)
    eps = np.finfo(c.dtype).eps
    assert c.shape == exact.shape
    assert np.all(np.abs(c - exact) <= 2 * np.sqrt(a.shape[1] + 4) * eps * size + 1e-300)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("turned", [(False, False), (False, True), (True, False), (True, True)])
def test_products(size, turned, dtype):
    a, b = operands(*size, dtype, *turned)
    c = native.load().matmul(a, b, *turned)
    assert_product(c, a.T if turned[0] else a, b.T if turned[1] else b)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("size", SIZES)
def test_linear_with_bias(size, dtype):
    x, w = operands(*size, dtype, False, True)
    bias = np.linspace(-3.0, 3.0, size[1]).astype(dtype)
    assert_product(native.load().linear(x, w, bias), x, w.T, bias.astype("f8"))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("n, k", [(32, 32), (47, 20), (9, 64), (64, 31)])
@pytest.mark.parametrize("turned", [False, True])
def test_small_products_have_the_bits_of_large_ones(n, k, turned, dtype):
    """The same rows beside so many others that the product is cut for threads."""
    m = 300_000 // (n * k) + 1
    x, w = operands(m, n, k, dtype, False, turned)
    table, small = native.load(), x[:33].copy()
    assert np.array_equal(table.matmul(small, w, False, turned), table.matmul(x, w, False, turned)[:33])
    assert np.array_equal(table.matmul(small.T.copy(), w, True, turned), table.matmul(x, w, False, turned)[:33])


THREADED = [
    (64, 256, 784),
    (256, 784, 64),
    (64, 784, 256),
    (520, 300, 300),
    (1030, 200, 60),
    (128, 100, 600),
    (128, 500, 1024),
    (64, 1613, 100),
]


@pytest.mark.parametrize("size", THREADED)
def test_threads_do_not_change_bits(size):
    module = native.load()
    before = module.get_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            module.set_threads(threads)
            a, b = operands(*size, "f4", False, False)
            w = np.ascontiguousarray(b.T)
            turned = np.ascontiguousarray(a.T)
            found.append([module.matmul(a, b, False, False), module.linear(a, w, None), module.matmul(turned, b, True, False)])
            found[-1] = [c.tobytes() for c in found[-1]]
    finally:
        module.set_threads(before)
    assert found[0] == found[1] == found[2]


def test_nothing_to_sum_gives_the_bias():
    bias = np.array([1.0, -2.0, 3.0], "f4")
    c = native.load().linear(np.zeros((5, 0), "f4"), np.zeros((3, 0), "f4"), bias)
    assert c is None or np.array_equal(c, np.tile(bias, (5, 1)))


def test_infinities_and_nan_stay_where_they_belong():
    x, w = operands(64, 256, 70, "f4", False, True)
    x[3, 5], x[60, 69] = np.inf, np.nan
    y = native.load().linear(x, w, None)
    assert np.all(np.isinf(y[3])) and np.all(np.isnan(y[60])) and np.isfinite(np.delete(y, [3, 60], 0)).all()
