"""``Tensor.backward``: seeds, write-back, accumulation, order, freeing, aliasing."""

import gc
import weakref

import numpy as np
import pytest

import keydnn
from keydnn import Parameter, Tensor


def leaf(*values, dtype=np.float32):
    return Tensor(data=np.array(values, dtype), requires_grad=True)


class TestSeed:
    def test_scalars_start_with_one(self):
        x = Tensor(data=3.0, requires_grad=True)
        (x * x).backward()
        assert x.grad.item() == 6.0 and x.grad.shape == ()

    def test_others_need_a_gradient(self):
        for shape in ((1,), (2, 3), (0,)):
            y = Tensor(shape, requires_grad=True) * 2
            with pytest.raises(
                ValueError, match=r"grad_out must be provided for non-scalar tensors.*" + str(shape).replace("(", r"\(")[:4]
            ):
                y.backward()

    def test_what_is_no_gradient(self):
        y = leaf(1.0, 2.0) * 2
        for wrong in (1.0, np.ones(2), [1.0, 1.0]):
            with pytest.raises(TypeError, match=r"Tensor of shape \(2,\).*" + type(wrong).__name__):
                y.backward(wrong)
        for shape in ((1,), (2, 1), ()):
            with pytest.raises(ValueError, match=r"expected \(2,\)"):
                y.backward(Tensor(shape))

    def test_the_dtype_of_the_seed_does_not_spread(self):
        x = leaf(1.0, 2.0)
        y = x * 2
        y.backward(Tensor.ones((2,), dtype=np.float64))
        assert x.grad.dtype == y.grad.dtype == np.float32

    def test_a_seed_with_a_graph_leaves_none(self):
        x, seed = leaf(1.0), leaf(3.0)
        (x * 2).backward(seed * 1.0)
        assert x.grad.tolist() == [6.0] and not x.grad.requires_grad and x.grad._get_ctx() is None and seed.grad is None

    def test_without_a_graph(self):
        x = Tensor(data=3.0, requires_grad=True)
        x.backward()
        assert x.grad.item() == 1.0
        x.backward()
        assert x.grad.item() == 2.0
        plain = Tensor(data=3.0)
        plain.backward()
        assert plain.grad is None
        v = leaf(1.0, 2.0)
        v.backward(Tensor(data=[5.0, 6.0]))
        assert v.grad.tolist() == [5.0, 6.0]


class TestWriteBack:
    def test_leaves_intermediates_and_root(self):
        x, c = leaf(1.0, 2.0), Tensor(data=[3.0, 3.0])
        y = x * c
        z = y + 1.0
        loss = z.sum()
        loss.backward()
        assert x.grad.tolist() == [3.0, 3.0] and c.grad is None
        assert y.grad.tolist() == z.grad.tolist() == [1.0, 1.0] and loss.grad.item() == 1.0
        for t in (x, y, z, loss):
            assert not t.grad.requires_grad and t.grad._get_ctx() is None and t.grad.shape == t.shape

    def test_what_does_not_reach_the_output_stays_none(self):
        x = leaf(1.0)
        side = x * 5.0
        (x * 2.0).sum().backward()
        assert side.grad is None and x.grad.tolist() == [2.0]

    def test_every_backward_adds(self):
        x = leaf(1.0, 2.0)
        y = x * x
        loss = y.sum()
        for n in range(1, 4):
            loss.backward()
            assert x.grad.tolist() == [2.0 * n, 4.0 * n] and y.grad.tolist() == [n, n] and loss.grad.item() == n

    def test_it_adds_into_the_same_object(self):
        x = leaf(1.0)
        (x * 2).sum().backward()
        first = x.grad
        (x * 3).sum().backward()
        assert x.grad is first and first.tolist() == [5.0]

    def test_parameters_get_plain_tensors(self):
        p = Parameter((2,), initializer="ones")
        y = p * p
        assert type(y) is Tensor
        y.sum().backward()
        assert type(p.grad) is Tensor and p.grad.tolist() == [2.0, 2.0]

    def test_intermediates_switched_off_get_none(self):
        x = leaf(1.0)
        y = x * 2
        losses = [(y * y).sum(), y.exp().sum()]
        y.requires_grad = False
        for loss in losses:
            loss.backward()
            assert y.grad is None

    def test_leaves_switched_off_after_use_get_none(self):
        x, w = leaf(1.0), leaf(2.0)
        loss = (x * w).sum()
        w.requires_grad = False
        loss.backward()
        assert w.grad is None and x.grad.tolist() == [2.0]

    def test_leaves_switched_on_again(self):
        w = leaf(2.0)
        w.requires_grad = False
        assert not (w * 2).requires_grad
        w.requires_grad = True
        (w * 2).sum().backward()
        assert w.grad.tolist() == [2.0]


def test_accumulate_by_hand():
    x, g = leaf(1.0), Tensor(data=[2.0])
    x._accumulate_grad_(g)
    x._accumulate_grad_(g)
    assert x.grad.tolist() == [4.0] and g.tolist() == [2.0]


