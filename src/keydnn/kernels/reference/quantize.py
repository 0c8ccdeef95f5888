"""Rounding to fixed-point numbers, exactly as the ap_fixed types of high-level synthesis do it.

A format has wl bits, iwl of them before the point (the sign bit of a signed format included), so its quantum is
``q = 2^-(wl - iwl)``.  With ``t = x / q`` the stored integer is ``overflow(round(t))``, and the result is that times q.

Everything is exact: t is a scaling by a power of two, ``t - rint(t)`` has no rounding error, and up to 53 bits every
integer that occurs is a float64.  Wider formats are computed on Python integers.  A zero is always +0; NaN stays NaN; an
infinity goes to the rail where overflow saturates (0 for AP_SAT_ZERO) and becomes NaN where it wraps.
Source: AMD, Vitis HLS user guide UG1399, "Arbitrary precision fixed-point data types".
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from keydnn.kernels.reference.quiet import quiet
from keydnn.kernels.reference.random import uniform

# in the order of keydnn_rounding and keydnn_overflow of the native kernels
ROUNDING = ("AP_TRN", "AP_TRN_ZERO", "AP_RND", "AP_RND_ZERO", "AP_RND_MIN_INF", "AP_RND_INF", "AP_RND_CONV")
OVERFLOW = ("AP_WRAP", "AP_SAT", "AP_SAT_ZERO", "AP_SAT_SYM", "AP_WRAP_SM")
SATURATING = ("AP_SAT", "AP_SAT_ZERO", "AP_SAT_SYM")
FLOAT_BITS = 53  # widest format whose integers are all float64
_BLOCK = 8192  # elements that stay in the cache between the passes over them
_COMMON = {np.dtype(np.float32): 23, np.dtype(np.float64): 51}  # widest format of which twice an integer, plus one, is exact
_MOST_SHIFT = 60  # fractional bits whose powers of two are far from the ends of float32


def stored_range(wl, signed):
    """Smallest and largest stored integer."""
    return (-(1 << (wl - 1)), (1 << (wl - 1)) - 1) if signed else (0, (1 << wl) - 1)


@quiet
def quantize_fixed(x, wl, iwl, signed, qmode, omode, sat_bits):
    """The nearest storable value by the rules of the format, in x's dtype."""
    x = np.asarray(x)
    y = np.empty(x.shape, x.dtype)
    source, target = np.ascontiguousarray(x).reshape(-1), y.reshape(-1)
    if qmode == "AP_RND" and omode in ("AP_SAT", "AP_SAT_SYM") and wl <= _COMMON.get(x.dtype, 0) and abs(wl - iwl) <= _MOST_SHIFT:
        _nearest_saturated(source, target, wl, wl - iwl, signed, omode)
        return y
    for begin in range(0, x.size, _BLOCK):
        part = slice(begin, begin + _BLOCK)
        target[part] = value_of(stored(source[part].astype(np.float64), wl, iwl, signed, qmode, omode, sat_bits), wl - iwl)
    return y


def quantize_by(x, format):
    """`quantize_fixed` with the format as numbers: wl, iwl, signed, places of qmode and omode in the lists above, sat_bits."""
    wl, iwl, signed, qmode, omode, sat_bits = np.asarray(format).tolist()
    return quantize_fixed(x, wl, iwl, bool(signed), ROUNDING[qmode], OVERFLOW[omode], sat_bits)


def _nearest_saturated(x, y, wl, f, signed, omode):
    """AP_RND with AP_SAT or AP_SAT_SYM, the common case: ``floor(t + 1/2) = floor((floor(2 t) + 1) / 2)``, every pass exact in x's dtype.

    Saturation comes first: the rails lie on the grid, so that gives the same integers, and keeps them where x's dtype is exact.
    """
    lo, hi = stored_range(wl, signed)
    lo = symmetric_low(wl, signed) if omode == "AP_SAT_SYM" else lo
    scale, low, high, half, quantum = (x.dtype.type(v) for v in (2.0 ** (f + 1), 2 * lo, 2 * hi, 0.5, 2.0**-f))
    room = np.empty(min(_BLOCK, x.size), x.dtype)
    for begin in range(0, x.size, _BLOCK):
        part = x[begin : begin + _BLOCK]
        k = room[: part.size]
        np.multiply(part, scale, out=k)
        np.clip(k, low, high, out=k)
        np.floor(k, out=k)
        np.multiply(k, half, out=k)
        np.add(k, half, out=k)
        np.floor(k, out=k)
        np.multiply(k, quantum, out=y[begin : begin + _BLOCK])


