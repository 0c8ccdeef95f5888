"""Operators: NumPy's values, the dtype of the tensors, numbers of every kind, strangers refused."""

import fractions
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keydnn import Tensor
from tests.tensor.strategies import broadcastable

OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.floordiv, operator.mod]
COMPARISONS = [operator.gt, operator.ge, operator.lt, operator.le, operator.eq, operator.ne]
IN_PLACE = [operator.iadd, operator.isub, operator.imul, operator.itruediv]
NUMBERS = [
    2,
    2.5,
    True,
    np.float32(2.5),
    np.float64(2.5),
    np.float16(2.5),
    np.int64(2),
    np.uint8(2),
    np.bool_(True),
    fractions.Fraction(5, 2),
]
NUMBERS += [np.longdouble(2.5)]


def name(f):
    return f.__name__


@pytest.mark.parametrize("f", OPERATORS, ids=name)
@given(operands=broadcastable())
def test_tensors_follow_numpy(f, operands):
    x, y = operands
    with np.errstate(all="ignore"):
        want = f(x, y)
    out = f(Tensor(data=x), Tensor(data=y))
    assert out.dtype == want.dtype and out.shape == want.shape
    np.testing.assert_allclose(out.numpy(), want, rtol=1e-5 if want.dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: type(n).__name__)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
def test_numbers_never_promote(dtype, number):
    x = np.array([1.5, 4.0], dtype)
    t = Tensor(data=x)
    c = float(number)
    for f in OPERATORS:
        for out, want in ((f(t, number), f(x, c)), (f(number, t), f(c, x))):
            assert type(out) is Tensor and out.dtype == dtype
            np.testing.assert_allclose(out.numpy(), want, rtol=1e-6)
    for f in COMPARISONS:
        assert f(t, number).dtype == dtype and f(t, number).tolist() == f(x, c).astype(float).tolist()
        assert f(number, t).tolist() == f(c, x).astype(float).tolist()
    for f in IN_PLACE:
        y = f(t.clone(), number)
        assert y.dtype == dtype
        np.testing.assert_allclose(y.numpy(), f(x.copy(), c), rtol=1e-6)


@pytest.mark.parametrize(
    "stranger",
    [None, "a", [1.0, 2.0], (1.0,), 1j, np.complex64(1), object(), np.zeros(2), np.array(2.0), {}],
    ids=lambda v: type(v).__name__,
)
def test_strangers_are_type_errors(stranger):
    t = Tensor((2,))
    for f in (*OPERATORS, operator.matmul):
        with pytest.raises(TypeError):
            f(t, stranger)
        if not (isinstance(stranger, str) and f is operator.mod):  # "a" % t is formatting
            with pytest.raises(TypeError):
                f(stranger, t)
    for f in IN_PLACE:
        with pytest.raises(TypeError):
            f(t, stranger)
    assert t.tolist() == [0.0, 0.0]


def test_numbers_beyond_float32_are_infinite_without_a_warning():
    t = Tensor(data=[1.0, -1.0])
    assert (t * 1e300).tolist() == [np.inf, -np.inf]
    assert (t < 1e300).tolist() == [1.0, 1.0] and (t > -1e300).tolist() == [1.0, 1.0]
    assert t.clamp(max=1e300).tolist() == [1.0, -1.0]


def test_old_names():
    t = Tensor(data=[4.0])
    assert t.__div__(2).item() == 2.0 and t.__rdiv__(2).item() == 0.5
    assert t.__idiv__(2) is t and t.item() == 2.0


def test_unary_and_power():
    t = Tensor(data=[-2.0, 3.0])
    assert (-t).tolist() == [2.0, -3.0] and abs(t).tolist() == [2.0, 3.0]
    assert (t**2).tolist() == [4.0, 9.0] and (2**t).tolist() == [0.25, 8.0] and t.pow(2).tolist() == [4.0, 9.0]
    assert sum([t, t]).tolist() == [-4.0, 6.0]


