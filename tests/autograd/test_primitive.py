"""Primitives and ``bind``: several outputs, names, residues, errors."""

import numpy as np
import pytest

import keydnn
from keydnn import Tensor
from keydnn.autograd.primitive import Primitive
from keydnn.domain.errors import DeviceMismatchError
from keydnn.kernels.dispatch import tables
from keydnn.ops._primitive import PRIMITIVES, primitive
from keydnn.testing.gradient import check_gradient

calls = []


def sincos(k, x):
    s, c = k.sin(x), k.cos(x)
    return (s, c, k.floor(x)), (s, c)


sincos = Primitive(sincos, tables, n_outputs=3, n_graph=2)


@sincos.gradient
def _(saved, g, needs):
    s, c = saved
    calls.append([None if part is None else part.tolist() for part in g])
    gs, gc = g
    parts = [] if gs is None else [gs * c]
    parts += [] if gc is None else [-gc * s]
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def leaf(values, dtype=np.float64):
    return Tensor(data=np.array(values, dtype), requires_grad=True)


class TestSeveralOutputs:
    def setup_method(self):
        calls.clear()

    def test_values_and_places_in_the_graph(self):
        x = leaf([0.5, 1.5])
        s, c, f = sincos(x)
        np.testing.assert_allclose(s.numpy(), np.sin([0.5, 1.5]))
        assert s.requires_grad and c.requires_grad and not f.requires_grad and f._get_ctx() is None
        assert s._get_ctx() is s._get_ctx() and s._get_ctx() is not c._get_ctx()
        assert tuple(s._get_ctx().parents) == (x,)
        plain = sincos(Tensor((2,)))
        assert not any(t.requires_grad for t in plain)

    def test_the_rule_runs_once_with_all_gradients(self):
        x = leaf([0.5])
        s, c, _ = sincos(x)
        (s * 2.0 + c * 3.0).sum().backward()
        assert calls == [[[2.0], [3.0]]]
        np.testing.assert_allclose(x.grad.numpy(), [2 * np.cos(0.5) - 3 * np.sin(0.5)])
        assert s.grad.tolist() == [2.0] and c.grad.tolist() == [3.0]

    def test_outputs_that_nobody_used_give_none(self):
        x = leaf([0.5])
        s, c, _ = sincos(x)
        c.sum().backward()
        assert calls == [[None, [1.0]]] and s.grad is None
        np.testing.assert_allclose(x.grad.numpy(), [-np.sin(0.5)])

    def test_gradients_of_every_order(self):
        x = leaf([0.5, 1.5])
        check_gradient(lambda x: sincos(x)[0], x, order=3)
        check_gradient(lambda x: sincos(x)[0] * sincos(x)[1].exp(), x, order=2)

        def both(x):
            s, c, _ = sincos(x)
            return s * c * c

        check_gradient(both, x, order=3)

    def test_of_a_scalar(self):
        check_gradient(lambda x: sincos(x)[0], leaf(0.5), order=2)

    def test_grad_of_outputs_and_with_respect_to_them(self):
        x = leaf([0.5])
        s, c, _ = sincos(x)
        ds, dc, dx = keydnn.grad((s * c).sum(), [s, c, x])
        np.testing.assert_allclose([ds.item(), dc.item(), dx.item()], [np.cos(0.5), np.sin(0.5), np.cos(1.0)])
        assert keydnn.grad([s.sum(), c.sum()], x)[0].item() == pytest.approx(np.cos(0.5) - np.sin(0.5))

    def test_the_view_of_one_output(self):
        x = leaf([0.5])
        s, c, _ = sincos(x)
        (g,) = c._get_ctx().backward_fn(Tensor(data=np.ones(1)))
        np.testing.assert_allclose(g.numpy(), [-np.sin(0.5)])
        assert len(s._get_ctx().saved_tensors) == 2

    def test_an_output_written_in_place(self):
        x = leaf([0.5])
        s, c, _ = sincos(x)
        total = (s + c).sum()
        with keydnn.no_grad():
            c.fill(0.0)
        with pytest.raises(RuntimeError, match="sincos: its result was changed in place"):
            total.backward()
        s, c, _ = sincos(x)
        c *= 2.0
        (s + c).sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), [np.cos(0.5) - 2 * np.sin(0.5)])

    def test_one_output_overwritten_does_not_flow_back(self):
        x = leaf([0.5])
        s, c, _ = sincos(x)
        c.fill(0.0)
        with pytest.raises(RuntimeError, match="sincos: its result was overwritten"):
            c.sum().backward()

    def test_freed(self):
        x = leaf([0.5])
        s, c, _ = sincos(x)
        s.sum().backward(retain_graph=False)
        with pytest.raises(RuntimeError, match="sincos: the graph was freed"):
            c.sum().backward()

    def test_a_saved_output_that_is_no_part_of_the_graph(self):
        """Results beyond n_graph (an argmax, statistics) may be saved, also when the first one is seen through a view."""

        def scaled(k, x):
            sign = k.sign(x)
            return (k.mul(x, sign), sign), (sign,)

        scaled = Primitive(scaled, tables, n_outputs=2, n_graph=1)

        @scaled.gradient
        def _(saved, g, needs):
            assert not saved[0].requires_grad
            return g * saved[0]

        x = leaf([[-1.5, 2.0]])
        y, sign = scaled(x)
        y.reshape(2).sum().backward()
        assert x.grad.tolist() == sign.tolist() == [[-1.0, 1.0]]
        check_gradient(lambda x: scaled(x)[0].reshape(2) ** 2, x, order=2)


