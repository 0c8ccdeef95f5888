"""``grad``, ``hvp`` and ``gradcheck``: gradients returned, differentiated again, held against differences."""

import numpy as np
import pytest

import keydnn
from keydnn import Tensor, grad, gradcheck, hvp, ops
from keydnn.testing.gradient import check_gradient


def leaf(values, dtype=np.float64):
    return Tensor(data=np.array(values, dtype), requires_grad=True)


class TestGrad:
    def test_returns_and_writes_nothing(self):
        x, w = leaf([2.0]), leaf([5.0])
        y = x * w
        dx, dw = grad(y.sum(), [x, w])
        assert (dx.tolist(), dw.tolist()) == ([5.0], [2.0])
        assert all(t.grad is None for t in (x, w, y)) and not dx.requires_grad and dx._get_ctx() is None

    def test_single_input_and_tuple(self):
        x = leaf([2.0])
        assert len(grad((x * x).sum(), x)) == 1 and type(grad((x * x).sum(), (x,))) is tuple

    def test_intermediates_and_the_output_itself(self):
        x = leaf([2.0])
        y = x * x
        z = y * 3.0
        assert [g.tolist() for g in grad(z.sum(), [y, z, x])] == [[3.0], [1.0], [12.0]]
        assert grad(z, z, Tensor(data=np.array([7.0])))[0].tolist() == [7.0]
        assert grad(x, x, Tensor(data=np.array([7.0])))[0].tolist() == [7.0]

    def test_several_outputs_add_up(self):
        x = leaf([2.0])
        a, b = x * 3.0, x * x
        seeds = [Tensor(data=np.array([10.0])), None]
        assert grad([a, b.sum()], x, seeds)[0].tolist() == [34.0]
        assert grad([a.sum(), a.sum()], x)[0].tolist() == [6.0]
        assert grad([b.sum(), (b * a).sum()], b)[0].tolist() == [7.0], "an output below another"

    def test_the_same_input_twice(self):
        x = leaf([2.0])
        first, second = grad((x * x).sum(), [x, x])
        assert first.tolist() == second.tolist() == [4.0] and first is not second

    def test_unused_inputs(self):
        x, w = leaf([2.0]), leaf([1.0])
        with pytest.raises(RuntimeError, match=r"do not depend on input 1 of shape \(1,\).*allow_unused=True"):
            grad((x * x).sum(), [x, w])
        assert grad((x * x).sum(), [x, w], allow_unused=True)[1] is None

    def test_refusals(self):
        x = leaf([2.0, 3.0])
        y = x * x
        with pytest.raises(RuntimeError, match="input 0 .* does not require a gradient"):
            grad(y.sum(), Tensor((1,)))
        with pytest.raises(ValueError, match="1 outputs but 2 grad_outputs"):
            grad(y, x, [Tensor((2,)), Tensor((2,))])
        with pytest.raises(ValueError, match="non-scalar"):
            grad(y, x)
        with pytest.raises(ValueError, match="expected"):
            grad(y, x, Tensor((3,)))

    def test_works_under_no_grad(self):
        x = leaf([2.0])
        y = (x * x * x).sum()
        with keydnn.no_grad():
            (d,) = grad(y, x, create_graph=True)
        assert grad(d.sum(), x)[0].tolist() == [12.0]

    def test_upstream_gradients_are_differentiated_too(self):
        x, v = leaf([2.0, 3.0]), leaf([1.0, 10.0])
        (d,) = grad(x * x, x, v, create_graph=True)
        dv, dx = grad(d.sum(), [v, x])
        assert dv.tolist() == [4.0, 6.0] and dx.tolist() == [2.0, 20.0]

    def test_a_gradient_that_is_the_upstream_one(self):
        x, w, v = leaf([2.0]), leaf([2.0]), leaf([1.0])
        dx, dw = grad(x + w, [x, w], v, create_graph=True)
        assert dx is not dw and dx is not v
        assert grad((dx * dw).sum(), v)[0].tolist() == [2.0]


