"""Reshaping, permuting, joining and cutting: NumPy's results, and gradients that travel back the same way."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import keydnn
from keydnn import Tensor
from keydnn.testing.gradient import check_gradient
from tests.tensor.strategies import NON_EMPTY, SHAPES, arrays


def carries_back(t, y, want):
    """y holds ``want``; an upstream gradient of distinct numbers lands where the elements came from."""
    np.testing.assert_array_equal(y.numpy(), want)
    assert y.dtype == t.dtype and y.to_numpy().flags.c_contiguous
    y.backward(Tensor(data=np.asarray(want)))
    np.testing.assert_array_equal(t.grad.numpy(), t.numpy())
    t.zero_grad()


def numbered(shape, dtype=np.float32):
    return Tensor(data=np.arange(1, 1 + int(np.prod(shape)), dtype=dtype).reshape(shape), requires_grad=True)


@given(shape=SHAPES, data=st.data())
def test_reshape(shape, data):
    t = numbered(shape)
    factors = [n for n in shape if n > 1]
    order = data.draw(st.permutations(factors)) if 0 not in shape else list(shape)
    want = t.numpy().reshape(order)
    for y in (t.reshape(*order), t.reshape(tuple(order)), t.reshape(list(order))):
        carries_back(t, y, want)
    if order and 0 not in order:
        order[data.draw(st.integers(0, len(order) - 1))] = -1
        carries_back(t, t.reshape(order), t.numpy().reshape(order))


@given(shape=SHAPES, data=st.data())
def test_orders_of_axes(shape, data):
    t = numbered(shape)
    order = data.draw(st.permutations(range(len(shape))))
    if order:
        carries_back(t, t.transpose(*order), t.numpy().transpose(order))
        carries_back(t, t.permute(tuple(a - len(shape) for a in order)), t.numpy().transpose(order))
        a, b = data.draw(st.tuples(*[st.integers(-len(shape), len(shape) - 1)] * 2))
        carries_back(t, t.swapaxes(a, b), t.numpy().swapaxes(a, b))
    if len(shape) == 2:
        carries_back(t, t.T, t.numpy().T)
        carries_back(t, t.transpose(), t.numpy().T)


@given(shape=SHAPES, data=st.data())
def test_axes_of_size_one(shape, data):
    t = numbered(shape)
    axis = data.draw(st.integers(-len(shape) - 1, len(shape)))
    y = t.unsqueeze(axis)
    carries_back(t, y, np.expand_dims(t.numpy(), axis))
    carries_back(t, t.unsqueeze(axis).squeeze(axis), t.numpy())
    carries_back(t, t.squeeze(), t.numpy().squeeze())
    carries_back(t, t.flatten(), t.numpy().reshape(-1))


@given(shape=NON_EMPTY, data=st.data(), kinds=st.lists(st.sampled_from([np.float32, np.float64]), min_size=1, max_size=4))
def test_concat_and_stack(shape, data, kinds):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    parts = []
    for kind in kinds:
        sizes = list(shape)
        sizes[axis] = data.draw(st.integers(0, 3))
        parts.append(numbered(sizes, kind))
    y = Tensor.concat(parts, axis)
    np.testing.assert_array_equal(y.numpy(), np.concatenate([p.numpy() for p in parts], axis))
    assert y.dtype == np.result_type(*kinds) and tuple(y._get_ctx().parents) == tuple(parts)
    y.backward(Tensor(data=y.numpy()))
    twins = [numbered(shape, kind) for kind in kinds]
    at = data.draw(st.integers(-len(shape) - 1, len(shape)))
    z = keydnn.stack(twins, at)
    np.testing.assert_array_equal(z.numpy(), np.stack([p.numpy() for p in twins], at))
    z.backward(Tensor(data=z.numpy()))
    for p in parts + twins:
        np.testing.assert_array_equal(p.grad.numpy(), p.numpy())
        assert p.grad.dtype == p.dtype


def test_joins_without_gradients_have_no_context():
    assert Tensor.concat([Tensor((1,)), Tensor((2,))])._get_ctx() is None
    assert Tensor.stack([Tensor((1,))])._get_ctx() is None
    x, y = Tensor((1,), requires_grad=True), Tensor((1,))
    for z in (Tensor.concat([x, y]), Tensor.stack([x, y])):
        grads = z._get_ctx().backward_fn(Tensor.ones(z.shape))
        assert grads[0].shape == (1,) and grads[1] is None
    assert Tensor.stack(iter([x, x])).shape == (2, 1)


@given(shape=NON_EMPTY, data=st.data())
def test_split_and_chunk(shape, data):
    t = numbered(shape)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    n = shape[axis]
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=3)))
    sizes = np.diff([0, *cuts, n]).tolist()
    parts = t.split(sizes, axis)
    for part, want in zip(parts, np.split(t.numpy(), cuts, axis), strict=True):
        np.testing.assert_array_equal(part.numpy(), want)
    carries_back(t, Tensor.concat(parts, axis), t.numpy())
    for parts in (t.split(2, axis), t.chunk(data.draw(st.integers(1, 5)), axis)):
        carries_back(t, Tensor.concat(parts, axis), t.numpy())
    assert len(t.chunk(2, axis)) == min(2, n)


@given(shape=NON_EMPTY, data=st.data())
def test_moves(shape, data):
    t = numbered(shape)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    shift = data.draw(st.integers(-5, 5))
    carries_back(t, t.flip(axis), np.flip(t.numpy(), axis))
    carries_back(t, t.flip(), np.flip(t.numpy()))
    carries_back(t, t.roll(shift, axis), np.roll(t.numpy(), shift, axis))
    widths = tuple(data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in shape)
    y = t.pad(widths, 7.0)
    np.testing.assert_array_equal(y.numpy(), np.pad(t.numpy(), widths, constant_values=7))
    y.sum().backward()
    assert (t.grad.numpy() == 1).all()
    reps = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=5))
    np.testing.assert_array_equal(t.tile(reps).numpy(), np.tile(t.numpy(), reps))
    repeats = data.draw(st.integers(0, 3))
    np.testing.assert_array_equal(t.repeat(repeats, axis).numpy(), np.repeat(t.numpy(), repeats, axis))
    if len(shape) > 1:
        np.testing.assert_array_equal(t.tril(shift).numpy(), np.tril(t.numpy(), shift))
        np.testing.assert_array_equal(t.triu(shift).numpy(), np.triu(t.numpy(), shift))


@st.composite
def products(draw):
    """Two or three operands of an einsum, and its text; every letter has one size, each term has each letter once."""
    sizes = {c: draw(st.integers(0, 3)) for c in "ijkl"}
    terms = draw(st.lists(st.lists(st.sampled_from("ijkl"), max_size=3, unique=True), min_size=1, max_size=3))
    known = sorted({c for term in terms for c in term})
    result = draw(st.lists(st.sampled_from(known), unique=True)) if known else []
    text = ",".join("".join(term) for term in terms) + ("->" + "".join(result) if draw(st.booleans()) else "")
    return text, [draw(arrays(st.just(tuple(sizes[c] for c in term)), dtype=st.just(np.float64))) for term in terms]


@given(case=products())
def test_einsum(case):
    text, operands = case
    tensors = [Tensor(data=x, requires_grad=True) for x in operands]
    y = keydnn.einsum(text, *tensors)
    np.testing.assert_allclose(y.numpy(), np.einsum(text, *operands), rtol=1e-12, atol=1e-12)
    check_gradient(lambda *xs: keydnn.einsum(text, *xs), tensors, rtol=1e-4, atol=1e-6)


@given(data=st.data())
def test_matmul(data):
    shapes = data.draw(hnp.mutually_broadcastable_shapes(signature=np.matmul.signature, max_dims=2, max_side=3))
    a, b = (data.draw(arrays(st.just(shape), dtype=st.just(np.float64))) for shape in shapes.input_shapes)
    x, y = Tensor(data=a, requires_grad=True), Tensor(data=b, requires_grad=True)
    out = x @ y
    assert out.shape == shapes.result_shape
    np.testing.assert_allclose(out.numpy(), a @ b, rtol=1e-12, atol=1e-12)
    check_gradient(keydnn.matmul, [x, y], rtol=1e-4, atol=1e-6)


@given(data=st.data(), shape=NON_EMPTY)
def test_gather_and_scatter_add_are_each_others_gradient(data, shape):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    sizes = list(shape)
    sizes[axis] = data.draw(st.integers(0, 4))
    index = data.draw(hnp.arrays(np.int64, sizes, elements=st.integers(0, shape[axis] - 1)))
    t, i = numbered(shape), Tensor(data=index, dtype=np.int64)
    y = t.gather(axis, i)
    np.testing.assert_array_equal(y.numpy(), np.take_along_axis(t.numpy(), index, axis))
    y.backward(Tensor(data=y.numpy()))
    back = Tensor(shape).scatter_add(axis, i, Tensor(data=y.numpy()))
    np.testing.assert_array_equal(t.grad.numpy(), back.numpy())


def test_a_view_of_strided_memory_is_a_copy_that_nobody_shares():
    t = Tensor((2, 3), requires_grad=True)
    t._data = np.arange(6, dtype=np.float32).reshape(3, 2).T
    y = t.reshape(6)
    assert y.tolist() == [0, 2, 4, 1, 3, 5]
    y.sum().backward()
    assert (t.grad.numpy() == 1).all()
