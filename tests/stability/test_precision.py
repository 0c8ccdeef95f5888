"""PrecisionDict: every rule of lookup, parsing and validation."""

import pytest

import keydnn
from keydnn.stability import RESERVED_NAMES, PrecisionDict, ensure_precision_dict
from keydnn.stability.dtypes import ap_fixed, fp8_e4m3

TEXT, W = "ap_fixed<8,2>", ap_fixed(8, 2)


@pytest.fixture
def model():
    net = keydnn.Sequential()
    net.add(keydnn.Linear(4, 3), name="dense0")
    net.add(keydnn.Tanh(), name="activation0")
    net.add(keydnn.Linear(3, 2), name="dense1")
    return net


def test_lookup_order():
    p = PrecisionDict({"dense0": {"weight": TEXT, "bias": None}, "__default__": {"bias": "ap_int<4>", "update": TEXT}})
    assert p.dtype("dense0", "weight") == W
    assert p.dtype("dense0", "bias", "x") is None and not p.has("dense0", "bias")  # an explicit None masks the default
    assert p.dtype("dense1", "bias").WL == 4 and p.has("dense9", "update")
    assert p.dtype("dense1", "weight", "x") == "x" and p.dtype("dense1", "weight") is None
    assert PrecisionDict({"__default__": {"value": TEXT}}).dtype("input", "value") == W


def test_construction_and_assignment_parse():
    p = PrecisionDict({"dense0": {"weight": TEXT, "adam_m": W, "anything": "bf16"}})
    p["dense1"] = {"weight": "fixed<4,2,RND>"}
    p.update(dense2={"bias": "fp8_e4m3"})
    p.setdefault("loss", {"value": TEXT})
    p |= {"input": {"value": None}}
    assert p["dense1"]["weight"] == ap_fixed(4, 2, "AP_RND") and p["dense2"]["bias"] == fp8_e4m3 and p["loss"]["value"] == W
    assert p.layers() == ["dense0", "dense1", "dense2", "loss", "input"] and p.fields("dense0") == ["weight", "adam_m", "anything"]
    assert p.fields("none") == [] and RESERVED_NAMES == {"loss", "input", "__default__"}


@pytest.mark.parametrize(
    ("scopes", "error"),
    [
        ({"dense0": {"weight": "ap_fixed<8"}}, ValueError),
        ({"dense0": {"weight": 8}}, TypeError),
        ({"dense0": "ap_fixed<8,2>"}, TypeError),
        ({"dense0": {3: TEXT}}, TypeError),
        ({3: {"weight": TEXT}}, TypeError),
    ],
)
def test_bad_entries_leave_the_dict_as_it_was(scopes, error):
    with pytest.raises(error):
        PrecisionDict(scopes)
    p = PrecisionDict({"dense1": {"bias": TEXT}})
    with pytest.raises(error):
        p.update({"dense5": {"weight": TEXT}, **scopes})
    assert p == {"dense1": {"bias": W}}


def test_validation(model):
    PrecisionDict({"dense0": {}, "input": {"value": TEXT}, "__default__": {}}).validate_model(model)
    with pytest.raises(ValueError, match="dense7.*dense0, activation0, dense1"):
        PrecisionDict({"dense7": {}}).validate_model(model)
    with pytest.raises(ValueError, match="activation0, dense1"):
        PrecisionDict({"dense0": {}}).validate_model(model, allow_missing=False)
    model.add(keydnn.Linear(2, 2), name="loss")
    with pytest.raises(ValueError, match="must not be called loss"):
        PrecisionDict().validate_model(model)


def test_texts_and_copies(model):
    p = PrecisionDict({"dense0": {"weight": TEXT, "bias": None}, "dense1": {"weight": TEXT}})
    assert (
        repr(p)
        == p.describe()
        == (
            "PrecisionDict(\n  dense0\n    weight: ap_fixed<8,2,AP_TRN,AP_WRAP>\n    bias: None\n"
            "  dense1\n    weight: ap_fixed<8,2,AP_TRN,AP_WRAP>\n)"
        )
    )
    assert p.summary() == "ap_fixed<8,2,AP_TRN,AP_WRAP>: dense0.weight, dense1.weight\nNone: dense0.bias"
    assert PrecisionDict.from_json(p.to_json()) == p and p.to_dict()["dense0"]["bias"] is None
    changed = p.replace(dense0={"bias": "ap_int<4>"})
    assert p["dense0"]["bias"] is None and changed["dense0"]["bias"].WL == 4 and changed["dense0"]["weight"] == W
    assert p.bits(model) == 8 * 12 + 32 * 3 + 8 * 6 + 32 * 2


def test_ensure():
    p = PrecisionDict()
    assert ensure_precision_dict(None) is None and ensure_precision_dict(p) is p
    assert type(ensure_precision_dict({"input": {"value": TEXT}})) is PrecisionDict
    with pytest.raises(TypeError, match="mapping"):
        ensure_precision_dict("ap_fixed<8,2>")
