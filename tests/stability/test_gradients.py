"""Loss scale and batch-sum register of instrumented runs."""

import numpy as np
import pytest

from keydnn.stability import AdamRule, AffineDataset, LinearBlockModel
from keydnn.stability.dtypes import ap_fixed
from tests.native.common import needs_native

DATA = AffineDataset(12, seed=4)
X, Y = DATA.get()


def run(epochs=4, batch_size=12, learning_rate=0.1, hidden=(), **options):
    model = LinearBlockModel(DATA, num_hidden=list(hidden), activation="tanh" if hidden else None, seed=3)
    return model.train_instrumented(X, Y, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, **options), model


@needs_native
def test_a_power_of_two_changes_nothing_without_formats():
    (plain, a), (scaled, b) = run(hidden=(3,)), run(hidden=(3,), loss_scale=1024.0)
    assert scaled.meta["eager"] == "a loss scale" and (scaled["loss_scale"] == 1024.0).all() and (plain["loss_scale"] == 1.0).all()
    for key in set(plain) - {"loss_scale"}:
        np.testing.assert_array_equal(plain[key], scaled[key], err_msg=key)
    assert all((u == v).all() for u, v in zip(a.get_weights(), b.get_weights(), strict=True))


def test_a_scale_saves_gradients_that_a_format_would_lose():
    formats = {"dense0": {"gradient": "ap_fixed<10,6,AP_RND,AP_SAT>"}}  # a quantum of 1/16
    lost, _ = run(epochs=300, precision_dict=formats)
    kept, _ = run(epochs=300, precision_dict=formats, loss_scale=16.0)
    assert kept["rmse"][-1] < 0.6 * lost["rmse"][-1]
    q = ap_fixed(10, 6, "AP_RND", "AP_SAT")
    first, _ = run(epochs=1, precision_dict=formats, loss_scale=16.0)
    plain, _ = run(epochs=1)
    assert first["grad_norm"][0] == pytest.approx(plain["grad_norm"][0], rel=0.01)
    squares = (first["grad_norm"][0] * 16.0 / q.quantum) ** 2  # of stored integers
    assert squares == pytest.approx(round(squares), abs=1e-3)


@pytest.mark.slow
def test_a_dynamic_scale_backs_off_from_the_rail_and_returns():
    formats = {"dense0": {"gradient": "ap_fixed<12,6,AP_RND,AP_SAT>"}}
    h, model = run(epochs=600, precision_dict=formats, loss_scale="dynamic")
    scale = h["loss_scale"]
    assert 1.0 <= scale[0] < 2.0**15 and np.log2(scale[0]) == int(np.log2(scale[0]))
    assert (h["gradient_saturation_fraction_max"] == 0.0).all()
    assert scale[199] == scale[0] and scale[-1] > scale[0]  # gradients became small
    again = model.train_instrumented(
        X, Y, epochs=1, batch_size=12, precision_dict=formats, loss_scale="dynamic", resume=h.meta["state"]
    )  # fmt: skip
    assert again["loss_scale"][0] == 2 * scale[-1]  # the last of 600 steps was the 200th since the last doubling


def test_it_works_with_rules_and_batches():
    h, _ = run(epochs=50, batch_size=5, loss_scale=64, update_rule=AdamRule(), learning_rate=0.05, hidden=(4,))
    g, _ = run(epochs=50, batch_size=5, update_rule=AdamRule(), learning_rate=0.05, hidden=(4,))
    np.testing.assert_array_equal(h["loss"], g["loss"])


@needs_native
def test_the_register_by_hand():
    q, acc = ap_fixed(12, 4, "AP_RND", "AP_SAT"), ap_fixed(9, 5, "AP_TRN", "AP_SAT")
    h, _ = run(epochs=1, precision_dict={"dense0": {"gradient": q, "gradient_accum": acc}})
    start = LinearBlockModel(DATA, num_hidden=[], seed=3)
    W, b = (w.astype(np.float64) for w in start.get_weights())
    total = [np.zeros_like(W), np.zeros_like(b)]
    for x, y in zip(X.astype(np.float32).astype(float), Y.astype(np.float32).astype(float), strict=True):
        r = W @ x + b - y
        for i, g in enumerate((np.outer(r, x), r)):
            total[i] = acc(total[i] + q(g.astype(np.float32)))
    expected = [q((t / 12).astype(np.float32)) for t in total]
    assert h["grad_norm"][0] == pytest.approx(np.sqrt(sum((g**2).sum() for g in expected)), rel=1e-6)
    assert h.meta["eager"] == "a batch-sum register" and h["gradient_accum_saturation_fraction_max"][0] == 0.0


def test_a_register_that_is_too_small_shows_at_its_rails():
    h, _ = run(epochs=2, precision_dict={"dense0": {"gradient_accum": "ap_fixed<8,2,AP_RND,AP_SAT>"}})
    assert h["gradient_accum_saturation_fraction_max"][0] > 0.0
    wide, _ = run(epochs=2, precision_dict={"dense0": {"gradient_accum": "ap_fixed<40,16,AP_RND,AP_SAT>"}})
    plain, _ = run(epochs=2)
    np.testing.assert_allclose(wide["loss"], plain["loss"], rtol=1e-5)


def test_bad_arguments():
    for scale in (0.0, -1, "static"):
        with pytest.raises(ValueError, match="loss_scale must be above 0, 'dynamic' or None"):
            run(loss_scale=scale)
    model = LinearBlockModel(DATA, num_hidden=[3], use_batchnorm=True, seed=3)
    with pytest.raises(ValueError, match="which BatchNorm is not"):
        model.train_instrumented(X, Y, precision_dict={"dense0": {"gradient_accum": "ap_fixed<20,8>"}})
