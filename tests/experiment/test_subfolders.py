"""Files of folds and trials: each keeps its own, the same here and in other processes."""

import contextlib
import os
import tempfile
import warnings

import numpy as np
import pytest

from keydnn.experiment import Checkpointing, CrossValidation, Experiment, ExperimentContext, ResultsConfig
from keydnn.experiment.execution.executors import Processes
from keydnn.experiment.io import Checkpoint
from keydnn.experiment.sweeps import Sweep
from tests.experiment.test_folds import QUIET, Bench, told

pytest.importorskip("joblib")
pytest.importorskip("cloudpickle")


class Here(Processes):
    """A worker in this process, in a directory of its own; what travels is packed all the same."""

    def run(self, work, base, tables, tasks, done):
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            for i, task in enumerate(tasks):
                done(i, work(base, task, 1, list(tables), *tables.values()))
            assert not os.listdir(folder)


WHERE = {"here": "serial", "elsewhere": Here(workers=1)}


def files(folder):
    """Path to weights of every checkpoint."""
    found = {}
    for path in sorted(folder.rglob("*.ckpt.mml")):
        entries = Checkpoint.load(path).entries
        graph = entries.get("modelgraph") or entries["experiment"]["model_graph"]
        found[str(path.relative_to(folder))] = repr(next(iter(graph["nodes"].values()))["model"])
    return found


def numbers(results):
    return [told(results.get_fold(label)) for label in results.fold_labels]


@pytest.mark.parametrize("place", WHERE)
def test_every_fold_has_a_folder_for_each_kind_of_checkpoint(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bench = Bench("keydnn")
    expected = CrossValidation(label="cv", bindings=bench.binding, n_folds=2).run(**QUIET)
    named = Checkpointing(mode="disk", directory="own", every_n=2, max_to_keep=1)  # relative: to where the experiment is
    bench.train.set_checkpointing(named)
    bench.exp.set_checkpoint_dir("all")
    bench.exp.set_checkpointing(Checkpointing(mode="disk", save_on="phase_end"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cv = CrossValidation(label="cv", bindings=bench.binding, n_folds=2, executor=WHERE[place], threads_per_task=1)
        results = cv.run(**QUIET)
    own, whole = files(tmp_path / "own"), files(tmp_path / "all")
    assert list(own) == [f"cv_fold_{i}/train_epoch1.ckpt.mml" for i in (0, 1)]
    assert list(whole) == [f"cv_fold_{i}/{name}.ckpt.mml" for i in (0, 1) for name in ("test", "train")]
    assert len(set(own.values())) == 2 and set(own.values()) == set(whole.values())  # of an epoch, of the phase that it ends
    known = {f"cv_fold_{i}/{name}" for i in (0, 1) for name in ("train/train_epoch1", "train", "test")}
    assert set(bench.exp.available_checkpoints) == known
    assert bench.train.checkpointing is named and named.saved_keys == [] and str(bench.exp.checkpoint_dir) == "all"
    with bench.exp.ctx.activate():
        bench.exp.restore_checkpoint("cv_fold_1/train/train_epoch1")
    assert numbers(results) == numbers(expected)
    path = bench.exp.save("study")
    with ExperimentContext().activate(), pytest.warns(UserWarning, match="the checkpoint directory own holds files already"):
        again = Experiment.load(path, checkpoint_dir="again")
    assert set(again.available_checkpoints) == known and (tmp_path / "again" / "cv_fold_1" / "train" / "train_epoch1.ckpt.mml").is_file()


@pytest.mark.parametrize("place", WHERE)
def test_results_of_folds_lie_where_the_experiment_puts_them(place, tmp_path):
    bench = Bench("keydnn")
    expected = CrossValidation(label="cv", bindings=bench.binding, n_folds=2).run(**QUIET)
    bench.exp.set_results_config(ResultsConfig(tmp_path / "results", save_metrics=True))
    results = CrossValidation(label="cv", bindings=bench.binding, n_folds=2, executor=WHERE[place], threads_per_task=1).run(**QUIET)
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["2_cv_fold_0", "3_cv_fold_1"]
    assert numbers(results) == numbers(expected)
    assert all(any((tmp_path / "results" / run / "train" / "metrics").iterdir()) for run in ("2_cv_fold_0", "3_cv_fold_1"))


@pytest.mark.slow
@pytest.mark.parametrize("place", WHERE)
def test_every_trial_has_a_folder(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bench = Bench("keydnn")
    bench.train.set_checkpointing(Checkpointing(mode="disk", directory="own", every_n=2))
    bench.exp.set_checkpoint_dir("all")
    bench.exp.set_checkpointing(Checkpointing(mode="disk", save_on="experiment_end"))
    bench.exp.set_results_config(ResultsConfig("results"))
    sweep = Sweep(space={"seed": [1, 2]}, metric="train/train_loss", executor=WHERE[place], threads_per_task=1)
    results = sweep.run(show_progress=False)
    assert [trial.error for trial in results.trials] == [None, None]
    assert list(files(tmp_path / "own")) == [f"trial_{i}/train_epoch1.ckpt.mml" for i in (0, 1)]
    assert list(files(tmp_path / "all")) == [f"trial_{i}/END.ckpt.mml" for i in (0, 1)]
    assert len(set(files(tmp_path / "own").values())) == 2
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("results/*/*")) == [f"results/trial_{i}/0_exp" for i in (0, 1)]
    assert np.isfinite([trial.value for trial in results.trials]).all()
