"""The layers in float64, as loops and sums that can be read off the formulas."""

from itertools import product
from math import erf

import numpy as np


def conv2d(x, w, b=None, stride=(1, 1), sides=((0, 0), (0, 0)), dilation=(1, 1), groups=1):
    """Cross-correlation, one output cell at a time."""
    x = np.pad(x, ((0, 0), (0, 0), *sides))
    n, c = x.shape[:2]
    o, per_group, kh, kw = w.shape
    h, v = ((x.shape[2 + i] - dilation[i] * (w.shape[2 + i] - 1) - 1) // stride[i] + 1 for i in (0, 1))
    y = np.zeros((n, o, h, v))
    for k, i, j in product(range(o), range(h), range(v)):
        first = k // (o // groups) * per_group
        window = x[:, first : first + per_group, i * stride[0] :, j * stride[1] :]
        window = window[:, :, : dilation[0] * (kh - 1) + 1 : dilation[0], : dilation[1] * (kw - 1) + 1 : dilation[1]]
        y[:, k, i, j] = (window * w[k]).sum((1, 2, 3))
    return y if b is None else y + b[:, None, None]


def conv2d_transpose(x, w, b, stride, padding, output_padding, dilation=(1, 1), groups=1):
    """Every input cell adds its multiple of the kernel to the output."""
    n, c, height, width = x.shape
    _, per_group, kh, kw = w.shape
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, (kh, kw), strict=True)]
    full = [(size - 1) * s + span + op for size, s, span, op in zip((height, width), stride, spans, output_padding, strict=True)]
    y = np.zeros((n, per_group * groups, *full))
    for k, i, j, u, v in product(range(c), range(height), range(width), range(kh), range(kw)):
        first = k // (c // groups) * per_group
        row, column = i * stride[0] + u * dilation[0], j * stride[1] + v * dilation[1]
        y[:, first : first + per_group, row, column] += x[:, k, i, j, None] * w[k, :, u, v]
    y = y[:, :, padding[0] : full[0] - padding[0], padding[1] : full[1] - padding[1]]
    return y if b is None else y + b[:, None, None]


def pool2d(x, reduce, kernel, stride, padding, border):
    """``reduce`` of every window of x framed with ``border``."""
    x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)), constant_values=border)
    h, w = ((x.shape[2 + i] - kernel[i]) // stride[i] + 1 for i in (0, 1))
    y = np.zeros((*x.shape[:2], h, w))
    for i, j in product(range(h), range(w)):
        y[:, :, i, j] = reduce(x[:, :, i * stride[0] :, j * stride[1] :][:, :, : kernel[0], : kernel[1]], axis=(2, 3))
    return y


def normalized(x, axes, eps, gamma=None, beta=None, mean=None, var=None):
    """(x - mean) / sqrt(var + eps), scaled; statistics over ``axes`` unless given."""
    mean = x.mean(axes, keepdims=True) if mean is None else mean
    var = ((x - mean) ** 2).mean(axes, keepdims=True) if var is None else var
    y = (x - mean) / np.sqrt(var + eps)
    return y if gamma is None else y * gamma + beta


def channels(v, ndim):
    """(C,) beside (N, C, ...)."""
    return None if v is None else v.reshape(1, -1, *(1,) * (ndim - 2))


def batch_norm(x, eps, gamma=None, beta=None, **running):
    return normalized(x, (0, *range(2, x.ndim)), eps, channels(gamma, x.ndim), channels(beta, x.ndim))


def batch_norm_eval(x, eps, running_mean, running_var, gamma=None, beta=None):
    return normalized(x, None, eps, *(channels(v, x.ndim) for v in (gamma, beta, running_mean, running_var)))


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def gelu(x):
    return x * 0.5 * (1.0 + np.vectorize(erf)(x / np.sqrt(2.0)))


def limited(p):
    return np.clip(p, 1e-7, 1.0 - 1e-7)


def bce(p, y):
    p = limited(p)
    return -(y * np.log(p) + (1.0 - y) * np.log(1.0 - p)).mean()


def cce(p, y):
    return -(y * np.log(limited(p))).sum() / len(p)


def cross_entropy(z, y):
    y = np.eye(z.shape[1])[y] if y.ndim == 1 else y
    return -(y * np.log(softmax(z))).sum() / len(z)


def cross_entropy_settings(z, y, smoothing, weights, ignored):
    """Rows of the label's class weight; every class takes part in the smoothed share, by its own weight."""
    total = counted = 0.0
    for row, label in zip(z, y, strict=True):
        if label == ignored:
            continue
        nll = -np.log(softmax(row[None])[0])
        total += (1 - smoothing) * weights[label] * nll[label] + smoothing / len(nll) * (weights * nll).sum()
        counted += weights[label]
    return total / counted


def huber(p, y, delta):
    d = np.abs(p - y)
    return np.where(d <= delta, d * d / 2, delta * (d - delta / 2)).sum()
