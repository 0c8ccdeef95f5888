"""Toy problems: shapes, dtypes, seeds, and the formula each is made from."""

import numpy as np
import pytest

from keydnn.data import make_blobs, make_circles, make_moons, make_regression, make_sine, make_spirals, make_xor


@pytest.mark.parametrize("make", [make_blobs, make_moons, make_circles, make_spirals, make_xor])
def test_labelled(make):
    x, y = make(90, seed=1)
    assert x.shape == (90, 2) and x.dtype == np.float32 and y.shape == (90,) and y.dtype == np.int64
    counts = np.bincount(y)
    assert counts.max() - counts.min() <= 2
    again = make(90, seed=1)
    assert np.array_equal(x, again[0]) and np.array_equal(y, again[1]) and not np.array_equal(x, make(90, seed=2)[0])
    assert not np.array_equal(make(9)[0], make(9)[0])


def test_without_noise_the_formulas_hold():
    x, y = make_circles(50, factor=0.3, noise=0, seed=0)
    np.testing.assert_allclose(np.hypot(*x.T), np.where(y == 0, 1.0, 0.3), rtol=1e-6)
    x, y = make_moons(50, noise=0, seed=0)
    centre = np.where(y[:, None] == 0, [0.0, 0.0], [1.0, 0.5])
    np.testing.assert_allclose(np.hypot(*(x - centre).T), 1.0, rtol=1e-5)
    x, y = make_xor(50, noise=0, seed=0)
    assert np.array_equal(y, (x[:, 0] * x[:, 1] < 0).astype(int))
    x, y = make_sine(50, noise=0, seed=0)
    np.testing.assert_allclose(y, np.sin(x), rtol=1e-5, atol=1e-6)
    x, y = make_regression(50, 3, noise=0, seed=0)
    a = np.c_[x, np.ones(50)]
    np.testing.assert_allclose(a @ np.linalg.lstsq(a, y, rcond=None)[0], y, atol=1e-5)
