"""What a hardware flow reads: configurations, weights, quantisers, traces."""

import re

import numpy as np
import pytest

import keydnn
from keydnn.stability import (
    AffineDataset,
    FitHistory,
    LinearBlockModel,
    PrecisionDict,
    c_header,
    compare_trace,
    quantizer_list,
    stack_precision,
    to_hls4ml_config,
    write_weights,
)  # fmt: skip
from keydnn.stability.dtypes import ap_fixed
from keydnn.stability.export import read_trace

DATA = AffineDataset(5, seed=0)


def model():
    return LinearBlockModel(DATA, num_hidden=[3], activation="relu", seed=1)


def test_the_whole_configuration():
    p = {
        "input": {"value": "ap_ufixed<8,0>"},
        "dense0": {"weight": "ap_fixed<8,2>", "bias": "ap_fixed<6,2>", "accumulator": "ap_fixed<16,6>", "activation": "ap_fixed<9,3>"},
        "activation0": {"activation": "ap_ufixed<7,3,AP_RND,AP_SAT>"},
        "dense1": {"weight": "ap_fixed<10,2>", "bias": None},
    }
    with pytest.warns(UserWarning, match="dense1 has no format for its bias; it takes that of the weights"):
        config = to_hls4ml_config(model(), p, default="fixed<18,8>", reuse_factor=4, strategy="Resource", maximum="ap_fixed<24,12>")
    tail = "AP_TRN,AP_WRAP>"
    assert config == {
        "Model": {
            "Precision": {"default": f"ap_fixed<18,8,{tail}", "maximum": f"ap_fixed<24,12,{tail}"},
            "ReuseFactor": 4,
            "Strategy": "Resource",
        },
        "LayerName": {
            "model_input": {"Precision": {"result": f"ap_ufixed<8,0,{tail}"}},
            "dense0": {"Precision": {
                "weight": f"ap_fixed<8,2,{tail}", "bias": f"ap_fixed<6,2,{tail}", "accum": f"ap_fixed<16,6,{tail}",
                "result": f"ap_fixed<9,3,{tail}",
            }},
            "activation0": {"Precision": {"result": "ap_ufixed<7,3,AP_RND,AP_SAT>"}},
            "dense1": {"Precision": {"weight": f"ap_fixed<10,2,{tail}", "bias": f"ap_fixed<10,2,{tail}"}},
        },
    }  # fmt: skip


def test_the_training_block():
    p = stack_precision(8, 2).replace(
        dense1={"gradient": "ap_fixed<18,7>", "adam_v": "ap_fixed<30,4>", "gradient_accum": "ap_fixed<26,12>"}
    )
    block = to_hls4ml_config(model(), p, training=True)["Training"]
    assert block["Precision"] == {
        "loss": "ap_fixed<16,12,AP_RND,AP_SAT>", "loss_grad": "ap_fixed<18,7,AP_TRN,AP_WRAP>", "alpha": "ap_fixed<16,4,AP_TRN,AP_WRAP>",
        "controller_metric": "ap_fixed<32,16,AP_TRN,AP_WRAP>",
    }  # fmt: skip
    first, last = block["LayerName"]["dense0"], block["LayerName"]["dense1"]
    assert set(first) == {
        "grad_in", "grad_out", "weight_grad", "bias_grad", "gradient_accum", "raw_update", "update", "optimizer_state",
    }  # fmt: skip
    assert first["gradient_accum"] == "ap_fixed<20,10,AP_RND,AP_SAT>" and last["gradient_accum"] == "ap_fixed<26,12,AP_TRN,AP_WRAP>"
    assert first["weight_grad"] == "ap_fixed<12,4,AP_RND,AP_SAT>" and first["optimizer_state"] == first["update"]
    assert last["optimizer_state"] == "ap_fixed<30,4,AP_TRN,AP_WRAP>" and list(block["LayerName"]) == ["dense0", "dense1"]
    silent = to_hls4ml_config(model(), {}, training=True)["Training"]
    assert silent["Precision"]["loss"] == "ap_fixed<32,16,AP_TRN,AP_WRAP>"
    assert silent["LayerName"]["dense0"]["grad_in"] == "ap_fixed<20,8,AP_TRN,AP_WRAP>"
    assert silent["LayerName"]["dense0"]["gradient_accum"] == "ap_fixed<28,14,AP_TRN,AP_WRAP>"
    with pytest.warns(UserWarning, match="has 16 fractional bits; the square of one unit of dense0's weights .* needs 21"):
        to_hls4ml_config(model(), {"dense0": {"weight": "ap_fixed<12,2>", "bias": "ap_fixed<12,2>"}}, training=True)


