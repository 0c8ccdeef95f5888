"""Attention: each position reads from all positions, weighted by how well its query fits their keys.

    attend(Q, K, V) = softmax(Q K^T / sqrt(d)) V            for each head, d = embed_dim / num_heads

Source: Vaswani et al. 2017, Attention is all you need, https://arxiv.org/abs/1706.03762
"""

from __future__ import annotations

import math
from typing import Any

from keydnn._tensor import Tensor
from keydnn.domain.device import Device
from keydnn.domain.errors import ShapeError
from keydnn.nn.arguments import number, positive_int
from keydnn.nn.layers.activation import GELU, ReLU
from keydnn.nn.layers.dropout import Dropout
from keydnn.nn.layers.layer import Layer, without_defaults
from keydnn.nn.layers.linear import Linear
from keydnn.nn.layers.norm import LayerNorm
from keydnn.nn.layers.recurrent import as_mask, live_steps
from keydnn.ops import attention as attend
from keydnn.ops import matmul, softmax, tril, where
from keydnn.ops.attention import join_heads, split_heads
from keydnn.ops.linalg import gemm
from keydnn.ops.random import full
from keydnn.saving.registry import register_module

MASKED = -1e30  # finite, so that a query that may see nothing does not become NaN; e^(-1e30 - max) is 0
ACTIVATIONS = {"relu": ReLU, "gelu": GELU}


