"""Every row of the op table keeps every promise: values, dtypes, gradients of any order, operands of any layout."""

import numpy as np
import pytest

import keydnn
from keydnn import Tensor
from keydnn.autograd.primitive import Node
from keydnn.ops._primitive import PRIMITIVES
from keydnn.testing.gradient import check_gradient
from tests.ops.op_cases import cases

CASES = cases()
DIFFERENTIABLE = [case for case in CASES if case.order]
FLOATS = (np.float32, np.float64)


def arrays_of(case, dtype, seed=1):
    rng = np.random.default_rng(seed)
    return [make(rng, dtype) for make in case.operands]


def tensors_of(case, arrays, requires_grad=True):
    """Leaves; floating operands that are not fixed require a gradient."""
    wanted = [requires_grad and bool(case.order) and a.dtype.kind == "f" and i not in case.fixed for i, a in enumerate(arrays)]
    return [Tensor(data=a, dtype=a.dtype, requires_grad=need) for a, need in zip(arrays, wanted, strict=True)]


def wide(arrays):
    return [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]


def gradients(case, tensors, upstream=None):
    """The result, and the gradient of each operand (None where none is wanted)."""
    out = case.op(*tensors)
    seed = Tensor.full(out.shape, 0.75, dtype=out.dtype) if upstream is None else upstream
    wanted = [t for t in tensors if t.requires_grad]
    grads = iter(keydnn.grad(out, wanted, seed, allow_unused=True) if out.requires_grad else [None] * len(wanted))
    return out, [next(grads) if t.requires_grad else None for t in tensors]


def test_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_and_dtype(case):
    for which, dtype in enumerate(FLOATS):
        arrays = arrays_of(case, dtype)
        tensors = tensors_of(case, arrays)
        out = case.op(*tensors)
        want = np.asarray(case.define(*wide(arrays)))
        assert type(out) is Tensor and type(out.to_numpy()) is np.ndarray
        assert out.dtype == (dtype if case.dtype is None else case.dtype)
        assert out.shape == want.shape
        np.testing.assert_allclose(out.numpy().astype(np.float64), want, rtol=case.rtol[which], atol=case.atol[which])
        assert out.requires_grad == any(t.requires_grad for t in tensors)
        assert (out._get_ctx() is None) == (not out.requires_grad)
        for t, a in zip(tensors, arrays, strict=True):
            np.testing.assert_array_equal(t.to_numpy(), a)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_without_recording(case):
    arrays = arrays_of(case, np.float32)
    with_graph = case.op(*tensors_of(case, arrays))
    with keydnn.no_grad():
        without = case.op(*tensors_of(case, arrays))
    plain = case.op(*tensors_of(case, arrays, requires_grad=False))
    for out in (without, plain):
        assert not out.requires_grad and out._get_ctx() is None
        np.testing.assert_array_equal(out.numpy(), with_graph.numpy())


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_gradients_of_all_orders(case):
    eps, rtol, atol = case.steps or (None, None, None)
    check_gradient(case.op, tensors_of(case, arrays_of(case, np.float64)), order=case.order, eps=eps, rtol=rtol, atol=atol)


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_float32_gradient_is_that_of_float64(case):
    narrow = arrays_of(case, np.float32)
    out, grads = gradients(case, tensors_of(case, narrow))
    _, want = gradients(case, tensors_of(case, wide(narrow)))
    for t, g, w in zip(tensors_of(case, narrow), grads, want, strict=True):
        assert (g is None) == (w is None)
        if g is not None:
            assert (g.shape, g.dtype) == (t.shape, np.float32)
            np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=1e-4, atol=1e-4 * max(1.0, np.abs(w.numpy()).max(initial=0)))


def floating(case):
    return [i for i, a in enumerate(arrays_of(case, np.float32)) if a.dtype.kind == "f"]


MIXED = [case for case in CASES if len(floating(case)) > 1 and case.typed != ()]


