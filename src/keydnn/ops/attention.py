"""Attention of several heads, as one operation.

    y = softmax(scale * Q K^T) V   for each head, the heads side by side along the last axis

With P the weights:  dV = P^T G,  dP = G V^T,  dS = scale * P * (dP - sum(dP * P)),  dQ = dS K,  dK = dS^T Q.
Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
"""

from __future__ import annotations

from keydnn.autograd.primitive import bind
from keydnn.domain.errors import ShapeError
from keydnn.ops._dtypes import promoted
from keydnn.ops._primitive import primitive
from keydnn.ops.activation import softmax
from keydnn.ops.linalg import gemm


@primitive
def attention_p(k, q, key, v, *, heads, scale):
    """The mixture of the values."""
    y, p = k.attention(q, key, v, heads, scale)
    return y, (q, key, v, heads, scale), (p,)


@attention_p.gradient
def _(saved, g, needs):
    q, k, v, heads, scale, p = saved
    if p is not None:
        return attention_grad_p(g, p, q, k, v, heads=heads, scale=scale)
    q, k, v, g = (split_heads(x, heads) for x in (q, k, v, g))
    p = softmax(gemm(q, k, tb=True) * scale, -1)
    dp = gemm(g, v, tb=True)
    ds = p * (dp - (dp * p).sum(-1, True)) * scale
    return join_heads(gemm(ds, k)), join_heads(gemm(ds, q, ta=True)), join_heads(gemm(p, g, ta=True))


@primitive(n_outputs=3)
def attention_grad_p(k, g, p, q, key, v, *, heads, scale):
    """(dq, dk, dv)."""
    return k.attention_grad(g, p, q, key, v, heads, scale), ()


def split_heads(x, heads):
    """(N, L, heads * d) as (N, heads, L, d)."""
    n, steps, wide = x.shape
    return x.reshape((n, steps, heads, wide // heads)).transpose(0, 2, 1, 3)


def join_heads(x):
    """(N, heads, L, d) as (N, L, heads * d)."""
    n, heads, steps, d = x.shape
    return x.transpose(0, 2, 1, 3).reshape((n, steps, heads * d))


def attention(q, k, v, heads=1, scale=None):
    """Attention of several heads over whole sequences.

    Args:
        q: Queries (N, L, E), E a multiple of heads.
        k: Keys (N, S, E).
        v: Values (N, S, E).
        heads: Heads, at least 1.
        scale: Factor of the scores; None is ``1 / sqrt(E / heads)``.

    Returns:
        (N, L, E).

    Raises:
        ValueError: The shapes do not fit.
        TypeError: An operand is no floating Tensor.
    """
    fits = q.ndim == k.ndim == 3 and v.shape == k.shape and k.shape[0] == q.shape[0] and k.shape[2] == q.shape[2]
    if not fits or q.shape[2] % heads or 0 in k.shape:
        raise ShapeError(f"attention: q {q.shape}, k {k.shape}, v {v.shape} do not fit (N, L, E), (N, S, E), (N, S, E) with {heads} heads")
    q, k, v = promoted("attention", q, k, v)
    scale = (q.shape[2] // heads) ** -0.5 if scale is None else float(scale)
    return bind(attention_p, (q, k, v), {"heads": heads, "scale": scale})
