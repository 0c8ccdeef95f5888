"""The JSON checkpoint: its form to the letter, both directions, and no change when something is wrong."""

import base64
import copy
import gzip
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import keydnn
from keydnn.domain.errors import CheckpointError
from keydnn.saving import from_payload, load_payload_, read_json, to_payload, write_json
from keydnn.saving.json_v1 import decode, encode


def small_model():
    model = keydnn.Sequential(keydnn.Linear(3, 4), keydnn.BatchNorm1d(4), keydnn.Dropout(0.25), keydnn.Linear(4, 2, bias=False))
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.copy_from_numpy(np.random.rand(*tensor.shape))
    return model


def snapshot(model):
    return {name: array.tobytes() for name, array in model.state_dict().items()}


def test_the_envelope_and_an_entry_to_the_letter(tmp_path):
    model = keydnn.Sequential(keydnn.Linear(2, 1))
    model[0].weight.copy_from_numpy(np.array([[1.0, -2.5]]))
    model[0].bias.copy_from_numpy(np.array([0.5]))
    model.save_json(tmp_path / "m.json")
    assert (
        (tmp_path / "m.json").read_text(encoding="utf-8")
        == """{
  "arch": {
    "children": {
      "0": {
        "children": {},
        "config": {
          "bias": true,
          "device": "cpu",
          "dtype": "float32",
          "in_features": 2,
          "initializer": "xavier_uniform",
          "out_features": 1
        },
        "type": "Linear"
      }
    },
    "config": {},
    "type": "Sequential"
  },
  "format": "keydnn.json.ckpt.v1",
  "state": {
    "0.bias": {
      "b64": "AAAAPw==",
      "dtype": "<f4",
      "order": "C",
      "shape": [
        1
      ]
    },
    "0.weight": {
      "b64": "AACAPwAAIMA=",
      "dtype": "<f4",
      "order": "C",
      "shape": [
        1,
        2
      ]
    }
  }
}"""
    )


