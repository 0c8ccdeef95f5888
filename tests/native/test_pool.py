"""Compiled pooling: the same values and the same argmax as the reference, ties, NaN and padding included."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keydnn.kernels import reference
from tests.native.common import dtypes, laid_out, layouts, native_table, needs_native, same_bits_for_threads

pytestmark = needs_native
table = native_table()
USUAL = ((2, 2), (2, 2), (0, 0))


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def problems(draw):
    """x with few different values, so that ties are common, and (kernel, stride, padding)."""
    shape = (*draw(pairs(1, 3)), *draw(pairs(1, 40)))
    window = draw(st.one_of(st.just(USUAL), st.tuples(pairs(1, 4), pairs(1, 3), pairs(0, 3))))
    assume(all(n + 2 * p >= k for n, k, p in zip(shape[2:], window[0], window[2], strict=True)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.integers(-3, 4, shape).astype(draw(dtypes))
    for value in (np.nan, -np.inf, np.inf, -0.0):
        if draw(st.booleans()):
            x[rng.random(shape) < 0.15] = value
    return laid_out(x, draw(layouts)), window


@given(problem=problems())
def test_maximum_and_where_it_is(problem):
    x, window = problem
    y, argmax = table.maxpool2d(x, *window)
    want, at = reference.maxpool2d(x, *window)
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(argmax, at)
    assert (y.dtype, argmax.dtype) == (x.dtype, np.int64)


@given(problem=problems())
def test_gradient_of_the_maximum(problem):
    x, (kernel, stride, padding) = problem
    y, argmax = reference.maxpool2d(x, kernel, stride, padding)
    g = np.random.default_rng(0).standard_normal(y.shape).astype(x.dtype)
    got = table.maxpool2d_grad(g, argmax, x.shape[2:], padding)
    want = reference.maxpool2d_grad(g.astype(np.float64), argmax, x.shape[2:], padding)
    np.testing.assert_allclose(got, want, rtol=0, atol=16 * 4 * np.finfo(x.dtype).eps)  # at most 16 windows meet a cell
    assert got.dtype == x.dtype


@given(problem=problems())
def test_average(problem):
    x, window = problem
    x = np.where(np.isinf(x), x.dtype.type(1), x)  # NaN stays: it must reach its windows alone
    y = table.avgpool2d(x, *window)
    np.testing.assert_allclose(y, reference.avgpool2d(x.astype(np.float64), *window), rtol=0, atol=64 * np.finfo(x.dtype).eps)
    assert y.dtype == x.dtype


@given(problem=problems())
def test_gradient_of_the_average(problem):
    x, window = problem
    y = reference.avgpool2d(x, *window)
    g = np.random.default_rng(0).standard_normal(y.shape).astype(x.dtype)
    got = table.avgpool2d_grad(g, x.shape[2:], *window)
    want = reference.avgpool2d_grad(g.astype(np.float64), x.shape[2:], *window)
    np.testing.assert_allclose(got, want, rtol=0, atol=64 * np.finfo(x.dtype).eps)


@given(shape=st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(1, 40)] * 2), dtype=dtypes, layout=layouts)
def test_mean_of_planes(shape, dtype, layout):
    x = laid_out(np.random.default_rng(0).standard_normal(shape).astype(dtype), layout)
    want = x.astype(np.float64).mean(axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(table.global_avgpool2d(x), want, rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)


@pytest.mark.parametrize("window", [USUAL, ((3, 3), (2, 2), (1, 1)), ((3, 2), (1, 3), (0, 1))], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bits_do_not_depend_on_threads(window, dtype):
    x = np.random.default_rng(0).standard_normal((9, 7, 61, 50)).astype(dtype)
    y, argmax = same_bits_for_threads(lambda: table.maxpool2d(x, *window))
    same_bits_for_threads(lambda: table.maxpool2d_grad(y, argmax, x.shape[2:], window[2]))
    same_bits_for_threads(lambda: table.avgpool2d(x, *window))
    same_bits_for_threads(lambda: table.avgpool2d_grad(y, x.shape[2:], *window))
    same_bits_for_threads(lambda: table.global_avgpool2d(x))
    np.testing.assert_array_equal(y, reference.maxpool2d(x, *window)[0])


def test_an_argmax_outside_the_plane_is_refused():
    argmax = np.full((1, 1, 1, 1), 99, np.int64)
    with pytest.raises(ValueError, match="contradict"):
        table.maxpool2d_grad(np.ones((1, 1, 1, 1), np.float32), argmax, (3, 3), (0, 0))
