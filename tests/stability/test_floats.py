"""Floating-point formats: the worked values, every pattern of the 8-bit formats, NumPy's float16 and float32."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keydnn.stability.dtypes import HLSDataType, bf16, block_scaled, fp8_e4m3, fp8_e5m2, fp16, fp32, minifloat

X = [0.3, 1.1, 1.9, 100, 0.001, 0.0009, 450, 70000]
WORKED = {
    "fp8_e4m3": (fp8_e4m3, [0.3125, 1.125, 1.875, 96, 0.001953125, 0, 448, 448]),
    "fp8_e5m2": (fp8_e5m2, [0.3125, 1.0, 2.0, 96, 0.0009765625, 0.0008544921875, 448, 57344]),
    "fp16": (fp16, [0.300048828125, 1.099609375, 1.900390625, 100, 0.0010004043579101562, 0.0008997917175292969, 450, 65504]),
    "bf16": (bf16, [0.30078125, 1.1015625, 1.8984375, 100, 0.00099945068359375, 0.0009002685546875, 450, 70144]),
}


@pytest.mark.parametrize("name", WORKED)
def test_worked_values(name):
    dtype, expected = WORKED[name]
    assert dtype(X).tolist() == expected
    assert dtype(-np.array(X)).tolist() == [-v for v in expected]


@pytest.mark.parametrize("dtype", [fp8_e4m3, fp8_e5m2, minifloat(3, 2), minifloat(2, 1, has_inf=False), minifloat(4, 0), fp16], ids=repr)
def test_every_pattern_round_trips(dtype):
    patterns = np.arange(2**dtype.bits)
    values = dtype.decode(patterns)
    numbers = np.isfinite(values)
    np.testing.assert_array_equal(dtype(values[numbers]), values[numbers])
    np.testing.assert_array_equal(dtype.encode(values[numbers]), patterns[numbers])
    assert values[numbers].max() == dtype.max_value and (values[numbers][values[numbers] > 0]).min() == dtype.smallest_subnormal
    nearest = np.sort(np.unique(values[numbers]))
    middle = (nearest[1:] + nearest[:-1]) / 2  # round to nearest against a search among all values
    for x in (np.nextafter(middle, -np.inf), np.nextafter(middle, np.inf)):
        expected = nearest[np.argmin(np.abs(x[:, None] - nearest), axis=1)] if len(nearest) < 300 else dtype(x)
        np.testing.assert_array_equal(dtype(x), expected)


def test_special_patterns():
    assert fp8_e4m3.max_value == 448 and fp8_e5m2.max_value == 57344
    assert np.isnan(fp8_e4m3.decode([0x7F, 0xFF])).all() and np.isfinite(fp8_e4m3.decode(np.setdiff1d(np.arange(256), [0x7F, 0xFF]))).all()
    assert fp8_e5m2.decode([0x7C, 0xFC]).tolist() == [np.inf, -np.inf] and np.isnan(fp8_e5m2.decode(0x7D))
    loose = minifloat(5, 2, saturate=False)
    assert loose(1e6) == np.inf and loose.encode(np.inf) == 0x7C and np.isnan(minifloat(4, 3, has_inf=False, saturate=False)(1e6))
    assert np.isnan(fp8_e4m3(np.nan)) and fp8_e4m3(np.inf) == 448
    assert minifloat(4, 3, has_inf=False, flush=True)([0.005, 0.02]).tolist() == [0, 0.01953125]
    assert minifloat(4, 3, rounding="zero")([1.124, -1.124]).tolist() == [1, -1]


@given(st.floats(allow_nan=False, allow_infinity=False) | st.floats(-70000, 70000) | st.floats(-1e-6, 1e-6))
def test_fp16_and_fp32_are_those_of_numpy(x):
    for dtype, kind in ((fp16, np.float16), (fp32, np.float32)):
        with np.errstate(over="ignore"):
            expected = float(kind(x))
        if np.isinf(expected):
            expected = np.copysign(dtype.max_value, expected)
        assert dtype(x) == expected


def test_quantum_and_texts():
    assert fp16.quantum_at(1.0) == 2**-10 and fp16.quantum_at([0.0, 3.0]).tolist() == [2**-24, 2**-9]
    for dtype in (fp16, fp8_e4m3, minifloat(3, 4), minifloat(4, 3, bias=9, has_inf=False, rounding="stochastic", flush=True)):
        assert HLSDataType.from_dtype(repr(dtype)) == dtype
    for bad in ({"E": 1, "M": 3}, {"E": 4, "M": -1}, {"E": 4, "M": 3, "rounding": "up"}, {"E": 11, "M": 3, "bias": 0}):
        with pytest.raises(ValueError):
            minifloat(**bad)


def test_stochastic_rounding_is_unbiased_and_leaves_the_grid_alone():
    dtype = minifloat(4, 3, has_inf=False, rounding="stochastic")
    x = np.full(200_000, 1.03)
    y = dtype(x, key=3)
    assert set(np.unique(y)) == {1.0, 1.125}
    assert abs(y.mean() - 1.03) < 4 * y.std() / np.sqrt(y.size)
    np.testing.assert_array_equal(dtype(fp8_e4m3(X), key=9), fp8_e4m3(X))


def test_blocks_share_a_scale():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 32)) * 2.0 ** rng.integers(-30, 30, (4, 2)).repeat(16, axis=1)
    y = block_scaled(fp8_e4m3, axis=1, block=16)(x)
    for row in range(4):
        for part in (slice(0, 16), slice(16, 32)):
            scale = 2.0 ** (np.floor(np.log2(np.abs(x[row, part]).max())) - 8)
            np.testing.assert_array_equal(y[row, part], fp8_e4m3(x[row, part] / scale) * scale)
    assert block_scaled(fp8_e4m3)(np.zeros(3)).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="do not divide"):
        block_scaled(fp8_e4m3, axis=0, block=3)(x)
    with pytest.raises(ValueError, match="needs an axis"):
        block_scaled(fp8_e4m3, block=3)
