"""What a hardware flow reads: an hls4ml configuration, weights as text and as a C header, a list of quantisers, and firmware traces.

    weight -> weight      bias -> bias      accumulator -> accum      activation -> result      input.value -> result of the input
    gradient -> grad_in, grad_out, weight_grad, bias_grad, loss_grad           update -> raw_update, update, optimizer_state

Source: hls4ml documentation, "Configuration" (Model and LayerName sections); QONNX, "Quant" operator (the attributes of a quantiser).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keydnn.stability.dtypes import HLSDataType
from keydnn.stability.history import FitHistory
from keydnn.stability.nn.quantisers import fields_of
from keydnn.stability.precision import PLACEHOLDER, PrecisionDict, ensure_precision_dict, network_of

FIELDS = {"weight": "weight", "recurrent_weight": "recurrent_weight", "bias": "bias", "accumulator": "accum", "activation": "result"}
GRADIENTS = ("grad_in", "grad_out", "weight_grad", "bias_grad")
TRAINING = {  # what stands where the map is silent
    "loss": "ap_fixed<32,16>", "gradient": "ap_fixed<20,8>", "gradient_accum": "ap_fixed<28,14>", "update": "ap_fixed<20,6>",
    "optimizer_state": "ap_fixed<20,6>", "controller_metric": "ap_fixed<32,16>", "alpha": "ap_fixed<16,4>",
}  # fmt: skip
_STATES = ("optimizer_state", "momentum", "adam_m", "adam_v")
_NO_COUNTERPART = ("AP_WRAP_SM", "AP_RND_STOCH")


def _checked(place: str, dtype: Any) -> Any:
    """A format that hls4ml has.

    Raises:
        ValueError: It has none like it.
    """
    if not isinstance(dtype, HLSDataType):
        raise ValueError(f"hls4ml: {place} is {dtype!r}; there are fixed-point formats only")
    if dtype.OMODE in _NO_COUNTERPART or dtype.QMODE in _NO_COUNTERPART:
        raise ValueError(f"hls4ml: {place} is {dtype!r}, and {', '.join(_NO_COUNTERPART)} have no counterpart there")
    return dtype


def to_hls4ml_config(
    model: Any,
    precision: Any,
    default: Any = "ap_fixed<16,6>",
    reuse_factor: int = 1,
    strategy: str = "Latency",
    *,
    maximum: Any = None,
    training: bool = False,
    alpha: Any = None,
    controller_metric: Any = None,
    guard: int = 1,
) -> dict[str, Any]:
    """The configuration of a network for hls4ml.

    Args:
        model: A network, or an object whose attribute ``model`` is one.
        precision: Formats by layer and field.
        default: Format of what the map leaves open.
        reuse_factor: How often a multiplier is used per inference.
        strategy: ``"Latency"`` or ``"Resource"``.
        maximum: Widest format that hls4ml may infer; None leaves it out.
        training: Whether to add the block for training on chip.
        alpha: There: format of the throttle; None is ``ap_fixed<16,4>``.
        controller_metric: There: format of squared movements; None is ``ap_fixed<32,16>``.
        guard: Bits that it must have beyond twice the fractional bits of the weights, or a warning says so.

    Returns:
        ``{"Model": {...}, "LayerName": {...}}``, with ``"Training"`` if asked for; formats are texts.

    Raises:
        ValueError: A format or strategy that hls4ml does not have, or a scope that names no layer.

    Example:
        >>> from keydnn.stability import AffineDataset, LinearBlockModel, stack_precision, to_hls4ml_config
        >>> model = LinearBlockModel(AffineDataset(5, seed=0), num_hidden=[], seed=0)
        >>> to_hls4ml_config(model, stack_precision(8, 2))["LayerName"]["dense0"]["Precision"]["accum"]
        'ap_fixed<20,10,AP_RND,AP_SAT>'
    """
    if strategy not in ("Latency", "Resource"):
        raise ValueError(f"to_hls4ml_config: strategy must be 'Latency' or 'Resource', got {strategy!r}")
    if not isinstance(reuse_factor, int) or reuse_factor < 1:
        raise ValueError(f"to_hls4ml_config: reuse_factor must be an integer of at least 1, got {reuse_factor!r}")
    table = ensure_precision_dict(precision) or PrecisionDict()
    network = network_of(model)
    table.validate_model(network)
    overall = {"default": repr(_checked("default", HLSDataType.from_dtype(default)))}
    if maximum is not None:
        overall["maximum"] = repr(_checked("maximum", HLSDataType.from_dtype(maximum)))
    layers: dict[str, Any] = {}
    given = table.dtype("input", "value")
    if given is not None:
        layers[PLACEHOLDER] = {"Precision": {"result": repr(_checked("input.value", given))}}
    for name, layer in network.named_children():
        found = _layer_formats(table, name, layer)
        if found:
            layers[name] = {"Precision": found}
    config: dict[str, Any] = {
        "Model": {"Precision": overall, "ReuseFactor": reuse_factor, "Strategy": strategy},
        "LayerName": layers,
    }
    if training:
        config["Training"] = _training(table, network, alpha, controller_metric, guard)
    return config


def _layer_formats(table: PrecisionDict, name: str, layer: Any) -> dict[str, str]:
    """The formats of one layer by hls4ml's names."""
    own = set(fields_of(layer).values())
    has_bias = getattr(layer, "bias", None) is not None
    found = {}
    for field, theirs in FIELDS.items():
        if field != "activation" and (not own or field not in (*own, "accumulator")) or field == "bias" and not has_bias:
            continue
        dtype = table.dtype(name, field)
        if field == "bias" and dtype is None and table.has(name, "weight"):
            dtype = table.dtype(name, "weight")
            warnings.warn(f"hls4ml: {name} has no format for its bias; it takes that of the weights, {dtype!r}", stacklevel=4)
        if dtype is not None:
            found[theirs] = repr(_checked(f"{name}.{field}", dtype))
    return found


