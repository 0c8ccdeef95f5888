"""Small floating-point formats: fp32, fp16, bf16, the two 8-bit formats, any width, and blocks with a shared scale.

A number of E exponent and M mantissa bits with bias B is

    (-1)^s * 2^(e - B) * (1 + m / 2^M)   for e > 0,      (-1)^s * 2^(1 - B) * m / 2^M   for e = 0 (subnormal)

so the quantum at x is ``2^(max(floor(log2 |x|), 1 - B) - M)``.  Rounding works on ``x / quantum``, exactly.
Source: Micikevicius et al. 2022, "FP8 formats for deep learning", arXiv:2209.05433; Rouhani et al. 2023, "Microscaling data
formats", arXiv:2310.10537 (shared scales).

>>> from keydnn.stability.dtypes import fp8_e4m3
>>> fp8_e4m3([0.3, 1.1, 450.0, 0.0009]).tolist()
[0.3125, 1.125, 448.0, 0.0]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn.kernels.reference.random import uniform
from keydnn.stability.formats import NumberFormat

ROUNDINGS = ("nearest", "zero", "stochastic")


@dataclass(frozen=True, repr=False)
class Minifloat(NumberFormat):
    """A floating-point format.

    Args:
        E: Exponent bits, 2 to 11.
        M: Mantissa bits, 0 to 52.
        bias: Exponent bias; None is ``2^(E-1) - 1``.
        has_inf: Whether the largest exponent is kept for infinities and NaN (IEEE); otherwise it holds numbers, and only
            the pattern of all ones is NaN.
        saturate: Whether too large numbers become the largest finite one; otherwise an infinity, or NaN without infinities.
        rounding: ``"nearest"`` (ties to even), ``"zero"`` or ``"stochastic"``.
        flush: Whether subnormal results become 0.

    Raises:
        ValueError: A width or rounding that does not exist.

    Example:
        >>> from keydnn.stability.dtypes import minifloat
        >>> minifloat(3, 2)([0.3, 5.5, 100.0]).tolist(), minifloat(3, 2).value_range()
        ([0.3125, 6.0, 14.0], (-14.0, 14.0))
    """

    E: int
    M: int
    bias: int | None = None
    has_inf: bool = True
    saturate: bool = True
    rounding: str = "nearest"
    flush: bool = False

    def __post_init__(self) -> None:
        if not (2 <= self.E <= 11 and 0 <= self.M <= 52):
            raise ValueError(f"minifloat: E must be 2..11 and M 0..52, got E={self.E}, M={self.M}")
        if self.rounding not in ROUNDINGS:
            raise ValueError(f"minifloat: rounding must be one of {', '.join(ROUNDINGS)}, got {self.rounding!r}")
        if self.bias is None:
            object.__setattr__(self, "bias", 2 ** (self.E - 1) - 1)
        if not (-1075 < self.min_exponent - self.M and self.max_exponent < 1024):
            raise ValueError(f"minifloat: bias {self.bias} puts values outside the range of float64")

    @property
    def bits(self) -> int:
        """``1 + E + M``."""
        return 1 + self.E + self.M

    @property
    def is_stochastic(self) -> bool:  # type: ignore[override]
        """Whether rounding draws random numbers."""
        return self.rounding == "stochastic"

    @property
    def min_exponent(self) -> int:
        """Exponent of the smallest normal number."""
        return 1 - int(self.bias)  # type: ignore[arg-type]

    @property
    def max_exponent(self) -> int:
        """Exponent of the largest number."""
        top = 2**self.E - 1 - self.has_inf - (not self.has_inf and self.M == 0)
        return top - int(self.bias)  # type: ignore[arg-type]

    @property
    def max_value(self) -> float:
        """The largest finite number; without infinities the pattern of all ones is NaN."""
        last = 2**self.M - 1 if self.has_inf or self.M == 0 else 2**self.M - 2
        return float(np.ldexp(1.0 + last / 2.0**self.M, self.max_exponent))

    @property
    def smallest_subnormal(self) -> float:
        """The smallest positive number; with ``flush`` the smallest normal one."""
        return 2.0 ** (self.min_exponent if self.flush else self.min_exponent - self.M)

    @property
    def smallest_normal(self) -> float:
        """``2^(1 - bias)``."""
        return 2.0**self.min_exponent

    def value_range(self) -> tuple[float, float]:
        """Minus and plus the largest finite number."""
        return -self.max_value, self.max_value

    def quantum_at(self, x: Any) -> Any:
        """The distance of neighbouring values in the binade of x."""
        exponent = np.frexp(np.asarray(x, np.float64))[1] - 1
        q = np.ldexp(1.0, np.clip(np.where(np.asarray(x) == 0, self.min_exponent, exponent), self.min_exponent, self.max_exponent) - self.M)
        return q if np.ndim(x) else float(q)

    def rounded(self, x: np.ndarray, key: int = 0) -> np.ndarray:
        """The array in the format."""
        wide = np.asarray(x, np.float64)
        with np.errstate(all="ignore"):
            exponent = np.maximum(np.frexp(wide)[1] - 1, self.min_exponent) - self.M
            t = np.ldexp(wide, -exponent)
            y = np.ldexp(self._integer(t, key), exponent)
            if self.flush:
                y = np.where(np.abs(y) < self.smallest_normal, np.copysign(0.0, y), y)
            too_large = np.abs(y) > self.max_value
            limit = self.max_value if self.saturate else np.inf if self.has_inf else np.nan
            y = np.where(too_large, np.copysign(limit, y), y)
        return np.asarray(np.where(np.isnan(wide), np.nan, y), np.asarray(x).dtype)

    def _integer(self, t: np.ndarray, key: int) -> np.ndarray:
        if self.rounding == "nearest":
            return np.rint(t)
        if self.rounding == "zero":
            return np.trunc(t)
        down = np.floor(t)
        return down + (uniform(key, t.shape, np.float64) < t - down)

    def encode(self, value: Any) -> np.ndarray:
        """The bit patterns, int64: sign, exponent, mantissa from the top."""
        y = self.rounded(np.asarray(value, np.float64))
        finite = np.where(np.isfinite(y), np.abs(y), 0.0)
        exponent = np.maximum(np.frexp(finite)[1] - 1, self.min_exponent)
        whole = np.ldexp(finite, self.M - exponent).astype(np.int64)  # with the hidden bit
        is_normal = whole >= 2**self.M
        fields = np.where(is_normal, ((exponent - self.min_exponent + 1) << self.M) + whole - 2**self.M, whole)
        top = (2**self.E - 1) << self.M
        fields = np.where(np.isinf(y), top, fields)
        fields = np.where(np.isnan(y), top | (2**self.M - 1), fields)
        return np.asarray(fields | (np.signbit(y).astype(np.int64) << (self.E + self.M)))

    def decode(self, pattern: Any) -> np.ndarray:
        """The values of bit patterns, float64."""
        p = np.asarray(pattern, np.int64)
        m, e = p & (2**self.M - 1), (p >> self.M) & (2**self.E - 1)
        y: Any = np.ldexp((e > 0) + m / 2.0**self.M, np.where(e > 0, e + (self.min_exponent - 1), self.min_exponent))
        is_top = e == 2**self.E - 1
        if self.has_inf:
            y = np.where(is_top, np.where(m == 0, np.inf, np.nan), y)
        else:
            y = np.where(is_top & (m == 2**self.M - 1), np.nan, y)
        return np.where((p >> (self.E + self.M)) & 1 == 1, -y, y)

    def __repr__(self) -> str:
        own = (self.E, self.M, self.bias, self.has_inf)
        for name, known in FLOAT_FORMATS.items():
            plain = (self.saturate, self.rounding, self.flush) == (True, "nearest", False)
            if plain and own == (known.E, known.M, known.bias, known.has_inf):
                return name
        return f"minifloat<{self.E},{self.M},{self.bias},{int(self.has_inf)},{int(self.saturate)},{self.rounding},{int(self.flush)}>"

    @classmethod
    def parsed(cls, spec: str, parts: list[str], kwargs: dict[str, Any]) -> Minifloat:
        """From the parameters of ``minifloat<E,M,bias,has_inf,saturate,rounding,flush>``; all but two may be left out."""
        if not 2 <= len(parts) <= 7:
            raise ValueError(f"{spec!r}: minifloat takes 2 to 7 parameters, got {len(parts)}")
        names = ("E", "M", "bias", "has_inf", "saturate", "rounding", "flush")
        readers: tuple[Any, ...] = (int, int, int, lambda t: bool(int(t)), lambda t: bool(int(t)), str, lambda t: bool(int(t)))
        try:
            given = {name: read(part) for name, read, part in zip(names, readers, parts, strict=False)}
        except ValueError:
            raise ValueError(f"{spec!r}: widths and flags of minifloat must be integers") from None
        return cls(**given, **kwargs)


minifloat = Minifloat
fp32 = Minifloat(8, 23)
fp16 = Minifloat(5, 10)
bf16 = Minifloat(8, 7)
fp8_e4m3 = Minifloat(4, 3, has_inf=False)
fp8_e5m2 = Minifloat(5, 2)
FLOAT_FORMATS = {"fp32": fp32, "fp16": fp16, "bf16": bf16, "fp8_e4m3": fp8_e4m3, "fp8_e5m2": fp8_e5m2}


@dataclass(frozen=True)
class block_scaled(NumberFormat):
    """Blocks of numbers in a small format that share one power-of-two scale.

    The scale of a block is ``2^(floor(log2 max|x|) - emax)`` with emax the exponent of the format's largest value, so the
    largest element of a block uses the top binade.

    Args:
        format: Format of the elements, with rails.
        axis: Axis along which blocks lie; None is one block for the whole tensor.
        block: Elements per block; None is the whole axis.

    Raises:
        ValueError: The block does not divide the axis (when applied), or is below 1.

    Example:
        >>> from keydnn.stability.dtypes import block_scaled, fp8_e4m3
        >>> block_scaled(fp8_e4m3)([1e-6, 3e-6]).tolist()
        [9.5367431640625e-07, 3.0994415283203125e-06]
    """

    format: Any
    axis: int | None = None
    block: int | None = None

    def __post_init__(self) -> None:
        if self.block is not None and (self.axis is None or self.block < 1):
            raise ValueError(f"block_scaled: block={self.block} needs an axis and at least one element")

    @property
    def bits(self) -> float:
        """Bits of an element, with its share of the 8-bit scale where the block's size is known."""
        return self.format.bits + (8 / self.block if self.block else 0)

    def value_range(self) -> tuple[float, float]:
        """The scale follows the data: no rails below those of float64."""
        return -float(np.finfo(np.float64).max), float(np.finfo(np.float64).max)

    def quantum_at(self, x: Any) -> Any:
        """The elements' quantum times their block's scale."""
        x = np.asarray(x, np.float64)
        parts, scale = self._blocks(x)
        return (self.format.quantum_at(parts / scale) * scale).reshape(x.shape)

    def rounded(self, x: np.ndarray, key: int = 0) -> np.ndarray:
        """The array in the format."""
        parts, scale = self._blocks(np.asarray(x, np.float64))
        return np.asarray((self.format.rounded(parts / scale, key) * scale).reshape(np.shape(x)), np.asarray(x).dtype)

    def _blocks(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x with its blocks along one axis, and the scales."""
        if self.axis is None:
            parts, along = x.reshape(-1), 0
        else:
            along = self.axis % max(x.ndim, 1)
            n = x.shape[along]
            size = n if self.block is None else self.block
            if n % size:
                raise ValueError(f"block_scaled: blocks of {size} do not divide axis {self.axis} of shape {x.shape}")
            parts = x.reshape(*x.shape[:along], n // size, size, *x.shape[along + 1 :])
            along += 1
        top = np.frexp(self.format.value_range()[1])[1]
        largest = np.max(np.abs(parts), axis=along, keepdims=True, initial=0.0)
        exponent = np.where((largest > 0) & np.isfinite(largest), np.frexp(largest)[1] - top, 0)
        return parts, np.ldexp(1.0, exponent)
