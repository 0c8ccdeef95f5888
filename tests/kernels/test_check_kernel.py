"""`keydnn.testing.kernels.check_kernel` passes right kernels and finds each kind of wrong one."""

from types import SimpleNamespace

import numpy as np
import pytest

from keydnn.kernels import reference
from keydnn.testing.kernels import check_kernel

X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_right_kernels_pass(dtype):
    x = X.astype(dtype)
    check_kernel("exp", x)
    check_kernel("softmax", x, axis=1)
    check_kernel("add", x, 2.0)
    check_kernel("max", x, axis=None, keepdims=False)
    check_kernel("argmax", x, axis=0)
    check_kernel("maxpool2d", x[None, None], (2, 2), (1, 1), (0, 0))
    check_kernel("add_", x, x[0])
    check_kernel("sgd_", x, x, None, np.array(0.1), momentum=0.0, nesterov=False, weight_decay=0.1)
    check_kernel("uniform", np.array(5), shape=(3,), dtype=dtype)
    check_kernel("exp", x[::2, ::-1], table=reference)


def in_place(x):
    x *= 2
    return x / 2


count = iter(range(9))
FAULTS = {
    "value": lambda x: reference.neg(x) + np.float32(1e-3),
    "dtype": lambda x: reference.neg(x).astype(np.float64),
    "shape": lambda x: reference.neg(x)[None],
    "order": lambda x: np.asfortranarray(reference.neg(x)),
    "operand-changed": lambda x: -in_place(x),
    "operand-returned": lambda x: np.negative(x, out=x),
    "memory-shared": lambda x: x[:0] if x.size == 0 else np.lib.stride_tricks.as_strided(np.negative(x, out=x), x.shape, x.strides),
    "other-bits": lambda x: reference.neg(x) * np.float32(1 + 2e-7 * next(count)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_kernels_are_found(fault):
    with pytest.raises(AssertionError):
        check_kernel("neg", X, table=SimpleNamespace(neg=FAULTS[fault]))


def test_memory_of_an_operand_is_found():
    with pytest.raises(AssertionError, match="memory of operand 0"):
        check_kernel("copy", X, table=SimpleNamespace(copy=lambda x: x))


def test_a_kernel_that_writes_must_return_none():
    def add_(x, y):
        x += y
        return x

    with pytest.raises(AssertionError, match="must return None"):
        check_kernel("add_", X, X, table=SimpleNamespace(add_=add_))


def test_tolerances():
    wrong = SimpleNamespace(neg=lambda x: reference.neg(x) * np.float32(1.001))
    with pytest.raises(AssertionError):
        check_kernel("neg", X, table=wrong)
    check_kernel("neg", X, table=wrong, rtol=1e-2)


def test_unknown_rows():
    with pytest.raises(KeyError):
        check_kernel("no_such_kernel", X)
