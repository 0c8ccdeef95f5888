"""Matrix products."""

from __future__ import annotations

import itertools
import string

from keydnn.autograd.context import Differentiable
from keydnn.autograd.primitive import bind
from keydnn.domain.errors import DeviceMismatchError, ShapeError
from keydnn.ops._dtypes import promoted
from keydnn.ops._primitive import primitive


@primitive(broadcasts=True)
def gemm(k, a, b, *, ta=False, tb=False):
    """``op(a) @ op(b)`` over the last two axes; op transposes on request."""
    return k.matmul(a, b, ta, tb), (a, b, ta, tb)


@gemm.gradient
def _(saved, g, needs):
    a, b, ta, tb = saved
    da = db = None
    if needs[0]:
        da = gemm(b, g, ta=tb, tb=True) if ta else gemm(g, b, ta=False, tb=not tb)
    if needs[1]:
        db = gemm(g, a, ta=True, tb=ta) if tb else gemm(a, g, ta=not ta, tb=False)
    return da, db


@primitive
def linear_p(k, x, w, b=None):
    """``x @ w.T + b``."""
    return k.linear(x, w, b), (x, w)


@linear_p.gradient
def _(saved, g, needs):
    x, w = saved
    dx = gemm(g, w) if needs[0] else None
    dw = gemm(g, x, ta=True) if needs[1] else None
    return (dx, dw) if len(needs) == 2 else (dx, dw, g.sum(0) if needs[2] else None)


@primitive(broadcasts=True)
def einsum_p(k, *xs, subscripts):
    """Einstein summation."""
    return k.einsum(*xs, subscripts=subscripts), (subscripts, *xs)


@einsum_p.gradient
def _(saved, g, needs):
    subscripts, *xs = saved
    terms, result = _terms(subscripts)
    grads = []
    for i, (x, term, need) in enumerate(zip(xs, terms, needs, strict=True)):
        if not need:
            grads.append(None)
            continue
        others = [t for j, t in enumerate(terms) if j != i]
        known = set(result).union(*others)
        reached = "".join(c for c in term if c in known)  # the others are summed in x alone: repeat g along them
        part = einsum_p(g, *(y for j, y in enumerate(xs) if j != i), subscripts=f"{','.join([result, *others])}->{reached}")
        shape = tuple(n if c in known else 1 for c, n in zip(term, x.shape, strict=True))
        part = part.reshape(shape)
        grads.append(part if shape == x.shape else part.broadcast_to(x.shape))
    return tuple(grads)


def _terms(subscripts: str) -> tuple[list[str], str]:
    left, _, right = subscripts.partition("->")
    return left.split(","), right


# -- the functions users call


def matmul(a, b):
    """Matrix product with NumPy's rules for one and for more than two axes.

    Args:
        a: Tensor (..., n, m) or (m,).
        b: Tensor (..., m, p) or (m,), on the device of a.

    Raises:
        TypeError: An operand is no Tensor.
        ValueError: A scalar operand, or inner sizes that differ.
        RuntimeError: The devices differ.
    """
    for t in (a, b):
        if not isinstance(t, Differentiable):
            raise TypeError(f"matmul: expected Tensors, got {type(t).__name__}")
    if a.device is not b.device:
        raise DeviceMismatchError(a.device, b.device, "matmul")
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ShapeError(f"matmul: inner sizes differ: {a.shape} @ {b.shape}")
    if a.ndim > 1 and b.ndim > 1:
        return bind(gemm, (a, b), {})
    left = a.reshape((1, *a.shape)) if a.ndim == 1 else a
    right = b.reshape((*b.shape, 1)) if b.ndim == 1 else b
    y = bind(gemm, (left, right), {})
    shape = y.shape[:-1] if b.ndim == 1 else y.shape
    if a.ndim == 1:
        shape = (*shape[:-2], shape[-1]) if b.ndim > 1 else shape[:-1]
    return y.reshape(shape)


def dot(a, b):
    """Inner product of two vectors.

    Raises:
        ValueError: An operand is not 1-D, or the lengths differ.
    """
    if a.ndim != 1 or b.ndim != 1:
        raise ShapeError(f"dot: expected two 1-D tensors, got {a.shape} and {b.shape}")
    return matmul(a, b)


def outer(a, b):
    """``y[i, j] = a[i] * b[j]`` of two vectors.

    Raises:
        ValueError: An operand is not 1-D.
    """
    if a.ndim != 1 or b.ndim != 1:
        raise ShapeError(f"outer: expected two 1-D tensors, got {a.shape} and {b.shape}")
    return a.reshape((a.shape[0], 1)) * b


def linear(x, w, b=None):
    """``x @ w.T + b``.

    Args:
        x: (N, D).
        w: (O, D).
        b: (O,) or None.

    Raises:
        ValueError: The shapes do not fit.
        TypeError: An operand is no floating Tensor.
    """
    size, kernel = x.shape, w.shape
    if len(size) != 2 or len(kernel) != 2 or size[1] != kernel[1] or (b is not None and b.shape != kernel[:1]):
        raise ShapeError(f"linear: x {size}, weight {kernel}, bias {None if b is None else b.shape} do not fit (N, D), (O, D), (O,)")
    if x.dtype is not w.dtype:
        x, w, b = promoted("linear", x, w, b)
    return bind(linear_p, (x, w) if b is None else (x, w, b))


def einsum(subscripts, *tensors):
    """Einstein summation, such as ``einsum("bij,bjk->bik", x, y)``.

    Args:
        subscripts: Letters per operand, optionally ``->`` and the result's; ``...`` stands for further axes.
        tensors: One Tensor per term.

    Raises:
        ValueError: Terms and tensors do not fit, or a letter repeats within one term.
    """
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(tensors):
        raise ShapeError(f"einsum: {len(terms)} terms in {subscripts!r} for {len(tensors)} tensors")
    unused = [c for c in string.ascii_letters if c not in text]
    extra = max((t.ndim - len(s.replace("...", "")) for s, t in zip(terms, tensors, strict=True) if "..." in s), default=0)
    dots = "".join(itertools.islice(unused, max(extra, 0)))
    full = [s.replace("...", dots[len(dots) - (t.ndim - len(s) + 3) :]) for s, t in zip(terms, tensors, strict=True)]
    if not arrow:
        once = sorted(c for c in set("".join(full)) if "".join(full).count(c) == 1 and c not in dots)
        right = "..." * bool(dots) + "".join(once)
    right = right.replace("...", dots)
    sizes: dict[str, int] = {}
    for term, t in zip(full, tensors, strict=True):
        if len(term) != t.ndim or len(set(term)) != len(term):
            raise ShapeError(f"einsum: term {term!r} does not fit a tensor of shape {t.shape} (letters may not repeat within a term)")
        for c, n in zip(term, t.shape, strict=True):
            if sizes.setdefault(c, n) != n:
                raise ShapeError(f"einsum: Shape mismatch: index {c!r} has sizes {sizes[c]} vs {n}")
    if len(set(right)) != len(right) or any(c not in sizes for c in right):
        raise ShapeError(f"einsum: result {right!r} of {subscripts!r} repeats an index or names an unknown one")
    return bind(einsum_p, tensors, {"subscripts": f"{','.join(full)}->{right}"})
