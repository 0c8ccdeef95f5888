"""The instrumented loop: every metric recomputed in NumPy from the logged run, float and quantised; stopping, seeds, bad input."""

import numpy as np
import pytest

from keydnn import Tensor
from keydnn.stability import AffineDataset, DriftModel, FitHistory, LinearBlockModel, MetricsConfig, make_controller, rail_stats
from keydnn.stability.dataset import spike
from keydnn.stability.dtypes import ap_fixed
from keydnn.stability.metrics import ALL_METRICS, PROFILES
from keydnn.stability.precision import PrecisionDict

DATA = AffineDataset(60, seed=1)
X, Y = (a.astype(np.float32) for a in DATA.get())
FORMATS = PrecisionDict({
    "__default__": {
        "weight": "ap_fixed<10,3,AP_RND,AP_SAT>", "bias": "ap_fixed<12,3,AP_RND,AP_SAT>", "gradient": "ap_fixed<12,4,AP_RND_CONV,AP_SAT>",
        "update": "ap_fixed<14,2>", "accumulator": "ap_fixed<18,6,AP_TRN,AP_WRAP>", "activation": "ap_fixed<16,5,AP_RND,AP_SAT>",
    },
    "input": {"value": "ap_fixed<9,1,AP_RND,AP_SAT>"},
    "loss": {"value": "ap_ufixed<16,4,AP_RND,AP_SAT>"},
})  # fmt: skip


def one_dense(**options):
    return LinearBlockModel(DATA, num_hidden=[], seed=2, **options)


class Trace:
    """Parameters before each step, as a callback sees the model after it."""

    def __init__(self, model):
        self.model, self.weights, self.rows = model, [model.get_weights()], []

    def __call__(self, step, row):
        self.weights.append(self.model.get_weights())
        self.rows.append(dict(row))
        return False


def logged(model, **options):
    trace = Trace(model)
    given = {"epochs": 6, "batch_size": 60, "learning_rate": 1.3, "shuffle": False, "reference_A": DATA.A, **options}
    return model.train_instrumented(X, Y, callbacks=[trace], **given), trace.weights


def plain_step(W, b, loss_mode):
    """Loss, residual and gradient of one Dense layer, in float64."""
    residual = X @ W.astype(np.float64).T + b - Y
    scale = 1 / len(X) if loss_mode == "half_mse" else 2 / residual.size
    return (residual**2).sum() * scale / 2, residual, [scale * residual.T @ X.astype(np.float64), scale * residual.sum(0)]


