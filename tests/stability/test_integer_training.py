"""Training in integers: the quantised float training bit for bit where that is exact, exact fractions everywhere else."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keydnn import Tensor
from keydnn.stability import AffineDataset, LinearBlockModel, PrecisionDict, train_integer
from keydnn.stability.dtypes import ap_fixed
from keydnn.stability.integer import Fixed
from keydnn.stability.integer_training import divided
from tests.stability.integer_rounding import OMODES, QMODES, store

PLACES = ("weight", "bias", "value", "activation", "gradient", "update", "accumulator")


def formats(qmode="AP_RND", omode="AP_SAT", **more):
    tail = f"{qmode},{omode}>"
    sizes = dict.fromkeys(PLACES, "<7,3,") | {"gradient": "<9,4,", "update": "<8,2,"}
    return {"__default__": {field: f"ap_fixed{size}{tail}" for field, size in sizes.items()} | more, "loss": {"value": None}}


def problem(n, num_hidden=(3,)):
    """A network and targets on the grid of the formats."""
    data, grid, rng = AffineDataset(n, seed=0), ap_fixed(7, 3), np.random.default_rng(0)
    model = LinearBlockModel(data, num_hidden=list(num_hidden), activation="relu", seed=0)
    model.set_weights([grid(1.5 * rng.standard_normal(w.shape)) for w in model.get_weights()])
    return model, data.X, grid(2.0 * rng.standard_normal(data.Y.shape))


def same_as_float(precision, loss_mode="half_mse", steps=4, n=8):
    model, X, Y = problem(n)
    training = train_integer(model, precision, 0.25, loss_mode=loss_mode)
    squares = [training.step(X, Y).values.item() for _ in range(steps)]
    history = model.train_instrumented(
        X, Y, epochs=steps, batch_size=n, learning_rate=0.25, loss_mode=loss_mode, precision_dict=precision, shuffle=False,
        compute_analytic_hessian=False,
    )  # fmt: skip
    found = list(training.weights().values())
    assert len(found) == len(model.get_weights()) == 4
    for mine, theirs in zip(found, model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(np.divide(squares, 2 * n if loss_mode == "half_mse" else Y.size), history["loss"])
    return training


@pytest.mark.parametrize(("qmode", "omode"), list(itertools.product(QMODES, OMODES)))
def test_training_is_that_of_the_quantised_network(qmode, omode):
    same_as_float(formats(qmode, omode))


def test_mean_over_all_elements_and_the_register():
    same_as_float(formats(), loss_mode="keras_mse")
    training = same_as_float(formats(omode="AP_WRAP", gradient_accum="ap_fixed<7,3,AP_RND,AP_WRAP>"))
    assert sum(training.overflows.values()) > 0  # eight gradients up to 8 in a register up to 4: it wraps, the same way in both


def test_the_forward_pass_uses_the_weights_as_they_stand():
    precision = formats()
    model, X, Y = problem(8)
    training = train_integer(model, precision, 0.25)
    before, _ = training.network.forward_int(X)
    training.step(X, Y)
    after, dtype = training.network.forward_int(X)
    model.set_weights(list(training.weights().values()))
    expected = model._forward_with_precision(Tensor(data=X), PrecisionDict(precision), training=False).numpy()
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(np.ldexp(after.astype(float), -dtype.fractional_bits), expected)


@given(
    st.lists(st.integers(-(2**70), 2**70), min_size=1, max_size=5), st.integers(1, 1000), st.integers(-3, 8),
    st.sampled_from(QMODES), st.sampled_from(OMODES), st.integers(2, 9), st.integers(-2, 6),
)  # fmt: skip
def test_a_division_is_rounded_once(numbers, d, f, qmode, omode, wl, iwl):
    for scale in (0, 64):  # wide integers, and such as fit an int64
        raw = np.array([v >> scale for v in numbers], object if scale == 0 else np.int64)
        found, _ = divided(Fixed(raw, f, 72 - scale), d, ap_fixed(wl, iwl, qmode, omode))
        assert found.raw.tolist() == [store(Fraction(int(v), d) / Fraction(2) ** f, wl, iwl, True, qmode, omode, 0) for v in raw]


def test_three_samples_by_hand():
    """A third is no shift: sums of fractions, one rounding."""
    precision = formats()
    model, X, Y = problem(3, num_hidden=())
    training = train_integer(model, precision, 0.3)
    W, b = (w.astype(np.float64) for w in model.get_weights())
    x = np.asarray(ap_fixed(7, 3, "AP_RND", "AP_SAT")(X))

    def into(value, wl, iwl):
        return store(value, wl, iwl, True, "AP_RND", "AP_SAT", 0) * Fraction(2) ** (iwl - wl)

    z = [[into(into(sum(Fraction(a) * Fraction(w) for a, w in zip(row, ws, strict=True)), 7, 3) + Fraction(c), 7, 3)
          for ws, c in zip(W, b, strict=True)] for row in x]  # fmt: skip
    training.step(X, Y)
    for o, k in itertools.product(range(2), range(4)):
        g = into(sum((z[n][o] - Fraction(Y[n, o])) * Fraction(x[n, k]) for n in range(3)) / 3, 9, 4)
        moved = into(Fraction(W[o, k]) + into(-Fraction(float(np.float32(0.3))) * g, 8, 2), 7, 3)
        assert training.weights()["dense0.weight"][o, k] == moved


def test_bad_arguments():
    model, X, Y = problem(4, num_hidden=())
    good = formats()
    no_gradient = {"__default__": {k: v for k, v in good["__default__"].items() if k != "gradient"}}
    for precision, options, text in (
        (good, {"learning_rate": 0.0}, "above 0"), (good, {"learning_rate": float("nan")}, "above 0"),
        (good, {"loss_mode": "mae"}, "keras_mse"),
        (no_gradient, {}, "dense0.gradient needs"), (good, {"accumulate": "mac"}, "per_mac"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            train_integer(model, precision, **options)
    training = train_integer(model, good)
    before = training.weights()
    with pytest.raises(ValueError, match=r"gives \(4, 2\), Y has \(4, 1\)"):
        training.step(X, Y[:, :1])
    assert all(np.array_equal(a, b) for a, b in zip(before.values(), training.weights().values(), strict=True))
