"""Clipping against its definition in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from keydnn import Tensor
from keydnn.optim import clip_grad_norm, clip_grad_value


def params_with(grads, dtype):
    params = [Tensor(np.shape(g), requires_grad=True, dtype=dtype) for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = Tensor(data=np.asarray(g, dtype), dtype=dtype)
    return params


@given(
    seed=st.integers(0, 2**32 - 1),
    shapes=st.lists(st.sampled_from([(), (1,), (3,), (4, 5), (2, 3, 4)]), min_size=1, max_size=4),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    bound=st.sampled_from([1e-3, 1.0, 50.0]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_norm_agrees_with_its_definition(seed, shapes, scale, bound, dtype):
    rng = np.random.default_rng(seed)
    grads = [np.asarray(rng.normal(size=shape) * scale).astype(dtype) for shape in shapes]
    params = params_with(grads, dtype)
    kept = [p.grad.to_numpy() for p in params]
    total = clip_grad_norm(params, bound)
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads))
    rtol = 2e-6 if dtype == np.float32 else 1e-13
    assert_allclose(total.item(), norm, rtol=rtol)
    for array, p, g in zip(kept, params, grads, strict=True):
        assert p.grad.to_numpy() is array and array.dtype == dtype
        assert_allclose(array, g.astype(np.float64) * min(1.0, bound / (norm + 1e-6)), rtol=2 * rtol)


def test_small_gradients_keep_their_bits():
    params = params_with([[0.1, 0.2], [0.3]], np.float32)
    before = [p.grad.numpy() for p in params]
    clip_grad_norm(params, 100.0)
    assert all((p.grad.numpy() == g).all() for p, g in zip(params, before, strict=True))


def test_a_parameter_listed_twice_counts_once():
    (p,) = params_with([[3.0, 4.0]], np.float32)
    assert clip_grad_norm([p, p], 1.0).item() == 5.0
    assert_allclose(p.grad.to_numpy(), [0.6, 0.8], rtol=1e-6)


def test_both_dtypes_in_one_norm():
    params = params_with([[3.0]], np.float32) + params_with([[4.0]], np.float64)
    assert clip_grad_norm(params, 1.0).item() == pytest.approx(5.0)
    assert [p.grad.dtype for p in params] == [np.float32, np.float64]
    assert_allclose([p.grad.item() for p in params], [0.6, 0.8], rtol=1e-6)


def test_without_gradients_nothing_happens():
    p = Tensor((2,), requires_grad=True)
    assert clip_grad_norm([p], 1.0) is None
    clip_grad_value([p], 1.0)
    assert p.grad is None


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20), st.sampled_from([0.5, 3.0]))
def test_value_limits_each_element(values, bound):
    (p,) = params_with([values], np.float32)
    array = p.grad.to_numpy()
    clip_grad_value(p, bound)
    assert p.grad.to_numpy() is array
    assert_allclose(array, np.clip(np.array(values, np.float32), -bound, bound), rtol=0)


@pytest.mark.parametrize("clip", [clip_grad_norm, clip_grad_value])
@pytest.mark.parametrize(("bound", "error"), [(0.0, ValueError), (-1.0, ValueError), (float("nan"), ValueError), ("1", TypeError)])
def test_bad_bounds_are_refused_and_change_nothing(clip, bound, error):
    (p,) = params_with([[3.0, 4.0]], np.float32)
    with pytest.raises(error):
        clip([p], bound)
    assert p.grad.tolist() == [3.0, 4.0]


def test_clipping_stays_out_of_the_graph():
    x = Tensor(data=np.array([3.0, 4.0], np.float32), requires_grad=True)
    (x * x).sum().backward()
    clip_grad_norm([x], 1.0)
    assert not x.grad.requires_grad
