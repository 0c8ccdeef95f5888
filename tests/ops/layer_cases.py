"""Rows of the op table: products, convolution, pooling, normalisation, losses, dropout.

The float64 definitions are the loops of `tests/kernels/definitions.py`.
"""

import numpy as np

from keydnn import ops
from keydnn.ops import conv, pool
from tests.kernels import definitions as d
from tests.ops.op_cases import Case, distinct, given, normal, positive, uniform

LOOSE = {"rtol": (2e-5, 1e-12), "atol": (2e-5, 1e-12)}


def product(name, op, define, *operands, torch=True, **more):
    return Case(name, op, operands, define, (lambda t, *xs: op(*xs)) if torch is True else torch, **LOOSE, **more)


def matmul(name, *shapes):
    return product(f"matmul-{name}", lambda a, b: a @ b, np.matmul, *(normal(*s) for s in shapes))


def einsum(text, *shapes, torch=True):
    def run(*xs):
        return ops.einsum(text, *xs)

    return product(
        f"einsum-{text}",
        run,
        lambda *xs: np.einsum(text, *xs),
        *(normal(*s) for s in shapes),
        torch=(lambda t, *xs: t.einsum(text, *xs)) if torch else None,
    )


def gemm(ta, tb):
    def run(a, b):
        return ops.linalg.gemm(a, b, ta=ta, tb=tb)

    shapes = [(2, 4, 3) if ta else (2, 3, 4), (5, 4) if tb else (4, 5)]
    return product(f"gemm-{ta}-{tb}", run, lambda a, b: d.matmul(a, b, ta, tb), *(normal(*s) for s in shapes), torch=None)


PRODUCTS = [
    matmul("2-2", (3, 4), (4, 2)),
    matmul("1-1", (4,), (4,)),
    matmul("1-2", (4,), (4, 2)),
    matmul("2-1", (3, 4), (4,)),
    matmul("1-3", (4,), (2, 4, 3)),
    matmul("3-1", (2, 3, 4), (4,)),
    matmul("3-3", (2, 3, 4), (2, 4, 3)),
    matmul("broadcast", (2, 1, 3, 4), (5, 4, 3)),
    matmul("3-2", (2, 3, 4), (4, 3)),
    matmul("nothing-inside", (3, 0), (0, 2)),
    *[gemm(ta, tb) for ta in (False, True) for tb in (False, True)],
    product("matmul-self", lambda x: x @ x, lambda x: x @ x, normal(3, 3)),
    product("dot", lambda a, b: a.dot(b), np.dot, normal(4), normal(4)),
    product("outer", lambda a, b: a.outer(b), np.outer, normal(3), normal(4)),
    product("linear", ops.linear, d.linear, normal(3, 4), normal(2, 4), normal(2), torch=lambda t, *xs: t.nn.functional.linear(*xs)),
    product("linear-no-bias", ops.linear, lambda x, w: x @ w.T, normal(3, 4), normal(2, 4), torch=None),
    einsum("ij,jk->ik", (2, 3), (3, 4)),
    einsum("bij,bjk", (2, 3, 4), (2, 4, 2)),
    einsum("i,j->ij", (3,), (4,)),
    einsum("ij->", (3, 4)),
    einsum("ijk->kj", (2, 3, 4)),
    einsum("ij,kj,kl->il", (2, 3), (4, 3), (4, 2)),
    einsum("ij,k->i", (2, 3), (4,)),
    einsum("...ij,...jk->...ik", (2, 3, 4), (2, 4, 2)),
    einsum("i...,i...->...", (3, 2, 2), (3, 2, 2)),
    einsum("...i->i...", (2, 3, 4)),
    einsum("ij,ij->ij", (2, 3), (2, 3)),
    einsum(",i->i", (), (3,)),
]

GEOMETRIES = {
    "plain": {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1},
    "stride": {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 1), "groups": 1},
    "dilation": {"stride": (1, 2), "padding": (2, 0), "dilation": (2, 1), "groups": 1},
    "groups": {"stride": (2, 2), "padding": (1, 0), "dilation": (1, 1), "groups": 2},
}