def _training(table: PrecisionDict, network: Any, alpha: Any, controller_metric: Any, guard: int) -> dict[str, Any]:
    """The block for training on chip."""

    def text(place: str, dtype: Any, kind: str) -> str:
        return repr(_checked(place, HLSDataType.from_dtype(TRAINING[kind] if dtype is None else dtype)))

    metric = HLSDataType.from_dtype(TRAINING["controller_metric"] if controller_metric is None else controller_metric)
    layers = {}
    for name, layer in network.named_children():
        if not any(True for _ in layer.parameters()):
            continue
        gradient = text(f"{name}.gradient", table.dtype(name, "gradient"), "gradient")
        update = text(f"{name}.update", table.dtype(name, "update"), "update")
        states = [table.dtype(name, field) for field in _STATES if table.has(name, field)]
        state = text(f"{name}.optimizer_state", states[0] if states else table.dtype(name, "update"), "optimizer_state")
        register = text(f"{name}.gradient_accum", _register(table, name), "gradient_accum")
        layers[name] = dict.fromkeys(GRADIENTS, gradient) | {
            "gradient_accum": register, "raw_update": update, "update": update, "optimizer_state": state,
        }  # fmt: skip
        weight = table.dtype(name, "weight")
        if isinstance(weight, HLSDataType) and metric.fractional_bits < 2 * weight.fractional_bits + guard:
            warnings.warn(
                f"hls4ml: controller_metric {metric!r} has {metric.fractional_bits} fractional bits; the square of one unit of"
                f" {name}'s weights ({weight!r}) needs {2 * weight.fractional_bits + guard}",
                stacklevel=3,
            )
    last = list(layers.values())[-1]["grad_out"] if layers else TRAINING["gradient"]
    overall = {
        "loss": text("loss.value", table.dtype("loss", "value"), "loss"),
        "loss_grad": last,
        "alpha": text("alpha", alpha, "alpha"),
        "controller_metric": repr(_checked("controller_metric", metric)),
    }
    return {"Precision": overall, "LayerName": layers}


def _register(table: PrecisionDict, name: str) -> Any:
    """The register that sums gradients: its own entry, else the accumulator's."""
    return table.dtype(name, "gradient_accum", table.dtype(name, "accumulator"))


# -- weights and quantisers


def _parameters(model: Any, precision: Any) -> list[tuple[str, Any, np.ndarray]]:
    """Dotted name, format and values of every parameter that has a format."""
    table, network = ensure_precision_dict(precision) or PrecisionDict(), network_of(model)
    children, found = dict(network.named_children()), []
    for path, p in network.named_parameters():
        layer, own = path.partition(".")[0], path.rpartition(".")[2]
        field = fields_of(children[layer]).get(own, own)
        dtype = table.dtype(layer, field, table.dtype(layer, "value"))
        if isinstance(dtype, HLSDataType):
            found.append((path, dtype, p.numpy()))
    return found


