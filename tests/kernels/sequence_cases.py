"""Example operands for the recurrent and lookup kernels; see `cases.py`, which lists them."""

import numpy as np

from tests.kernels import sequence_definitions as d

MASK = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]])
TOLERANCES = {"rtol": (2e-5, 1e-12), "atol": (2e-5, 1e-12)}


def operands(rng, dtype, gates, steps, rows, n, masked):
    """p, w, b, b2, h0, c0, mask as float64 values that the dtype holds exactly."""
    shapes = [(steps, rows, gates * n), (n, gates * n), (gates * n,), (gates * n,), (rows, n), (rows, n)]
    drawn = [(0.5 * rng.standard_normal(s)).astype(dtype).astype(np.float64) for s in shapes]
    return [*drawn, MASK[:steps, :rows].astype(np.float64) if masked else None]


def sequence_case(case_type, kernel, make, label):
    return case_type(kernel, make, getattr(d, kernel), label, **TOLERANCES)


def _forward(kind, drawn, biased, how):
    p, w, b, b2, h0, c0, mask = drawn
    b, b2 = (b, b2) if biased else (None, None)
    arrays = {"rnn": [p, w, b, h0, mask], "lstm": [p, w, b, h0, c0, mask], "gru": [p, w, b, b2, h0, mask]}[kind]
    return arrays, getattr(d, kind)(*arrays, **how)


def recurrent(case_type, kind, gates, size, biased, masked, **how):
    """The case of a kernel and that of its gradient."""
    (steps, rows, n), name = size, f"{kind}-{'bias' if biased else 'bare'}-{'mask' if masked else 'all'}"
    label = "-".join([name, *(f"{k}={v}" for k, v in how.items()), "x".join(map(str, size))]).removeprefix(f"{kind}-")

    def cast(arrays, dtype):
        return [None if a is None else a.astype(dtype) for a in arrays]

    def make(rng, dtype):
        drawn = operands(rng, dtype, gates, steps, rows, n, masked)
        return cast(_forward(kind, drawn, biased, how)[0], dtype), dict(how)

    def make_grad(rng, dtype):
        drawn = operands(rng, dtype, gates, steps, rows, n, masked)
        _, results = _forward(kind, drawn, biased, how)
        _, w, _, _, h0, c0, mask = drawn
        g = [rng.standard_normal(s) if there else None for s, there in (((steps, rows, n), biased), ((rows, n), masked or not biased))]
        if kind == "lstm":
            h, _, _, c, kept = results
            arrays = [*g, rng.standard_normal((rows, n)), kept, c, h, w, h0, c0, mask]
        else:
            arrays = [*g, *reversed(results[2:]), results[0], w, h0, mask]
        return cast(arrays, dtype), dict(how)

    yield sequence_case(case_type, kind, make, label)
    yield sequence_case(case_type, f"{kind}_grad", make_grad, label)


def attention(case_type, n, steps, keys, heads, width):
    how = {"heads": heads, "scale": 0.7}

    def drawn(rng, dtype):
        shapes = [(n, steps, heads * width), (n, keys, heads * width), (n, keys, heads * width)]
        return [rng.standard_normal(s).astype(dtype).astype(np.float64) for s in shapes]

    def make(rng, dtype):
        return [x.astype(dtype) for x in drawn(rng, dtype)], dict(how)

    def make_grad(rng, dtype):
        q, k, v = drawn(rng, dtype)
        p = d.attention(q, k, v, **how)[1]
        return [x.astype(dtype) for x in (rng.standard_normal(q.shape), p, q, k, v)], dict(how)

    label = f"{n}x{steps}x{keys}x{heads}x{width}"
    yield sequence_case(case_type, "attention", make, label)
    yield sequence_case(case_type, "attention_grad", make_grad, label)


def cases(case_type):
    for reverse in (False, True):
        for biased, masked, size in [(True, False, (3, 2, 3)), (False, True, (4, 3, 2)), (True, True, (4, 3, 1)), (True, False, (1, 1, 1))]:
            yield from recurrent(case_type, "rnn", 1, size, biased, masked, reverse=reverse)
            yield from recurrent(case_type, "lstm", 4, size, biased, masked, reverse=reverse)
            for after in (False, True):
                yield from recurrent(case_type, "gru", 3, size, biased, masked, reverse=reverse, reset_after=after)

    for sizes in ((2, 3, 5, 2, 3), (1, 4, 1, 1, 2), (1, 1, 3, 3, 1)):
        yield from attention(case_type, *sizes)

    def lookup(kernel, label, operand, shape, low, high, **params):
        def make(rng, dtype):
            return [rng.standard_normal(operand).astype(dtype), np.asarray(rng.integers(low, high, shape))], params

        return case_type(kernel, make, getattr(d, kernel), label)

    for label, shape in (("vector", (9,)), ("matrix", (3, 4)), ("scalar", ()), ("none", (0,))):
        for padding in (None, 2):
            yield lookup("embedding", f"{label}-{padding}", (5, 3), shape, 0, 5, padding=padding)
            yield lookup("embedding_grad", f"{label}-{padding}", (*shape, 3), shape, 0, 5, n=5, padding=padding)
    yield lookup("embedding", "negative", (5, 20), (6,), -5, 5, padding=None)
    yield lookup("embedding_grad", "negative", (6, 20), (6,), -5, 5, n=5, padding=None)

    def make_mask(rng, dtype):
        return [np.array([3, 0, 5, 7, 1])], {"steps": 5, "dtype": dtype}

    yield case_type("sequence_mask", make_mask, d.sequence_mask)
