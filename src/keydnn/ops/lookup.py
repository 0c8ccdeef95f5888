"""Rows of a table by number, with gradients that add up where a row was read more than once."""

from __future__ import annotations

from keydnn.autograd.primitive import bind
from keydnn.domain.errors import ShapeError
from keydnn.ops._primitive import primitive


@primitive
def embedding_p(k, w, index, *, padding, zero):
    """Rows of w at the index; ``zero``: zeros where it is padding, which never gets a gradient."""
    return k.embedding(w, index, padding if zero else None), (index, w.shape[0], padding)


@embedding_p.gradient
def _(saved, g, needs):
    index, n, padding = saved
    return embedding_grad_p(g, index, n=n, padding=padding), None


@primitive
def embedding_grad_p(k, g, index, *, n, padding):
    """The rows of g added at the index."""
    return k.embedding_grad(g, index, n, padding), (index, padding)


@embedding_grad_p.gradient
def _(saved, h, needs):
    index, padding = saved
    return embedding_p(h, index, padding=padding, zero=True), None


def embedding(w, index, padding_idx=None):
    """``y[...] = w[index[...]]``.

    Args:
        w: (V, D).
        index: Integer tensor of any shape; negative numbers count from the end.
        padding_idx: The row that gets no gradient, at least 0; None is none.

    Returns:
        index.shape + (D,).

    Raises:
        ValueError: w is not 2-D.
        TypeError: ``index`` is no integer tensor.
        IndexError: A number is outside the table.
    """
    if w.ndim != 2:
        raise ShapeError(f"embedding: expected a table (V, D), got shape {w.shape}")
    if index.dtype.kind not in "iu":
        raise TypeError(f"embedding: expected integer numbers of rows, got dtype {index.dtype}; cast with astype('int64')")
    index = index if index.dtype == "int64" else index.astype("int64")
    return bind(embedding_p, (w, index), {"padding": padding_idx, "zero": False})
