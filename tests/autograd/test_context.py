"""Contexts by hand and user Functions: the extension points."""

import gc
import weakref

import numpy as np
import pytest

import keydnn
from keydnn import Context, Function, Tensor
from keydnn.testing.gradient import check_gradient


def leaf(*values, dtype=np.float32):
    return Tensor(data=np.array(values, dtype), requires_grad=True)


def made_by(ctx, *values):
    out = Tensor(data=list(values), requires_grad=True)
    out._set_ctx(ctx)
    return out


class TestContext:
    def test_fields(self):
        p = (Tensor((1,)),)
        f = lambda g: (g,)  # noqa: E731
        for ctx in (Context(p, f), Context(parents=p, backward_fn=f)):
            assert ctx.parents is p and ctx.backward_fn is f and ctx.saved_tensors == [] and ctx.saved_meta == {}
        a, b = Tensor((1,)), Tensor((2,))
        ctx.save_for_backward(a)
        ctx.save_for_backward(b, a)
        assert [t is u for t, u in zip(ctx.saved_tensors, (a, b, a), strict=True)] == [True] * 3
        ctx.saved_meta["k"] = 1
        assert Context(p).saved_meta == {} and Context(p).saved_tensors == []

    def test_a_rule_by_hand(self):
        x, w = leaf(2.0), leaf(3.0)
        ctx = Context(parents=[x, w], backward_fn=lambda g: (g * ctx.saved_tensors[1], g * ctx.saved_tensors[0]))
        ctx.save_for_backward(x, w)
        y = made_by(ctx, 6.0)
        assert y._get_ctx() is ctx
        (y * 2.0).sum().backward()
        assert (x.grad.tolist(), w.grad.tolist(), y.grad.tolist()) == ([6.0], [4.0], [2.0])

    def test_the_rule_may_come_later(self):
        x = leaf(2.0)
        ctx = Context((x,))
        y = made_by(ctx, 4.0)
        with pytest.raises(RuntimeError, match="no backward_fn"):
            y.sum().backward()
        ctx.backward_fn = lambda g: [g * 5.0]
        y.sum().backward()
        assert x.grad.tolist() == [5.0]

    def test_none_for_parents_without_gradient(self):
        x, w = leaf(2.0), Tensor((1,))
        made_by(Context((x, w), lambda g: (g, None)), 1.0).backward(Tensor.ones((1,)))
        assert x.grad.tolist() == [1.0] and w.grad is None
        made_by(Context((x, w), lambda g: (None, None)), 1.0).backward(Tensor.ones((1,)))
        assert x.grad.tolist() == [1.0]

    @pytest.mark.parametrize(
        "returned, kind, text",
        [
            (lambda g: (g,), RuntimeError, "1 gradients for 2 parents"),
            (lambda g: (g, g, g), RuntimeError, "3 gradients for 2 parents"),
            (lambda g: g, RuntimeError, "1 gradients for 2 parents"),
            (lambda g: (g.numpy(), g), TypeError, "gradient 0 must be a Tensor or None, got ndarray"),
            (lambda g: (g, 1.0), TypeError, "gradient 1 .* float"),
            (lambda g: (g, g.reshape(1, 1)), ValueError, r"gradient 1 has shape \(1, 1\), expected \(1,\)"),
            (lambda g: (Tensor((1,), "cuda:0"), g), ValueError, "gradient 0 is on 'cuda:0', expected 'cpu'"),
        ],
    )
    def test_what_a_rule_must_return(self, returned, kind, text):
        a, b = leaf(1.0), leaf(2.0)
        ctx = Context((a, b), returned)
        ctx.op_name = "mine"
        with pytest.raises(kind, match=f"mine: .*{text}"):
            made_by(ctx, 3.0).backward(Tensor.ones((1,)))
        assert a.grad is None and b.grad is None

    def test_gradients_get_the_dtype_of_their_tensor(self):
        x = leaf(2.0)
        made_by(Context((x,), lambda g: (Tensor(data=np.array([3.0])),)), 1.0).backward(Tensor.ones((1,)))
        assert x.grad.dtype == np.float32 and x.grad.tolist() == [3.0]

    def test_set_and_get(self):
        x = leaf(1.0)
        y = x * 2
        ctx = y._get_ctx()
        assert ctx is y._get_ctx() and tuple(ctx.parents) == (x,) and ctx.backward_fn(Tensor.ones((1,)))[0].tolist() == [2.0]
        y._set_ctx(None)
        assert y._get_ctx() is None and y.requires_grad
        y.backward(Tensor.ones((1,)))
        assert x.grad is None and y.grad.tolist() == [1.0]
        marker = object()
        y._set_ctx(marker)
        assert y._get_ctx() is marker

    def test_the_view_of_an_operation(self):
        x, w = leaf(2.0), leaf(5.0)
        ctx = (x * w)._get_ctx()
        assert [t.tolist() for t in ctx.saved_tensors] == [[2.0], [5.0]] and ctx.saved_meta == {} and ctx.name == "mul"
        assert [g.tolist() for g in ctx.backward_fn(Tensor.ones((1,)))] == [[5.0], [2.0]]
        for frozen in (x * Tensor((1,)), x + Tensor((1,))):
            assert frozen._get_ctx().backward_fn(Tensor.ones((1,)))[1] is None

    def test_parents_replaced_in_place_afterwards(self):
        """The context differentiates what the parent was when it was attached."""
        x = leaf(2.0)
        y = x * 3.0
        out = made_by(Context((y,), lambda g: (g * 10.0,)), 0.0)
        y *= 7.0
        out.backward(Tensor.ones((1,)))
        assert x.grad.tolist() == [30.0]

    def test_a_saved_tensor_that_joined_another_graph(self):
        x, w = leaf(2.0), leaf(3.0)
        c = Tensor(data=[5.0])
        ctx = Context((x,), lambda g: (g * ctx.saved_tensors[0],))
        ctx.save_for_backward(c)
        y = made_by(ctx, 10.0)
        c += w
        with pytest.raises(RuntimeError, match="a saved tensor was changed in place"):
            y.backward(Tensor.ones((1,)))

    def test_a_saved_tensor_that_changed(self):
        x = leaf(2.0)
        ctx = Context((x,), lambda g: (g * ctx.saved_tensors[0],))
        ctx.save_for_backward(x)
        ctx.op_name = "mine"
        y = made_by(ctx, 4.0)
        x.fill(100.0)
        with pytest.raises(RuntimeError, match="mine: a saved tensor was changed in place"):
            y.backward(Tensor.ones((1,)))


