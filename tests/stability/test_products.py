"""What a Hessian-vector product costs, counted in the plans that run it, and that plans have the bits of eager products."""

import numpy as np
import pytest

import keydnn
from keydnn import nn
from keydnn.compiler.step import usable
from keydnn.stability import AffineDataset, LinearBlockModel
from keydnn.stability.products import Hessian

needs_plans = pytest.mark.skipif(not usable(), reason="plans need the native kernels")
RNG = np.random.default_rng(0)
LAST = {"return_sequences": False, "return_state": False}


def normal(*shape):
    return RNG.standard_normal(shape)


def sequence(layer, steps, gates_size=8, **how):
    net = keydnn.Sequential(layer(4, gates_size, **LAST, **how), keydnn.Linear(gates_size, 2))
    return net, normal(steps, 6, 4), normal(6, 2)


NETS = {
    "one dense": lambda: (keydnn.Sequential(keydnn.Linear(4, 2)), normal(100, 4), normal(100, 2)),
    "tanh": lambda: (
        keydnn.Sequential(keydnn.Linear(4, 32), keydnn.Tanh(), keydnn.Linear(32, 32), keydnn.Tanh(), keydnn.Linear(32, 2)),
        normal(64, 4),
        normal(64, 2),
    ),
    "conv": lambda: (
        keydnn.Sequential(keydnn.Conv2d(2, 4, 3), nn.Tanh(), keydnn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten(), keydnn.Linear(64, 2)),
        normal(6, 2, 8, 8),
        normal(6, 2),
    ),
    "rnn 3": lambda: sequence(nn.RNN, 3),
    "rnn 32": lambda: sequence(nn.RNN, 32),
    "lstm 3": lambda: sequence(nn.LSTM, 3),
    "lstm 32": lambda: sequence(nn.LSTM, 32),
    "gru 32": lambda: sequence(nn.GRU, 32),
}


def work(plan):
    """Multiply-adds of the products in a plan, and numbers that its operations write."""
    products = written = 0
    for row in plan.rows:
        shapes = [None if view is None else view.shape for view in row.places]
        kind = row.entry.split(":")[0]
        products += int(COUNTS.get(kind, lambda s: 0)(shapes))
        written += sum(int(np.prod(s)) for s in shapes[row.n_read :] if s is not None)
    return products, written


def of_gemm(shapes):
    a, b, c = np.prod(shapes[0]), np.prod(shapes[1]), np.prod(shapes[-1])
    return round(float(a * b * c) ** 0.5)  # (m k)(k n)(m n) = (m n k)^2


def of_conv(shapes):
    images = [s for s in shapes if s is not None and len(s) == 4]
    kernel = next(s for s in images if s[2:] == (3, 3))
    return np.prod(kernel) * min(s[0] * s[2] * s[3] for s in images if s != kernel)  # what a kernel makes is the smaller picture


def of_recurrent(results):
    """The product of the states and, in a gradient, that of the weights, where it is wanted."""

    def count(shapes):
        states, weights = (shapes[i] for i in results[:2])
        return np.prod(states[:2]) * np.prod(weights) * (1 if len(results) == 2 else 1 + (shapes[results[2]] is not None))

    return count


COUNTS = {
    "gemm": of_gemm, "conv2d": of_conv, "conv2d_grad_x": of_conv, "conv2d_grad_w": of_conv,
    "rnn": of_recurrent([0, 1]), "lstm": of_recurrent([0, 1]), "gru": of_recurrent([0, 1]),
    "rnn_grad": of_recurrent([2, 3, 7]), "lstm_grad": of_recurrent([3, 6, 10]), "gru_grad": of_recurrent([2, 4, 8]),
}  # fmt: skip


def planned(operator):
    """Plans of a product and of a gradient."""
    for _ in range(4):
        operator(np.ones(operator.size))
        operator.gradient()
    return (operator._differences if operator.mode == "fd" else operator._seconds).plan, operator._gradients.plan


@needs_plans
@pytest.mark.parametrize("name", NETS)
def test_a_product_costs_at_most_two_and_a_half_gradients(name):
    plans = planned(Hessian(*NETS[name]()))
    (products, written), (base, base_written) = map(work, plans)
    assert base > 0 and products <= 2.5 * base and len(plans[0].rows) <= 2.5 * len(plans[1].rows)


