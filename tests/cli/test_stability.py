"""`keydnn stability run|sweep|report`."""

import json

import numpy as np
import pytest

pytest.importorskip("click")
from click.testing import CliRunner

from keydnn.cli.commands import commands
from keydnn.stability import FitHistory

RUN = {
    "dataset": {"num_samples": 40, "seed": 1, "use_bias": False},
    "model": {"num_hidden": [], "use_bias": False, "seed": 0},
    "train": {"epochs": 30, "batch_size": 40, "learning_rate": 1.0},
    "precision": {"stack": {"WL": 12, "IWL": 3}},
}
SWEEP = {"base": RUN, "axes": {"precision.stack.WL": [6, 12], "train.learning_rate": [0.5, 2.5]}}


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(config, command, *options):
        (tmp_path / "case.json").write_text(config if isinstance(config, str) else json.dumps(config))
        return CliRunner().invoke(commands, ["stability", command, "case.json", *options])

    return call


@pytest.mark.slow
def test_run_sweep_report(call, tmp_path):
    result = call(RUN, "run", "--out", "lab")
    assert result.exit_code == 0 and "healthy" in result.output and "30 steps" in result.output
    history = FitHistory.from_npz(tmp_path / "lab" / "case.npz")
    assert history.meta["config"] == RUN and not np.isnan(history["weight_error_fro"]).any()
    result = call(SWEEP, "sweep", "--out", "lab", "--quiet")
    assert result.exit_code == 0 and "4 cells" in result.output
    whole = (tmp_path / "lab" / "case.jsonl").read_bytes()
    (tmp_path / "lab" / "case.jsonl").write_bytes(whole[: len(whole) // 2])
    assert call(SWEEP, "sweep", "--out", "lab").exit_code == 2
    assert call(SWEEP, "sweep", "--out", "lab", "--resume").exit_code == 0
    assert (tmp_path / "lab" / "case.jsonl").read_bytes() == whole
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    result = CliRunner().invoke(commands, ["stability", "report", "lab"])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "lab" / "report.html").read_text()
    assert (
        page.count("data:image/png;base64,") == 5
        and "alt='verdict over two axes'" in page
        and "Verdict" in page
        and "precision.stack.WL" in page
    )
    assert "<b>Verdicts:</b>" in page and "In every cell: " in page and page.count("<tr>") == 5
    assert "http" not in page.replace("http-equiv", "")  # everything is inside


@pytest.mark.parametrize(
    ("config", "command", "text"),
    [
        ("{", "run", "no JSON"),
        ("[]", "run", "JSON object"),
        ({"train": {"lr": 1}}, "run", "unknown train.lr"),
        ({"precision": {"dense9": {"weight": "ap_int<3>"}}}, "run", "dense9"),
        ({"axes": {}}, "sweep", "axes"),
        ({"axes": {"a": [1]}, "grid": 3}, "sweep", "unknown grid"),
    ],
)
def test_bad_configurations_are_one_line(call, config, command, text):
    result = call(config, command)
    assert result.exit_code == 2 and text in result.output and "Traceback" not in result.output


def test_an_empty_folder(tmp_path):
    result = CliRunner().invoke(commands, ["stability", "report", str(tmp_path)])
    assert result.exit_code == 1 and "holds no history" in result.output
