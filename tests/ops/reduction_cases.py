"""Rows of the op table: reductions over axes, and sums to a shape."""

import numpy as np

from tests.ops.op_cases import Case, distinct, normal, positive

S = (2, 3, 4)
AXES = [(None, False), (None, True), (0, False), (-1, True), (1, False), ((0, 2), False), ((2, 0), True), ((), False)]


def _id(axis, keep):
    return f"{'all' if axis is None else axis}{'-keep' if keep else ''}".replace(" ", "")


def reduction(name, define, operand, torch=None, axes=AXES, **more):
    rows = []
    for axis, keep in axes:
        twin = None
        if torch is not None and axis != ():
            twin = lambda t, x, axis=axis, keep=keep: torch(t, x, tuple(range(x.ndim)) if axis is None else axis, keep)  # noqa: E731
        rows.append(
            Case(
                f"{name}-{_id(axis, keep)}",
                lambda x, axis=axis, keep=keep: getattr(x, name)(axis, keep),
                (operand,),
                lambda x, axis=axis, keep=keep: define(x, axis=axis, keepdims=keep),
                twin,
                **more,
            )
        )
    return rows


def flag(f):
    return lambda x, axis, keepdims: f(x != 0, axis=axis, keepdims=keepdims).astype(float)


def logsumexp(x, axis, keepdims):
    return np.log(np.exp(x).sum(axis=axis, keepdims=keepdims))


def norm(x, axis, keepdims):
    return np.sqrt((x * x).sum(axis=axis, keepdims=keepdims))


def few(shape):
    return lambda rng, dtype: np.asarray(rng.integers(0, 2, shape), dtype)


NOT_EMPTY = [row for row in AXES if row[0] != ()]
ONE_AXIS = [row for row in NOT_EMPTY if not isinstance(row[0], tuple)]

CASES = [
    *reduction("sum", np.sum, normal(*S), lambda t, x, axis, keep: t.sum(x, axis, keepdim=keep)),
    *reduction("mean", np.mean, normal(*S), lambda t, x, axis, keep: t.mean(x, axis, keepdim=keep)),
    *reduction("max", np.max, distinct(*S), lambda t, x, axis, keep: t.amax(x, axis, keepdim=keep)),
    *reduction("min", np.min, distinct(*S), lambda t, x, axis, keep: t.amin(x, axis, keepdim=keep)),
    *reduction("prod", np.prod, distinct(*S), rtol=(1e-5, 1e-12), steps=(1e-6, 1e-4, 1e-6)),
    *reduction("var", np.var, normal(*S), lambda t, x, axis, keep: t.var(x, axis, correction=0, keepdim=keep)),
    *reduction("std", np.std, normal(*S), lambda t, x, axis, keep: t.std(x, axis, correction=0, keepdim=keep), axes=NOT_EMPTY),
    *reduction("norm", norm, normal(*S), lambda t, x, axis, keep: t.linalg.vector_norm(x, dim=axis, keepdim=keep)),
    *reduction("logsumexp", logsumexp, normal(*S), lambda t, x, axis, keep: t.logsumexp(x, axis, keepdim=keep)),
    *reduction("any", flag(np.any), few(S), order=0),
    *reduction("all", flag(np.all), few(S), order=0),
    Case("sum-scalar", lambda x: x.sum(), (normal(),), np.sum),
    Case("max-scalar", lambda x: x.max(None), (normal(),), np.max),
    Case("norm-scalar", lambda x: x.norm(), (positive(),), np.abs),
    Case("logsumexp-scalar", lambda x: x.logsumexp(), (normal(),), np.array),
    Case("var-ddof", lambda x: x.var(1, ddof=1), (normal(*S),), lambda x: x.var(1, ddof=1), lambda t, x: t.var(x, 1, correction=1)),
    *[
        Case(f"{name}-{_id(axis, False)}", lambda x, n=name, a=axis: getattr(x, n)(a), (distinct(*S),), f, order=0, dtype=np.int64)
        for axis in (None, 0, -1)
        for name, f in (("argmax", lambda x, a=axis: np.argmax(x, a)), ("argmin", lambda x, a=axis: np.argmin(x, a)))
    ],
    *[
        Case(f"cumsum-{_id(axis, False)}", lambda x, a=axis: x.cumsum(a), (normal(*S),), lambda x, a=axis: np.cumsum(x, a), twin)
        for axis, twin in ((None, None), (0, lambda t, x: t.cumsum(x, 0)), (-2, lambda t, x: t.cumsum(x, -2)))
    ],
    Case("sum_to_shape", lambda x: x.sum_to_shape((3, 1)), (normal(*S),), lambda x: x.sum((0, 2))[:, None]),
    Case("sum_to_shape-same", lambda x: x.sum_to_shape(S), (normal(*S),), np.array),
    Case("sum_to_shape-scalar", lambda x: x.sum_to_shape(()), (normal(*S),), np.sum),
    Case("sum_to_shape-ones", lambda x: x.sum_to_shape((1, 1)), (normal(*S),), lambda x: x.sum().reshape(1, 1)),
]
