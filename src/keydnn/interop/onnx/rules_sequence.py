"""Operators of ONNX over sequences and signals: rotations of features, gates, states carried along, Fourier sums.

RotaryEmbedding       pairs of features turned by an angle that grows with the place
SwiGLU                a sigmoid(alpha a) b
CausalConvWithState   a convolution of each channel with what came before
LinearAttention       S = exp(g) S + k (x) beta (v - S^T k),  y = scale S^T q
FlexAttention         softmax(scale q k^T) v with heads in groups
DFT, STFT             products with the matrix exp(-2 pi i j k / n)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.interop.onnx.errors import OnnxError
from keydnn.interop.onnx.values import Node, Rule, Value, checked_size, host


def _rotary(node: Node, x: Tensor, cosine: Tensor, sine: Tensor, place: Value = None) -> Tensor:
    shape, heads = x.shape, node.get("num_heads", 0)
    is_flat = x.ndim == 3
    x = x.reshape((*shape[:2], heads, -1)) if is_flat else x.transpose(0, 2, 1, 3)  # (N, L, heads, d)
    size = node.get("rotary_embedding_dim", 0) or x.shape[-1]
    if place is not None:
        cosine, sine = (ops.take(c, host(place).astype(np.int64), axis=0) for c in (cosine, sine))
    cosine, sine = ops.unsqueeze(cosine, 2), ops.unsqueeze(sine, 2)
    turned, rest = x[..., :size], x[..., size:]
    is_mixed = bool(node.get("interleaved", 0))
    a, b = (turned[..., 0::2], turned[..., 1::2]) if is_mixed else (turned[..., : size // 2], turned[..., size // 2 :])
    real, imaginary = cosine * a - sine * b, sine * a + cosine * b
    y = ops.stack([real, imaginary], -1).reshape(turned.shape) if is_mixed else ops.concat([real, imaginary], -1)
    y = ops.concat([y, rest], -1) if rest.shape[-1] else y
    return y.reshape(shape) if is_flat else y.transpose(0, 2, 1, 3)


def _swiglu(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return a * ops.sigmoid(a * node.get("alpha", 1.0)) * b


def _causal_conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None, past: Tensor | None = None) -> Any:
    n, channels, _ = x.shape
    k = weight.shape[2]
    before = Tensor(data=np.zeros((n, channels, k - 1)), dtype=x.dtype) if past is None else past
    padded = ops.concat([before, x], 2) if k > 1 else x
    y = ops.squeeze(ops.conv2d(ops.unsqueeze(padded, 2), ops.unsqueeze(weight, 2), bias, groups=channels), 2)
    how = node.get("activation", "none")
    if how not in ("none", "silu", "swish"):
        raise node.refuse(f"activation={how!r}")
    return (y if how == "none" else ops.silu(y)), padded[:, :, padded.shape[2] - (k - 1) :]


def _heads(x: Tensor, count: int) -> Tensor:
    """(N, L, heads d) -> (N, heads, L, d)."""
    n, steps, _ = x.shape
    return x.reshape((n, steps, count, -1)).transpose(0, 2, 1, 3)


def _linear_attention(
    node: Node, q: Tensor, k: Tensor, v: Tensor, past: Tensor | None = None, decay: Tensor | None = None, beta: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    n, steps, _ = q.shape
    many, few = node.get("q_num_heads"), node.get("kv_num_heads")
    rule = node.get("update_rule", "gated_delta")
    node.get("chunk_size")  # how to cut the work, which changes nothing
    if ("gated" in rule) != (decay is not None) or ("delta" in rule) != (beta is not None):
        raise OnnxError(f"ONNX operator LinearAttention {node.name!r}: update_rule {rule!r} with decay {decay} and beta {beta}")
    q, k, v = _heads(q, many), _heads(k, few), _heads(v, few)
    decay = None if decay is None else _heads(decay, few)
    beta = None if beta is None else _heads(beta, beta.shape[-1])
    scale = node.get("scale", 0.0) or 1.0 / math.sqrt(q.shape[-1])
    state = Tensor(data=np.zeros((n, few, k.shape[-1], v.shape[-1])), dtype=q.dtype) if past is None else past
    found = []
    for i in range(steps):
        key, value = ops.unsqueeze(k[:, :, i], -1), ops.unsqueeze(v[:, :, i], 2)
        state = state if decay is None else state * ops.unsqueeze(ops.exp(decay[:, :, i]), -1)
        if beta is not None:
            value = ops.unsqueeze(beta[:, :, i], -1) * (value - ops.matmul(key.transpose(0, 1, 3, 2), state))
        state = state + key * value
        read = state if many == few else ops.repeat(state, many // few, 1)
        found.append(ops.matmul(ops.unsqueeze(q[:, :, i], 2), read))
    y = ops.concat(found, 2) * scale
    return y.transpose(0, 2, 1, 3).reshape((n, steps, -1)), state


def _flex_attention(node: Node, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    group = q.shape[1] // k.shape[1]
    if group > 1:
        k, v = ops.repeat(k, group, 1), ops.repeat(v, group, 1)
    scale = math.sqrt(node.get("scale") or 1.0 / math.sqrt(q.shape[-1]))
    scores = ops.matmul(q * scale, (k * scale).transpose(0, 1, 3, 2))
    change, after = node.get("score_mod"), node.get("prob_mod")
    scores = scores if change is None else change(node, scores)[0]
    shares = ops.softmax(scores, -1)
    return ops.matmul(shares if after is None else after(node, shares)[0], v)


def _angles(rows: int, columns: int, n: int, dtype: Any) -> tuple[Tensor, Tensor]:
    """Cosines and sines of ``2 pi j k / n``, (rows, columns)."""
    checked_size([rows, columns])
    turn = (np.arange(rows)[:, None] * np.arange(columns)) % n * (2 * np.pi / n)
    return Tensor(data=np.cos(turn), dtype=dtype), Tensor(data=np.sin(turn), dtype=dtype)


def _fourier(x: Tensor, n: int, count: int) -> Tensor:
    """The first ``count`` sums over the last but one axis of (..., time, 1 or 2); (..., count, 2)."""
    steps = min(n, x.shape[-2])
    x = x[..., :steps, :]
    cosine, sine = _angles(count, steps, n, x.dtype)
    real = x[..., :1]
    a, b = ops.matmul(cosine, real), -ops.matmul(sine, real)
    if x.shape[-1] == 2:
        imaginary = x[..., 1:]
        a, b = a + ops.matmul(sine, imaginary), b + ops.matmul(cosine, imaginary)
    return ops.concat([a, b], -1)


def _inverse(x: Tensor, n: int, is_half: bool) -> Tensor:
    """What has these sums: the conjugate of the sums of the conjugate, over n; of a half the other half is its mirror image."""
    steps = min(n // 2 + 1 if is_half else n, x.shape[-2])
    x = x[..., :steps, :]
    cosine, sine = _angles(n, steps, n, x.dtype)
    a, b = x[..., :1], x[..., 1:]
    if not is_half:
        return ops.concat([ops.matmul(cosine, a) - ops.matmul(sine, b), ops.matmul(sine, a) + ops.matmul(cosine, b)], -1) * (1.0 / n)
    twice = np.full((steps, 1), 2.0)  # all but the first, and the middle one of an even length
    twice[0] = 1.0
    if n % 2 == 0 and steps == n // 2 + 1:
        twice[-1] = 1.0
    weight = Tensor(data=twice, dtype=x.dtype)
    return (ops.matmul(cosine, a * weight) - ops.matmul(sine, b * weight)) * (1.0 / n)


def _dft(node: Node, x: Tensor, length: Value = None, axis: Value = None) -> Tensor:
    chosen = int(host(axis).reshape(-1)[0]) if axis is not None else node.get("axis", 1 if node.version < 20 else -2)
    chosen %= x.ndim
    is_inverse, is_half = bool(node.get("inverse", 0)), bool(node.get("onesided", 0))
    if chosen == x.ndim - 1 or x.shape[-1] not in (1, 2):
        raise OnnxError(f"ONNX operator DFT {node.name!r}: axis {chosen} of x {x.shape}, whose last axis holds real and imaginary parts")
    n = 2 * (x.shape[chosen] - 1) if is_inverse and is_half else x.shape[chosen]
    n = n if length is None else int(host(length).reshape(-1)[0])
    if n < 1:
        raise OnnxError(f"ONNX operator DFT {node.name!r}: a length of {n}")
    order = list(range(x.ndim))
    order[chosen], order[-2] = order[-2], order[chosen]
    rows = x.transpose(*order)
    if is_inverse and rows.shape[-1] == 1:
        rows = ops.concat([rows, rows * 0.0], -1)
    y = _inverse(rows, n, is_half) if is_inverse else _fourier(rows, n, n // 2 + 1 if is_half else n)
    return y.transpose(*order)


def _stft(node: Node, x: Tensor, step: Value, window: Value = None, length: Value = None) -> Tensor:
    hop = int(host(step).reshape(-1)[0])
    n = int(host(length).reshape(-1)[0]) if length is not None else x.shape[1] if window is None else window.shape[0]
    if hop < 1 or not 1 <= n <= x.shape[1]:
        raise OnnxError(f"ONNX operator STFT {node.name!r}: frames of {n} every {hop} in {x.shape[1]} steps")
    frames = ops.stack([x[:, i : i + n] for i in range(0, x.shape[1] - n + 1, hop)], 1)
    frames = frames if window is None else frames * window.reshape((n, 1))
    return _fourier(frames, n, n // 2 + 1 if node.get("onesided", 1) else n)


SEQUENCES: dict[str, Rule] = {
    "RotaryEmbedding": _rotary,
    "SwiGLU": _swiglu,
    "CausalConvWithState": _causal_conv,
    "LinearAttention": _linear_attention,
    "FlexAttention": _flex_attention,
    "DFT": _dft,
    "STFT": _stft,
}
