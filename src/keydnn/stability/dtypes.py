"""Number formats: the fixed-point types of high-level synthesis, bit for bit, and small floating-point types.

    ap_fixed<WL, IWL, QMODE, OMODE, SAT_BITS>      value = stored integer * q,   q = 2^-(WL - IWL)

WL counts all bits and IWL those before the point, for a signed type with the sign bit; IWL may be negative or above WL.
Values are rounded by QMODE, then fitted to the range by OMODE; the rules stand in `keydnn.kernels.reference.quantize`.
With the default AP_TRN a number in (0, q) becomes 0 but one in (-q, 0) becomes -q: truncated updates are biased downwards,
they do not simply die.  Source: AMD UG1399, "Arbitrary precision fixed-point data types".

>>> from keydnn.stability.dtypes import ap_fixed
>>> ap_fixed(4, 2, "AP_RND", "AP_SAT")(0.625), ap_fixed(4, 2)(-0.3)
(0.75, -0.5)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from keydnn.domain.device import CPU
from keydnn.kernels.dispatch import tables
from keydnn.kernels.reference.quantize import stored, symmetric_low
from keydnn.stability.floats import (
    FLOAT_FORMATS,
    Minifloat,
    bf16,
    block_scaled,
    fp8_e4m3,
    fp8_e5m2,
    fp16,
    fp32,
    minifloat,
)  # fmt: skip
from keydnn.stability.formats import NumberFormat
from keydnn.stability.posits import Posit, posit

__all__ = [
    "FORMATS", "STOCHASTIC", "VALID_OMODES", "VALID_QMODES", "HLSDataType", "Minifloat", "NumberFormat", "ap_fixed", "ap_int", "ap_ufixed",
    "ap_uint", "bf16", "block_scaled", "fp8_e4m3", "fp8_e5m2", "fp16", "fp32", "minifloat",
    "Posit", "posit",
]  # fmt: skip

VALID_QMODES = frozenset({"AP_TRN", "AP_TRN_ZERO", "AP_RND", "AP_RND_ZERO", "AP_RND_MIN_INF", "AP_RND_INF", "AP_RND_CONV"})
VALID_OMODES = frozenset({"AP_WRAP", "AP_SAT", "AP_SAT_ZERO", "AP_SAT_SYM", "AP_WRAP_SM"})
STOCHASTIC = "AP_RND_STOCH"  # a rounding mode of ours, see `ap_fixed`
_EXACT = 63  # widest stored integer that is returned as int64


class HLSDataType(NumberFormat):
    """What the fixed-point types share; make one with `ap_fixed`, `ap_ufixed`, `ap_int`, `ap_uint` or `from_dtype`."""

    WL: int
    IWL: int
    QMODE: str
    OMODE: str
    SAT_BITS: int
    SR_BITS: int | None
    is_signed: bool

    @staticmethod
    def from_dtype(spec: Any, **kwargs: Any) -> Any:
        """A format from its text, ``"ap_fixed<16,6,AP_RND,AP_SAT>"``.

        Spaces may stand anywhere, integers in any Python base, modes with or without ``AP_``, the names with or without
        ``ap_``.  ``"fp16"``, ``"bf16"``, ``"fp32"``, ``"fp8_e4m3"``, ``"fp8_e5m2"`` name floating-point formats.

        Args:
            spec: Text, or a format, which is returned as it is.
            kwargs: More fields for a text, such as ``QMODE="AP_RND"``.

        Raises:
            ValueError: The text is malformed, names an unknown type or mode, or has a wrong number of parameters; kwargs
                with a format.
            TypeError: ``spec`` is neither.
        """
        if isinstance(spec, NumberFormat):
            if kwargs:
                raise ValueError(f"from_dtype: {spec} is a format already and takes no {', '.join(kwargs)}; use dataclasses.replace")
            return spec
        if not isinstance(spec, str):
            raise TypeError(f"from_dtype: expected a format or its text such as 'ap_fixed<16,6>', got {spec!r}")
        return _parsed(spec, kwargs)

    @property
    def dtype(self) -> str:
        """The name of the class."""
        return type(self).__name__

    @property
    def fractional_bits(self) -> int:
        """``WL - IWL``."""
        return self.WL - self.IWL

    @property
    def quantum(self) -> float:
        """The distance of neighbouring values, ``2^-(WL - IWL)``."""
        return 2.0**-self.fractional_bits

    @property
    def bits(self) -> int:
        """Bits of storage."""
        return self.WL

    @property
    def stored_range(self) -> tuple[int, int]:
        """Smallest and largest stored integer."""
        if self.is_signed:
            lo = symmetric_low(self.WL, True) if self.OMODE == "AP_SAT_SYM" else -(1 << (self.WL - 1))
            return lo, (1 << (self.WL - 1)) - 1
        return 0, (1 << self.WL) - 1

    def value_range(self) -> tuple[float, float]:
        """Smallest and largest value; under AP_SAT_SYM the smallest is minus the largest."""
        lo, hi = self.stored_range
        return lo * self.quantum, hi * self.quantum

    def quantum_at(self, x: Any) -> Any:
        """The distance of neighbouring values around x: everywhere the quantum."""
        return np.full(np.shape(x), self.quantum) if np.ndim(x) else self.quantum

    @property
    def smallest_subnormal(self) -> float:
        """The smallest positive value: the quantum."""
        return self.quantum

    def double_precision(self) -> Any:
        """The type with twice the bits: ``(2 WL, min(2 IWL, 2 WL))`` and the same modes."""
        return replace(self, WL=2 * self.WL, IWL=min(2 * self.IWL, 2 * self.WL))  # type: ignore[type-var]

    @property
    def kernel_params(self) -> dict[str, Any]:
        """Parameters of the kernel ``quantize_fixed``."""
        return {
            "wl": self.WL,
            "iwl": self.IWL,
            "signed": self.is_signed,
            "qmode": self.QMODE,
            "omode": self.OMODE,
            "sat_bits": self.SAT_BITS,
        }

    @property
    def is_stochastic(self) -> bool:
        """Whether rounding draws random numbers."""
        return self.QMODE == STOCHASTIC

    @property
    def stochastic_params(self) -> dict[str, Any]:
        """Parameters of the kernel ``quantize_stochastic``."""
        return {name: v for name, v in self.kernel_params.items() if name != "qmode"} | {"sr_bits": self.SR_BITS}

    def __call__(self, value: Any, *, return_int: bool = False, key: int = 0) -> Any:
        """The stored value, or with ``return_int`` the stored integer.

        Args:
            value: A number, or anything array-like; computed in float64.
            return_int: Whether to return the integer: int for a scalar, an int64 array otherwise (Python integers in an
                object array beyond 63 bits).
            key: For stochastic rounding: what the random numbers are drawn from.

        Returns:
            float for a scalar, else a float64 array of the same shape.  NaN stays NaN; infinities saturate, or become
            NaN where overflow wraps.

        Raises:
            ValueError: ``return_int`` of NaN.
        """
        x = np.asarray(value, np.float64)
        if not return_int:
            y = self.rounded(x, key)
            return y if x.ndim else float(y)
        integers = self._integers(x, key)
        return integers if x.ndim else int(integers.item())

    def rounded(self, x: np.ndarray, key: int = 0) -> np.ndarray:
        """x on the grid, in x's dtype (float32 or float64)."""
        k: Any = tables[CPU]
        if self.is_stochastic:
            return np.asarray(k.quantize_stochastic(x, np.asarray(key, np.int64), **self.stochastic_params))
        return np.asarray(k.quantize_fixed(x, **self.kernel_params))

    def _integers(self, x: np.ndarray, key: int) -> np.ndarray:
        if self.is_stochastic:
            integers = np.ldexp(self.rounded(x, key), self.fractional_bits)
        else:
            with np.errstate(all="ignore"):
                integers = stored(x, **self.kernel_params)
        if np.any(integers != integers):
            raise ValueError(f"{self!r}: a NaN (or an infinity that wraps) has no stored integer")
        if self.WL <= _EXACT:
            return integers.astype(np.int64)
        exact = np.empty(np.shape(integers), object)
        exact[...] = np.vectorize(int, otypes=[object])(integers) if np.size(integers) else integers
        return exact

    def bin(self, value: float) -> str:
        """The stored bits as text, two's complement with the binary point.

        Without a point inside the word, IWL outside 1..WL-1, a suffix ``*2^k`` gives the scale of the integer.

        >>> ap_fixed(4, 2).bin(-0.25)
        '0b11.11'
        """
        bits = format(self(float(value), return_int=True) & ((1 << self.WL) - 1), f"0{self.WL}b")
        if 1 <= self.IWL < self.WL:
            return f"0b{bits[: self.IWL]}.{bits[self.IWL :]}"
        return f"0b{bits}*2^{-self.fractional_bits}"

    def _check(self) -> None:
        for name in ("WL", "IWL", "SAT_BITS"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise TypeError(f"{self.dtype}: {name} must be an int, got {value!r}")
        if self.WL < 1:
            raise ValueError(f"{self.dtype}: WL must be at least 1 bit, got {self.WL}")
        if self.QMODE not in VALID_QMODES and not self.is_stochastic:
            raise ValueError(f"{self.dtype}: QMODE must be one of {', '.join(sorted(VALID_QMODES))} or {STOCHASTIC}, got {self.QMODE!r}")
        if self.OMODE not in VALID_OMODES:
            raise ValueError(f"{self.dtype}: OMODE must be one of {', '.join(sorted(VALID_OMODES))}, got {self.OMODE!r}")
        if not 0 <= self.SAT_BITS < self.WL:
            raise ValueError(f"{self.dtype}: SAT_BITS must be between 0 and WL - 1 = {self.WL - 1}, got {self.SAT_BITS}")
        if self.OMODE == "AP_WRAP_SM" and not self.is_signed:
            raise ValueError(f"{self.dtype}: AP_WRAP_SM exists for signed types only; use AP_WRAP")
        if self.SR_BITS is not None and not (self.is_stochastic and 1 <= self.SR_BITS <= 52):
            raise ValueError(f"{self.dtype}: SR_BITS needs QMODE={STOCHASTIC} and 1..52 bits, got {self.SR_BITS} with {self.QMODE}")


class _Fixed(HLSDataType):
    """What the two types with a point share."""

    def __post_init__(self) -> None:
        self._check()

    def signed(self) -> ap_fixed:
        """The signed type with the same WL, IWL and modes."""
        return ap_fixed(self.WL, self.IWL, self.QMODE, self.OMODE, self.SAT_BITS, self.SR_BITS)

    def unsigned(self) -> ap_ufixed:
        """The unsigned type with the same WL, IWL and modes."""
        return ap_ufixed(self.WL, self.IWL, self.QMODE, self.OMODE, self.SAT_BITS, self.SR_BITS)

    def __repr__(self) -> str:
        mode = self.QMODE if self.SR_BITS is None else f"{self.QMODE}:{self.SR_BITS}"
        tail = f",{self.SAT_BITS}" if self.SAT_BITS else ""
        return f"{self.dtype}<{self.WL},{self.IWL},{mode},{self.OMODE}{tail}>"


@dataclass(frozen=True, repr=False)
class ap_fixed(_Fixed):
    """Signed fixed point, two's complement.

    Args:
        WL: Bits in all, at least 1.
        IWL: Bits before the point with the sign bit; any integer.
        QMODE: Rounding, one of VALID_QMODES, or ``AP_RND_STOCH``: up with the probability of the distance.
        OMODE: Overflow, one of VALID_OMODES.
        SAT_BITS: For the wrapping modes: how many top bits saturate.
        SR_BITS: For AP_RND_STOCH: random bits that hardware compares; None is full precision.

    Raises:
        ValueError: A width or mode that does not exist.

    Example:
        >>> from keydnn.stability.dtypes import ap_fixed
        >>> t = ap_fixed(8, 3, "AP_RND", "AP_SAT")
        >>> t, t.quantum, t.value_range(), t([0.1, 9.0]).tolist(), t(0.1, return_int=True)
        (ap_fixed<8,3,AP_RND,AP_SAT>, 0.03125, (-4.0, 3.96875), [0.09375, 3.96875], 3)
    """

    WL: int = 16
    IWL: int = 6
    QMODE: str = "AP_TRN"
    OMODE: str = "AP_WRAP"
    SAT_BITS: int = 0
    SR_BITS: int | None = None
    is_signed = True


@dataclass(frozen=True, repr=False)
class ap_ufixed(_Fixed):
    """Unsigned fixed point; arguments as in `ap_fixed`, without AP_WRAP_SM."""

    WL: int = 16
    IWL: int = 6
    QMODE: str = "AP_TRN"
    OMODE: str = "AP_WRAP"
    SAT_BITS: int = 0
    SR_BITS: int | None = None
    is_signed = False


class _Integer(HLSDataType):
    """What the two integer types share: no fraction, AP_TRN, AP_WRAP."""

    QMODE, OMODE, SAT_BITS, SR_BITS = "AP_TRN", "AP_WRAP", 0, None

    def __post_init__(self) -> None:
        self._check()

    @property
    def IWL(self) -> int:  # type: ignore[override]
        """All bits stand before the point."""
        return self.WL

    def double_precision(self) -> Any:
        """The type with twice the bits."""
        return type(self)(2 * self.WL)  # type: ignore[call-arg]

    def signed(self) -> ap_int:
        """The signed type with the same WL."""
        return ap_int(self.WL)

    def unsigned(self) -> ap_uint:
        """The unsigned type with the same WL."""
        return ap_uint(self.WL)

    def bin(self, value: float) -> str:
        """The stored bits as text."""
        return super().bin(value).split("*")[0]

    def __repr__(self) -> str:
        return f"{self.dtype}<{self.WL}>"


@dataclass(frozen=True, repr=False)
class ap_int(_Integer):
    """Signed integer of WL bits; truncates and wraps."""

    WL: int = 16
    is_signed = True


@dataclass(frozen=True, repr=False)
class ap_uint(_Integer):
    """Unsigned integer of WL bits; truncates and wraps."""

    WL: int = 16
    is_signed = False


FORMATS: dict[str, Any] = {"ap_fixed": ap_fixed, "ap_ufixed": ap_ufixed, "ap_int": ap_int, "ap_uint": ap_uint}
_OWN_PARSERS = {"minifloat": Minifloat.parsed, "posit": Posit.parsed}
_ARITY = {"ap_fixed": (2, 5), "ap_ufixed": (2, 5), "ap_int": (1, 1), "ap_uint": (1, 1)}


def _parsed(spec: str, kwargs: dict[str, Any]) -> Any:
    text = "".join(spec.split())
    if text in FLOAT_FORMATS and not kwargs:
        return FLOAT_FORMATS[text]
    match = re.fullmatch(r"(\w+)<([^<>]*)>", text)
    if match is None:
        known = ", ".join(FLOAT_FORMATS)
        raise ValueError(f"{spec!r} is no number format; expected 'ap_fixed<WL,IWL,...>', 'ap_int<WL>' or one of {known}")
    name, parts = match[1], match[2].split(",")
    if name in _OWN_PARSERS:
        return _OWN_PARSERS[name](spec, parts, kwargs)
    name = name if name.startswith("ap_") else f"ap_{name}"
    if name not in FORMATS:
        raise ValueError(f"{spec!r}: unknown type {match[1]!r}; expected one of {', '.join(FORMATS)}")
    low, high = _ARITY[name]
    if not low <= len(parts) <= high:
        expected = str(low) if low == high else f"{low} to {high}"
        raise ValueError(f"{spec!r}: {name} takes {expected} parameters, got {len(parts)}")
    cls = FORMATS[name]
    given = {field.name: _parameter(field.name, part, spec) for field, part in zip(fields(cls), parts, strict=False)}
    if ":" in str(given.get("QMODE", "")):
        given["QMODE"], _, bits = given["QMODE"].partition(":")
        given["SR_BITS"] = _parameter("SR_BITS", bits, spec)
    unknown = [key for key in kwargs if key in given or key not in {field.name for field in fields(cls)}]
    if unknown:
        raise ValueError(f"{spec!r}: {', '.join(unknown)} given twice or unknown")
    return cls(**given, **kwargs)


def _parameter(name: str, part: str, spec: str) -> Any:
    if name in ("QMODE", "OMODE"):
        return part if part.startswith("AP_") else f"AP_{part}"
    try:
        return int(part, 0)
    except ValueError:
        raise ValueError(f"{spec!r}: {name} must be an integer, got {part!r}") from None