class Exp(Function):
    @staticmethod
    def forward(ctx, x):
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, grad_out):
        (y,) = ctx.saved_tensors
        return grad_out * y


class Affine(Function):
    @staticmethod
    def forward(ctx, x, w, scale, *, shift=0.0):
        ctx.save_for_backward(x, w)
        ctx.saved_meta["scale"] = scale
        return x * w * scale + shift

    @staticmethod
    def backward(ctx, grad_out):
        x, w = ctx.saved_tensors
        scale = ctx.saved_meta["scale"]
        return grad_out * w * scale, grad_out * x * scale


class TestFunction:
    def test_apply(self):
        x, w = leaf(2.0), leaf(3.0)
        y = Affine.apply(x, w, 10.0, shift=1.0)
        assert y.tolist() == [61.0] and y.requires_grad and tuple(y._get_ctx().parents) == (x, w)
        y.sum().backward()
        assert x.grad.tolist() == [30.0] and w.grad.tolist() == [20.0]

    def test_forward_records_nothing_of_its_own(self):
        x = leaf(2.0)
        assert type(Exp.apply(x)._get_ctx()) is Context

    def test_context_only_where_a_gradient_is_wanted(self):
        assert Exp.apply(Tensor((1,)))._get_ctx() is None and not Exp.apply(Tensor((1,))).requires_grad
        with keydnn.no_grad():
            assert Exp.apply(leaf(1.0))._get_ctx() is None

    def test_gradients_of_every_order(self):
        x = Tensor(data=np.array([0.5, -1.0]), requires_grad=True)
        w = Tensor(data=np.array([1.5, 2.0]), requires_grad=True)
        check_gradient(Exp.apply, x, order=3)
        check_gradient(lambda x: Exp.apply(Exp.apply(x) * 0.1), x, order=2)
        check_gradient(lambda x, w: Affine.apply(x, w, 2.0, shift=1.0), [x, w], order=2)

    @pytest.mark.slow
    def test_a_saved_output_makes_no_cycle(self):
        gc.collect()
        gc.disable()
        try:
            x = leaf(1.0)
            y = Exp.apply(x)
            y.sum().backward()
            keydnn.grad(y.sum(), x, create_graph=True)
            alive = [weakref.ref(y), weakref.ref(y._get_ctx())]
            del y
            assert [ref() for ref in alive] == [None, None]
        finally:
            gc.enable()

    def test_the_output_keeps_its_gradient_beside_a_second_derivative(self):
        for together in (lambda y, d: y * 1.0 + d * 1.0, lambda y, d: d * 1.0 + y * 1.0):
            x = leaf(0.0)
            y = Exp.apply(x)
            (d,) = keydnn.grad(y.sum(), x, create_graph=True)
            together(y, d).sum().backward()
            assert y.grad.tolist() == [2.0] and x.grad.tolist() == [2.0]

    @pytest.mark.slow
    def test_an_output_saved_after_it_was_attached_makes_no_cycle(self):
        gc.collect()
        gc.disable()
        try:
            x = leaf(1.0)
            ctx = Context((x,), lambda g: (g,))
            y = made_by(ctx, 2.0)
            ctx.save_for_backward(y)
            assert ctx.saved_tensors[0].tolist() == [2.0]
            alive = weakref.ref(y)
            del y
            assert alive() is None
        finally:
            gc.enable()

    def test_a_saved_output_that_changed(self):
        x = leaf(1.0)
        y = Exp.apply(x)
        z = y.sum()
        with keydnn.no_grad():
            y *= 3.0
        with pytest.raises(RuntimeError, match="Exp: a saved tensor was changed in place"):
            z.backward()

    def test_the_input_handed_through(self):
        class Identity(Function):
            @staticmethod
            def forward(ctx, x):
                return x

            @staticmethod
            def backward(ctx, g):
                return g * 100.0

        x = leaf(1.0)
        y = Identity.apply(x)
        assert y is not x and x._get_ctx() is None
        y.sum().backward()
        assert x.grad.tolist() == [100.0]
        z = x * x
        Identity.apply(x).detach().fill(9.0)
        with pytest.raises(RuntimeError, match="changed in place"):
            z.sum().backward()

    def test_a_parameter_handed_through(self):
        weight = leaf(5.0)

        class Constant(Function):
            @staticmethod
            def forward(ctx, x):
                return weight

            @staticmethod
            def backward(ctx, g):
                return g * 0.0

        assert Constant.apply(leaf(1.0)) is not weight and weight._get_ctx() is None

    @pytest.mark.parametrize("value", [None, 1.0, np.ones(1), (Tensor((1,)),)])
    def test_forward_returns_one_tensor(self, value):
        class Wrong(Function):
            @staticmethod
            def forward(ctx, x):
                return value

            @staticmethod
            def backward(ctx, g):
                return g

        with pytest.raises(TypeError, match=f"Wrong.forward must return one Tensor, got {type(value).__name__}"):
            Wrong.apply(leaf(1.0))

    def test_the_base_class_is_abstract(self):
        with pytest.raises(NotImplementedError):
            Function.apply(leaf(1.0))

    def test_errors_name_the_function(self):
        class Wrong(Function):
            @staticmethod
            def forward(ctx, x, y):
                return x + y

            @staticmethod
            def backward(ctx, g):
                return g

        with pytest.raises(RuntimeError, match="Wrong: backward returned 1 gradients for 2 parents"):
            Wrong.apply(leaf(1.0), leaf(2.0)).sum().backward()

    def test_the_same_input_twice(self):
        x = leaf(3.0)
        Affine.apply(x, x, 1.0).sum().backward()
        assert x.grad.tolist() == [6.0]

    def test_rules_see_the_grad_mode_of_the_pass(self):
        seen = []

        class Watch(Function):
            @staticmethod
            def forward(ctx, x):
                seen.append(keydnn.is_grad_enabled())
                return x * 1.0

            @staticmethod
            def backward(ctx, g):
                seen.append(keydnn.is_grad_enabled())
                return g * 1.0

        x = leaf(1.0)
        y = Watch.apply(x).sum()
        y.backward()
        keydnn.grad(y, x, create_graph=True)
        assert seen == [False, False, True]
