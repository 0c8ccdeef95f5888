"""RNN, LSTM and GRU of ONNX.

Weights are W (directions, gates H, D), R (directions, gates H, H) and B (directions, 2 gates H), ours (D, gates H), (H, gates H)
and twice (gates H).  Gates: LSTM theirs i o f c, ours i f g o; GRU z r h in both.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.interop.onnx.values import Node, Rule, Value, host

GATES = {"RNN": [0], "LSTM": [0, 2, 3, 1], "GRU": [0, 1, 2]}  # ours in theirs
USUAL = {"RNN": ["Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}


def regrouped(x: Tensor, gates: list[int], hidden: int) -> Tensor:
    """The blocks of H rows of x in another order."""
    if gates == sorted(gates):
        return x
    return ops.concat([x[g * hidden : (g + 1) * hidden] for g in gates], 0)


def _recurrent(
    node: Node,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Value = None,
    h0: Any = None,
    c0: Any = None,
    p: Any = None,
) -> Any:
    _check(node)
    is_batch_first = node.get("layout", 0)
    direction = node.get("direction", "forward")
    x = x.transpose(1, 0, 2) if is_batch_first else x
    states = [None if s is None else (s.transpose(1, 0, 2) if is_batch_first else s) for s in (h0, c0)]
    mask = None
    if lengths is not None and np.any(host(lengths) != x.shape[0]):
        mask = Tensor(data=np.arange(x.shape[0])[:, None] < host(lengths)[None, :], dtype=x.dtype)
    outputs, last_h, last_c = [], [], []
    for i, is_reverse in enumerate({"forward": (False,), "reverse": (True,)}.get(direction, (False, True))):
        own = [None if s is None else s[i] for s in states]
        mine = (node, x, w[i], r[i], None if b is None else b[i], own, mask, is_reverse)
        y, h, c = _one_direction(*mine) if p is None else _with_peepholes(*mine, p[i])
        outputs.append(y)
        last_h.append(h)
        last_c.append(c)
    found = [Tensor.stack(outputs, 1), Tensor.stack(last_h), *([Tensor.stack(last_c)] if node.op == "LSTM" else [])]
    if is_batch_first:
        found = [found[0].transpose(2, 0, 1, 3), *(state.transpose(1, 0, 2) for state in found[1:])]
    return tuple(found)


def _check(node: Node) -> None:
    for name in ("clip", "input_forget", "activation_alpha", "activation_beta"):
        if node.get(name):
            raise node.refuse(name)
    chosen = node.get("activations")
    if chosen is not None and chosen[: len(USUAL[node.op])] != USUAL[node.op]:
        raise node.refuse(f"activations {chosen}")


def _one_direction(
    node: Node, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, states: list[Any], mask: Any, is_reverse: bool
) -> tuple[Tensor, Tensor, Any]:
    gates, hidden = GATES[node.op], r.shape[1]
    w_ih, w_hh = (regrouped(m, gates, hidden).transpose(1, 0) for m in (w, r))
    b_ih, b_hh = (None, None) if b is None else (regrouped(part, gates, hidden) for part in (b[: len(b) // 2], b[len(b) // 2 :]))
    options: dict[str, Any] = {"mask": mask, "reverse": is_reverse}
    if node.op == "LSTM":
        return ops.lstm(x, w_ih, w_hh, b_ih, b_hh, *states, **options)
    if node.op == "GRU":
        options["reset_after"] = bool(node.get("linear_before_reset", 0))
    y, h = (ops.gru if node.op == "GRU" else ops.rnn)(x, w_ih, w_hh, b_ih, b_hh, states[0], **options)
    return y, h, None


def _with_peepholes(
    node: Node, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, states: list[Any], mask: Any, is_reverse: bool, p: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """An LSTM whose gates see the cell too, step by step: input and forget gate the old one, output gate the new one."""
    steps, n, _ = x.shape
    hidden = r.shape[1]
    look_i, look_o, look_f = (p[i * hidden : (i + 1) * hidden] for i in range(3))
    h, c = (Tensor(data=np.zeros((n, hidden)), dtype=x.dtype) if s is None else s for s in states)
    inputs = ops.matmul(x, w.transpose(1, 0))
    inputs = inputs if b is None else inputs + (b[: 4 * hidden] + b[4 * hidden :])
    found: list[Any] = [None] * steps
    for t in reversed(range(steps)) if is_reverse else range(steps):
        gates = inputs[t] + ops.matmul(h, r.transpose(1, 0))
        i, o, f, g = (gates[:, k * hidden : (k + 1) * hidden] for k in range(4))
        new_c = ops.sigmoid(f + look_f * c) * c + ops.sigmoid(i + look_i * c) * ops.tanh(g)
        new_h = ops.sigmoid(o + look_o * new_c) * ops.tanh(new_c)
        if mask is None:
            h, c, found[t] = new_h, new_c, new_h
            continue
        keep = mask[t].reshape((-1, 1))
        h, c, found[t] = h + keep * (new_h - h), c + keep * (new_c - c), keep * new_h
    return ops.stack(found), h, c


RECURRENT: dict[str, Rule] = dict.fromkeys(GATES, _recurrent)
