"""The same training as an eager TensorFlow loop: GradientTape, and every metric by TensorFlow ops, read as floats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.remote import Session
from benchmarks.stability import CHECKED, CHI, EPS, ETA, FORMATS, RHO, Case


def quantise(x: Any, field: str) -> Any:
    """AP_RND and AP_SAT in float64."""
    bits, whole = FORMATS[field]
    q = 2.0 ** (whole - bits)
    t = tf.floor(tf.cast(x, tf.float64) / q + 0.5)
    return tf.clip_by_value(t, -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) * q


def through(x: Any, field: str) -> Any:
    """The same with a straight-through gradient."""

    @tf.custom_gradient
    def f(v: Any) -> Any:
        return quantise(v, field), lambda g: g

    return f(x)


def rails(x: Any, field: str) -> tuple[float, float, float]:
    """Fractions: saturated, near a rail, lost to zero."""
    bits, whole = FORMATS[field]
    q = 2.0 ** (whole - bits)
    low, high = -(2.0 ** (bits - 1)) * q, (2.0 ** (bits - 1) - 1) * q
    x = tf.cast(x, tf.float64)
    share = lambda mask: float(tf.reduce_mean(tf.cast(mask, tf.float64)))  # noqa: E731
    return (
        share(tf.logical_or(x <= low, x >= high)),
        share(tf.abs(x) >= 0.95 * max(-low, high)),
        share(tf.logical_and(tf.not_equal(x, 0.0), tf.equal(quantise(x, field), 0.0))),
    )


def flat(tensors: list[Any]) -> Any:
    """One float64 vector."""
    return tf.concat([tf.reshape(tf.cast(t, tf.float64), [-1]) for t in tensors], 0)


def steps(case: Case) -> Iterator[dict[str, Any]]:
    """Row after row of metrics."""
    X, Y, A, W0 = case.data()
    x, y, A = tf.constant(X), tf.constant(Y), tf.constant(A)
    W, b = tf.Variable(W0), tf.Variable(np.zeros(2, np.float32))
    params = [W, b]
    wide = np.c_[X, np.ones(len(X))].astype(np.float64)
    eigenvalues = tf.constant(np.linalg.eigvalsh(wide.T @ wide / len(X)))
    last: Any = None
    C = S = 0.0
    while True:
        before = flat(params)
        with tf.GradientTape() as tape:
            if case.quantised:
                z = quantise(x, "input")
                z = through(tf.matmul(z, through(tf.cast(W, tf.float64), "weight"), transpose_b=True), "accumulator")
                residual = through(z + through(tf.cast(b, tf.float64), "bias"), "activation") - tf.cast(y, tf.float64)
            else:
                residual = tf.matmul(x, W, transpose_b=True) + b - y
            loss = tf.reduce_sum(residual * residual) / (2.0 * len(X))
        grads = tape.gradient(loss, params)
        if case.quantised:
            loss = quantise(loss, "loss")
            grads = [tf.cast(quantise(g, "gradient"), tf.float32) for g in grads]
        G = flat(grads)
        if last is not None:
            C = float(tf.norm(G - last[1]) / (tf.norm(before - last[0]) + EPS))
            S = (1 - RHO) * S + RHO * C
        control = max(C, S)
        alpha = 1.0 if control <= EPS else min(CHI / (ETA * (control + EPS)), 1.0)
        deltas = [g * tf.constant(-alpha * ETA, tf.float32) for g in grads]
        counted: list[tuple[float, float, float]] = []
        for p, d, own in zip(params, deltas, ("weight", "bias"), strict=True):
            applied = tf.cast(quantise(d, "update"), tf.float32) if case.quantised else d
            p.assign_add(applied)
            if case.quantised:
                p.assign(tf.cast(quantise(p, own), tf.float32))
                counted += [rails(d, "update"), rails(p, own)]
        if case.quantised:
            counted += [rails(g, "gradient") for g in grads]
        after, raw = flat(params), flat(deltas)
        moved = after - before
        intended, actual = float(tf.norm(raw)), float(tf.norm(moved))
        cosine = float(tf.clip_by_value(tf.tensordot(moved, raw, 1) / max(intended * actual, 1e-300), -1.0, 1.0))
        last = (before, G)
        yield {
            "loss": float(loss), "rmse": float(tf.sqrt(tf.reduce_mean(residual * residual))), "grad_norm": float(tf.norm(G)),
            "theta_norm": float(tf.norm(before)), "alpha": alpha, "cosine": cosine, "angle": float(np.arccos(cosine)),
            "update_radius_ratio": actual / intended if intended > EPS else 0.0,
            "forward_gain_spectral": float(tf.linalg.svd(tf.cast(W, tf.float64), compute_uv=False)[0]),
            "weight_error_fro": float(tf.norm(tf.cast(W, tf.float64) - A)),
            "margin": float(alpha * ETA * eigenvalues[-1]), "radius": float(tf.reduce_max(tf.abs(1.0 - alpha * ETA * eigenvalues))),
            "finite": bool(tf.reduce_all(tf.math.is_finite(tf.concat([before, G, after], 0)))), "rails": counted, "weight": W.numpy(),
        }  # fmt: skip


def make(case: Case) -> Session:
    """One step per call."""
    running = steps(case)

    def answer() -> list[np.ndarray]:
        rows = [row for row, _ in zip(steps(case), range(CHECKED), strict=False)]
        keys = ("loss", "alpha", "grad_norm", "update_radius_ratio", "weight_error_fro", "forward_gain_spectral")
        return [np.array([rows[0]["loss"], *(rows[-1][key] for key in keys)]), rows[-1]["weight"]]

    return Session(lambda: next(running), answer)
