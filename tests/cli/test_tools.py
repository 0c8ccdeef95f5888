"""`keydnn doctor`, `keydnn inspect`, and that none of it weighs on `import keydnn`."""

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import keydnn
from keydnn.cli import doctor
from keydnn.cli.table import table
from keydnn.kernels.dispatch import native_status
from keydnn.saving import write_state

pytestmark = pytest.mark.slow

pytest.importorskip("click")
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def command(*arguments, **environment):
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-m", "keydnn", *arguments], env=env, capture_output=True, text=True, timeout=60)


def model_file(path):
    model = keydnn.Sequential(keydnn.Linear(3, 4), keydnn.BatchNorm1d(4), keydnn.Sequential(keydnn.LeakyReLU(0.2)))
    model.save_json(path)
    return path


def test_help_and_version():
    result = command("--help")
    assert result.returncode == 0
    assert all(name in result.stdout for name in ("run", "doctor", "inspect"))
    assert keydnn.__version__ in command("--version").stdout
    assert command("fly").returncode == 2


def test_the_table():
    lines = table(("name", "number"), [("x", 1234567), ("longer", 5)], right=("number",)).splitlines()
    assert lines == ["name       number", "-----------------", "x       1,234,567", "longer          5"]


def test_doctor_says_what_is_there():
    result = command("doctor")
    assert result.returncode == 0, result.stderr
    assert f"keydnn {keydnn.__version__}" in result.stdout and f"NumPy {np.__version__}" in result.stdout
    status = native_status()
    if status.loaded:
        assert f"native kernels: yes, {status.isa}, threads: {status.threads}" in result.stdout
    assert f"click {importlib.metadata.version('click')}" not in result.stdout  # no extra


def test_doctor_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(doctor, "EXTRAS", {"moon": [("green-cheese", "green_cheese")]})
    assert "pip install '.[moon]'" in doctor.report()


def test_doctor_says_why_there_are_no_native_kernels():
    result = command("doctor", KEYDNN_KERNELS="reference")
    assert result.returncode == 0
    assert "native kernels: no" in result.stdout and "KEYDNN_KERNELS=reference" in result.stdout


def test_doctor_knows_every_extra():
    extras = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    known = {extra: [distribution for distribution, _ in packages] for extra, packages in doctor.EXTRAS.items()}
    wanted = {extra: [requirement.split(">=")[0] for requirement in requirements] for extra, requirements in extras.items()}
    for extra in ("test", "lint", "docs"):
        del wanted[extra]
    assert {extra: sorted(names) for extra, names in known.items()} == wanted


def test_inspect_a_json_checkpoint(tmp_path):
    result = command("inspect", str(model_file(tmp_path / "m.json")))
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    (linear,) = [line for line in lines if line.startswith("0 ")]
    assert "Linear" in linear and "weight 4x3" in linear and "bias 4" in linear and linear.split()[2] == "16"
    (norm,) = [line for line in lines if line.startswith("1 ")]
    assert "running_mean 4" in norm and norm.split()[2] == "16"
    assert any(line.startswith("2.0 ") and "alpha=0.2" in line for line in lines)
    assert lines[-1].startswith("5 nodes, 6 arrays, 32 values")
    assert command("inspect", str(model_file(tmp_path / "m.json.gz"))).stdout.splitlines()[1:] == lines[1:]


def test_inspect_counts_shared_layers_once(tmp_path):
    layer = keydnn.Linear(2, 2)
    keydnn.Sequential(layer, layer).save_json(tmp_path / "m.json")
    out = command("inspect", str(tmp_path / "m.json")).stdout
    assert "shared with 0" in out and "3 nodes, 4 arrays, 6 values" in out


def test_inspect_a_state_file(tmp_path):
    write_state(tmp_path / "s", {"weight": np.zeros((2, 3)), "t": np.array(5)}, {"epoch": 4, "words": list(range(1000))})
    out = command("inspect", str(tmp_path / "s")).stdout
    assert "2x3" in out and "float64" in out and "scalar" in out and "2 arrays, 7 values" in out and "epoch: 4" in out
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.parametrize("data", [b"", b"{}", b"hello", b"\x1f\x8b", b"\x00" * 100])
def test_inspect_something_else(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    result = command("inspect", str(tmp_path / "x"))
    assert result.returncode == 1
    assert result.stderr.startswith("Error: ") and "Traceback" not in result.stderr
    assert command("inspect", str(tmp_path / "nothing")).returncode == 2


def test_main_can_be_called(capsys):
    from keydnn.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    assert ended.value.code == 0
    assert "native kernels" in capsys.readouterr().out
