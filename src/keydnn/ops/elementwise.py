"""Elementwise operations: arithmetic, comparisons, elementary functions.

Binary rules broadcast; :func:`keydnn.autograd.bind` sums each gradient back to its operand's shape.
"""

from __future__ import annotations

import math

from keydnn.ops._primitive import number_of, primitive

# -- arithmetic between tensors


@primitive(broadcasts=True)
def add(k, x, y):
    """``x + y``."""
    return k.add(x, y), ()


@add.gradient
def _(saved, g, needs):
    return g, g


@primitive(broadcasts=True)
def sub(k, x, y):
    """``x - y``."""
    return k.sub(x, y), ()


@sub.gradient
def _(saved, g, needs):
    return g, neg(g) if needs[1] else None


@primitive(broadcasts=True)
def mul(k, x, y):
    """``x * y``."""
    return k.mul(x, y), (x, y)


@mul.gradient
def _(saved, g, needs):
    x, y = saved
    return g * y if needs[0] else None, g * x if needs[1] else None


@primitive(broadcasts=True)
def div(k, x, y):
    """``x / y``, IEEE rules."""
    return k.div(x, y), (x, y)


@div.gradient
def _(saved, g, needs):
    x, y = saved
    return g / y if needs[0] else None, -g * (x / y / y) if needs[1] else None  # y * y could overflow


@primitive(broadcasts=True)
def pow(k, x, y):
    """``x ** y`` elementwise."""
    z = k.pow(x, y)
    return z, (x, y, z)


@pow.gradient
def _(saved, g, needs):
    x, y, z = saved
    dx = g * where(y == 0, 0.0, y * x ** (y - 1)) if needs[0] else None
    dy = g * z * log(where(x > 0, x, 1.0)) if needs[1] else None
    return dx, dy


@primitive(broadcasts=True)
def maximum_p(k, x, y):
    """The larger of the two."""
    return k.maximum(x, y), (x, y)


@maximum_p.gradient
def _(saved, g, needs):
    x, y = saved
    first = g * (gt(x, y) + 0.5 * eq(x, y))
    return first, g - first


@primitive(broadcasts=True)
def minimum_p(k, x, y):
    """The smaller of the two."""
    return k.minimum(x, y), (x, y)


@minimum_p.gradient
def _(saved, g, needs):
    x, y = saved
    first = g * (lt(x, y) + 0.5 * eq(x, y))
    return first, g - first


@primitive(broadcasts=True)
def floordiv(k, x, y):
    """``floor(x / y)``; no gradient."""
    return k.floordiv(x, y)


@primitive(broadcasts=True)
def mod(k, x, y):
    """``x - floor(x / y) * y``; no gradient."""
    return k.mod(x, y)


# -- arithmetic with a Python number c


@primitive
def add_scalar(k, x, *, c):
    """``x + c``."""
    return k.add(x, c), ()


@add_scalar.gradient
def _(saved, g, needs):
    return g


@primitive
def sub_scalar(k, x, *, c):
    """``x - c``."""
    return k.sub(x, c), ()


@sub_scalar.gradient
def _(saved, g, needs):
    return g


@primitive
def rsub_scalar(k, x, *, c):
    """``c - x``."""
    return k.sub(c, x), ()


@rsub_scalar.gradient
def _(saved, g, needs):
    return neg(g)


@primitive
def mul_scalar(k, x, *, c):
    """``x * c``."""
    return k.mul(x, c), (c,)


@mul_scalar.gradient
def _(saved, g, needs):
    return g * saved[0]


@primitive
def div_scalar(k, x, *, c):
    """``x / c``."""
    return k.div(x, c), (c,)


@div_scalar.gradient
def _(saved, g, needs):
    return g / saved[0]


@primitive
def rdiv_scalar(k, x, *, c):
    """``c / x``."""
    return k.div(c, x), (x, c)


@rdiv_scalar.gradient
def _(saved, g, needs):
    x, c = saved
    return g * (-c / x / x)  # x * x could overflow


@primitive
def pow_scalar(k, x, *, c):
    """``x ** c``."""
    return k.pow(x, c), (x, c)


