"""``keydnn experiment reproduce`` and ``compare``: a file proves its own numbers, and says where it cannot."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from keydnn.cli.commands import commands
from keydnn.experiment import (
    Checkpointing,
    CrossValidation,
    EarlyStopping,
    EvalPhase,
    Experiment,
    ExperimentContext,
    FeatureSet,
    FitPhase,
    ModelGraph,
    ModelNode,
    ResultsConfig,
)
from keydnn.experiment.callbacks import Callback
from keydnn.experiment.execution import reproducing
from keydnn.experiment.results import MetricStore
from tests.experiment.test_folds import Bench

QUIET = {"show_sampler_progress": False, "show_training_progress": False}


def called(*arguments):
    return CliRunner().invoke(commands, ["experiment", *map(str, arguments)])


@pytest.fixture(params=["keydnn", pytest.param("torch", marks=pytest.mark.torch)])
def study(request, tmp_path):
    """A bench whose plan ran twice, and its file."""
    if request.param == "torch":
        pytest.importorskip("torch")
    with ExperimentContext().activate():
        bench = Bench(request.param)
        bench.exp.run(**QUIET)
        bench.exp.run(**QUIET)  # the second run begins where the first one ended
        yield bench, bench.exp.save(tmp_path / "study")


def test_an_undisturbed_file_proves_its_numbers(study):
    done = called("reproduce", study[1])
    assert done.exit_code == 0, done.output
    assert ", 0 within, 0 different, 0 missing" in done.output
    told = json.loads(called("reproduce", study[1], "--json").stdout)
    kinds = {line["what"].split()[0] for line in told["lines"]}
    assert told["ok"] and kinds == {"data", "metric", "output", "weight"} and told["counts"]["identical"] == len(told["lines"]) == 15


def test_one_other_weight_or_value_is_found(study, tmp_path):
    bench, _ = study
    weights = bench.net.model.get_weights()
    name = next(iter(weights))
    changed = {**weights, name: np.asarray(weights[name]).copy()}
    changed[name].reshape(-1)[0] += 0.5
    bench.net.model.set_weights(changed)
    other = bench.exp.save(tmp_path / "weight")
    done = called("reproduce", other)
    assert done.exit_code == 1
    lines = [line for line in done.output.splitlines() if line.startswith("different")]
    assert lines == [f"different  weight net/{name}  up to 0.5 apart"]
    bench.net.model.set_weights(weights)
    store = bench.exp.last_run.results["train"].metric_store
    assert isinstance(store, MetricStore)
    store.log(name="made_up", value=1.0, epoch_idx=0)
    done = called("reproduce", bench.exp.save(tmp_path / "metric"))
    assert done.exit_code == 1 and "missing    metric train/made_up of epoch 0  in the second" in done.output


def test_data_that_the_file_left_out_is_given_and_checked(study, tmp_path):
    bench, _ = study
    lean = bench.exp.save(tmp_path / "lean", include_data=False)
    missing = called("reproduce", lean)
    assert missing.exit_code == 2 and "was saved without the values of feature set 'cells'" in missing.output
    assert called("reproduce", lean, "--data", bench.fs.save(tmp_path / "cells")).exit_code == 0
    with ExperimentContext().activate():
        other = FeatureSet.from_dict("cells", {"u": np.zeros((40, 3)), "y": np.zeros((40, 1))}, "u", "y").save(tmp_path / "other")
    refused = called("reproduce", lean, "--data", other)
    assert refused.exit_code == 2 and "fingerprint" in refused.output
    also = called("reproduce", study[1], "--data", other)  # though the file holds them
    assert also.exit_code == 2 and "fingerprint" in also.output
    with ExperimentContext().activate():
        wrong = FeatureSet.from_dict("sells", {"u": np.zeros(2)}, "u", []).save(tmp_path / "wrong")
    assert "give the file of 'cells' (--data), not of 'sells'" in called("reproduce", lean, "--data", wrong).output
    assert "has no feature set 'sells'" in called("reproduce", study[1], "--data", wrong).output
    assert called("compare", lean, study[1]).exit_code == 0  # needs no values


def test_one_other_value_in_the_data_of_a_file_is_found(study, tmp_path):
    bench, _ = study
    bench.fs.collection._set(with_one_other(bench.fs.collection.stored_table()))
    done = called("reproduce", bench.exp.save(tmp_path / "other"))
    lines = done.output.splitlines()
    assert done.exit_code == 1 and lines[0].startswith("different  data cells  ") and any("metric train/train_loss" in one for one in lines)


def with_one_other(table):
    """A table whose first target is another one."""
    name = next(name for name in table.column_names if name.endswith("y.raw"))
    column = table[name].combine_chunks()
    numbers = column.to_numpy().copy()
    numbers[0] += 1e-3
    return table.set_column(table.column_names.index(name), table.schema.field(name), pa.array(numbers))


def test_evaluations_and_folds_after_the_run_leave_its_weights(tmp_path):
    with ExperimentContext().activate():
        bench = Bench("keydnn")
        bench.exp.run(**QUIET)
        bench.exp.run_evaluation(bench.test)
        CrossValidation(bindings=bench.binding, n_folds=2).run(show_fold_progress=False, **QUIET)
        told = json.loads(called("reproduce", bench.exp.save(tmp_path / "after"), "--json").stdout)
        assert told["counts"] == {"identical": 15, "within": 0, "different": 0, "missing": 0}
        bench.exp.run_phase(bench.train, **QUIET)  # and what trains does not
        told = json.loads(called("reproduce", bench.exp.save(tmp_path / "trained"), "--json").stdout)
        assert told["counts"] == {"identical": 11, "within": 0, "different": 0, "missing": 0}


def test_nothing_is_written_and_versions_come_first(tmp_path, monkeypatch):
    with ExperimentContext().activate():
        bench = Bench("keydnn")
        bench.train.set_checkpointing(Checkpointing(mode="disk", directory=tmp_path / "kept"))
        bench.train.add_callback(EarlyStopping(monitor="train_loss", mode="max", patience=1, restore_best=True))
        bench.exp.set_checkpoint_dir(tmp_path / "kept")
        bench.exp.set_checkpointing(Checkpointing(mode="disk", save_on="phase_end"))
        bench.exp.set_results_config(ResultsConfig(tmp_path / "results"))
        bench.exp.run(**QUIET)
        path = bench.exp.save(tmp_path / "study")
    before = {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in tmp_path.rglob("*")}
    facts = reproducing.machine_facts()
    other = {**facts, "python": "4.0", "packages": {**facts["packages"], "numpy": "9.9"}}
    monkeypatch.setattr(reproducing, "machine_facts", lambda: other)
    done = called("reproduce", path)
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"versions differ: python {facts['python']} -> 4.0, numpy {facts['packages']['numpy']} -> 9.9\n")
    assert before == {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in tmp_path.rglob("*")}


def test_a_fitted_estimator_proves_its_numbers(tmp_path):
    forest = pytest.importorskip("sklearn.ensemble", reason="needs the sklearn extra").RandomForestRegressor(3, random_state=0)
    with ExperimentContext().activate():
        fs = FeatureSet.from_dict("cells", {"u": np.random.default_rng(0).normal(size=(40, 3)), "y": np.arange(40.0)}, "u", "y")
        fs.split_random({"train": 0.8, "test": 0.2}, seed=1)
        graph = ModelGraph([ModelNode("forest", forest, fs)])
        exp = Experiment.from_active_context("exp", seed=3)
        exp.execution_plan.add_phase(FitPhase.from_split("fit", split="train")).add_phase(EvalPhase.from_split("test", split="test"))
        exp.run()
        path = exp.save(tmp_path / "fitted")
        assert graph.is_built
    done = called("reproduce", path)
    assert done.exit_code == 0 and ", 0 within, 0 different, 0 missing" in done.output
    kinds = {line["what"].split()[0] for line in json.loads(called("reproduce", path, "--json").stdout)["lines"]}
    assert {"data", "output"} <= kinds


class Copies(Callback):
    """Copies the folder of a run in the middle of it, as a kill would leave it; afterwards it does nothing."""

    def __init__(self, source, target, label=None):
        super().__init__(label)
        self.source, self.target = str(source), str(target)

    def get_config(self):
        return {"source": self.source, "target": self.target}

    @classmethod
    def from_config(cls, config):
        return cls(config["source"], config["target"], config["label"])

    def on_epoch_end(self, *, experiment, phase, exec_ctx, results):
        if exec_ctx.epoch_idx == 1 and not Path(self.target).exists():
            shutil.copytree(self.source, self.target)


def test_a_run_that_was_killed_and_taken_up_proves_its_numbers(tmp_path):
    with ExperimentContext().activate():
        bench = Bench("keydnn")
        bench.train.set_checkpointing(Checkpointing(mode="disk"))
        bench.train.add_callback(Copies(tmp_path / "run", tmp_path / "killed"))
        bench.exp.run(run_dir=tmp_path / "run", **QUIET)
        whole = bench.exp.save(tmp_path / "whole")
    with ExperimentContext().activate():
        path = Experiment.resume(tmp_path / "killed", allow_packaged_code=True, **QUIET).save(tmp_path / "resumed")
    for arguments in (("reproduce", path), ("compare", path, whole)):
        done = called(*arguments, "--allow-packaged-code")
        assert done.exit_code == 0, done.output


def test_files_without_a_run(tmp_path):
    with ExperimentContext().activate():
        bench = Bench("keydnn")
        empty = bench.exp.save(tmp_path / "empty")
        bench.exp.run_phase(bench.train, **QUIET)
        phase = bench.exp.save(tmp_path / "phase")
    for path in (empty, phase):
        done = called("reproduce", path)
        assert done.exit_code == 2 and "holds no run of the plan" in done.output
    done = called("compare", empty, phase)
    assert done.exit_code == 2 and "holds no run" in done.output


@pytest.mark.slow
def test_two_files_are_compared(study, tmp_path):
    bench, path = study
    same = called("compare", path, bench.exp.save(tmp_path / "again"))
    assert same.exit_code == 0 and ", 0 within, 0 different, 0 missing" in same.output
    bench.exp.run(**QUIET)
    done = called("compare", path, bench.exp.save(tmp_path / "later"), "--json")
    told = json.loads(done.stdout)
    assert done.exit_code == 1 and not told["ok"] and told["counts"]["different"] > 10


def test_a_run_that_was_taken_up_is_reproduced_from_its_start(tmp_path):
    with ExperimentContext().activate():
        bench = Bench("keydnn")
        bench.exp.run(run_dir=tmp_path / "run", **QUIET)
        path = Experiment.resume(tmp_path / "run").save(tmp_path / "resumed")
    assert called("reproduce", path).exit_code == 0
