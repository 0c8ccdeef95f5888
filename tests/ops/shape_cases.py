"""Rows of the op table: operations that move elements."""

import numpy as np

from keydnn import ops
from tests.ops.op_cases import Case, given, integers, normal

S = (2, 3, 4)


def moved(name, op, define, *operands, torch=None, **more):
    """A movement of elements: exact."""
    return Case(name, op, operands or (normal(*S),), define, torch, rtol=(0, 0), atol=(0, 0), **more)


def same(name, op, *operands, **more):
    """The expression means the same in NumPy and in PyTorch."""
    return moved(name, op, op, *operands, torch=lambda t, *xs: op(*xs), **more)


def put(key):
    """x with value at key, on the graph of both."""

    def op(x, value):
        y = x * 1.0
        y[key] = value
        return y

    def define(x, value):
        y = x.copy()
        y[key] = value
        return y

    return op, define


def scatter_add(x, index, src):
    y = x.copy()
    for at in np.ndindex(*index.shape):
        y[at[0], index[at], at[2]] += src[at]
    return y


def place(g):
    y = np.zeros((5, 3))
    for i, row in zip((4, 0, 4), g, strict=True):
        y[i] += row
    return y


KEYS = {
    "int": 1,
    "negative": -1,
    "slice": slice(None, None, 2),
    "backwards": (slice(None), slice(None, None, -1)),
    "ints": (1, 2, 3),
    "none": (None, slice(None), None, 0),
    "ellipsis": (..., 1),
    "list": [1, 0, 1],
    "two-lists": ([0, 1, 1], [2, 2, 2]),
    "tuples": ((0, 0, 1), (1, 1, 2)),
    "list-slice-list": ([0, 1], slice(None), [3, 3]),
    "array": np.array([[0, 1], [1, 1]]),
    "mask": np.arange(24).reshape(S) % 3 == 0,
    "row-mask": (slice(None), np.array([True, False, True])),
    "empty": slice(0, 0),
    "no-list": [],
}

RESHAPES = [
    same("reshape", lambda x: x.reshape(4, 6)),
    same("reshape-minus", lambda x: x.reshape((-1, 3, 2))),
    moved("reshape-scalar", lambda x: x.reshape(()), lambda x: x.reshape(()), normal(1, 1)),
    moved("flatten", lambda x: x.flatten(), np.ravel, torch=lambda t, x: x.flatten()),
    moved("flatten-1", lambda x: x.flatten(1), lambda x: x.reshape(2, 12), torch=lambda t, x: x.flatten(1)),
    moved("squeeze", lambda x: x.squeeze(), np.squeeze, normal(1, 3, 1), torch=lambda t, x: x.squeeze()),
    same("squeeze-2", lambda x: x.squeeze(2), normal(1, 3, 1)),
    moved("unsqueeze", lambda x: x.unsqueeze(-1), lambda x: x[..., None], torch=lambda t, x: x.unsqueeze(-1)),
    moved("T", lambda x: x.T, np.transpose, normal(3, 4), torch=lambda t, x: x.T),
    moved("transpose", lambda x: x.transpose(2, 0, 1), lambda x: x.transpose(2, 0, 1), torch=lambda t, x: x.permute(2, 0, 1)),
    moved("transpose-negative", lambda x: x.permute((-1, 0, -2)), lambda x: x.transpose(2, 0, 1)),
    same("swapaxes", lambda x: x.swapaxes(0, -1)),
    moved("broadcast_to", lambda x: x.broadcast_to(2, 3, 4), lambda x: np.broadcast_to(x, S), normal(3, 1)),
    moved("expand", lambda x: x.expand(2, -1, 4), lambda x: np.broadcast_to(x, S), normal(3, 1), torch=lambda t, x: x.expand(2, -1, 4)),
    moved("contiguous", ops.shape.copy_p, np.array),
]

JOINS = [
    moved(
        "stack",
        lambda *xs: ops.stack(xs, -1),
        lambda *xs: np.stack(xs, -1),
        normal(2, 3),
        normal(2, 3),
        torch=lambda t, *xs: t.stack(xs, -1),
    ),
    moved("stack-one", lambda x: ops.stack([x]), lambda x: x[None]),
    moved(
        "concat",
        lambda *xs: ops.concat(xs, 1),
        lambda *xs: np.concatenate(xs, 1),
        normal(2, 3),
        normal(2, 0),
        normal(2, 1),
        torch=lambda t, *xs: t.cat(xs, 1),
    ),
    moved("concat-negative", lambda *xs: ops.concat(xs, -2), lambda *xs: np.concatenate(xs, -2), normal(2, 3), normal(1, 3)),
    moved("split", lambda x: ops.concat(x.split([1, 3], 2)[::-1], 2), lambda x: np.concatenate([x[:, :, 1:], x[:, :, :1]], 2)),
    moved("split-int", lambda x: x.split(2, 1)[1], lambda x: x[:, 2:], torch=lambda t, x: x.split(2, 1)[1]),
    moved("chunk", lambda x: x.chunk(3, -1)[1], lambda x: x[..., 2:4], torch=lambda t, x: x.chunk(3, -1)[1]),
]

