"""The order of rows is NumPy's, whoever computes it."""

import numpy as np
import pytest

from keydnn.training.order import order_of


@pytest.mark.parametrize("key", [0, 7, 2**63 + 5, 2**64 - 1])
@pytest.mark.parametrize("n", [0, 1, 2, 33, 1025, 70_000])
def test_the_order_is_numpys(key, n):
    order = order_of(key, n)
    assert order.dtype == np.int64
    assert np.array_equal(order, np.random.Generator(np.random.Philox(key)).permutation(n))
