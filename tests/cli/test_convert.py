"""`keydnn convert`: from file to file."""

import importlib.util
import json

import numpy as np
import pytest

pytest.importorskip("click")

from click.testing import CliRunner  # noqa: E402

import keydnn  # noqa: E402
from keydnn.cli.commands import commands  # noqa: E402


def convert(*arguments):
    return CliRunner().invoke(commands, ["convert", *map(str, arguments)])


@pytest.fixture
def source(tmp_path):
    model = keydnn.Sequential(keydnn.Linear(3, 4), keydnn.ReLU(), keydnn.Linear(4, 2))
    model.save_json(tmp_path / "m.json")
    return tmp_path / "m.json"


def test_json_to_json_to_weights(source, tmp_path):
    result = convert("--src", source, "--dst", tmp_path / "again.json")
    assert result.exit_code == 0 and "again.json" in result.output
    assert (tmp_path / "again.json").read_bytes() == source.read_bytes()
    assert convert("--src", source, "--dst", tmp_path / "w.safetensors").exit_code == 0
    other = keydnn.Sequential(keydnn.Linear(3, 4), keydnn.ReLU(), keydnn.Linear(4, 2))
    other.load_weights(tmp_path / "w.safetensors")
    x = np.ones((2, 3), np.float32)
    assert np.array_equal(other.predict(x), keydnn.Sequential.load_json(source).predict(x))


@pytest.mark.parametrize("suffix", ["json.gz", "msgpack"])
def test_there_and_back(source, tmp_path, suffix):
    if suffix == "msgpack":
        pytest.importorskip("msgpack", reason="needs the msgpack extra: pip install '.[msgpack]'")
    assert convert("--src", source, "--dst", tmp_path / f"m.{suffix}").exit_code == 0
    assert convert("--src", tmp_path / f"m.{suffix}", "--dst", tmp_path / "again.json").exit_code == 0
    assert (tmp_path / "again.json").read_bytes() == source.read_bytes()


def test_config_only(source, tmp_path):
    assert convert("--src", source, "--dst", tmp_path / "c.json", "--config-only").exit_code == 0
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["format"] == "keydnn.model.v1"
    assert [m["type"] for m in found["modules"]] == ["Linear", "ReLU", "Linear"]
    assert found["modules"][0]["config"]["out_features"] == 4 and set(found["modules"][0]) == {"type", "config"}


@pytest.mark.skipif(importlib.util.find_spec("onnx") is None, reason="needs the onnx extra: pip install '.[onnx]'")
def test_to_onnx(source, tmp_path):
    assert convert("--src", source, "--dst", tmp_path / "m.onnx", "--input-shape", "1,3").exit_code == 0
    from keydnn.interop.onnx import load_onnx

    x = np.ones((2, 3), np.float32)
    np.testing.assert_allclose(
        load_onnx(tmp_path / "m.onnx")(keydnn.tensor(x)).to_numpy(), keydnn.Sequential.load_json(source).predict(x).to_numpy(), rtol=1e-6
    )


@pytest.mark.skipif(importlib.util.find_spec("onnx") is None, reason="needs the onnx extra: pip install '.[onnx]'")
def test_weights_of_onnx(source, tmp_path):
    assert convert("--src", source, "--dst", tmp_path / "m.onnx", "--input-shape", "1,3").exit_code == 0
    assert convert("--src", tmp_path / "m.onnx", "--dst", tmp_path / "w.safetensors").exit_code == 0
    found, model = keydnn.saving.read_weights(tmp_path / "w.safetensors"), keydnn.Sequential.load_json(source)
    assert np.array_equal(found["model_0_weight"], model[0].weight.numpy())
    result = convert("--src", tmp_path / "m.onnx", "--dst", tmp_path / "m.json")
    assert result.exit_code == 2 and "the weights alone" in result.output


def test_what_was_written_is_told_to_machines(source, tmp_path):
    found = json.loads(convert("--src", source, "--dst", tmp_path / "a.json", "--json").stdout)
    assert found == {"written": str(tmp_path / "a.json"), "bytes": source.stat().st_size}


def summary(*arguments):
    return CliRunner().invoke(commands, ["summary", *map(str, arguments)])


def test_summary(source, tmp_path):
    rows = [("0", "Linear", 16, [5, 4]), ("1", "ReLU", 0, [5, 4]), ("2", "Linear", 10, [5, 2])]
    found = json.loads(summary(source, "--json", "--input-shape", "5,3").stdout)
    assert [(r["name"], r["type"], r["parameters"], r["output_shape"]) for r in found["layers"]] == rows
    assert (found["type"], found["parameters"], found["trained"]) == ("Sequential", 26, 26)
    short = json.loads(summary(source, "--json").stdout)
    assert [(r["name"], r["type"], r["parameters"]) for r in short["layers"]] == [row[:3] for row in rows]
    assert (short["parameters"], short["trained"]) == (26, 26)
    assert "(1): ReLU" in summary(source).output
    for arguments, status in (((source, "--input-shape", "1,7"), 2), ((source, "--json", "--input-shape", "1,7"), 2)):
        result = summary(*arguments)
        assert result.exit_code == status and "does not take inputs of shape (1, 7)" in result.output
    (tmp_path / "m.toml").write_text("x")
    assert summary(tmp_path / "m.toml").exit_code == 2
    (tmp_path / "torn.json").write_text("{")
    assert summary(tmp_path / "torn.json").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--dst", "x.json"], 2, "--src"),
        (["--src", "m.json", "--dst", "x.bin"], 2, "writes .json, .json.gz, .msgpack, .onnx, .safetensors"),
        (["--src", "m.json", "--dst", "x.onnx"], 2, "--input-shape"),
        (["--src", "m.json", "--dst", "x.onnx", "--input-shape", "a"], 2, "--input-shape must be whole numbers"),
        (["--src", "m.json", "--dst", "x.json", "--dtype", "int8"], 2, "--dtype"),
        (["--src", "torn.json", "--dst", "x.json"], 1, "torn.json"),
        (["--src", "torn.keras", "--dst", "x.json"], 1, ""),
    ],
)
def test_what_cannot_be_done(source, tmp_path, monkeypatch, arguments, status, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "torn.json").write_bytes(source.read_bytes()[:100])
    (tmp_path / "torn.keras").write_bytes(b"PK\x03\x04 torn")
    result = convert(*arguments)
    assert result.exit_code == status and said in result.output, result.output
    assert not (tmp_path / "x.json").exists() and not (tmp_path / "x.onnx").exists()
