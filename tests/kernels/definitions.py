"""What the kernels mean, in float64, written as loops and formulas and sharing no code with any kernel table.

Each function takes the operands of its contract row (float64 arrays) and returns the result(s); for rows that write,
the new values of the written operands.
"""

import math
from fractions import Fraction
from itertools import product

import numpy as np

from tests.stability.integer_rounding import OMODES, QMODES, store  # noqa: F401 - the cases take the names of the modes from here


def unary(f):
    return np.vectorize(f, otypes=[float])


def sigmoid(v):
    return 1 / (1 + math.exp(-v)) if v >= 0 else math.exp(v) / (1 + math.exp(v))


UNARY = {
    "neg": lambda v: -v,
    "abs": lambda v: v if v > 0 else -v,
    "sign": lambda v: (v > 0) - (v < 0),
    "exp": math.exp,
    "expm1": math.expm1,
    "log": math.log,
    "log1p": math.log1p,
    "sqrt": math.sqrt,
    "rsqrt": lambda v: 1 / math.sqrt(v),
    "reciprocal": lambda v: 1 / v,
    "square": lambda v: v * v,
    "sin": math.sin,
    "cos": math.cos,
    "tanh": math.tanh,
    "sigmoid": sigmoid,
    "erf": math.erf,
    "relu": lambda v: v if v > 0 else 0.0,
    "gelu": lambda v: v * math.erfc(-v / math.sqrt(2)) / 2,
    "silu": lambda v: v * sigmoid(v),
    "softplus": lambda v: math.log1p(math.exp(v)),
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,
}
POSITIVE = {"log", "sqrt", "rsqrt", "reciprocal", "log1p"}

BINARY = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: abs(a) ** b,
    "maximum": lambda a, b: a if a > b else b,
    "minimum": lambda a, b: a if a < b else b,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "gt": lambda a, b: float(a > b),
    "ge": lambda a, b: float(a >= b),
    "lt": lambda a, b: float(a < b),
    "le": lambda a, b: float(a <= b),
    "eq": lambda a, b: float(a == b),
    "ne": lambda a, b: float(a != b),
}


def gelu_grad(x, g):
    return g * ((1 + math.erf(x / math.sqrt(2))) / 2 + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi))


def binary(f):
    return np.vectorize(f, otypes=[float])


def reduction(f):
    """A reduction of lists of numbers, applied along axes."""

    def define(x, axis, keepdims):
        axes = tuple(range(x.ndim)) if axis is None else axis
        rest = [a for a in range(x.ndim) if a not in axes]
        rows = x.transpose(rest + list(axes)).reshape([x.shape[a] for a in rest] + [math.prod(x.shape[a] for a in axes)])
        shape = rows.shape[:-1]
        out = np.array([f([float(v) for v in rows[i]]) for i in np.ndindex(*shape)], float).reshape(shape)
        return np.expand_dims(out, axes) if keepdims else out

    return define


def arg(best):
    def define(x, axis):
        if axis is None:
            flat = [float(v) for v in x.reshape(-1)]
            return np.array(flat.index(best(flat)))
        moved = np.moveaxis(x, axis, -1)
        return np.array([list(moved[i]).index(best(moved[i])) for i in np.ndindex(*moved.shape[:-1])]).reshape(moved.shape[:-1])

    return define


def cumsum(x, axis):
    out = np.moveaxis(x.copy(), axis, 0)
    for i in range(1, len(out)):
        out[i] += out[i - 1]
    return np.moveaxis(out, 0, axis)


def pad(x, widths, value):
    out = np.empty([n + a + b for n, (a, b) in zip(x.shape, widths, strict=True)])
    for i in np.ndindex(*out.shape):
        source = tuple(j - a for j, (a, _) in zip(i, widths, strict=True))
        out[i] = x[source] if all(0 <= j < n for j, n in zip(source, x.shape, strict=True)) else value
    return out


def take_grad(g, key, shape):
    positions = np.arange(math.prod(shape)).reshape(shape)[key]
    out = np.zeros(math.prod(shape))
    for position, value in zip(np.ravel(positions), np.ravel(g), strict=True):
        out[position] += value
    return out.reshape(shape)


def gather(x, index, axis):
    out = np.empty(index.shape)
    for i in np.ndindex(*index.shape):
        out[i] = x[(*i[:axis], index[i], *i[axis + 1 :])]
    return out


def scatter_add(x, index, src, axis):
    out = x.copy()
    for i in np.ndindex(*index.shape):
        out[(*i[:axis], index[i], *i[axis + 1 :])] += src[i]
    return out


