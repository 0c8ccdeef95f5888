"""Posits against a reading of their bits in exact fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keydnn.stability import AffineDataset, LinearBlockModel, quantize_np
from keydnn.stability.dtypes import HLSDataType, posit

KINDS = [posit(3, 0), posit(4, 2), posit(5, 1), posit(8, 0), posit(8, 2), posit(6, 4), posit(9, 1)]


def read(pattern, n, es):
    """The value of a positive pattern, bit by bit; bits beyond the end are 0."""
    bits = [int(b) for b in format(pattern, f"0{n}b")][1:]
    run = next((i for i, b in enumerate(bits) if b != bits[0]), len(bits))
    k = run - 1 if bits[0] else -run
    rest = bits[run + 1 :] + [0] * es
    e = sum(b << (es - 1 - i) for i, b in enumerate(rest[:es]))
    fraction = sum(Fraction(b, 2 ** (i + 1)) for i, b in enumerate(rest[es:]))
    return Fraction(2) ** (k * 2**es + e) * (1 + fraction)


def nearest(x, n, es):
    """The pattern that a positive x goes to: x as a pattern with one bit more, half up, ties to even."""
    top = 2 ** (n - 1) - 1
    below = sum(read(p, n, es) <= x for p in range(1, top + 1))
    if below in (0, top):
        return max(below, 1)
    limit = read(2 * below + 1, n + 1, es)
    return below + (x > limit or (x == limit and below % 2 == 1))


@pytest.mark.parametrize("dtype", KINDS, ids=repr)
def test_every_pattern(dtype):
    n, half = dtype.n, 2 ** (dtype.n - 1)
    exact = [float(read(p, n, dtype.es)) for p in range(1, half)]
    assert dtype.decode(np.arange(1, half)).tolist() == exact
    assert dtype.decode(np.arange(half + 1, 2 * half)).tolist() == [-v for v in exact[::-1]]  # two's complement
    assert dtype.decode(0) == 0 and np.isnan(dtype.decode(half))
    numbers = np.setdiff1d(np.arange(2 * half), [half])
    np.testing.assert_array_equal(dtype.encode(dtype.decode(numbers)), numbers)
    np.testing.assert_array_equal(dtype(dtype.decode(numbers)), dtype.decode(numbers))
    assert dtype.value_range() == (-exact[-1], exact[-1]) and dtype.smallest_subnormal == exact[0]


@pytest.mark.parametrize("dtype", KINDS, ids=repr)
def test_rounding_at_limits_and_beside_them(dtype):
    some = sorted({1, 2**dtype.n - 1, *range(1, 2**dtype.n, 1 if dtype.n < 8 else 7)})  # all of the small ones
    limits = np.array([float(read(p, dtype.n + 1, dtype.es)) for p in some])
    x = np.concatenate([limits, np.nextafter(limits, 0), np.nextafter(limits, np.inf), [limits[0] / 1e9, limits[-1] * 1e9]])
    expected = [nearest(Fraction(float(v)), dtype.n, dtype.es) for v in x]
    np.testing.assert_array_equal(dtype.encode(x), expected)
    np.testing.assert_array_equal(dtype(-x), -dtype(x))


@given(st.floats(1e-12, 1e12), st.sampled_from(KINDS))
def test_any_number(x, dtype):
    assert dtype(x) == float(read(nearest(Fraction(x), dtype.n, dtype.es), dtype.n, dtype.es))


def test_known_values():
    """The example of the paper, and its ring of five bits."""
    assert posit(16, 3).decode(0b0000110111011101) == 477 / 2**27
    ring = [1 / 64, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1, 3 / 2, 2, 3, 4, 8, 16, 64]
    assert posit(5, 1).decode(np.arange(1, 16)).tolist() == ring
    assert posit(16, 2).encode([1.0, -1.0, 0.0, np.nan, np.inf]).tolist() == [0x4000, 0xC000, 0, 0x8000, 0x8000]
    assert posit(16).value_range()[1] == 2.0**56 and posit(16).bits == 16


def test_quantum_and_what_is_no_number():
    assert posit(5, 1).quantum_at([0.0, 1.0, 1.2, -2.0, 64.0, 1e9]).tolist() == [1 / 64, 0.5, 0.5, 1.0, 48.0, 48.0]
    assert posit(5, 1).quantum_at(3.5) == 1.0
    y = posit(8, 2)(np.array([-0.0, np.nan, np.inf, -1e-30]))
    assert y[0] == 0 and not np.signbit(y[0]) and np.isnan(y[1:3]).all() and y[3] == -posit(8, 2).smallest_subnormal
    assert quantize_np(np.ones(2, np.float32) / 3, posit(8, 2)).tolist() == [0.34375, 0.34375]


def test_texts_and_bad_arguments():
    for dtype in KINDS:
        assert HLSDataType.from_dtype(repr(dtype)) == dtype
    assert HLSDataType.from_dtype("posit<16>") == posit(16, 2)
    for text in ("posit<2,0>", "posit<17,2>", "posit<8,5>", "posit<8,1,1>", "posit<a>", "posit<>"):
        with pytest.raises(ValueError):
            HLSDataType.from_dtype(text)


def test_training_in_posits():
    data = AffineDataset(50, seed=1)
    model = LinearBlockModel(data, num_hidden=[], seed=0)
    fields = dict.fromkeys(("weight", "bias", "activation", "gradient"), "posit<16,2>")
    h = model.train_instrumented(*data.get(), epochs=40, batch_size=50, learning_rate=0.8, precision_dict={"dense0": fields})
    assert h["loss"][-1] < 0.05 * h["loss"][0]
    for w in model.get_weights():
        np.testing.assert_array_equal(posit(16, 2)(w), w)
