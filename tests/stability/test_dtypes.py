"""Fixed-point types: the worked tables, all modes against exact integers, texts, and bad input."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keydnn.domain.device import CPU
from keydnn.kernels import reference
from keydnn.kernels.dispatch import tables
from keydnn.stability.dtypes import VALID_OMODES, VALID_QMODES, HLSDataType, ap_fixed, ap_int, ap_ufixed, ap_uint
from tests.stability.integer_rounding import OMODES, QMODES, store

ROUNDING_X = [-2.2, -1.125, -0.375, -0.3, -0.125, -0.1, 0.1, 0.125, 0.25, 0.3, 0.375, 0.625, 1.125, 1.9]
ROUNDING = {
    "AP_TRN": [-2, -1.25, -0.5, -0.5, -0.25, -0.25, 0, 0, 0.25, 0.25, 0.25, 0.5, 1, 1.75],
    "AP_TRN_ZERO": [-2, -1, -0.25, -0.25, 0, 0, 0, 0, 0.25, 0.25, 0.25, 0.5, 1, 1.75],
    "AP_RND": [-2, -1, -0.25, -0.25, 0, 0, 0, 0.25, 0.25, 0.25, 0.5, 0.75, 1.25, 1.75],
    "AP_RND_ZERO": [-2, -1, -0.25, -0.25, 0, 0, 0, 0, 0.25, 0.25, 0.25, 0.5, 1, 1.75],
    "AP_RND_MIN_INF": [-2, -1.25, -0.5, -0.25, -0.25, 0, 0, 0, 0.25, 0.25, 0.25, 0.5, 1, 1.75],
    "AP_RND_INF": [-2, -1.25, -0.5, -0.25, -0.25, 0, 0, 0.25, 0.25, 0.25, 0.5, 0.75, 1.25, 1.75],
    "AP_RND_CONV": [-2, -1, -0.5, -0.25, 0, 0, 0, 0, 0.25, 0.25, 0.5, 0.5, 1, 1.75],
}
OVERFLOW_X = [-4, -3, -2.2, -2.125, -2, -1.9, 1.75, 1.875, 1.9, 2, 2.2, 3, 4.1, 6.3]
OVERFLOW = {
    ("AP_WRAP", 0): [0, 1, 1.75, -2, -2, -2, 1.75, -2, -2, -2, -1.75, -1, 0, -1.75],
    ("AP_SAT", 0): [-2, -2, -2, -2, -2, -2, 1.75, 1.75, 1.75, 1.75, 1.75, 1.75, 1.75, 1.75],
    ("AP_SAT_ZERO", 0): [0, 0, 0, -2, -2, -2, 1.75, 0, 0, 0, 0, 0, 0, 0],
    ("AP_SAT_SYM", 0): [-1.75, -1.75, -1.75, -1.75, -1.75, -1.75, 1.75, 1.75, 1.75, 1.75, 1.75, 1.75, 1.75, 1.75],
    ("AP_WRAP_SM", 0): [-0.25, -1.25, -2, -2, -2, -2, 1.75, 1.75, 1.75, 1.75, 1.5, 0.75, -0.25, -1.75],
    ("AP_WRAP", 1): [-2, -1, -0.25, -2, -2, -2, 1.75, 0, 0, 0, 0.25, 1, 0, 0.25],
    ("AP_WRAP", 2): [-2, -2, -1.25, -2, -2, -2, 1.75, 1, 1, 1, 1.25, 1, 1, 1.25],
    ("AP_WRAP_SM", 1): [-0.25, -1.25, -2, -2, -2, -2, 1.75, 1.75, 1.75, 1.75, 1.5, 0.75, 0, 1.5],
    ("AP_WRAP_SM", 2): [-2, -1.25, -2, -2, -2, -2, 1.75, 1.75, 1.75, 1.75, 1.5, 1, 1.75, 1.5],
}
UNSIGNED_X = [-2.2, -0.3, -0.125, 0.1, 0.125, 0.375, 3.7, 3.875, 4, 5.3, 9]
UNSIGNED = {
    ("AP_TRN", "AP_SAT", 0): [0, 0, 0, 0, 0, 0.25, 3.5, 3.75, 3.75, 3.75, 3.75],
    ("AP_RND", "AP_SAT", 0): [0, 0, 0, 0, 0.25, 0.5, 3.75, 3.75, 3.75, 3.75, 3.75],
    ("AP_RND_CONV", "AP_SAT", 0): [0, 0, 0, 0, 0, 0.5, 3.75, 3.75, 3.75, 3.75, 3.75],
    ("AP_RND", "AP_WRAP", 0): [1.75, 3.75, 0, 0, 0.25, 0.5, 3.75, 0, 0, 1.25, 1],
    ("AP_RND", "AP_SAT_ZERO", 0): [0, 0, 0, 0, 0.25, 0.5, 3.75, 0, 0, 0, 0],
    ("AP_RND", "AP_WRAP", 1): [3.75, 3.75, 0, 0, 0.25, 0.5, 3.75, 2, 2, 3.25, 3],
}
SINGLE = [
    (ap_fixed(4, 6), {-33: 28, -13: -16, 2: 0, 14: 12, 40: -24}),
    (ap_fixed(4, 6, "AP_RND", "AP_SAT"), {-33: -32, -14: -12, 2: 4, 10: 12, 40: 28}),
    (ap_fixed(4, 6, "AP_RND_CONV", "AP_SAT"), {-14: -16, 2: 0, 10: 8}),
    (ap_fixed(3, -1), {-0.3: 0.1875, -0.1: -0.125, 0.3: -0.25}),
    (ap_fixed(3, -1, "AP_RND", "AP_SAT"), {0.03125: 0.0625, 0.09375: 0.125, 0.3: 0.1875}),
    (ap_fixed(4, 4, "AP_RND", "AP_WRAP_SM"), {19: -4, -19: 2}),
    (ap_fixed(4, 4, "AP_RND", "AP_WRAP"), {31: -1, -19: -3}),
    (ap_fixed(4, 4, "AP_RND", "AP_SAT_SYM"), {-19: -7}),
    (ap_fixed(3, 2, "AP_RND_CONV", "AP_SAT"), {0.75: 1, -1.25: -1}),
]


@pytest.mark.parametrize("mode", ROUNDING)
def test_rounding_table(mode):
    assert ap_fixed(4, 2, mode, "AP_SAT")(ROUNDING_X).tolist() == ROUNDING[mode]


@pytest.mark.parametrize(("mode", "n"), OVERFLOW)
def test_overflow_table(mode, n):
    assert ap_fixed(4, 2, "AP_RND", mode, n)(OVERFLOW_X).tolist() == OVERFLOW[mode, n]


@pytest.mark.parametrize(("qmode", "omode", "n"), UNSIGNED)
def test_unsigned_table(qmode, omode, n):
    assert ap_ufixed(4, 2, qmode, omode, n)(UNSIGNED_X).tolist() == UNSIGNED[qmode, omode, n]


@pytest.mark.parametrize(("dtype", "values"), SINGLE, ids=lambda v: repr(v)[:40])
def test_examples(dtype, values):
    assert [dtype(x) for x in values] == list(values.values())


def combinations():
    for signed, qmode, omode in itertools.product((True, False), QMODES, OMODES):
        if omode == "AP_WRAP_SM" and not signed:
            continue
        yield signed, qmode, omode


@pytest.mark.parametrize(("signed", "qmode", "omode"), list(combinations()))
def test_every_width_to_six_bits_agrees_with_exact_integers(signed, qmode, omode):
    """All eighths of a quantum over three times the range, every SAT_BITS, several positions of the point."""
    for w in range(1, 7):
        eighths = np.arange(-(3 << w) * 4, (3 << w) * 4 + 1, 1 if w < 5 else 3)
        for n in range(min(w, 4)) if "WRAP" in omode else (0,):
            expected = [store(Fraction(int(k), 8), w, w, signed, qmode, omode, n) for k in eighths]
            for iwl in (w, 2, -3):
                q = 2.0 ** (iwl - w)
                dtype = (ap_fixed if signed else ap_ufixed)(w, iwl, qmode, omode, n)
                np.testing.assert_array_equal(dtype(eighths / 8 * q, return_int=True), expected, err_msg=f"{dtype}")
                np.testing.assert_array_equal(dtype(eighths / 8 * q), np.array(expected) * q)


@given(
    x=st.floats(allow_nan=False, allow_infinity=False) | st.floats(-300, 300) | st.integers(-4096, 4096).map(lambda k: k / 16),
    w=st.sampled_from((1, 2, 7, 16, 24, 31, 52, 53, 54, 63, 64, 90)),
    iwl=st.integers(-40, 100),
    mode=st.sampled_from(list(combinations())),
    n=st.integers(0, 3),
)
def test_any_double_and_any_width_agree_with_exact_integers(x, w, iwl, mode, n):
    signed, qmode, omode = mode
    dtype = (ap_fixed if signed else ap_ufixed)(w, iwl, qmode, omode, min(n, w - 1))
    expected = store(Fraction(x), w, iwl, signed, qmode, omode, min(n, w - 1))
    assert dtype(x, return_int=True) == expected
    assert dtype(x) == float(Fraction(expected) / Fraction(2) ** (w - iwl))


@pytest.mark.parametrize("qmode", QMODES)
def test_ties_and_their_neighbours_are_told_apart(qmode):
    ties = np.arange(-9, 10) / 2
    x = np.concatenate([np.nextafter(ties, -np.inf), ties, np.nextafter(ties, np.inf)])
    expected = [store(Fraction(float(v)), 8, 8, True, qmode, "AP_SAT", 0) for v in x]
    assert ap_fixed(8, 8, qmode, "AP_SAT")(x, return_int=True).tolist() == expected


def test_apytypes_agrees_where_it_has_the_mode():
    apy = pytest.importorskip("apytypes")
    rounding = {
        "AP_TRN": "TRN", "AP_TRN_ZERO": "TRN_ZERO", "AP_RND": "RND", "AP_RND_ZERO": "RND_ZERO", "AP_RND_MIN_INF": "RND_MIN_INF",
        "AP_RND_INF": "RND_INF", "AP_RND_CONV": "RND_CONV",
    }  # fmt: skip
    x = np.random.default_rng(0).integers(-(2**11), 2**11, 400) / 2**6
    fine = apy.APyFixedArray.from_float(x, int_bits=8, frac_bits=8)
    for (ours, theirs), (omode, overflow) in itertools.product(rounding.items(), (("AP_WRAP", "WRAP"), ("AP_SAT", "SAT"))):
        for w, iwl in ((4, 2), (6, 3), (9, 5), (5, 7)):
            found = fine.cast(
                int_bits=iwl,
                frac_bits=w - iwl,
                quantization=getattr(apy.QuantizationMode, theirs),
                overflow=getattr(apy.OverflowMode, overflow),
            )
            np.testing.assert_array_equal(ap_fixed(w, iwl, ours, omode)(x), found.to_numpy(), err_msg=f"{ours} {omode} {w} {iwl}")


def test_scalars_lists_and_integers_come_back_as_they_went_in():
    t = ap_fixed(8, 4, "AP_RND", "AP_SAT")
    assert type(t(1)) is float and type(t(0.3, return_int=True)) is int
    assert t([[0.3], [1.0]]).shape == (2, 1) and t([0.3]).dtype == np.float64
    assert t(np.float32(0.1), return_int=True) == 2 and t([0.1], return_int=True).dtype == np.int64
    assert t([]).shape == (0,)
    assert ap_ufixed(64, 64, "AP_RND", "AP_SAT")([2.0**70, 1.0], return_int=True).tolist() == [2**64 - 1, 1]


def test_values_that_are_not_finite():
    for omode, expected in {"AP_SAT": [7.9375, -8], "AP_SAT_ZERO": [0, 0], "AP_SAT_SYM": [7.9375, -7.9375]}.items():
        assert ap_fixed(8, 4, "AP_RND", omode)([np.inf, -np.inf]).tolist() == expected
    for omode in ("AP_WRAP", "AP_WRAP_SM"):
        assert np.isnan(ap_fixed(8, 4, "AP_RND", omode)([np.inf, -np.inf, np.nan])).all()
    for w in (8, 60):
        assert np.isnan(ap_fixed(w, 4, "AP_RND", "AP_SAT")(np.nan))
        with pytest.raises(ValueError, match="NaN"):
            ap_fixed(w, 4)(np.nan, return_int=True)


def test_a_zero_is_plus_zero():
    for qmode in QMODES:
        assert not np.signbit(ap_fixed(8, 4, qmode, "AP_SAT")([-0.0, 0.0])).any()
    assert not np.signbit(ap_fixed(8, 4, "AP_RND", "AP_SAT")(-0.01))


def test_ranges_and_derived_types():
    t = ap_fixed(8, 3, "AP_RND", "AP_SAT_SYM")
    assert (t.fractional_bits, t.quantum, t.dtype) == (5, 1 / 32, "ap_fixed")
    assert t.value_range() == (-4 + 1 / 32, 4 - 1 / 32)
    assert ap_fixed(8, 3).value_range() == (-4, 4 - 1 / 32) and ap_ufixed(4, 2).value_range() == (0, 3.75)
    assert ap_int(8).value_range() == (-128, 127) and ap_uint(8).value_range() == (0, 255) and ap_int(8).quantum == 1
    assert t.double_precision() == ap_fixed(16, 6, "AP_RND", "AP_SAT_SYM") and ap_fixed(4, 6).double_precision() == ap_fixed(8, 8)
    assert t.unsigned() == ap_ufixed(8, 3, "AP_RND", "AP_SAT_SYM") and t.unsigned().signed() == t
    assert ap_int(5).unsigned() == ap_uint(5) and ap_int(5).double_precision() == ap_int(10)
    assert len({ap_fixed(8, 3), ap_fixed(8, 3), ap_fixed(8, 4), ap_int(8), ap_uint(8)}) == 4
    assert ap_int(4)([7.9, 8.0, -1.2]).tolist() == [7, -8, -2]
    with pytest.raises(AttributeError):
        t.WL = 3


def test_bits_as_text():
    t = ap_fixed(4, 2)
    assert [t.bin(x) for x in (0.75, -0.25, -2)] == ["0b00.11", "0b11.11", "0b10.00"]
    assert ap_fixed(4, 6).bin(4) == "0b0001*2^2" and ap_fixed(3, -1).bin(0.0625) == "0b001*2^-4"
    assert ap_int(4).bin(-1) == "0b1111"


def test_every_text_reads_back():
    for signed, qmode, omode in combinations():
        for w, iwl, n in ((16, 6, 0), (4, 6, 2), (3, -1, 1)):
            t = (ap_fixed if signed else ap_ufixed)(w, iwl, qmode, omode, n)
            assert HLSDataType.from_dtype(repr(t)) == t
    assert repr(ap_fixed()) == "ap_fixed<16,6,AP_TRN,AP_WRAP>" and repr(ap_fixed(SAT_BITS=2)).endswith("AP_WRAP,2>")
    assert HLSDataType.from_dtype(repr(ap_uint(7))) == ap_uint(7) and repr(ap_int()) == "ap_int<16>"
    read = HLSDataType.from_dtype
    assert read(" ap_fixed < 0x8 , -0b1 , AP_RND > ") == ap_fixed(8, -1, "AP_RND")
    assert read("ufixed<8,3,RND_CONV,SAT>") == ap_ufixed(8, 3, "AP_RND_CONV", "AP_SAT") and read("int<4>") == ap_int(4)
    assert read("ap_fixed<8,3>", OMODE="AP_SAT") == ap_fixed(8, 3, OMODE="AP_SAT")
    stochastic = ap_fixed(8, 3, "AP_RND_STOCH", SR_BITS=6)
    assert read(repr(stochastic)) == stochastic


BAD = [
    "", "ap_fixed", "ap_fixed<>", "ap_fixed<8>", "ap_fixed<8,3,AP_RND,AP_SAT,0,1>", "ap_int<8,3>", "ap_fixed<a,3>", "ap_float<8,3>",
    "ap_fixed<8,3,AP_NEAREST>", "ap_fixed<8,3,AP_RND,AP_CLIP>", "ap_fixed<0,3>", "ap_fixed<8,3,AP_RND,AP_WRAP,8>", "ap_fixed<8,3", "8,3",
    "ap_ufixed<8,3,AP_RND,AP_WRAP_SM>", "ap_fixed<8,3,AP_RND,AP_WRAP,-1>", "ap_fixed<8.0,3>", "minifloat<4>", "minifloat<x,3>",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_texts_that_are_no_format(text):
    with pytest.raises(ValueError):
        HLSDataType.from_dtype(text)


def test_bad_arguments():
    with pytest.raises(TypeError):
        HLSDataType.from_dtype(8)
    with pytest.raises(ValueError, match="is a format already"):
        HLSDataType.from_dtype(ap_int(8), WL=4)
    with pytest.raises(ValueError, match="given twice or unknown"):
        HLSDataType.from_dtype("ap_fixed<8,3>", WL=4)
    with pytest.raises(TypeError):
        ap_fixed(8.0, 3)
    with pytest.raises(ValueError, match="SR_BITS"):
        ap_fixed(8, 3, SR_BITS=4)
    assert set(QMODES) == VALID_QMODES and set(OMODES) == VALID_OMODES


@pytest.mark.parametrize("fraction", [-1, -7, -30, -60])
@pytest.mark.parametrize("signed", [True, False])
def test_quanta_above_one_keep_the_sign_of_what_vanishes(fraction, signed):
    tiny = [5e-324, 1e-310, 1e-300, 1e-45, 1e-38, 1e-30, 0.3, 1.0, 2.0**-fraction / 2, 2.0**-fraction, 3.7 * 2.0**-fraction]
    for dtype in (np.float32, np.float64):
        with np.errstate(all="ignore"):
            x = np.array([s * v for v in [0.0, *tiny, 1e35, np.inf] for s in (1.0, -1.0)] + [np.nan], dtype)
        for qmode in sorted(VALID_QMODES):
            for omode in sorted(VALID_OMODES - (set() if signed else {"AP_WRAP_SM"})):
                for bits, n in ((3, 0), (12, 2), (30, 0)):
                    how = {"wl": bits, "iwl": bits - fraction, "signed": signed, "qmode": qmode, "omode": omode, "sat_bits": n}
                    mine, meant = tables[CPU].quantize_fixed(x, **how), reference.quantize_fixed(x, **how)
                    np.testing.assert_array_equal(mine, meant, err_msg=f"{how} {dtype.__name__}")
                    assert not np.signbit(mine[mine == 0]).any()
