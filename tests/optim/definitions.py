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


def rmsprop(alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False):
    def step(p, g, memory, lr):
        g = g + weight_decay * p
        v = memory["v"] = alpha * memory.get("v", 0.0) + (1 - alpha) * g**2
        m = memory["m"] = alpha * memory.get("m", 0.0) + (1 - alpha) * g
        d = g / (np.sqrt(v - m**2 if centered else v) + eps)
        b = memory["b"] = momentum * memory.get("b", 0.0) + d
        return p - lr * b

    return step


def adagrad(eps=1e-10, weight_decay=0.0, initial=0.0):
    def step(p, g, memory, lr):
        g = g + weight_decay * p
        s = memory["s"] = memory.get("s", initial) + g**2
        return p - lr * g / (np.sqrt(s) + eps)

    return step


def adadelta(rho=0.9, eps=1e-6, weight_decay=0.0):
    def step(p, g, memory, lr):
        g = g + weight_decay * p
        v = memory["v"] = rho * memory.get("v", 0.0) + (1 - rho) * g**2
        d = g * np.sqrt(memory.get("u", 0.0) + eps) / np.sqrt(v + eps)
        memory["u"] = rho * memory.get("u", 0.0) + (1 - rho) * d**2
        return p - lr * d

    return step


def adamax(betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    def step(p, g, memory, lr):
        t = memory["t"] = memory.get("t", 0) + 1
        g = g + weight_decay * p
        m = memory["m"] = betas[0] * memory.get("m", 0.0) + (1 - betas[0]) * g
        u = memory["u"] = np.maximum(betas[1] * memory.get("u", 0.0), np.abs(g) + eps)
        return p - lr / (1 - betas[0] ** t) * m / u

    return step


def nadam(betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    b1, b2 = betas

    def mu(t):
        return b1 * (1 - 0.5 * 0.96 ** (0.004 * t))

    def step(p, g, memory, lr):
        t = memory["t"] = memory.get("t", 0) + 1
        g = g + weight_decay * p
        m = memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
        v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g**2
        product = np.prod([mu(i) for i in range(1, t + 1)])
        ahead = mu(t + 1) * m / (1 - product * mu(t + 1)) + (1 - mu(t)) * g / (1 - product)
        return p - lr * ahead / (np.sqrt(v / (1 - b2**t)) + eps)

    return step


def lion(betas=(0.9, 0.99), weight_decay=0.0):
    def step(p, g, memory, lr):
        m = memory.get("m", 0.0)
        memory["m"] = betas[1] * m + (1 - betas[1]) * g
        return p - lr * weight_decay * p - lr * np.sign(betas[0] * m + (1 - betas[0]) * g)

    return step


def lamb(betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    b1, b2 = betas

    def step(p, g, memory, lr):
        t = memory["t"] = memory.get("t", 0) + 1
        m = memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
        v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g**2
        r = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps) + weight_decay * p
        weight, length = np.sqrt((p**2).sum()), np.sqrt((r**2).sum())
        return p - lr * (weight / length if weight > 0 and length > 0 else 1.0) * r

    return step
