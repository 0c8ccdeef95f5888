"""Integer execution: bit for bit the quantised forward pass for every pair of modes; product by product as written out."""

import itertools

import numpy as np
import pytest

from keydnn import Tensor
from keydnn.stability import AffineDataset, LinearBlockModel, compare_integer, compile_integer
from keydnn.stability.dtypes import ap_fixed
from keydnn.stability.precision import PrecisionDict
from tests.stability.integer_rounding import OMODES, QMODES, store

DATA = AffineDataset(20, seed=1)


def formats(qmode, omode, w=6):
    tail = f"{qmode},{omode}>"
    return PrecisionDict({
        "__default__": {
            "weight": f"ap_fixed<{w},2,{tail}", "bias": f"ap_fixed<{w},1,{tail}", "accumulator": f"ap_fixed<{w + 1},2,{tail}",
            "activation": f"ap_fixed<{w},2,{tail}",
        },
        "input": {"value": f"ap_fixed<{w},1,{tail}"},
    })  # fmt: skip


@pytest.mark.parametrize(("qmode", "omode"), list(itertools.product(QMODES, OMODES)))
def test_dot_is_the_quantised_forward_pass(qmode, omode):
    model = LinearBlockModel(DATA, num_hidden=[3], activation="relu", seed=hash((qmode, omode)) % 7)
    rng = np.random.default_rng(0)
    model.set_weights([rng.standard_normal(w.shape) for w in model.get_weights()])  # large enough to overflow
    p = formats(qmode, omode)
    raw, dtype = compile_integer(model, p).forward_int(DATA.X)
    expected = model._forward_with_precision(Tensor(data=DATA.X), p, training=False).numpy()
    np.testing.assert_array_equal(np.ldexp(raw.astype(float), -dtype.fractional_bits), expected)


def test_per_mac_by_hand():
    model = LinearBlockModel(DATA, num_hidden=[], seed=0)
    for qmode, omode in itertools.product(QMODES, OMODES):
        p = formats(qmode, omode, 5)
        f = p["__default__"]
        W, b = (f[k](w, return_int=True) for k, w in zip(("weight", "bias"), model.get_weights(), strict=True))
        x = p["input"]["value"](DATA.X, return_int=True)

        def into(value, dtype, how=(qmode, omode)):
            return store(value, dtype.WL, dtype.IWL, True, *how, 0) * dtype.quantum

        raw, _ = compile_integer(model, p, "per_mac").forward_int(DATA.X)
        for n, o in itertools.product(range(3), range(2)):
            total = into(b[o] * f["bias"].quantum, f["accumulator"])
            for k in range(4):
                product = x[n, k] * p["input"]["value"].quantum * W[o, k] * f["weight"].quantum
                total = into(total + into(product, f["accumulator"]), f["accumulator"])
            assert raw[n, o] * f["activation"].quantum == into(total, f["activation"])


def test_where_the_two_differ():
    """Three products of 3/8 quanta: their sum rounds to one quantum, each alone to nothing."""
    model = LinearBlockModel(AffineDataset(4, seed=0, A=[[1.0, 1.0, 1.0]]), num_hidden=[], use_bias=False, seed=0)
    model.set_weights([np.full((1, 3), 0.375)])
    fine, coarse = dict.fromkeys(("weight", "value"), "ap_fixed<8,2>"), dict.fromkeys(("accumulator", "activation"), "ap_fixed<8,8,AP_RND>")
    p = {"__default__": fine | coarse}
    x = [[1.0, 1.0, 1.0]]
    assert compile_integer(model, p, "dot").forward_int(x)[0].tolist() == [[1]]
    assert compile_integer(model, p, "per_mac").forward_int(x)[0].tolist() == [[0]]
    found = compare_integer(model, x, p)
    assert found.first_difference == "dense0" and found.layers[0].max_lsb == 1 and found.layers[0].overflows == 0


def test_wide_formats_run_on_python_integers():
    model = LinearBlockModel(DATA, num_hidden=[], seed=0)
    narrow = dict.fromkeys(("weight", "bias", "activation", "value"), "ap_fixed<48,8,AP_RND,AP_SAT>")
    wide = {"__default__": narrow | {"accumulator": "ap_fixed<90,16>"}}
    raw, dtype = compile_integer(model, wide).forward_int(DATA.X)
    W, b = (w.astype(np.float64) for w in model.get_weights())
    np.testing.assert_allclose(raw.astype(float) * dtype.quantum, DATA.X @ W.T + b, atol=1e-9)
    same = compare_integer(model, DATA.X, wide)
    assert same.first_difference is None


def test_an_exact_accumulator_and_its_format():
    model = LinearBlockModel(DATA, num_hidden=[], use_bias=False, seed=0)
    p = {"dense0": {"weight": "ap_fixed<6,2>"}, "input": {"value": "ap_fixed<6,2>"}}
    raw, dtype = compile_integer(model, p).forward_int(DATA.X)
    exact = ap_fixed(6, 2)(DATA.X) @ ap_fixed(6, 2)(model.get_weights()[0]).T
    np.testing.assert_array_equal(raw * dtype.quantum, exact)
    p["dense0"]["accumulator"] = "ap_fixed<4,-1>"
    assert compare_integer(model, DATA.X, p).layers[0].overflows > 0


def test_bad_arguments():
    model = LinearBlockModel(DATA, num_hidden=[3], activation="tanh", seed=0)
    good = formats("AP_RND", "AP_SAT")
    for net, precision, mode, text in (
        (model, good, "dot", "no integer form"),
        (LinearBlockModel(DATA, num_hidden=[]), good, "mac", "accumulate"),
        (LinearBlockModel(DATA, num_hidden=[]), None, "dot", "without formats"),
        (LinearBlockModel(DATA, num_hidden=[]), {"input": {"value": "ap_int<4>"}}, "dot", "dense0.weight"),
        (LinearBlockModel(DATA, num_hidden=[]), {"__default__": {"weight": "fp16"}}, "dot", "fixed-point"),
        (LinearBlockModel(DATA, num_hidden=[]), {"dense9": {}}, "dot", "dense9"),
    ):
        with pytest.raises(ValueError, match=text):
            compile_integer(net, precision, mode)
