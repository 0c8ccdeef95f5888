"""Elementwise rows of the op table on operands of any shape, on shapes that broadcast, and at the edges of the numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keydnn import Tensor, ops
from tests.ops.op_cases import cases
from tests.ops.test_op_cases import gradients, tensors_of, wide

ROWS = [case for case in cases() if case.elementwise]
UNARY = [case for case in ROWS if len(case.operands) == 1]
BINARY = [case for case in ROWS if len(case.operands) == 2]
SHAPES = [(), (0,), (1,), (7,), (2, 0, 3), (1, 1), (3, 1, 2), (2, 33)]
EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 100.0, -100.0, np.inf, -np.inf, np.nan]
KINDS = (np.float32, np.float64)


def of_shape(case, shape, dtype):
    """Operands of the row's own range, in any shape."""
    rng = np.random.default_rng(4)
    pools = [make(rng, dtype).reshape(-1) for make in case.operands]
    return [np.asarray(np.resize(p, shape), dtype) for p in pools]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", ROWS, ids=str)
def test_any_shape(case, shape):
    for dtype, tolerance in zip(KINDS, (1e-5, 1e-12), strict=True):
        arrays = of_shape(case, shape, dtype)
        tensors = tensors_of(case, arrays)
        out, grads = gradients(case, tensors)
        assert out.shape == shape and out.dtype == dtype
        np.testing.assert_allclose(out.numpy(), case.define(*wide(arrays)), rtol=tolerance, atol=tolerance)
        for t, g in zip(tensors, grads, strict=True):
            assert g is None or (g.shape, g.dtype) == (t.shape, t.dtype)


@pytest.mark.parametrize("case", [row for row in BINARY if row.order], ids=str)
@given(
    shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_side=3, max_dims=3),
    kinds=st.tuples(*[st.sampled_from(KINDS)] * 2),
)
def test_broadcasting(case, shapes, kinds):
    """The result has NumPy's shape; each gradient is that of the materialised operand, summed back."""
    arrays = [of_shape(case, shape, kind)[i] for i, (shape, kind) in enumerate(zip(shapes.input_shapes, kinds, strict=True))]
    out, grads = gradients(case, tensors_of(case, arrays))
    full = [np.broadcast_to(a, shapes.result_shape).astype(np.float64) for a in arrays]
    want, want_grads = gradients(case, tensors_of(case, full))
    assert out.shape == shapes.result_shape and out.dtype == np.result_type(*kinds)
    np.testing.assert_allclose(out.numpy(), want.numpy(), rtol=1e-4, atol=1e-5)
    for a, g, w in zip(arrays, grads, want_grads, strict=True):
        lead = w.ndim - a.ndim
        axes = tuple(i for i in range(w.ndim) if i < lead or a.shape[i - lead] != w.shape[i])
        assert (g.shape, g.dtype) == (a.shape, a.dtype)
        np.testing.assert_allclose(g.numpy(), w.numpy().sum(axes).reshape(a.shape), rtol=1e-3, atol=1e-4)


def edges(dtype):
    info = np.finfo(dtype)
    return np.array([*EDGES, info.max, -info.max, info.tiny, info.smallest_subnormal, -info.smallest_subnormal], dtype)


def in_quiet(f, *args):
    with np.errstate(all="ignore"):
        return np.asarray(f(*args))


@pytest.mark.parametrize("case", UNARY, ids=str)
def test_edges_of_one_operand(case):
    """IEEE answers without a warning (a warning fails the run); -inf, nan, huge and denormal numbers included."""
    for dtype, tolerance in zip(KINDS, (1e-5, 1e-12), strict=True):
        x = edges(dtype)
        out, _ = gradients(case, tensors_of(case, [x]))
        want = in_quiet(case.define, x.astype(np.float64))
        with np.errstate(over="ignore"):
            want = want.astype(dtype)
        outside = np.isnan(want) & ~np.isnan(x)  # a definition may be less careful than the op, never the other way
        np.testing.assert_allclose(out.numpy()[~outside], want[~outside], rtol=tolerance, atol=np.finfo(dtype).tiny)


@pytest.mark.parametrize("case", BINARY, ids=str)
def test_edges_of_two_operands(case):
    for dtype, tolerance in zip(KINDS, (1e-5, 1e-12), strict=True):
        x, y = (a.reshape(-1) for a in np.meshgrid(edges(dtype), edges(dtype)))
        out, _ = gradients(case, tensors_of(case, [x, y]))
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(out.numpy(), case.define(x, y), rtol=tolerance)  # in the same precision: it decides what overflows


@pytest.mark.parametrize("dtype", KINDS, ids=["f4", "f8"])
def test_quotients_differentiate_where_squares_overflow(dtype):
    huge = np.finfo(dtype).max ** dtype(0.6)
    x, y = Tensor(data=np.array([huge]), dtype=dtype, requires_grad=True), Tensor(data=np.array([huge]), dtype=dtype, requires_grad=True)
    (x / y).sum().backward()
    np.testing.assert_allclose(y.grad.numpy(), -1 / huge, rtol=1e-6)
    y.zero_grad()
    (float(huge) / y).sum().backward()
    np.testing.assert_allclose(y.grad.numpy(), -1 / huge, rtol=1e-6)


