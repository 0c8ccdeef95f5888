"""The gradient to 3x3 taps of enough channels and tiles to be computed by Winograd's tiles: native/include/winograd_grad_w.h."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keydnn.kernels import reference
from keydnn.kernels.dispatch import cpu_table
from keydnn.testing.kernels import check_kernel
from tests.kernels.test_tables import TABLES
from tests.native.common import needs_native, same_bits_for_threads

SHAPES = {  # n, c, o, h, w, padding
    "square": (8, 16, 16, 8, 8, 1),
    "odd": (9, 22, 27, 9, 7, 1),
    "one-row-of-tiles": (16, 16, 16, 2, 9, 1),
    "narrow": (20, 16, 16, 11, 2, 1),
    "inside": (9, 24, 16, 11, 13, 0),
    "beyond": (9, 16, 24, 6, 8, 2),
    "far-beyond": (9, 16, 16, 6, 8, 3),
    "one-side": (8, 16, 16, 12, 10, (0, 2)),
    "large": (8, 16, 16, 31, 33, 1),
    "wide": (8, 16, 16, 5, 290, 1),
    "chunks-of-channels": (8, 70, 134, 8, 6, 1),
    "few-images": (2, 70, 134, 16, 16, 1),
}
SHARE = 3e-7  # of the sum of sizes: as much as single roundings of some hundred summands in a row


def operands(n, c, o, h, w, padding, dtype, seed=0):
    rng = np.random.default_rng(seed)
    padding = padding if isinstance(padding, tuple) else (padding, padding)
    x, g = rng.standard_normal((n, c, h, w)), rng.standard_normal((n, o, h + 2 * padding[0] - 2, w + 2 * padding[1] - 2))
    return x.astype(dtype), g.astype(dtype), {"kernel": (3, 3), "stride": (1, 1), "padding": padding, "dilation": (1, 1), "groups": 1}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_values(shape, dtype):
    x, g, how = operands(*shape, dtype)
    size = g[:, 0].size ** 0.5  # of a sum of products
    close = {"rtol": 4e-6, "atol": 2e-6 * size} if dtype == np.float32 else {"rtol": 1e-13, "atol": 1e-14 * size}
    check_kernel("conv2d_grad_w", x, g, **how, **close)


@given(
    table=st.sampled_from(sorted(TABLES)).map(TABLES.get),
    n=st.integers(8, 40),
    c=st.integers(22, 32),
    o=st.integers(22, 32),
    size=st.tuples(st.integers(3, 14), st.integers(3, 14)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1e-15, 1.0, 1e15]),
)
@settings(deadline=None)
def test_errors_are_roundings_of_the_sum(table, n, c, o, size, padding, seed, scale):
    x, g, how = operands(n, c, o, *size, padding, np.float32, seed)
    x, g = x * np.float32(scale), g * np.float32(scale)
    wide = x.astype(np.float64), g.astype(np.float64)
    error = abs(table.conv2d_grad_w(x, g, **how) - reference.conv2d_grad_w(*wide, **how))
    assert (error <= 4 * SHARE * reference.conv2d_grad_w(*map(abs, wide), **how).max()).all()


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan, 3e38], ids=str)
@pytest.mark.parametrize("which", ["x", "g"])
def test_what_is_not_finite_stays_where_it_is(which, wrong):
    """In the corner an infinite x meets four taps, g the frame, too; two numbers near the largest overflow in the sums of a tile alone."""
    x, g, how = operands(8, 16, 16, 8, 8, 1, np.float32)
    {"x": x, "g": g}[which][4, 3, 0, 0] = wrong
    {"x": x, "g": g}[which][4, 3, 0, 1] = -wrong if wrong == 3e38 else 0
    x, g = (x, g * np.float32(0.01)) if which == "x" else (x * np.float32(0.01), g)
    with np.errstate(all="ignore"):
        wide = reference.conv2d_grad_w(x.astype(np.float64), g.astype(np.float64), **how)
        for table in TABLES.values():
            np.testing.assert_allclose(table.conv2d_grad_w(x, g, **how), wide.astype(np.float32), rtol=1e-5, atol=1e-5)
    assert (~np.isfinite(wide)).sum() == (0 if wrong == 3e38 else 16 * 4 if which == "x" else 16 * 9)


@needs_native
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_tiles_are_taken(shape, dtype):
    """With one 1 in g each tap finds an element of x, and tap by tap it is exact."""
    x, g, how = operands(*shape, dtype)
    g[:] = 0
    g[1, 2, g.shape[2] // 2, g.shape[3] // 2] = 1
    dw, exact = cpu_table().conv2d_grad_w(x, g, **how), reference.conv2d_grad_w(x, g, **how)
    assert (dw != exact).any()
    assert abs(dw - exact).max() < 1e-5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_bits_do_not_depend_on_threads(shape, dtype):
    x, g, how = operands(*shape, dtype)
    same_bits_for_threads(lambda: cpu_table().conv2d_grad_w(x, g, **how))
