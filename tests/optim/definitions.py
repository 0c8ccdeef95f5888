"""One step of each update rule in float64, straight from its paper."""

import numpy as np


def sgd(momentum=0.0, nesterov=False, weight_decay=0.0):
    def step(p, g, memory, lr):
        d = g + weight_decay * p
        if momentum == 0:
            return p - lr * d
        v = memory["v"] = momentum * memory.get("v", 0.0) + d
        return p - lr * (d + momentum * v if nesterov else v)

    return step


def adam(betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
    b1, b2 = betas

    def step(p, g, memory, lr):
        t = memory["t"] = memory.get("t", 0) + 1
        if decoupled:
            p = p - lr * weight_decay * p
        else:
            g = g + weight_decay * p
        m = memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
        v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g**2
        return p - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)

    return step
