"""Curvature of any model: against the analytic Hessian, dense differences, and on quadratics at the limits of every rule."""

import numpy as np
import pytest

import keydnn
from keydnn.stability import (
    AdamRule,
    AffineDataset,
    LinearBlockModel,
    MomentumRule,
    RMSPropRule,
    SGDRule,
    analytic_dense_hessian,
    ggn_vp,
    hessian_spectrum,
    hvp,
    lambda_max,
    preconditioned_lambda_max,
    stability_limit,
)
from keydnn.stability.curvature import lanczos, power
from keydnn.stability.products import Hessian

DATA = AffineDataset(30, seed=1)


def dense(operator):
    return np.array([operator(e) for e in np.eye(operator.size)]).T


def conv_net():
    net = keydnn.Sequential(keydnn.Conv2d(1, 2, 3), keydnn.Tanh(), keydnn.Flatten(), keydnn.Linear(8, 2))
    rng = np.random.default_rng(0)
    return net, rng.standard_normal((5, 1, 4, 4)), rng.standard_normal((5, 2))


def tanh_net():
    model = LinearBlockModel(DATA, num_hidden=[5], activation="tanh", seed=1)
    return model, *DATA.get()


def rnn_net():
    net = keydnn.Sequential(keydnn.RNN(2, 3, return_sequences=False, return_state=False), keydnn.Linear(3, 2))
    rng = np.random.default_rng(0)
    return net, rng.standard_normal((3, 4, 2)), rng.standard_normal((4, 2))


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("loss_mode", ["half_mse", "keras_mse"])
def test_one_dense_has_the_analytic_hessian(use_bias, loss_mode):
    model = LinearBlockModel(DATA, num_hidden=[], use_bias=use_bias, seed=0)
    H = analytic_dense_hessian(DATA.X, 2, use_bias, loss_mode == "keras_mse")
    values = np.linalg.eigvalsh(H)
    for mode in ("autograd", "fd"):
        v = np.random.default_rng(0).standard_normal(len(H))
        np.testing.assert_allclose(hvp(model, *DATA.get(), v, loss_mode=loss_mode, mode=mode), H @ v, rtol=1e-6, atol=1e-8)
    found = lambda_max(model, *DATA.get(), loss_mode=loss_mode, tol=1e-8)
    assert found.lambda_max == pytest.approx(values[-1], rel=1e-6)
    np.testing.assert_allclose(H @ found.vectors[0], found.lambda_max * found.vectors[0], atol=1e-6)
    assert lambda_max(model, *DATA.get(), method="power", loss_mode=loss_mode, tol=1e-7).lambda_max == pytest.approx(values[-1], rel=1e-6)


@pytest.mark.parametrize("make", [tanh_net, conv_net, rnn_net])
def test_any_net_agrees_with_a_dense_difference_hessian(make):
    model, X, Y = make()
    exact, difference = (dense(Hessian(model, X, Y, mode=mode)) for mode in ("autograd", "fd"))
    np.testing.assert_allclose(exact, difference, atol=1e-7)
    np.testing.assert_allclose(exact, exact.T, atol=1e-10)
    values = np.linalg.eigvalsh(exact)
    found = lambda_max(model, X, Y, k=2, tol=1e-8)
    np.testing.assert_allclose(found.values, values[:-3:-1], rtol=1e-6)
    assert found.lambda_min == pytest.approx(values[0], abs=0.05 * values[-1]) and found.spectral_norm == pytest.approx(
        max(abs(values)), rel=1e-6
    )


def test_parameters_stay_as_they_are():
    model, X, Y = tanh_net()
    before = [w.tobytes() for w in model.get_weights()]
    for mode in ("autograd", "fd"):
        hvp(model, X, Y, np.ones(42 - 5), mode=mode)
    assert [w.tobytes() for w in model.get_weights()] == before


def test_a_warm_start_needs_few_products():
    model, X, Y = tanh_net()
    cold = lambda_max(model, X, Y)
    assert lambda_max(model, X, Y, v0=cold.vectors[0]).products <= 2 < cold.products