@pytest.mark.parametrize("loss_mode", ["half_mse", "keras_mse"])
@pytest.mark.parametrize("controller", [None, "gt-order-0", "gt-order-2"])
def test_every_metric_of_a_float_run(loss_mode, controller):
    h, weights = logged(one_dense(), loss_mode=loss_mode, controller=controller)
    eta, eps, chi, rho = 1.3, 1e-12, 1.5, 0.05

    def check(key, t, value, **how):
        np.testing.assert_allclose(h[key][t], value, **{"rtol": 2e-5, "atol": 2e-6, **how}, err_msg=key)

    control = make_controller(controller)
    S, last = 0.0, None
    gram = np.linalg.eigvalsh(np.c_[X, np.ones(len(X))].astype(np.float64).T @ np.c_[X, np.ones(len(X))] / len(X))
    lam = gram  # in both modes: 2 / d_out is 1 for two outputs
    for t in range(h.steps):
        W, b = weights[t]
        loss, residual, grads = plain_step(W, b, loss_mode)
        theta, after = (np.concatenate([w.ravel() for w in ws]).astype(np.float64) for ws in (weights[t], weights[t + 1]))
        G = np.concatenate([g.ravel() for g in grads])
        check("loss", t, loss)
        check("rmse", t, np.sqrt((residual**2).mean()))
        check("theta_norm", t, np.linalg.norm(theta))
        check("grad_norm", t, np.linalg.norm(G))
        C = 0.0 if last is None else np.linalg.norm(G - last[1]) / (np.linalg.norm(theta - last[0]) + eps)
        S = S if last is None else (1 - rho) * S + rho * C
        loose = {"rtol": 1e-3, "atol": 1e-5}  # a quotient of small differences of float32 numbers
        check("curvature_proxy", t, C, **loose)
        check("curvature_ema", t, S, **loose)
        check("curvature_for_control", t, max(h["curvature_proxy"][t], h["curvature_ema"][t]))
        check("curvature_valid", t, float(last is not None))
        C, last = h["curvature_for_control"][t], (theta, G)
        would = min(1.0 if C <= eps else chi / (eta * (C + eps)), 1.0)
        alpha = control.step(learning_rate=eta, curvature_proxy=C, curvature_ema=C).alpha
        check("alpha_would", t, would)
        check("alpha", t, alpha)
        check("eta_eff", t, alpha * eta)
        raw, act = -alpha * eta * G, after - theta
        check("raw_update_norm", t, np.linalg.norm(raw))
        check("optimizer_update_norm", t, eta * np.linalg.norm(G))
        check("actual_update_norm", t, np.linalg.norm(act))
        cosine = np.clip(act @ raw / (np.linalg.norm(act) * np.linalg.norm(raw)), -1, 1)
        check("update_cosine", t, cosine)
        check("update_angle_rad", t, np.arccos(cosine), atol=2e-3)
        check("update_radius_ratio", t, np.linalg.norm(act) / np.linalg.norm(raw))
        check("forward_gain_spectral", t, np.linalg.norm(weights[t + 1][0], 2))
        check("weight_error_fro", t, np.linalg.norm(weights[t + 1][0] - DATA.A))
        a = alpha if controller else would
        check("hessian_lambda_max", t, lam[-1])
        check("hessian_lambda_min", t, lam[0])
        check("hessian_spectral_norm", t, lam[-1])
        for kind in ("lambda", "norm"):
            check(f"stability_margin_{kind}_raw", t, eta * lam[-1])
            check(f"stability_margin_{kind}_ctrl", t, a * eta * lam[-1])
        check("spectral_radius_raw", t, max(abs(1 - eta * lam)))
        check("spectral_radius_ctrl", t, max(abs(1 - a * eta * lam)))
        check("stability_limit", t, 2 / eta)
        check("margin_to_limit", t, lam[-1] * eta / 2)
        check("useful_alpha_min", t, 0.0)
        check("useful_alpha_max", t, chi / (eta * C + eps))
    ones = ("alpha_max_bound", "controller_feasible", *PROFILES["finite"])
    for key in (*ones, "alpha_min_bound", "diverged", "hessian_residual"):
        assert (h[key] == (key in ones)).all(), key
    for key in PROFILES["quantization"][:-1]:
        assert (h[key] == (key == "loss_scale")).all(), key
    assert np.isnan(h["adam_denominator_min"]).all() and set(h) == set(ALL_METRICS)
    assert all(v.shape == (6,) and v.dtype == np.float64 for v in h.values())


def test_every_metric_of_a_quantised_run():
    h, weights = logged(one_dense(), precision_dict=FORMATS, use_controller=True)
    f = dict(FORMATS["__default__"])
    eta = 1.3
    for t in range(h.steps):
        W, b = (w.astype(np.float64) for w in weights[t])
        z = FORMATS["input"]["value"](X)
        y = f["activation"](f["accumulator"](z @ f["weight"](W).T) + f["bias"](b))
        residual = y - Y
        assert h["loss"][t] == FORMATS["loss"]["value"]((residual**2).sum() / 2 / len(X))
        assert h["rmse"][t] == pytest.approx(np.sqrt((residual**2).mean()), rel=1e-12)
        exact = [(residual.T @ z / len(X)).astype(np.float32), (residual.sum(0) / len(X)).astype(np.float32)]
        grads = [f["gradient"](g) for g in exact]
        assert h["grad_norm"][t] == pytest.approx(np.sqrt(sum((g**2).sum() for g in grads)), rel=1e-12)
        deltas = [g.astype(np.float32) * -np.float32(h["eta_eff"][t]) for g in grads]
        stats = [rail_stats(d, f["update"]) for d in deltas]
        assert h["update_underflow_fraction_max"][t] == max(s.underflow_fraction for s in stats)
        assert h["update_saturation_fraction_max"][t] == max(s.saturation_fraction for s in stats)
        assert h["raw_update_norm"][t] == pytest.approx(np.sqrt(sum((d.astype(float) ** 2).sum() for d in deltas)), rel=1e-9)
        sums = [w.astype(np.float32) + f["update"](d).astype(np.float32) for w, d in zip((W, b), deltas, strict=True)]
        stored = [f[k](w) for k, w in zip(("weight", "bias"), sums, strict=True)]
        for mine, own in zip(stored, weights[t + 1], strict=True):
            np.testing.assert_array_equal(own, mine)
        rails = [rail_stats(w, f[k]) for k, w in zip(("weight", "bias"), stored, strict=True)]
        assert h["weight_saturation_fraction_max"][t] == max(r.saturation_fraction for r in rails)
        assert h["weight_near_rail_fraction_max"][t] == max(r.near_rail_fraction for r in rails)
        rails = [rail_stats(g, f["gradient"]) for g in grads]
        assert h["gradient_saturation_fraction_max"][t] == max(r.saturation_fraction for r in rails)
        assert h["gradient_near_rail_fraction_max"][t] == max(r.near_rail_fraction for r in rails)
        assert h["useful_alpha_min"][t] == pytest.approx(2.0**-12 / (eta * h["grad_norm"][t] + 1e-12))
    assert f["weight"](weights[0][0]).tolist() != weights[0][0].tolist()  # the initial weights were off the grid