@pow_scalar.gradient
def _(saved, g, needs):
    x, c = saved
    return g * 0.0 if c == 0 else g * (c * x ** (c - 1))


@primitive
def rpow_scalar(k, x, *, c):
    """``c ** x``."""
    y = k.pow(c, x)
    return y, (y, c)


@rpow_scalar.gradient
def _(saved, g, needs):
    y, c = saved
    return g * y * (math.log(c) if c > 0 else 0.0 if c == 0 else math.nan)  # 0 ** x does not change with x


@primitive
def floordiv_scalar(k, x, *, c, swap=False):
    """``floor(x / c)``, or ``floor(c / x)`` when swapped; no gradient."""
    return k.floordiv(c, x) if swap else k.floordiv(x, c)


@primitive
def mod_scalar(k, x, *, c, swap=False):
    """``x mod c``, or ``c mod x`` when swapped; no gradient."""
    return k.mod(c, x) if swap else k.mod(x, c)


# -- comparisons: masks of 0.0 and 1.0, no gradient; y is a tensor or c a number


@primitive(broadcasts=True)
def gt(k, x, y=None, *, c=None):
    """1 where ``x > y``, else 0."""
    return k.gt(x, c if y is None else y)


@primitive(broadcasts=True)
def ge(k, x, y=None, *, c=None):
    """1 where ``x >= y``, else 0."""
    return k.ge(x, c if y is None else y)


@primitive(broadcasts=True)
def lt(k, x, y=None, *, c=None):
    """1 where ``x < y``, else 0."""
    return k.lt(x, c if y is None else y)


@primitive(broadcasts=True)
def le(k, x, y=None, *, c=None):
    """1 where ``x <= y``, else 0."""
    return k.le(x, c if y is None else y)


@primitive(broadcasts=True)
def eq(k, x, y=None, *, c=None):
    """1 where ``x == y``, else 0."""
    return k.eq(x, c if y is None else y)


@primitive(broadcasts=True)
def ne(k, x, y=None, *, c=None):
    """1 where ``x != y``, else 0."""
    return k.ne(x, c if y is None else y)


# -- selection


@primitive(broadcasts=True)
def select(k, mask, x, y):
    """``x`` where mask is not 0, else ``y``."""
    return k.where(mask, x, y), (mask,)


@select.gradient
def _(saved, g, needs):
    (mask,) = saved
    dx = select_scalar(mask, g, c=0.0) if needs[1] else None
    return None, dx, select_scalar(mask, g, c=0.0, swap=True) if needs[2] else None


@primitive(broadcasts=True)
def select_scalar(k, mask, x, *, c, swap=False):
    """``x`` where mask is not 0, else the number c; the other way round when swapped."""
    return (k.where(mask, c, x) if swap else k.where(mask, x, c)), (mask, swap)


@select_scalar.gradient
def _(saved, g, needs):
    mask, swap = saved
    return None, select_scalar(mask, g, c=0.0, swap=swap)


def where(mask, x, y):
    """``x`` where ``mask`` is not 0, else ``y``; shapes broadcast.

    Args:
        mask: Tensor; no gradient flows to it.
        x: Tensor or number.
        y: Tensor or number.

    Returns:
        Tensor of the broadcast shape.
    """
    left, right = number_of(x), number_of(y)
    if left is not None and right is not None:
        y, right = _constant(mask if mask.dtype.kind == "f" else mask.astype("float32"), right), None
    if left is not None:
        return select_scalar(mask, y, c=float(left), swap=True)
    return select(mask, x, y) if right is None else select_scalar(mask, x, c=float(right))


def _constant(x, c):
    """The number c as a tensor of shape () that promotes as a number does: not at all."""
    return x._like_full(float(c), ())


def maximum(x, y):
    """The larger of the two, elementwise; NaN wins.  At a tie each operand gets half the gradient.

    Args:
        x: Tensor.
        y: Tensor of a shape that broadcasts with x's, or a number.
    """
    c = number_of(y)
    return maximum_p(x, y if c is None else _constant(x, c))