@given(
    array=hnp.arrays(
        dtype=st.sampled_from(["<f4", ">f4", "<f8", ">f8", "<f2", "<i8", ">i2", "u1", "?"]),
        shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    transpose=st.booleans(),
)
def test_any_array_goes_through_an_entry_bit_for_bit(array, transpose):
    array = array.T if transpose else array
    entry = json.loads(json.dumps(encode(array)))
    found = decode(entry)
    assert (found.shape, found.dtype, found.tobytes()) == (array.shape, array.dtype, array.tobytes())
    assert base64.b64decode(entry["b64"]) == array.tobytes(order="C")
    assert entry.keys() == {"b64", "dtype", "shape", "order"} and entry["order"] == "C"


def test_the_round_trip_keeps_every_bit_buffers_too(tmp_path):
    model = small_model()
    model.save_json(tmp_path / "m.json")
    again = keydnn.Sequential.load_json(tmp_path / "m.json")
    assert snapshot(again) == snapshot(model)
    assert again.is_built
    assert to_payload(again) == to_payload(model)
    x = keydnn.rand((5, 3))
    np.testing.assert_array_equal(again.predict(x).to_numpy(), model.predict(x).to_numpy())


def test_the_payload_in_memory_is_the_one_in_the_file(tmp_path):
    model = small_model()
    model.save_json(tmp_path / "m.json")
    payload = model.to_json_payload()
    assert payload == json.loads((tmp_path / "m.json").read_text())
    assert set(payload) == {"format", "arch", "state"}


def test_weights_alone_go_into_the_same_objects():
    model, other = small_model(), small_model()
    objects = [id(p) for p in other.parameters()]
    other.from_json_payload_(model.to_json_payload())
    assert snapshot(other) == snapshot(model)
    assert [id(p) for p in other.parameters()] == objects


def test_weights_for_a_lazy_layer_without_parameters_are_not_dropped_silently():
    built = keydnn.Sequential(keydnn.Linear(2, 3), keydnn.Dense(1))
    built.build((1, 2))
    lazy = keydnn.Sequential(keydnn.Linear(2, 3), keydnn.Dense(1))
    before = snapshot(lazy)
    for load, data in [(lazy.from_json_payload_, to_payload(built)), (lazy.load_state_payload_, to_payload(built)["state"])]:
        with pytest.raises(RuntimeError, match="call build"):
            load(data)
    assert snapshot(lazy) == before
    assert len(from_payload(to_payload(lazy))[1]._parameters) == 0  # a lazy layer stays lazy in a file


@pytest.mark.parametrize("text", ["f4,", ",", "O", "(2,)f4", "M8", "V3", "f3", "f99", "U4", "float128x", "f4 ", "1f4"])
def test_a_text_that_is_no_dtype_of_numbers(text):
    payload = keydnn.Sequential(keydnn.Linear(2, 1)).to_json_payload()
    with pytest.raises(ValueError, match="no type of numbers"):
        decode({**payload["state"]["0.weight"], "dtype": text}, "0.weight")
    payload["arch"]["children"]["0"]["config"]["dtype"] = text
    with pytest.raises((TypeError, ValueError)):
        keydnn.saving.from_payload(payload)


def test_stored_dtypes_are_cast_to_the_parameters_dtype():
    model = keydnn.Sequential(keydnn.Linear(2, 1, dtype="float64"), keydnn.Linear(1, 1))
    payload = to_payload(model)
    assert payload["state"]["0.weight"]["dtype"] == "<f8"
    payload["state"]["0.weight"] = encode(np.array([[1, 2]], dtype=">i4"))
    payload["state"]["1.weight"] = encode(np.array([[1e300]], dtype=">f8"))
    load_payload_(model, payload)
    assert model[0].weight.dtype == np.float64 and model[0].weight.tolist() == [[1.0, 2.0]]
    assert model[1].weight.dtype == np.float32 and model[1].weight.tolist() == [[float("inf")]]
    assert from_payload(payload)[0].weight.dtype == np.float64


def test_extra_keys_anywhere_are_ignored_and_missing_buffers_keep_their_values():
    model = small_model()
    payload = copy.deepcopy(to_payload(model))
    payload["meta"] = {"epoch": 3}
    payload["arch"]["comment"] = payload["arch"]["children"]["0"]["config"]["sparsity"] = 1
    payload["state"]["7.nothing"] = "not even an entry"
    for name in ("1.running_mean", "1.running_var"):
        del payload["state"][name]
    again = from_payload(payload)
    assert again[1].running_mean.tolist() == [0.0] * 4 and again[1].running_var.tolist() == [1.0] * 4
    before = model[1].running_mean.tolist()
    load_payload_(model, payload)
    assert model[1].running_mean.tolist() == before


def test_missing_config_keys_take_the_layers_defaults():
    payload = to_payload(keydnn.Sequential(keydnn.Linear(2, 3)))
    config = payload["arch"]["children"]["0"]["config"]
    for key in ("dtype", "initializer", "device", "bias"):
        del config[key]
    layer = from_payload(payload)[0]
    assert layer.get_config() == keydnn.Linear(2, 3).get_config()


def test_gzip(tmp_path):
    model = small_model()
    model.save_json(tmp_path / "m.json.gz")
    data = (tmp_path / "m.json.gz").read_bytes()
    assert json.loads(gzip.decompress(data)) == to_payload(model)
    assert snapshot(keydnn.Sequential.load_json(tmp_path / "m.json.gz")) == snapshot(model)
    for n in (2, 9, len(data) // 2, len(data) - 1):
        (tmp_path / "cut").write_bytes(data[:n])
        with pytest.raises(CheckpointError, match="damaged or truncated"):
            read_json(tmp_path / "cut")


# --- what is wrong ----------------------------------------------------------------------------------------------


def damages():
    """(what, function that damages a payload, error, text of the message)."""

    def entry(name, **changes):
        return lambda p: p["state"][name].update(changes)

    return [
        ("format", lambda p: p.update(format="keydnn.json.ckpt.v9"), ValueError, "v9.*keydnn.json.ckpt.v1"),
        ("no format", lambda p: p.pop("format"), ValueError, "format None"),
        ("no arch", lambda p: p.pop("arch"), KeyError, "'arch' is missing"),
        ("no state", lambda p: p.pop("state"), KeyError, "'state' is missing"),
        ("state a list", lambda p: p.update(state=[]), ValueError, "must be an object, got list"),
        ("missing parameter", lambda p: p["state"].pop("3.weight"), KeyError, r"3\.weight"),
        ("shape", entry("3.weight", shape=[4, 2]), ValueError, r"'3.weight' has shape \(4, 2\), the model expects \(2, 4\)"),
        ("too few bytes", entry("3.weight", b64="AAAA"), ValueError, r"'3.weight' has 3 bytes"),
        ("no base64", entry("3.weight", b64="A*B="), ValueError, "'3.weight' is damaged"),
        ("b64 a number", entry("3.weight", b64=5), ValueError, "'3.weight' is damaged"),
        ("b64 not ASCII", entry("3.weight", b64="é"), ValueError, "'3.weight' is damaged"),
        ("dtype", entry("3.weight", dtype="<f5"), ValueError, "dtype '<f5'"),
        ("dtype object", entry("3.weight", dtype="O"), ValueError, "dtype 'O'"),
        ("dtype a number", entry("3.weight", dtype=4), ValueError, "dtype 4"),
        ("order", entry("3.weight", order="F"), ValueError, "order 'F'"),
        ("negative size", entry("3.weight", shape=[-2, -4]), ValueError, r"shape \[-2, -4\]"),
        ("size no int", entry("3.weight", shape=[2.0, 4]), ValueError, r"shape \[2.0, 4\]"),
        ("shape a number", entry("3.weight", shape=8), ValueError, "shape 8"),
        ("entry a list", lambda p: p["state"].update({"3.weight": []}), ValueError, "'3.weight' must be an object"),
        ("no b64", lambda p: p["state"]["3.weight"].pop("b64"), KeyError, "'3.weight' has no 'b64'"),
        ("buffer of another shape", entry("1.running_var", shape=[2, 2]), ValueError, "1.running_var"),
        ("damaged buffer", entry("1.running_mean", b64="AAAA"), ValueError, "1.running_mean"),
    ]


@pytest.mark.parametrize("what, damage, error, text", damages(), ids=[row[0] for row in damages()])
def test_bad_weights_are_one_clear_error_and_change_nothing(tmp_path, what, damage, error, text):
    model = small_model()
    payload = to_payload(small_model())
    damage(payload)
    before = snapshot(model)
    with pytest.raises(error, match=text) as caught:
        load_payload_(model, payload)
    assert isinstance(caught.value, CheckpointError)
    assert snapshot(model) == before
    (tmp_path / "m.json").write_text(json.dumps(payload))
    with pytest.raises(error, match=text):
        keydnn.Sequential.load_json(tmp_path / "m.json")


def node_damages():
    def first(**changes):
        return lambda arch: arch["children"]["0"].update(changes)

    return [
        ("unknown type", first(type="Perceptron"), ValueError, "unknown module type 'Perceptron'.*Linear"),
        ("no type", lambda arch: arch["children"]["0"].pop("type"), KeyError, "node '0' has no 'type'"),
        ("type a list", first(type=["Linear"]), ValueError, "'type' of node '0'"),
        ("node a number", lambda arch: arch["children"].update({"0": 5}), ValueError, "node '0' must be an object, got int"),
        ("config a list", first(config=[1]), ValueError, "'config' of node '0'"),
        ("children a list", lambda arch: arch.update(children=[1]), ValueError, "'children' of the root node"),
        ("a child without name", lambda arch: arch["children"].update({"": arch["children"]["2"]}), ValueError, "named ''"),
        ("a child with dots", lambda arch: arch["children"].update({"0.x": arch["children"]["2"]}), ValueError, "named '0.x'"),
        ("config lacks a key", lambda arch: arch["children"]["0"]["config"].pop("out_features"), KeyError, "Linear at '0'.*out_features"),
        ("config with a bad value", lambda arch: arch["children"]["0"]["config"].update(out_features=-1), ValueError, "Linear at '0'.*-1"),
        (
            "config of a wrong type",
            lambda arch: arch["children"]["0"]["config"].update(out_features="many"),
            ValueError,
            "Linear at '0'.*many",
        ),
        ("dtype", lambda arch: arch["children"]["0"]["config"].update(dtype="float7"), ValueError, "float7"),
        ("device", lambda arch: arch["children"]["0"]["config"].update(device="tpu"), ValueError, "Invalid device 'tpu'"),
        ("order misses a child", lambda arch: arch.update(order=["0"]), ValueError, "'order' of the root node"),
        ("order of numbers", lambda arch: arch.update(order=[0, 1, 2, 3]), ValueError, "'order' of the root node"),
        ("shared with nothing", first(shared_with="9"), ValueError, "'0' is shared with '9'"),
        ("shared with itself", first(shared_with="0"), ValueError, "contain itself"),
        ("shared with its parent", first(shared_with=""), ValueError, "contain itself"),
    ]


@pytest.mark.parametrize("what, damage, error, text", node_damages(), ids=[row[0] for row in node_damages()])
def test_bad_structure_is_one_clear_error(what, damage, error, text):
    payload = to_payload(small_model())
    damage(payload["arch"])
    with pytest.raises(error, match=text):
        from_payload(payload)


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"format": 1}', b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_files_that_are_no_checkpoint(tmp_path, data):
    path = tmp_path / "m.json"
    path.write_bytes(data)
    with pytest.raises(CheckpointError):
        read_json(path)
    assert path.read_bytes() == data


@pytest.mark.slow
def test_every_truncation_of_a_file_is_one_clear_error(tmp_path):
    path = tmp_path / "m.json"
    small_model().save_json(path)
    data = path.read_bytes()
    for n in range(0, len(data), 7):
        path.write_bytes(data[:n])
        with pytest.raises(CheckpointError, match="m.json is no readable checkpoint"):
            keydnn.Sequential.load_json(path)


def test_a_missing_file_is_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        keydnn.Sequential.load_json(tmp_path / "m.json")


class Loose(keydnn.Module):
    """Has no config hooks."""

    def forward(self, x):
        return x


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "deep" / "m.json"
    with pytest.raises(NotImplementedError, match="Loose.*get_config"):
        keydnn.Sequential(Loose()).save_json(path)
    assert os.listdir(tmp_path) == []
    small_model().save_json(path)
    data = path.read_bytes()
    with pytest.raises(NotImplementedError, match="Loose.*get_config"):
        keydnn.Sequential(Loose()).save_json(path)
    assert path.read_bytes() == data
    assert os.listdir(path.parent) == ["m.json"]


def test_a_checkpoint_of_another_class(tmp_path):
    class Special(keydnn.Sequential):
        pass

    write_json(tmp_path / "m.json", to_payload(small_model()))
    with pytest.raises(TypeError, match="Sequential.*not a Special"):
        Special.load_json(tmp_path / "m.json")
    write_json(tmp_path / "layer.json", to_payload(keydnn.Linear(1, 1)))
    with pytest.raises(TypeError, match="Linear.*not a Sequential"):
        keydnn.Sequential.load_json(tmp_path / "layer.json")


def test_a_nested_file_without_statistics_and_orders_as_older_programs_wrote_it(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "0.0.gamma": (2,), "0.0.beta": (2,), "0.1.weight": (3, 2), "0.1.bias": (3,), "0.10.W.weight": (3, 3), "0.10.W.bias": (3,),
        "head.weight": (1, 3), "head.bias": (1,),
    }  # fmt: skip
    arrays = {name: rng.normal(size=shape).astype("<f4") for name, shape in arrays.items()}

    def node(kind, children=None, **config):
        return {"type": kind, "config": config, "children": children or {}}

    def linear(kind, n, m):
        return node(kind, in_features=n, out_features=m, bias=True, device="cpu", dtype="float32", initializer="xavier", unheard_of=[1, {}])

    first = {
        "0": node("BatchNorm1d", num_features=2, eps=1e-5, momentum=0.1, affine=True, device="cpu"),
        "1": linear("Dense", 2, 3),
        "10": node("Sequential", {"W": linear("Linear", 3, 3)}),
        "9": node("ReLU"),
    }
    state = {
        name: {"b64": base64.b64encode(a.tobytes()).decode(), "dtype": "<f4", "shape": list(a.shape), "order": "C"}
        for name, a in arrays.items()
    }
    payload = {
        "format": "keydnn.json.ckpt.v1",
        "arch": node("Sequential", {"head": linear("Linear", 3, 1), "0": node("Sequential", first)}),
    }
    (tmp_path / "nested.json").write_text(json.dumps({**payload, "state": state}, indent=2, sort_keys=True), encoding="utf-8")
    model = keydnn.Sequential.load_json(tmp_path / "nested.json")
    assert [name for name, _ in model[0].named_children()] == ["0", "1", "9", "10"] and model.is_built
    x = rng.normal(size=(5, 2)).astype(np.float32)
    a = {name: array.astype(np.float64) for name, array in arrays.items()}
    h = x / np.sqrt(1 + 1e-5) * a["0.0.gamma"] + a["0.0.beta"]
    h = np.maximum(h @ a["0.1.weight"].T + a["0.1.bias"], 0) @ a["0.10.W.weight"].T + a["0.10.W.bias"]
    want = h @ a["head.weight"].T + a["head.bias"]
    np.testing.assert_allclose(model.predict(x).to_numpy(), want, rtol=1e-5, atol=1e-6)
