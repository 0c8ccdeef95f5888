"""Compiled convolutions: values for every geometry and layout, bits for any number of threads, infinities and NaN."""

from dataclasses import astuple, dataclass

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keydnn.kernels import reference
from tests.native.common import check_product, dtypes, laid_out, layouts, native_table, needs_native, same_bits_for_threads

pytestmark = needs_native
table = native_table()


@dataclass(frozen=True)
class Geometry:
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


@dataclass(frozen=True)
class Problem:
    x: np.ndarray
    w: np.ndarray
    b: np.ndarray
    geometry: Geometry

    @property
    def params(self):
        return astuple(self.geometry)

    @property
    def kernel(self):
        return self.w.shape[2:]


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def problems(draw):
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    images = draw(st.sampled_from([1, 2, 3, 9]))  # from eight images on, each is a chunk of its own
    c, o = groups * draw(st.integers(1, 4)), groups * draw(st.one_of(st.integers(1, 11), st.sampled_from([16, 23, 32, 45])))
    size, kernel = draw(pairs(1, 19)), draw(st.one_of(pairs(1, 4), pairs(5, 7)))
    geometry = Geometry(draw(pairs(1, 3)), draw(pairs(0, 3)), draw(pairs(1, 2)), groups)
    room = [n + 2 * p - d * (k - 1) for n, p, d, k in zip(size, geometry.padding, geometry.dilation, kernel, strict=True)]
    assume(min(room) > 0)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    dtype, layout = draw(dtypes), draw(layouts)
    x, w, b = (laid_out(rng.standard_normal(s).astype(dtype), layout) for s in ((images, c, *size), (o, c // groups, *kernel), (o,)))
    return Problem(x, w, b, geometry)


@given(problem=problems(), biased=st.booleans())
def test_forward(problem, biased):
    operands = (problem.x, problem.w, problem.b if biased else None)
    y = table.conv2d(*operands, *problem.params)
    check_product("conv2d", y, operands, problem.params, problem.w[0].size + 1)


def gradient_like(problem):
    y = reference.conv2d(problem.x, problem.w, None, *problem.params)
    return np.random.default_rng(1).standard_normal(y.shape).astype(problem.x.dtype)


@given(problem=problems())
def test_gradient_to_the_input(problem):
    g = gradient_like(problem)
    params = (problem.x.shape[2:], *problem.params)
    dx = table.conv2d_grad_x(g, problem.w, *params)
    check_product("conv2d_grad_x", dx, (g, problem.w), params, problem.w[:, 0].size)


@given(problem=problems())
def test_gradient_to_the_weight(problem):
    g = gradient_like(problem)
    params = (problem.kernel, *problem.params)
    dw = table.conv2d_grad_w(problem.x, g, *params)
    check_product("conv2d_grad_w", dw, (problem.x, g), params, g[:, 0].size)


BIG = {
    "one image": ((1, 16, 32, 32), (16, 16, 3, 3), Geometry((1, 1), (1, 1), (1, 1), 1)),
    "strided": ((2, 8, 61, 57), (24, 8, 5, 3), Geometry((2, 3), (2, 1), (1, 1), 1)),
    "one plane": ((1, 1, 28, 28), (32, 1, 3, 3), Geometry((1, 1), (1, 1), (1, 1), 1)),
    "many images": ((20, 6, 30, 30), (12, 3, 3, 3), Geometry((1, 1), (1, 1), (2, 1), 2)),
    "one channel": ((33, 1, 28, 28), (32, 1, 3, 3), Geometry((1, 1), (1, 1), (1, 1), 1)),
    "many channels": ((3, 40, 9, 15), (70, 40, 3, 3), Geometry((1, 1), (1, 1), (1, 1), 1)),
    "many images and channels": ((19, 17, 14, 14), (80, 17, 3, 3), Geometry((1, 1), (1, 1), (1, 1), 1)),
    "many outputs": ((9, 6, 10, 12), (272, 3, 3, 3), Geometry((1, 1), (1, 1), (1, 1), 2)),
    "stem": ((9, 3, 45, 50), (64, 3, 7, 7), Geometry((2, 2), (3, 3), (1, 1), 1)),
    "rows that fill registers": ((2, 20, 16, 32), (26, 10, 3, 3), Geometry((1, 1), (1, 1), (1, 1), 2)),
    "rows that fill half of one": ((1, 40, 8, 8), (90, 40, 3, 3), Geometry((1, 1), (1, 1), (1, 1), 1)),
    "wide": ((1, 3, 7, 400), (5, 3, 3, 7), Geometry((1, 2), (0, 3), (1, 1), 1)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", BIG)
def test_bits_do_not_depend_on_threads(name, dtype):
    x_shape, w_shape, geometry = BIG[name]
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(x_shape).astype(dtype), rng.standard_normal(w_shape).astype(dtype)
    params = astuple(geometry)
    (y,) = same_bits_for_threads(lambda: table.conv2d(x, w, None, *params))
    check_product("conv2d", y, (x, w, None), params, w[0].size)
    g = rng.standard_normal(y.shape).astype(dtype)
    (dx,) = same_bits_for_threads(lambda: table.conv2d_grad_x(g, w, x_shape[2:], *params))
    check_product("conv2d_grad_x", dx, (g, w), (x_shape[2:], *params), w[:, 0].size)
    (dw,) = same_bits_for_threads(lambda: table.conv2d_grad_w(x, g, w_shape[2:], *params))
    check_product("conv2d_grad_w", dw, (x, g), (w_shape[2:], *params), g[:, 0].size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [4, 8, 14, 16, 20, 32])
@pytest.mark.parametrize(("stride", "dilation", "kernel", "groups"), [(1, 1, 3, 2), (2, 1, 3, 2), (3, 2, 2, 1), (1, 2, 5, 1), (1, 1, 1, 1)])
def test_an_image_alone_has_the_bits_that_it_has_among_others(dtype, width, stride, dilation, kernel, groups):
    """One image whose rows fill registers, or nearly so, goes a way of its own, as do few channels and many images.

    Not so tiles (tests/kernels/test_tile_convolution.py): whether 3x3 taps in one group are computed by them depends on how many images
    there are.
    """
    rng = np.random.default_rng(0)
    reach = dilation * (kernel - 1)
    x = rng.standard_normal((8, 34, 5 * stride + reach - 1, (width - 1) * stride + reach - 1)).astype(dtype)
    w, b = rng.standard_normal((26, 34 // groups, kernel, kernel)).astype(dtype), rng.standard_normal(26).astype(dtype)
    params = ((stride, stride), (1, 1), (dilation, dilation), groups)
    together = table.conv2d(x, w, b, *params)
    assert together.shape[2:] == (6, width)
    for i in range(2):
        np.testing.assert_array_equal(table.conv2d(x[i : i + 1], w, b, *params), together[i : i + 1])


def poisoned(x, value, where):
    x = x.copy()
    x[where] = value
    return x


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan], ids=str)
@pytest.mark.parametrize("padding", [(0, 0), (1, 1)], ids=str)
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)], ids=str)
@pytest.mark.parametrize(("images", "channels"), [(2, 4), (2, 24), (8, 24)], ids=str)
def test_infinite_and_nan_reach_what_they_should(value, padding, stride, images, channels):
    """Elements past the ends of rows are computed too, with zeros: they must not leak 0 * inf into the results."""
    rng = np.random.default_rng(0)
    geometry = (stride, padding, (1, 1), 1)
    x, w = rng.standard_normal((images, 3, 7, 6)), rng.standard_normal((channels, 3, 3, 3))
    g = rng.standard_normal(reference.conv2d(x, w, None, *geometry).shape)
    bad_x, bad_w, bad_g = poisoned(x, value, (0, 0, 0, 0)), poisoned(w, value, (1, 2, 0, 1)), poisoned(g, value, (1, 2, 0, 0))
    calls = [
        ("conv2d", (bad_x, w, None), geometry),
        ("conv2d", (x, bad_w, None), geometry),
        ("conv2d_grad_x", (bad_g, w), ((7, 6), *geometry)),
        ("conv2d_grad_x", (g, bad_w), ((7, 6), *geometry)),
        ("conv2d_grad_w", (bad_x, g), ((3, 3), *geometry)),
        ("conv2d_grad_w", (x, bad_g), ((3, 3), *geometry)),
    ]
    for name, operands, params in calls:
        got, want = getattr(table, name)(*operands, *params), getattr(reference, name)(*operands, *params)
        assert not np.isfinite(want).all()
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12, err_msg=name)


def test_the_transposed_convolution_may_be_larger_than_its_windows():
    """Output padding: rows of x that no window meets are 0."""
    rng = np.random.default_rng(0)
    g, w = rng.standard_normal((1, 2, 3, 3)), rng.standard_normal((2, 4, 3, 3))
    params = ((8, 8), (2, 2), (0, 0), (1, 1), 1)
    dx = table.conv2d_grad_x(g, w, *params)
    np.testing.assert_allclose(dx, reference.conv2d_grad_x(g, w, *params), rtol=1e-12, atol=1e-12)
    assert not dx[:, :, 7].any()


def test_no_images():
    x, w = np.ones((0, 2, 5, 5), np.float32), np.ones((3, 2, 3, 3), np.float32)
    geometry = ((1, 1), (1, 1), (1, 1), 1)
    y = table.conv2d(x, w, None, *geometry)
    assert y.shape == (0, 3, 5, 5)
    assert table.conv2d_grad_x(y, w, (5, 5), *geometry).shape == x.shape
    np.testing.assert_array_equal(table.conv2d_grad_w(x, y, (3, 3), *geometry), np.zeros_like(w))