def test_gauss_newton():
    model, X, Y = tanh_net()
    n = Hessian(model, X, Y).size
    G = np.array([ggn_vp(model, X, Y, e) for e in np.eye(n)])
    assert np.linalg.eigvalsh((G + G.T) / 2)[0] > -1e-12
    fitted = Hessian(model, X, Hessian(model, X, Y).output().numpy())  # without residual the two agree
    np.testing.assert_allclose(G, dense(fitted), atol=1e-12)


def test_quantised_curvature_is_that_of_the_straight_through_graph():
    model = LinearBlockModel(DATA, num_hidden=[], use_bias=False, seed=0)
    q = {"input": {"value": "ap_fixed<4,1,AP_RND,AP_SAT>"}}
    x = np.clip(np.floor(DATA.X * 8 + 0.5) / 8, -1, 7 / 8)
    found = lambda_max(model, *DATA.get(), precision=q, tol=1e-8).lambda_max
    assert found == pytest.approx(np.linalg.eigvalsh(x.T @ x / len(x))[-1], rel=1e-9)


def test_spectrum():
    model, X, Y = tanh_net()
    values = np.linalg.eigvalsh(dense(Hessian(model, X, Y)))
    s = hessian_spectrum(model, X, Y, probes=12, steps=15, seed=1)
    assert s.weights.sum() == pytest.approx(1) and abs(s.trace - values.sum()) < 4 * s.trace_error
    grid = np.linspace(values[0] - 1, values[-1] + 1, 2000)
    assert np.trapezoid(s.density(grid, 0.1), grid) == pytest.approx(1, abs=1e-3)


def test_solvers_on_matrices():
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((30, 30)))[0]
    A = Q * np.r_[-9.0, rng.uniform(-1, 1, 27), 4.0, 5.0] @ Q.T
    found = lanczos(A.__matmul__, 30, k=2, tol=1e-10)
    np.testing.assert_allclose(found.values, [5, 4], rtol=1e-9)
    assert found.lambda_min == pytest.approx(-9) and found.spectral_norm == pytest.approx(9)
    assert power(A.__matmul__, 30, tol=1e-8, max_iter=500).lambda_max == pytest.approx(-9)
    assert lanczos(np.zeros((3, 3)).__matmul__, 3).lambda_max == 0


def test_products_that_are_not_finite_give_nan():
    found = lanczos(lambda v: v * np.inf, 4, k=2)
    assert np.isnan(found.values).all() and found.vectors.shape == (2, 4) and np.isnan(found.lambda_min) and found.products == 1
    A = np.diag([3.0, 1.0, 0.5, 0.2])
    assert lanczos(A.__matmul__, 4, v0=found.vectors[0], tol=1e-9).lambda_max == pytest.approx(3)  # as a start it is none
    assert power(A.__matmul__, 4, v0=found.vectors[0], tol=1e-9).lambda_max == pytest.approx(3)
    assert np.isnan(power(lambda v: v * np.nan, 4).lambda_max)


def test_bad_arguments():
    model, X, Y = tanh_net()
    for call in (
        lambda: lambda_max(model, X, Y, method="qr"),
        lambda: lambda_max(model, X, Y, method="power", k=2),
        lambda: hvp(model, X, Y, np.ones(3)),
        lambda: Hessian(model, X, Y, loss_mode="mae"),
        lambda: Hessian(model, X, Y, mode="exact"),
        lambda: lambda_max(model, np.where(X == X.max(), np.nan, X), Y),
        lambda: Hessian(model, X, Y * np.inf),
    ):
        with pytest.raises(ValueError):
            call()
    for targets in (Y[:-1], Y[:, 0], Y[:, :1].repeat(5, 1)):  # broadcasting would find an answer to another question
        with pytest.raises(ValueError, match="network gives"):
            lambda_max(model, X, targets)


RULES = [
    SGDRule(learning_rate=0.1),
    MomentumRule(0.9, learning_rate=0.1),
    MomentumRule(0.9, nesterov=True, learning_rate=0.1),
    MomentumRule(0.5, nesterov=True, learning_rate=0.1),
    MomentumRule(0.9, ema=True, learning_rate=0.1),
]


