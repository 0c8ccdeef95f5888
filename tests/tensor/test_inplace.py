"""Writing in place: true for plain tensors, right or refused for tensors of a graph, guarded for leaves.

The rule that all of this serves: whatever was written in place, backward gives the gradient of what was computed, or
raises a RuntimeError that names the operation.
"""

import gc
import weakref

import numpy as np
import pytest

import keydnn
from keydnn import Parameter, Tensor, ops

ARITHMETIC = {
    "+=": (Tensor.__iadd__, lambda x, y: x + y),
    "-=": (Tensor.__isub__, lambda x, y: x - y),
    "*=": (Tensor.__imul__, lambda x, y: x * y),
    "/=": (Tensor.__itruediv__, lambda x, y: x / y),
}
OVERWRITES = {
    "fill": lambda t: t.fill(5.0),
    "copy_from_numpy": lambda t: t.copy_from_numpy(np.full(t.shape, 5.0)),
    "copy_from": lambda t: t.copy_from(Tensor.full(t.shape, 5.0)),
}
CHANGES = {
    **OVERWRITES,
    "setitem": lambda t: t.__setitem__(0, 5.0),
    "setitem-tensor": lambda t: t.__setitem__(slice(None), Tensor((1,))),
    **{name: lambda t, f=f: f(t, 2.0) for name, (f, _) in ARITHMETIC.items()},
    **{f"{name}-tensor": lambda t, f=f: f(t, Tensor.ones((1,))) for name, (f, _) in ARITHMETIC.items()},
}


def leaf(*values):
    return Tensor(data=list(values), requires_grad=True)


class TestPlain:
    @pytest.mark.parametrize("name", ARITHMETIC)
    @pytest.mark.parametrize(
        "other", [2.0, np.float64(2.0), Tensor(data=[2.0, 4.0]), Tensor(data=2.0), Tensor(data=[2.0, 4.0], dtype=np.float64)]
    )
    def test_same_object_same_memory(self, name, other):
        f, plain = ARITHMETIC[name]
        x = Tensor(data=[1.0, 3.0])
        live, want = x.to_numpy(), plain(x.numpy(), other if not isinstance(other, Tensor) else other.numpy())
        assert f(x, other) is x and x.to_numpy() is live
        assert live.dtype == np.float32 and not x.requires_grad and x._get_ctx() is None
        np.testing.assert_allclose(live, want)

    @pytest.mark.parametrize("name", ARITHMETIC)
    def test_with_itself(self, name):
        f, plain = ARITHMETIC[name]
        x = Tensor(data=[1.0, 3.0])
        f(x, x)
        np.testing.assert_allclose(x.numpy(), plain(np.array([1.0, 3.0]), np.array([1.0, 3.0])))

    @pytest.mark.parametrize("name", ARITHMETIC)
    def test_the_shape_never_grows(self, name):
        x = Tensor(data=[1.0, 3.0])
        for shape in ((2, 2), (3,), (1, 2)):
            with pytest.raises(ValueError, match="Shape mismatch"):
                ARITHMETIC[name][0](x, Tensor.ones(shape))
        assert x.tolist() == [1.0, 3.0]

    def test_views_of_plain_memory_follow(self):
        x = Tensor((2, 2))
        x.reshape(4).fill(3.0)
        x.detach()[0] = 7.0
        assert x.tolist() == [[7.0, 7.0], [3.0, 3.0]]

    @pytest.mark.parametrize("name", CHANGES)
    def test_under_no_grad_leaves_are_written(self, name):
        for x in (leaf(1.0, 2.0), Parameter((2,))):
            live = x.to_numpy()
            with keydnn.no_grad():
                CHANGES[name](x)
            assert x.to_numpy() is live and x.requires_grad and x._get_ctx() is None


