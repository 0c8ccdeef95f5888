"""Compiled exp, log, tanh, ...: the errors that native/include/vmath.h states, for the instruction set in use.

Errors are counted in units of the last place of the result, against long double where that has digits to spare.
"""

import math

import numpy as np
import pytest

from keydnn.kernels import dispatch
from tests.native.common import needs_native

pytestmark = needs_native
N = 200_000
LONG = np.longdouble
HAS_LONG = np.finfo(LONG).eps < np.finfo(np.float64).eps / 1000


@pytest.fixture(scope="module")
def table():
    return dispatch.cpu_table()


# kernel: (definition in long double, {dtype: (low, high, allowed error)})
STATED = {
    "exp": (np.exp, {np.float32: (-104, 89, 1.1), np.float64: (-746, 710, 1.05)}),
    "expm1": (np.expm1, {np.float32: (-20, 89, 1.8), np.float64: (-40, 710, 2.0)}),
    "log": (np.log, {np.float32: (0, np.inf, 0.9), np.float64: (0, np.inf, 0.9)}),
    "log1p": (np.log1p, {np.float32: (-1, np.inf, 1.55), np.float64: (-1, np.inf, 1.55)}),
    "tanh": (np.tanh, {np.float32: (-np.inf, np.inf, 2.6), np.float64: (-np.inf, np.inf, 2.6)}),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), {np.float32: (-88, 100, 2.5), np.float64: (-709, 100, 2.5)}),
}


def samples(rng, dtype, low, high):
    """All magnitudes of both signs, and the busy part around 0, inside (low, high)."""
    info = np.finfo(dtype)
    exponents = rng.uniform(math.log10(info.smallest_subnormal), math.log10(float(info.max)), N)
    x = np.concatenate([10.0**exponents, -(10.0**exponents), rng.uniform(-2, 2, N), rng.uniform(max(low, -750), min(high, 750), N)])
    x = x.astype(dtype)
    return x[(x > low) & (x < high)]


def units(got, want, dtype):
    """|got - want| in units of the last place of want rounded to dtype, where that is finite."""
    with np.errstate(over="ignore"):
        rounded = want.astype(dtype)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(got[~finite], rounded[~finite])
    return np.abs(got[finite].astype(LONG) - want[finite]) / np.spacing(np.abs(rounded[finite])).astype(LONG)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
@pytest.mark.parametrize("kernel", STATED)
def test_error_in_units_of_the_last_place(table, kernel, dtype):
    if dtype is np.float64 and not HAS_LONG:
        pytest.skip("long double has no more digits than double here")
    define, bounds = STATED[kernel]
    low, high, allowed = bounds[dtype]
    x = samples(np.random.default_rng(0), dtype, low, high)
    with np.errstate(over="ignore", under="ignore"):
        want = define(x.astype(LONG))
    error = units(getattr(table, kernel)(x), want, dtype)
    assert error.max() <= allowed
    assert error.mean() < 0.35


@pytest.mark.parametrize(("dtype", "allowed"), [(np.float32, 2.9), (np.float64, 2.5)], ids=["f4", "f8"])
def test_error_of_erf(table, dtype, allowed):
    x = samples(np.random.default_rng(0), dtype, -np.inf, np.inf)[::40]
    want = np.array([math.erf(v) for v in x.tolist()]).astype(LONG)  # itself within one unit of double
    assert units(table.erf(x), want, dtype).max() <= allowed


@pytest.mark.parametrize(("dtype", "allowed"), [(np.float32, 2.5e-7), (np.float64, 4e-16)], ids=["f4", "f8"])
def test_error_of_gelu_relative_to_its_operand(table, dtype, allowed):
    x = samples(np.random.default_rng(0), dtype, -30, np.inf)[::40]
    want = np.array([v * (math.erfc(-v / math.sqrt(2)) / 2) for v in x.tolist()])
    bell = [math.exp(-(min(abs(v), 40.0) ** 2) / 2) / math.sqrt(2 * math.pi) for v in x.tolist()]
    slope = np.array([math.erfc(-v / math.sqrt(2)) / 2 + v * b if b else float(v > 0) for v, b in zip(x.tolist(), bell, strict=True)])
    normal = np.abs(x) > 1e-30
    assert (np.abs(table.gelu(x) - want) / np.abs(x.astype(float)))[normal].max() <= allowed
    assert np.abs(table.gelu_grad(x, np.ones_like(x)) - slope).max() <= 3 * allowed


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
@pytest.mark.parametrize("kernel", ["exp", "expm1", "log", "log1p", "tanh", "sigmoid", "erf", "gelu", "silu", "softplus", "sqrt", "rsqrt"])
def test_a_result_does_not_depend_on_where_the_element_stands(table, kernel, dtype):
    f = getattr(table, kernel)
    x = np.abs(np.random.default_rng(1).standard_normal(40_000).astype(dtype))
    whole = f(x)
    np.testing.assert_array_equal(f(x[::-1]), whole[::-1])  # a strided operand too
    np.testing.assert_array_equal(f(x[3:77]), whole[3:77])
    for i in (0, 1, 39_999):
        assert f(x[i]) == whole[i]  # a NumPy scalar


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
def test_order_is_kept(table, dtype):
    """Monotone over a fine grid, up to the stated error: a jump between the pieces of an approximation would show."""
    x = np.linspace(-6, 6, 200_001).astype(dtype)
    for kernel in ("exp", "tanh", "sigmoid", "erf"):
        y = getattr(table, kernel)(x).astype(np.float64)
        assert np.diff(y).min() >= -3 * np.finfo(dtype).eps * np.abs(y).max()
    for kernel in ("tanh", "erf"):
        f = getattr(table, kernel)
        np.testing.assert_array_equal(f(-x), -f(x))
