"""Operations that move elements: reshaping, permuting, joining, padding, indexing."""

from __future__ import annotations

import math
from types import EllipsisType

import numpy as np

from keydnn.autograd.context import Differentiable
from keydnn.autograd.primitive import bind
from keydnn.domain.errors import ShapeError
from keydnn.ops._dtypes import promoted
from keydnn.ops._primitive import primitive
from keydnn.ops.reduce import axes_of, sum_p


@primitive(aliases=True)
def reshape_p(k, x, *, shape):
    """The same elements in another shape; a view where the memory allows."""
    y = x.reshape(shape)
    return (y if y.base is not None else k.copy(x).reshape(shape)), (x.shape,)


@reshape_p.gradient
def _(saved, g, needs):
    return reshape_p(g, shape=saved[0])


@primitive
def broadcast_to_p(k, x, *, shape):
    """Repeated along axes of size 1 and new leading axes."""
    return k.broadcast_to(x, shape), (x.shape,)


@broadcast_to_p.gradient
def _(saved, g, needs):
    return sum_to_shape(g, saved[0])


@primitive
def transpose_p(k, x, *, axes):
    """Axes in another order."""
    return k.transpose(x, axes), (axes,)


@transpose_p.gradient
def _(saved, g, needs):
    (axes,) = saved
    return transpose_p(g, axes=tuple(sorted(range(len(axes)), key=axes.__getitem__)))


@primitive(broadcasts=True)
def concat_p(k, *xs, axis):
    """Joined along an existing axis."""
    return k.concat(*xs, axis=axis), (tuple(x.shape[axis] for x in xs), axis)


@concat_p.gradient
def _(saved, g, needs):
    sizes, axis = saved
    grads, start = [], 0
    for size, need in zip(sizes, needs, strict=True):
        key = (slice(None),) * axis + (slice(start, start + size),)
        grads.append(take_p(g, key=key) if need else None)
        start += size
    return tuple(grads)


@primitive(broadcasts=True)
def stack_p(k, *xs, axis):
    """Joined along a new axis."""
    return k.stack(*xs, axis=axis), (axis,)


@stack_p.gradient
def _(saved, g, needs):
    (axis,) = saved
    return tuple(take_p(g, key=(slice(None),) * axis + (i,)) if need else None for i, need in enumerate(needs))


@primitive
def pad_p(k, x, *, widths, value):
    """A border of one value."""
    return k.pad(x, widths, value), (x.shape, widths)


@pad_p.gradient
def _(saved, g, needs):
    shape, widths = saved
    return take_p(g, key=tuple(slice(before, before + n) for n, (before, _) in zip(shape, widths, strict=True)))


@primitive
def take_p(k, x, *, key):
    """``x[key]``."""
    return k.take(x, key), (key, x.shape)


@take_p.gradient
def _(saved, g, needs):
    key, shape = saved
    return take_grad_p(g, key=key, shape=shape)


@primitive
def take_grad_p(k, g, *, key, shape):
    """Zeros with g added at key."""
    return k.take_grad(g, key, shape), (key,)


@take_grad_p.gradient
def _(saved, h, needs):
    return take_p(h, key=saved[0])


@primitive
def gather_p(k, x, index, *, axis):
    """Elements of x at index along one axis."""
    return k.gather(x, index, axis), (x.shape, index, axis)


@gather_p.gradient
def _(saved, g, needs):
    shape, index, axis = saved
    return scatter_add_p(g._like_full(0.0, shape), index, g, axis=axis), None


@primitive
def scatter_add_p(k, x, index, src, *, axis):
    """x with src added at index along one axis."""
    return k.scatter_add(x, index, src, axis), (index, axis)


@scatter_add_p.gradient
def _(saved, g, needs):
    index, axis = saved
    return g, None, gather_p(g, index, axis=axis) if needs[2] else None


@primitive
def flip_p(k, x, *, axis):
    """Reversed along axes."""
    return k.flip(x, axis), (axis,)


@flip_p.gradient
def _(saved, g, needs):
    return flip_p(g, axis=saved[0])


@primitive
def roll_p(k, x, *, shift, axis):
    """Rotated along axes."""
    return k.roll(x, shift, axis), (shift, axis)


@roll_p.gradient
def _(saved, g, needs):
    shift, axis = saved
    return roll_p(g, shift=tuple(-s for s in shift), axis=axis)


@primitive
def tril_p(k, x, *, k_):
    """Lower triangle of the last two axes."""
    return k.tril(x, k_), (k_,)


@tril_p.gradient
def _(saved, g, needs):
    return tril_p(g, k_=saved[0])


@primitive
def triu_p(k, x, *, k_):
    """Upper triangle of the last two axes."""
    return k.triu(x, k_), (k_,)


@triu_p.gradient
def _(saved, g, needs):
    return triu_p(g, k_=saved[0])


