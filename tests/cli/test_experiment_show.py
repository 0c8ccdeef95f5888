"""``keydnn experiment show``: files of every kind, told without running anything in them."""

import json
import sys
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest
from click.testing import CliRunner

from keydnn.cli.commands import commands

pytestmark = pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs the extra experiment")


def shown(path, *options):
    """Exit code and output."""
    result = CliRunner().invoke(commands, ["experiment", "show", str(path), *options])
    return result.exit_code, result.output


def told(path):
    code, text = shown(path, "--json")
    assert code == 0
    return json.loads(text)


@pytest.fixture
def bench():
    from keydnn.experiment import ExperimentContext
    from tests.experiment.test_experiment_files import Bench

    with ExperimentContext().activate():
        yield Bench()


def test_experiments(bench, tmp_path):
    exp = bench.exp
    exp.set_checkpoint_dir(tmp_path / "kept")
    exp.run(show_sampler_progress=False, show_training_progress=False)
    exp.save_checkpoint("mine")
    path = exp.save(tmp_path / "trial")
    found = told(path)
    assert (found["kind"], found["label"], found["seed"], found["checkpoints"]) == ("experiment", "exp", 3, ["mine"])
    assert found["header"]["kind"] == "exp" and found["header"]["schema_version"] == "1.0" and found["header"]["package_version"]
    assert found["packaged_code"] == found["unsafe_members"] == []
    (cells,) = found["feature_sets"]
    assert (cells["label"], cells["n_samples"], cells["has_data"], cells["scalers"]) == ("cells", 24, True, 1)
    assert cells["splits"] == {"train": 12, "val": 12} and cells["fingerprint"] == bench.cells.fingerprint
    assert [(node["label"], node["reads"]) for node in found["nodes"]] == [
        ("one", ["cells"]),
        ("two", ["cells"]),
        ("both", ["one", "two"]),
        ("head", ["both"]),
    ]
    train, inner = found["plan"]
    assert (train["type"], train["n_epochs"], train["splits"], train["callbacks"]) == (
        "TrainPhase",
        2,
        ["train"],
        ["Evaluation", "EarlyStopping"],
    )
    assert [item["label"] for item in inner["items"]] == ["deep", "b"] and inner["items"][0]["items"][0]["type"] == "EvalPhase"
    (run,) = found["runs"]
    latest = exp.last_run.results["train"].metric_store.of_epoch("train_loss", 1)[-1].value
    assert run["status"] == "completed" and run["metrics"]["train/train_loss"] == latest
    code, text = shown(path)
    assert code == 0
    for part in (
        "experiment 'exp'",
        "seed 3",
        "└─ b: EvalPhase; batch_size 5",
        "train/train_loss",
        cells["fingerprint"],
        "ConcatNode",
        "checkpoints: mine",
    ):
        assert part in text
    assert told(exp.save(tmp_path / "bare", include_data=False))["feature_sets"][0] == {**cells, "has_data": False}


def test_the_other_kinds(bench, tmp_path):
    from keydnn.experiment import Loss
    from keydnn.experiment.io import Checkpoint

    found = told(bench.cells.save(tmp_path / "cells"))
    assert (found["kind"], found["n_samples"], found["fingerprint"]) == ("feature set", 24, bench.cells.fingerprint)
    assert found["columns"] == bench.cells.collection.names()[:-1] and found["splits"] == {"train": 12, "val": 12}
    bench.graph.freeze("one")
    path = bench.graph.save(tmp_path / "net")
    assert [node["frozen"] for node in told(path)["nodes"]] == [True, False, False, False]
    assert "keydnn.SequentialMLP" in shown(path)[1]
    path = Checkpoint({"a": {}, "b": {"w": np.ones(2)}}, {"epoch": 2}).save(tmp_path / "kept")
    assert (told(path)["entries"], told(path)["meta"]) == (["a", "b"], {"epoch": 2}) and "entries: a, b" in shown(path)[1]
    path = Loss("mse", backend="keydnn").save(tmp_path / "loss")
    assert told(path)["config"]["loss"] == "mse" and '"loss": "mse"' in shown(path)[1]


def test_no_code_is_run(bench, tmp_path, monkeypatch):
    (tmp_path / "own_steps.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_name('ran').write_text('')\n"
        "from keydnn.experiment.callbacks import Callback\n"
        "class Own(Callback):\n    def get_config(self):\n        return super().get_config()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    from own_steps import Own

    bench.exp.execution_plan["train"].add_callback(Own())
    path = bench.exp.save(tmp_path / "trial")
    sys.modules.pop("own_steps")
    (tmp_path / "ran").unlink()
    (member,) = told(path)["packaged_code"]
    assert member.startswith("code/") and member in shown(path)[1] and "Own" in told(path)["plan"][0]["callbacks"]
    assert not (tmp_path / "ran").exists() and "own_steps" not in sys.modules


def test_files_that_are_none(bench, tmp_path):
    assert shown(tmp_path / "gone")[0] == 2
    (tmp_path / "text.exp.mml").write_text("no")
    code, text = shown(tmp_path / "text.exp.mml")
    assert code == 1 and "is no artifact" in text and "Traceback" not in text
    path = bench.exp.save(tmp_path / "trial")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name, data in {
        "facts.json": b"{}",
        "config.json": b"[]",
        "artifact.json": b"[]",
        "featuresets/0000/split_configs.json": b"1",
    }.items():
        with zipfile.ZipFile(tmp_path / "bad.exp.mml", "w") as archive:
            for other, old in members.items():
                archive.writestr(other, data if other == name else old)
        code, text = shown(tmp_path / "bad.exp.mml")
        assert code == 1 and text.startswith("Error: ") and "Traceback" not in text


def test_pickles_are_told_and_left_alone(bench, tmp_path):
    from fractions import Fraction

    from keydnn.experiment import Experiment, ExperimentContext
    from keydnn.experiment.callbacks import ArtifactResult, Callback
    from keydnn.experiment.phases.callback_configs import callback_registry

    class Third(Callback):
        def on_phase_end(self, *, experiment, phase, results):
            return ArtifactResult(artifact_name="third", artifact=Fraction(1, 3))

        def get_config(self):
            return super().get_config()

    callback_registry.register("third", Third)
    try:
        bench.exp.execution_plan["train"].add_callback(Third())
        bench.exp.run(show_sampler_progress=False, show_training_progress=False)
        bench.exp.set_checkpoint_dir(tmp_path / "kept")
        bench.exp.save_checkpoint("mine")
        path = bench.exp.save(tmp_path / "trial")
        found = told(path)["unsafe_members"]
        assert found and {name.split("/")[0] for name in found} == {"state", "checkpoints"} and found[0] in shown(path)[1]
        for permitted, values in ((True, [Fraction(1, 3)]), (False, [])):
            with ExperimentContext().activate(), pytest.warns(UserWarning) as warned:
                again = Experiment.load(path, allow_packaged_code=permitted)
                store = again.history[0].results["train"].artifact_store
                assert [entry.artifact for entry in store.entries()] == values
            assert any("allow_packaged_code" in str(one.message) for one in warned) is not permitted
    finally:
        del callback_registry["third"]