class TestHigherOrders:
    def test_to_the_fourth_order(self):
        x = leaf(0.7)
        y = x.sin()
        want = [np.cos(0.7), -np.sin(0.7), -np.cos(0.7), np.sin(0.7)]
        for value in want:
            (y,) = grad(y, x, create_graph=True)
            np.testing.assert_allclose(y.item(), value, rtol=1e-14)

    @pytest.mark.parametrize(
        "f", [Tensor.exp, Tensor.tanh, Tensor.sigmoid, lambda x: x**5, lambda x: x.softmax() * 3.0, lambda x: x / (x + 2.0)]
    )
    def test_third_order_of_vectors(self, f):
        check_gradient(f, leaf([0.3, 1.2]), order=3)

    @pytest.mark.parametrize("kind", ["batch", "layer"])
    def test_third_order_of_normalisation(self, kind):
        x = leaf(np.random.default_rng(0).normal(size=(4, 2)))
        f = (lambda x: ops.batch_norm(x, eps=0.1)[0]) if kind == "batch" else (lambda x: ops.layer_norm(x, (2,), eps=0.1))
        check_gradient(f, x, order=3, rtol=1e-4, atol=1e-6)

    def test_a_detached_factor_is_a_constant(self):
        x = leaf([3.0])
        for y in (x * x.detach(), x.detach() * x):
            (d,) = grad(y.sum(), x, create_graph=True)
            assert d.tolist() == [3.0] and grad(d.sum(), x, allow_unused=True) == (None,)
        (d,) = grad((x * x * x.detach()).sum(), x, create_graph=True)
        assert grad(d.sum(), x)[0].tolist() == [6.0]

    def test_scalars_keep_their_place_in_the_graph(self):
        """Kernels may answer with NumPy scalars for shape (); what is saved must still be the tensor of the graph."""
        x = leaf(0.5)
        for f in (Tensor.exp, Tensor.tanh, Tensor.sigmoid, Tensor.sqrt, Tensor.reciprocal, Tensor.rsqrt, Tensor.expm1, Tensor.norm):
            check_gradient(f, x, order=2)
        for f in (Tensor.softplus, Tensor.logsumexp, Tensor.relu, lambda x: x.max(None), lambda x: x.var() + x * x):
            check_gradient(f, x, order=2)

    def test_backward_through_a_gradient(self):
        x, w = leaf([0.5, 2.0]), leaf([1.0, -1.0])
        (g,) = grad(((x * w) ** 3).sum(), x, create_graph=True)
        (g * g).sum().backward()  # (3 w^3 x^2)^2
        np.testing.assert_allclose(x.grad.numpy(), 36 * x.numpy() ** 3 * w.numpy() ** 6)
        np.testing.assert_allclose(w.grad.numpy(), 54 * x.numpy() ** 4 * w.numpy() ** 5)


class TestHvp:
    def net(self):
        rng = np.random.default_rng(0)
        x, y = (Tensor(data=rng.normal(size=s)) for s in ((6, 3), (6, 2)))
        params = [leaf(rng.normal(size=s)) for s in ((4, 3), (4,), (2, 4), (2,))]
        vector = [Tensor(data=rng.normal(size=p.shape)) for p in params]

        def loss():
            return ops.mse(ops.linear(ops.linear(x, params[0], params[1]).tanh(), params[2], params[3]).tanh(), y)

        return loss, params, vector

    def test_of_a_two_layer_tanh_net_equals_differences(self):
        loss, params, vector = self.net()
        have = hvp(loss(), params, vector)
        eps, sides = 1e-5, []
        for sign in (1, -1):
            for p, v in zip(params, vector, strict=True):
                p.to_numpy()[...] += sign * eps * v.numpy()
            sides.append(grad(loss(), params))
            for p, v in zip(params, vector, strict=True):
                p.to_numpy()[...] -= sign * eps * v.numpy()
        for h, up, down in zip(have, *sides, strict=True):
            np.testing.assert_allclose(h.numpy(), (up.numpy() - down.numpy()) / (2 * eps), rtol=1e-6, atol=1e-9)

    def test_is_symmetric_and_linear(self):
        loss, params, v = self.net()
        w = [Tensor(data=np.random.default_rng(1).normal(size=p.shape)) for p in params]
        dot = lambda a, b: sum(float((x * y).sum()) for x, y in zip(a, b, strict=True))  # noqa: E731
        np.testing.assert_allclose(dot(hvp(loss(), params, v), w), dot(hvp(loss(), params, w), v), rtol=1e-10)
        np.testing.assert_allclose(dot(hvp(loss(), params, [a * 2.0 for a in v]), w), 2 * dot(hvp(loss(), params, v), w), rtol=1e-10)

    def test_of_a_quadratic_and_of_less(self):
        x, w = leaf([1.0, 2.0]), leaf([3.0])
        a = Tensor(data=np.array([[2.0, 1.0], [1.0, 4.0]]))
        (h,) = hvp((x @ a @ x) * 0.5, x, Tensor(data=np.array([1.0, -1.0])))
        assert h.tolist() == [1.0, -3.0]
        hx, hw = hvp((x * 2.0).sum() + 0.0, [x, w], [Tensor(data=np.ones(2)), Tensor(data=np.ones(1))])
        assert hx.tolist() == [0.0, 0.0] and hw.tolist() == [0.0] and hx.dtype == np.float64

    def test_leaves_grad_alone(self):
        x = leaf([1.0])
        hvp((x * x).sum(), x, Tensor(data=np.ones(1)))
        assert x.grad is None

    def test_refusals(self):
        x = leaf([1.0, 2.0])
        loss = (x * x).sum()
        with pytest.raises(ValueError, match="1 params but 2 vectors"):
            hvp(loss, x, [x, x])
        with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)"):
            hvp(loss, x, Tensor((3,)))
        with pytest.raises(ValueError, match="non-scalar"):
            hvp(x * x, x, x)
        with pytest.raises(RuntimeError, match="'cpu' and 'cuda:0'"):
            hvp(loss, x, Tensor((2,), "cuda:0"))