@primitive
def cast_p(k, x, *, dtype):
    """Values in another dtype."""
    return k.cast(x, dtype), (x.dtype,)


@cast_p.gradient
def _(saved, g, needs):
    return cast_p(g, dtype=saved[0])


@primitive
def copy_p(k, x):
    """A contiguous copy."""
    return k.copy(x), ()


@copy_p.gradient
def _(saved, g, needs):
    return g


@primitive
def clone_p(k, x):
    """A contiguous copy outside the graph."""
    return k.copy(x)


@primitive
def one_hot_p(k, index, *, n, dtype):
    """1 at the index along a new last axis; no gradient."""
    return k.one_hot(index, n, dtype)


# -- the functions users call


def shape_of(name: str, sizes) -> tuple[int, ...]:
    """``f(2, 3)`` or ``f((2, 3))`` as a tuple of ints."""
    if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
        sizes = sizes[0]
    try:
        return tuple(int(n.__index__()) for n in sizes)
    except AttributeError:
        raise TypeError(f"{name}: a shape consists of ints, got {tuple(sizes)!r}") from None


def reshape(x, new_shape=(), *more):
    """The same elements in another shape, given as one tuple or as ints; one size may be -1.

    Raises:
        ValueError: The number of elements differs.
    """
    want = shape_of("reshape", (new_shape, *more))
    known = math.prod(n for n in want if n != -1)
    if want.count(-1) == 1 and known > 0 and x.size % known == 0:
        want = tuple(x.size // known if n == -1 else n for n in want)
    if any(n < 0 for n in want) or math.prod(want) != x.size:
        raise ShapeError(f"reshape: {x.size} elements of shape {x.shape} do not fill shape {want}")
    return reshape_p(x, shape=want)


def flatten(x, start=0):
    """All axes from ``start`` on joined into one."""
    (axis,) = axes_of("flatten", start, max(x.ndim, 1))
    return reshape(x, (*x.shape[:axis], math.prod(x.shape[axis:])))


def squeeze(x, axis=None):
    """Without the axes of size 1: all of them, or those named.

    Raises:
        ValueError: A named axis has another size.
    """
    axes = axes_of("squeeze", axis, x.ndim)
    if axes is None:
        axes = tuple(i for i, n in enumerate(x.shape) if n == 1)
    if any(x.shape[a] != 1 for a in axes):
        raise ShapeError(f"squeeze: axis {axis} of shape {x.shape} does not have size 1")
    return reshape_p(x, shape=tuple(n for i, n in enumerate(x.shape) if i not in axes))


def unsqueeze(x, axis):
    """With a new axis of size 1 at ``axis``."""
    (at,) = axes_of("unsqueeze", axis, x.ndim + 1)
    return reshape_p(x, shape=(*x.shape[:at], 1, *x.shape[at:]))


def broadcast_to(x, shape, *more):
    """Repeated to ``shape``, one tuple or ints, by NumPy's rule; the result owns its memory.

    Raises:
        ValueError: The shapes do not fit.
    """
    want = shape_of("broadcast_to", (shape, *more))
    if not broadcasts_to(x.shape, want) or any(m < 0 for m in want):
        raise ShapeError(f"Cannot broadcast shape {x.shape} to {want}")
    return broadcast_to_p(x, shape=want)


def broadcasts_to(shape, want) -> bool:
    """Whether broadcasting turns ``shape`` into ``want``."""
    lead = len(want) - len(shape)
    return lead >= 0 and all(n in (1, m) for n, m in zip(shape, want[lead:], strict=True))


def expand(x, shape, *more):
    """As :func:`broadcast_to`; -1 keeps a size."""
    want = shape_of("expand", (shape, *more))
    lead = len(want) - x.ndim
    return broadcast_to(x, tuple(x.shape[i - lead] if n == -1 and i >= lead else n for i, n in enumerate(want)))


def sum_to_shape(x, target, *more):
    """The inverse of broadcasting: sums the axes that broadcasting ``target``, one tuple or ints, to x would repeat.

    Raises:
        ValueError: ``target`` has more axes than x, or a size that is neither 1 nor x's.
    """
    want = shape_of("sum_to_shape", (target, *more))
    lead = x.ndim - len(want)
    if lead < 0 or any(m not in (1, n) for m, n in zip(want, x.shape[lead:], strict=True)):
        raise ShapeError(f"sum_to_shape: shape {x.shape} cannot be summed to {want}")
    axes = tuple(i for i, n in enumerate(x.shape) if i < lead or (want[i - lead] == 1 and n != 1))
    summed = sum_p(x, axis=axes, keepdims=True) if axes else x
    return summed if summed.shape == want and summed is not x else reshape_p(summed, shape=want)


def transpose(x, *axes):
    """Axes in another order; without arguments the transpose of a 2-D tensor.

    Args:
        axes: The new order, as ints or one tuple.

    Raises:
        ValueError: No order given and x is not 2-D, or the order is no permutation.
    """
    if not axes or axes == (None,):
        if x.ndim != 2:
            raise ShapeError(f"transpose: expected a 2-D tensor, got shape {x.shape}; name the order of the axes for other ranks")
        return transpose_p(x, axes=(1, 0))
    order = shape_of("transpose", axes)
    if sorted(a % x.ndim if -x.ndim <= a < x.ndim else -1 for a in order) != list(range(x.ndim)):
        raise ShapeError(f"transpose: {order} is no order of the {x.ndim} axes of shape {x.shape}")
    return transpose_p(x, axes=tuple(a % x.ndim for a in order))


permute = transpose


def swapaxes(x, axis1, axis2):
    """Two axes exchanged."""
    (a,), (b,) = axes_of("swapaxes", axis1, x.ndim), axes_of("swapaxes", axis2, x.ndim)
    order = list(range(x.ndim))
    order[a], order[b] = b, a
    return transpose_p(x, axes=tuple(order))


def _same_device_list(name, tensors):
    tensors = list(tensors)
    if not tensors:
        raise ShapeError(f"{name}: needs at least one tensor")
    for t in tensors:
        if not isinstance(t, Differentiable):
            raise TypeError(f"{name}: expected Tensors, got {type(t).__name__}")
        if t.device is not tensors[0].device:
            raise ValueError(f"{name}: tensors live on different devices, '{tensors[0].device}' and '{t.device}'")
    return tensors


def stack(tensors, axis=0):
    """Joined along a new axis.

    Args:
        tensors: Tensors of one shape and device, at least one.
        axis: Position of the new axis, from -(n+1) to n.

    Raises:
        ValueError: Empty sequence, shapes or devices differ, no such axis.
    """
    tensors = _same_device_list("stack", tensors)
    for t in tensors:
        if t.shape != tensors[0].shape:
            raise ShapeError(f"stack: Shape mismatch: {tensors[0].shape} vs {t.shape}")
    (at,) = axes_of("stack", axis, tensors[0].ndim + 1)
    return bind(stack_p, tuple(tensors), {"axis": at})


def concat(tensors, axis=0):
    """Joined along an existing axis.

    Args:
        tensors: Tensors of one rank and device that agree in the other axes, at least one, none of rank 0.
        axis: The axis to join.

    Raises:
        ValueError: Empty sequence, rank 0, other sizes or devices differ, no such axis.
    """
    tensors = _same_device_list("concat", tensors)
    first = tensors[0]
    if first.ndim == 0:
        raise ShapeError("concat: scalars have no axis to join; use stack")
    (at,) = axes_of("concat", axis, first.ndim)
    for t in tensors:
        if t.ndim != first.ndim or any(n != m for i, (n, m) in enumerate(zip(t.shape, first.shape, strict=True)) if i != at):
            raise ShapeError(f"concat: Shape mismatch: {first.shape} vs {t.shape} (only axis {at} may differ)")
    return bind(concat_p, tuple(tensors), {"axis": at})


def split(x, sizes, axis=0):
    """Cut along ``axis`` into parts of ``sizes`` (an int: equal parts of that size, the last may be shorter)."""
    (at,) = axes_of("split", axis, x.ndim)
    n = x.shape[at]
    if isinstance(sizes, int):
        if sizes < 1:
            raise ShapeError(f"split: the size must be at least 1, got {sizes}")
        sizes = [min(sizes, n - i) for i in range(0, n, sizes)] or [0]
    if sum(sizes) != n or min(sizes, default=0) < 0:
        raise ShapeError(f"split: sizes {list(sizes)} do not add up to {n}, axis {at} of shape {x.shape}")
    starts = np.cumsum([0, *sizes])
    return tuple(take_p(x, key=(slice(None),) * at + (slice(int(a), int(b)),)) for a, b in zip(starts[:-1], starts[1:], strict=True))


def chunk(x, chunks, axis=0):
    """Cut along ``axis`` into at most ``chunks`` equal parts (the last may be shorter)."""
    if chunks < 1:
        raise ShapeError(f"chunk: chunks must be at least 1, got {chunks}")
    (at,) = axes_of("chunk", axis, x.ndim)
    return split(x, max(1, -(-x.shape[at] // chunks)), at)


def pad(x, widths, value=0.0):
    """A border of ``value``.

    Args:
        widths: ``(before, after)`` per axis, or one int for all.
        value: What to fill with.
    """
    if isinstance(widths, int):
        widths = ((widths, widths),) * x.ndim
    widths = tuple((int(a), int(b)) for a, b in widths)
    if len(widths) != x.ndim or any(a < 0 or b < 0 for a, b in widths):
        raise ShapeError(f"pad: widths {widths} do not fit the {x.ndim} axes of shape {x.shape}")
    return pad_p(x, widths=widths, value=float(value))


def flip(x, axis=None):
    """Reversed along ``axis`` (all axes by default)."""
    axes = axes_of("flip", axis, x.ndim)
    return flip_p(x, axis=tuple(range(x.ndim)) if axes is None else axes)


def roll(x, shift, axis):
    """Elements moved by ``shift`` along ``axis``; what leaves one end enters at the other."""
    shifts = tuple(shift) if isinstance(shift, tuple | list) else (shift,)
    axes = tuple(axis) if isinstance(axis, tuple | list) else (axis,)
    if len(shifts) != len(axes):
        raise ShapeError(f"roll: {len(shifts)} shifts for {len(axes)} axes")
    return roll_p(x, shift=shifts, axis=tuple(axes_of("roll", a, x.ndim)[0] for a in axes))


def _at_least_2d(name, x):
    if x.ndim < 2:
        raise ShapeError(f"{name}: expected at least 2 axes, got shape {x.shape}")


def tril(x, k=0):
    """Lower triangle of the last two axes; ``k`` moves the diagonal."""
    _at_least_2d("tril", x)
    return tril_p(x, k_=int(k))


def triu(x, k=0):
    """Upper triangle of the last two axes; ``k`` moves the diagonal."""
    _at_least_2d("triu", x)
    return triu_p(x, k_=int(k))


def repeat(x, repeats, axis):
    """Each element along ``axis`` repeated ``repeats`` times (NumPy's ``repeat``)."""
    (at,) = axes_of("repeat", axis, x.ndim)
    index = np.repeat(np.arange(x.shape[at]), repeats)
    return take_p(x, key=(slice(None),) * at + (index,))


def tile(x, reps):
    """The whole tensor repeated ``reps`` times per axis (NumPy's ``tile``)."""
    reps = (reps,) if isinstance(reps, int) else tuple(reps)
    shape = (1,) * (len(reps) - x.ndim) + x.shape
    reps = (1,) * (len(shape) - len(reps)) + reps
    inner = [m for r, n in zip(reps, shape, strict=True) for m in (1, n)]
    outer = [m for r, n in zip(reps, shape, strict=True) for m in (r, n)]
    return reshape(broadcast_to(reshape(x, inner), outer), [r * n for r, n in zip(reps, shape, strict=True)])


def take(x, index, axis=0):
    """Slices of x at ``index`` (ints, array or integer Tensor) along ``axis``; repeats are allowed."""
    (at,) = axes_of("take", axis, x.ndim)
    return take_p(x, key=(slice(None),) * at + (_part(index),))


def gather(x, axis, index):
    """``y[i][j] = x[index[i][j]][j]`` for axis 0, and so on: one element per entry of ``index``.

    Args:
        axis: The axis that ``index`` counts along.
        index: Integer Tensor with as many axes as x.
    """
    (at,) = axes_of("gather", axis, x.ndim)
    return gather_p(x, index, axis=at)


def scatter_add(x, axis, index, src):
    """A copy of x with ``src`` added at ``index`` along ``axis``; repeats accumulate."""
    (at,) = axes_of("scatter_add", axis, x.ndim)
    if x.dtype is not src.dtype:
        x, src = promoted("scatter_add", x, src)
    return scatter_add_p(x, index, src, axis=at)


def key_of(key):
    """A NumPy index, always a tuple, from what a user writes between brackets; Tensors become their arrays."""
    return tuple([_part(part) for part in (key if isinstance(key, tuple) else (key,))])


def _part(key):
    """One entry of an index; arrays are copied, because the gradient needs them as they are now."""
    if isinstance(key, Differentiable):
        array = key.to_numpy()
        return _mask(array) if array.dtype.kind == "f" else array.copy()
    if isinstance(key, list | tuple):
        return np.asarray(key) if key else np.empty(0, np.int64)
    return key.copy() if isinstance(key, np.ndarray) else key


def is_basic(key) -> bool:
    """Whether a key meets no element twice because it has only ints, slices, None and Ellipsis."""
    return all(isinstance(part, int | np.integer | slice | EllipsisType | None) and not isinstance(part, bool) for part in key)


def _mask(array):
    """A comparison result as booleans: those are the only floats allowed as an index."""
    if not ((array == 0) | (array == 1)).all():
        raise IndexError("a floating Tensor can only index as a mask of 0.0 and 1.0; use an integer Tensor for positions")
    return array != 0


def getitem(x, key):
    """``x[key]`` as a copy; the gradient adds up where the key repeats an element.

    Raises:
        IndexError: Out of range, too many indices, or an index of the wrong type.
    """
    return take_p(x, key=key_of(key))