def minimum(x, y):
    """The smaller of the two, elementwise; NaN wins.  At a tie each operand gets half the gradient.

    Args:
        x: Tensor.
        y: Tensor of a shape that broadcasts with x's, or a number.
    """
    c = number_of(y)
    return minimum_p(x, y if c is None else _constant(x, c))


@primitive
def limit(k, x, *, low, high):
    """``x`` limited to [low, high]; the gradient passes where x lies inside, bounds included."""
    return k.clamp(x, low, high), (x, low, high)


@limit.gradient
def _(saved, g, needs):
    x, low, high = saved
    if low is not None:
        g = where(x >= low, g, 0.0)
    return g if high is None else where(x <= high, g, 0.0)


@primitive
def limit_through(k, x, *, low, high):
    """``x`` limited to [low, high]; the gradient passes everywhere (straight through)."""
    return k.clamp(x, low, high), ()


@limit_through.gradient
def _(saved, g, needs):
    return g


# -- functions of one operand


@primitive
def neg(k, x):
    """``-x``."""
    return k.neg(x), ()


@neg.gradient
def _(saved, g, needs):
    return neg(g)


@primitive
def abs(k, x):
    """``|x|``; gradient 0 at 0."""
    return k.abs(x), (x,)


@abs.gradient
def _(saved, g, needs):
    return g * sign(saved[0])


@primitive
def exp(k, x):
    """``e ** x``."""
    y = k.exp(x)
    return y, (y,)


@exp.gradient
def _(saved, g, needs):
    return g * saved[0]


@primitive
def expm1(k, x):
    """``e ** x - 1``, accurate near 0."""
    y = k.expm1(x)
    return y, (y,)


@expm1.gradient
def _(saved, g, needs):
    return g * (saved[0] + 1.0)


@primitive
def log(k, x):
    """Natural logarithm; ``log(0) = -inf``, negative gives NaN, without a warning."""
    return k.log(x), (x,)


@log.gradient
def _(saved, g, needs):
    return g / saved[0]


@primitive
def log1p(k, x):
    """``ln(1 + x)``, accurate near 0."""
    return k.log1p(x), (x,)


@log1p.gradient
def _(saved, g, needs):
    return g / (saved[0] + 1.0)


@primitive
def sqrt(k, x):
    """Square root."""
    y = k.sqrt(x)
    return y, (y,)


@sqrt.gradient
def _(saved, g, needs):
    return g * 0.5 / saved[0]


@primitive
def rsqrt(k, x):
    """``1 / sqrt(x)``."""
    y = k.rsqrt(x)
    return y, (y,)


@rsqrt.gradient
def _(saved, g, needs):
    (y,) = saved
    return g * (-0.5) * (y * y * y)


@primitive
def reciprocal(k, x):
    """``1 / x``."""
    y = k.reciprocal(x)
    return y, (y,)


@reciprocal.gradient
def _(saved, g, needs):
    (y,) = saved
    return -g * (y * y)


@primitive
def square(k, x):
    """``x * x``."""
    return k.square(x), (x,)


@square.gradient
def _(saved, g, needs):
    return g * (saved[0] * 2.0)


@primitive
def sin(k, x):
    """Sine of radians."""
    return k.sin(x), (x,)


@sin.gradient
def _(saved, g, needs):
    return g * cos(saved[0])


@primitive
def cos(k, x):
    """Cosine of radians."""
    return k.cos(x), (x,)


@cos.gradient
def _(saved, g, needs):
    return -g * sin(saved[0])


@primitive
def erf(k, x):
    """Gauss error function."""
    return k.erf(x), (x,)


@erf.gradient
def _(saved, g, needs):
    (x,) = saved
    return g * exp(-(x * x)) * (2.0 / math.sqrt(math.pi))


@primitive
def sign(k, x):
    """-1, 0 or 1; no gradient."""
    return k.sign(x)


@primitive
def floor(k, x):
    """Largest integer not above x; no gradient."""
    return k.floor(x)


@primitive
def ceil(k, x):
    """Smallest integer not below x; no gradient."""
    return k.ceil(x)


@primitive
def round(k, x):
    """Nearest integer, ties to even; no gradient."""
    return k.round(x)