MOVES = [
    moved("pad", lambda x: x.pad(((1, 0), (0, 0), (2, 1)), 0.5), lambda x: np.pad(x, ((1, 0), (0, 0), (2, 1)), constant_values=0.5)),
    moved("pad-int", lambda x: x.pad(1), lambda x: np.pad(x, 1), torch=lambda t, x: t.nn.functional.pad(x, (1,) * 6)),
    moved("flip", lambda x: x.flip((0, 2)), lambda x: np.flip(x, (0, 2)), torch=lambda t, x: x.flip((0, 2))),
    moved("flip-all", lambda x: x.flip(), np.flip),
    moved("roll", lambda x: x.roll(2, -1), lambda x: np.roll(x, 2, -1), torch=lambda t, x: x.roll(2, -1)),
    moved("roll-two", lambda x: x.roll((1, -5), (0, 2)), lambda x: np.roll(x, (1, -5), (0, 2)), torch=lambda t, x: x.roll((1, -5), (0, 2))),
    moved("tril", lambda x: x.tril(1), lambda x: np.tril(x, 1), torch=lambda t, x: x.tril(1)),
    moved("triu", lambda x: x.triu(-1), lambda x: np.triu(x, -1), torch=lambda t, x: x.triu(-1)),
    moved("repeat", lambda x: x.repeat(2, 1), lambda x: np.repeat(x, 2, 1), torch=lambda t, x: x.repeat_interleave(2, 1)),
    moved("repeat-each", lambda x: x.repeat([1, 0, 3], 1), lambda x: np.repeat(x, [1, 0, 3], 1)),
    moved("tile", lambda x: x.tile((2, 1, 3)), lambda x: np.tile(x, (2, 1, 3)), torch=lambda t, x: x.tile((2, 1, 3))),
    moved("tile-more", lambda x: x.tile((2, 1, 2)), lambda x: np.tile(x, (2, 1, 2)), normal(3)),
    moved("tile-less", lambda x: x.tile(2), lambda x: np.tile(x, 2)),
    moved("take", lambda x: x.take([2, 0, 2], 1), lambda x: np.take(x, [2, 0, 2], 1)),
    moved("take-int", lambda x: x.take(-1, 1), lambda x: np.take(x, -1, 1)),
    moved(
        "gather",
        lambda x, i: x.gather(1, i),
        lambda x, i: np.take_along_axis(x, i, 1),
        normal(*S),
        integers(0, 3, 2, 5, 4),
        torch=lambda t, x, i: t.gather(x, 1, i),
    ),
    Case(
        "scatter_add",
        lambda x, i, src: x.scatter_add(1, i, src),
        (normal(*S), integers(0, 3, 2, 5, 4), normal(2, 5, 4)),
        scatter_add,
        lambda t, x, i, src: x.scatter_add(1, i, src),
    ),
    Case(
        "astype",
        lambda x: ops.shape.cast_p(x, dtype=np.dtype("float32")),
        (normal(*S),),
        lambda x: x.astype(np.float32).astype(np.float64),
        lambda t, x: x.to(t.float32),
        dtype=np.float32,
        steps=(1e-2, 1e-4, 1e-4),
        rtol=(0, 1e-7),
    ),
    Case("take_grad", lambda g: ops.shape.take_grad_p(g, key=(np.array([4, 0, 4]),), shape=(5, 3)), (normal(3, 3),), place),
]

INDEXING = [moved(f"getitem-{name}", lambda x, k=key: x[k], lambda x, k=key: x[k].copy()) for name, key in KEYS.items()]
INDEXING += [
    moved("getitem-tensor", lambda x, i: x[i], lambda x, i: x[i], normal(*S), given([1, 0, 1], np.int64)),
    moved("getitem-tensor-mask", lambda x: x[x > 0.0][:2], lambda x: x[x > 0][:2]),
]
INDEXING += [moved(f"setitem-{name}", *put(KEYS[name]), normal(*S), normal(), typed=(0,)) for name in KEYS]
INDEXING += [
    moved(f"setitem-values-{name}", *put(KEYS[name]), normal(*S), normal(*np.empty(S)[KEYS[name]].shape), typed=(0,)) for name in KEYS
]
INDEXING += [
    moved("setitem-row", *put((slice(None), [2, 0])), normal(*S), normal(4), typed=(0,)),
    moved("setitem-leading-ones", *put(0), normal(*S), normal(1, 1, 3, 4), typed=(0,)),
    moved("setitem-column", *put((..., slice(1, 3))), normal(*S), normal(3, 1), typed=(0,)),
]

CASES = RESHAPES + JOINS + MOVES + INDEXING