class TestLeaves:
    @pytest.mark.parametrize("name", [name for name in CHANGES if name not in OVERWRITES])
    def test_arithmetic_is_refused_while_recording(self, name):
        x = leaf(1.0, 2.0)
        with pytest.raises(RuntimeError, match="leaf.*no_grad"):
            CHANGES[name](x)
        assert x.tolist() == [1.0, 2.0]

    @pytest.mark.parametrize("name", OVERWRITES)
    def test_new_contents_are_allowed(self, name):
        x = leaf(1.0, 2.0)
        OVERWRITES[name](x)
        (x * x).sum().backward()
        assert x.grad.tolist() == [10.0, 10.0]

    @pytest.mark.parametrize("name", OVERWRITES)
    @pytest.mark.parametrize("mode", [keydnn.enable_grad, keydnn.no_grad])
    def test_new_contents_after_a_use_that_needs_the_old(self, name, mode):
        x = leaf(1.0, 2.0)
        y = (x * x).sum()
        with mode():
            OVERWRITES[name](x)
        with pytest.raises(RuntimeError, match="mul: input 0 was changed in place"):
            y.backward()
        assert x.grad is None

    @pytest.mark.parametrize("name", OVERWRITES)
    def test_new_contents_after_a_use_that_does_not_need_the_old(self, name):
        x = leaf(1.0, 2.0)
        y, z = (x * 3.0).sum(), x.exp().sum()
        OVERWRITES[name](x)
        y.backward()
        assert x.grad.tolist() == [3.0, 3.0]
        z.backward()
        np.testing.assert_allclose(x.grad.numpy(), 3 + np.exp([1.0, 2.0]), rtol=1e-6)

    def test_an_optimizer_between_forward_and_backward_is_noticed(self):
        w = Parameter((2,), initializer="ones")
        y = (w * w).sum()
        ops.inplace.sgd_(w, Tensor((2,)), Tensor(data=np.array(0.1)), weight_decay=0.0)
        with pytest.raises(RuntimeError, match="changed in place"):
            y.backward()


