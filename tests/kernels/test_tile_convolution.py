"""Convolutions with 3x3 taps and enough of everything to be computed by Winograd's tiles: kernels/conv.cpp."""

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
    "rows-of-registers": (2, 22, 24, 32, 32, 1),
    "two-rows-a-register": (3, 24, 25, 16, 16, 1),
    "odd": (12, 23, 27, 9, 7, 1),
    "one-row-of-tiles": (64, 24, 24, 2, 5, 1),
    "narrow": (64, 24, 26, 5, 2, 1),
    "inside": (9, 26, 24, 11, 13, 0),
    "beyond": (9, 24, 25, 6, 8, 2),
    "far-beyond": (9, 24, 24, 6, 8, 3),
    "one-side": (6, 24, 24, 12, 10, (0, 2)),
    "wide": (1, 40, 24, 6, 151, 1),
    "many-tiles": (20, 33, 25, 14, 14, 1),
    "more-outputs-than-tiles": (1, 40, 70, 14, 14, 1),
}
SHARE = 3e-7  # of the sum of sizes: as much as single roundings of some hundred summands in a row


def operands(n, c, o, h, w, padding, dtype, seed=0):
    rng = np.random.default_rng(seed)
    padding = padding if isinstance(padding, tuple) else (padding, padding)
    x, weight, b = rng.standard_normal((n, c, h, w)), rng.standard_normal((o, c, 3, 3)), rng.standard_normal(o)
    g = rng.standard_normal((n, o, h + 2 * padding[0] - 2, w + 2 * padding[1] - 2))
    how = {"stride": (1, 1), "padding": padding, "dilation": (1, 1), "groups": 1}
    return *(a.astype(dtype) for a in (x, weight, b, g)), how


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_values(shape, dtype):
    x, w, b, g, how = operands(*shape, dtype)
    close = {"rtol": 4e-6, "atol": 3e-5} if dtype == np.float32 else {}
    check_kernel("conv2d", x, w, b, **how, **close)
    check_kernel("conv2d", x, w, None, **how, **close)
    check_kernel("conv2d_grad_x", g, w, size=x.shape[2:], **how, **close)


@given(
    table=st.sampled_from(sorted(TABLES)).map(TABLES.get),
    n=st.integers(8, 40),
    c=st.integers(22, 27),
    o=st.integers(22, 27),
    size=st.tuples(st.integers(3, 14), st.integers(3, 14)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1e-30, 1.0, 1e15]),
)
@settings(deadline=None)
def test_errors_are_roundings_of_the_sum(table, n, c, o, size, padding, seed, scale):
    x, w, b, g, how = operands(n, c, o, *size, padding, np.float32, seed)
    x, g, b = x * np.float32(scale), g * np.float32(scale), b * np.float32(scale)
    wide = [a.astype(np.float64) for a in (x, w, b, g)]
    sizes = [abs(a) for a in wide]
    error = abs(table.conv2d(x, w, b, **how) - reference.conv2d(*wide[:3], **how))
    assert (error <= 4 * SHARE * reference.conv2d(*sizes[:3], **how).max()).all()
    error = abs(table.conv2d_grad_x(g, w, size, **how) - reference.conv2d_grad_x(wide[3], wide[1], size, **how))
    assert (error <= 4 * SHARE * reference.conv2d_grad_x(sizes[3], sizes[1], size, **how).max()).all()


def test_many_channels():
    x, w, b, g, how = operands(48, 352, 16, 8, 8, 1, np.float32)  # blocks of fewer tiles
    wide = [a.astype(np.float64) for a in (x, w, b, g)]
    error = abs(cpu_table().conv2d(x, w, b, **how) - reference.conv2d(*wide[:3], **how)).max()
    assert error <= SHARE * reference.conv2d(*(abs(a) for a in wide[:3]), **how).max()
    error = abs(cpu_table().conv2d_grad_x(g, w, (8, 8), **how) - reference.conv2d_grad_x(wide[3], wide[1], (8, 8), **how)).max()
    assert error <= SHARE * reference.conv2d_grad_x(abs(wide[3]), abs(wide[1]), (8, 8), **how).max()


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan, 3e38])
@pytest.mark.parametrize("which", ["x", "w", "b"])
def test_what_is_not_finite_stays_where_it_is(which, wrong):
    x, w, b, g, how = operands(9, 24, 24, 9, 8, 1, np.float32)
    {"x": x[4, 3, 5], "w": w[5, 2, 1], "b": b}[which][2] = wrong
    g[4, 3, 5, 2] = wrong
    for table in TABLES.values():
        with np.errstate(all="ignore"):
            for kernel, operand, options in ((table.conv2d, x, (w, b)), (table.conv2d_grad_x, g, (w, (9, 8)))):
                alone = np.concatenate([kernel(operand[i : i + 1], *options, **how) for i in range(len(operand))])  # too few for tiles
                np.testing.assert_allclose(kernel(operand, *options, **how), alone, rtol=4e-6, atol=5e-5)


@needs_native
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_tiles_are_taken(shape, dtype):
    """A single one finds taps, which tap by tap come out exactly."""
    x, w, _, g, how = operands(*shape, dtype)
    for kernel, define, operand, options in (
        (cpu_table().conv2d, reference.conv2d, x, (w, None)),
        (cpu_table().conv2d_grad_x, reference.conv2d_grad_x, g, (w, x.shape[2:])),
    ):
        operand[:] = 0
        operand[0, 1, operand.shape[2] // 2, operand.shape[3] // 2] = 1
        got, exact = kernel(operand, *options, **how), define(operand, *options, **how)
        assert (got != exact).any()
        assert abs(got - exact).max() < 1e-5


@pytest.mark.parametrize("shape", ["rows-of-registers", "odd", "wide", "many-tiles", "more-outputs-than-tiles"])
def test_bits_do_not_depend_on_threads(shape):
    x, w, b, g, how = operands(*SHAPES[shape], np.float32)
    table = cpu_table()
    same_bits_for_threads(lambda: (table.conv2d(x, w, b, **how), table.conv2d_grad_x(g, w, x.shape[2:], **how)))
