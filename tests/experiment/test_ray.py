"""Folds on a Ray cluster of this machine: the same bits as here, classes of a script, lost work done again."""

import pytest

from keydnn.experiment.callbacks import Callback, callback_registry
from keydnn.experiment.execution.executors import Ray, TaskFailed
from tests.experiment.test_executors import NOTE, DiesOnce, folds
from tests.experiment.test_folds import Bench

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_the_bits_of_this_process_and_classes_of_a_script():
    bench = Bench("keydnn")
    here = folds(bench, "serial")
    script = {"__name__": "__main__", "Callback": Callback}
    exec(NOTE, script)
    assert script["Note"].__module__ == "__main__"
    callback_registry.register("Note", script["Note"])
    try:
        bench.train.add_callback(script["Note"]("note"))
        assert folds(bench, "ray", workers=2) == here
    finally:
        del callback_registry["Note"]
    notes = [note.payload for note in bench.exp.last_run.results["train"].callbacks(kind="payload").values()]
    assert [type(note) for note in notes] == [script["Kept"]] * 2 and [note.epoch for note in notes] == [0, 1]


def test_what_a_dead_worker_lost_is_done_again(tmp_path):
    bench = Bench("keydnn")
    here = folds(bench, "serial")
    bench.train.add_callback(DiesOnce(tmp_path / "mark"))
    assert folds(bench, "ray", workers=2) == here and (tmp_path / "mark").exists()
    (tmp_path / "mark").unlink()
    with pytest.raises(TaskFailed, match="the worker of a task died again and again"):
        folds(bench, Ray(workers=1, threads_per_task=1, retries=0))