class TestGraph:
    @pytest.mark.parametrize("name", ARITHMETIC)
    @pytest.mark.parametrize("with_graph", [False, True])
    def test_arithmetic_is_differentiated(self, name, with_graph):
        f, plain = ARITHMETIC[name]
        grads = []
        for in_place in (True, False):
            x, w = leaf(1.0, 2.0), Tensor(data=[3.0, 4.0], requires_grad=with_graph)
            y = x * 2.0
            if in_place:
                same = y
                y = f(y, w)
                assert y is same
            else:
                y = plain(y, w)
            (y * y).sum().backward()
            grads.append((x.grad.tolist(), w.grad.tolist() if with_graph else None, y.tolist(), y.grad.tolist()))
        assert grads[0] == grads[1]

    @pytest.mark.parametrize("name", ARITHMETIC)
    def test_a_plain_tensor_joins_the_graph(self, name):
        f, plain = ARITHMETIC[name]
        x, w = Tensor(data=[1.0, 2.0]), leaf(3.0, 4.0)
        f(x, w)
        assert x.requires_grad
        x.sum().backward()
        v = leaf(3.0, 4.0)
        plain(Tensor(data=[1.0, 2.0]), v).sum().backward()
        assert w.grad.tolist() == v.grad.tolist()

    def test_the_published_examples(self):
        x, b = leaf(1.0), leaf(1.0)
        y = 2 * x
        y *= 3
        y.sum().backward()
        assert x.grad.tolist() == [6.0]
        z = 2 * x
        z += b
        z.sum().backward()
        assert b.grad.tolist() == [1.0]

    @pytest.mark.parametrize("name", ARITHMETIC)
    def test_with_itself(self, name):
        f, plain = ARITHMETIC[name]
        x, v = leaf(3.0), leaf(3.0)
        y = x * 2.0
        f(y, y)
        y.sum().backward()
        z = v * 2.0
        plain(z, z).sum().backward()
        assert x.grad.tolist() == v.grad.tolist()

    def test_earlier_uses_keep_the_old_value(self):
        x = leaf(3.0)
        y = x * 2.0
        z = y * y
        y += 1.0
        (z + y).sum().backward()
        assert x.grad.tolist() == [2 * 6.0 * 2 + 2] and y.grad.tolist() == [1.0]

    def test_earlier_uses_of_a_plain_tensor_give_it_no_gradient(self):
        x, w = Tensor(data=[2.0]), leaf(3.0)
        z = x * w
        x += w
        z.sum().backward()
        assert x.grad is None and w.grad.tolist() == [2.0]

    def test_second_derivatives(self):
        x = leaf(3.0)
        y = x * 2.0
        z = (y * y * y).sum()  # 8 x^3
        y += 1.0
        y *= y
        (d,) = keydnn.grad(z, x, create_graph=True)
        assert d.tolist() == [216.0] and keydnn.grad(d.sum(), x)[0].tolist() == [144.0]
        y = x * 2.0
        y *= y
        (d,) = keydnn.grad((y * y).sum(), x, create_graph=True)  # 16 x^4
        assert d.tolist() == [64 * 27.0] and keydnn.grad(d.sum(), x)[0].tolist() == [192 * 9.0]

    def test_residual_blocks(self):
        grads = []
        for in_place in (True, False):
            x, w = leaf(0.5, -0.3), leaf(1.2, 0.7)
            h = x * 1.0
            for _ in range(3):
                step = (h * w).tanh()
                if in_place:
                    h += step
                else:
                    h = h + step
            h.sum().backward()
            grads.append((x.grad.tolist(), w.grad.tolist()))
        assert grads[0] == grads[1]

    def test_residual_blocks_make_no_cycles(self):
        gc.disable()
        try:
            x = leaf(0.5)
            h = x * 1.0
            for _ in range(3):
                h += (h * 2.0).tanh()
                h[0] = h[0] * 3.0
            alive = weakref.ref(h)
            del h
            assert alive() is None
        finally:
            gc.enable()

    def test_a_sum_over_many_steps_stays_linear(self):
        """total += loss(h) must not walk the whole history of h again at each step."""
        visits = []

        class Counted(keydnn.Context):
            @property
            def producers(self):
                visits.append(1)
                return super().producers

        x = leaf(0.5)
        h, total = x * 1.0, Tensor((1,))
        for _ in range(100):
            before = h
            h = Tensor(data=h.numpy(), requires_grad=True)
            h._set_ctx(Counted((before,), lambda g: (g,)))
            total += h * 2.0
        assert len(visits) <= 2 * 100
        total.sum().backward()
        assert x.grad.tolist() == [200.0]

    def test_an_integer_tensor_does_not_join(self):
        i = Tensor(data=[1], dtype=np.int64)
        with pytest.raises(TypeError):
            i += leaf(1.0)
        assert i.tolist() == [1] and not i.requires_grad

    def test_float32_stays_float32(self):
        x, w = leaf(1.0), Tensor(data=[2.0], dtype=np.float64, requires_grad=True)
        y = x * 1.0
        y *= w
        assert y.dtype == np.float32
        y.sum().backward()
        assert x.grad.dtype == np.float32 and w.grad.dtype == np.float64 and w.grad.tolist() == [1.0]

    def test_a_shape_that_does_not_fit_changes_nothing(self):
        x = leaf(1.0, 2.0)
        y = x * 1.0
        ctx = y._get_ctx()
        with pytest.raises(ValueError, match="Shape mismatch"):
            y += Tensor((3,))
        assert y._get_ctx() is ctx and y.tolist() == [1.0, 2.0]


