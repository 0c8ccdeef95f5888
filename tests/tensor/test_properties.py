"""Properties and small methods: what a Tensor tells about itself, and what Python makes of it."""

import copy
import pickle

import numpy as np
import pytest

import keydnn
from keydnn import Parameter, Tensor
from keydnn.domain.protocols import IParameter, ITensor


def test_sizes():
    t = Tensor((2, 3), dtype=np.float64)
    assert (t.shape, t.ndim, t.size, t.numel(), t.nbytes, len(t)) == ((2, 3), 2, 6, 6, 48, 2)
    assert Tensor(()).numel() == 1 and Tensor((0, 4)).numel() == 0 and Tensor((0, 4)).nbytes == 0
    assert type(t.shape) is tuple and isinstance(t.dtype, np.dtype)


def test_len_of_a_scalar():
    with pytest.raises(ValueError, match="scalar"):
        len(Tensor(()))


def test_protocols():
    assert isinstance(Tensor((1,)), ITensor) and isinstance(Parameter((1,)), IParameter)


def test_item():
    assert Tensor(data=[[2.5]]).item() == 2.5 and type(Tensor(data=3.0).item()) is float
    assert type(Tensor(data=[7], dtype=np.int64).item()) is float
    for shape in ((2,), (0,)):
        with pytest.raises(ValueError, match="one element"):
            Tensor(shape).item()


def test_python_numbers():
    t = Tensor(data=[[-2.75]])
    assert (float(t), int(t), bool(t)) == (-2.75, -2, True)
    assert not Tensor(data=0.0) and bool(Tensor(data=np.nan))
    assert int(Tensor(data=2**60 + 1, dtype=np.int64)) == 2**60 + 1
    for f in (float, int, bool):
        for shape in ((2,), (0,)):
            with pytest.raises(ValueError, match="element"):
                f(Tensor(shape))


def test_data_is_live():
    t = Tensor((2,))
    assert t.data is t.data and t.to_numpy() is t.data
    t.to_numpy()[0] = 5
    assert t.tolist() == [5.0, 0.0]
    copied = t.numpy()
    copied[:] = 9
    assert t.tolist() == [5.0, 0.0]


def test_zero_grad_gives_none():
    t = Tensor((2,), requires_grad=True)
    t.zero_grad()
    assert t.grad is None
    t.grad = Tensor((2,))
    t.zero_grad()
    assert t.grad is None


def test_requires_grad_is_a_switch():
    t = Tensor((1,))
    t.requires_grad = True
    assert (t * 2).requires_grad
    t.requires_grad = False
    assert not (t * 2).requires_grad


def test_texts():
    assert repr(Tensor((2, 3))) == "Tensor(shape=(2, 3), device=cpu, dtype=float32)"
    assert repr(Tensor((), dtype=np.float64)) == "Tensor(shape=(), device=cpu, dtype=float64)"
    assert "float32" in Tensor((2, 3)).debug_storage_repr() and "(2, 3)" in Tensor((2, 3)).debug_storage_repr()


class TestIdentity:
    def test_hash_is_by_identity(self):
        a, b = Tensor((2,)), Tensor((2,))
        assert hash(a) == hash(a) and len({a, b, a}) == 2 and {a: 1}[a] == 1

    def test_equality_is_elementwise(self):
        a = Tensor(data=[1.0, 2.0])
        assert (a == Tensor(data=[1.0, 3.0])).tolist() == [1.0, 0.0]
        assert (a != 2).tolist() == [1.0, 0.0]

    @pytest.mark.parametrize("other", [None, "a", object(), [1.0, 2.0], (1,), {}, np.zeros(2), 1j])
    def test_foreign_objects_are_just_different(self, other):
        t = Tensor((2,))
        assert (t == other) is False and (t != other) is True
        assert (other == t) is False and (other != t) is True

    @pytest.mark.parametrize("other", [None, "a", [1.0, 2.0], np.zeros(2)])
    def test_foreign_objects_have_no_order(self, other):
        for f in (lambda a, b: a > b, lambda a, b: a >= b, lambda a, b: a < b, lambda a, b: a <= b):
            with pytest.raises(TypeError):
                f(Tensor((2,)), other)

    def test_membership_does_not_answer_wrongly(self):
        a, b = Tensor(data=[1.0, 2.0]), Tensor(data=[1.0, 3.0])
        assert a in [a, b]
        with pytest.raises(ValueError, match="ambiguous"):
            _ = a in [b]
        assert Tensor(data=1.0) in [Tensor(data=1.0)] and Tensor(data=1.0) not in [Tensor(data=2.0)]

    def test_if_loss(self):
        assert "yes" if Tensor(data=0.5) else "no" == "yes"


class TestCopies:
    def test_deepcopy_is_a_leaf_of_its_own(self):
        x = Tensor(data=[1.0, 2.0], requires_grad=True)
        x.grad = Tensor(data=[3.0, 4.0])
        y = copy.deepcopy(x * 2)
        assert y.tolist() == [2.0, 4.0] and y.requires_grad and y._get_ctx() is None
        twin = copy.deepcopy(x)
        assert twin.requires_grad and twin.grad.tolist() == [3.0, 4.0] and twin.device is x.device
        assert not np.shares_memory(twin.to_numpy(), x.to_numpy())
        assert not np.shares_memory(twin.grad.to_numpy(), x.grad.to_numpy())
        with keydnn.no_grad():
            twin.fill(0)
        assert x.tolist() == [1.0, 2.0]

    def test_deepcopy_keeps_class_attributes_and_sharing(self):
        p = Parameter((2,), initializer="ones")
        p.tags = ["a"]
        a, b = copy.deepcopy([p, p])
        assert a is b and type(a) is Parameter and a.requires_grad
        a.tags.append("b")
        assert p.tags == ["a"]

    def test_deepcopy_of_a_tensor_that_was_written_in_place(self):
        x = Tensor(data=[1.0], requires_grad=True)
        x.detach().fill(5.0)
        twin = copy.deepcopy(x)
        y = (twin * twin).sum()
        x.fill(7.0)
        y.backward()
        assert twin.grad.tolist() == [10.0]

    def test_a_pickle_is_a_leaf_of_its_own(self):
        x = pickle.loads(pickle.dumps(Tensor(data=[1.0, 2.0], requires_grad=True)))
        assert x.tolist() == [1.0, 2.0] and x.requires_grad and x.device is Tensor(()).device
        y = pickle.loads(pickle.dumps(x * 2))
        assert y.tolist() == [2.0, 4.0] and y.requires_grad and y._get_ctx() is None


def test_iteration_and_unpacking():
    x = Tensor(data=[[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    rows = list(x)
    assert [row.tolist() for row in rows] == [[1.0, 2.0], [3.0, 4.0]]
    a, b = x
    (a * b).sum().backward()
    assert x.grad.tolist() == [[3.0, 4.0], [1.0, 2.0]]
    assert list(Tensor((0, 3))) == []
    with pytest.raises(ValueError, match="scalar"):
        iter(Tensor(()))