def distance(rule, lam, steps=3000):
    """How far a quadratic of curvature lam ends from its minimum, from distance 1."""
    theta = np.ones(1)
    rule.reset()
    for _ in range(steps):
        theta = theta + rule.propose([lam * theta], [theta])[0]
        if not np.abs(theta).max() < 1e100:
            break
    return float(np.abs(theta).max())


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_one_percent_below_the_limit_converges_and_above_diverges(rule):
    limit = stability_limit(rule)
    assert distance(rule, 0.99 * limit) < 1e-3 and distance(rule, 1.01 * limit) > 1e3


@pytest.mark.parametrize("rule", [AdamRule(learning_rate=0.1), AdamRule(beta1=0.5, learning_rate=0.1)], ids=repr)
def test_adam_with_a_frozen_preconditioner(rule):
    for _ in range(5):
        rule.propose([np.array([0.3])], [np.zeros(1)])
    p, limit = rule.preconditioner()[0][0], stability_limit(rule)
    assert limit == pytest.approx(2 * (1 + rule.beta1) / (0.1 * (1 - rule.beta1)))
    for factor, expected in ((0.99, False), (1.01, True)):
        frozen, theta, m = rule.frozen(), 1.0, 0.0
        for _ in range(6000):  # the rule's own steps, with its m
            m = rule.beta1 * m + (1 - rule.beta1) * factor * limit * p * theta
            step = frozen.propose([np.array([factor * limit * p * theta])], [np.zeros(1)])[0][0]
            assert step == pytest.approx(-0.1 * m / p, rel=1e-9)
            theta += step
            if abs(theta) > 1e6 or abs(theta) + abs(m) < 1e-9:
                break
        assert bool(abs(theta) > 1e3) is expected


def test_limits_and_preconditioned_curvature():
    assert stability_limit(RMSPropRule(learning_rate=0.1)) == 20 and stability_limit(None, 0.5) == 4
    model = LinearBlockModel(DATA, num_hidden=[], use_bias=False, seed=0)
    P = np.linspace(0.5, 2.0, 8)
    H = analytic_dense_hessian(DATA.X, 2, False, False)
    expected = np.linalg.eigvals(H / P[:, None]).real.max()
    assert preconditioned_lambda_max(model, *DATA.get(), [P.reshape(2, 4)], tol=1e-9) == pytest.approx(expected, rel=1e-7)
    with pytest.raises(ValueError, match="no learning rate"):
        stability_limit(SGDRule())
    for bad in (
        lambda: MomentumRule(1.0),
        lambda: MomentumRule(0.5, nesterov=True, ema=True),
        lambda: AdamRule(beta1=1.0),
        lambda: SGDRule(-1),
    ):
        with pytest.raises(ValueError):
            bad()


def test_rules_are_those_of_the_engine():
    """SGD, momentum, Nesterov and Adam give the numbers of the engine's optimizers."""
    rng = np.random.default_rng(0)
    pairs = [
        (SGDRule(learning_rate=0.1), lambda p: keydnn.SGD(p, lr=0.1)),
        (MomentumRule(0.8, learning_rate=0.1), lambda p: keydnn.SGD(p, lr=0.1, momentum=0.8)),
        (MomentumRule(0.8, nesterov=True, learning_rate=0.1), lambda p: keydnn.SGD(p, lr=0.1, momentum=0.8, nesterov=True)),
        (AdamRule(learning_rate=0.1), lambda p: keydnn.Adam(p, lr=0.1)),
    ]
    for rule, make in pairs:
        theta = rng.standard_normal(4)
        p = keydnn.Parameter((4,), dtype="float64")
        p.copy_from_numpy(theta)
        optimizer = make([p])
        for _ in range(5):
            g = rng.standard_normal(4)
            p.grad = keydnn.Tensor(data=g)
            optimizer.step()
            theta = theta + rule.propose([g], [theta])[0]
        np.testing.assert_allclose(theta, p.numpy(), rtol=1e-9, err_msg=repr(rule))


