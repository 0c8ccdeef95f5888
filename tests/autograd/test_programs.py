"""Random programs: written with in-place operations they mean what they mean without.

A program works on a few variables (leaves, a constant, results).  It is run twice, once with ``a += b``, ``a[k] = b`` and so on,
once with ``a = a + b``; values, gradients of all leaves and products with the Hessian must agree.  A gradient may be refused
(RuntimeError) where memory of a plain tensor was overwritten, but never be wrong.
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import keydnn
from keydnn import Tensor

UNARY = {
    "tanh": Tensor.tanh,
    "exp": lambda t: (t * 0.1).exp(),
    "square": Tensor.square,
    "sigmoid": Tensor.sigmoid,
    "reshape": lambda t: t.reshape(2, 2).T.reshape(4),
    "roll": lambda t: t.roll(1, 0),
    "take": lambda t: t[[0, 0, 2, 3]],
    "detach": lambda t: t.detach() * 1.0,
    "softmax": Tensor.softmax,
}
BINARY = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / (b * b + 1.0)}
ASSIGN = {
    "+=": (Tensor.__iadd__, lambda a, b: a + b),
    "-=": (Tensor.__isub__, lambda a, b: a - b),
    "*=": (Tensor.__imul__, lambda a, b: a * b),
    "/=": (lambda a, b: a.__itruediv__(b * b + 1.0), lambda a, b: a / (b * b + 1.0)),
}
KEYS = [1, slice(0, 3), [0, 2, 2]]
N = 5  # variables: two leaves, a constant, two results

slots = st.integers(0, N - 1)
targets = st.integers(2, N - 1)  # leaves are not written
instructions = st.one_of(
    st.tuples(st.sampled_from(sorted(UNARY)), slots, targets),
    st.tuples(st.sampled_from(sorted(BINARY)), slots, slots, targets),
    st.tuples(st.sampled_from(sorted(ASSIGN)), targets, slots),
    st.tuples(st.just("set"), targets, st.integers(0, len(KEYS) - 1), slots),
    st.tuples(st.just("scale"), targets, st.sampled_from([0.5, -1.5])),
)


def put(a, key, b):
    """a with b at key, by masks alone."""
    place = np.zeros(4)
    place[key] = 1
    value = b[key]
    order = np.full(4, -1)
    order[key] = np.arange(value.size).reshape(value.shape)
    flat = value.reshape(value.size)
    picked = Tensor.stack([flat[int(i)] if i >= 0 else flat[0] * 0.0 for i in order])
    return a * Tensor(data=1 - place) + picked * Tensor(data=place)


def execute(program, in_place):
    rng = np.random.default_rng(0)
    variables = [Tensor(data=rng.normal(size=4), requires_grad=i < 2) for i in range(3)]
    variables += [variables[0] * 1.0, variables[1] * 2.0]
    leaves = variables[:2]
    plain_writes = False
    for name, *where in program:
        before = None if name in UNARY or name in BINARY else variables[where[0]]
        if name in UNARY:
            variables[where[1]] = UNARY[name](variables[where[0]])
        elif name in BINARY:
            variables[where[2]] = BINARY[name](variables[where[0]], variables[where[1]])
        elif name == "set":
            target, key, source = where[0], KEYS[where[1]], variables[where[2]]
            if in_place:
                variables[target][key] = source[key]
            else:
                variables[target] = put(variables[target], key, source)
        elif name == "scale":
            target, number = where
            variables[target] = variables[target].__imul__(number) if in_place else variables[target] * number
        else:
            f, plain = ASSIGN[name]
            variables[where[0]] = (f if in_place else plain)(variables[where[0]], variables[where[1]])
        plain_writes = plain_writes or (before is not None and not variables[where[0]].requires_grad)
    total = variables[2].sum()
    for v in variables[3:]:
        total = total + (v * v).sum()
    return leaves, variables, total, plain_writes


def backward(total, may_refuse):
    """Whether the gradients were computed; a refusal must be allowed and say why."""
    try:
        total.backward()
    except RuntimeError as error:
        assert may_refuse and "changed in place" in str(error)
        return False
    return True


@given(program=st.lists(instructions, max_size=12))
def test_in_place_means_the_same(program):
    (a, b), have, total, plain_writes = execute(program, in_place=True)
    (p, q), want, plain, _ = execute(program, in_place=False)
    for t, u in zip(have, want, strict=True):
        np.testing.assert_allclose(t.numpy(), u.numpy(), rtol=1e-9, atol=1e-9)
    if not plain.requires_grad:
        assert not total.requires_grad
        return
    if not backward(total, plain_writes):
        return
    plain.backward()
    for t, u in ((a, p), (b, q)):
        assert (t.grad is None) == (u.grad is None)
        if u.grad is not None:
            np.testing.assert_allclose(t.grad.numpy(), u.grad.numpy(), rtol=1e-7, atol=1e-9)
    vector = [Tensor(data=np.array([1.0, -2.0, 0.5, 3.0]))] * 2
    expected = keydnn.hvp(plain, [p, q], vector)
    for h, w in zip(keydnn.hvp(total, [a, b], vector), expected, strict=True):
        np.testing.assert_allclose(h.numpy(), w.numpy(), rtol=1e-6, atol=1e-8)


@given(program=st.lists(instructions, max_size=10))
def test_gradients_equal_differences(program):
    (a, b), _, total, plain_writes = execute(program, in_place=True)
    if not total.requires_grad or any(step[0] == "detach" for step in program) or not backward(total, plain_writes):
        return
    rng = np.random.default_rng(0)
    start = [rng.normal(size=4) for _ in range(3)]

    def value(i, j, shift):
        moved = [x.copy() for x in start]
        moved[i][j] += shift
        return evaluate(program, moved)

    for i, leaf in enumerate((a, b)):
        got = np.zeros(4) if leaf.grad is None else leaf.grad.numpy()
        differences = [(value(i, j, 1e-6) - value(i, j, -1e-6)) / 2e-6 for j in range(4)]
        rounding = 1e-9 * abs(float(total))  # of the differences
        np.testing.assert_allclose(got, differences, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(got).max()) + rounding)


def evaluate(program, start):
    """The program in NumPy."""
    softmax = lambda x: np.exp(x - x.max()) / np.exp(x - x.max()).sum()  # noqa: E731
    unary = {
        "tanh": np.tanh,
        "exp": lambda x: np.exp(0.1 * x),
        "square": np.square,
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "reshape": lambda x: x.reshape(2, 2).T.reshape(4),
        "roll": lambda x: np.roll(x, 1),
        "take": lambda x: x[[0, 0, 2, 3]],
        "softmax": softmax,
    }
    v = [x.copy() for x in start]
    v += [v[0] * 1.0, v[1] * 2.0]
    for name, *where in program:
        if name in unary:
            v[where[1]] = unary[name](v[where[0]])
        elif name in BINARY:
            v[where[2]] = BINARY[name](v[where[0]], v[where[1]])
        elif name == "set":
            changed = v[where[0]].copy()
            changed[KEYS[where[1]]] = v[where[2]][KEYS[where[1]]]
            v[where[0]] = changed
        elif name == "scale":
            v[where[0]] = v[where[0]] * where[1]
        else:
            v[where[0]] = ASSIGN[name][1](v[where[0]], v[where[1]])
    return v[2].sum() + sum((x * x).sum() for x in v[3:])
