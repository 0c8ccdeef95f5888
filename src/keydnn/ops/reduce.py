"""Reductions over axes, and their inverse, broadcasting.

``axis`` is None (everything), an int or a tuple of ints; negative axes count from the end.
"""

from __future__ import annotations

import numpy as np

from keydnn.domain.errors import ShapeError
from keydnn.ops._primitive import primitive
from keydnn.ops.elementwise import exp, where


def axes_of(name: str, axis, ndim: int) -> tuple[int, ...] | None:
    """``axis`` as None or a sorted tuple of distinct non-negative ints.

    Raises:
        TypeError: Not None, an int or a tuple of ints.
        ValueError: An axis does not exist or appears twice.
    """
    if axis is None:
        return None
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    for a in axes:
        if not isinstance(a, int | np.integer) or isinstance(a, bool):
            raise TypeError(f"{name}: axis must be None, an int or a tuple of ints, got {axis!r}")
        if not -ndim <= a < ndim:
            raise ShapeError(f"{name}: axis {a} is out of range for a tensor with {ndim} axes")
    found = tuple(sorted(int(a) % ndim for a in axes))
    if len(set(found)) != len(found):
        raise ShapeError(f"{name}: axis {axis!r} names an axis twice")
    return found


def _kept(shape, axis):
    """``shape`` with the reduced axes as 1."""
    return tuple(1 if axis is None or i in axis else n for i, n in enumerate(shape))


def _count(shape, axis):
    n = 1
    for i, size in enumerate(shape):
        if axis is None or i in axis:
            n *= size
    return n


@primitive
def sum_p(k, x, *, axis, keepdims):
    """Sum over axes."""
    return k.sum(x, axis, keepdims), (x.shape, axis)


@sum_p.gradient
def _(saved, g, needs):
    shape, axis = saved
    return g.reshape(_kept(shape, axis)).broadcast_to(shape)


@primitive
def mean_p(k, x, *, axis, keepdims):
    """Mean over axes."""
    return k.mean(x, axis, keepdims), (x.shape, axis)


@mean_p.gradient
def _(saved, g, needs):
    shape, axis = saved
    return (g / _count(shape, axis)).reshape(_kept(shape, axis)).broadcast_to(shape)


@primitive
def max_p(k, x, *, axis, keepdims):
    """Largest over axes."""
    y = k.max(x, axis, keepdims)
    return y, (x, y, axis)


@max_p.gradient
def _(saved, g, needs):
    x, y, axis = saved
    kept = _kept(x.shape, axis)
    return (x == y.reshape(kept).broadcast_to(x.shape)) * g.reshape(kept)  # every tie gets the full gradient


@primitive
def min_p(k, x, *, axis, keepdims):
    """Smallest over axes."""
    y = k.min(x, axis, keepdims)
    return y, (x, y, axis)


@min_p.gradient
def _(saved, g, needs):
    x, y, axis = saved
    kept = _kept(x.shape, axis)
    return (x == y.reshape(kept).broadcast_to(x.shape)) * g.reshape(kept)


@primitive
def prod_p(k, x, *, axis, keepdims):
    """Product over axes."""
    return k.prod(x, axis, keepdims), (x, axis)


@prod_p.gradient
def _(saved, g, needs):
    x, axis = saved
    zero = x == 0
    nonzero = where(zero, 1.0, x)
    rest = prod_p(nonzero, axis=axis, keepdims=True)  # the product of the others, also when one element is 0
    zeros = sum_p(zero, axis=axis, keepdims=True)
    others = rest / nonzero * (zeros == 0) + rest * zero * (zeros == 1)
    return g.reshape(_kept(x.shape, axis)) * others


@primitive
def norm_p(k, x, *, axis, keepdims):
    """Square root of the sum of squares."""
    y = k.sqrt(k.sum(k.mul(x, x), axis, keepdims))
    return y, (x, y, axis)


@norm_p.gradient
def _(saved, g, needs):
    x, y, axis = saved
    safe = where(y == 0, 1.0, y)  # the gradient at the origin is 0
    return x * (g / safe).reshape(_kept(x.shape, axis))


@primitive
def logsumexp_p(k, x, *, axis, keepdims):
    """``log(sum(exp(x)))`` without overflow."""
    top = k.max(x, axis, True)
    top = k.where(k.eq(k.abs(top), float("inf")), 0.0, top)
    y = k.add(k.log(k.sum(k.exp(k.sub(x, top)), axis, True)), top)
    if not keepdims:
        y = y.reshape([n for i, n in enumerate(x.shape) if not (axis is None or i in axis)])
    return y, (x, y, axis)


@logsumexp_p.gradient
def _(saved, g, needs):
    x, y, axis = saved
    kept = _kept(x.shape, axis)
    return g.reshape(kept) * exp(x - y.reshape(kept))


@primitive
def argmax_p(k, x, *, axis):
    """Index of the first largest; no gradient."""
    return k.argmax(x, axis)


@primitive
def argmin_p(k, x, *, axis):
    """Index of the first smallest; no gradient."""
    return k.argmin(x, axis)


@primitive
def any_p(k, x, *, axis, keepdims):
    """1 where any element is not 0."""
    return k.any(x, axis, keepdims)


@primitive
def all_p(k, x, *, axis, keepdims):
    """1 where all elements are not 0."""
    return k.all(x, axis, keepdims)


@primitive
def cumsum_p(k, x, *, axis):
    """Running sum along one axis."""
    return k.cumsum(x, axis), (axis,)


