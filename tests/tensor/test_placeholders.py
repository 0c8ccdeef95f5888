"""CUDA tensors on a machine without CUDA: they can be made and asked, and refuse everything that needs storage."""

import copy

import numpy as np
import pytest

import keydnn
from keydnn import Device, Tensor
from keydnn.domain.errors import DeviceMismatchError, DeviceNotSupportedError

pytestmark = pytest.mark.skipif(keydnn.cuda_available(), reason="there is a GPU: no placeholders")


def placeholder(*shape, **more):
    return Tensor(shape or (2, 3), "cuda:1", **more)


def test_what_it_tells():
    t = placeholder(dtype=np.float64, requires_grad=True, init_zeros=True)
    assert (t.shape, t.ndim, t.size, t.nbytes, t.dtype) == ((2, 3), 2, 6, 48, np.float64)
    assert t.device == Device("cuda:1") and t.device_type == "cuda" and t.data == 0 and t.requires_grad
    assert len(t) == 2 and t.numel() == 6 and hash(t) == hash(t)
    assert repr(t) == "Tensor(shape=(2, 3), device=cuda:1, dtype=float64, data=DevPtr(0))"
    assert t.debug_storage_repr().startswith("CUDA Tensor on device 1 with shape (2, 3)")
    assert (t == None) is False  # noqa: E711
    t.zero_grad()
    t.free_()


NEEDS_STORAGE = {
    "to_numpy": lambda t: t.to_numpy(),
    "numpy": lambda t: t.numpy(),
    "item": lambda t: placeholder(1).item(),
    "tolist": lambda t: t.tolist(),
    "bool": lambda t: bool(placeholder(1)),
    "float": lambda t: float(placeholder(1)),
    "int": lambda t: int(placeholder(1)),
    "asarray": lambda t: np.asarray(t),
    "dlpack": lambda t: np.from_dlpack(t),
    "fill": lambda t: t.fill(1.0),
    "copy_from_numpy": lambda t: t.copy_from_numpy(np.zeros((2, 3))),
    "copy_from": lambda t: t.copy_from(Tensor((2, 3)), allow_cross_device=True),
    "to the cpu": lambda t: t.to("cpu"),
    "clone": lambda t: t.clone(),
    "contiguous": lambda t: t.contiguous(),
    "add": lambda t: t + 1,
    "add itself": lambda t: t + t,
    "iadd": lambda t: t.__iadd__(1),
    "compare": lambda t: t > 0,
    "sum": lambda t: t.sum(),
    "reshape": lambda t: t.reshape(6),
    "getitem": lambda t: t[0],
    "setitem": lambda t: t.__setitem__(0, 1.0),
    "concat": lambda t: Tensor.concat([t, t]),
    "zeros_like": lambda t: keydnn.zeros_like(t),
    "ones": lambda t: Tensor.ones((2,), device="cuda:0"),
    "full": lambda t: Tensor.full((2,), 1.0, device="cuda:0"),
    "rand": lambda t: Tensor.rand((2,), device="cuda:0"),
    "data": lambda t: Tensor(data=[1.0], device="cuda:0"),
}


@pytest.mark.parametrize("name", NEEDS_STORAGE)
def test_what_needs_storage(name):
    with pytest.raises(DeviceNotSupportedError, match=r"is not implemented for device 'cuda:\d'.") as caught:
        NEEDS_STORAGE[name](placeholder())
    assert isinstance(caught.value, RuntimeError) and caught.value.op and caught.value.device.startswith("cuda:")


def test_the_message_names_the_operation():
    with pytest.raises(RuntimeError, match="^exp is not implemented for device 'cuda:1'.$"):
        placeholder().exp()
    with pytest.raises(RuntimeError, match="^add is not implemented for device 'cuda:1'.$"):
        placeholder() + 1


MIXES = {
    "add": lambda a, b: a + b,
    "iadd": lambda a, b: a.__iadd__(b),
    "compare": lambda a, b: a > b,
    "maximum": lambda a, b: a.maximum(b),
    "where": lambda a, b: a.where(b, a),
    "matmul": lambda a, b: a @ b.reshape(3, 2) if b.device_type == "cpu" else a @ Tensor((3, 2), b.device),
    "mse": lambda a, b: keydnn.ops.mse(a, b),
    "linear": lambda a, b: keydnn.ops.linear(a, b),
    "einsum": lambda a, b: keydnn.einsum("ij,ij->", a, b),
}


@pytest.mark.parametrize("name", MIXES)
def test_mixed_devices_name_both(name):
    for a, b in ((Tensor((2, 3)), placeholder()), (placeholder(), Tensor((2, 3)))):
        with pytest.raises(DeviceMismatchError, match="'cpu'") as caught:
            MIXES[name](a, b)
        assert {caught.value.device_a, caught.value.device_b} == {"cpu", "cuda:1"} and "cuda:1" in str(caught.value)
        assert isinstance(caught.value, RuntimeError)


def test_two_cuda_devices_do_not_mix():
    with pytest.raises(DeviceMismatchError, match="cuda:0.*cuda:1"):
        Tensor((2,), "cuda:0") + Tensor((2,), "cuda:1")


@pytest.mark.parametrize("join", [Tensor.stack, Tensor.concat])
def test_joins_of_mixed_devices(join):
    with pytest.raises(ValueError, match="cpu.*cuda:1"):
        join([Tensor((2, 3)), placeholder()])


def test_an_upstream_gradient_from_another_device():
    x = Tensor((2, 3), requires_grad=True)
    with pytest.raises(ValueError, match="cuda:1.*cpu"):
        (x * 2).backward(placeholder())


def test_moving_and_copying_objects():
    t = placeholder(requires_grad=True)
    assert t.to("cuda:1") is t and t.to_("cuda:1") is t
    with pytest.raises(RuntimeError):
        Tensor((1,)).to("cuda:0")
    with pytest.raises(RuntimeError):
        Tensor((1,)).to_("cuda:0")
    twin = copy.deepcopy(t)
    assert twin.device is t.device and twin.shape == t.shape
