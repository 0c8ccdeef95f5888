"""``keydnn experiment sweep``: from a YAML file to a table, resumed where it was stopped."""

import json

import pytest
import yaml
from click.testing import CliRunner

from keydnn.cli.commands import commands
from keydnn.experiment import ExperimentContext
from tests.experiment.test_folds import Bench

WIDTH = "model_graph.nodes.net.model_kwargs.hidden_dim"


@pytest.fixture
def config(tmp_path):
    with ExperimentContext().activate():
        bench = Bench("keydnn")
        bench.exp.save(tmp_path / "study")
        bench.exp.to_yaml(tmp_path / "study")
        bench.fs.save(tmp_path / "cells")

    def written(**changes):
        told = {"experiment": "study.exp.mml", "space": {WIDTH: [3, 4]}, "metric": "train/train_loss", **changes}
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in told.items() if value is not None}), encoding="utf-8")
        return path

    return written


def called(*arguments):
    return CliRunner().invoke(commands, ["experiment", "sweep", *map(str, arguments)])


def test_a_table_a_file_and_the_best(config, tmp_path):
    out = tmp_path / "trials.jsonl"
    done = called(config(), "--out", out)
    assert done.exit_code == 0, done.output
    assert WIDTH in done.output and "best" in done.output and f"wrote {out}" in done.output
    assert len(out.read_text().splitlines()) == 3
    again = called(config(), "--out", out)
    assert again.exit_code == 2 and "--resume" in again.output
    resumed = called(config(), "--out", out, "--resume", "--json")
    assert resumed.exit_code == 0
    told = json.loads(resumed.stdout)
    assert [trial["point"] for trial in told["trials"]] == [{WIDTH: 3}, {WIDTH: 4}]
    structure = called(config(experiment="study.yaml", data=["cells.fs.mml"]), "--out", tmp_path / "other.jsonl", "--json")
    assert json.loads(structure.stdout)["trials"] == told["trials"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metric": None}, "metric missing; a sweep has experiment, data, space"),
        ({"spaces": {}}, "unknown spaces"),
        ({"space": {"phases.fit.n_epochs": [1]}}, "no 'fit' in phases"),
        ({"mode": "random"}, "needs n_trials"),
        ({"data": "cells"}, "data is a list of files"),
        ({"experiment": "study.yaml"}, "cells"),
    ],
)
def test_what_cannot_be_done(config, tmp_path, changes, words):
    done = called(config(**changes), "--out", tmp_path / "trials.jsonl")
    assert done.exit_code == 2 and words in done.output, done.output
    missing = called(config(experiment="other.exp.mml"), "--out", tmp_path / "trials.jsonl")
    assert missing.exit_code == 1 and "other.exp.mml" in missing.output
