"""What optimizers keep between steps never becomes subnormal."""

import numpy as np
import pytest

from keydnn.kernels import reference
from tests.native.common import native_table, needs_native

TABLES = [pytest.param(native_table, id="native", marks=needs_native), pytest.param(lambda: reference, id="reference")]


def subnormal(x):
    return (x != 0) & (np.abs(x) < np.finfo(x.dtype).tiny)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_moments_of_gradients_that_stay_zero_become_zero(table, dtype):
    tiny = np.finfo(dtype).tiny
    p, g = np.ones(37, dtype), np.zeros(37, dtype)
    m, v, t = np.linspace(-9 * tiny, 9 * tiny, 37, dtype=dtype), np.linspace(0, 40 * tiny, 37, dtype=dtype), np.array(0)
    m[subnormal(m)] = v[subnormal(v)] = 0
    for _ in range(60):
        table().adam_(p, g, m, v, t, np.array(0.1), 0.9, 0.9, 1e-8, 0.0, False)
        assert not subnormal(m).any() and not subnormal(v).any()
    assert not m.any() and not v.any() and np.isfinite(p).all()


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("nesterov", [False, True])
def test_velocity_of_gradients_that_stay_zero_becomes_zero(table, nesterov):
    p, g, velocity = np.ones(37, "f4"), np.zeros(37, "f4"), np.linspace(-3e-37, 3e-37, 37, dtype="f4")
    for _ in range(60):
        table().sgd_(p, g, velocity, np.array(0.1), 0.9, nesterov, 0.0)
        assert not subnormal(velocity).any()
    assert not velocity.any()


@pytest.mark.parametrize("table", TABLES)
def test_nan_is_kept(table):
    p, g, m, v = (np.full(5, value, "f4") for value in (1.0, np.nan, 0.0, 0.0))
    table().adam_(p, g, m, v, np.array(0), np.array(0.1), 0.9, 0.9, 1e-8, 0.0, False)
    assert np.isnan(m).all() and np.isnan(v).all() and np.isnan(p).all()