def triangle(keep):
    def define(x, k):
        return np.where([[keep(j - i, k) for j in range(x.shape[-1])] for i in range(x.shape[-2])], x, 0)

    return define


def one_hot(index, n, dtype):
    return np.array([[float(i == j) for j in range(n)] for i in index.reshape(-1)]).reshape(*index.shape, n)


def matmul(a, b, transpose_a, transpose_b):
    a = np.moveaxis(a, -1, -2) if transpose_a else a
    b = np.moveaxis(b, -1, -2) if transpose_b else b
    return (a[..., :, :, None] * b[..., None, :, :]).sum(axis=-2)


def linear(x, w, b):
    return (x[:, None, :] * w).sum(-1) + (0 if b is None else b)


def _reads(shape_x, shape_w, out, stride, padding, dilation, groups):
    """All (n, o, i, j, c, u, v, row, column) of a convolution whose (row, column) lies inside x; c counts inside the group."""
    (n_, _, h, w), (o_, c_, kh, kw) = shape_x, shape_w
    for n, o, i, j, c, u, v in product(*map(range, (n_, o_, out[0], out[1], c_, kh, kw))):
        row, column = i * stride[0] + u * dilation[0] - padding[0], j * stride[1] + v * dilation[1] - padding[1]
        if 0 <= row < h and 0 <= column < w:
            yield n, o, i, j, c, o // (o_ // groups) * c_ + c, u, v, row, column


def out_size(size, kernel, stride, padding, dilation=(1, 1)):
    return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True))


def conv2d(x, w, b, stride, padding, dilation, groups):
    out = out_size(x.shape[2:], w.shape[2:], stride, padding, dilation)
    y = np.zeros((len(x), len(w), *out)) + (0 if b is None else b[:, None, None])
    for n, o, i, j, c, channel, u, v, row, column in _reads(x.shape, w.shape, out, stride, padding, dilation, groups):
        y[n, o, i, j] += x[n, channel, row, column] * w[o, c, u, v]
    return y


def conv2d_grad_x(g, w, size, stride, padding, dilation, groups):
    dx = np.zeros((len(g), w.shape[1] * groups, *size))
    for n, o, i, j, c, channel, u, v, row, column in _reads(dx.shape, w.shape, g.shape[2:], stride, padding, dilation, groups):
        dx[n, channel, row, column] += g[n, o, i, j] * w[o, c, u, v]
    return dx


