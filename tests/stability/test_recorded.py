"""Recorded instrumented steps against eager ones: every metric, weight and state, bit for bit.

A callback makes a run eager, so the same call with and without one runs both ways.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keydnn.kernels.dispatch import native_status
from keydnn.stability import (
    AdGDController,
    AffineDataset,
    CurvatureSensor,
    DriftModel,
    LinearBlockModel,
    MetricsConfig,
    MomentumRule,
    PrecisionDict,
    make_controller,
)  # fmt: skip
from keydnn.stability.dtypes import VALID_OMODES, VALID_QMODES, ap_fixed, ap_ufixed
from keydnn.training import Sequential

pytestmark = pytest.mark.skipif(not native_status().loaded, reason="plans need the native kernels")
DATA = AffineDataset(23, seed=4)
X, Y = DATA.get()
FIELDS = ("weight", "bias", "activation", "accumulator", "gradient", "update", "value")


def same(a, b, what):
    np.testing.assert_array_equal(np.asarray(a).view(np.uint8), np.asarray(b).view(np.uint8), err_msg=what)


def both(build, *, calls=1, controller=None, **options):
    """The same calls recorded and eager; returns the recorded history after comparing everything."""
    ways = []
    for way in ("recorded", "eager", "one by one"):
        model, callbacks = build(), (lambda step, row: False,) if way == "one by one" else ()
        if way == "eager":
            model._max_update_quantum = model._max_update_quantum  # a hook of the object's own
        made = controller() if callable(controller) else controller
        history, resume, last = None, None, []
        for _ in range(calls):
            history = model.train_instrumented(X, Y, callbacks=callbacks, controller=made, resume=resume, **options)
            resume = history.meta["state"]
            last.append(history)
        state = [t.numpy() for t in (*model.model.parameters(), *model.model.buffers())]
        ways.append((last, state))
    (recorded, weights), (eager, expected), (single, same_weights) = ways
    assert all(h.meta["eager"] is None for h in single)
    for h, g in zip(recorded, single, strict=True):
        assert set(h) == set(g) and all(np.array_equal(h[key], g[key], equal_nan=True) for key in h)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(weights, same_weights, strict=True))
    for h, e in zip(recorded, eager, strict=True):
        assert h.meta["eager"] is None and e.meta["eager"] == "the model overrides a hook"
        assert set(h) == set(e)
        for key in e:
            np.testing.assert_array_equal(h[key], e[key], err_msg=key)
        mine, theirs = h.meta["state"], e.meta["state"]
        for key in ("theta", "gradient"):
            same(mine["sensor"][key], theirs["sensor"][key], key)
        assert {k: v for k, v in mine["sensor"].items() if np.ndim(v) == 0} == pytest.approx(
            {k: v for k, v in theirs["sensor"].items() if np.ndim(v) == 0}, rel=0, abs=0, nan_ok=True
        )
        assert mine["controller"] == pytest.approx(theirs["controller"], rel=0, abs=0, nan_ok=True)
        assert mine["order"] == theirs["order"] and mine["step"] == theirs["step"]
    for a, b in zip(weights, expected, strict=True):
        same(a, b, "weights")
    return recorded[-1]


def formats():
    widths = st.tuples(st.integers(2, 14), st.integers(-1, 6))
    signed = st.tuples(widths, st.sampled_from(sorted(VALID_QMODES)), st.sampled_from(sorted(VALID_OMODES)))
    fixed = signed.map(lambda t: ap_fixed(t[0][0], min(t[0][1], t[0][0]), t[1], t[2]))
    unsigned = widths.map(lambda w: ap_ufixed(w[0], min(w[1], w[0]), "AP_RND", "AP_SAT"))
    return st.one_of(st.none(), fixed, fixed, unsigned)


maps = st.fixed_dictionaries({
    "__default__": st.dictionaries(st.sampled_from(FIELDS), formats()),
    "dense0": st.dictionaries(st.sampled_from(FIELDS), formats()),
    "loss": st.fixed_dictionaries({"value": formats()}),
    "input": st.fixed_dictionaries({"value": formats()}),
})  # fmt: skip
controllers = st.one_of(
    st.sampled_from([None, "none", "gt-order-0", "gt-order-1", "gt-order-2", "gt-order-2-qa", "gt-rational"]),
    st.sampled_from([
        lambda: make_controller("gt-order-0", law="division_free", chi=0.9),
        lambda: make_controller("gt-order-1", law="division_free", k_alpha=0.3, alpha_min=0.1),
        lambda: make_controller("gt-order-2", anti_windup=True, alpha_min=0.05, alpha_max=0.9, use_ema_max=False),
        lambda: make_controller("gt-order-2-qa", anti_windup=True, chi=0.5, curvature_ema_rho=0.5),
        lambda: make_controller("gt-rational", beta=2.0),
        AdGDController,
    ]),
)  # fmt: skip


@pytest.mark.slow
@given(
    precision=st.one_of(st.none(), maps, maps.map(PrecisionDict)),
    controller=controllers,
    hidden=st.sampled_from([[], [], [3], [4, 2]]),
    activation=st.sampled_from([None, "tanh", "relu"]),
    has_norm=st.booleans(),
    use_bias=st.booleans(),
    dtype=st.sampled_from(["float32", "float32", "float64"]),
    batch=st.sampled_from([23, 40, 5, 8, 1]),
    epochs=st.integers(1, 7),
    eta=st.sampled_from([0.01, 0.7, 2.5, 40.0]),
    shuffle=st.booleans(),
    loss_mode=st.sampled_from(["half_mse", "keras_mse"]),
    sensor=st.sampled_from([None, "hold", "formula"]),
    seed=st.integers(0, 5),
    calls=st.integers(1, 2),
)
def test_random_runs(precision, controller, hidden, activation, has_norm, use_bias, dtype, batch, epochs, eta, shuffle, loss_mode, sensor,
                     seed, calls):  # fmt: skip
    def build():
        return LinearBlockModel(
            DATA, num_hidden=hidden, activation=activation, use_batchnorm=has_norm and batch > 3, use_bias=use_bias, seed=seed, dtype=dtype
        )

    both(
        build, calls=calls, controller=controller, precision_dict=precision, batch_size=batch, epochs=epochs, learning_rate=eta,
        shuffle=shuffle, loss_mode=loss_mode, reference_A=DATA.A,
        sensor=None if sensor is None else CurvatureSensor(0.3, on_zero_step=sensor),
    )  # fmt: skip


ENDS = {
    "stop": {"learning_rate": 0.5, "stop_loss": 0.03, "stop_patience": 3, "stop_min_steps": 20},
    "plateau": {"learning_rate": 0.5, "min_loss_change": 2e-3, "stop_patience": 2},
    "divergence": {"learning_rate": 6.0},
    "limit": {"learning_rate": 1.05, "diverge_loss": 50.0},
    "none": {"learning_rate": 0.5},
}


@pytest.mark.slow
@pytest.mark.parametrize("batch", [23, 8])
@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_a_run_inside_a_group(end, batch):
    def build():
        return LinearBlockModel(DATA, num_hidden=[] if end in ("divergence", "limit") else [3], use_batchnorm=True, seed=1)

    h = both(build, batch_size=batch, epochs=120, **ENDS[end])
    total = 120 * -(-23 // batch)
    assert h.steps == total if end == "none" else 3 < h.steps < total
    assert bool(h["diverged"][-1]) == (end in ("divergence", "limit")) and not h["diverged"][:-1].any()


def test_one_plan_serves_runs_that_differ_in_numbers_only():
    from keydnn.stability.nn import recorded

    recorded._PROGRAMS.clear()
    histories = []
    for eta, bits, k_alpha in [(0.5, 10, 0.1), (0.5, 10, 0.1), (0.3, 7, 0.2)]:
        model = LinearBlockModel(DATA, num_hidden=[], seed=3)
        precision = {"dense0": {"weight": ap_fixed(bits, 3, "AP_RND", "AP_SAT"), "update": ap_fixed(bits, 3, "AP_TRN", "AP_WRAP")}}
        options = {"controller": make_controller("gt-order-1", k_alpha=k_alpha), "learning_rate": eta, "precision_dict": precision}
        histories.append(model.train_instrumented(X, Y, epochs=9, batch_size=23, **options))
        for w, step in zip(model.get_weights(), (2.0 ** (3 - bits), None), strict=True):
            assert step is None or (w % step == 0).all()
    (program,) = recorded._PROGRAMS.values()
    (step,) = program.steps.values()
    assert step.replays == 27
    for key, values in histories[0].items():
        np.testing.assert_array_equal(values, histories[1][key], err_msg=key)
    assert histories[2]["loss"][1] != histories[0]["loss"][1]
    LinearBlockModel(DATA, num_hidden=[], seed=3).train_instrumented(X, Y, epochs=2, batch_size=23)
    assert len(recorded._PROGRAMS) == 2


def test_a_network_of_unknown_layers_is_recorded_on_its_own_tensors():
    from keydnn.nn import Linear
    from keydnn.stability.nn import recorded

    class Twice(Linear):
        def forward(self, x):
            return super().forward(x) * 2.0

    def build():
        model = LinearBlockModel(DATA, num_hidden=[], seed=3)
        model.model = Sequential()
        np.random.seed(0)
        model.model.add(Twice(4, 2), name="dense0")
        return model

    recorded._PROGRAMS.clear()
    both(build, batch_size=8, epochs=9)
    assert not recorded._PROGRAMS


def test_a_chosen_metric_alone_and_telling(capsys):
    chosen = MetricsConfig(include_fields=["alpha_would"])
    both(lambda: LinearBlockModel(DATA, num_hidden=[], seed=3), epochs=30, batch_size=8, metrics=chosen)
    model = LinearBlockModel(DATA, num_hidden=[], seed=3)
    model.train_instrumented(X, Y, epochs=3, batch_size=8, verbose=True)
    told = capsys.readouterr().out
    model.reinitialize_weights()
    model.train_instrumented(X, Y, epochs=3, batch_size=8, verbose=True, callbacks=[lambda step, row: False])
    assert told == capsys.readouterr().out and told.count("\n") == 4


def test_a_probe_looks_before_the_first_recorded_step():
    h = both(lambda: LinearBlockModel(DATA, num_hidden=[4], seed=3), epochs=9, batch_size=23, first_step="probe", controller="gt-order-0")
    assert h["curvature_proxy"][0] > 0


@pytest.mark.parametrize("options, reason", [
    ({"update_rule": "momentum"}, "the update rule"), ({"drift": 2.0}, "data that drift"), ({"hessian": "lanczos"}, "an estimated Hessian"),
    ({"precision_dict": {"dense0": {"weight": "fp16"}}}, "the format fp16"),
    ({"precision_dict": {"dense0": {"update": "ap_fixed<8,2,AP_RND_STOCH>"}}}, "the format ap_fixed<8,2,AP_RND_STOCH"),
    ({"precision_dict": {"dense0": {"master_weight": "ap_fixed<20,4>"}}}, "a master copy"),
])  # fmt: skip
def test_what_stays_eager_says_why(options, reason):
    options = dict(options)
    if "update_rule" in options:
        options["update_rule"] = MomentumRule(0.5)
    if "drift" in options:
        options["drift"] = DriftModel(schedule=lambda step: {"gain": 2.0 + step})
    h = LinearBlockModel(DATA, num_hidden=[], seed=3).train_instrumented(X, Y, epochs=2, batch_size=23, **options)
    assert h.steps == 2 and h.meta["eager"].startswith(reason)


def test_a_model_with_its_own_hook_stays_eager():
    class Own(LinearBlockModel):
        def _quantize_gradients(self, grads, trainable_vars, precision, step=0):
            return [g * 0 for g in grads]

    model = Own(DATA, num_hidden=[], seed=3)
    before = model.get_weights()
    h = model.train_instrumented(X, Y, epochs=2, batch_size=23, precision_dict={"__default__": {"update": "ap_fixed<8,2>"}})
    assert h.meta["eager"] == "the model overrides a hook" and all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


def test_callbacks_see_the_model_and_may_change_it():
    def run(own_hook):
        model, seen = LinearBlockModel(DATA, num_hidden=[], seed=3), []
        if own_hook:
            model._max_update_quantum = model._max_update_quantum

        def look(step, row):
            seen.append(model.get_weights()[0])
            if step == 2:
                model.set_weights([w * 2.0 for w in model.get_weights()])
            return step == 5

        h = model.train_instrumented(X, Y, epochs=9, batch_size=23, callbacks=[look])
        return h, seen

    (h, seen), (e, expected) = run(False), run(True)
    assert h.meta["eager"] is None and e.meta["eager"] is not None and h.steps == e.steps == 6
    np.testing.assert_array_equal(np.stack(seen), np.stack(expected))
    np.testing.assert_array_equal(h["loss"], e["loss"])


def test_constant_drift_is_that_of_drifted_data():
    for target in ("clean", "consistent"):
        drift = DriftModel(gain=1.5, offset=0.25, target=target)
        h = LinearBlockModel(DATA, num_hidden=[], seed=3).train_instrumented(X, Y, epochs=4, batch_size=23, drift=drift)
        Xd = drift.inputs(np.asarray(X, np.float32))
        Yd = np.asarray(Y if target == "clean" else Xd @ DATA.A.T + DATA.b, np.float32)
        g = LinearBlockModel(DATA, num_hidden=[], seed=3).train_instrumented(Xd, Yd, epochs=4, batch_size=23)
        assert h.meta["eager"] is None and all(np.array_equal(h[key], g[key], equal_nan=True) for key in h)