def test_rules_in_a_run_and_their_state():
    rule = MomentumRule(0.5)
    model = LinearBlockModel(DATA, num_hidden=[], seed=0)
    h = model.train_instrumented(*DATA.get(), epochs=30, batch_size=30, learning_rate=1.0, update_rule=rule, shuffle=False)
    assert h["loss"][-1] < 1e-2 * h["loss"][0] and (h["stability_limit"] == 3.0).all()
    copy = MomentumRule(0.5, learning_rate=1.0)
    copy.load_state_dict(rule.state_dict())
    g = [np.ones((2, 4)), np.ones(2)]
    for a, b in zip(rule.propose(g, g), copy.propose(g, g), strict=True):
        np.testing.assert_array_equal(a, b)


def test_adam_whose_second_moment_underflows_shows_it_before_the_loss():
    """v below one quantum becomes 0 and the step 1/eps times too large; the metric is there at the first step."""
    coarse = {"dense0": {"adam_v": "ap_ufixed<8,2,AP_TRN,AP_SAT>"}}
    model = LinearBlockModel(DATA, num_hidden=[], seed=0)
    h = model.train_instrumented(*DATA.get(), epochs=6, batch_size=30, learning_rate=0.01, update_rule=AdamRule(), precision_dict=coarse)
    assert h["state_underflow_fraction_max"][0] > 0.9 and h["adam_denominator_min"][0] == 1e-8
    assert h["raw_update_norm"][0] > 1e3 and h["loss"][0] < 10 < h["loss"][1]
    model.reinitialize_weights()
    fine = model.train_instrumented(*DATA.get(), epochs=6, batch_size=30, learning_rate=0.01, update_rule=AdamRule())
    assert fine["loss"][-1] < fine["loss"][0] and fine["state_underflow_fraction_max"].max() == 0


def test_a_master_copy_collects_small_updates():
    coarse = {"dense0": {"weight": "ap_fixed<6,3,AP_RND,AP_SAT>", "bias": "ap_fixed<6,3,AP_RND,AP_SAT>"}}
    kept = {"dense0": coarse["dense0"] | {"master_weight": "fp32"}}
    runs = []
    for precision in (coarse, kept):
        model = LinearBlockModel(DATA, num_hidden=[], seed=0)
        runs.append(model.train_instrumented(*DATA.get(), epochs=150, batch_size=30, learning_rate=0.1, precision_dict=precision)["loss"])
    assert runs[1][-1] < 0.5 * runs[0][-1]


def test_the_margin_of_adam_is_that_of_its_preconditioned_hessian():
    data = AffineDataset(30, seed=1)
    model = LinearBlockModel(data, num_hidden=[], seed=0)
    rule, seen = AdamRule(), []
    h = model.train_instrumented(
        *data.get(), epochs=6, batch_size=30, learning_rate=0.01, update_rule=rule, hessian="lanczos",
        callbacks=[lambda step, row: seen.append(np.concatenate([p.reshape(-1) for p in rule.preconditioner()])) and False],
    )  # fmt: skip
    H = analytic_dense_hessian(data.X, 2, True, False)
    assert np.isnan(h["margin_to_limit"][0]) and h["stability_limit"][1] == pytest.approx(38 / 0.01)
    for step in range(1, 6):  # with the preconditioner that the step before has left
        expected = np.linalg.eigvals(H / seen[step - 1][:, None]).real.max() * 0.01 / 38
        assert h["margin_to_limit"][step] == pytest.approx(expected, rel=1e-2)
    plain = LinearBlockModel(data, num_hidden=[], seed=0)
    h = plain.train_instrumented(*data.get(), epochs=3, batch_size=30, learning_rate=0.1, update_rule=MomentumRule(0.5), hessian="lanczos")
    np.testing.assert_allclose(h["margin_to_limit"], np.linalg.eigvalsh(H)[-1] / 30.0, rtol=1e-2)