def conv2d_grad_w(x, g, kernel, stride, padding, dilation, groups):
    dw = np.zeros((g.shape[1], x.shape[1] // groups, *kernel))
    for n, o, i, j, c, channel, u, v, row, column in _reads(x.shape, dw.shape, g.shape[2:], stride, padding, dilation, groups):
        dw[o, c, u, v] += g[n, o, i, j] * x[n, channel, row, column]
    return dw


def _windows(size, kernel, stride, padding):
    """Per output position (i, j), the list of (row, column) of real cells in its window, in row-major order."""
    out = out_size(size, kernel, stride, padding)
    for i, j in np.ndindex(*out):
        cells = [(i * stride[0] + u - padding[0], j * stride[1] + v - padding[1]) for u, v in np.ndindex(*kernel)]
        yield i, j, [(r, c) for r, c in cells if 0 <= r < size[0] and 0 <= c < size[1]]


def maxpool2d(x, kernel, stride, padding):
    out = out_size(x.shape[2:], kernel, stride, padding)
    y, argmax = np.zeros((*x.shape[:2], *out)), np.zeros((*x.shape[:2], *out), int)
    for n, c in np.ndindex(*x.shape[:2]):
        for i, j, cells in _windows(x.shape[2:], kernel, stride, padding):
            best = max(cells, key=lambda cell: x[n, c][cell])  # max() keeps the first of equals
            y[n, c, i, j] = x[n, c][best]
            argmax[n, c, i, j] = (best[0] + padding[0]) * (x.shape[3] + 2 * padding[1]) + best[1] + padding[1]
    return y, argmax


def _cell(flat, width, padding):
    return flat // (width + 2 * padding[1]) - padding[0], flat % (width + 2 * padding[1]) - padding[1]


def maxpool2d_grad(g, argmax, size, padding):
    dx = np.zeros((*g.shape[:2], *size))
    for n, c, i, j in np.ndindex(*g.shape):
        row, column = _cell(argmax[n, c, i, j], size[1], padding)
        dx[n, c, row, column] += g[n, c, i, j]
    return dx


def maxpool2d_take(x, argmax, padding):
    y = np.zeros(argmax.shape)
    for n, c, i, j in np.ndindex(*argmax.shape):
        y[n, c, i, j] = x[n, c][_cell(argmax[n, c, i, j], x.shape[3], padding)]
    return y


def avgpool2d(x, kernel, stride, padding):
    y = np.zeros((*x.shape[:2], *out_size(x.shape[2:], kernel, stride, padding)))
    for i, j, cells in _windows(x.shape[2:], kernel, stride, padding):
        for row, column in cells:
            y[:, :, i, j] += x[:, :, row, column] / (kernel[0] * kernel[1])
    return y


def avgpool2d_grad(g, size, kernel, stride, padding):
    dx = np.zeros((*g.shape[:2], *size))
    for i, j, cells in _windows(size, kernel, stride, padding):
        for row, column in cells:
            dx[:, :, row, column] += g[:, :, i, j] / (kernel[0] * kernel[1])
    return dx


def global_avgpool2d(x):
    return np.array([[sum(plane.ravel().tolist()) / plane.size for plane in image] for image in x]).reshape(*x.shape[:2], 1, 1)


def per_row(f):
    """f on lists of numbers, along one axis of every array."""

    def define(*arrays, axis):
        moved = [np.moveaxis(a, axis, -1) for a in arrays]
        out = np.empty(moved[0].shape)
        for i in np.ndindex(*out.shape[:-1]):
            out[i] = f(*(a[i].tolist() for a in moved))
        return np.moveaxis(out, -1, axis)

    return define


def softmax_row(x):
    e = [math.exp(v - max(x)) for v in x]
    return [v / math.fsum(e) for v in e]


def log_softmax_row(x):
    total = math.log(math.fsum(math.exp(v - max(x)) for v in x))
    return [v - max(x) - total for v in x]


def softmax_grad_row(y, g):
    """Through the Jacobian dy_j / dx_k = y_j ([j = k] - y_k)."""
    return [math.fsum(g[j] * y[j] * ((j == k) - y[k]) for j in range(len(y))) for k in range(len(y))]


def log_softmax_grad_row(y, g):
    """Through the Jacobian dy_j / dx_k = [j = k] - e^(y_k)."""
    return [math.fsum(g[j] * ((j == k) - math.exp(y[k])) for j in range(len(y))) for k in range(len(y))]


def cross_entropy(logits, labels):
    loss = np.array([-log_softmax_row(row)[label] for row, label in zip(logits.tolist(), labels, strict=True)])
    return loss, np.array([softmax_row(row) for row in logits.tolist()]).reshape(logits.shape)


def cross_entropy_grad(p, labels, g):
    return np.array(
        [[(v - (j == label)) * scale for j, v in enumerate(row)] for row, label, scale in zip(p, labels, g, strict=True)]
    ).reshape(p.shape)


def batch_norm(x, gamma, beta, eps):
    y, c_ = np.empty(x.shape), x.shape[1]
    mean, var = np.empty(c_), np.empty(c_)
    for c in range(c_):
        values = x[:, c].ravel().tolist()
        mean[c] = math.fsum(values) / len(values)
        var[c] = math.fsum((v - mean[c]) ** 2 for v in values) / len(values)
        scale, shift = 1 if gamma is None else gamma[c], 0 if beta is None else beta[c]
        y[:, c] = scale * (x[:, c] - mean[c]) / math.sqrt(var[c] + eps) + shift
    return y, mean, var, 1 / np.sqrt(var + eps)


def _norm_grad(g, x, mean, inv):
    """Through the full Jacobian of xhat to x: dxhat_j/dx_k = inv * ([j=k] - 1/m - xhat_j xhat_k / m); all flat lists."""
    m, xhat = len(x), (x - mean) * inv
    jacobian = inv * (np.eye(m) - 1 / m - np.outer(xhat, xhat) / m)
    return g @ jacobian, xhat


def batch_norm_grad(g, x, gamma, mean, inv):
    dx, c_ = np.empty(x.shape), x.shape[1]
    dgamma, dbeta = np.empty(c_), np.empty(c_)
    for c in range(c_):
        scale = 1 if gamma is None else gamma[c]
        d, xhat = _norm_grad(scale * g[:, c].ravel(), x[:, c].ravel(), mean[c], inv[c])
        dx[:, c] = d.reshape(dx[:, c].shape)
        dgamma[c], dbeta[c] = math.fsum(g[:, c].ravel() * xhat), math.fsum(g[:, c].ravel())
    return dx, dgamma, dbeta


def _split(x, n_axes):
    return x.shape[: x.ndim - n_axes], x.shape[x.ndim - n_axes :]


def layer_norm(x, gamma, beta, n_axes, eps):
    leading, last = _split(x, n_axes)
    y, mean, inv = np.empty(x.shape), np.empty(leading), np.empty(leading)
    for i in np.ndindex(*leading):
        values = x[i].ravel().tolist()
        mean[i] = math.fsum(values) / len(values)
        inv[i] = 1 / math.sqrt(math.fsum((v - mean[i]) ** 2 for v in values) / len(values) + eps)
        y[i] = (1 if gamma is None else gamma) * (x[i] - mean[i]) * inv[i] + (0 if beta is None else beta)
    return y, mean, inv


def layer_norm_grad(g, x, gamma, mean, inv, n_axes):
    leading, last = _split(x, n_axes)
    dx, dgamma, dbeta = np.empty(x.shape), np.zeros(last), np.zeros(last)
    for i in np.ndindex(*leading):
        d, xhat = _norm_grad((g[i] * (1 if gamma is None else gamma)).ravel(), x[i].ravel(), mean[i], inv[i])
        dx[i] = d.reshape(last)
        dgamma += g[i] * xhat.reshape(last)
        dbeta += g[i]
    return dx, dgamma, dbeta


def philox_block(counter, key):
    """One block of Philox4x32-10 with Python integers."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 % 2**32, (p0 >> 32) ^ c[3] ^ k1, p0 % 2**32]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c


def word(key, i):
    """Word i of the stream of key."""
    key = int(key)
    block = i // 4
    return philox_block((block % 2**32, block >> 32, 0, 0), (key % 2**32, key >> 32))[i % 4]


def uniform(key, shape, dtype):
    n = math.prod(shape)
    if dtype == np.float32:
        values = [(word(key, i) >> 8) / 2**24 for i in range(n)]
    else:
        values = [((word(key, 2 * i) >> 5) * 2**26 + (word(key, 2 * i + 1) >> 6)) / 2**53 for i in range(n)]
    return np.array(values).reshape(shape)


def normal(key, shape, dtype):
    n = math.prod(shape)
    u = uniform(key, (n + 1,), np.float64)
    values = []
    for i in range(n):
        radius, angle = math.sqrt(-2 * math.log(1 - u[i - i % 2])), 2 * math.pi * u[i - i % 2 + 1]
        values.append(radius * (math.sin(angle) if i % 2 else math.cos(angle)))
    return np.array(values).reshape(shape)


def dropout_mask(key, shape, p, dtype):
    u = uniform(key, shape, np.float32)
    return np.where(u < 1 - p, 1 / (1 - p), 0.0)


def quantize_fixed(x, wl, iwl, signed, qmode, omode, sat_bits):
    integers = [store(float(v), wl, iwl, signed, qmode, omode, sat_bits) for v in x.reshape(-1)]
    return np.array([float(Fraction(v) / Fraction(2) ** (wl - iwl)) for v in integers]).reshape(x.shape)


def quantize_by(x, form):
    wl, iwl, signed, qmode, omode, sat_bits = map(int, form)
    names = ["AP_TRN", "AP_TRN_ZERO", "AP_RND", "AP_RND_ZERO", "AP_RND_MIN_INF", "AP_RND_INF", "AP_RND_CONV"]
    modes = ["AP_WRAP", "AP_SAT", "AP_SAT_ZERO", "AP_SAT_SYM", "AP_WRAP_SM"]
    return quantize_fixed(x, wl, iwl, bool(signed), names[qmode], modes[omode], sat_bits)


def quantize_stochastic(x, key, wl, iwl, signed, omode, sat_bits, sr_bits):
    values = []
    for v, u in zip(x.reshape(-1), uniform(key, (x.size,), np.float64), strict=True):
        t = Fraction(float(v)) * Fraction(2) ** (wl - iwl)
        r = t - math.floor(t)
        if sr_bits is not None:
            r = Fraction(math.floor(r * 2**sr_bits), 2**sr_bits)
        stored = min(max(math.floor(t) + (Fraction(float(u)) < r), -(2 ** (wl - 1))), 2 ** (wl - 1) - 1)
        values.append(stored / 2.0 ** (wl - iwl))
    return np.array(values).reshape(x.shape)


class Doubling:
    """A number format, as `quantize_with` asks for it."""

    def rounded(self, x, key):
        return x * 2 + x.dtype.type(key)


def sgd_(p, g, velocity, lr, momentum, nesterov, weight_decay):
    d = g + weight_decay * p
    if velocity is None:
        return (p - lr * d,)
    velocity = momentum * velocity + d
    return p - lr * (d + momentum * velocity if nesterov else velocity), velocity


def adam_(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay, decoupled):
    t = t + 1
    if decoupled:
        p = p - lr * weight_decay * p
    else:
        g = g + weight_decay * p
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
    return p - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps), m, v, t