@quiet
def quantize_stochastic(x, key, wl, iwl, signed, omode, sat_bits, sr_bits):
    """Round up with the probability of the distance: ``floor(t) + (u < r)``, r cut to sr_bits bits unless that is None.

    The uniforms are those of the kernel `uniform` for key, in float64.
    """
    x = np.asarray(x)
    wide = np.ascontiguousarray(x).astype(np.float64).reshape(-1)
    t = _scaled(wide, wl - iwl)
    down = np.floor(t)
    r = t - down
    if sr_bits is not None:
        r = np.ldexp(np.floor(np.ldexp(r, sr_bits)), -sr_bits)
    up = uniform(key, wide.shape, np.float64) < r
    y = value_of(_overflow(down + up, wide, t, wl, signed, omode, sat_bits), wl - iwl)
    return y.astype(x.dtype).reshape(x.shape)


@quiet
def quantize_with(x, key, format):
    """``format.rounded(x, key)``: any other number format, as an object that rounds arrays."""
    return np.asarray(format.rounded(np.asarray(x), int(key))).astype(np.asarray(x).dtype)


def stored(x, wl, iwl, signed, qmode, omode, sat_bits):
    """The stored integers of float64 x: as float64 (NaN where there is none) up to 53 bits, else as Python integers or NaN."""
    if wl > FLOAT_BITS:
        found = [_stored_integer(float(v), wl, iwl, signed, qmode, omode, sat_bits) for v in np.asarray(x).reshape(-1)]
        integers = np.empty(len(found), object)
        integers[:] = found
        return integers.reshape(np.shape(x))
    f = wl - iwl
    t = x * 2.0**f if 0 <= f <= 900 and omode in SATURATING else _scaled(x, f)  # an overflow to infinity saturates all the same
    return _overflow(_rounded(t, qmode), x, t, wl, signed, omode, sat_bits)


def value_of(integers, f):
    """``integers * 2^-f`` as float64."""
    if integers.dtype == object:
        exact = [float(v if v != v else Fraction(v) / Fraction(2) ** f) for v in integers.reshape(-1)]
        return np.array(exact, np.float64).reshape(integers.shape)
    return integers * 2.0**-f + 0.0 if abs(f) <= 900 else np.ldexp(integers, -f) + 0.0


def _scaled(x, f):
    """``x * 2^f``; where that leaves the range of float64, a number with the same sign that rounds and wraps alike."""
    t = np.ldexp(x, f)
    if f > 0:
        return np.where(np.isinf(t) & np.isfinite(x), np.copysign(2.0**1000, x), t)
    return np.where((np.abs(t) < 2.0**-1000) & (x != 0), np.copysign(2.0**-1000, x), t)


def _rounded(t, qmode):
    """The integer beside t that the mode chooses."""
    if qmode == "AP_TRN":
        return np.floor(t)
    if qmode == "AP_TRN_ZERO":
        return np.trunc(t)
    v = np.rint(t)  # exact ties go to the even neighbour; the modes differ in nothing but ties
    if qmode == "AP_RND_CONV":
        return v
    d = t - v
    if qmode == "AP_RND":
        return v + (d == 0.5)
    if qmode == "AP_RND_MIN_INF":
        return v - (d == -0.5)
    negative, positive = (t < 0, t > 0) if qmode == "AP_RND_ZERO" else (t > 0, t < 0)
    return v + ((d == 0.5) & negative) - ((d == -0.5) & positive).astype(np.float64)


