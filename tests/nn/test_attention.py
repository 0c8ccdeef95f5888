"""Attention and embedding: masks, what is refused, and PyTorch."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import keydnn
from keydnn import nn


def random(*shape, seed=0, grad=False):
    return keydnn.Tensor(data=np.random.default_rng(seed).normal(size=shape), dtype=np.float64, requires_grad=grad)


def attention(**how):
    np.random.seed(0)
    return nn.MultiHeadAttention(4, 2, dtype="f8", **how)


def test_causal_positions_see_nothing_later():
    x, layer = random(5, 2, 4), attention()
    y = layer(x, causal=True).numpy()
    for n in range(1, 6):
        assert_allclose(layer(x[:n], causal=True).numpy()[-1], y[n - 1], rtol=1e-12)
    weights = layer(x, causal=True, return_weights=True)[1].numpy()
    assert weights.shape == (2, 2, 5, 5)
    assert_array_equal(weights[..., np.triu_indices(5, 1)[0], np.triu_indices(5, 1)[1]], 0.0)
    assert_allclose(weights.sum(-1), 1.0, rtol=1e-12)


@pytest.mark.parametrize("batch_first", [False, True])
def test_padding_is_not_looked_at(batch_first):
    x, layer = random(2, 5, 4, grad=True), attention(batch_first=batch_first)
    shaped = x if batch_first else x.transpose(1, 0, 2)
    live = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    mask = live if batch_first else live.T
    y = layer(shaped, mask=mask)
    assert_array_equal(y.numpy(), layer(shaped, lengths=[3, 5]).numpy())
    short = x[:1, :3] if batch_first else x[:1, :3].transpose(1, 0, 2)
    part = y[:1, :3] if batch_first else y[:3, :1]
    assert_allclose(part.numpy(), layer(short).numpy(), rtol=1e-12)
    (part * part).sum().backward()
    grads = x.grad.numpy()
    assert np.abs(grads[0, :3]).min() > 0
    assert_array_equal(grads[0, 3:], 0.0)


def test_shapes_of_attention_masks():
    x, layer = random(3, 2, 4), attention()
    seen = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1]])
    want = layer(x, causal=True).numpy()
    for mask in (seen, np.stack([seen] * 2), np.stack([np.stack([seen] * 2)] * 2), keydnn.tensor(seen.astype("f4"))):
        assert_array_equal(layer(x, attention_mask=mask).numpy(), want)
    assert np.isfinite(layer(x, attention_mask=np.zeros((3, 3))).numpy()).all()
    assert_array_equal(layer(x, attention_mask=seen, causal=True).numpy(), want)


def test_dropout_of_the_weights():
    x, layer = random(6, 2, 4), attention(dropout=0.5)
    assert not np.array_equal(layer(x).numpy(), layer(x).numpy())
    assert_array_equal(layer.eval()(x).numpy(), layer(x).numpy())
    block = nn.TransformerEncoderLayer(4, 2, 8, dtype="f8")
    assert not np.array_equal(block(x).numpy(), block(x).numpy())
    assert_array_equal(block.eval()(x).numpy(), block(x).numpy())


X = keydnn.zeros((3, 2, 4))
WRONG = {
    "heads": (lambda: nn.MultiHeadAttention(4, 3), ValueError, "embed_dim 4 is no multiple of num_heads 3"),
    "tensor": (lambda: nn.MultiHeadAttention(4, 2)(1.0), TypeError, "query must be a Tensor, got float"),
    "query": (lambda: nn.MultiHeadAttention(6, 2)(X), ValueError, r"expected query \(L, N, 6\), got shape \(3, 2, 4\)"),
    "key": (lambda: nn.MultiHeadAttention(4, 2, kdim=3)(X), ValueError, r"expected key \(L, N, 3\)"),
    "batches": (lambda: nn.MultiHeadAttention(4, 2)(X, X[:, :1]), ValueError, "do not belong together"),
    "mask": (lambda: nn.MultiHeadAttention(4, 2)(X, mask=[[1, 1]]), ValueError, r"mask has shape \(1, 2\)"),
    "attention_mask": (lambda: nn.MultiHeadAttention(4, 2)(X, attention_mask=[[1, 1]]), ValueError, r"expected \(3, 3\)"),
    "activation": (lambda: nn.TransformerEncoderLayer(4, 2, activation="tanh"), ValueError, "must be 'relu' or 'gelu', got 'tanh'"),
    "rows": (lambda: nn.Embedding(0, 2), ValueError, "num_embeddings must be at least 1"),
    "padding": (lambda: nn.Embedding(4, 2, padding_idx=4), ValueError, "padding_idx must be a row of 4, got 4"),
    "no index": (lambda: nn.Embedding(4, 2)([1]), TypeError, "expected a Tensor of integers, got list"),
    "floats": (lambda: keydnn.ops.embedding(X[0], X), TypeError, "expected integer numbers of rows, got dtype float32"),
    "coarse floats": (lambda: nn.Embedding(2049, 1)(X.astype("f2")), TypeError, "float16 does not tell 2049 rows apart"),
    "outside": (lambda: nn.Embedding(4, 2)(keydnn.Tensor(data=np.array([1, 4]), dtype=np.int64)), IndexError, "4"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_refused(what):
    call, error, text = WRONG[what]
    with pytest.raises(error, match=text):
        call()


def test_embedding_with_padding():
    layer = nn.Embedding(5, 3, padding_idx=-4)
    assert layer.get_config() == {"num_embeddings": 5, "embedding_dim": 3, "padding_idx": 1}
    assert_array_equal(layer.weight.numpy()[1], 0.0)
    index = keydnn.Tensor(data=np.array([[1, 2, 2], [0, 1, 2]]), dtype=np.int64)
    y = layer(index)
    y.sum().backward()
    assert_array_equal(layer.weight.grad.numpy()[:, 0], [1, 0, 3, 0, 0])
    assert_array_equal(layer(index.astype("f4")).numpy(), y.numpy())
    scaled = nn.Embedding(5, 3, initializer="zeros")
    assert scaled.get_config()["initializer"] == "zeros" and nn.Embedding.from_config(scaled.get_config()).weight.sum().item() == 0.0


# -- PyTorch


def torch_attention(layer, **how):
    import torch

    other = torch.nn.MultiheadAttention(layer.embed_dim, layer.num_heads, batch_first=layer.batch_first, dtype=torch.float64, **how)
    put_attention(layer, other)
    return other


def put_attention(layer, other):
    import torch

    parts = (layer.q_proj, layer.k_proj, layer.v_proj)
    if other.in_proj_weight is None:
        for name, part in zip("qkv", parts, strict=True):
            getattr(other, f"{name}_proj_weight").data = torch.tensor(part.weight.numpy())
    else:
        other.in_proj_weight.data = torch.tensor(np.concatenate([p.weight.numpy() for p in parts]))
    other.in_proj_bias.data = torch.tensor(np.concatenate([p.bias.numpy() for p in parts]))
    other.out_proj.weight.data = torch.tensor(layer.out_proj.weight.numpy())
    other.out_proj.bias.data = torch.tensor(layer.out_proj.bias.numpy())


@pytest.mark.torch
@pytest.mark.parametrize("batch_first", [False, True])
def test_attention_is_pytorchs(batch_first):
    import torch

    layer = nn.MultiHeadAttention(4, 2, batch_first=batch_first, kdim=3, vdim=5, dtype="f8")
    for bias in (layer.q_proj.bias, layer.out_proj.bias):
        bias.copy_from_numpy(np.random.default_rng(5).normal(size=4))
    other = torch_attention(layer, kdim=3, vdim=5)
    sizes = [(3, 2), (6, 2), (6, 2)]
    q, k, v = (random(*(size[::-1] if batch_first else size), d, seed=d, grad=True) for size, d in zip(sizes, (4, 3, 5), strict=True))
    tensors = [torch.tensor(t.numpy(), requires_grad=True) for t in (q, k, v)]
    live = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    y, weights = layer(q, k, v, mask=live if batch_first else live.T, return_weights=True)
    want, seen = other(*tensors, key_padding_mask=torch.tensor(live == 0), average_attn_weights=False)
    assert_allclose(y.numpy(), want.detach().numpy(), rtol=1e-12, atol=1e-15)
    assert_allclose(weights.numpy(), seen.detach().numpy(), rtol=1e-12, atol=1e-15)
    (y * y).sum().backward()
    (want * want).sum().backward()
    for t, other_t in zip((q, k, v), tensors, strict=True):
        assert_allclose(t.grad.numpy(), other_t.grad.numpy(), rtol=1e-10, atol=1e-14)
    assert_allclose(layer.q_proj.weight.grad.numpy(), other.q_proj_weight.grad.numpy(), rtol=1e-10, atol=1e-14)


@pytest.mark.torch
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_block_is_pytorchs(norm_first, activation):
    import torch

    how = {"dropout": 0.0, "activation": activation, "norm_first": norm_first}
    layer = nn.TransformerEncoderLayer(4, 2, 6, dtype="f8", eps=1e-3, **how)
    other = torch.nn.TransformerEncoderLayer(4, 2, 6, layer_norm_eps=1e-3, dtype=torch.float64, **how)
    put_attention(layer.attention, other.self_attn)
    for name in ("linear1", "linear2"):
        getattr(other, name).weight.data = torch.tensor(getattr(layer, name).weight.numpy())
        getattr(other, name).bias.data = torch.tensor(getattr(layer, name).bias.numpy())
    x = random(5, 2, 4, grad=True)
    tx = torch.tensor(x.numpy(), requires_grad=True)
    causal = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
    y, want = layer(x, causal=True), other(tx, src_mask=causal)
    assert_allclose(y.numpy(), want.detach().numpy(), rtol=1e-11, atol=1e-14)
    (y * y * y).sum().backward()
    (want * want * want).sum().backward()
    assert_allclose(x.grad.numpy(), tx.grad.numpy(), rtol=1e-9, atol=1e-13)
    assert_allclose(layer.linear1.weight.grad.numpy(), other.linear1.weight.grad.numpy(), rtol=1e-9, atol=1e-13)