def write_weights(model: Any, precision: Any, folder: Any) -> list[Path]:
    """One text file per parameter with a format, ``<layer>_<parameter>.txt``: its stored values, comma separated, row-major.

    Returns:
        The files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for path, dtype, values in _parameters(model, precision):
        files.append(folder / f"{path.replace('.', '_')}.txt")
        files[-1].write_text(", ".join(repr(float(v)) for v in dtype(values).reshape(-1)) + "\n", encoding="utf-8")
    return files


def c_header(model: Any, precision: Any, guard: str = "KEYDNN_WEIGHTS_H") -> str:
    """A C header with the stored integers of every parameter that has a fixed-point format.

    Args:
        model: A network, or an object whose attribute ``model`` is one.
        precision: The formats; those above 63 bits have no C integer.
        guard: Name of the include guard.

    Raises:
        ValueError: A format of more than 63 bits.
    """
    lines = [f"#ifndef {guard}", f"#define {guard}", "", "#include <stdint.h>", ""]
    for path, dtype, values in _parameters(model, precision):
        if dtype.WL > 63:
            raise ValueError(f"c_header: {path} has {dtype.WL} bits, and C integers of the header 63")
        width = next(w for w in (8, 16, 32, 64) if dtype.WL + (not dtype.is_signed) <= w)
        name, raw = path.replace(".", "_"), dtype(values, return_int=True).reshape(-1).tolist()
        lines.append(f"/* {path}: {dtype!r}, shape {tuple(values.shape)}, value = integer * 2^{-dtype.fractional_bits} */")
        lines.append(f"static const int{width}_t {name}[{len(raw)}] = {{{', '.join(map(str, raw))}}};\n")
    return "\n".join([*lines, f"#endif /* {guard} */", ""])


_ROUNDING = {"AP_TRN": "FLOOR", "AP_TRN_ZERO": "ROUND_TO_ZERO", "AP_RND_CONV": "ROUND"}


def quantizer_list(precision: Any) -> list[dict[str, Any]]:
    """The quantisers of a map as JSON values, in the manner of QONNX: scale, zero point, bits, signed, narrow, rounding.

    The rounding is QONNX's word where it has one (FLOOR, ROUND_TO_ZERO, ROUND), else the mode's own name.
    """
    found = []
    for scope, fields in (ensure_precision_dict(precision) or {}).items():
        for field, dtype in fields.items():
            if isinstance(dtype, HLSDataType):
                found.append({
                    "tensor": f"{scope}.{field}", "scale": dtype.quantum, "zero_point": 0, "bit_width": dtype.WL, "signed": dtype.is_signed,
                    "narrow": dtype.OMODE == "AP_SAT_SYM", "rounding_mode": _ROUNDING.get(dtype.QMODE, dtype.QMODE),
                    "overflow_mode": dtype.OMODE, "format": repr(dtype),
                })  # fmt: skip
    return found


# -- traces


@dataclass(frozen=True)
class TraceComparison:
    """A firmware's trace against a history.

    Attributes:
        steps: Steps that both have.
        firmware: The trace's values at these.
        history: The history's.
    """

    steps: np.ndarray
    firmware: np.ndarray
    history: np.ndarray

    @property
    def max_difference(self) -> float:
        """The largest distance; 0 without common steps."""
        return float(np.max(np.abs(self.firmware - self.history), initial=0.0))


def read_trace(path: Any) -> Mapping[str, np.ndarray]:
    """The columns epoch, sample, global_step, sample_index and value of a trace; lines that begin with ``#`` are its header.

    Raises:
        ValueError: A line has not five numbers.
    """
    rows = []
    for i, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = line.replace(",", " ").split()
        try:
            rows.append([float(part) for part in parts])
        except ValueError:
            raise ValueError(f"{path}: line {i} is no row of numbers: {line!r}") from None
        if len(parts) != 5:
            raise ValueError(f"{path}: line {i} has {len(parts)} numbers, expected epoch, sample, global_step, sample_index, value")
    table = np.array(rows, np.float64).reshape(-1, 5)
    names = ("epoch", "sample", "global_step", "sample_index")
    return {**{name: table[:, i].astype(np.int64) for i, name in enumerate(names)}, "value": table[:, 4]}


def compare_trace(path: Any, history: FitHistory, metric: str = "loss") -> TraceComparison:
    """Align a trace with a metric of a run by its global steps; of several values at a step the last counts.

    Raises:
        ValueError: The history has no such metric, or the file is no trace.
    """
    if metric not in history:
        raise ValueError(f"compare_trace: the history has no {metric!r}; there are {', '.join(history)}")
    trace = read_trace(path)
    last = dict(zip(trace["global_step"].tolist(), trace["value"].tolist(), strict=True))
    steps = np.array(sorted(step for step in last if 0 <= step < history.steps), np.int64)
    return TraceComparison(steps, np.array([last[step] for step in steps.tolist()]), np.asarray(history[metric])[steps])