@pytest.mark.parametrize(
    "f, x, slope",
    [
        (Tensor.relu, 0.0, 0.0),
        (Tensor.leaky_relu, 0.0, 0.01),
        (Tensor.elu, 0.0, 1.0),
        (abs, 0.0, 0.0),
        (lambda x: x.clamp(min=0.0), 0.0, 1.0),
        (lambda x: x.clamp(max=0.0), 0.0, 1.0),
        (lambda x: x.clamp(min=1.0), 0.0, 0.0),
        (lambda x: x.clamp(min=0.0, max=1.0), np.nan, 0.0),
        (lambda x: x.clamp(min=0.0, max=1.0), np.inf, 0.0),
        (lambda x: x.maximum(0), 0.0, 0.5),
        (lambda x: x.minimum(x), 2.0, 1.0),
        (lambda x: x**0, 0.0, 0.0),
        (lambda x: x**1, 0.0, 1.0),
        (lambda x: x**2, 0.0, 0.0),
        (lambda x: 0**x, 1.5, 0.0),
        (lambda x: Tensor(data=[0.0]).pow(x), 1.5, 0.0),
        (lambda x: x.pow(Tensor(data=[0.0])), 0.0, 0.0),
        (Tensor.softplus, np.inf, 1.0),
        (Tensor.softplus, -np.inf, 0.0),
        (Tensor.softplus, 800.0, 1.0),
        (Tensor.tanh, 500.0, 0.0),
        (Tensor.sigmoid, -500.0, 0.0),
        (Tensor.sign, 3.0, None),
        (Tensor.elu, 1000.0, 1.0),
        (Tensor.sqrt, 0.0, np.inf),
        (Tensor.log, 0.0, np.inf),
        (Tensor.norm, 0.0, 0.0),
        (lambda x: x.std(), 2.0, np.nan),
        (lambda x: ops.where(x > 0, x, x.log()), 2.0, 1.0),
    ],
)
def test_slope_at_a_kink_and_at_the_edge(f, x, slope):
    t = Tensor(data=[x], requires_grad=True)
    y = f(t)
    if slope is None:
        assert not y.requires_grad
        return
    y.sum().backward()
    np.testing.assert_array_equal(t.grad.numpy(), np.float32([slope]))


def test_exponents_of_zero_have_no_slope():
    x, y = Tensor(data=[0.0, -2.0, 2.0]), Tensor(data=[2.0, 2.0, 2.0], requires_grad=True)
    (x**y).sum().backward()
    np.testing.assert_allclose(y.grad.numpy(), [0.0, 0.0, 4 * np.log(2.0)], rtol=1e-6)


def test_numbers_chosen_by_a_mask_of_any_dtype():
    for dtype in (np.bool_, np.int64, np.float32):
        assert ops.where(Tensor(data=[1, 0], dtype=dtype), 1.5, 2.5).tolist() == [1.5, 2.5]
    assert ops.where(Tensor(data=np.array([1.0, 0.0])), 1.5, 2.5).dtype == np.float64


def test_max_and_min_give_every_tie_the_whole_gradient():
    x = Tensor(data=[[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]], requires_grad=True)
    (x.max(axis=1) * Tensor(data=[1.0, 10.0])).sum().backward()
    assert x.grad.tolist() == [[0, 1, 1], [10, 10, 10]]
    x.zero_grad()
    x.min(axis=None).backward()
    assert x.grad.tolist() == [[1, 0, 0], [0, 0, 0]]


def test_product_with_zeros():
    x = Tensor(data=[[2.0, 0.0, 4.0], [0.0, 0.0, 5.0], [1.0, 2.0, 3.0]], requires_grad=True)
    x.prod(axis=1).sum().backward()
    assert x.grad.tolist() == [[0, 8, 0], [0, 0, 0], [6, 3, 2]]


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_softmax_family_ignores_a_shift(shift):
    x = np.random.default_rng(0).normal(size=(3, 5))
    for f in (Tensor.softmax, Tensor.log_softmax):
        np.testing.assert_allclose(f(Tensor(data=x + shift)).numpy(), f(Tensor(data=x)).numpy(), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(Tensor(data=x + shift).logsumexp().item(), Tensor(data=x).logsumexp().item() + shift, rtol=1e-12)


def test_logsumexp_of_infinities():
    assert Tensor(data=[-np.inf, -np.inf]).logsumexp().item() == -np.inf
    assert Tensor(data=[np.inf, 1.0]).logsumexp().item() == np.inf
    x = Tensor(data=[-np.inf, 0.0], requires_grad=True)
    x.logsumexp().backward()
    assert x.grad.tolist() == [0.0, 1.0]


def test_float32_sums_are_as_accurate_as_pairwise():
    x = np.random.default_rng(0).uniform(0, 1, 1_000_003).astype(np.float32)
    exact = x.astype(np.float64).sum()
    t = Tensor(data=x)
    assert abs(t.sum().item() - exact) <= abs(float(x.sum()) - exact) + np.spacing(np.float32(exact))
    assert abs(t.mean().item() - exact / x.size) <= np.spacing(np.float32(0.5))