class Wrong(keydnn.Function):
    factor = 1.001

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0] * 2.0 * Wrong.factor


class TestGradcheck:
    def test_right_rules_pass(self):
        x, w = leaf([[0.5, 2.0]]), leaf([[1.0], [-1.0]])
        assert gradcheck(lambda x, w: (x @ w).tanh(), [x, w]) is True
        assert gradcheck(lambda x: x * 2.0, x) is True
        assert x.grad is None and x.tolist() == [[0.5, 2.0]]

    def test_wrong_rules_are_found(self):
        with pytest.raises(RuntimeError, match=r"gradcheck: input 0, element \(1,\): gradient .*, central difference .* \(1 of 2 elements"):
            gradcheck(Wrong.apply, leaf([0.0, 2.0]))
        assert gradcheck(Wrong.apply, leaf([0.0, 2.0]), rtol=1e-2)

    def test_a_gradient_cut_off_is_found(self):
        with pytest.raises(RuntimeError, match="gradient 0, central difference"):
            gradcheck(lambda x: x.detach() * 3.0, leaf([1.0]))
        with pytest.raises(RuntimeError, match="input 1"):
            gradcheck(lambda x, w: x * w.detach(), [leaf([1.0]), leaf([1.0])])

    def test_inputs_that_are_constants(self):
        assert gradcheck(lambda x, c: x * c, [leaf([1.0]), Tensor(data=np.array([3.0]))])
        with pytest.raises(ValueError, match="no input requires a gradient"):
            gradcheck(lambda x: x, Tensor((1,)))

    def test_float32_is_possible_and_others_refused(self):
        assert gradcheck(lambda x: x * x, leaf([0.5, 1.5], np.float32))
        half = Tensor((1,), dtype=np.float16, requires_grad=True)
        with pytest.raises(TypeError, match="float16"):
            gradcheck(lambda x: x * x, half)

    def test_the_input_itself_and_memory_with_gaps(self):
        assert gradcheck(lambda x: x, leaf([1.0, 2.0]))
        x = leaf([[1.0, 2.0], [3.0, 4.0]])
        x._data = x._data.T
        assert gradcheck(lambda x: x * x, x)

    def test_functions_that_take_a_gradient(self):
        assert gradcheck(lambda x: grad((x**3).sum(), x, create_graph=True)[0], leaf([0.5, 2.0]))

    def test_check_gradient_finds_a_wrong_second_derivative(self):
        class Half(keydnn.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x * x

            @staticmethod
            def backward(ctx, g):
                return g * ctx.saved_tensors[0].detach() * 2.0

        check_gradient(Half.apply, leaf([0.5, 2.0]))
        with pytest.raises(RuntimeError, match="gradcheck"):
            check_gradient(Half.apply, leaf([0.5, 2.0]), order=2)
