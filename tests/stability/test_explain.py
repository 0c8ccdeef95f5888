"""The verdicts on runs made to fail in each way, suggested formats, and probes."""

import numpy as np
import pytest

import keydnn
from keydnn.stability import (
    AffineDataset,
    CurvatureProbe,
    FitHistory,
    LinearBlockModel,
    MarginProbe,
    MomentumRule,
    RailProbe,
    analytic_dense_hessian,
    explain,
    stack_precision,
    suggest_precision,
)
from keydnn.stability.explain import VERDICTS

DATA = AffineDataset(60, seed=1, use_bias=False)


def run(**options):
    model = LinearBlockModel(DATA, num_hidden=[], use_bias=False, seed=2)
    given = {"epochs": 60, "batch_size": 60, "learning_rate": 1.0, **options}
    return model.train_instrumented(*DATA.get(), **given)


def fields(**formats):
    return {"dense0": formats}


def test_a_healthy_run():
    found = explain(run())
    assert (found.verdict, found.step) == ("healthy", None) and "fell" in str(found)


def test_curvature():
    found = explain(run(learning_rate=2.2, epochs=200))
    assert found.verdict == "curvature" and found.step == 0 and found.evidence["margin"] > 2
    assert explain(run(learning_rate=2.2, epochs=200, use_controller=True)).verdict == "healthy"
    saturating = explain(run(learning_rate=2.6, precision_dict=stack_precision(16, 6)))
    assert saturating.verdict == "curvature"  # finite, but the cause is the same


def test_underflow():
    found = explain(run(learning_rate=0.05, precision_dict=fields(update="ap_fixed<6,4,AP_RND,AP_SAT>")))
    assert found.verdict == "underflow" and found.evidence["underflow"] == 1 and "fractional bits" in found.text


def test_saturation():
    found = explain(run(precision_dict=fields(weight="ap_fixed<12,-1,AP_RND,AP_SAT>")))
    assert found.verdict == "saturation" and "weight" in found.text and found.evidence["weight_saturation"] > 0.05


def test_truncation_bias():
    model = LinearBlockModel(DATA, num_hidden=[], use_bias=False, seed=2)
    model.set_weights([DATA.A + 0.7])  # each small step down becomes a whole quantum, and the way back is lost
    formats = fields(update="ap_fixed<5,4>")
    found = explain(model.train_instrumented(*DATA.get(), epochs=10, batch_size=10, learning_rate=0.05, precision_dict=formats))
    assert found.verdict == "truncation bias" and found.evidence["radius"] > 1.3


def test_an_infeasible_interval():
    h = FitHistory(loss=np.ones(20), useful_alpha_min=np.full(20, 0.8), useful_alpha_max=np.full(20, 0.1))
    assert explain(h).verdict == "infeasible interval"


def test_what_cannot_be_explained():
    assert explain(FitHistory(loss=np.ones(20))).verdict == "no progress"
    assert explain(FitHistory(loss=[1.0, np.nan], diverged=[0.0, 1.0])).verdict == "not finite"
    assert {explain(run()).verdict, "no progress"} <= set(VERDICTS)
    with pytest.raises(ValueError, match="no loss"):
        explain(FitHistory(alpha=[1.0]))


def test_suggested_formats_work():
    model = LinearBlockModel(DATA, num_hidden=[6], activation="tanh", seed=0)
    start = model.get_weights()
    found = suggest_precision(model, *DATA.get(), epochs=40, batch_size=60, learning_rate=0.3)
    assert found.verified and found.loss < 0.3 and all(np.array_equal(a, b) for a, b in zip(start, model.get_weights(), strict=True))
    found.precision.validate_model(model, allow_missing=False)
    acc, w = found.precision.dtype("dense0", "accumulator"), found.precision.dtype("dense0", "weight")
    assert acc.IWL >= w.IWL + 2 and max(d.WL for f, d in found.precision["dense0"].items() if f != "accumulator") <= 24


def test_probes():
    model = LinearBlockModel(DATA, num_hidden=[], use_bias=False, seed=2)
    batch = DATA.get()
    exact = np.linalg.eigvalsh(analytic_dense_hessian(DATA.X, 2, False, False))[-1]
    probe = CurvatureProbe(tol=1e-6)
    first = probe.measure(model.model, batch, "half_mse")
    assert first["curvature_lambda_max"] == pytest.approx(exact, rel=1e-6)
    assert probe.measure(model.model, batch, "half_mse")["curvature_products"] <= 2 < first["curvature_products"]
    own = probe.measure(model.model, batch, lambda y, t: ((y - t) * (y - t)).sum() / 60.0)
    assert own["curvature_lambda_max"] == pytest.approx(2 * exact, rel=1e-6)
    margin = MarginProbe(0.5, MomentumRule(0.5)).measure(model.model, batch, "half_mse")
    assert margin == {"margin_to_limit": pytest.approx(exact / 6, rel=1e-3), "stability_limit": 6.0}
    rails = RailProbe({"dense0": {"weight": "ap_fixed<4,-2,AP_RND,AP_SAT>"}}).measure(model.model, batch, None)
    W = model.get_weights()[0]
    assert rails["dense0.weight.saturation"] == ((W <= -0.125) | (W >= 0.125 - 1 / 64)).mean()
    assert set(rails) == {"dense0.weight.saturation", "dense0.weight.near_rail"}
    assert RailProbe(None).measure(keydnn.Linear(1, 1), None, None) == {}