def test_quantize_initial():
    h, weights = logged(one_dense(), precision_dict=FORMATS, quantize_initial=True, epochs=1)
    free, start = logged(one_dense(), precision_dict=FORMATS, epochs=1)
    assert h["loss"][0] == free["loss"][0] and h["update_radius_ratio"][0] != free["update_radius_ratio"][0]
    squares = [(FORMATS["__default__"][k](w) ** 2).sum() for k, w in zip(("weight", "bias"), start[0], strict=True)]
    assert h["theta_norm"][0] == pytest.approx(np.sqrt(sum(squares)))
    assert h.meta["arguments"]["quantize_initial"] is True


def test_a_frozen_step_holds_the_curvature():
    dead = {"dense0": {"update": "ap_fixed<4,4,AP_RND,AP_SAT>"}}
    h, weights = logged(one_dense(), precision_dict=dead, learning_rate=0.1)
    assert (h["actual_update_norm"] == 0).all() and (h["update_radius_ratio"] == 0).all() and (h["update_cosine"] == 1).all()
    assert (h["update_underflow_fraction_max"] == 1).all() and (h["curvature_valid"] == 0).all() and (h["curvature_proxy"] == 0).all()
    assert len(set(h["loss"])) == 1


def test_float_path_is_that_without_a_map():
    float_run, _ = logged(one_dense(), precision_dict=None)
    empty, _ = logged(one_dense(), precision_dict={})
    np.testing.assert_allclose(empty["loss"], float_run["loss"], rtol=1e-5)


def test_partial_batches_and_seeds():
    runs = [logged(one_dense(), batch_size=25, shuffle=True, epochs=2)[0] for _ in range(2)]
    assert runs[0].steps == 6 and all(np.array_equal(runs[0][k], runs[1][k], equal_nan=True) for k in runs[0])
    model = one_dense()
    model.seed = 99
    assert not np.array_equal(runs[0]["loss"], logged(model, batch_size=25, shuffle=True, epochs=2)[0]["loss"])
    exact = logged(one_dense(), batch_size=25, epochs=1)[0]["hessian_lambda_max"]
    for i, part in enumerate((slice(0, 25), slice(25, 50), slice(50, 60))):
        x = np.c_[X[part], np.ones(len(X[part]))].astype(np.float64)
        assert exact[i] == pytest.approx(np.linalg.eigvalsh(x.T @ x / len(x))[-1], rel=1e-12)


def test_divergence_keeps_the_partial_history(capsys):
    h, _ = logged(one_dense(), learning_rate=60.0, epochs=200)
    assert h.steps < 200 and h["diverged"].tolist() == [0] * (h.steps - 1) + [1] and capsys.readouterr().out == ""
    h, _ = logged(one_dense(), learning_rate=60.0, epochs=200, verbose=True)
    assert "[DIVERGED]" in capsys.readouterr().out
    h, _ = logged(one_dense(), learning_rate=2.5, epochs=200, diverge_loss=5.0)
    assert h["loss"][-1] >= 5 and h["diverged"][-1] == 1 and h["loss_is_finite"][-1] == 1 and (h["loss"][:-1] < 5).all()
    small = {"loss": {"value": "ap_ufixed<8,4,AP_RND,AP_SAT>"}}
    h, _ = logged(one_dense(), learning_rate=8.0, epochs=50, diverge_loss="auto", precision_dict=small)
    assert h["loss"][-1] >= 0.95 * (16 - 1 / 16) and h["diverged"][-1] == 1


