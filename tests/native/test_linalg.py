"""Compiled matmul and linear: values for every shape and layout, and the same bits for any number of threads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.native.common import check_product, dtypes, laid_out, layouts, native_table, needs_native, same_bits_for_threads

pytestmark = needs_native
table = native_table()
sizes = st.one_of(st.integers(1, 9), st.sampled_from([15, 16, 17, 31, 33, 47, 48, 49, 64, 97, 130]))


@given(m=sizes, n=sizes, k=sizes, ta=st.booleans(), tb=st.booleans(), dtype=dtypes, layout=layouts, seed=st.integers(0, 99))
def test_matmul(m, n, k, ta, tb, dtype, layout, seed):
    rng = np.random.default_rng(seed)
    a = laid_out(rng.standard_normal((k, m) if ta else (m, k)).astype(dtype), layout)
    b = laid_out(rng.standard_normal((n, k) if tb else (k, n)).astype(dtype), layout)
    check_product("matmul", table.matmul(a, b, ta, tb), (a, b), (ta, tb), k)


@given(m=sizes, n=sizes, k=sizes, biased=st.booleans(), dtype=dtypes, layout=layouts, seed=st.integers(0, 99))
def test_linear(m, n, k, biased, dtype, layout, seed):
    rng = np.random.default_rng(seed)
    x, w = (laid_out(rng.standard_normal(shape).astype(dtype), layout) for shape in ((m, k), (n, k)))
    b = rng.standard_normal(n).astype(dtype) if biased else None
    check_product("linear", table.linear(x, w, b), (x, w, b), (), k + 1)


batches = st.sampled_from([((2,), (2,)), ((3,), ()), ((), (3,)), ((2, 1), (3,)), ((2, 3), (1, 3)), ((1,), (4, 1, 2)), ((0,), (1,))])


@given(batch=batches, m=st.integers(1, 5), n=st.integers(1, 20), k=st.integers(1, 9), ta=st.booleans(), tb=st.booleans(), dtype=dtypes)
def test_batched_matmul_broadcasts(batch, m, n, k, ta, tb, dtype):
    rng = np.random.default_rng(m)
    a = rng.standard_normal((*batch[0], *((k, m) if ta else (m, k)))).astype(dtype)
    b = rng.standard_normal((*batch[1], *((n, k) if tb else (k, n)))).astype(dtype)
    check_product("matmul", table.matmul(a, b, ta, tb), (a, b), (ta, tb), k)


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0)], ids=str)
def test_empty_operands(shape):
    m, n, k = shape
    out = table.matmul(np.ones((m, k), np.float32), np.ones((k, n), np.float32), False, False)
    assert out.shape == (m, n)
    assert not out.any()
    np.testing.assert_array_equal(table.linear(np.ones((m, k), np.float32), np.ones((n, k), np.float32), np.ones(n, np.float32)), k + 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(256, 300, 270), (1, 4096, 300), (500, 2, 700), (64, 256, 784)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bits_do_not_depend_on_threads(shape, dtype):
    m, n, k = shape
    rng = np.random.default_rng(0)
    a, b, bt = (rng.standard_normal(s).astype(dtype) for s in ((m, k), (k, n), (n, k)))
    (c,) = same_bits_for_threads(lambda: table.matmul(a, b, False, False))
    check_product("matmul", c, (a, b), (False, False), k)
    same_bits_for_threads(lambda: table.linear(a, bt, None))
    same_bits_for_threads(lambda: table.matmul(np.stack([a] * 20), b, False, False))


@pytest.mark.parametrize("value", [np.inf, np.nan], ids=str)
def test_infinite_and_nan_stay_in_their_row_and_column(value):
    a, b = np.ones((20, 30), np.float32), np.ones((30, 40), np.float32)
    a[3, 5] = value
    c = table.matmul(a, b, False, False)
    np.testing.assert_array_equal(c[3], np.full(40, value, np.float32))
    assert (np.delete(c, 3, axis=0) == 30).all()


def test_other_dtypes_go_to_the_reference():
    half = np.ones((2, 3), np.float16)
    assert table.matmul(half, half, False, True).dtype == np.float16
    mixed = table.matmul(np.ones((2, 3), np.float32), np.ones((2, 3), np.float64), False, True)
    assert mixed.dtype == np.float64