def test_result_requires_grad_if_an_operand_does():
    a, b = Tensor((2,), requires_grad=True), Tensor((2,))
    for f in OPERATORS[:5]:
        assert f(a, b).requires_grad and f(b, a).requires_grad and not f(b, b).requires_grad
        assert f(a, 2.0).requires_grad and f(2.0, a).requires_grad
    for f in (*OPERATORS[5:], *COMPARISONS):
        assert not f(a, b).requires_grad and f(a, b)._get_ctx() is None and not f(a, 2.0).requires_grad


@given(operands=broadcastable())
def test_masks_are_zeros_and_ones_in_the_dtype_of_the_left(operands):
    x, y = operands
    if x.shape != y.shape:
        with pytest.raises(ValueError, match="Shape mismatch"):
            _ = Tensor(data=x) > Tensor(data=y)
        return
    for f in COMPARISONS:
        mask = f(Tensor(data=x), Tensor(data=y))
        assert mask.dtype == x.dtype and mask.tolist() == f(x, y).astype(float).tolist()


def test_comparison_with_nan():
    t = Tensor(data=[np.nan, 1.0])
    assert (t == t).tolist() == [0.0, 1.0] and (t != t).tolist() == [1.0, 0.0] and (t > 0).tolist() == [0.0, 1.0]


@given(x=st.floats(-1e4, 1e4, width=16), low=st.one_of(st.none(), st.floats(-10, 0)), high=st.one_of(st.none(), st.floats(0, 10)))
def test_clamp(x, low, high):
    t = Tensor(data=[x, np.inf, -np.inf, np.nan, low or 0.0])
    out = t.clamp(min=low, max=high)
    if low is None and high is None:
        assert out is t
    else:
        np.testing.assert_array_equal(out.numpy(), np.clip(t.numpy(), low, high))


def test_clamp_takes_numpy_numbers():
    assert Tensor(data=[5.0]).clamp(max=np.float64(2.0)).dtype == np.float32
    with pytest.raises(TypeError):
        Tensor((1,)).clamp(0, 1)


def test_integer_tensors_are_storage():
    i = Tensor(data=[1, 2], dtype=np.int64)
    assert (i + i).dtype == np.int64 and (i + 1).tolist() == [2, 3] and (i == 1).dtype == np.float32
    with pytest.raises(TypeError):
        i += 0.5
    with pytest.raises(TypeError):
        i += Tensor(data=[0.5, 0.5])
    assert i.tolist() == [1, 2]


class TestNumpyInterop:
    def test_an_array_beside_a_tensor_is_a_type_error(self):
        t, a = Tensor((2,)), np.ones(2)
        for f in (*OPERATORS, operator.matmul):
            with pytest.raises(TypeError):
                f(a, t)
        with pytest.raises(TypeError):
            np.add(a, t)
        with pytest.raises(TypeError):
            np.exp(t)
        with pytest.raises(TypeError):
            a += t

    def test_asarray(self):
        t = Tensor(data=[[1.0, 2.0]], dtype=np.float64)
        assert np.asarray(t) is t.to_numpy()
        assert np.asarray(t, dtype=np.float32).dtype == np.float32
        copied = np.array(t)
        copied[:] = 0
        assert t.tolist() == [[1.0, 2.0]]
        assert np.array(t, copy=False) is t.to_numpy() or np.shares_memory(np.array(t, copy=False), t.to_numpy())
        with pytest.raises(ValueError):
            np.array(t, dtype=np.float32, copy=False)
        assert np.asarray([Tensor(data=1.0), Tensor(data=2.0)]).tolist() == [1.0, 2.0]

    def test_numpy_functions_that_only_read(self):
        t = Tensor(data=[1.0, 2.0])
        np.testing.assert_array_equal(t, [1.0, 2.0])
        assert np.concatenate([t, t]).tolist() == [1.0, 2.0, 1.0, 2.0] and np.shape(t) == (2,)

    def test_numpy_scalars_on_either_side(self):
        for number in (np.float64(2), np.float32(2), np.int32(2)):
            assert type(number * Tensor((1,))) is Tensor and type(number - Tensor((1,))) is Tensor
            assert type(number < Tensor((1,))) is Tensor