@register_module()
class MultiHeadAttention(Layer):
    """Attention with several heads, over the sequence itself or over another one.

    Args:
        embed_dim: Features E of queries and results, a multiple of num_heads.
        num_heads: Heads, at least 1; each works on ``embed_dim / num_heads`` features.
        dropout: Probability in [0, 1) with which attention weights are dropped in training.
        bias: Whether the four projections have a bias.
        batch_first: Whether sequences are (N, L, E) instead of (L, N, E).
        kdim: Features of the keys; None is embed_dim.
        vdim: Features of the values; None is embed_dim.
        device: Where the parameters live; None is the cpu.
        dtype: float32 (default) or float64.

    Shapes: query (L, N, E), key (S, N, kdim), value (S, N, vdim) -> (L, N, E); weights (N, num_heads, L, S).
        ``q_proj``, ``k_proj``, ``v_proj`` and ``out_proj`` are Linear layers.

    Raises:
        ValueError: A size below 1, embed_dim no multiple of num_heads, or operands or masks of other shapes.
        TypeError: An operand is no Tensor.

    Example:
        >>> from keydnn.nn import MultiHeadAttention
        >>> attention = MultiHeadAttention(8, 2, batch_first=True)
        >>> attention(keydnn.ones((3, 5, 8)), causal=True).shape
        (3, 5, 8)

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        batch_first: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        device: Device | str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.embed_dim = positive_int("embed_dim", embed_dim, self)
        self.num_heads = positive_int("num_heads", num_heads, self)
        if self.embed_dim % self.num_heads:
            raise ValueError(f"MultiHeadAttention: embed_dim {embed_dim} is no multiple of num_heads {num_heads}")
        self.dropout = number("dropout", dropout, self)
        self.bias = bool(bias)
        self.batch_first = bool(batch_first)
        self.kdim = self.embed_dim if kdim is None else positive_int("kdim", kdim, self)
        self.vdim = self.embed_dim if vdim is None else positive_int("vdim", vdim, self)
        self.q_proj = Linear(self.embed_dim, self.embed_dim, self.bias, device, dtype)
        self.k_proj = Linear(self.kdim, self.embed_dim, self.bias, device, dtype)
        self.v_proj = Linear(self.vdim, self.embed_dim, self.bias, device, dtype)
        self.out_proj = Linear(self.embed_dim, self.embed_dim, self.bias, device, dtype)
        self.drop = Dropout(self.dropout)
        self.device, self.dtype = self.q_proj.device, self.q_proj.dtype

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        *,
        lengths: Any = None,
        mask: Any = None,
        attention_mask: Any = None,
        causal: bool = False,
        return_weights: bool = False,
    ) -> Any:
        """Attend.

        Args:
            query: (L, N, E).
            key: (S, N, kdim); None is the query.
            value: (S, N, vdim); None is the key.
            lengths: Keys of each row that count, N integers; the others are padding.
            mask: Instead of lengths: (S, N), 0 where a key is padding ((N, S) with batch_first).
            attention_mask: (L, S), or (N, L, S), or (N, num_heads, L, S): 0 where a query must not look at a key.
            causal: Whether a query looks at no later position than its own.
            return_weights: Whether to return the attention weights too.

        Returns:
            (L, N, E), or with return_weights a pair of it and the weights (N, num_heads, L, S).
        """
        key = query if key is None else key
        value = key if value is None else value
        operands = (("query", query, self.embed_dim), ("key", key, self.kdim), ("value", value, self.vdim))
        for name, x, size in operands:
            self._check(name, x, size)
        batch, time = (0, 1) if self.batch_first else (1, 0)
        n, steps, keys = query.shape[batch], query.shape[time], key.shape[time]
        if key.shape[batch] != n or value.shape[:2] != key.shape[:2]:
            raise ShapeError(f"MultiHeadAttention: query {query.shape}, key {key.shape} and value {value.shape} do not belong together")
        masks = self._masks(key, lengths, mask, attention_mask, causal, n, steps, keys)
        q, k, v = self._rows_first(self.q_proj, query), self._rows_first(self.k_proj, key), self._rows_first(self.v_proj, value)
        if masks or return_weights or (self.training and self.dropout):
            mixed, weights = self._masked(q, k, v, masks)
        else:
            mixed, weights = attend(q, k, v, self.num_heads), None
        mixed = mixed if self.batch_first else mixed.transpose(1, 0, 2)
        y = self.out_proj(_rows(mixed)).reshape(query.shape)
        return (y, weights) if return_weights else y

    def _check(self, name: str, x: Any, size: int) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"MultiHeadAttention: {name} must be a Tensor, got {type(x).__name__}")
        if x.ndim != 3 or x.shape[2] != size:
            axes = "(N, L, {})" if self.batch_first else "(L, N, {})"
            raise ShapeError(f"MultiHeadAttention: expected {name} {axes.format(size)}, got shape {x.shape}")

    def _rows_first(self, projection: Linear, x: Tensor) -> Tensor:
        """x projected: (N, length, E)."""
        y = projection(_rows(x)).reshape((*x.shape[:2], self.embed_dim))
        return y if self.batch_first else y.transpose(1, 0, 2)

    def _masked(self, q: Tensor, k: Tensor, v: Tensor, masks: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The mixture (N, L, E) and the weights, written out: with masks and dropout."""
        q, k, v = (split_heads(x, self.num_heads) for x in (q, k, v))
        scores = gemm(q * (1.0 / math.sqrt(self.embed_dim // self.num_heads)), k, tb=True)
        for seen in masks:
            scores = where(seen, scores, MASKED)
        weights = softmax(scores, -1)
        return join_heads(matmul(self.drop(weights), v)), weights

    def _masks(
        self, key: Tensor, lengths: Any, mask: Any, attention_mask: Any, causal: bool, n: int, steps: int, keys: int
    ) -> list[Tensor]:
        """Tensors that broadcast over (N, heads, L, S), 0 where nothing may be seen."""
        found = []
        if lengths is not None or mask is not None:
            if self.batch_first and mask is not None:
                mask = as_mask(mask, key).transpose(1, 0)
            time_first = key.transpose(1, 0, 2) if self.batch_first else key
            live = live_steps(time_first, lengths, mask, "MultiHeadAttention")
            assert live is not None
            found.append(live.transpose(1, 0).reshape((n, 1, 1, keys)))
        if attention_mask is not None:
            seen = as_mask(attention_mask, key)
            shapes = {2: (1, 1, steps, keys), 3: (n, 1, steps, keys), 4: (n, self.num_heads, steps, keys)}
            want = shapes.get(seen.ndim)
            if want is None or seen.shape not in ((steps, keys), (n, steps, keys), want):
                raise ShapeError(
                    f"MultiHeadAttention: attention_mask has shape {seen.shape}, expected {(steps, keys)} with or without (N, heads)"
                )
            found.append(seen.reshape(want))
        if causal:
            found.append(tril(full(key, (steps, keys), 1.0, key.dtype)))
        return found

    def get_config(self) -> dict[str, Any]:
        """``embed_dim, num_heads, dropout, bias, batch_first``, and further ones that are not as usual."""
        config = {
            "embed_dim": self.embed_dim,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "bias": self.bias,
            "batch_first": self.batch_first,
        }
        extras = {"kdim": self.kdim, "vdim": self.vdim, "device": str(self.device), "dtype": self.dtype.name}
        return config | without_defaults(extras, {"kdim": self.embed_dim, "vdim": self.embed_dim, "device": "cpu", "dtype": "float32"})


@register_module()
class TransformerEncoderLayer(Layer):
    """Self-attention and a two-layer network per position, each with a way around it and a layer normalisation.

    ``x = norm1(x + attention(x)); x = norm2(x + linear2(activation(linear1(x))))``, or with norm_first
    ``x = x + attention(norm1(x)); x = x + linear2(activation(linear1(norm2(x))))``; dropout on both branches and inside.

    Args:
        d_model: Features E of the sequence, a multiple of nhead.
        nhead: Heads of the attention, at least 1.
        dim_feedforward: Features between linear1 and linear2, at least 1.
        dropout: Probability in [0, 1) of all dropouts.
        activation: ``"relu"`` or ``"gelu"``.
        norm_first: Whether to normalise before the branches instead of after the sums.
        batch_first: Whether sequences are (N, L, E) instead of (L, N, E).
        eps: Of the normalisations.
        bias: Whether the projections and linear layers have a bias.
        device: Where the parameters live; None is the cpu.
        dtype: float32 (default) or float64.

    Shapes: x (L, N, E) -> (L, N, E).

    Raises:
        ValueError: A size below 1, d_model no multiple of nhead, an unknown activation, or x of another shape.
        TypeError: x is no Tensor.

    Example:
        >>> from keydnn.nn import TransformerEncoderLayer
        >>> TransformerEncoderLayer(8, 2, 16)(keydnn.ones((5, 3, 8))).shape
        (5, 3, 8)

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; norm_first: Xiong et al. 2020, https://arxiv.org/abs/2002.04745
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
        norm_first: bool = False,
        batch_first: bool = False,
        eps: float = 1e-5,
        bias: bool = True,
        device: Device | str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"TransformerEncoderLayer: activation must be 'relu' or 'gelu', got {activation!r}")
        self.attention = MultiHeadAttention(d_model, nhead, dropout, bias, batch_first, device=device, dtype=dtype)
        self.d_model, self.nhead = self.attention.embed_dim, self.attention.num_heads
        self.dim_feedforward = positive_int("dim_feedforward", dim_feedforward, self)
        self.activation = activation
        self.norm_first = bool(norm_first)
        self.batch_first = bool(batch_first)
        self.bias = bool(bias)
        self.linear1 = Linear(self.d_model, self.dim_feedforward, bias, device, dtype)
        self.act = ACTIVATIONS[activation]()
        self.linear2 = Linear(self.dim_feedforward, self.d_model, bias, device, dtype)
        self.norm1 = LayerNorm(self.d_model, device=device, eps=eps, dtype=dtype)
        self.norm2 = LayerNorm(self.d_model, device=device, eps=eps, dtype=dtype)
        self.drop = Dropout(dropout)
        self.device, self.dtype = self.linear1.device, self.linear1.dtype

    def forward(self, x: Tensor, *, lengths: Any = None, mask: Any = None, attention_mask: Any = None, causal: bool = False) -> Tensor:
        """One block.

        Args:
            x: (L, N, E).
            lengths: Positions of each row that count, N integers; the others are padding, which nothing attends to.
            mask: Instead of lengths: (L, N), 0 at padding ((N, L) with batch_first).
            attention_mask: As for :class:`MultiHeadAttention`.
            causal: Whether a position sees no later one.
        """
        masks = {"lengths": lengths, "mask": mask, "attention_mask": attention_mask, "causal": causal}
        if self.norm_first:
            x = x + self.drop(self.attention(self.norm1(x), **masks))
            return x + self.drop(self._network(self.norm2(x)))
        x = self.norm1(x + self.drop(self.attention(x, **masks)))
        return self.norm2(x + self.drop(self._network(x)))

    def _network(self, x: Tensor) -> Tensor:
        return self.linear2(self.drop(self.act(self.linear1(_rows(x))))).reshape(x.shape)

    def get_config(self) -> dict[str, Any]:
        """``d_model, nhead, dim_feedforward, dropout, activation, norm_first, batch_first``, and further ones that are not as usual."""
        config = {
            "d_model": self.d_model,
            "nhead": self.nhead,
            "dim_feedforward": self.dim_feedforward,
            "dropout": self.attention.dropout,
            "activation": self.activation,
            "norm_first": self.norm_first,
            "batch_first": self.batch_first,
        }
        extras = {"eps": self.norm1.eps, "bias": self.bias, "device": str(self.device), "dtype": self.dtype.name}
        return config | without_defaults(extras, {"eps": 1e-5, "bias": True, "device": "cpu", "dtype": "float32"})


def _rows(x: Tensor) -> Tensor:
    """(L, N, E) seen as (L * N, E)."""
    return x.reshape((x.shape[0] * x.shape[1], x.shape[2]))
