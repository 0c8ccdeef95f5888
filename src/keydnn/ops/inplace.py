"""Operations that write a tensor in place; each write makes a new version of the storage (see ``Tensor._touch``)."""

from __future__ import annotations

from keydnn.ops._primitive import primitive


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


@primitive
def put_p(k, x, value, *, key):
    """A copy of x with ``value`` at key."""
    y = k.copy(x)
    k.put_(y, value, key)
    return y, (key, x, value)


@put_p.gradient
def _(saved, g, needs):
    key, x, value = saved
    dx = put_p(g, g._like_full(0.0, ()), key=key) if needs[0] else None
    return dx, g[key].sum_to_shape(value.shape) if needs[1] else None


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
