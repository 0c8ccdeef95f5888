"""Filling, copying, casting and moving."""

import numpy as np
import pytest

import keydnn
from keydnn import Device, Parameter, Tensor


def test_fill():
    t = Tensor((2, 2))
    assert t.fill(3) is None and t.tolist() == [[3.0, 3.0], [3.0, 3.0]]
    Tensor((0,)).fill(1.0)


class TestCopyFromNumpy:
    @pytest.mark.parametrize("arr", [np.arange(3), np.arange(3.0), [0, 1, 2], np.arange(6.0)[::2] / 2, np.array([0, 1, 2], np.int8)])
    def test_casts_to_the_dtype(self, arr):
        t = Tensor((3,))
        t.copy_from_numpy(arr)
        assert t.tolist() == [0.0, 1.0, 2.0] and t.dtype == np.float32

    def test_writes_in_place_and_copies(self):
        t, a = Tensor((2,)), np.ones(2, np.float32)
        live = t.to_numpy()
        t.copy_from_numpy(a)
        a[:] = 5
        assert live.tolist() == [1.0, 1.0] and t.to_numpy() is live

    @pytest.mark.parametrize("shape", [(1,), (2, 1), (), (3,)])
    def test_shapes_must_be_equal(self, shape):
        t = Tensor((2,))
        with pytest.raises(ValueError, match="Shape mismatch"):
            t.copy_from_numpy(np.ones(shape))
        assert t.tolist() == [0.0, 0.0]

    def test_leaves_requires_grad_and_graph_alone(self):
        x = Tensor(data=[1.0], requires_grad=True)
        y = x * 2
        ctx = y._get_ctx()
        y.copy_from_numpy(np.array([7.0]))
        assert y.requires_grad and y._get_ctx() is ctx
        x.copy_from_numpy(np.array([7.0]))
        assert x.requires_grad and x._get_ctx() is None


class TestCopyFrom:
    def test_copies(self):
        a, b = Tensor((2,)), Tensor(data=[1.0, 2.0])
        a.copy_from(b)
        b.fill(0)
        assert a.tolist() == [1.0, 2.0]
        a.copy_from(a)
        assert a.tolist() == [1.0, 2.0]

    def test_refusals(self):
        t = Tensor((2,))
        with pytest.raises(TypeError, match="ndarray"):
            t.copy_from(np.zeros(2))
        with pytest.raises(ValueError, match="Shape mismatch"):
            t.copy_from(Tensor((1,)))
        with pytest.raises(TypeError, match="float64.*float32"):
            t.copy_from(Tensor((2,), dtype=np.float64))
        with pytest.raises(RuntimeError, match="cuda:0.*cpu"):
            t.copy_from(Tensor((2,), "cuda:0"))
        with pytest.raises(RuntimeError):
            Tensor((2,), "cuda:0").copy_from(Tensor((2,), "cuda:1"), allow_cross_device=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_])
def test_clone(dtype):
    x = Tensor(data=[0, 1], dtype=dtype, requires_grad=np.dtype(dtype).kind == "f")
    y = x.clone()
    assert y.dtype == dtype and not y.requires_grad and y._get_ctx() is None and y.tolist() == x.tolist()
    assert not np.shares_memory(x.to_numpy(), y.to_numpy())
    assert type(Parameter((1,)).clone()) is Tensor


def test_to_the_same_device():
    x = Tensor(data=[1.0], requires_grad=True, dtype=np.float64)
    assert x.to("cpu") is x and x.to(Device("cpu")) is x
    y = x.to("cpu", copy=True)
    assert y is not x and y.dtype == np.float64 and not np.shares_memory(x.to_numpy(), y.to_numpy())
    p = Parameter((1,))
    assert p.to("cpu") is p and p.to("cpu", copy=True).requires_grad and type(p.to("cpu", copy=True)) is Parameter
    with pytest.raises(ValueError):
        x.to("gpu")
    with pytest.raises(ValueError):
        x.to(3)


def test_to_in_place():
    x = Tensor(data=[1.0], requires_grad=True)
    y = x * 2
    before = y.to_numpy()
    assert y.to_("cpu") is y and y.to_numpy() is before and y._get_ctx() is not None
    assert y.to_("cpu", copy=True) is y and y.to_numpy() is not before and y.tolist() == [2.0] and y._get_ctx() is None
    x.free_()
    assert x.tolist() == [1.0]


def test_copy_in_place_leaves_recorded_uses_alone():
    x = Tensor(data=[3.0], requires_grad=True)
    y = (x * x).sum()
    x.to_("cpu", copy=True)
    y.backward()
    assert x.grad.tolist() == [6.0]
    with pytest.raises(RuntimeError, match="changed in place"):
        keydnn.grad(y, x, create_graph=True)


def test_detach_shares_the_storage():
    x = Tensor(data=[1.0, 2.0], requires_grad=True)
    d = x.detach()
    assert not d.requires_grad and d._get_ctx() is None and np.shares_memory(d.to_numpy(), x.to_numpy())
    d.fill(4)
    assert x.tolist() == [4.0, 4.0]
    assert type(Parameter((1,)).detach()) is Tensor


class TestAstype:
    def test_values_and_identity(self):
        x = Tensor(data=[1.5, -2.5])
        assert x.astype(np.float32) is x
        assert x.astype("float64").dtype == np.float64 and x.astype(np.int64).tolist() == [1, -2]

    def test_gradient_between_floating_dtypes(self):
        x = Tensor(data=[1.5], requires_grad=True)
        (x.astype(np.float64) * 3).sum().backward()
        assert x.grad.dtype == np.float32 and x.grad.tolist() == [3.0]

    def test_integers_carry_no_gradient(self):
        x = Tensor(data=[1.5], requires_grad=True)
        y = x.astype(np.int64)
        assert not y.requires_grad and y._get_ctx() is None


def test_contiguous():
    x = Tensor((2, 3))
    assert x.contiguous() is x
    x._data = np.arange(6, dtype=np.float32).reshape(3, 2).T
    y = x.contiguous()
    assert y is not x and y.to_numpy().flags.c_contiguous and y.tolist() == x.tolist()
