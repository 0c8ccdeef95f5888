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


def conv3d(x, w, b=None, stride=(1, 1, 1), padding=(0, 0, 0), dilation=(1, 1, 1), groups=1):
    """Cross-correlation of volumes, one output cell at a time."""
    x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
    o, per_group, *kernel = w.shape
    size = [(x.shape[2 + i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(3)]
    y = np.zeros((len(x), o, *size))
    for k, *at in product(range(o), *map(range, size)):
        first = k // (o // groups) * per_group
        taps = [slice(i * s, i * s + d * (n - 1) + 1, d) for i, s, d, n in zip(at, stride, dilation, kernel, strict=True)]
        y[:, k, at[0], at[1], at[2]] = (x[:, first : first + per_group, taps[0], taps[1], taps[2]] * w[k]).sum((1, 2, 3, 4))
    return y if b is None else y + b[:, None, None, None]


def pool3d(x, reduce, kernel, stride, padding, border):
    """``reduce`` of every window of the volume x framed with ``border``."""
    x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)), constant_values=border)
    size = [(x.shape[2 + i] - kernel[i]) // stride[i] + 1 for i in range(3)]
    y = np.zeros((*x.shape[:2], *size))
    for at in product(*map(range, size)):
        a, b, c = (slice(i * s, i * s + k) for i, s, k in zip(at, stride, kernel, strict=True))
        y[:, :, at[0], at[1], at[2]] = reduce(x[:, :, a, b, c], axis=(2, 3, 4))
    return y


def adaptive(x, reduce, output_size):
    """``reduce`` over windows from floor(i n / m) to ceil((i + 1) n / m)."""
    sizes = x.shape[2:]
    y = np.zeros((*x.shape[:2], *output_size))
    for at in product(*map(range, output_size)):
        window = tuple(
            slice(int(np.floor(i * n / m)), int(np.ceil((i + 1) * n / m))) for i, n, m in zip(at, sizes, output_size, strict=True)
        )
        y[(..., *at)] = reduce(x[(slice(None), slice(None), *window)], axis=tuple(range(2, x.ndim)))
    return y


def bilinear(x, rows, columns, align_corners):
    """Each cell of the result from the four around its place in x."""
    n, c, h, w = x.shape
    y = np.zeros((n, c, rows, columns))
    for i, j in product(range(rows), range(columns)):
        if align_corners:
            at = i * (h - 1) / max(rows - 1, 1), j * (w - 1) / max(columns - 1, 1)
        else:
            at = max((i + 0.5) * h / rows - 0.5, 0), max((j + 0.5) * w / columns - 0.5, 0)
        (a, b), (p, q) = (int(at[0]), int(at[1])), (at[0] % 1, at[1] % 1)
        a1, b1 = min(a + 1, h - 1), min(b + 1, w - 1)
        y[:, :, i, j] = (1 - p) * ((1 - q) * x[:, :, a, b] + q * x[:, :, a, b1]) + p * ((1 - q) * x[:, :, a1, b] + q * x[:, :, a1, b1])
    return y


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
