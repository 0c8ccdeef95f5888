"""Memory shared with other libraries over DLPack."""

import numpy as np
import pytest

import keydnn
from keydnn import Tensor


def test_to_numpy_over_dlpack():
    t = Tensor(data=[1.0, 2.0])
    a = np.from_dlpack(t)
    assert np.shares_memory(a, t.to_numpy()) and t.__dlpack_device__() == (1, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_from_numpy_over_dlpack(dtype):
    a = np.arange(3, dtype=dtype)
    t = keydnn.from_dlpack(a)
    assert t.dtype == dtype and not t.requires_grad and np.shares_memory(t.to_numpy(), a)
    a[0] = 7
    assert t.tolist()[0] == 7


def test_what_must_be_copied():
    a = np.arange(4.0)
    a.flags.writeable = False
    t = keydnn.from_dlpack(np.arange(12.0).reshape(3, 4).T)
    assert t.to_numpy().flags.c_contiguous and t.shape == (4, 3)
    t.fill(1.0)


def test_of_a_tensor_is_the_same_memory_and_its_versions():
    x = Tensor(data=[1.0], requires_grad=True)
    y = (x * x).sum()
    keydnn.from_dlpack(x).fill(2.0)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_what_holds_no_real_numbers():
    with pytest.raises(TypeError, match="complex"):
        keydnn.from_dlpack(np.ones(2, complex))


@pytest.mark.torch
def test_with_torch_in_both_directions():
    import torch

    a = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    t = keydnn.from_dlpack(a)
    t[0, 0] = 9.0
    assert a[0, 0].item() == 9.0 and t.tolist() == a.tolist()
    b = torch.from_dlpack(Tensor(data=[[1.0, 2.0]], dtype=np.float64))
    assert b.dtype == torch.float64 and b.tolist() == [[1.0, 2.0]]
    x = Tensor(data=[1.0, 2.0])
    torch.from_dlpack(x).mul_(2)
    assert x.tolist() == [2.0, 4.0]
    assert keydnn.from_dlpack(a.T).tolist() == a.T.tolist()