def test_stop_rules():
    full = logged(one_dense(), learning_rate=0.9, epochs=100)[0]["loss"]
    first, limit = 20, full[20]
    assert (full[:20] > limit).all() and (full[20:] <= limit).all()
    assert logged(one_dense(), learning_rate=0.9, epochs=100, stop_loss=limit)[0].steps == first + 1
    assert logged(one_dense(), learning_rate=0.9, epochs=100, stop_loss=limit, stop_patience=4)[0].steps == first + 4
    assert logged(one_dense(), learning_rate=0.9, epochs=100, stop_loss=limit, stop_min_steps=60)[0].steps == 60
    changes = np.abs(np.diff(full))
    assert logged(one_dense(), learning_rate=0.9, epochs=100, min_loss_change=1e-4)[0].steps == int(np.argmax(changes <= 1e-4)) + 2
    assert logged(one_dense(), learning_rate=0.9, epochs=5, stop_loss="auto")[0].steps == 5
    h, _ = logged(
        one_dense(), learning_rate=0.9, epochs=100, stop_loss="auto", precision_dict={"loss": {"value": "ap_ufixed<16,4,AP_RND,AP_SAT>"}}
    )
    assert h["loss"][-1] <= 2 * 2.0**-12 < h["loss"][-2]
    model = one_dense()
    assert model.train_instrumented(X, Y, epochs=9, batch_size=60, callbacks=[lambda step, row: step == 3]).steps == 4


def test_resume_carries_on():
    whole = logged(one_dense(), epochs=8, batch_size=25, shuffle=True, controller="gt-order-2")[0]
    model = one_dense()
    first = logged(model, epochs=5, batch_size=25, shuffle=True, controller="gt-order-2")[0]
    second = logged(model, epochs=3, batch_size=25, shuffle=True, controller="gt-order-2", resume=first.meta["state"])[0]
    joined = FitHistory.concat([first, second])
    for key in whole:
        np.testing.assert_array_equal(joined[key], whole[key], err_msg=key)
    cold = logged(model, epochs=1, controller="gt-order-2")[0]
    assert cold["curvature_proxy"][0] == 0


def test_drift_is_seen_by_the_sensor_at_once():
    drift = DriftModel(target="consistent", schedule=spike(3, gain=4.0))
    h, _ = logged(one_dense(), drift=drift, use_controller=True, learning_rate=0.5)
    assert h["curvature_proxy"][3] > 3 * h["curvature_proxy"][2] and h["alpha"][3] < 0.5 < h["alpha"][2]
    assert h["hessian_lambda_max"][3] > 9 * h["hessian_lambda_max"][2]


def test_probe_protects_the_first_step():
    free = logged(one_dense(), learning_rate=20.0, use_controller=True, epochs=1)[0]
    probed = logged(one_dense(), learning_rate=20.0, use_controller=True, epochs=1, first_step="probe")[0]
    assert free["alpha"][0] == 1 and probed["alpha"][0] * 20 * probed["hessian_lambda_max"][0] == pytest.approx(1.5, rel=0.1)


def test_a_part_of_the_metrics():
    config = MetricsConfig(include_fields=("theta_norm",), exclude_fields=("rmse",))
    h, _ = logged(one_dense(), metrics=config)
    assert set(h) == (set(PROFILES["core"]) | {"theta_norm"}) - {"rmse"}
    everything, _ = logged(one_dense())
    for key in h:
        np.testing.assert_array_equal(h[key], everything[key])
    assert list(logged(one_dense(), metrics=MetricsConfig(profiles=("finite",)))[0]) == list(PROFILES["finite"])
    taught = MetricsConfig(profiles=("teacher",), reference_A=DATA.A)
    error = logged(one_dense(), metrics=taught, reference_A=None)[0]["weight_error_fro"]
    np.testing.assert_array_equal(error, everything["weight_error_fro"])
    off, _ = logged(one_dense(), metrics=MetricsConfig.all(compute_analytic_hessian=False))
    assert np.isnan(off["hessian_lambda_max"]).all()
    assert np.isnan(logged(one_dense(), compute_analytic_hessian=False)[0]["hessian_lambda_max"]).all()
    for bad in ({"profiles": ("everything",)}, {"include_fields": ("lss",)}):
        with pytest.raises(ValueError, match="there are"):
            MetricsConfig(**bad)


