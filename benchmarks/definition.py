"""The losses of a training run by their definitions, in float64 NumPy: what contestants must agree with where PyTorch is missing.

Each layer is a class with ``forward(x)``, and ``backward(g)`` that returns the gradient of its input and leaves those of its
weights in ``grads``.  Convolutions are 3x3 with padding 1, pools 2x2.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from benchmarks.remote import NotOfferedError
from benchmarks.workloads import CHECKED, Arrays, Case, batches, rows, weights


class _Plain:
    """A layer without weights."""

    def __init__(self, arrays: Arrays) -> None:
        self.weights = {name: a.astype(np.float64) for name, a in arrays.items()}
        self.grads: Arrays = {}


class _Linear(_Plain):
    def forward(self, x):
        self.x = x
        return x @ self.weights["weight"].T + self.weights["bias"]

    def backward(self, g):
        self.grads = {"weight": g.T @ self.x, "bias": g.sum(0)}
        return g @ self.weights["weight"]


class _Relu(_Plain):
    def forward(self, x):
        self.kept = x > 0
        return x * self.kept

    def backward(self, g):
        return g * self.kept


def _windows(x):
    """(N, C, H, W, 3, 3), zeros beyond the border."""
    return sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3))


class _Conv(_Plain):
    def forward(self, x):
        self.seen = _windows(x)
        y = np.moveaxis(np.tensordot(self.seen, self.weights["weight"], ((1, 4, 5), (1, 2, 3))), 3, 1)
        return y + self.weights["bias"][:, None, None] if "bias" in self.weights else y

    def backward(self, g):
        self.grads = {"weight": np.tensordot(g, self.seen, ((0, 2, 3), (0, 2, 3)))}
        if "bias" in self.weights:
            self.grads["bias"] = g.sum((0, 2, 3))
        turned = self.weights["weight"][:, :, ::-1, ::-1]
        return np.moveaxis(np.tensordot(_windows(g), turned, ((1, 4, 5), (0, 2, 3))), 3, 1)


class _BatchNorm(_Plain):
    def forward(self, x):
        self.scale = 1.0 / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
        self.normal = (x - x.mean((0, 2, 3), keepdims=True)) * self.scale
        return self.normal * self.weights["weight"][:, None, None] + self.weights["bias"][:, None, None]

    def backward(self, g):
        over = (0, 2, 3)
        self.grads = {"weight": (g * self.normal).sum(over), "bias": g.sum(over)}
        g = g * self.weights["weight"][:, None, None]
        return self.scale * (g - g.mean(over, keepdims=True) - self.normal * (g * self.normal).mean(over, keepdims=True))


class _MaxPool(_Plain):
    def forward(self, x):
        n, c, h, w = x.shape
        cells = x.reshape(n, c, h // 2, 2, w // 2, 2).swapaxes(3, 4).reshape(n, c, h // 2, w // 2, 4)
        self.won = np.eye(4)[cells.argmax(-1)]
        return cells.max(-1)

    def backward(self, g):
        n, c, h, w = g.shape
        return (self.won * g[..., None]).reshape(n, c, h, w, 2, 2).swapaxes(3, 4).reshape(n, c, 2 * h, 2 * w)


class _GlobalAvgPool(_Plain):
    def forward(self, x):
        self.shape = x.shape
        return x.mean((2, 3))

    def backward(self, g):
        return np.broadcast_to(g[:, :, None, None] / (self.shape[2] * self.shape[3]), self.shape)


class _Flatten(_Plain):
    def forward(self, x):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, g):
        return g.reshape(self.shape)


LAYERS = {
    "linear": _Linear,
    "relu": _Relu,
    "conv": _Conv,
    "batch_norm": _BatchNorm,
    "max_pool": _MaxPool,
    "global_avg_pool": _GlobalAvgPool,
    "flatten": _Flatten,
}


def _cross_entropy(z, t):
    """Loss of logits, and its gradient."""
    e = np.exp(z - z.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    hit = np.eye(z.shape[1])[t]
    return -np.log((p * hit).sum(1)).mean(), (p - hit) / len(z)


def _mse(y, t):
    return ((y - t) ** 2).mean(), 2.0 * (y - t) / y.size


def _adam(w, g, state, lr, n):
    state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
    state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * g * g
    return w - lr * (state["m"] / (1 - 0.9**n)) / (np.sqrt(state["v"] / (1 - 0.999**n)) + 1e-8)


def _sgd(w, g, state, lr, n):
    """Momentum 0.9."""
    state["m"] = 0.9 * state.get("m", 0.0) + g
    return w - lr * state["m"]


def losses(case: Case) -> np.ndarray:
    """The losses at the steps that are compared.

    Raises:
        NotOfferedError: The model has a layer that is not defined here.
    """
    workload = case.work
    missing = {layer.kind for layer in workload.layers} - LAYERS.keys()
    if missing or case.mode == "infer":
        raise NotOfferedError(f"no definition of {', '.join(sorted(missing)) or 'inference'}")
    size, last = workload.shape[0], CHECKED[-1]
    if case.mode == "step":
        cycled = batches(workload)
        data = [cycled[i % len(cycled)] for i in range(last)]
    else:
        x, t = rows(workload, case.rows)
        data = [(x[i : i + size], t[i : i + size]) for i in range(0, last * size, size)]
    layers = [LAYERS[layer.kind](arrays) for layer, arrays in zip(workload.layers, weights(workload), strict=True)]
    loss, update = (_cross_entropy if workload.classes else _mse), {"adam": _adam, "sgd": _sgd}[workload.optimizer]
    state: dict[tuple[int, str], dict] = {}
    found = []
    for n, (x, t) in enumerate(data, 1):
        y = x.astype(np.float64)
        for layer in layers:
            y = layer.forward(y)
        value, g = loss(y, t)
        found.append(value)
        for layer in reversed(layers):
            g = layer.backward(g)
        for i, layer in enumerate(layers):
            for name, grad in layer.grads.items():
                layer.weights[name] = update(layer.weights[name], grad, state.setdefault((i, name), {}), workload.lr, n)
    return np.array([found[n - 1] for n in CHECKED])
