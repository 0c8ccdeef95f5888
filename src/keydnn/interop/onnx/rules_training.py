"""The update rules of ONNX (``ai.onnx.preview.training``): rate, step number, then all x, all gradients, all states.

With ``g' = g + norm_coefficient x``:

    Adam       v = alpha v + (1 - alpha) g',  h = beta h + (1 - beta) g'^2,  x - rate sqrt(1 - beta^t) / (1 - alpha^t) v / (sqrt(h) + eps)
    Adagrad    h = h + g'^2,  x - rate / (1 + t decay) g' / (sqrt(h) + eps)
    Momentum   v = alpha v + beta g' (beta = 1 in step 0),  x - rate v;  nesterov: x - rate (g' + alpha v)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.interop.onnx.errors import OnnxError
from keydnn.interop.onnx.values import Node, Rule, Value, host


def _adam(node: Node, rate: float, t: int, x: Tensor, g: Tensor, v: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    alpha, beta = node.get("alpha", 0.9), node.get("beta", 0.999)
    v, h = v * alpha + g * (1 - alpha), h * beta + (g * g) * (1 - beta)
    rate = rate * math.sqrt(1 - beta**t) / (1 - alpha**t) if t > 0 else rate
    x = x - (v / (ops.sqrt(h) + node.get("epsilon", 1e-6))) * rate
    return x * (1 - node.get("norm_coefficient_post", 0.0)), v, h


def _adagrad(node: Node, rate: float, t: int, x: Tensor, g: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    h = h + g * g
    return x - g / (ops.sqrt(h) + node.get("epsilon", 1e-6)) * (rate / (1 + t * node.get("decay_factor", 0.0))), h


def _momentum(node: Node, rate: float, t: int, x: Tensor, g: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    alpha, beta = node.get("alpha"), node.get("beta")
    v = v * alpha + g * (beta if t > 0 else 1.0)
    return x - ((g + v * alpha) if node.get("mode") == "nesterov" else v) * rate, v


def _update(step: Callable[..., tuple[Tensor, ...]], n_states: int) -> Rule:
    """A rule for any number of parameters."""

    def rule(node: Node, rate: Value, t: Value, *rows: Value) -> Any:
        n, rest = divmod(len(rows), 2 + n_states)
        if rest or not n:
            raise OnnxError(f"ONNX operator {node.op} {node.name!r}: {len(rows)} arrays, expected {2 + n_states} per parameter")
        decay, done = node.get("norm_coefficient", 0.0), []
        for x, g, *states in zip(*(rows[i * n : (i + 1) * n] for i in range(2 + n_states)), strict=True):
            done.append(step(node, float(host(rate)), int(host(t)), x, g + x * decay if decay else g, *states))
        return tuple(value for part in zip(*done, strict=True) for value in part)

    return rule


TRAINING: dict[str, Rule] = {"Adam": _update(_adam, 2), "Adagrad": _update(_adagrad, 1), "Momentum": _update(_momentum, 1)}
