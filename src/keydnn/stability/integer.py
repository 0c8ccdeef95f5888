"""Bit-exact integer execution of a quantised network: what hardware computes, without a floating-point number in between.

``"dot"``
    The exact dot product, cast to the accumulator; plus the bias; cast to the activation.
``"per_mac"``
    The accumulator starts at the bias cast to it; each product is cast to it, and each partial sum, in the order of the inputs; the
    result is cast to the activation.  This is what generated HLS does.

A number is an integer and a count of fractional bits.  Integers are int64 where they fit in 62 bits, Python integers beyond.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keydnn.kernels.reference.quantize import _wrapped, stored_range, symmetric_low
from keydnn.nn import Dense, Flatten, Linear, ReLU
from keydnn.stability.dtypes import HLSDataType, ap_fixed
from keydnn.stability.precision import ensure_precision_dict, network_of

MODES = ("dot", "per_mac")
_SAFE = 62  # bits of an int64 that intermediate results may use


@dataclass
class Fixed:
    """Integers with ``f`` fractional bits, of at most ``bits`` bits."""

    raw: np.ndarray
    f: int
    bits: int

    @property
    def values(self) -> np.ndarray:
        """The numbers as float64."""
        return np.ldexp(self.raw.astype(np.float64), -self.f)


def room(raw: np.ndarray, bits: int) -> np.ndarray:
    """The integers in an array that has room for so many bits."""
    return raw.astype(object) if bits > _SAFE and raw.dtype != object else raw


def shifted(a: Fixed, f: int) -> np.ndarray:
    """The integers with more fractional bits."""
    raw = room(a.raw, a.bits + f - a.f)
    return raw << (f - a.f) if f > a.f else raw


def product(a: Fixed, b: Fixed) -> Fixed:
    """The exact matrix product."""
    bits = a.bits + b.bits + int(np.ceil(np.log2(max(a.raw.shape[1], 1)))) + 1
    return Fixed(room(a.raw, bits) @ room(b.raw, bits), a.f + b.f, bits)


def _overflows(v: np.ndarray, dtype: HLSDataType) -> np.ndarray:
    lo, hi = stored_range(dtype.WL, dtype.is_signed)
    return (v < lo) | (v > hi)


def cast(a: Fixed, dtype: Any) -> tuple[Fixed, int]:
    """The numbers in a format, and how many overflowed; None leaves them exact.

    Raises:
        ValueError: The format is no fixed-point format, or rounds stochastically.
    """
    if dtype is None:
        return a, 0
    if not isinstance(dtype, HLSDataType) or dtype.is_stochastic:
        raise ValueError(f"integer execution needs fixed-point formats that round deterministically, got {dtype}")
    f, wl = dtype.fractional_bits, dtype.WL
    drop = max(a.f - f, 0)
    raw = room(a.raw, max(a.bits + max(f - a.f, 0), wl) + 2)
    down = raw >> drop if drop else raw << (f - a.f)
    v = _rounded(raw, down, drop, dtype.QMODE)
    out = _overflows(v, dtype)
    lo, hi = stored_range(wl, dtype.is_signed)
    if dtype.OMODE in ("AP_SAT", "AP_SAT_SYM"):
        low = symmetric_low(wl, dtype.is_signed) if dtype.OMODE == "AP_SAT_SYM" else lo
        v = np.where(v > hi, hi, np.where(v < low, low, v))
    elif dtype.OMODE == "AP_SAT_ZERO":
        v = np.where(out, 0, v)
    else:
        bits = v & ((1 << wl) - 1)
        if dtype.OMODE == "AP_WRAP" and dtype.SAT_BITS == 0:
            wrapped = np.where(bits > hi, bits - (1 << wl), bits)
        else:
            sign = np.where(raw < 0, 1, 0).astype(v.dtype)
            wrapped = _wrapped(bits, (down >> wl) & 1, sign, wl, dtype.is_signed, dtype.OMODE, dtype.SAT_BITS)
        v = np.where(out, wrapped, v)
    return Fixed(v if wl > _SAFE else v.astype(np.int64), f, wl + (not dtype.is_signed)), int(np.count_nonzero(out))


def _rounded(raw: np.ndarray, down: np.ndarray, drop: int, qmode: str) -> np.ndarray:
    """``raw / 2^drop`` as an integer; down is its floor."""
    if drop == 0 or qmode == "AP_TRN":
        return down
    rest = raw & ((1 << drop) - 1)
    if qmode == "AP_TRN_ZERO":
        return down + np.where((raw < 0) & (rest != 0), 1, 0)
    half = 1 << (drop - 1)
    ties = {
        "AP_RND": rest == half,
        "AP_RND_MIN_INF": np.zeros(raw.shape, bool),
        "AP_RND_ZERO": (rest == half) & (raw < 0),
        "AP_RND_INF": (rest == half) & (raw > 0),
        "AP_RND_CONV": (rest == half) & ((down & 1) == 1),
    }
    return down + np.where((rest > half) | ties[qmode], 1, 0)


def added(a: Fixed, b: Fixed) -> Fixed:
    """The exact sum."""
    f = max(a.f, b.f)
    bits = max(a.bits + f - a.f, b.bits + f - b.f) + 1
    return Fixed(room(shifted(a, f), bits) + room(shifted(b, f), bits), f, bits)


@dataclass
class Trace:
    """What one layer took and gave, and overflows in its accumulator."""

    name: str
    input: Fixed
    output: Fixed
    overflows: int = 0


@dataclass
class IntegerNetwork:
    """A network compiled to integers; made by `compile_integer`.

    Attributes:
        accumulate: ``"dot"`` or ``"per_mac"``.
        weights: From the name of a layer to its weight (out, in) and bias.
    """

    network: Any
    precision: Any
    accumulate: str
    weights: dict[str, tuple[Fixed, Fixed | None]] = field(default_factory=dict)

    def forward_int(self, X: Any) -> tuple[np.ndarray, Any]:
        """The stored integers of the output, and their format.

        Args:
            X: Inputs, real numbers; they are stored in ``input.value`` first.
        """
        last = self.trace(X)[-1]
        name = list(self.network.named_children())[-1][0]
        dtype = self.precision.dtype(name, "activation")
        return last.output.raw, dtype if dtype is not None else ap_fixed(last.output.bits, last.output.bits - last.output.f)

    def trace(self, X: Any) -> list[Trace]:
        """Input and output of every layer."""
        dtype = self.precision.dtype("input", "value")
        z = stored("input.value", dtype, np.asarray(X))
        found = []
        for name, layer in self.network.named_children():
            output, overflows = self._layer(name, layer, z)
            found.append(Trace(name, z, output, overflows))
            z = output
        return found

    def _layer(self, name: str, layer: Any, z: Fixed) -> tuple[Fixed, int]:
        overflows = 0
        if name in self.weights:
            z, overflows = self._dot(name, z) if self.accumulate == "dot" else self._per_mac(name, z)
        elif isinstance(layer, ReLU):
            z = Fixed(np.where(z.raw > 0, z.raw, 0), z.f, z.bits)
        elif isinstance(layer, Flatten):
            z = Fixed(z.raw.reshape(len(z.raw), -1), z.f, z.bits)
        return cast(z, self.precision.dtype(name, "activation"))[0], overflows

    def _dot(self, name: str, z: Fixed) -> tuple[Fixed, int]:
        w, b = self.weights[name]
        total, overflows = cast(product(z, Fixed(w.raw.T, w.f, w.bits)), self.precision.dtype(name, "accumulator"))
        return (total if b is None else added(total, b)), overflows

    def _per_mac(self, name: str, z: Fixed) -> tuple[Fixed, int]:
        w, b = self.weights[name]
        dtype = self.precision.dtype(name, "accumulator")
        if dtype is None:
            raise ValueError(f"per_mac: {name} needs a format for its accumulator")
        shape = (len(z.raw), len(w.raw))
        start = Fixed(np.zeros(shape, np.int64), 0, 1) if b is None else Fixed(np.broadcast_to(b.raw, shape), b.f, b.bits)
        total, overflows = cast(start, dtype)
        bits = z.bits + w.bits
        for k in range(w.raw.shape[1]):
            exact = Fixed(room(z.raw[:, k, None], bits) * room(w.raw[None, :, k], bits), z.f + w.f, bits)
            term, lost = cast(exact, dtype)
            total, more = cast(added(total, term), dtype)
            overflows += lost + more
        return total, overflows


def stored(what: str, dtype: Any, values: np.ndarray) -> Fixed:
    """Real numbers in a format."""
    if not isinstance(dtype, HLSDataType) or dtype.is_stochastic:
        raise ValueError(f"integer execution: {what} needs a fixed-point format that rounds deterministically, got {dtype}")
    return Fixed(dtype(values, return_int=True), dtype.fractional_bits, dtype.WL + (not dtype.is_signed))


def compile_integer(model: Any, precision: Any, accumulate: str = "dot") -> IntegerNetwork:
    """A network of Dense, ReLU and Flatten layers as integer arithmetic.

    Args:
        model: A network, or an object whose attribute ``model`` is one.
        precision: Formats; ``input.value`` and the weight and bias of each Dense layer need one.
        accumulate: ``"dot"`` or ``"per_mac"``, see the top of the file.

    Returns:
        An object with ``forward_int(X) -> (integers, format)``.  With ``"dot"`` it equals the quantised forward pass bit for
        bit as long as every sum of products fits in 53 bits.

    Raises:
        ValueError: An unknown mode, a layer without integer form, or a missing or unfit format.

    Example:
        >>> from keydnn.stability import AffineDataset, LinearBlockModel, compile_integer
        >>> model = LinearBlockModel(AffineDataset(5, seed=0), num_hidden=[], seed=0)
        >>> formats = dict.fromkeys(("weight", "bias", "value", "activation"), "ap_fixed<8,3,AP_RND,AP_SAT>")
        >>> raw, dtype = compile_integer(model, {"__default__": formats}).forward_int([[0.5, 0.25, 0.0, 1.0]])
        >>> raw.dtype, dtype
        (dtype('int64'), ap_fixed<8,3,AP_RND,AP_SAT>)
    """
    if accumulate not in MODES:
        raise ValueError(f"compile_integer: accumulate must be one of {', '.join(MODES)}, got {accumulate!r}")
    table = ensure_precision_dict(precision)
    network = network_of(model)
    if table is None:
        raise ValueError("compile_integer: there is no integer form without formats; give a precision map")
    table.validate_model(network)
    compiled = IntegerNetwork(network, table, accumulate)
    for name, layer in network.named_children():
        if isinstance(layer, Linear | Dense):
            w = stored(f"{name}.weight", table.dtype(name, "weight"), layer.weight.numpy())  # type: ignore[union-attr]
            b = None if layer.bias is None else stored(f"{name}.bias", table.dtype(name, "bias"), layer.bias.numpy())
            compiled.weights[name] = (w, b)
        elif not isinstance(layer, ReLU | Flatten):
            raise ValueError(f"compile_integer: {name!r} ({type(layer).__name__}) has no integer form; there are Dense, ReLU, Flatten")
    return compiled


@dataclass(frozen=True)
class LayerDifference:
    """How far two executions of a layer are apart, in units of the last place of the finer one."""

    name: str
    max_lsb: float
    mean_lsb: float
    overflows: int


@dataclass(frozen=True)
class Comparison:
    """The mode per_mac against the mode dot, layer by layer.

    Attributes:
        layers: The differences.
        first_difference: Name of the first layer that differs, or None.
    """

    layers: tuple[LayerDifference, ...]
    first_difference: str | None


def compare_integer(model: Any, X: Any, precision: Any) -> Comparison:
    """What accumulating product by product changes, for a batch of inputs; arguments as for `compile_integer`."""
    runs = [compile_integer(model, precision, mode).trace(X) for mode in MODES]
    layers = []
    for dot, mac in zip(*runs, strict=True):
        f = max(dot.output.f, mac.output.f)
        distance = np.abs(shifted(dot.output, f) - shifted(mac.output, f)).astype(np.float64)
        layers.append(LayerDifference(dot.name, float(distance.max(initial=0.0)), float(distance.mean()), mac.overflows))
    return Comparison(tuple(layers), next((layer.name for layer in layers if layer.max_lsb > 0), None))
