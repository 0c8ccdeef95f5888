"""Runs described by data: what the command line, sweeps and reports share.

{"dataset": {...AffineDataset...}, "model": {...LinearBlockModel...}, "train": {...train_instrumented...},
 "precision": null | {scope: {field: format}} | {"stack": {...stack_precision...}}, "drift": {...DriftModel...}}
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keydnn.stability.dataset import AffineDataset, DriftModel
from keydnn.stability.dtypes import ap_fixed
from keydnn.stability.explain import explain
from keydnn.stability.history import FitHistory
from keydnn.stability.nn import LinearBlockModel
from keydnn.stability.nn.loop import Run
from keydnn.stability.nn.stacked import run_side_by_side, stack_key
from keydnn.stability.precision import PrecisionDict

SECTIONS = ("dataset", "model", "train", "precision", "drift")
OFFSETS = {  # (WL, IWL) of a field relative to those of the weights
    "weight": (0, 0), "bias": (0, 0), "input": (0, 2), "activation": (0, 2), "gradient": (4, 2), "update": (4, 0), "accumulator": (12, 8),
}  # fmt: skip
LOSS_IWL = 10  # the loss has 2 WL bits and so many more before the point


def stack_precision(
    WL: int,
    IWL: int,
    offsets: Mapping[str, tuple[int, int]] | None = None,
    QMODE: str = "AP_RND",
    OMODE: str = "AP_SAT",
    layers: Sequence[str] | None = None,
) -> PrecisionDict:
    """A whole map from the width of the weights, by a rule of thumb.

    Weights and biases (WL, IWL); input and activation (WL, IWL+2); gradient (WL+4, IWL+2); update (WL+4, IWL); accumulator
    (WL+12, IWL+8); loss (2 WL, IWL+10).

    Args:
        WL: Bits of the weights.
        IWL: Of them before the point.
        offsets: Other offsets (WL, IWL) by field, over these.
        QMODE: Rounding of all.
        OMODE: Overflow of all.
        layers: Scopes of the layer fields; None is ``__default__``.

    Raises:
        ValueError: An unknown field, or a width or mode that does not exist.

    Example:
        >>> from keydnn.stability import stack_precision
        >>> stack_precision(8, 2).dtype("dense0", "gradient")
        ap_fixed<12,4,AP_RND,AP_SAT>
    """
    table = dict(OFFSETS)
    unknown = [name for name in offsets or {} if name not in (*table, "loss")]
    if unknown:
        raise ValueError(f"stack_precision: unknown field {', '.join(unknown)}; there are {', '.join(table)}, loss")
    table.update({name: (int(a), int(b)) for name, (a, b) in (offsets or {}).items()})
    loss = table.pop("loss", (WL, LOSS_IWL))
    made = {name: ap_fixed(WL + a, IWL + b, QMODE, OMODE) for name, (a, b) in table.items()}
    fields = {name: dtype for name, dtype in made.items() if name != "input"}
    scopes: dict[str, Any] = {layer: dict(fields) for layer in (layers or ("__default__",))}
    scopes["input"] = {"value": made["input"]}
    scopes["loss"] = {"value": ap_fixed(WL + loss[0], IWL + loss[1], QMODE, OMODE)}
    return PrecisionDict(scopes)


@functools.cache
def _arguments_of(callee: Any) -> tuple[str, ...]:
    """The arguments that a configuration can give."""
    return tuple(p for p in inspect.signature(callee).parameters if p not in ("self", "X", "Y", "dataset", "precision_dict", "drift"))


def _section(config: Mapping[str, Any], name: str, callee: Any) -> dict[str, Any]:
    """The arguments of one section.

    Raises:
        ValueError: An argument that the callee does not have.
    """
    given = dict(config.get(name) or {})
    known = _arguments_of(callee)
    unknown = [key for key in given if key not in known]
    if unknown:
        raise ValueError(f"config: unknown {name}.{unknown[0]}; there are {', '.join(known)}")
    return given


def precision_of(config: Mapping[str, Any]) -> PrecisionDict | None:
    """The precision map of a configuration."""
    given = config.get("precision")
    if given is None:
        return None
    if "stack" in given:
        return stack_precision(**given["stack"])
    return PrecisionDict(given)


def run_config(config: Mapping[str, Any]) -> FitHistory:
    """One instrumented run, as described.

    Args:
        config: See the top of the file; every section may be missing.

    Returns:
        The history, with the configuration in its ``meta``.

    Raises:
        ValueError: An unknown section or argument, or one out of range.

    Example:
        >>> from keydnn.stability import run_config
        >>> h = run_config({"dataset": {"num_samples": 50, "seed": 1}, "model": {"num_hidden": [], "seed": 0}, "train": {"epochs": 3}})
        >>> h.steps
        6
    """
    history = _run_of(config).run()
    history.meta["config"] = dict(config)
    return history


def _run_of(config: Mapping[str, Any]) -> Run:
    """The instrumented run of a configuration, before its first step."""
    unknown = [name for name in config if name not in SECTIONS]
    if unknown:
        raise ValueError(f"config: unknown section {', '.join(map(repr, unknown))}; there are {', '.join(SECTIONS)}")
    data = AffineDataset(**_section(config, "dataset", AffineDataset))
    model = LinearBlockModel(data, **_section(config, "model", LinearBlockModel))
    train = {"reference_A": data.reference_weight_matrix, **_section(config, "train", LinearBlockModel.train_instrumented)}
    if config.get("drift") is not None:
        train["drift"] = DriftModel(**_section(config, "drift", DriftModel))
    return model._run_of(*data.get(), precision_dict=precision_of(config), **train)


def run_cells(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The outcomes of several configurations, side by side where they are of one kind.

    Args:
        configs: As for `run_config`.

    Returns:
        An `outcome` each, the same as of a run alone.

    Raises:
        ValueError: As for `run_config`.
    """
    runs = [_run_of(config) for config in configs]
    keys = [stack_key(run) for run in runs]
    is_stack = len(runs) > 1 and keys[0] is not None and all(key == keys[0] for key in keys)
    return [outcome(h) for h in (run_side_by_side(runs) if is_stack else map(Run.run, runs))]


def outcome(history: FitHistory) -> dict[str, Any]:
    """What a sweep keeps of a run: JSON values."""
    last = lambda key: _plain(history[key][-1]) if history.get(key) is not None and len(history[key]) else None  # noqa: E731
    found: dict[str, Any] = {"steps": history.steps, "diverged": bool(last("diverged") or 0)}
    found["initial_loss"] = _plain(history["loss"][0])
    for key in ("loss", "rmse", "weight_error_fro", "alpha", "stability_margin_lambda_raw", "weight_saturation_fraction_max",
                "gradient_saturation_fraction_max", "update_saturation_fraction_max", "update_underflow_fraction_max"):  # fmt: skip
        found[key] = last(key)
    found["smallest_loss"] = _plain(np.nanmin(history["loss"])) if np.isfinite(history["loss"]).any() else None
    found["verdict"] = explain(history).verdict
    return found


def _plain(v: Any) -> float | None:
    return float(v) if math.isfinite(v) else None