class TestResidues:
    def test_aux_serves_first_order_and_is_recomputed_for_the_second(self):
        seen = []

        def cube(k, x):
            square = k.mul(x, x)
            return k.mul(square, x), (x,), (square,)

        cube = Primitive(cube, tables)

        @cube.gradient
        def _(saved, g, needs):
            x, square = saved
            seen.append(square is None)
            return g * (x * x if square is None else square) * 3.0

        for shape in ((2,), ()):
            x = Tensor(data=np.full(shape, 1.5), requires_grad=True)
            cube(x).backward(Tensor.ones(shape, dtype=np.float64))
            assert (x.grad.numpy() == 6.75).all()
            check_gradient(cube, x, order=2)
        assert seen[0] is False and True in seen

    def test_a_recorded_name_with_no_rule_gives_no_graph(self):
        f = Primitive(lambda k, x: k.exp(x), tables)
        assert not f(leaf([1.0])).requires_grad and "lambda" in repr(f)


class TestNames:
    def test_a_second_primitive_of_a_name_is_refused(self):
        def exp(k, x):
            return k.exp(x)

        before = PRIMITIVES["exp"]
        with pytest.raises(ValueError, match="'exp' exists already"):
            primitive(exp)
        assert PRIMITIVES["exp"] is before

    def test_a_second_rule_is_refused(self):
        with pytest.raises(ValueError, match="exp has a gradient rule already"):
            PRIMITIVES["exp"].gradient(lambda saved, g, needs: g)

    def test_repr(self):
        assert repr(PRIMITIVES["exp"]) == "<primitive exp>"


class TestErrors:
    def test_operands_that_are_no_tensors(self):
        with pytest.raises(TypeError, match="add: expected Tensors, got float"):
            PRIMITIVES["add"](Tensor((1,)), 1.0)
        with pytest.raises(TypeError, match="add: expected Tensors, got ndarray"):
            PRIMITIVES["add"](np.ones(1), Tensor((1,)))

    def test_devices_that_differ(self):
        with pytest.raises(DeviceMismatchError, match="add: .*'cpu' and 'cuda:0'"):
            PRIMITIVES["add"](Tensor((1,)), Tensor((1,), "cuda:0"))

    def test_an_error_in_the_kernel_keeps_its_type(self):
        def broken(k, x):
            raise IndexError("deep inside")

        with pytest.raises(IndexError, match="deep inside") as caught:
            Primitive(broken, tables)(Tensor((1,)))
        assert caught.value.__cause__ is None