class TestOverwritten:
    """fill and copy_from* are no operations: a gradient must not flow through what they replaced."""

    @pytest.mark.parametrize("name", OVERWRITES)
    def test_later_uses_are_refused(self, name):
        x = leaf(1.0, 2.0)
        y = x * 2.0
        OVERWRITES[name](y)
        assert y.tolist() == [5.0, 5.0]
        for out in (y.sum(), y):
            with pytest.raises(RuntimeError, match="mul: its result was overwritten"):
                out.backward(None if out.shape == () else Tensor.ones(out.shape))
        assert x.grad is None

    @pytest.mark.parametrize("name", OVERWRITES)
    def test_through_a_view_too(self, name):
        x = leaf(1.0, 2.0)
        y = x * 2.0
        OVERWRITES[name](y.reshape(2, 1))
        with pytest.raises(RuntimeError):
            y.sum().backward()
        y = x * 2.0
        v = y.reshape(2, 1)
        OVERWRITES[name](y)
        with pytest.raises(RuntimeError):
            v.sum().backward()

    @pytest.mark.parametrize("name", OVERWRITES)
    def test_a_result_that_its_own_gradient_needs(self, name):
        for mode in (keydnn.enable_grad, keydnn.no_grad):
            x = leaf(1.0, 2.0)
            y = x.exp()
            z = y.sum()
            with mode():
                OVERWRITES[name](y)
            with pytest.raises(RuntimeError, match="exp: its result was"):
                z.backward()

    def test_under_no_grad_the_caller_vouches(self):
        """As with a straight-through estimator: the value is replaced, the gradient is that of what stood there."""
        x = leaf(1.2)
        y = x * 2.0
        with keydnn.no_grad():
            y.copy_from(y.round())
        (y * 3.0).sum().backward()
        assert y.tolist() == [2.0] and x.grad.tolist() == [6.0]

    def test_a_context_by_hand_may_be_filled_afterwards(self):
        x = leaf(2.0)
        out = Tensor((1,), requires_grad=True, ctx=keydnn.Context((x,), lambda g: (g * 7.0,)))
        out.copy_from_numpy(np.array([14.0]))
        out.sum().backward()
        assert x.grad.tolist() == [7.0]

    def test_a_user_function(self):
        class Double(keydnn.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2.0

            @staticmethod
            def backward(ctx, g):
                return g * 2.0

        x = leaf(2.0)
        y = Double.apply(x)
        y.fill(0.0)
        with pytest.raises(RuntimeError, match="Double: its result was overwritten"):
            y.sum().backward()


class TestSetitem:
    def test_gradients_of_both_sides(self):
        x, v = leaf(1.0, 2.0, 3.0), leaf(10.0)
        y = x * 2.0
        y[1] = v
        (y * Tensor(data=[1.0, 5.0, 7.0])).sum().backward()
        assert x.grad.tolist() == [2.0, 0.0, 14.0] and v.grad.tolist() == [5.0]

    def test_of_repeated_places_the_last_value_counts(self):
        x, v = Tensor((3,)), leaf(1.0, 2.0, 3.0)
        x[[0, 2, 0]] = v
        assert x.tolist() == [3.0, 0.0, 2.0]
        x.sum().backward()
        assert v.grad.tolist() == [0.0, 1.0, 1.0]

    def test_one_value_for_many_places(self):
        x, v = Tensor((2, 3)), Tensor(data=2.0, requires_grad=True)
        x[:, [0, 0, 2]] = v
        x.sum().backward()
        assert v.grad.item() == 4.0

    def test_part_of_itself(self):
        x = Tensor(data=[1.0, 2.0, 3.0])
        x[1:] = x[:-1]
        assert x.tolist() == [1.0, 1.0, 2.0]
        y = leaf(1.0, 2.0, 3.0) * 1.0
        y[:] = y
        assert y.tolist() == [1.0, 2.0, 3.0]

    def test_masks_and_numbers(self):
        x = Tensor(data=[-1.0, 2.0, -3.0])
        x[x < 0] = 0.0
        x[Tensor(data=[1], dtype=np.int64)] = np.float64(9.0)
        assert x.tolist() == [0.0, 9.0, 0.0] and x.dtype == np.float32

    def test_the_value_may_change_afterwards(self):
        x, v = leaf(1.0, 2.0), leaf(5.0)
        y = x * 1.0
        y[0] = v
        v.fill(9.0)
        y.sum().backward()
        assert v.grad.tolist() == [1.0]

    def test_refused_values(self):
        x = Tensor((2,))
        for value in ([1.0], np.ones(1), "a", None):
            with pytest.raises(TypeError):
                x[0] = value


class TestVersions:
    def test_a_write_through_a_view_is_seen(self):
        x = leaf(1.0, 2.0)
        y = (x * x).sum()
        x.reshape(2, 1).detach().fill(5.0)
        with pytest.raises(RuntimeError, match="changed in place"):
            y.backward()

    def test_a_write_through_detach_is_seen(self):
        x = leaf(1.0, 2.0)
        d = x.detach()
        y = (x * x).sum()
        d += 1.0
        with pytest.raises(RuntimeError, match="changed in place"):
            y.backward()

    def test_a_write_before_the_use_is_fine(self):
        x = leaf(1.0, 2.0)
        x.detach().fill(3.0)
        (x * x).sum().backward()
        assert x.grad.tolist() == [6.0, 6.0]

    def test_a_constant_that_changed(self):
        x, c = leaf(1.0), Tensor(data=[2.0])
        y = (x * c).sum()
        c *= 5.0
        with pytest.raises(RuntimeError, match="mul: input 1 was changed in place"):
            y.backward()

    def test_memory_kept_from_before_an_in_place_operation(self):
        """y *= w leaves the old memory to the graph; a detached tensor can still write it."""
        x, w = leaf(2.0), leaf(3.0)
        y = x * 1.0
        d = y.detach()
        y *= w
        d.fill(100.0)
        with pytest.raises(RuntimeError, match="changed in place"):
            y.sum().backward()

    def test_memory_written_before_the_tensor_joined_the_graph(self):
        a, c = leaf(2.0), Tensor(data=[3.0])
        y = a * c
        c *= 0.5
        c *= a
        with pytest.raises(RuntimeError, match="mul: input 1 was changed in place"):
            y.sum().backward()

    def test_memory_written_after_the_tensor_joined_the_graph(self):
        a, c = leaf(2.0), Tensor(data=[3.0])
        d = c.detach()
        y = a * c
        c *= a
        d.fill(100.0)
        with pytest.raises(RuntimeError, match="mul: input 1 was changed in place"):
            y.sum().backward()

    def test_a_saved_result_seen_from_the_second_derivative(self):
        x = leaf(1.0)
        y = x.exp()
        (d,) = keydnn.grad(y.sum(), x, create_graph=True)
        with keydnn.no_grad():
            y.fill(0.0)
        with pytest.raises(RuntimeError, match="changed in place"):
            keydnn.grad(d.sum(), x)

    def test_a_saved_result_as_a_factor_of_the_upstream_gradient(self):
        x, v = leaf(1.0), leaf(2.0)
        y = x.exp()
        (d,) = keydnn.grad(y, x, v, create_graph=True)  # v e^x
        with keydnn.no_grad():
            y.fill(0.0)
        with pytest.raises(RuntimeError, match="changed in place"):
            keydnn.grad(d.sum(), v)

    def test_an_index_that_changes_afterwards(self):
        x, index = leaf(1.0, 2.0, 3.0), Tensor(data=[0, 0], dtype=np.int64)
        raw = np.array([0, 0])
        y = x[index].sum() + x[raw].sum()
        index += 2
        raw += 2
        y.backward()
        assert x.grad.tolist() == [4.0, 0.0, 0.0]

    def test_gradients_may_be_written(self):
        x = leaf(1.0)
        (x * 2.0).sum().backward()
        x.grad *= 0.5
        (x * 2.0).sum().backward()
        assert x.grad.tolist() == [3.0]
