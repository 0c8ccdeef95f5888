"""Rows that a plan lays out again and again: every place of the repeated axes, short and long rows, few and many threads."""

import numpy as np
import pytest

import keydnn

SHAPES = [
    ((2,), (1000, 2)), ((1, 3), (5, 3)), ((3, 1, 2), (3, 700, 2)), ((3, 1, 1, 2), (3, 4, 5, 2)), ((4, 1), (4, 9)), ((1, 1), (6, 7)),
    ((5000,), (4, 5000)), ((2, 1, 3), (2, 3000, 3)), ((1, 4, 1), (3, 4, 5)), ((2, 1, 1), (2, 1, 1)), ((1, 3), (0, 3)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("have", "want"), SHAPES, ids=repr)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_repeated_row_is_copied(have, want, dtype, threads):
    before = keydnn.get_threads()
    keydnn.set_threads(threads)
    try:
        x = np.random.default_rng(0).standard_normal(have).astype(dtype)
        spread = keydnn.compile(lambda t: t.broadcast_to(want))
        for i in range(4):
            found = spread(keydnn.Tensor(data=x + i, dtype=dtype)).numpy()
            np.testing.assert_array_equal(found, np.broadcast_to((x + i).astype(dtype), want))
    finally:
        keydnn.set_threads(before)
