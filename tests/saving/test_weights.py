"""Files of weights, changed names, partial loading, migrations, and files that ask for more than they hold."""

import gzip
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keydnn
from keydnn.domain.errors import CheckpointError
from keydnn.saving import json_v1, migrate, read_weights, register_migration, renamed, write_weights
from keydnn.saving.json_v1 import FORMAT


def model(*sizes):
    return keydnn.Sequential(*(keydnn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)), keydnn.BatchNorm1d(sizes[-1]))


def values(m):
    return {name: array.tolist() for name, array in m.state_dict().items()}


@pytest.mark.parametrize("kind", ["safetensors", "json", "json.gz", "npz", "state"])
def test_weights_come_back_from_every_kind_of_file(tmp_path, kind):
    a, b, path = model(3, 4, 2), model(3, 4, 2), tmp_path / f"w.{kind}"
    a[2].running_mean.fill(0.5)
    write = {"safetensors": a.save_weights, "state": a.save, "npz": lambda p: np.savez(p, **a.state_dict())}
    write.get(kind, a.save_json)(path)
    assert b.load_weights(path) == ([], []) and values(a) == values(b)


def test_safetensors_are_those_of_the_library(tmp_path):
    from safetensors.numpy import load_file, save_file

    write_weights(tmp_path / "a", {"x": np.arange(3, dtype=">f4"), "y": np.ones((2, 2), bool)}, {"made": "here"})
    found = load_file(tmp_path / "a")
    assert found["x"].tolist() == [0, 1, 2] and found["y"].dtype == bool
    save_file({"z": np.arange(4, dtype=np.float64).reshape(2, 2)}, tmp_path / "b")
    assert read_weights(tmp_path / "b")["z"].tolist() == [[0, 1], [2, 3]]
    with pytest.raises(TypeError, match="'s' has dtype"):
        write_weights(tmp_path / "c", {"s": np.array(["text"])})


