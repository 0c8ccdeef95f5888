"""Reductions over any axes of any shape: NumPy's values in float64, the tensor's dtype, gradients of the right shape."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keydnn
from keydnn import Tensor
from keydnn.testing.gradient import check_gradient
from tests.tensor.strategies import FLOATS, NON_EMPTY, SHAPES, arrays, axes


def norm(x, axis=None, keepdims=False):
    return np.sqrt(np.square(x).sum(axis=axis, keepdims=keepdims))


def logsumexp(x, axis=None, keepdims=False):
    return np.log(np.exp(x).sum(axis=axis, keepdims=keepdims))


ALSO_EMPTY = {"sum": np.sum, "prod": np.prod, "norm": norm}
NUMBERS = {**ALSO_EMPTY, "mean": np.mean, "max": np.max, "min": np.min, "var": np.var, "logsumexp": logsumexp}


def check(name, define, x, axis, keepdims):
    t = Tensor(data=x, requires_grad=True)
    y = getattr(t, name)(axis=axis, keepdims=keepdims)
    want = define(x.astype(np.float64), axis=axis, keepdims=keepdims)
    assert y.dtype == x.dtype and y.shape == np.shape(want)
    np.testing.assert_allclose(
        y.numpy(), want, rtol=1e-5 if x.dtype == np.float32 else 1e-12, atol=1e-6 if x.dtype == np.float32 else 1e-12
    )
    y.backward(Tensor.full(y.shape, 1.0, dtype=x.dtype))
    assert (t.grad.shape, t.grad.dtype) == (x.shape, x.dtype)
    return t


@pytest.mark.parametrize("name", NUMBERS)
@given(data=st.data(), x=arrays(NON_EMPTY), keepdims=st.booleans())
def test_reductions(name, data, x, keepdims):
    check(name, NUMBERS[name], x, data.draw(axes(x.ndim)), keepdims)


@pytest.mark.parametrize("name", ALSO_EMPTY)
@given(data=st.data(), x=arrays(SHAPES), keepdims=st.booleans())
def test_reductions_of_nothing(name, data, x, keepdims):
    check(name, ALSO_EMPTY[name], x, data.draw(axes(x.ndim)), keepdims)


@given(data=st.data(), x=arrays(NON_EMPTY), keepdims=st.booleans())
def test_gradient_of_the_sum_broadcasts(data, x, keepdims):
    t = check("sum", np.sum, x, data.draw(axes(x.ndim)), keepdims)
    assert (t.grad.numpy() == 1).all()


@given(data=st.data(), x=arrays(NON_EMPTY), keepdims=st.booleans())
def test_any_and_all_are_zeros_and_ones(data, x, keepdims):
    axis = data.draw(axes(x.ndim))
    for name, define in (("any", np.any), ("all", np.all)):
        y = getattr(Tensor(data=x, requires_grad=True), name)(axis, keepdims)
        assert y.tolist() == define(x != 0, axis=axis, keepdims=keepdims).astype(float).tolist()
        assert y.dtype == x.dtype and not y.requires_grad


@given(data=st.data(), x=arrays(NON_EMPTY))
def test_argmax_and_argmin(data, x):
    axis = data.draw(st.one_of(st.none(), st.integers(-x.ndim, x.ndim - 1)))
    for name, define in (("argmax", np.argmax), ("argmin", np.argmin)):
        y = getattr(Tensor(data=x, requires_grad=True), name)(axis)
        assert y.dtype == np.int64 and y.tolist() == define(x, axis=axis).tolist() and not y.requires_grad


@given(data=st.data(), x=arrays(SHAPES))
def test_cumsum(data, x):
    axis = data.draw(st.one_of(st.none(), st.integers(-x.ndim, x.ndim - 1)) if x.ndim else st.none())
    t = Tensor(data=x, requires_grad=True)
    y = t.cumsum(axis)
    want = np.cumsum(x.astype(np.float64), axis)
    np.testing.assert_allclose(y.numpy(), want, rtol=1e-5, atol=1e-5)
    y.backward(Tensor.full(y.shape, 1.0, dtype=x.dtype))
    assert t.grad.shape == x.shape


@given(data=st.data(), x=arrays(NON_EMPTY, dtype=st.just(np.float64)))
def test_gradients_match_differences(data, x):
    axis = data.draw(axes(x.ndim))
    for name in ("mean", "var", "logsumexp", "norm"):
        check_gradient(lambda t, n=name: getattr(t + 9.0, n)(axis), Tensor(data=x, requires_grad=True), rtol=1e-4, atol=1e-6)


@given(x=arrays(SHAPES, dtype=FLOATS), data=st.data())
def test_sum_to_shape_undoes_broadcast_to(x, data):
    t = Tensor(data=x, requires_grad=True)
    target = data.draw(st.lists(st.integers(1, 3), max_size=2)) + [n if n != 1 else data.draw(st.integers(1, 3)) for n in x.shape]
    wide = t.broadcast_to(target)
    assert wide.shape == tuple(target) and not np.shares_memory(wide.to_numpy(), t.to_numpy())
    np.testing.assert_array_equal(wide.numpy(), np.broadcast_to(x, target))
    back = wide.sum_to_shape(x.shape)
    times = wide.size // max(t.size, 1)
    np.testing.assert_allclose(back.numpy(), x * times, rtol=1e-6)
    back.backward(Tensor.full(x.shape, 1.0, dtype=x.dtype))
    np.testing.assert_array_equal(t.grad.numpy(), np.full(x.shape, times))


def test_defaults():
    x = Tensor(data=[[1.0, 5.0], [7.0, 3.0]])
    assert x.sum().shape == () and x.mean().item() == 4.0
    assert x.max().tolist() == [5.0, 7.0] and x.min().tolist() == [1.0, 3.0]
    assert x.sum(keepdims=True).shape == (1, 1) and x.sum(np.int64(0)).tolist() == [8.0, 8.0]
    assert x.max(axis=0, keepdims=True).shape == (1, 2)


def test_mean_of_nothing_is_nan_without_a_warning():
    assert np.isnan(Tensor((0,)).mean().item())


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_whole_numbers_are_not_cut(dtype, axis):
    """Means and the like of integers are float32, sums stay whole; booleans are counted."""
    array = np.array([[1, 0, 5], [4, 7, 0]]).astype(dtype)
    t = keydnn.tensor(array, dtype=dtype)
    for name, want in (("mean", np.mean), ("var", np.var), ("std", np.std), ("norm", lambda a, axis: np.sqrt((a * a).sum(axis)))):
        got = getattr(t, name)(axis)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got.numpy(), want(array.astype("f8"), axis=axis), rtol=1e-6)
    np.testing.assert_allclose(t.logsumexp(axis).numpy(), np.log(np.exp(array.astype("f8")).sum(axis)), rtol=1e-6)
    for name in ("sum", "prod", "cumsum"):
        got = getattr(t, name)(axis)
        assert got.dtype.kind in "iu" and got.numpy().tolist() == getattr(array.astype("i8"), name)(axis).tolist()