def test_lanczos_in_the_loop_equals_the_analytic_hessian():
    exact, _ = logged(one_dense())
    found, _ = logged(one_dense(), hessian="lanczos", hessian_every=2)
    np.testing.assert_allclose(found["hessian_lambda_max"], exact["hessian_lambda_max"], rtol=1e-4)
    assert (found["hessian_residual"] <= 1e-3 * found["hessian_spectral_norm"]).all()


def test_the_network_is_left_in_its_mode():
    model = LinearBlockModel(DATA, num_hidden=[3], use_batchnorm=True, seed=0)
    model.model.eval()
    h, _ = logged(model, precision_dict=FORMATS, learning_rate=0.1)
    assert not any(module.training for module in model.model.modules()) and h["loss"][-1] < h["loss"][0]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"loss_mode": "mse"}, "loss_mode"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"hessian": "exact"}, "hessian"),
        ({"first_step": "warm"}, "first_step"),
        ({"stop_loss": "soon"}, "stop_loss"),
        ({"controller": "gt-order-9"}, "unknown controller"),
        ({"precision_dict": {"dense7": {"weight": "ap_int<4>"}}}, "dense7"),
        ({"precision_dict": {"dense0": {"weight": "ap_fixed<32,4>"}}}, 'dtype="float64"'),
        ({"precision_dict": {"dense0": {"weight": "ap_fixed<0,4>"}}}, "at least 1"),
    ],
)
def test_bad_arguments_change_nothing(options, text):
    model = one_dense()
    start = model.get_weights()
    with pytest.raises(ValueError, match=text):
        logged(model, **options)
    assert all(np.array_equal(a, b) for a, b in zip(start, model.get_weights(), strict=True))


def test_bad_data():
    model, bad = one_dense(), X.copy()
    bad[3, 1] = np.nan
    with pytest.raises(ValueError, match="X has 1 values that are not finite"):
        model.train_instrumented(bad, Y)
    with pytest.raises(ValueError, match="60 samples, Y has 59"):
        model.train_instrumented(X, Y[:-1])
    with pytest.raises(ValueError, match="the network gives"):
        model.train_instrumented(X, Y[:, :1])
    with pytest.raises(TypeError, match="DriftModel"):
        model.train_instrumented(X, Y, drift=2.0)


def test_wide_formats_need_float64():
    h, weights = logged(one_dense(dtype="float64"), precision_dict={"dense0": {"weight": "ap_fixed<40,4,AP_RND,AP_SAT>"}})
    w = weights[-1][0]
    assert w.dtype == np.float64 and np.array_equal(ap_fixed(40, 4)(w), w) and not np.array_equal(w.astype(np.float32), w)


def test_hooks():
    model = one_dense()
    W, b = model.model.parameters()
    assert model._layer_and_field_for_variable(W) == ("dense0", "weight") and model._same_variable(W, W) and not model._same_variable(W, b)
    g = model._quantize_gradients([Tensor(data=W.numpy()), np.ones(2, np.float32) / 3], [W, b], FORMATS)
    assert isinstance(g[0], Tensor) and g[1].dtype == np.float32 and (g[1] == FORMATS["__default__"]["gradient"](1 / 3)).all()
    assert model._rail_max_for_variables([W, b], None, fields=("weight",)) == (0.0, 0.0)
    assert model._max_update_quantum([W, b], FORMATS) == 2.0**-12 and model._max_update_quantum([W], None) == 0


@pytest.mark.slow
def test_stochastic_rounding_wakes_a_dead_zone():
    """Deterministic rounding never moves; stochastic rounding moves by the float update on average, and repeats from its seed."""
    dead = {"dense0": {"update": "ap_fixed<8,4,AP_RND,AP_SAT>"}}
    alive = {"dense0": {"update": "ap_fixed<8,4,AP_RND_STOCH,AP_SAT>"}}
    options = {"learning_rate": 0.02, "epochs": 100}
    frozen, _ = logged(one_dense(), precision_dict=dead, **options)
    moving, ends = logged(one_dense(), precision_dict=alive, **options)
    again, ends_again = logged(one_dense(), precision_dict=alive, **options)
    assert (frozen["actual_update_norm"] == 0).all() and moving["loss"][-20:].mean() < 0.2 * moving["loss"][0]
    assert np.array_equal(ends[-1][0], ends_again[-1][0])
