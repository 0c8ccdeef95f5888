"""``Attention`` of ONNX: ``softmax(cap(q k^T scale) + bias) v``, with grouped heads, a cache, and masks.

The bias is 0 where a query may look and -inf elsewhere; a query that may look nowhere gets zeros.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.interop.onnx.values import Node, Rule, Value, host


def _heads(x: Tensor, count: int) -> Tensor:
    """(N, L, heads d) -> (N, heads, L, d)."""
    n, steps, features = x.shape
    return x.reshape((n, steps, count, features // count)).transpose(0, 2, 1, 3)


def _bias(node: Node, mask: Value, lengths: Value, n_queries: int, n_keys: int, past: int) -> np.ndarray | None:
    """What is added to the scores, to be broadcast to (N, heads, L, S); None is nothing."""
    found: np.ndarray | None = None
    if mask is not None:
        given = host(mask)
        found = np.where(given, 0.0, -np.inf) if given.dtype == bool else given
        missing = n_keys - found.shape[-1]
        if missing > 0:  # keys beyond the mask are not looked at
            found = np.pad(found, [(0, 0)] * (found.ndim - 1) + [(0, missing)], constant_values=-np.inf)
    place = np.arange(n_keys)
    if lengths is not None:
        known = host(lengths).reshape(-1, 1, 1, 1)
        beyond = np.where(place < known, 0.0, -np.inf)
        found = beyond if found is None else found + beyond
    offset = host(lengths).reshape(-1, 1, 1, 1) - n_queries if lengths is not None else past
    own = np.arange(n_queries)[:, None] + offset  # where each query stands among the keys
    left, right = node.get("left_window_size", -1), node.get("right_window_size", -1)
    right = 0 if node.get("is_causal", 0) else right
    seen = np.ones((1, 1), bool)
    seen = seen if left < 0 else seen & (place >= own - left)
    seen = seen if right < 0 else seen & (place <= own + right)
    if left >= 0 or right >= 0:
        window = np.where(seen, 0.0, -np.inf)
        found = window if found is None else found + window
    return found


def _attention(
    node: Node, q: Tensor, k: Tensor, v: Tensor, mask: Value = None, past_k: Any = None, past_v: Any = None, lengths: Value = None
) -> Any:
    is_flat = q.ndim == 3
    if is_flat:
        q, k, v = _heads(q, node.get("q_num_heads")), _heads(k, node.get("kv_num_heads")), _heads(v, node.get("kv_num_heads"))
    past = 0 if past_k is None else past_k.shape[2]
    if past_k is not None:
        k, v = ops.concat([past_k, k], 2), ops.concat([past_v, v], 2)
    present, group = (k, v), q.shape[1] // k.shape[1]
    if group > 1:
        k, v = ops.repeat(k, group, 1), ops.repeat(v, group, 1)
    scale = math.sqrt(node.get("scale") or 1.0 / math.sqrt(q.shape[-1]))
    scores = ops.matmul(q * scale, (k * scale).transpose(0, 1, 3, 2))
    stages, cap = [scores], node.get("softcap", 0.0)
    scores = ops.tanh(scores * (1.0 / cap)) * cap if cap else scores
    stages.append(scores)
    bias = _bias(node, mask, lengths, q.shape[2], k.shape[2], past)
    if bias is not None:
        scores = scores + Tensor(data=bias, dtype=scores.dtype)
    stages.append(scores)
    weights = _weights(scores)
    y = ops.matmul(weights, v)
    y = y.transpose(0, 2, 1, 3).reshape((y.shape[0], y.shape[2], -1)) if is_flat else y
    return (y, *present, [*stages, weights][node.get("qk_matmul_output_mode", 0)])


def _weights(scores: Tensor) -> Tensor:
    """Softmax over keys; zeros where all scores are -inf."""
    nothing = np.isneginf(host(scores)).all(axis=-1, keepdims=True)
    if not nothing.any():
        return ops.softmax(scores, -1)
    blind = Tensor(data=np.broadcast_to(nothing, scores.shape), dtype=np.bool_)
    return ops.where(blind, 0.0, ops.softmax(ops.where(blind, 0.0, scores), -1))


ATTENTION: dict[str, Rule] = {"Attention": _attention}
