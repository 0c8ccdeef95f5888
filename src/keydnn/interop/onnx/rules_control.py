"""Operators of ONNX that run graphs inside of nodes: ``If``, ``Loop``, ``Scan``.

A graph inside sees the values around its node.  All loops of one call share :data:`MOST_STEPS` steps, so that a file cannot
keep a machine busy forever.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.interop.onnx.errors import OnnxError
from keydnn.interop.onnx.values import Node, Rule, Value, host

MOST_STEPS = 1 << 16


def _step(node: Node) -> None:
    node.scope.steps[0] += 1
    if node.scope.steps[0] > MOST_STEPS:
        raise OnnxError(f"ONNX operator {node.op} {node.name!r}: the loops of the graph take more than {MOST_STEPS:,} steps")


def _stacked(rows: list[Value], axis: int = 0) -> Value:
    if not rows:  # of no known shape
        return np.zeros(0, np.int64)
    return ops.stack(rows, axis) if isinstance(rows[0], Tensor) else np.stack(rows, axis)


def _if(node: Node, condition: Value) -> Any:
    branches = node.get("then_branch"), node.get("else_branch")
    return branches[0 if bool(host(condition).reshape(())) else 1](node)


def _loop(node: Node, most: Value = None, condition: Value = None, *carried: Value) -> Any:
    body, n = node.get("body"), len(carried)
    limit = None if most is None else int(host(most).reshape(()))
    go_on, i, state = condition is None or bool(host(condition).reshape(())), 0, tuple(carried)
    rows: list[list[Value]] = [[] for _ in range(len(body.outputs) - 1 - n)]
    while go_on and (limit is None or i < limit):
        _step(node)
        found = body(node, np.asarray(i, np.int64), np.asarray(True), *state)
        go_on, state = bool(host(found[0]).reshape(())), found[1 : 1 + n]
        for kept, row in zip(rows, found[1 + n :], strict=True):
            kept.append(row)
        i += 1
    return (*state, *map(_stacked, rows))


def _scan(node: Node, *inputs: Value) -> Any:
    if node.version < 9:
        raise node.refuse(f"version {node.version}")
    body, m = node.get("body"), node.get("num_scan_inputs")
    n, n_out = len(inputs) - m, len(body.outputs) - (len(inputs) - m)
    if n < 0 or n_out < 0 or m < 1:
        raise OnnxError(f"ONNX operator Scan {node.name!r}: {len(inputs)} inputs, {m} of them to scan, {len(body.outputs)} outputs")
    backward, out_backward = (node.get(f"scan_{what}_directions") or [0] * k for what, k in (("input", m), ("output", n_out)))
    axes, out_axes = (node.get(f"scan_{what}_axes") or [0] * k for what, k in (("input", m), ("output", n_out)))
    state, rows = inputs[:n], inputs[n:]
    axes = [a % x.ndim for a, x in zip(axes, rows, strict=True)]
    lengths = {x.shape[a] for a, x in zip(axes, rows, strict=True)}
    if len(lengths) != 1:
        raise OnnxError(f"ONNX operator Scan {node.name!r}: its inputs have {sorted(lengths)} steps")
    (count,) = lengths
    kept: list[list[Value]] = [[] for _ in range(n_out)]
    for i in range(count):
        _step(node)
        here = [x[(slice(None),) * a + (count - 1 - i if back else i,)] for x, a, back in zip(rows, axes, backward, strict=True)]
        found = body(node, *state, *here)
        state = found[:n]
        for column, row in zip(kept, found[n:], strict=True):
            column.append(row)
    turned = [column[::-1] if back else column for column, back in zip(kept, out_backward, strict=True)]
    return (*state, *(_stacked(column, a) for column, a in zip(turned, out_axes, strict=True)))


CONTROL: dict[str, Rule] = {"If": _if, "Loop": _loop, "Scan": _scan}
