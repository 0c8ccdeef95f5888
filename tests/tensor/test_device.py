"""Devices, and the errors that name them."""

import copy
import pickle

import pytest

from keydnn import Device
from keydnn.domain.device import CPU, DeviceType, as_device
from keydnn.domain.errors import DeviceMismatchError, DeviceNotSupportedError, KeyDNNError


def test_cpu():
    d = Device("cpu")
    assert d.type is DeviceType.CPU and d.type.value == "cpu" and d.index is None
    assert d.is_cpu() and not d.is_cuda() and str(d) == "cpu" and repr(d) == "Device('cpu')"


@pytest.mark.parametrize("index", [0, 1, 17])
def test_cuda(index):
    d = Device(f"cuda:{index}")
    assert d.type is DeviceType.CUDA and d.type.value == "cuda" and d.index == index
    assert d.is_cuda() and not d.is_cpu() and str(d) == f"cuda:{index}" and repr(d) == f"Device('cuda:{index}')"


@pytest.mark.parametrize("spec", ["cuda", "CPU", "", "cuda:", "cuda:-1", "cuda:1.0", "cuda:01", "cpu:0", "cpu ", "gpu", None, 0, CPU])
def test_anything_else_is_refused(spec):
    with pytest.raises(ValueError, match="Invalid device '.*'. Expected 'cpu' or 'cuda:<index>'"):
        Device(spec)


def test_equality_and_hash_are_by_type_and_index():
    assert Device("cuda:1") == Device("cuda:1") and hash(Device("cuda:1")) == hash(Device("cuda:1"))
    assert len({Device("cpu"), Device("cpu"), Device("cuda:0"), Device("cuda:1")}) == 3
    assert Device("cuda:0") != Device("cuda:1") and Device("cpu") != "cpu" and not Device("cpu") == None  # noqa: E711


def test_immutable():
    with pytest.raises(AttributeError):
        Device("cpu").index = 3
    with pytest.raises(AttributeError):
        Device("cpu").name = "x"
    assert copy.deepcopy(Device("cuda:1")) is Device("cuda:1") and pickle.loads(pickle.dumps(CPU)) is CPU


def test_as_device():
    assert as_device(None) is as_device("cpu") is as_device(CPU) is CPU
    for error in (TypeError, ValueError):
        with pytest.raises(error, match="Layer: expected a Device, .* got int"):
            as_device(3, error=error, owner="Layer")
    with pytest.raises(ValueError, match="Invalid device"):
        as_device("gpu", error=TypeError)


def test_errors_carry_what_they_name():
    e = DeviceNotSupportedError("exp", Device("cuda:0"))
    assert str(e) == "exp is not implemented for device 'cuda:0'." and (e.op, e.device) == ("exp", "cuda:0")
    m = DeviceMismatchError(CPU, "cuda:1", "add")
    assert (m.device_a, m.device_b) == ("cpu", "cuda:1") and "'cpu'" in str(m) and "'cuda:1'" in str(m)
    assert isinstance(e, RuntimeError) and isinstance(m, RuntimeError) and isinstance(e, KeyDNNError)
