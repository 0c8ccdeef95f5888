"""An independent definition of the fixed-point types: exact fractions and Python integers, one value at a time.

Written from the mode tables alone, bit by bit; shares nothing with the implementation.
"""

from fractions import Fraction
from math import floor

QMODES = ("AP_TRN", "AP_TRN_ZERO", "AP_RND", "AP_RND_ZERO", "AP_RND_MIN_INF", "AP_RND_INF", "AP_RND_CONV")
OMODES = ("AP_WRAP", "AP_SAT", "AP_SAT_ZERO", "AP_SAT_SYM", "AP_WRAP_SM")


def round_integer(t, mode):
    down = floor(t)
    r = t - down
    if r == 0:
        return down
    if mode == "AP_TRN":
        return down
    if mode == "AP_TRN_ZERO":
        return down if t > 0 else down + 1
    if r != Fraction(1, 2):
        return down if r < Fraction(1, 2) else down + 1
    if mode == "AP_RND":
        return down + 1
    if mode == "AP_RND_MIN_INF":
        return down
    if mode == "AP_RND_ZERO":
        return down if t > 0 else down + 1
    if mode == "AP_RND_INF":
        return down + 1 if t > 0 else down
    return down if down % 2 == 0 else down + 1


def bits_of(v, w):
    """Bits w-1 .. 0 of a two's-complement integer, as a list from bit 0."""
    return [(v >> i) & 1 for i in range(w)]


def from_bits(bits, signed):
    value = sum(bit << i for i, bit in enumerate(bits))
    return value - (1 << len(bits)) if signed and bits[-1] else value


def store(x, w, iwl, signed, qmode, omode, n):
    """The stored integer of the exact number x."""
    t = Fraction(x) * Fraction(2) ** (w - iwl)
    v = round_integer(t, qmode)
    lo = -(2 ** (w - 1)) if signed else 0
    hi = 2 ** (w - 1) - 1 if signed else 2**w - 1
    if omode == "AP_SAT_SYM" and signed and w > 1 and v == lo:
        return lo + 1
    if lo <= v <= hi:
        return v
    if omode == "AP_SAT":
        return hi if v > hi else lo
    if omode == "AP_SAT_ZERO":
        return 0
    if omode == "AP_SAT_SYM":
        return hi if v > hi else (-hi if signed and w > 1 else lo)
    bits = bits_of(v, w)
    negative = 1 if x < 0 else 0
    if omode == "AP_WRAP_SM":
        if n == 0:
            deleted = (floor(t) >> w) & 1
            if deleted != bits[w - 1]:
                bits = [1 - b for b in bits]
            bits[w - 1] = deleted
        elif n == 1:
            if negative != bits[w - 1]:
                bits = [1 - b for b in bits]
            bits[w - 1] = negative
        else:
            if bits[w - n] == negative:
                bits = [1 - b for b in bits]
            bits[w - 1] = negative
            for i in range(w - n, w - 1):
                bits[i] = 1 - negative
        return from_bits(bits, signed)
    if n > 0 and not signed:
        for i in range(w - n, w):
            bits[i] = 1
    if n > 0 and signed:
        bits[w - 1] = negative
        for i in range(w - n, w - 1):
            bits[i] = 1 - negative
    return from_bits(bits, signed)