def handmade(path, kind, shape, data):
    head = json.dumps({"w": {"dtype": kind, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)
    return path


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"])
def test_every_type_of_numbers_in_safetensors(tmp_path, dtype):
    array = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    write_weights(tmp_path / "w", {"w": array, "empty": array[:0], "single": array[0, 1].copy()})
    found = read_weights(tmp_path / "w")
    assert found["w"].dtype == array.dtype and np.array_equal(found["w"], array)
    assert found["empty"].shape == (0, 3) and found["single"].shape == () and found["single"] == 1


def test_bfloat16_becomes_float32_and_smaller_types_are_told(tmp_path):
    bits = np.array([0x3F80, 0xC000, 0x7F80, 0x0001], "<u2")  # 1, -2, infinity, the least number above 0
    found = read_weights(handmade(tmp_path / "b", "BF16", [2, 2], bits.tobytes()))["w"]
    assert found.dtype == np.float32 and found.tolist() == [[1.0, -2.0], [np.inf, 2.0**-133]]
    with pytest.raises(ValueError, match="'w' has elements of type F8_E4M3"):
        read_weights(handmade(tmp_path / "e", "F8_E4M3", [4], bytes(4)))


def test_names_are_changed():
    state = {"net.a.w": 1, "net.a.b": 2, "net.c": 3, "other": 4}
    assert renamed(state, None, "net") == {"a.w": 1, "a.b": 2, "c": 3}
    assert renamed(state, {"net.a.": "0.", "net.a.b": "bias", "other": None}) == {"0.w": 1, "bias": 2, "net.c": 3}
    assert renamed(state, {"net.": "n.", "net.a.": None}, "") == {"n.c": 3, "other": 4}
    assert renamed(state, str.upper) == {name.upper(): value for name, value in state.items()}
    with pytest.raises(ValueError, match="two entries get the name"):
        renamed(state, lambda name: "x")


def test_partial_loading_is_all_or_nothing_and_tells_what_it_left_out(tmp_path):
    a, b = model(3, 4, 2), model(3, 4, 5)
    a.save_weights(tmp_path / "a.safetensors")
    before = values(b)
    with pytest.raises(ValueError, match="1.weight"):
        b.load_weights(tmp_path / "a.safetensors", strict=False)
    with pytest.raises(KeyError, match="missing"):
        b.load_weights(tmp_path / "a.safetensors", key_map={"1.": None, "2.": None})
    assert values(b) == before
    missing, unknown = b.load_weights(tmp_path / "a.safetensors", strict=False, key_map={"1.": None, "2.": "9."})
    assert missing[:2] == ["1.weight", "1.bias"] and unknown[0] == "9.beta" and values(b)["0.weight"] == values(a)["0.weight"]
    payload = a.to_json_payload()
    assert b.from_json_payload_(payload, strict=False, key_map={"1.": None, "2.": None})[0] == ["1.weight", "1.bias", "2.gamma", "2.beta"]
    with pytest.raises(KeyError, match="1.weight"):
        b.from_json_payload_(payload, key_map={"1.": None, "2.": None})
    inner = keydnn.Sequential(keydnn.Linear(3, 4))
    assert inner.from_json_payload_({**payload, "state": {f"body.{k}": v for k, v in payload["state"].items()}}, prefix="body")[0] == []
    assert values(inner)["0.bias"] == values(a)["0.bias"]
    with pytest.raises(RuntimeError, match="build"):
        keydnn.Sequential(keydnn.Dense(3)).load_weights(tmp_path / "a.safetensors")


def test_older_formats_are_migrated(tmp_path):
    @register_migration("test.ckpt.v0")
    def _(payload):
        return {"format": FORMAT, "arch": payload["model"], "state": payload["weights"]}

    m = model(3, 2)
    new = m.to_json_payload()
    old = {"format": "test.ckpt.v0", "model": new["arch"], "weights": new["state"]}
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert values(keydnn.Sequential.load_json(tmp_path / "old.json")) == values(m)
    other = model(3, 2)
    other.from_json_payload_(old)
    assert values(other) == values(m) and migrate(new, FORMAT) is new
    with pytest.raises(KeyError, match="test.ckpt.v0"):
        migrate({"format": "test.ckpt.v0"}, FORMAT)
    with pytest.raises(ValueError, match="is a step from"):
        register_migration("test.ckpt.v0")(lambda payload: payload)
    (tmp_path / "odd.json").write_text('{"format": "test.ckpt.v9", "arch": {}, "state": {}}')
    with pytest.raises(ValueError, match="test.ckpt.v9"):
        keydnn.Sequential.load_json(tmp_path / "odd.json")


def test_migrations_that_lead_in_a_circle_end():
    register_migration("test.circle.a")(lambda payload: {"format": "test.circle.b"})
    register_migration("test.circle.b")(lambda payload: {"format": "test.circle.a"})
    assert migrate({"format": "test.circle.a"}, FORMAT)["format"].startswith("test.circle")


NODES = [
    {"type": "Linear", "config": {"in_features": 10**6, "out_features": 10**6}},
    {"type": "Linear", "config": {"in_features": 1, "out_features": 10**12}},
    {"type": "BatchNorm1d", "config": {"num_features": 10**11, "affine": False}},
    {"type": "Conv2d", "config": {"in_channels": 1000, "out_channels": 1000, "kernel_size": [1000, 1000]}},
]


@pytest.mark.parametrize("node", NODES, ids=lambda node: f"{node['type']}{len(str(node))}")
def test_a_small_file_cannot_ask_for_a_large_model(node):
    payload = {"format": FORMAT, "arch": {"type": "Sequential", "children": {"0": node}}, "state": {}}
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more than the file has weights for"):
            keydnn.saving.from_payload(payload)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_file_that_unpacks_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(json_v1, "MOST_UNPACKED", 1 << 16)
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b'{"format": "' + b" " * (1 << 20)))
    with pytest.raises(CheckpointError, match="unpacks to more"):
        read_weights(tmp_path / "a.json.gz")


@pytest.mark.parametrize("data", [b"", b"PK", b"PK\x05\x06" + bytes(18), b"hello world, this is text", b"\x1f\x8b", b"{", b"12345678{}"])
def test_other_files(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    if data.startswith(b"PK\x05"):
        assert read_weights(tmp_path / "a") == {}  # an empty archive
        return
    with pytest.raises(ValueError, match=str(tmp_path)):
        read_weights(tmp_path / "a")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, m = tmp_path_factory.mktemp("files"), model(2, 3)
    m.save_weights(folder / "a.safetensors")
    m.save_json(folder / "a.json")
    m.save_json(folder / "a.json.gz")
    np.savez(folder / "a.npz", **m.state_dict())
    return [path.read_bytes() for path in sorted(folder.iterdir())], folder / "fuzzed"


@given(data=st.data())
def test_flipped_and_cut_files_give_arrays_or_clear_errors(files, data):
    contents, path = files
    whole = bytearray(data.draw(st.sampled_from(contents)))
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    try:
        assert all(isinstance(array, np.ndarray) for array in read_weights(path).values())
    except CheckpointError:
        pass
    try:
        keydnn.Sequential.load_json(path)
    except (CheckpointError, ValueError):
        pass