def convolution(label, g, bias):
    operands = (normal(2, 2, 4, 5), normal(4, 2 // g["groups"], 3, 2), *([normal(4)] if bias else []))
    return Case(
        f"conv2d-{label}{'-bias' if bias else ''}",
        lambda x, w, b=None: ops.conv2d(x, w, b, **g),
        operands,
        lambda x, w, b=None: d.conv2d(x, w, b, **g),
        lambda t, x, w, b=None: t.nn.functional.conv2d(x, w, b, **g),
        **LOOSE,
    )


def transposed(label, g, bias, extra=(0, 0)):
    """The gradient of a convolution to its input, stated by the loops of the definitions."""

    def size(x, w):
        zipped = zip(x.shape[2:], g["stride"], g["padding"], g["dilation"], w.shape[2:], extra, strict=True)
        return tuple((n - 1) * s - 2 * p + dil * (k - 1) + 1 + op for n, s, p, dil, k, op in zipped)

    def define(x, w, b=None):
        y = d.conv2d_grad_x(x, w, size(x, w), **g)
        return y if b is None else y + b[:, None, None]

    operands = (normal(2, 2, 3, 4), normal(2, 4 // g["groups"], 3, 2), *([normal(4)] if bias else []))
    return Case(
        f"conv2d_transpose-{label}{'-bias' if bias else ''}",
        lambda x, w, b=None: ops.conv2d_transpose(x, w, b, output_padding=extra, **g),
        operands,
        define,
        lambda t, x, w, b=None: t.nn.functional.conv_transpose2d(x, w, b, output_padding=extra, **g),
        **LOOSE,
    )


PAIRED = ((2, 1), (1, 2), (1, 1), 1)  # stride, padding, dilation, groups of the pieces below
CONVOLUTIONS = [
    *[convolution(label, g, bias) for label, g in GEOMETRIES.items() for bias in (False, True)],
    *[transposed(label, g, bias) for label, g in GEOMETRIES.items() for bias in (False, True)],
    transposed("output-padding", GEOMETRIES["groups"], True, (1, 1)),
    Case(
        "conv2d_grad_x",
        lambda g, w: conv.conv2d_grad_x(g, w, size=(5, 6), geometry=PAIRED),
        (normal(1, 3, 3, 9), normal(3, 2, 3, 2)),
        lambda g, w: d.conv2d_grad_x(g, w, (5, 6), *PAIRED),
        typed=(),
        **LOOSE,
    ),
    Case(
        "conv2d_grad_w",
        lambda x, g: conv.conv2d_grad_w(x, g, kernel=(3, 2), geometry=PAIRED),
        (normal(1, 2, 5, 6), normal(1, 3, 3, 9)),
        lambda x, g: d.conv2d_grad_w(x, g, (3, 2), *PAIRED),
        typed=(),
        **LOOSE,
    ),
]

WINDOWS = [((2, 2), None, (0, 0)), ((3, 2), (2, 1), (1, 1)), ((2, 3), (3, 3), (1, 0))]


def _pool_id(window):
    return "-".join("x".join(map(str, p)) if p else "same" for p in window)


ARGMAX = given([[[[7, 7, 10], [13, 16, 7]]]], np.int64)  # positions in a padded plane of 4 x 6, one of them three times
POOLS = [
    *[
        Case(
            f"maxpool2d-{_pool_id(w)}",
            lambda x, w=w: ops.maxpool2d(x, *w),
            (distinct(2, 2, 5, 6),),
            lambda x, w=w: d.maxpool2d(x, w[0], w[1] or w[0], w[2])[0],
            lambda t, x, w=w: t.nn.functional.max_pool2d(x, *w),
        )
        for w in WINDOWS
    ],
    *[
        Case(
            f"avgpool2d-{_pool_id(w)}",
            lambda x, w=w: ops.avgpool2d(x, *w),
            (normal(2, 2, 5, 6),),
            lambda x, w=w: d.avgpool2d(x, w[0], w[1] or w[0], w[2]),
            lambda t, x, w=w: t.nn.functional.avg_pool2d(x, *w),
        )
        for w in WINDOWS
    ],
    Case("global_avgpool2d", ops.global_avgpool2d, (normal(2, 3, 4, 5),), d.global_avgpool2d, lambda t, x: x.mean((2, 3), keepdim=True)),
    Case(
        "maxpool2d_take",
        lambda x, i: pool.maxpool2d_take(x, i, padding=(1, 1)),
        (normal(1, 1, 2, 4), ARGMAX),
        lambda x, i: d.maxpool2d_take(x, i, (1, 1)),
    ),
    Case(
        "maxpool2d_grad",
        lambda g, i: pool.maxpool2d_grad(g, i, size=(2, 4), padding=(1, 1)),
        (normal(1, 1, 2, 3), ARGMAX),
        lambda g, i: d.maxpool2d_grad(g, i, (2, 4), (1, 1)),
    ),
    Case(
        "avgpool2d_grad",
        lambda g: pool.avgpool2d_grad(g, size=(5, 6), kernel=(3, 2), stride=(2, 1), padding=(1, 1)),
        (normal(2, 2, 3, 7),),
        lambda g: d.avgpool2d_grad(g, (5, 6), (3, 2), (2, 1), (1, 1)),
    ),
]


def per_channel(v, x):
    return v.reshape((1, -1) + (1,) * (x.ndim - 2))


def normalize_by(x, mean, var, gamma=None, beta=None):
    y = (x - per_channel(mean, x)) / np.sqrt(per_channel(var, x) + 1e-3)
    return y if gamma is None else y * per_channel(gamma, x) + per_channel(beta, x)


NORMS = [
    Case(
        f"batch_norm-{len(shape)}{'-affine' if affine else ''}",
        lambda x, *affine: ops.batch_norm(x, *affine, eps=1e-3)[0],
        (normal(*shape), *([positive(3), normal(3)] if affine else [])),
        lambda x, gamma=None, beta=None: d.batch_norm(x, gamma, beta, 1e-3)[0],
        lambda t, x, gamma=None, beta=None: t.nn.functional.batch_norm(x, None, None, gamma, beta, True, 0.1, 1e-3),
        **LOOSE,
    )
    for shape in ((5, 3), (2, 3, 2, 2))
    for affine in (False, True)
]
NORMS += [
    Case(
        f"normalize_by{'-affine' if affine else ''}",
        lambda x, *rest: ops.normalize_by(x, *rest, eps=1e-3),
        (normal(2, 3, 2, 2), normal(3), positive(3), *([positive(3), normal(3)] if affine else [])),
        normalize_by,
        lambda t, x, mean, var, *affine: t.nn.functional.batch_norm(x, mean, var, *affine, training=False, eps=1e-3),
        fixed=(1, 2),
        **LOOSE,
    )
    for affine in (False, True)
]
NORMS += [
    Case(
        f"layer_norm-{n}{'-affine' if affine else ''}",
        lambda x, *affine, n=n: ops.layer_norm(x, x.shape[3 - n :], *affine, eps=1e-3),
        (normal(2, 3, 4), *([positive(*(2, 3, 4)[3 - n :]), normal(*(2, 3, 4)[3 - n :])] if affine else [])),
        lambda x, gamma=None, beta=None, n=n: d.layer_norm(x, gamma, beta, n, 1e-3)[0],
        lambda t, x, gamma=None, beta=None, n=n: t.nn.functional.layer_norm(x, x.shape[3 - n :], gamma, beta, 1e-3),
        **LOOSE,
    )
    for n in (1, 2, 3)
    for affine in (False, True)
]


def log_softmax(z):
    return z - np.log(np.exp(z).sum(1, keepdims=True))


LABELS = given([2, 0, 1, 2], np.int64)
ONE_HOT = given(np.eye(3)[[2, 0, 1, 2]])
LOSSES = [
    Case(
        "sse",
        ops.sse,
        (normal(3, 4), normal(3, 4)),
        lambda p, y: ((p - y) ** 2).sum(),
        lambda t, p, y: t.nn.functional.mse_loss(p, y, reduction="sum"),
        **LOOSE,
    ),
    Case(
        "mse",
        ops.mse,
        (normal(3, 4), normal(3, 4)),
        lambda p, y: ((p - y) ** 2).mean(),
        lambda t, p, y: t.nn.functional.mse_loss(p, y),
        **LOOSE,
    ),
    Case(
        "bce",
        ops.bce,
        (uniform(0.1, 0.9, 3, 4), uniform(0, 1, 3, 4)),
        lambda p, y: -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(),
        lambda t, p, y: t.nn.functional.binary_cross_entropy(p, y),
        fixed=(1,),
        **LOOSE,
    ),
    Case("cce", ops.cce, (uniform(0.1, 0.9, 4, 3), ONE_HOT), lambda p, y: -(y * np.log(p)).sum() / 4, fixed=(1,), **LOOSE),
    Case(
        "bce_logits",
        ops.bce_logits,
        (normal(3, 4), uniform(0, 1, 3, 4)),
        lambda z, y: (np.logaddexp(0, z) - y * z).mean(),
        lambda t, z, y: t.nn.functional.binary_cross_entropy_with_logits(z, y),
        fixed=(1,),
        **LOOSE,
    ),
    Case(
        "cross_entropy",
        ops.cross_entropy,
        (normal(4, 3), LABELS),
        lambda z, y: -log_softmax(z)[np.arange(4), y].mean(),
        lambda t, z, y: t.nn.functional.cross_entropy(z, y),
        **LOOSE,
    ),
    Case(
        "cross_entropy-soft",
        ops.cross_entropy,
        (normal(4, 3), uniform(0, 1, 4, 3)),
        lambda z, y: -(y * log_softmax(z)).sum() / 4,
        lambda t, z, y: t.nn.functional.cross_entropy(z, y),
        fixed=(1,),
        **LOOSE,
    ),
]


def dropout(x):
    np.random.seed(3)
    return ops.dropout(x, 0.4)


def dropped(x):
    np.random.seed(3)
    return x * d.dropout_mask(np.random.randint(0, 2**63, dtype=np.int64), x.shape, 0.4, np.float32)


CASES = [*PRODUCTS, *CONVOLUTIONS, *POOLS, *NORMS, *LOSSES, Case("dropout", dropout, (normal(4, 5),), dropped)]
