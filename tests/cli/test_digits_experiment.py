"""``keydnn run experiment``: the columns of its table, what it prints, and a file that proves its numbers."""

import re
from importlib.util import find_spec

import numpy as np
import pytest
from click.testing import CliRunner

if find_spec("sklearn") is None or find_spec("pyarrow") is None:
    pytest.skip("needs the extras sklearn and experiment", allow_module_level=True)

from keydnn.cli import digits_experiment
from keydnn.cli.commands import commands
from keydnn.experiment import ExperimentContext


def test_the_columns():
    image = np.zeros((1, 8, 8))
    image[0, 1, 2], image[0, 3, 2] = 16, 16  # two points, one below the other
    found = digits_experiment.columns(image)
    assert found["row_sums"].tolist() == [[0, 1, 0, 1, 0, 0, 0, 0]] and found["column_sums"].tolist() == [[0, 0, 2, 0, 0, 0, 0, 0]]
    assert found["moments"].tolist() == [[2, -1.5, -1.5, 1, 0, 0, 4 / 64, 4 / 64]]
    slanted = np.zeros((1, 8, 8))
    slanted[0, 2, 2], slanted[0, 4, 4] = 8, 8
    assert digits_experiment.columns(slanted)["moments"].tolist() == [[1, -0.5, -0.5, 1, 1, 1, 2 / 64, 2 / 64]]
    assert {value.dtype for value in found.values()} == {np.dtype(np.float32)} and found["image"].shape == (1, 8, 8)


@pytest.mark.slow
def test_the_job(tmp_path, monkeypatch):
    monkeypatch.setattr(digits_experiment, "FOLDS", 2)
    folder = tmp_path / "out"
    with ExperimentContext().activate():
        done = CliRunner().invoke(commands, ["run", "experiment", "--seed", "3", "--epochs", "3", "--out", str(folder), "--verbose", "0"])
    assert done.exit_code == 0, done.output
    folds = [float(n) for n in re.findall(r"^fold \d: accuracy (0\.\d{4})", done.output, re.MULTILINE)]
    (test,) = re.findall(r"^test accuracy (0\.\d{4})$", done.output, re.MULTILINE)
    assert len(folds) == 2 and min(folds) > 0.85 and float(test) > 0.9
    assert done.output.splitlines()[-1] == f"report: {folder / 'report.html'}"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Not recorded" not in page and all(f"{fold:.4g}" in page for fold in (*folds, float(test)))
    again = CliRunner().invoke(commands, ["experiment", "reproduce", str(folder / "digits.exp.mml")])
    assert again.exit_code == 0 and "0 different, 0 missing" in again.output, again.output
