"""Operations that write a tensor in place; each write makes a new version of the storage (see ``Tensor._touch``)."""

from __future__ import annotations

from keydnn.ops import shape as shaping
from keydnn.ops._primitive import primitive
from keydnn.ops.reduce import cumsum


@primitive(writes=(0,))
def assign_(k, dst, src):
    """``dst[...] = src``, broadcast and cast."""
    k.assign_(dst, src)


@primitive(writes=(0,))
def fill_(k, dst, *, value):
    """``dst[...] = value``."""
    k.fill_(dst, value)


@primitive(writes=(0,))
def add_(k, dst, y=None, *, c=None):
    """``dst += y``, or the number c."""
    k.add_(dst, c if y is None else y)


@primitive(writes=(0,))
def sub_(k, dst, y=None, *, c=None):
    """``dst -= y``, or the number c."""
    k.sub_(dst, c if y is None else y)


@primitive(writes=(0,))
def mul_(k, dst, y=None, *, c=None):
    """``dst *= y``, or the number c."""
    k.mul_(dst, c if y is None else y)


@primitive(writes=(0,))
def div_(k, dst, y=None, *, c=None):
    """``dst /= y``, or the number c."""
    k.div_(dst, c if y is None else y)


@primitive(writes=(0,))
def put_(k, dst, value=None, *, key, c=None):
    """``dst[key] = value``, or the number c."""
    k.put_(dst, c if value is None else value, key)


@primitive(writes=(0,))
def ema_(k, running, batch, *, momentum):
    """``running = (1 - momentum) * running + momentum * batch``."""
    k.ema_(running, batch, momentum)


@primitive(broadcasts=True)
def put_p(k, x, value, *, key):
    """A copy of x with ``value`` at key."""
    y = k.copy(x)
    k.put_(y, value, key)
    return y, (key, value.shape)


@put_p.gradient
def _(saved, g, needs):
    key, shape = saved
    dx = put_p(g, g._like_full(0.0, ()), key=key) if needs[0] else None
    return dx, _put_back(g, key, shape) if needs[1] else None


def _put_back(g, key, shape):
    """The gradient of a value of ``shape`` that was put at key; of values put at one place the last one counts."""
    taken = g[key]
    if not shaping.is_basic(key):
        order = cumsum(taken.astype("float64")._like_full(1.0), None).reshape(taken.shape)
        taken = taken * (put_p(g.astype("float64"), order, key=key)[key] == order).astype(g.dtype)
    inner = shape[len(shape) - taken.ndim :] if len(shape) > taken.ndim else shape  # NumPy lets a value have more leading ones
    return taken.sum_to_shape(inner).reshape(shape)


# -- optimizer updates


@primitive(writes=(0, 2))
def momentum_(k, p, g, velocity, lr, *, momentum, nesterov, weight_decay):
    """One step of SGD with momentum."""
    k.sgd_(p, g, velocity, lr, momentum, nesterov, weight_decay)


@primitive(writes=(0,))
def sgd_(k, p, g, lr, *, weight_decay):
    """One step of plain SGD."""
    k.sgd_(p, g, None, lr, 0.0, False, weight_decay)


@primitive(writes=(0, 2, 3, 4))
def adam_(k, p, g, m, v, t, lr, *, beta1, beta2, eps, weight_decay, decoupled):
    """One step of Adam, or of AdamW when decoupled."""
    k.adam_(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay, decoupled)
