"""Checkpoints as msgpack: round trips, chunks, damage, and files that ask for more than they hold."""

import tracemalloc
import zlib

import numpy as np
import pytest

import keydnn
from keydnn.saving import from_payload, packed, read_msgpack, read_weights, register_migration, to_payload, write_msgpack

msgpack = pytest.importorskip("msgpack", reason="needs the msgpack extra: pip install '.[msgpack]'")


def model():
    keydnn.seed(0)
    return keydnn.Sequential(keydnn.Linear(3, 40), keydnn.BatchNorm1d(40), keydnn.Bidirectional(keydnn.LSTM(40, 2)))


@pytest.fixture
def path(tmp_path):
    write_msgpack(tmp_path / "m.msgpack", to_payload(model()))
    return tmp_path / "m.msgpack"


def edited(path, change):
    payload = msgpack.unpackb(path.read_bytes())
    change(payload)
    path.write_bytes(msgpack.packb(payload))
    return path


@pytest.mark.parametrize("compress", [False, True])
def test_it_comes_back_as_it_was(tmp_path, monkeypatch, compress):
    monkeypatch.setattr(packed, "CHUNK", 100)  # many chunks
    m = model()
    payload = m.to_json_payload()
    write_msgpack(tmp_path / "m.msgpack", payload, compress=compress)
    assert read_msgpack(tmp_path / "m.msgpack") == payload
    again = from_payload(read_msgpack(tmp_path / "m.msgpack"), keydnn.Sequential)
    assert again.to_json_payload() == payload
    chunks = msgpack.unpackb((tmp_path / "m.msgpack").read_bytes())["state"]["0.weight"]["chunks"]
    assert len(chunks) == 5 and (len(chunks[0]) == 100) != compress


def test_it_is_smaller_than_json(tmp_path):
    m = keydnn.Sequential(keydnn.Linear(100, 100))
    m.save_json(tmp_path / "m.json")
    write_msgpack(tmp_path / "m.msgpack", m.to_json_payload(), compress=False)
    assert (tmp_path / "m.msgpack").stat().st_size < 0.8 * (tmp_path / "m.json").stat().st_size


def test_empty_arrays_and_other_types(tmp_path):
    arrays = {"a": np.zeros((0, 3), "f4"), "b": np.array(True), "c": np.arange(3, dtype=">i8")}
    payload = {**to_payload(model()), "state": {name: packed.json_v1.encode(a) for name, a in arrays.items()}}
    write_msgpack(tmp_path / "m.msgpack", payload)
    found = read_weights(tmp_path / "m.msgpack")
    assert {n: (a.dtype, a.tolist()) for n, a in found.items()} == {n: (a.dtype, a.tolist()) for n, a in arrays.items()}


def test_a_part_of_it_is_loaded(path):
    other = keydnn.Sequential(keydnn.Linear(3, 40), keydnn.Linear(40, 2))
    missing, unknown = other.load_weights(path, strict=False, key_map={"1.": None, "2.": None})
    assert missing == ["1.weight", "1.bias"] and unknown == []
    assert np.array_equal(other[0].weight.numpy(), model()[0].weight.numpy())


def test_older_formats_are_brought_up(path, monkeypatch):
    from keydnn.saving import migrations

    monkeypatch.setattr(migrations, "_STEPS", dict(migrations._STEPS))

    @register_migration("keydnn.msgpack.ckpt.v0")
    def _(payload):
        return {**payload, "format": packed.FORMAT, "arch": payload["graph"]}

    edited(path, lambda p: p.update(format="keydnn.msgpack.ckpt.v0", graph=p.pop("arch")))
    assert from_payload(read_msgpack(path)).to_json_payload() == model().to_json_payload()


def entry(**changes):
    return lambda payload: payload["state"]["0.bias"].update(changes)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda p: p.update(format="keydnn.msgpack.ckpt.v9"), "'keydnn.msgpack.ckpt.v9' is not supported"),
        (lambda p: p.pop("arch"), "'arch' is missing"),
        (lambda p: p.update(state=[1]), "'state' must be a map, got list"),
        (lambda p: p["state"].update({"0.bias": 3}), "must be a map, got int"),
        (lambda p: p["state"]["0.bias"].pop("chunks"), "has no 'chunks'"),
        (entry(dtype="O"), "no type of numbers"),
        (entry(shape=[-1]), "expected a list of sizes"),
        (entry(shape=[2**40, 2**40]), "more than its file justifies"),
        (entry(shape=[39]), "do not hold 156 bytes"),
        (entry(shape=[41]), "do not hold 164 bytes"),
        (entry(chunks=["text"]), "no list of bytes"),
        (entry(chunks=[b"damage"]), "damaged"),
        (entry(chunks=[zlib.compress(bytes(160))[:-6]]), "cut short"),
        (entry(compression="lzma"), "compression 'lzma'"),
        (entry(order="F"), "order 'F'"),
    ],
)
def test_damage_is_told(path, change, text):
    with pytest.raises((ValueError, KeyError), match=text):
        read_msgpack(edited(path, change))


def test_other_files_and_cut_ones(path, tmp_path):
    data = path.read_bytes()
    for content in (b"", b"text", b"\x93\x01\x02\x03", b"\x81\x01\x02", data[:-1], data + b"\x00", b"\x91" * 5000):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ValueError, match=r"x is no readable checkpoint|is not supported"):
            read_msgpack(tmp_path / "x")


def test_a_bomb_is_not_unpacked(path):
    edited(path, entry(chunks=[zlib.compress(bytes(1 << 26))]))
    tracemalloc.start()
    with pytest.raises(ValueError, match="do not hold 160 bytes"):
        read_msgpack(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 21
    tracemalloc.stop()


def test_a_payload_that_is_none_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="format None"):
        write_msgpack(tmp_path / "m.msgpack", {})
    assert not (tmp_path / "m.msgpack").exists()
