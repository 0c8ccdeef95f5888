"""Folds in other processes: the same bits as here, lost work done again, errors that name what is to blame."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from keydnn.experiment import CrossValidation
from keydnn.experiment.callbacks import Callback
from keydnn.experiment.execution.executors import Processes, TaskFailed, make_executor
from keydnn.experiment.execution.shipping import answered, heard, is_importable, packed, unpacked
from tests.experiment.test_folds import QUIET, Bench, told

pytest.importorskip("joblib")
pytest.importorskip("cloudpickle")


@pytest.fixture(params=["keydnn", pytest.param("torch", marks=[pytest.mark.torch, pytest.mark.slow])])
def bench(request):
    if request.param == "torch":
        pytest.importorskip("torch")
    return Bench(request.param)


def folds(bench, executor, **options):
    cv = CrossValidation(label="cv", bindings=bench.binding, n_folds=3, executor=executor, **{"threads_per_task": 1, **options})
    results = cv.run(**QUIET)
    return [told(results.get_fold(label)) for label in results.fold_labels]


@pytest.mark.slow
def test_processes_give_the_bits_that_come_out_here(bench):
    before = bench.everything()
    here = folds(bench, "serial")
    there = folds(bench, Processes(workers=2, threads_per_task=1))
    assert there == here and len(set(map(str, here))) == 3
    assert [run.label for run in bench.exp.history] == ["cv_fold_0", "cv_fold_1", "cv_fold_2"] * 2
    assert all(run.status == "completed" and run.metadata["seed"] == 3 for run in bench.exp.history)
    assert bench.everything()[1:3] == before[1:3]


class DiesOnce(Callback):
    """Kills its process in the middle of the first training that finds no mark."""

    def __init__(self, mark, label=None):
        super().__init__(label)
        self.mark = str(mark)

    def get_config(self):
        return {"mark": self.mark}

    @classmethod
    def from_config(cls, config):
        return cls(config["mark"], config["label"])

    def on_epoch_end(self, *, experiment, phase, exec_ctx, results):
        if exec_ctx.epoch_idx == 0 and not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Failed to kill", "ignore:Exception in thread ExecutorManager")  # with neither pgrep nor psutil
def test_what_a_dead_worker_lost_is_done_again(tmp_path):
    bench = Bench("keydnn")
    here = folds(bench, "serial")
    bench.train.add_callback(DiesOnce(tmp_path / "mark"))
    assert folds(bench, Processes(workers=2, threads_per_task=1)) == here
    assert (tmp_path / "mark").exists()
    with pytest.raises(TaskFailed, match=r"workers died 1 times; tasks .* are not done"):
        (tmp_path / "mark").unlink()
        folds(bench, Processes(workers=1, threads_per_task=1, retries=0))


class Holds(Callback):
    """Has a config that no other process can be told."""

    def __init__(self):
        super().__init__("holds")
        self.lock = threading.Lock()

    def get_config(self):
        return {"inner": {"lock": self.lock}}


class Fails(Callback):
    def __init__(self, label=None):
        super().__init__(label)

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(config["label"])

    def on_epoch_end(self, *, experiment, phase, exec_ctx, results):
        raise ArithmeticError(f"enough of {phase.label}")


def test_what_cannot_be_sent_is_named():
    bench = Bench("keydnn")
    bench.train.add_callback(Holds())
    with pytest.raises(TypeError, match=r"callback 'holds' of phase 'train' cannot be sent to another process, because of a _thread.lock"):
        folds(bench, "processes", workers=1)
    assert bench.exp.history == []


@pytest.mark.slow
def test_errors_come_back():
    bench = Bench("keydnn")
    bench.train.add_callback(Fails())
    with pytest.raises(ArithmeticError, match="enough of train") as caught:
        folds(bench, Processes(workers=1, threads_per_task=1))
    assert any("raised in a worker" in note for note in caught.value.__notes__)
    assert {run.status for run in bench.exp.history} == {"failed"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"executor": "threads"}, "unknown executor 'threads'; expected one of serial, processes, ray"),
        ({"workers": 0}, "workers must be a whole number of at least 1, got 0"),
        ({"retries": -1}, "retries must be a whole number of at least 0, got -1"),
        ({"threads_per_task": 1.5}, "threads_per_task must be a whole number"),
    ],
)
def test_executors_that_make_no_sense(options, words):
    with pytest.raises(ValueError, match=words):
        make_executor(**{"executor": "processes", **options})


def test_classes_travel_by_name_or_by_value_and_come_back_as_themselves():
    class Local:
        def __init__(self, x):
            self.x = x

    assert is_importable(Bench) and not is_importable(Local)
    classes = {}
    copy = unpacked(packed({"made": Local(3), "bench": Bench}, classes))
    assert copy["bench"] is Bench and copy["made"].x == 3
    assert list(classes.values()) == [Local]
    back = heard(answered({"made": copy["made"], "array": np.arange(3.0)}), classes)
    assert type(back["made"]) is Local and back["made"].x == 3 and back["array"].tolist() == [0, 1, 2]


NOTE = """
class Kept:
    def __init__(self, epoch):
        self.epoch = epoch


class Note(Callback):
    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(config["label"])

    def on_epoch_end(self, *, experiment, phase, exec_ctx, results):
        return Kept(exec_ctx.epoch_idx)
"""

SCRIPT = """
    import numpy as np
    from keydnn.experiment import *
    from keydnn.experiment.samplers import SimpleSampler
    from keydnn.experiment.callbacks import callback_registry
    import keydnn

    class Doubled(keydnn.Module):
        def __init__(self):
            super().__init__()
            self.inner = keydnn.Sequential(keydnn.Flatten(), keydnn.Dense(1))

        def forward(self, x):
            return self.inner(x) * 2.0
"""

MAIN = """
    if __name__ == "__main__":
        callback_registry.register("Note", Note)
        exp = Experiment("main", seed=1)
        x = np.random.default_rng(0).normal(size=(30, 3)).astype("f4")
        fs = FeatureSet.from_dict("cells", {"x": x, "y": x.sum(1)}, "x", "y")
        fs.split_random({"train": 0.7, "val": 0.3})
        ModelGraph([ModelNode("net", Doubled(), fs)], Optimizer("adam"))
        mse = AppliedLoss(Loss("mse", backend="keydnn"), "net", ["outputs", "targets"])
        sampler = SimpleSampler(batch_size=7, shuffle=True, seed=1)
        train = TrainPhase.from_split("train", split="train", sampler=sampler, losses=[mse], n_epochs=2, callbacks=[Note("note")])
        told = []
        for executor in ("serial", "processes"):
            cv = CrossValidation(bindings=CVBinding(fs, ["train", "val"]), n_folds=2, phase=train, executor=executor, threads_per_task=1)
            found = cv.run(show_fold_progress=False, show_sampler_progress=False, show_training_progress=False)
            told.append(repr(found.losses("net").to_dict()))
            notes = [note.payload for note in found.get_fold(0)["train"].callbacks(kind="payload").values()]
            assert [type(note) for note in notes] == [Kept, Kept] and [note.epoch for note in notes] == [0, 1], notes
        assert told[0] == told[1]
        print("same")
"""


@pytest.mark.slow
def test_classes_of_the_script_itself(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT) + NOTE + textwrap.dedent(MAIN), encoding="utf-8")
    source = str(Path(__file__).resolve().parents[2] / "src")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, env=env, timeout=300)
    assert done.stdout == "same\n", done.stderr
