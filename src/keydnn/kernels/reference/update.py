"""In-place kernels: assignment, arithmetic on the destination, running averages, optimizer steps.

All return None.  Arithmetic happens in the dtype of the destination.  What an optimizer keeps from step to step (velocity,
m, v) is set to 0 where it is smaller than the smallest normal number: averages of gradients that stay 0 fall through the
subnormal numbers for thousands of steps, and arithmetic on those takes a processor many times longer.

SGD:   d = g + wd p;  v = mu v + d;  p -= lr (d + mu v if nesterov else v); without velocity  p -= lr d
Adam:  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
Source: Kingma & Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 1; decoupled decay: Loshchilov & Hutter 2019,
https://arxiv.org/abs/1711.05101, algorithm 2.
"""

from __future__ import annotations

import numpy as np

from keydnn.kernels.reference.quiet import quiet


def _in_place(ufunc: np.ufunc):
    def kernel(dst, y):
        ufunc(dst, y, out=dst, casting="same_kind")

    kernel.__name__, kernel.__doc__ = f"{ufunc.__name__}_", f"NumPy's ``{ufunc.__name__}`` into dst; y broadcasts to dst."
    return quiet(kernel)


add_ = _in_place(np.add)
sub_ = _in_place(np.subtract)
mul_ = _in_place(np.multiply)
div_ = _in_place(np.true_divide)


@quiet
def assign_(dst, src):
    """``dst[...] = src``, broadcast and cast."""
    np.copyto(dst, src, casting="unsafe")


@quiet
def fill_(dst, value):
    """``dst[...] = value``."""
    dst[...] = value


@quiet
def put_(dst, value, key):
    """``dst[key] = value`` with NumPy's meaning of key."""
    dst[key] = value


@quiet
def ema_(running, batch, momentum):
    """``running = (1 - momentum) running + momentum batch``."""
    momentum = float(momentum)
    running[...] = (1.0 - momentum) * running + momentum * batch


def _flush(kept):
    """0 for subnormal numbers, in place."""
    kept[np.abs(kept) < np.finfo(kept.dtype).tiny] = 0


@quiet
def sgd_(p, g, velocity, lr, momentum, nesterov, weight_decay):
    """One step of gradient descent; see the formula above."""
    momentum = float(momentum)
    d = g + float(weight_decay) * p if weight_decay else g
    if velocity is not None:
        velocity[...] = momentum * velocity + d
        _flush(velocity)
        d = d + momentum * velocity if nesterov else velocity
    p -= float(lr) * d


@quiet
def adam_(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay, decoupled):
    """One step of Adam or AdamW, which counts itself in t; see the formula above."""
    t += 1
    step, rate, decay = int(t), float(lr), float(weight_decay)
    if decay and decoupled:
        p -= rate * decay * p
    elif decay:
        g = g + decay * p
    m[...] = beta1 * m + (1.0 - beta1) * g
    v[...] = beta2 * v + (1.0 - beta2) * (g * g)
    _flush(m)
    _flush(v)
    p -= rate * (m / (1.0 - beta1**step)) / (np.sqrt(v / (1.0 - beta2**step)) + eps)
