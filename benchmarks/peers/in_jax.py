"""JAX: the whole training step under one jit with donated state, epochs as one scan; images are (N, H, W, C)."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.remote import Session
from benchmarks.sessions import asking, epochs, offered, stepping
from benchmarks.workloads import Case, Workload, channels_last, images_last


def _linear(p, x):
    return x @ p["weight"] + p["bias"]


def _conv(p, x):
    y = lax.conv_general_dilated(x, p["weight"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y + p["bias"] if "bias" in p else y


def _batch_norm(p, x, train):
    if not train:  # the running statistics of a new model
        return x * (1.0 + 1e-5) ** -0.5 * p["weight"] + p["bias"]
    mean = x.mean((0, 1, 2))
    var = jnp.mean((x - mean) ** 2, (0, 1, 2))
    return (x - mean) * lax.rsqrt(var + 1e-5) * p["weight"] + p["bias"]


def _max_pool(p, x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def _lstm(p, x):
    seen = x.swapaxes(0, 1) @ p["weight_ih"].T + p["bias_ih"] + p["bias_hh"]

    def cell(carried, a):
        h, c = carried
        i, f, g, o = jnp.split(a + h @ p["weight_hh"].T, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    zero = jnp.zeros((x.shape[0], p["weight_hh"].shape[1]))
    return lax.scan(cell, (zero, zero), seen)[0][0]


def _gru(p, x):
    seen = x.swapaxes(0, 1) @ p["weight_ih"].T + p["bias_ih"]

    def cell(h, a):
        (r, z, n), (hr, hz, hn) = jnp.split(a, 3, -1), jnp.split(h @ p["weight_hh"].T + p["bias_hh"], 3, -1)
        r, z = jax.nn.sigmoid(r + hr), jax.nn.sigmoid(z + hz)
        return (1.0 - z) * jnp.tanh(n + r * hn) + z * h, None

    return lax.scan(cell, jnp.zeros((x.shape[0], p["weight_hh"].shape[1])), seen)[0]


def _layer_norm(p, name, x):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(var + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def _encoder(heads, p, x):
    def linear(name, y):
        return y @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    n, tokens, features = x.shape
    q, k, v = (linear(name, x).reshape(n, tokens, heads, -1).swapaxes(1, 2) for name in ("query", "key", "value"))
    seen = jax.nn.softmax(q @ k.swapaxes(2, 3) * (features // heads) ** -0.5) @ v
    x = _layer_norm(p, "norm1", x + linear("out", seen.swapaxes(1, 2).reshape(n, tokens, features)))
    return _layer_norm(p, "norm2", x + linear("down", jax.nn.relu(linear("up", x))))


APPLY = {
    "linear": _linear,
    "relu": lambda p, x: jax.nn.relu(x),
    "conv": _conv,
    "batch_norm": _batch_norm,
    "max_pool": _max_pool,
    "global_avg_pool": lambda p, x: x.mean((1, 2)),
    "flatten": lambda p, x: x.reshape(x.shape[0], -1),
    "lstm": _lstm,
    "gru": _gru,
    "encoder": _encoder,
}


def _model(workload: Workload, train: bool):
    """``f(parameters, x)``."""
    steps = []
    for layer in workload.layers:
        special = {"batch_norm": {"train": train}}.get(layer.kind, {})
        f = partial(APPLY[layer.kind], **special)
        steps.append(partial(f, layer.sizes[1]) if layer.kind == "encoder" else f)

    def run(parameters, x):
        for f, p in zip(steps, parameters, strict=True):
            x = f(p, x)
        return x

    return run


def _training(workload: Workload):
    """First state, and ``step(state, x, t)`` that returns the next state and the loss."""
    model, lr = _model(workload, train=True), workload.lr

    def loss(parameters, x, t):
        y = model(parameters, x)
        if workload.classes:
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(y), t[:, None], 1))
        return jnp.mean((y - t) ** 2)

    def sgd(state, x, t):
        w, m, _, n = state
        value, g = jax.value_and_grad(loss)(w, x, t)
        m = jax.tree.map(lambda m, g: 0.9 * m + g, m, g)
        return (jax.tree.map(lambda w, m: w - lr * m, w, m), m, (), n), value

    def adam(state, x, t):
        w, m, v, n = state
        value, g = jax.value_and_grad(loss)(w, x, t)
        n = n + 1.0
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        a, b = 1.0 - 0.9**n, 1.0 - 0.999**n
        w = jax.tree.map(lambda w, m, v: w - lr * (m / a) / (jnp.sqrt(v / b) + 1e-8), w, m, v)
        return (w, m, v, n), value

    w = jax.tree.map(jnp.asarray, channels_last(workload))
    zeros = jax.tree.map(jnp.zeros_like, w)
    if workload.optimizer == "sgd":
        return (w, zeros, (), jnp.float32(0)), sgd
    return (w, zeros, jax.tree.map(jnp.copy, zeros), jnp.float32(0)), adam


def _convert(a: np.ndarray):
    return jnp.asarray(images_last(a) if a.dtype == np.float32 else a.astype(np.int32))


def make(case: Case) -> Session:
    """The case under jit."""
    workload = case.work
    offered(workload, APPLY)
    if case.mode == "infer":
        model, w = jax.jit(_model(workload, train=False)), jax.tree.map(jnp.asarray, channels_last(workload))
        return asking(case, lambda x: model(w, x).block_until_ready(), _convert)
    state, body = _training(workload)
    one = jax.jit(body, donate_argnums=(0,))
    if case.mode == "step":

        def step(x, t):
            nonlocal state
            state, loss = one(state, x, t)
            return loss

        return stepping(case, step, _convert)

    size = workload.shape[0]

    @partial(jax.jit, donate_argnums=(0,))
    def scanned(state, x, t, picked):
        return lax.scan(lambda state, rows: body(state, x[rows], t[rows]), state, picked)

    def prepare(x, t):
        x, t, rng = _convert(x), _convert(t), np.random.default_rng(2)

        def epoch(start, stop, shuffle):
            nonlocal state
            order = np.arange(start, stop, dtype=np.int32)
            if shuffle:
                rng.shuffle(order)
            whole = len(order) // size * size
            state, losses = scanned(state, x, t, order[:whole].reshape(-1, size))
            total = float(losses.sum()) * size
            if whole < len(order):
                rest = order[whole:]
                state, loss = one(state, x[rest], t[rest])
                total += float(loss) * len(rest)
            return total / len(order)

        return epoch

    return epochs(case, prepare)
