"""Posits: floating point whose exponent takes more bits the farther a number is from 1, so that precision tapers off.

The bits of a positive posit after the sign are a regime (a run of equal bits and the bit that ends it), ``es`` bits of exponent and a
fraction; bits that do not fit are 0:

    x = 2^(k 2^es + e) * (1 + fraction),    k = (length of a run of ones) - 1,  or -(length of a run of zeros)

A negative number is the two's complement of its absolute value; 0 is all zeros; the pattern 10...0 is "not a real".  Rounding is to
the nearest pattern, read as a number with one bit more; ties go to the even pattern; nothing but 0 becomes 0, and nothing overflows.
Source: Gustafson & Yonemoto 2017, "Beating Floating Point at its Own Game"; Standard for Posit Arithmetic (2022).

>>> from keydnn.stability.dtypes import posit
>>> posit(8, 2)([0.3, 1.1, 1000.0, 1e-9]).tolist()
[0.3125, 1.125, 1024.0, 5.960464477539063e-08]
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn.stability.formats import NumberFormat

_MOST_BITS = 16  # the values are looked up in a table


@dataclass(frozen=True, repr=False)
class Posit(NumberFormat):
    """A posit format.

    Args:
        n: Bits, 3 to 16.
        es: Bits of the exponent, 0 to 4.

    Raises:
        ValueError: A width out of range.

    Example:
        >>> from keydnn.stability.dtypes import posit
        >>> posit(8, 0), posit(8, 0).value_range(), posit(8, 0)(3.3)
        (posit<8,0>, (-64.0, 64.0), 3.25)
    """

    n: int
    es: int = 2

    def __post_init__(self) -> None:
        if not (3 <= self.n <= _MOST_BITS and 0 <= self.es <= 4):
            raise ValueError(f"posit: n must be 3..{_MOST_BITS} and es 0..4, got n={self.n}, es={self.es}")

    @property
    def bits(self) -> int:
        """n."""
        return self.n

    def value_range(self) -> tuple[float, float]:
        """Minus and plus the largest value, ``2^((n-2) 2^es)``."""
        top = float(_values(self.n, self.es)[-1])
        return -top, top

    @property
    def smallest_subnormal(self) -> float:
        """The smallest positive value."""
        return float(_values(self.n, self.es)[0])

    def quantum_at(self, x: Any) -> Any:
        """The distance from the value at or below ``|x|`` to the next; at the largest value, to the one below."""
        values = np.concatenate([[0.0], _values(self.n, self.es)])
        below = np.clip(np.searchsorted(values, np.abs(np.asarray(x, np.float64)), "right") - 1, 0, len(values) - 2)
        q = values[below + 1] - values[below]
        return q if np.ndim(x) else float(q)

    def rounded(self, x: np.ndarray, key: int = 0) -> np.ndarray:
        """The array in the format; infinities and NaN become NaN ("not a real")."""
        wide = np.asarray(x, np.float64)
        y = np.copysign(np.concatenate([[0.0], _values(self.n, self.es)])[self._pattern(wide)], wide)
        return np.asarray(np.where(np.isfinite(wide), y + 0.0, np.nan), np.asarray(x).dtype)

    def _pattern(self, x: np.ndarray) -> np.ndarray:
        """The pattern of ``|x|``: the place among the positive values."""
        size = np.abs(np.where(np.isfinite(x), x, 0.0))
        limits = _values(self.n + 1, self.es)[2:-1:2]  # between two posits lies the one with a bit more
        low = np.searchsorted(limits, size, "left") + 1  # limits below |x|, so a limit itself goes down
        tie = (np.searchsorted(limits, size, "right") + 1 != low) & (low % 2 == 1)
        return np.where(size == 0, 0, low + tie)

    def encode(self, value: Any) -> np.ndarray:
        """The bit patterns, int64, without sign: 0 to ``2^n - 1``."""
        x = np.asarray(value, np.float64)
        p = self._pattern(x)
        p = np.where(x < 0, (1 << self.n) - p, p)
        return np.asarray(np.where(np.isfinite(x), p & ((1 << self.n) - 1), 1 << (self.n - 1)))

    def decode(self, pattern: Any) -> np.ndarray:
        """The values of bit patterns, float64."""
        p = np.asarray(pattern, np.int64)
        half = 1 << (self.n - 1)
        table = np.concatenate([[0.0], _values(self.n, self.es), [np.nan], -_values(self.n, self.es)[::-1]])
        return np.asarray(table[p & (2 * half - 1)])

    def __repr__(self) -> str:
        return f"posit<{self.n},{self.es}>"

    @classmethod
    def parsed(cls, spec: str, parts: list[str], kwargs: dict[str, Any]) -> Posit:
        """From the parameters of ``posit<n,es>``; es may be left out."""
        if not 1 <= len(parts) <= 2:
            raise ValueError(f"{spec!r}: posit takes 1 or 2 parameters, got {len(parts)}")
        try:
            given = dict(zip(("n", "es"), map(int, parts), strict=False))
        except ValueError:
            raise ValueError(f"{spec!r}: parameters of posit must be integers") from None
        return cls(**given, **kwargs)


posit = Posit


@functools.cache
def _values(n: int, es: int) -> np.ndarray:
    """The positive values, ascending: those of the patterns 1 to ``2^(n-1) - 1``."""
    p = np.arange(1, 1 << (n - 1), dtype=np.int64)
    first = p >> (n - 2)
    others = np.where(first == 1, ~p, p) & ((1 << (n - 1)) - 1)  # the run as leading zeros
    run = n - 1 - np.frexp(others.astype(np.float64))[1]
    regime = np.where(first == 1, run - 1, -run)
    left = np.maximum(n - 2 - run, 0)  # bits after the run and its end
    rest = p & ((1 << left) - 1)
    wide = rest << es  # room for exponent bits that do not fit
    exponent, fraction = wide >> left, wide & ((1 << left) - 1)
    return np.ldexp(1.0 + np.ldexp(fraction.astype(np.float64), -left), regime * (1 << es) + exponent)
