"""``t[key]`` and ``t[key] = value``: NumPy's result for every kind of key, gradients that add up at repeated places."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keydnn import Tensor
from tests.tensor.strategies import NON_EMPTY, arrays, keys


def wrap(key, kind):
    """The key as a user may also spell it: arrays as Tensors or lists."""
    if isinstance(key, tuple):
        return tuple(wrap(part, kind) if isinstance(part, np.ndarray) else part for part in key)
    if isinstance(key, np.ndarray) and kind == "tensor":
        return Tensor(data=key, dtype=np.float32 if key.dtype == bool else key.dtype)
    return key.tolist() if isinstance(key, np.ndarray) and kind == "list" and key.size else key


@st.composite
def arrays_and_keys(draw):
    x = draw(arrays(NON_EMPTY))
    return x, draw(keys(x.shape))


@given(case=arrays_and_keys(), kind=st.sampled_from(["array", "tensor", "list"]))
def test_getitem_is_numpys_and_its_gradient_accumulates(case, kind):
    x, key = case
    t = Tensor(data=x, requires_grad=True)
    y = t[wrap(key, kind)]
    np.testing.assert_array_equal(y.numpy(), x[key])
    assert y.dtype == x.dtype and not np.shares_memory(y.to_numpy(), t.to_numpy())
    g = np.arange(1, y.size + 1, dtype=x.dtype).reshape(y.shape)
    y.backward(Tensor(data=g))
    want = np.zeros(x.shape)
    np.add.at(want, key, g)
    np.testing.assert_allclose(t.grad.numpy(), want)
    assert t.grad.dtype == x.dtype


@given(case=arrays_and_keys(), graph=st.booleans())
def test_setitem_is_numpys(case, graph):
    x, key = case
    want = x.copy()
    value = np.arange(1, want[key].size + 1, dtype=x.dtype).reshape(want[key].shape)
    want[key] = value
    t = Tensor(data=x)
    v = Tensor(data=value, requires_grad=graph)
    t[key] = v
    np.testing.assert_array_equal(t.numpy(), want)
    if graph:
        t.sum().backward()
        places = np.zeros(x.shape)
        places[key] = np.arange(1, value.size + 1).reshape(value.shape)
        winners = np.isin(np.arange(1, value.size + 1), places).reshape(value.shape)
        np.testing.assert_array_equal(v.grad.numpy(), winners.astype(float))


@given(case=arrays_and_keys())
def test_setitem_of_a_number_is_numpys(case):
    x, key = case
    want = x.copy()
    want[key] = 7
    t = Tensor(data=x)
    t[key] = 7
    np.testing.assert_array_equal(t.numpy(), want)


@pytest.mark.parametrize(
    "key",
    [
        ((0, 0, 1), (1, 1, 2)),
        ([0, 0, 1], [1, 1, 2]),
        (np.array([0, 0, 1]), np.array([1, 1, 2])),
        (Tensor(data=[0, 0, 1], dtype=np.int64), [1, 1, 2]),
        ([0, 0, 1], (1, 1, 2)),
    ],
)
def test_every_spelling_of_a_repeated_index_accumulates(key):
    t = Tensor((2, 3), requires_grad=True)
    t[key].sum().backward()
    assert t.grad.tolist() == [[0, 2, 0], [0, 0, 1]]


def test_a_full_index_gives_a_scalar():
    t = Tensor(data=[[1.0, 2.0]], requires_grad=True)
    y = t[0, 1]
    assert y.shape == () and y.item() == 2.0
    y.backward()
    assert t.grad.tolist() == [[0.0, 1.0]]


def test_masks_of_zeros_and_ones():
    t = Tensor(data=[-1.0, 2.0, 3.0], requires_grad=True)
    y = t[t > 0]
    assert y.tolist() == [2.0, 3.0]
    y.sum().backward()
    assert t.grad.tolist() == [0.0, 1.0, 1.0]
    with pytest.raises(IndexError, match="mask"):
        t[Tensor(data=[0.5, 0.0, 1.0])]


def test_second_derivative_through_an_index():
    from keydnn.testing.gradient import check_gradient

    x = Tensor(data=np.array([1.0, 2.0, 3.0]), requires_grad=True)
    check_gradient(lambda x: x[[0, 0, 2]] ** 3, x, order=2)
