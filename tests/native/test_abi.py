"""The flat C interface, called through ctypes as another language would."""

import ctypes
from ctypes import c_int, c_int64, c_void_p

import numpy as np
import pytest

from keydnn.kernels import native, reference
from tests.native.common import needs_native

pytestmark = needs_native


class ConvShape(ctypes.Structure):
    """keydnn_conv_shape of native/include/keydnn/conv.h."""

    _fields_ = [(name, c_int64) for name in "n c h w o kh kw sh sw ph pw dh dw groups oh ow".split()]


@pytest.fixture(scope="module")
def library():
    return ctypes.CDLL(native.load().__file__)


def pointer(x):
    return x.ctypes.data_as(c_void_p)


@pytest.mark.parametrize(("suffix", "dtype"), [("f32", np.float32), ("f64", np.float64)])
def test_convolution(library, suffix, dtype):
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in ((2, 3, 8, 9), (4, 3, 3, 3), (4,)))
    y = np.empty((2, 4, 8, 9), dtype)
    shape = ConvShape(2, 3, 8, 9, 4, 3, 3, 1, 1, 1, 1, 1, 1, 1, 8, 9)
    function = getattr(library, f"keydnn_conv2d_{suffix}")
    function.argtypes, function.restype = [c_void_p] * 5, c_int
    assert function(pointer(x), pointer(w), pointer(b), pointer(y), ctypes.byref(shape)) == 0
    np.testing.assert_allclose(y, reference.conv2d(x, w, b, (1, 1), (1, 1), (1, 1), 1), rtol=1e-5, atol=1e-5)
    shape.oh = 9  # one row more than there are windows
    assert function(pointer(x), pointer(w), pointer(b), pointer(y), ctypes.byref(shape)) == 1


def test_names_come_for_both_precisions(library):
    for name in ("gemm", "conv2d_grad_x", "conv2d_grad_w", "maxpool2d", "avgpool2d_grad", "plane_mean", "relu"):
        for suffix in ("f32", "f64"):
            assert getattr(library, f"keydnn_{name}_{suffix}")


def test_settings(library):
    library.keydnn_isa.restype = ctypes.c_char_p
    assert library.keydnn_isa().decode() == native.load().isa()
    assert library.keydnn_set_threads(0) == 1
    assert library.keydnn_get_threads() == native.load().get_threads()
