"""Laws that hold for every shape: broadcasting, transposes of linear kernels, shifts that softmax ignores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.kernels.definitions import out_size
from tests.kernels.test_tables import TABLES

tables = st.sampled_from(sorted(TABLES)).map(TABLES.get)
dtypes = st.sampled_from([np.float32, np.float64])
seeds = st.integers(0, 2**32 - 1)


def tolerance(dtype):
    return 2e-5 if dtype is np.float32 else 1e-11


@given(table=tables, dtype=dtypes, shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_side=6, max_dims=4), seed=seeds)
@pytest.mark.parametrize(("kernel", "ufunc"), [("add", np.add), ("mul", np.multiply), ("div", np.divide), ("maximum", np.maximum)])
def test_binary_kernels_broadcast_like_numpy(kernel, ufunc, table, dtype, shapes, seed):
    rng = np.random.default_rng(seed)
    x, y = (np.asarray(rng.standard_normal(shape), dtype) for shape in shapes.input_shapes)
    z = getattr(table, kernel)(x, y)
    assert z.shape == shapes.result_shape and z.dtype == dtype
    np.testing.assert_array_equal(z, ufunc(x, y))  # IEEE gives these to the last bit


@given(table=tables, dtype=dtypes, data=st.data(), seed=seeds)
@pytest.mark.parametrize("kernel", ["sum", "mean", "max", "min"])
def test_reductions_over_any_axes(kernel, table, dtype, data, seed):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=5, max_side=7))
    axis = data.draw(st.none() | st.sets(st.integers(0, len(shape) - 1), min_size=1).map(lambda s: tuple(sorted(s))))
    keepdims = data.draw(st.booleans())
    x = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    want = getattr(np, kernel)(x.astype(np.float64), axis=axis, keepdims=keepdims)
    got = getattr(table, kernel)(x, axis, keepdims)
    assert np.shape(got) == np.shape(want)
    np.testing.assert_allclose(got, want, rtol=tolerance(dtype), atol=tolerance(dtype))


@st.composite
def convolutions(draw):
    groups = draw(st.integers(1, 3))
    kernel, stride, padding, dilation = (draw(st.tuples(st.integers(low, 3), st.integers(low, 3))) for low in (1, 1, 0, 1))
    size = tuple(draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 9)) for d, k, p in zip(dilation, kernel, padding, strict=True))
    x = (draw(st.integers(1, 3)), groups * draw(st.integers(1, 3)), *size)
    w = (groups * draw(st.integers(1, 3)), x[1] // groups, *kernel)
    return x, w, {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


@given(table=tables, dtype=dtypes, how=convolutions(), seed=seeds)
def test_gradients_of_convolution_are_its_transposes(table, dtype, how, seed):
    x_shape, w_shape, how = how
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal(x_shape).astype(dtype), rng.standard_normal(w_shape).astype(dtype)
    y = table.conv2d(x, w, None, **how)
    assert y.shape[2:] == out_size(x_shape[2:], w_shape[2:], how["stride"], how["padding"], how["dilation"])
    g = rng.standard_normal(y.shape).astype(dtype)
    inner = np.vdot(y.astype(float), g)
    scale = np.linalg.norm(y) * np.linalg.norm(g) + 1
    dx = table.conv2d_grad_x(g, w, x_shape[2:], **how)
    dw = table.conv2d_grad_w(x, g, w_shape[2:], **how)
    assert dx.shape == x_shape and dw.shape == w_shape
    assert abs(np.vdot(dx.astype(float), x) - inner) <= tolerance(dtype) * scale
    assert abs(np.vdot(dw.astype(float), w) - inner) <= tolerance(dtype) * scale


@given(table=tables, dtype=dtypes, shape=hnp.array_shapes(min_dims=1, max_dims=3, max_side=40), shift=st.integers(-64, 64), seed=seeds)
def test_softmax_sums_to_one_and_ignores_a_shift(table, dtype, shape, shift, seed):
    x = np.random.default_rng(seed).integers(-64, 64, shape).astype(dtype)  # integers: the shift is exact
    axis = seed % len(shape)
    y = table.softmax(x, axis)
    np.testing.assert_allclose(y.sum(axis=axis, dtype=float), 1, rtol=tolerance(dtype))
    np.testing.assert_array_equal(table.softmax(x + dtype(shift), axis), y)


@given(table=tables, dtype=dtypes, seed=seeds, n=st.integers(1, 70))
def test_the_random_stream_does_not_depend_on_how_much_is_drawn(table, dtype, seed, n):
    key = np.asarray(seed, np.int64)
    long = table.uniform(key, (100,), dtype)
    np.testing.assert_array_equal(table.uniform(key, (n,), dtype), long[:n])
    np.testing.assert_array_equal(table.normal(key, (n,), dtype), table.normal(key, (100,), dtype)[:n])
    assert long.min() >= 0 and long.max() < 1


@given(table=tables, dtype=dtypes, data=st.data(), seed=seeds)
def test_take_grad_is_the_transpose_of_take(table, dtype, data, seed):
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=5))
    key = data.draw(hnp.basic_indices(shape, allow_newaxis=True) | hnp.integer_array_indices(shape))
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 9, shape).astype(dtype)
    y = table.take(x, key)
    g = np.asarray(rng.integers(-9, 9, np.shape(y)), dtype)
    dx = table.take_grad(g, key, shape)
    assert np.shape(dx) == shape and np.vdot(dx, x) == np.vdot(g, y)
