"""Hypothesis strategies for tensors: shapes with zeros and ones in them, operands that broadcast, keys of every kind."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
NON_EMPTY = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4)
FLOATS = st.sampled_from([np.float32, np.float64])
NUMBERS = st.floats(-4, 4, width=16)


def arrays(shape=SHAPES, dtype=FLOATS, numbers=NUMBERS):
    return dtype.flatmap(lambda kind: hnp.arrays(kind, shape, elements=numbers))


@st.composite
def broadcastable(draw, n=2):
    """n arrays of shapes that broadcast, each of a dtype of its own."""
    shapes = draw(hnp.mutually_broadcastable_shapes(num_shapes=n, max_dims=3, max_side=3, min_side=0)).input_shapes
    return [draw(arrays(st.just(shape))) for shape in shapes]


@st.composite
def axes(draw, ndim):
    """None, one axis or several, counted from either end."""
    if ndim == 0:
        return draw(st.sampled_from([None, ()]))
    return draw(st.one_of(st.none(), st.integers(-ndim, ndim - 1), hnp.valid_tuple_axes(ndim)))


@st.composite
def keys(draw, shape):
    """An index of any kind that NumPy takes for ``shape``: basic, integer arrays with repeats, masks, lists, mixtures."""
    kinds = [hnp.basic_indices(shape, allow_newaxis=True, max_dims=6)]
    if shape and 0 not in shape:
        kinds.append(hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(max_dims=2, max_side=4)))
        kinds.append(hnp.arrays(bool, shape))
        kinds.append(st.lists(st.integers(-shape[0], shape[0] - 1), max_size=5))
    if len(shape) > 1 and 0 not in shape:
        rows = st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=4).map(tuple)
        kinds.append(rows.flatmap(lambda r: st.tuples(st.just(r), st.just(tuple(i % shape[1] for i in r)))))
        kinds.append(st.tuples(st.slices(shape[0]), hnp.arrays(bool, shape[1])))
        kinds.append(st.tuples(st.integers(0, shape[0] - 1), st.lists(st.integers(-shape[1], shape[1] - 1), min_size=1, max_size=4)))
    return draw(st.one_of(kinds))
