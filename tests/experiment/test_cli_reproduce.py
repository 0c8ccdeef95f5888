"""``keydnn experiment reproduce`` and ``compare``: a file proves its own numbers, and says where it cannot."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from keydnn.cli.commands import commands
from keydnn.experiment import Experiment, ExperimentContext, FeatureSet
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
    assert told["ok"] and kinds == {"metric", "output", "weight"} and told["counts"]["identical"] == len(told["lines"]) == 14


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