class TestUses:
    @pytest.mark.parametrize(
        "f, want",
        [
            (lambda x: x * x, [6.0]),
            (lambda x: x + x, [2.0]),
            (lambda x: x - x, [0.0]),
            (lambda x: x / x, [0.0]),
            (lambda x: x.maximum(x), [1.0]),
            (lambda x: x * x.detach(), [3.0]),
            (lambda x: x.detach() * x, [3.0]),
            (lambda x: x * x * x, [27.0]),
            (lambda x: Tensor.concat([x, x, x]), [3.0]),
            (lambda x: Tensor.stack([x, x]), [2.0]),
            (lambda x: x[[0, 0, 0]], [3.0]),
            (lambda x: keydnn.einsum("i,i,i->", x, x, x), [27.0]),
            (lambda x: x.reshape(1, 1) @ x.reshape(1, 1), [6.0]),
            (lambda x: x**x, [27.0 * (1 + np.log(3.0))]),
        ],
    )
    def test_one_tensor_several_times(self, f, want):
        x = leaf(3.0)
        f(x).sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), np.float32(want), rtol=1e-6)

    def test_matrix_times_itself(self):
        a = np.arange(9.0).reshape(3, 3)
        x = Tensor(data=a, requires_grad=True)
        (x @ x).sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), np.ones((3, 3)) @ a.T + a.T @ np.ones((3, 3)))

    def test_diamonds_run_each_rule_once(self):
        calls = []

        class Count(keydnn.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 1.0

            @staticmethod
            def backward(ctx, g):
                calls.append(g.tolist())
                return g

        x = leaf(2.0)
        y = Count.apply(x)
        for _ in range(5):
            y = y + y
        y.sum().backward()
        assert calls == [[32.0]] and x.grad.tolist() == [32.0]

    def test_a_shared_part_below_two_outputs(self):
        x = leaf(2.0)
        shared = x * x
        a, b = shared * 3, shared * 5
        a.sum().backward()
        b.sum().backward()
        assert x.grad.tolist() == [32.0] and shared.grad.tolist() == [8.0]

    def test_unequal_paths(self):
        x = leaf(2.0)
        short, long = x * 1.0, x
        for _ in range(50):
            long = long * 1.0
        (short * long).sum().backward()
        assert x.grad.tolist() == [4.0]


class TestMemory:
    def gradients(self, *tensors):
        return [t.grad.to_numpy() for t in tensors]

    def apart(self, arrays):
        return not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])

    def test_gradients_share_nothing(self):
        a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
        c = a + b
        d = c.reshape(2, 1)
        e = d + 0.0
        f = e.flatten()
        seed = Tensor(data=[1.0, 1.0])
        f.backward(seed)
        arrays = self.gradients(a, b, c, d, e, f)
        assert self.apart([*arrays, seed.to_numpy()])
        for t in (a, b, c, d, e, f):
            t.grad.fill(9.0)
        assert seed.tolist() == [1.0, 1.0]

    def test_accumulation_into_one_leaves_the_others(self):
        a, b = leaf(1.0), leaf(1.0)
        c = a + b
        c.sum().backward()
        (a * 10.0).sum().backward()
        assert (a.grad.tolist(), b.grad.tolist(), c.grad.tolist()) == ([11.0], [1.0], [1.0])

    def test_a_gradient_as_the_next_seed(self):
        x, w = leaf(1.0), leaf(1.0)
        (x + w).backward(Tensor(data=[5.0]))
        (x + w).backward(x.grad)
        assert x.grad.tolist() == w.grad.tolist() == [10.0]

    def test_a_rule_that_returns_a_tensor_it_keeps(self):
        kept = Tensor(data=[3.0])
        x = leaf(1.0)
        y = Tensor((1,), requires_grad=True, ctx=keydnn.Context((x,), lambda g: (kept,)))
        for n in range(1, 4):
            y.backward(Tensor(data=[1.0]))
            assert x.grad.tolist() == [3.0 * n] and kept.tolist() == [3.0]

    def test_a_rule_that_returns_its_own_input_or_gradient(self):
        x = leaf(2.0)
        x.grad = Tensor(data=[10.0])
        w = leaf(1.0)
        y = Tensor((1,), requires_grad=True, ctx=keydnn.Context((x, w), lambda g: (x, x.grad)))
        y.backward(Tensor(data=[1.0]))
        assert x.tolist() == [2.0] and x.grad.tolist() == [12.0] and w.grad.tolist() == [10.0]
        w.grad.fill(0.0)
        assert x.grad.tolist() == [12.0]

    def test_results_of_grad_share_nothing(self):
        a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
        seed = Tensor(data=[1.0, 1.0])
        da, db = keydnn.grad(a + b.reshape(2), [a, b], seed)
        assert da is not db and self.apart([da.to_numpy(), db.to_numpy(), seed.to_numpy()])