def _overflow(v, x, t, wl, signed, omode, sat_bits):
    """The integer that is stored for the rounded integer v of x = t quanta."""
    lo, hi = stored_range(wl, signed)
    if omode == "AP_SAT":
        return np.minimum(np.maximum(v, lo), hi)
    if omode == "AP_SAT_ZERO":
        return np.where((v > hi) | (v < lo), 0.0, v)
    if omode == "AP_SAT_SYM":
        return np.minimum(np.maximum(v, symmetric_low(wl, signed)), hi)
    low_bits = np.mod(v, 2.0**wl)  # exact: fmod, then one exact sum
    if omode == "AP_WRAP" and sat_bits == 0:
        return np.where(low_bits > hi, low_bits - 2.0**wl, low_bits)
    none = ~np.isfinite(v)
    bits = np.where(none, 0, low_bits).astype(np.int64)
    deleted = np.where(none, 0, np.mod(np.floor(np.floor(t) * 2.0**-wl), 2.0)).astype(np.int64)
    wrapped = _wrapped(bits, deleted, (x < 0).astype(np.int64), wl, signed, omode, sat_bits)
    return np.where(none, np.nan, np.where((v >= lo) & (v <= hi), v, wrapped))


def symmetric_low(wl, signed):
    """The lower rail of AP_SAT_SYM; one signed bit keeps its -1."""
    lo, _ = stored_range(wl, signed)
    return lo + 1 if signed and wl > 1 else lo


def _wrapped(bits, deleted, sign, wl, signed, omode, sat_bits):
    """AP_WRAP with saturated bits and AP_WRAP_SM, on the low wl bits; `deleted` is bit wl of floor(t), `sign` 1 for negative x."""
    ones, n = (1 << wl) - 1, sat_bits
    if omode == "AP_WRAP_SM":
        if n == 0:
            chosen, compared = deleted, bits >> (wl - 1)
        else:
            chosen = sign
            compared = bits >> (wl - 1) if n == 1 else ~(bits >> (wl - n))  # more saturated bits: inverted where they agree
        bits = _where((chosen ^ compared) & 1, bits ^ ones, bits)
    else:
        chosen = sign if signed else 1
    if not signed:
        return bits | (((1 << n) - 1) << (wl - n))
    top = 1 << (wl - 1)
    bits = _where(chosen, bits | top, bits & (ones ^ top))
    if n > 1:
        next_bits = ((1 << (n - 1)) - 1) << (wl - n)
        bits = _where(sign, bits & (ones ^ next_bits), bits | next_bits)
    return bits - ((bits >> (wl - 1)) << wl)


def _where(condition, a, b):
    return (a if condition else b) if isinstance(condition, int) else np.where(condition != 0, a, b)


# -- more than 53 bits: Python integers


def _stored_integer(x, wl, iwl, signed, qmode, omode, sat_bits):
    lo, hi = stored_range(wl, signed)
    low = symmetric_low(wl, signed) if omode == "AP_SAT_SYM" else lo
    if not math.isfinite(x):
        if math.isnan(x) or omode not in SATURATING:
            return math.nan
        return 0 if omode == "AP_SAT_ZERO" else hi if x > 0 else low
    t = Fraction(x) * Fraction(2) ** (wl - iwl)
    down = math.floor(t)
    v = _rounded_integer(down, t - down, x, qmode)
    if omode in ("AP_SAT", "AP_SAT_SYM"):
        return min(max(v, low), hi)
    if lo <= v <= hi:
        return v
    if omode == "AP_SAT_ZERO":
        return 0
    bits = v & ((1 << wl) - 1)
    if omode == "AP_WRAP" and sat_bits == 0:
        return bits - (1 << wl) if bits > hi else bits
    return _wrapped(bits, (down >> wl) & 1, int(x < 0), wl, signed, omode, sat_bits)


def _rounded_integer(down, r, x, qmode):
    """``down`` or ``down + 1`` for the remainder 0 <= r < 1."""
    if r == 0 or qmode == "AP_TRN":
        return down
    if qmode == "AP_TRN_ZERO":
        return down + (x < 0)
    if r != Fraction(1, 2):
        return down + (r > Fraction(1, 2))
    ties = {
        "AP_RND": True,
        "AP_RND_MIN_INF": False,
        "AP_RND_ZERO": x < 0,
        "AP_RND_INF": x > 0,
        "AP_RND_CONV": down % 2 == 1,
    }
    return down + ties[qmode]