def test_what_hls4ml_does_not_have():
    for dtype in ("ap_fixed<8,2,AP_TRN,AP_WRAP_SM>", "ap_fixed<8,2,AP_RND_STOCH,AP_SAT>"):
        with pytest.raises(ValueError, match="have no counterpart"):
            to_hls4ml_config(model(), {"dense0": {"weight": dtype, "bias": "ap_fixed<8,2>"}})
    with pytest.raises(ValueError, match="fixed-point formats only"):
        to_hls4ml_config(model(), {"dense0": {"activation": "fp16"}})
    with pytest.raises(ValueError, match="strategy must be"):
        to_hls4ml_config(model(), {}, strategy="Fast")
    with pytest.raises(ValueError, match="reuse_factor must be"):
        to_hls4ml_config(model(), {}, reuse_factor=0)
    with pytest.raises(ValueError, match="no layer is called 'dense7'"):
        to_hls4ml_config(model(), {"dense7": {}})


def test_weights_and_header(tmp_path):
    net = model()
    q = ap_fixed(6, 2, "AP_RND", "AP_SAT")
    p = {"dense0": {"weight": q, "bias": "ap_ufixed<8,4>"}, "dense1": {"weight": "ap_fixed<17,2>"}}
    files = write_weights(net, p, tmp_path / "w")
    assert [f.name for f in files] == ["dense0_weight.txt", "dense0_bias.txt", "dense1_weight.txt"]
    expected = q(net.model["dense0"].weight.numpy())
    np.testing.assert_array_equal(np.array(files[0].read_text().split(","), float).reshape(expected.shape), expected)
    text = c_header(net, p)
    numbers = re.search(r"int8_t dense0_weight\[12\] = \{(.*)\};", text)[1]
    np.testing.assert_array_equal(np.array(numbers.split(","), int) * q.quantum, expected.reshape(-1))
    assert "int16_t dense0_bias[3]" in text and "int32_t dense1_weight[6]" in text and text.startswith("#ifndef KEYDNN_WEIGHTS_H")
    with pytest.raises(ValueError, match="has 70 bits"):
        c_header(net, {"dense0": {"weight": "ap_fixed<70,2>"}})


def test_a_recurrent_layer_has_its_weights_too(tmp_path):
    net = keydnn.Sequential()
    net.add(keydnn.RNN(2, 3, return_sequences=False, return_state=False), name="rnn0")
    files = write_weights(net, {"rnn0": {"weight": "ap_fixed<8,2>", "recurrent_weight": "ap_fixed<8,2>"}}, tmp_path)
    assert [f.name for f in files] == ["rnn0_cell_W_ih.txt", "rnn0_cell_W_hh.txt"]
    own = dict.fromkeys(("weight", "recurrent_weight", "bias", "accumulator"), "ap_fixed<8,2>")
    assert set(to_hls4ml_config(net, {"rnn0": own})["LayerName"]["rnn0"]["Precision"]) == {"weight", "recurrent_weight", "bias", "accum"}


def test_quantisers():
    found = quantizer_list(PrecisionDict({"dense0": {"weight": "ap_fixed<8,2,AP_RND_CONV,AP_SAT_SYM>", "bias": None, "update": "fp16"}}))
    assert found == [{
        "tensor": "dense0.weight", "scale": 2.0**-6, "zero_point": 0, "bit_width": 8, "signed": True, "narrow": True,
        "rounding_mode": "ROUND", "overflow_mode": "AP_SAT_SYM", "format": "ap_fixed<8,2,AP_RND_CONV,AP_SAT_SYM>",
    }]  # fmt: skip


def test_traces(tmp_path):
    path = tmp_path / "loss.txt"
    path.write_text(
        "# loss of the firmware\n# epoch sample global_step sample_index value\n0 0 0 3 4.0\n0 1 1 1 2.5\n1 0 2 3 1.0\n1 1 9 1 0.5\n"
    )
    found = compare_trace(path, FitHistory(loss=[4.0, 2.0, 1.25, 0.5]))
    assert found.steps.tolist() == [0, 1, 2] and found.max_difference == 0.5 and found.history.tolist() == [4.0, 2.0, 1.25]
    assert read_trace(path)["sample_index"].tolist() == [3, 1, 3, 1]
    with pytest.raises(ValueError, match="has no 'rmse'"):
        compare_trace(path, FitHistory(loss=[1.0]), "rmse")
    path.write_text("1 2 3\n")
    with pytest.raises(ValueError, match="line 1 has 3 numbers"):
        read_trace(path)
    path.write_text("a b c d e\n")
    with pytest.raises(ValueError, match="line 1 is no row"):
        read_trace(path)
