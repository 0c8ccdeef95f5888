"""Operations on tensors: one file per family, each with its shape rule, forward rule and gradient."""

from keydnn.ops.activation import elu, gelu, leaky_relu, log_softmax, relu, sigmoid, silu, softmax, softplus, tanh
from keydnn.ops.attention import attention
from keydnn.ops.conv import conv2d, conv2d_transpose
from keydnn.ops.elementwise import (
    abs,
    ceil,
    cos,
    erf,
    exp,
    expm1,
    floor,
    log,
    log1p,
    maximum,
    minimum,
    neg,
    reciprocal,
    round,
    rsqrt,
    sign,
    sin,
    sqrt,
    square,
    where,
)
from keydnn.ops.linalg import dot, einsum, linear, matmul, outer
from keydnn.ops.lookup import embedding
from keydnn.ops.loss import bce, bce_logits, cce, cross_entropy, mse, sse
from keydnn.ops.loss_terms import cross_entropy_rows, hinge, huber, kl, mae
from keydnn.ops.normalization import batch_norm, layer_norm, normalize_by
from keydnn.ops.pool import avgpool2d, global_avgpool2d, maxpool2d
from keydnn.ops.power import pow
from keydnn.ops.random import dropout
from keydnn.ops.recurrent import gru, lstm, rnn, rnn_cell, sequence_mask
from keydnn.ops.reduce import all, any, argmax, argmin, cumsum, logsumexp, max, mean, min, norm, prod, std, sum, var
from keydnn.ops.shape import (
    broadcast_to,
    chunk,
    concat,
    expand,
    flatten,
    flip,
    gather,
    pad,
    permute,
    repeat,
    reshape,
    roll,
    scatter_add,
    split,
    squeeze,
    stack,
    sum_to_shape,
    swapaxes,
    take,
    tile,
    transpose,
    tril,
    triu,
    unsqueeze,
)

__all__ = [
    "abs", "all", "any", "argmax", "argmin", "attention", "avgpool2d", "batch_norm", "bce", "bce_logits", "broadcast_to", "cce",
    "ceil", "chunk", "concat", "conv2d", "conv2d_transpose", "cos", "cross_entropy", "cross_entropy_rows", "cumsum", "dot", "dropout",
    "einsum", "elu", "embedding", "erf", "exp", "expand", "expm1", "flatten", "flip", "floor", "gather", "gelu", "global_avgpool2d",
    "gru", "hinge", "huber", "kl", "layer_norm", "leaky_relu", "linear", "log", "log1p", "log_softmax", "logsumexp", "lstm", "mae",
    "matmul", "max", "maximum", "maxpool2d", "mean", "min", "minimum", "mse", "neg", "norm", "normalize_by", "outer", "pad",
    "permute", "pow", "prod", "reciprocal", "relu", "repeat", "reshape", "rnn", "rnn_cell", "roll", "round", "rsqrt", "scatter_add",
    "sequence_mask", "sigmoid", "sign", "silu", "sin", "softmax", "softplus", "split", "sqrt", "square", "squeeze", "sse", "stack",
    "std", "sum", "sum_to_shape", "swapaxes", "take", "tanh", "tile", "transpose", "tril", "triu", "unsqueeze", "var", "where",
]  # fmt: skip
