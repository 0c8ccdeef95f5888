"""How PyTorch calls, turns and joins the weights of a layer, and how we do.

    normalisation    weight, bias                              gamma, beta
    RNNCell, ...     weight_ih (gates H, in), bias_ih, ...     W_ih (in, gates H), b_ih, ...
    RNN, LSTM, GRU   weight_ih_l<k> (gates H, in), bias_ih_l<k>, ...   cell[_k].W_ih (in, gates H), .b_ih, ...
    Bidirectional    the same, with _reverse                   forward_layer, backward_layer
    attention        in_proj_weight (3E, E), in_proj_bias      q_proj, k_proj, v_proj
    encoder layer    self_attn                                 attention

Gates: GRU theirs r z n, ours z r n; LSTM i f g o in both.  Sources: https://pytorch.org/docs/stable/generated/torch.nn.LSTM.html
and torch.nn.GRU, torch.nn.MultiheadAttention.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn.nn import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    GRUCell,
    LSTMCell,
    Module,
    MultiHeadAttention,
    Normalization,
    RNNCell,
    TransformerEncoderLayer,
)

State = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """Changes the weights of one layer from their form to ours, and back; both get them without the layer's path.

    Attributes:
        ours: From theirs.
        theirs: From ours.
    """

    ours: Callable[[State, Any], State]
    theirs: Callable[[State, Any], State]


def to_ours(model: Module, state: State) -> State:
    """A ``state_dict`` of PyTorch in our names and shapes; what no rule knows stays."""
    for path, module in _with_own_names(model):
        state = _at(path, _rule_of(module).ours, module, state)
    return state


def to_theirs(model: Module, state: State) -> State:
    """Our ``state_dict`` in the names and shapes of PyTorch."""
    for path, module in reversed(_with_own_names(model)):
        state = _at(path, _rule_of(module).theirs, module, state)
    return state


def _with_own_names(model: Module) -> list[tuple[str, Module]]:
    """All modules but the cells of recurrent layers, whose weights PyTorch calls as those of the layer."""
    found = list(model.named_modules(unique=False))
    inside = {id(cell) for _, module in found if isinstance(module, RNN | LSTM | GRU) for cell in module.cells}
    return [(path, module) for path, module in found if id(module) not in inside]


def _at(path: str, change: Callable[[State, Any], State], module: Any, state: State) -> State:
    if change is _same:
        return state
    start = f"{path}." if path else ""
    inside = {name[len(start) :]: value for name, value in state.items() if name.startswith(start)}
    outside = {name: value for name, value in state.items() if not name.startswith(start)}
    return outside | {start + name: value for name, value in change(inside, module).items()}


def _rule_of(module: Module) -> Rule:
    return next((rule for cls, rule in RULES.items() if isinstance(module, cls)), NOTHING)


def _same(state: State, module: Any) -> State:
    return state


def _renames(pairs: dict[str, str]) -> Rule:
    """Beginnings of names."""

    def change(state: State, table: dict[str, str]) -> State:
        return {next((new + name[len(old) :] for old, new in table.items() if name.startswith(old)), name): v for name, v in state.items()}

    back = {new: old for old, new in pairs.items()}
    return Rule(lambda state, module: change(state, pairs), lambda state, module: change(state, back))


# -- recurrent layers: weight_ih_l0 -> cell.W_ih


def _gates(value: np.ndarray, module: Any) -> np.ndarray:
    """Rows (gates H, ...) with the first two gates of a GRU exchanged; its own inverse."""
    if not isinstance(module, GRU | GRUCell):
        return value
    z, r, n = np.split(value, 3)
    return np.concatenate([r, z, n])


def _check_reset(module: Any) -> None:
    if isinstance(module, GRU | GRUCell) and not module.reset_after:
        raise ValueError("load_torch_state: the GRU of PyTorch multiplies after the product; make ours with reset_after=True")


THEIRS = re.compile(r"(weight|bias)_(ih|hh)_l(\d+)(_reverse)?")
OURS = re.compile(r"cell(?:_(\d+))?\.([Wb])_(ih|hh)")


def _recurrent_ours(state: State, module: Any, suffix: str | None = None) -> State:
    found = {}
    for name, value in state.items():
        match = THEIRS.fullmatch(name)
        if match is None or match[4] != suffix or len(value) % (3 if isinstance(module, GRU) else 1):
            found[name] = value
            continue
        _check_reset(module)
        kind, which, k, _ = match.groups()
        cell = "cell" if k == "0" else f"cell_{k}"
        rows = _gates(value, module)
        found[f"{cell}.{'W' if kind == 'weight' else 'b'}_{which}"] = rows.T if kind == "weight" else rows
    return found


def _recurrent_theirs(state: State, module: Any, suffix: str = "") -> State:
    found = {}
    for name, value in state.items():
        match = OURS.fullmatch(name)
        if match is None:
            found[name] = value
            continue
        k, kind, which = match.groups()
        found[f"{'weight' if kind == 'W' else 'bias'}_{which}_l{k or 0}{suffix}"] = _gates(value.T if kind == "W" else value, module)
    return found


def _cell_ours(state: State, module: Any) -> State:
    """weight_ih -> W_ih, bias_hh -> b_hh."""
    found = {}
    for name, value in state.items():
        match = re.fullmatch(r"(weight|bias)_(ih|hh)", name)
        if match is None or len(value) % (3 if isinstance(module, GRUCell) else 1):
            found[name] = value
            continue
        _check_reset(module)
        rows = _gates(value, module)
        found[f"{'W' if match[1] == 'weight' else 'b'}_{match[2]}"] = rows.T if match[1] == "weight" else rows
    return found


def _cell_theirs(state: State, module: Any) -> State:
    found = {}
    for name, value in state.items():
        match = re.fullmatch(r"([Wb])_(ih|hh)", name)
        key = name if match is None else f"{'weight' if match[1] == 'W' else 'bias'}_{match[2]}"
        found[key] = value if match is None else _gates(value.T if match[1] == "W" else value, module)
    return found


def _both_ours(state: State, module: Bidirectional) -> State:
    """The names of both directions; the layers themselves come later and have nothing left to do."""
    first = _recurrent_ours(state, module.forward_layer)
    moved = {name: value for name, value in first.items() if OURS.fullmatch(name)}
    rest = {name: value for name, value in first.items() if name not in moved}
    second = _recurrent_ours(rest, module.backward_layer, "_reverse")
    back = {name: value for name, value in second.items() if OURS.fullmatch(name)}
    kept = {name: value for name, value in second.items() if name not in back}
    return {f"forward_layer.{n}": v for n, v in moved.items()} | {f"backward_layer.{n}": v for n, v in back.items()} | kept


def _both_theirs(state: State, module: Bidirectional) -> State:
    """The layers have been changed already; each direction is there twice."""
    found = {}
    for name, value in state.items():
        layer, _, rest = name.partition(".")
        if layer in ("forward_layer", "backward_layer"):
            found[rest + ("_reverse" if layer == "backward_layer" else "")] = value
        elif layer not in ("forward_rnn", "backward_rnn"):
            found[name] = value
    return found


# -- attention

PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def _attention_ours(state: State, module: MultiHeadAttention) -> State:
    found = dict(state)
    for what in ("weight", "bias"):
        joined = found.get(f"in_proj_{what}")
        if joined is not None and len(joined) == 3 * module.embed_dim:
            del found[f"in_proj_{what}"]
            found.update((f"{name}.{what}", part) for name, part in zip(PROJECTIONS, np.split(joined, 3), strict=True))
    return found


def _attention_theirs(state: State, module: MultiHeadAttention) -> State:
    found = dict(state)
    if module.kdim == module.vdim == module.embed_dim:
        for what in ("weight", "bias"):
            if all(f"{name}.{what}" in found for name in PROJECTIONS):
                found[f"in_proj_{what}"] = np.concatenate([found.pop(f"{name}.{what}") for name in PROJECTIONS])
    return found


NOTHING = Rule(_same, _same)
RECURRENT = Rule(_recurrent_ours, _recurrent_theirs)
CELL = Rule(_cell_ours, _cell_theirs)
RULES: dict[type, Rule] = {
    Normalization: _renames({"weight": "gamma", "bias": "beta"}),
    RNN: RECURRENT,
    LSTM: RECURRENT,
    GRU: RECURRENT,
    RNNCell: CELL,
    LSTMCell: CELL,
    GRUCell: CELL,
    Bidirectional: Rule(_both_ours, _both_theirs),
    MultiHeadAttention: Rule(_attention_ours, _attention_theirs),
    TransformerEncoderLayer: _renames({"self_attn.": "attention."}),
}