@cumsum_p.gradient
def _(saved, g, needs):
    (axis,) = saved
    return cumsum_p(g.flip(axis), axis=axis).flip(axis)


# -- the functions users call


def _counted(x):
    """Booleans as the whole numbers 0 and 1, all else as it is."""
    return x.astype("int64") if x.dtype.kind == "b" else x


def _in_floats(function, x, *rest):
    """``function`` of x; of integers and booleans computed in float64, with a float32 result."""
    return function(x, *rest) if x.dtype.kind == "f" else function(x.astype("float64"), *rest).astype("float32")


def sum(x, axis=None, keepdims=False):
    """Sum over ``axis``; None sums everything.  Booleans are counted, as int64.

    Args:
        axis: None, an int or a tuple of ints.
        keepdims: Whether the reduced axes stay with size 1.

    Raises:
        TypeError: ``axis`` is of another kind.
        ValueError: ``axis`` is out of range.

    Example:
        >>> keydnn.ops.sum(keydnn.ones((2, 3)), axis=1).tolist()
        [3.0, 3.0]
    """
    x = _counted(x)
    return sum_p(x, axis=axes_of("sum", axis, x.ndim), keepdims=bool(keepdims))


def mean(x, axis=None, keepdims=False):
    """Arithmetic mean over ``axis``; None takes everything.  Of integers and booleans it is float32; arguments as :func:`sum`."""
    axis = axes_of("mean", axis, x.ndim)
    return _in_floats(lambda x: mean_p(x, axis=axis, keepdims=bool(keepdims)), x)


def max(x, axis=-1, keepdims=False):
    """Largest over ``axis``; every position equal to the maximum receives the full gradient."""
    return max_p(x, axis=_non_empty("max", x, axis), keepdims=bool(keepdims))


def min(x, axis=-1, keepdims=False):
    """Smallest over ``axis``; every position equal to the minimum receives the full gradient."""
    return min_p(x, axis=_non_empty("min", x, axis), keepdims=bool(keepdims))


def prod(x, axis=None, keepdims=False):
    """Product over ``axis``; None takes everything.  Second derivatives are right where no element is 0."""
    x = _counted(x)
    return prod_p(x, axis=axes_of("prod", axis, x.ndim), keepdims=bool(keepdims))


def var(x, axis=None, keepdims=False, ddof=0):
    """Variance over ``axis``: mean squared deviation, divided by ``n - ddof``; arguments as :func:`sum`."""
    axis = axes_of("var", axis, x.ndim)
    return _in_floats(_var, x, axis, keepdims, ddof)


def _var(x, axis, keepdims, ddof):
    d = x - mean_p(x, axis=axis, keepdims=True)
    n = _count(x.shape, axis)
    return sum_p(d * d, axis=axis, keepdims=bool(keepdims)) / (n - ddof)


def std(x, axis=None, keepdims=False, ddof=0):
    """Standard deviation over ``axis``, divided by ``n - ddof``; the gradient at 0 is not finite."""
    return var(x, axis, keepdims, ddof).sqrt()


def norm(x, axis=None, keepdims=False):
    """Euclidean norm over ``axis``; the gradient at the origin is 0."""
    axis = axes_of("norm", axis, x.ndim)
    return _in_floats(lambda x: norm_p(x, axis=axis, keepdims=bool(keepdims)), x)


def logsumexp(x, axis=None, keepdims=False):
    """``log(sum(exp(x)))`` over ``axis``, without overflow."""
    axis = _non_empty("logsumexp", x, axis)
    return _in_floats(lambda x: logsumexp_p(x, axis=axis, keepdims=bool(keepdims)), x)


def argmax(x, axis=None):
    """int64 index of the first largest element, flat (None) or along one axis; no gradient."""
    return argmax_p(x, axis=_single("argmax", x, axis))


def argmin(x, axis=None):
    """int64 index of the first smallest element, flat (None) or along one axis; no gradient."""
    return argmin_p(x, axis=_single("argmin", x, axis))


def any(x, axis=None, keepdims=False):
    """1 where any element over ``axis`` is not 0, else 0; no gradient."""
    return any_p(x, axis=axes_of("any", axis, x.ndim), keepdims=bool(keepdims))


def all(x, axis=None, keepdims=False):
    """1 where all elements over ``axis`` are not 0, else 0; no gradient."""
    return all_p(x, axis=axes_of("all", axis, x.ndim), keepdims=bool(keepdims))


def cumsum(x, axis=0):
    """Running sum along one axis; None runs over all elements in order and gives one axis.  Booleans are counted, as int64."""
    x = _counted(x)
    if axis is None:
        return cumsum_p(x.reshape((x.size,)), axis=0)
    return cumsum_p(x, axis=_one("cumsum", x, axis)[0])


def _one(name, x, axis):
    axes = axes_of(name, axis, x.ndim)
    if axes is not None and len(axes) != 1:
        raise TypeError(f"{name}: axis must be one int or None, got {axis!r}")
    return axes


def _single(name, x, axis):
    axes = _one(name, x, axis)
    _refuse_empty(name, x, axes)
    return None if axes is None else axes[0]


def _non_empty(name, x, axis):
    axes = axes_of(name, axis, x.ndim)
    _refuse_empty(name, x, axes)
    return axes


def _refuse_empty(name, x, axes):
    if _count(x.shape, axes) == 0:
        raise ShapeError(f"{name}: nothing to reduce in a tensor of shape {x.shape}")