@needs_plans
def test_the_forward_pass_is_not_repeated():
    operator = Hessian(*NETS["tanh"]())
    planned(operator)
    text = operator.plan_report()
    before, again = text[text.index("product") :].split("at every call")
    assert before.count("tanh\n") == 2 and "tanh\n" not in again  # 2 layers; what is left are their derivatives


@needs_plans
@pytest.mark.parametrize("mode", ["autograd", "fd"])
@pytest.mark.parametrize("name", ["tanh", "conv", "rnn 3", "lstm 3", "gru 32"])
def test_plans_have_the_bits_of_eager_products(name, mode):
    net, X, Y = NETS[name]()
    operator, v = Hessian(net, X, Y, mode=mode), normal(sum(p.numel() for p in net.parameters()))
    eager, eager_gradient = operator(v), operator.gradient()
    assert "eager" in operator.plan_report()
    for plan in planned(operator):
        assert plan is not None
    np.testing.assert_array_equal(operator(v), eager)
    np.testing.assert_array_equal(operator.gradient(), eager_gradient)
    assert not operator(np.zeros_like(v)).any()
    if mode == "autograd":
        np.testing.assert_allclose(eager, Hessian(net, X, Y, mode="fd")(v), rtol=1e-6, atol=1e-6)


@needs_plans
@pytest.mark.parametrize("mode", ["autograd", "fd"])
def test_a_plan_moves_with_the_parameters(mode):
    net, X, Y = NETS["tanh"]()
    operator, v = Hessian(net, X, Y, mode=mode), normal(sum(p.numel() for p in net.parameters()))
    planned(operator)
    before = operator(v)
    for p in net.parameters():
        p.copy_from_numpy(p.numpy() * 1.5)
    operator.move(net, X[::-1], Y)
    np.testing.assert_array_equal(operator(v), Hessian(net, X[::-1], Y, mode=mode)(v))
    assert np.abs(operator(v) - before).max() > 1e-3
    kept = operator(v)
    with pytest.raises(ValueError, match="expected shapes"):
        operator.move(net, X[:3], Y[:3])
    np.testing.assert_array_equal(operator(v), kept)


def test_a_failed_difference_leaves_the_parameters():
    net, X, Y = NETS["one dense"]()
    calls = []

    def loss(prediction, target):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("no")
        return ((prediction - target) * (prediction - target)).mean()

    operator = Hessian(net, X, Y, loss_mode=loss, mode="fd")
    with pytest.raises(RuntimeError, match="no"):
        operator(np.ones(operator.size))
    np.testing.assert_array_equal(operator.theta.numpy(), np.concatenate([p.numpy().reshape(-1) for p in net.parameters()]))


def test_what_draws_random_numbers_stays_eager():
    net = keydnn.Sequential(keydnn.Linear(4, 8), keydnn.Dropout(0.5), keydnn.Linear(8, 2))
    operator = Hessian(net, normal(20, 4), normal(20, 2))
    found = [operator(np.ones(operator.size)) for _ in range(4)]
    np.testing.assert_array_equal(found, found[:1] * 4)  # one mask for all
    assert "eager" in operator.plan_report()


def test_the_loop_keeps_its_operator():
    """Estimates with one operator for all steps are those of a new one at each step."""
    data = AffineDataset(30, seed=1)
    seen = []

    def look(step, row):
        seen.append([w.astype(np.float64) for w in model.get_weights()])

    model = LinearBlockModel(data, num_hidden=[5], activation="tanh", seed=1)
    start = model.get_weights()
    h = model.train_instrumented(*data.get(), epochs=8, batch_size=30, learning_rate=0.3, hessian="lanczos", callbacks=[look])
    for weights, value in zip([start, *seen], h["hessian_lambda_max"], strict=False):
        model.set_weights(weights)
        operator = Hessian(model, data.X.astype(np.float32), data.Y.astype(np.float32))
        exact = np.linalg.eigvalsh([operator(e) for e in np.eye(operator.size)])[-1]
        assert value == pytest.approx(exact, rel=2e-3)