class TestFreedGraph:
    def test_backward_once(self):
        x = leaf(2.0)
        y = (x * x).exp()
        y.sum().backward(retain_graph=False)
        want = x.grad.tolist()
        with pytest.raises(RuntimeError, match="freed by backward.retain_graph=False.; run the forward pass again"):
            y.sum().backward()
        with pytest.raises(RuntimeError, match="freed"):
            y.backward(Tensor.ones((1,)))
        assert x.grad.tolist() == want

    def test_it_keeps_values_and_gradients_and_frees_what_was_saved(self):
        x = leaf(2.0)
        y = x * 2
        big = y * Tensor.ones((1,))
        held = weakref.ref(big)
        z = big * big
        del big
        z.sum().backward(retain_graph=False)
        assert y.grad is not None and z.tolist() == [16.0] and held() is not None  # z's context still names its parents
        assert z._get_ctx().saved_tensors == []

    def test_through_a_users_function(self):
        class Square(keydnn.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x * x

            @staticmethod
            def backward(ctx, g):
                return g * ctx.saved_tensors[0] * 2.0

        x = leaf(3.0)
        inner = x * 1.0
        loss = (Square.apply(inner) * 2.0).sum()
        loss.backward(retain_graph=False)
        assert x.grad.tolist() == [12.0]
        with pytest.raises(RuntimeError, match="freed"):
            loss.backward()
        with pytest.raises(RuntimeError, match="freed"):
            inner.sum().backward()


class TestLongGraphs:
    def test_ten_thousand_additions_differentiate(self):
        x = Tensor(data=1.0, requires_grad=True)
        y = x
        for _ in range(10_000):
            y = y + x
        y.backward()
        assert x.grad.item() == 10_001.0

    @pytest.mark.slow
    def test_a_hundred_thousand_are_freed_without_the_collector(self):
        gc.collect()
        gc.disable()
        try:
            x = Tensor(data=1.0, requires_grad=True)
            y = x + 1.0
            first = weakref.ref(y)
            for _ in range(100_000):
                y = y + 1.0
            assert first() is not None
            del y
            assert first() is None
        finally:
            gc.enable()

    @pytest.mark.slow
    def test_long_chains_in_place(self):
        gc.collect()
        gc.disable()
        try:
            x = Tensor(data=1.0, requires_grad=True)
            y = x * 1.0
            for _ in range(20_000):
                y += x
            y.backward()
            assert x.grad.item() == 20_001.0
            first = weakref.ref(y._past)
            del y
            assert first() is None
        finally:
            gc.enable()

    def test_second_order_through_a_long_chain(self):
        x = Tensor(data=0.5, requires_grad=True)
        y = x
        for _ in range(2_000):
            y = y * 1.0001
        (d,) = keydnn.grad(y * y, x, create_graph=True)
        (h,) = keydnn.grad(d, x)
        np.testing.assert_allclose(h.item(), 2 * 1.0001**4000, rtol=1e-2)

    @pytest.mark.parametrize("order", [1, 2])
    def test_a_graph_is_freed_when_its_output_is_dropped(self, order):
        gc.collect()
        gc.disable()
        try:
            x = Tensor(data=np.random.default_rng(0).normal(size=(1, 1, 4, 4)), requires_grad=True)
            h = keydnn.ops.maxpool2d(x.tanh(), (2, 2)).reshape(4).softmax()
            alive = [weakref.ref(h)]
            loss = (h * h).exp().sum()
            alive.append(weakref.ref(loss))
            if order == 1:
                loss.backward()
            else:
                (d,) = keydnn.grad(loss, x, create_graph=True)
                (d * d).sum().backward()
                alive.append(weakref.ref(d))
                del d
            x.zero_grad()
            del h, loss
            assert [ref() for ref in alive] == [None] * len(alive)
        finally:
            gc.enable()


def test_profile_prints_sections_and_operations(capsys):
    x = leaf(1.0, 2.0)
    y = (x * x).exp()
    marked = Tensor((2,), requires_grad=True, ctx=keydnn.Context((y,), lambda g: (g,)))
    marked._get_ctx().op_name = "my operation"
    (marked + 1.0).backward(Tensor.ones((2,)), profile=True)
    text = capsys.readouterr().out
    for part in ("backward profile", "gradient rules", "graph walk", "write-back", "us/call", "mul", "exp", "add", "my operation"):
        assert part in text
    (x * x).exp().sum().backward(profile=True, profile_topk=1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert "_scalar" not in text and "_p " not in text


def test_backward_works_under_no_grad_and_records_nothing():
    x = leaf(2.0)
    y = (x * x).sum()
    with keydnn.no_grad():
        y.backward()
        assert not keydnn.is_grad_enabled()
    assert x.grad.tolist() == [4.0]
    y.backward()
    assert keydnn.is_grad_enabled()


def test_an_error_in_a_rule_leaves_the_mode_and_the_gradients_alone():
    x = leaf(2.0)

    def fail(g):
        raise KeyError("mine")

    y = Tensor((1,), requires_grad=True, ctx=keydnn.Context((x,), fail))
    with pytest.raises(KeyError, match="mine"):
        (y * 2).backward(Tensor.ones((1,)))
    assert keydnn.is_grad_enabled() and x.grad is None and y.grad is None