@pytest.mark.parametrize("narrow", [0, 1])
@pytest.mark.parametrize("case", MIXED, ids=str)
def test_mixed_dtypes_promote_and_gradients_come_back_in_their_own(case, narrow):
    arrays = arrays_of(case, np.float64)
    mixed = [a.astype(np.float32) if i == floating(case)[narrow] else a for i, a in enumerate(arrays)]
    out, grads = gradients(case, tensors_of(case, mixed))
    want, want_grads = gradients(case, tensors_of(case, wide(mixed)))
    typed = floating(case) if case.typed is None else case.typed
    assert out.dtype == np.result_type(*(mixed[i] for i in typed))
    np.testing.assert_allclose(out.numpy(), want.numpy(), rtol=1e-5, atol=1e-6)
    for a, g, w in zip(mixed, grads, want_grads, strict=True):
        if g is not None:
            assert (g.shape, g.dtype) == (a.shape, a.dtype)
            np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=1e-4, atol=1e-5)


def strided(a):
    """The same values in memory with gaps, backwards."""
    if a.ndim == 0:
        return np.stack([a, a])[1, ...]
    around = np.zeros([2 * n for n in a.shape], a.dtype)
    view = around[tuple(slice(None, None, -2) for _ in a.shape)]
    view[...] = a
    return view


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operands_need_not_be_contiguous(case):
    arrays = arrays_of(case, np.float32, seed=2)
    want, want_grads = gradients(case, tensors_of(case, arrays))
    tensors = tensors_of(case, arrays)
    for t in tensors:
        t._data = strided(t._data)
    out, grads = gradients(case, tensors)
    np.testing.assert_allclose(out.numpy(), want.numpy(), rtol=2e-6, atol=2e-6)
    for g, w in zip(grads, want_grads, strict=True):
        if g is not None:
            np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_same_operands_give_the_same_bits(case):
    arrays = arrays_of(case, np.float32)
    results = [gradients(case, tensors_of(case, arrays)) for _ in range(2)]
    (a, a_grads), (b, b_grads) = results
    assert a.numpy().tobytes() == b.numpy().tobytes()
    for g, h in zip(a_grads, b_grads, strict=True):
        assert g is None or g.numpy().tobytes() == h.numpy().tobytes()


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_gradients_own_their_memory(case):
    tensors = tensors_of(case, arrays_of(case, np.float32))
    out = case.op(*tensors)
    if not out.requires_grad:
        return
    seed = Tensor.full(out.shape, 0.75, dtype=out.dtype)
    out.backward(seed)
    grads = [t.grad.to_numpy() for t in (*tensors, out) if t.grad is not None]
    others = [t.to_numpy() for t in (*tensors, out, seed)]
    for i, g in enumerate(grads):
        assert not any(np.shares_memory(g, other) for other in (*grads[:i], *others))


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_backward_twice_adds_up(case):
    tensors = tensors_of(case, arrays_of(case, np.float64))
    out = case.op(*tensors)
    seed = Tensor.full(out.shape, 0.75, dtype=out.dtype)
    for _ in range(2):
        out.backward(seed)
    for t, g in zip(tensors, gradients(case, tensors)[1], strict=True):
        assert (t.grad is None) == (g is None)
        if g is not None:
            np.testing.assert_allclose(t.grad.numpy(), 2 * g.numpy(), rtol=1e-12, atol=1e-12)


def test_every_gradient_rule_is_reached(monkeypatch):
    """A differentiable primitive without a row does not exist."""
    reached, pull = set(), Node.pull

    def spy(node, grad, create_graph):
        reached.add(node.primitive.name)
        return pull(node, grad, create_graph)

    monkeypatch.setattr(Node, "pull", spy)
    for case in DIFFERENTIABLE:
        gradients(case, tensors_of(case, arrays_of(case, np.float64)))
    wanted = {name for name, p in PRIMITIVES.items() if p.rule is not None and p.forward.__module__.startswith("keydnn.")}
    assert wanted - reached == set()
