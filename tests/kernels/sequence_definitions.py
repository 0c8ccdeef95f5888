"""Recurrent sequences, row by row and step by step, and their gradients by complex steps: what the kernels have to give.

The derivative of an analytic f is Im f(x + i e) / e, exact to rounding for tiny e, so these gradients share nothing with the
backward formulas that they check (Squire & Trapp 1998, https://doi.org/10.1137/S003614459631241X).
"""

import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def walk(p, states, mask, reverse, step, *others):
    """Runs step(t, n, *states of the row) -> new states over all rows; returns the states of every step and the last ones."""
    steps, rows = p.shape[:2]
    kind = np.result_type(p, *states, *others)
    seen = [np.zeros((steps, *s.shape), kind) for s in states]
    last = [np.array(s, kind) for s in states]
    for n in range(rows):
        for t in reversed(range(steps)) if reverse else range(steps):
            new = step(t, n, *(s[n].copy() for s in last))
            for k, s in enumerate(last):
                if mask is None or mask[t, n]:
                    s[n] = new[k]
                seen[k][t, n] = s[n]
    return seen, last


def rnn(p, w, b, h0, mask, reverse):
    bias = 0 if b is None else b
    (h,), (last,) = walk(p, [h0], mask, reverse, lambda t, n, h: [np.tanh(p[t, n] + h @ w + bias)], w, bias)
    return h, last


def lstm(p, w, b, h0, c0, mask, reverse):
    bias = 0 if b is None else b
    gates = np.zeros(p.shape, np.result_type(p, w, bias, h0, c0))

    def step(t, n, h, c):
        i, f, g, o = np.split(p[t, n] + h @ w + bias, 4)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        gates[t, n] = np.concatenate([i, f, g, o])
        c = f * c + i * g
        return [o * np.tanh(c), c]

    (h, c), (h_last, c_last) = walk(p, [h0, c0], mask, reverse, step, gates)
    return h, h_last, c_last, c, gates


def gru(p, w, b_ih, b_hh, h0, mask, reverse, reset_after):
    x = p if b_ih is None else p + b_ih
    n_h = w.shape[0]
    b = np.zeros(3 * n_h) if b_hh is None else b_hh
    gates = np.zeros((*p.shape[:2], (4 if reset_after else 3) * n_h), np.result_type(x, w, h0, b))

    def step(t, n, h):
        z, r = np.split(sigmoid(x[t, n, : 2 * n_h] + h @ w[:, : 2 * n_h] + b[: 2 * n_h]), 2)
        q = (h if reset_after else r * h) @ w[:, 2 * n_h :] + b[2 * n_h :]
        u = np.tanh(x[t, n, 2 * n_h :] + (r * q if reset_after else q))
        gates[t, n] = np.concatenate([z, r, u, q] if reset_after else [z, r, u])
        return [(1 - z) * u + z * h]

    (h,), (last,) = walk(p, [h0], mask, reverse, step, gates)
    return h, last, gates


def slopes(loss, operands):
    """The gradient of loss(*operands) to each operand, element by element."""
    grads = []
    for k, x in enumerate(operands):
        grad = np.zeros(x.shape)
        for i in np.ndindex(x.shape):
            nudged = [np.array(y, complex) if j == k else y for j, y in enumerate(operands)]
            nudged[k][i] += 1e-30j
            grad[i] = loss(*nudged).imag / 1e-30
        grads.append(grad)
    return grads


def total(results, grads):
    return sum((g * y).sum() for y, g in zip(results, grads, strict=False) if g is not None)


def before(h, h0, reverse):
    return np.concatenate([h[1:], h0[None]] if reverse else [h0[None], h[:-1]])


def logit(y):
    return np.log(y / (1 - y))


def rnn_grad(g, g_last, h, w, h0, mask, reverse):
    p = np.arctanh(h * 1.0) - before(h, h0, reverse) @ w  # the sums that led to these states; any, where a step is skipped
    dp, dw, db, dh0 = slopes(lambda p, w, b, h0: total(rnn(p, w, b, h0, mask, reverse), (g, g_last)), [p, w, np.zeros(w.shape[1]), h0])
    return dp, dw, db, dh0


def lstm_grad(g, g_h, g_c, gates, c, h, w, h0, c0, mask, reverse):
    n = w.shape[0]
    i, f, u, o = (gates[:, :, k * n : (k + 1) * n] for k in range(4))
    p = np.concatenate([logit(i), logit(f), np.arctanh(u), logit(o)], 2) - before(h, h0, reverse) @ w
    loss = lambda p, w, b, h0, c0: total(lstm(p, w, b, h0, c0, mask, reverse)[:3], (g, g_h, g_c))  # noqa: E731
    return tuple(slopes(loss, [p, w, np.zeros(4 * n), h0, c0]))


def gru_grad(g, g_last, gates, h, w, h0, mask, reverse, reset_after):
    n = w.shape[0]
    prev, (z, r, u) = before(h, h0, reverse), (gates[:, :, k * n : (k + 1) * n] for k in range(3))
    b_hh = np.zeros(3 * n)
    if reset_after:
        b_hh[2 * n :] = np.median(gates[:, :, 3 * n :] - prev @ w[:, 2 * n :], axis=(0, 1))
        into_n = r * gates[:, :, 3 * n :]
    else:
        into_n = (r * prev) @ w[:, 2 * n :]
    p = np.concatenate([logit(z) - prev @ w[:, :n], logit(r) - prev @ w[:, n : 2 * n], np.arctanh(u) - into_n], 2)
    loss = lambda p, w, b_ih, b_hh, h0: total(gru(p, w, b_ih, b_hh, h0, mask, reverse, reset_after), (g, g_last))  # noqa: E731
    return tuple(slopes(loss, [p, w, np.zeros(3 * n), b_hh, h0]))


def sequence_mask(lengths, steps, dtype):
    return np.array([[float(t < n) for n in lengths] for t in range(steps)]).reshape(steps, len(lengths))


def embedding(w, index, padding):
    y = np.zeros((*index.shape, w.shape[1]))
    for i in np.ndindex(index.shape):
        y[i] = 0 if index[i] == padding else w[index[i]]
    return y


def embedding_grad(g, index, n, padding):
    dw = np.zeros((n, g.shape[-1]))
    for i in np.ndindex(index.shape):
        if index[i] != padding:
            dw[index[i]] += g[i]
    return dw


def attention(q, k, v, heads, scale):
    y, p = np.zeros(q.shape, np.result_type(q, k, v)), np.zeros((len(q), heads, q.shape[1], k.shape[1]), np.result_type(q, k))
    d = q.shape[2] // heads
    for n, h in np.ndindex(len(q), heads):
        part = slice(h * d, (h + 1) * d)
        e = np.exp(scale * q[n, :, part] @ k[n, :, part].T)
        p[n, h] = e / e.sum(-1, keepdims=True)
        y[n, :, part] = p[n, h] @ v[n, :, part]
    return y, p


def attention_grad(g, p, q, k, v, heads, scale):
    return tuple(slopes(lambda q, k, v: (g * attention(q, k, v, heads, scale)[0]).sum(), [q, k, v]))
