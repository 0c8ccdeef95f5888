"""What the tests of the compiled kernels share: the table, operands laid out in every way, and the error a sum may have."""

import contextlib

import numpy as np
import pytest
from hypothesis import strategies as st

from keydnn import threads
from keydnn.kernels import dispatch, reference

needs_native = pytest.mark.skipif(not dispatch.native_status().loaded, reason=f"no native module: {dispatch.native_status().reason}")
dtypes = st.sampled_from([np.float32, np.float64])
layouts = st.sampled_from(["contiguous", "strided", "read-only", "reversed"])


def native_table():
    return dispatch.cpu_table()


def laid_out(x, layout):
    """The same values, in memory as `layout` says."""
    if layout == "strided":
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    if layout == "reversed":
        return np.ascontiguousarray(x[::-1])[::-1]
    x = x.copy()
    x.flags.writeable = layout != "read-only"
    return x


def check_product(name, got, operands, params, terms):
    """Compare a sum of `terms` products with the reference in float64.

    Rounding errors of a sum of products are below terms * eps * sum(|products|) and in practice near sqrt(terms) of that;
    the reference on absolute values gives the sum.
    """
    define = getattr(reference, name)
    dtype = operands[0].dtype
    wide = [None if x is None else x.astype(np.float64) for x in operands]
    want = define(*wide, *params)
    size = define(*(None if x is None else np.abs(x) for x in wide), *params)
    assert got.dtype == dtype
    assert got.shape == want.shape
    assert got.flags.c_contiguous
    allowed = np.finfo(dtype).eps * (4 + 2 * np.sqrt(terms)) * size
    np.testing.assert_array_less(np.abs(got - want), allowed + np.finfo(dtype).tiny)


@contextlib.contextmanager
def using_threads(n):
    """Run the block with n threads."""
    before = threads.get_threads()
    threads.set_threads(n)
    try:
        yield
    finally:
        threads.set_threads(before)


def same_bits_for_threads(compute):
    """Whether compute() gives the same bytes with 1, 2 and 3 threads, twice each; returns the arrays."""
    results = []
    for n in (1, 2, 3, 1, 2, 3):
        with using_threads(n):
            out = compute()
        results.append(out if isinstance(out, tuple) else (out,))
    first = [a.tobytes() for a in results[0]]
    for other in results[1:]:
        assert [a.tobytes() for a in other] == first
    return results[0]
