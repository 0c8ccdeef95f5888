"""Folds and trials on a Ray cluster of this machine: the same bits as here, lost work done again, classes of a script."""

import pytest

from keydnn.experiment.execution.executors import Processes, Ray, TaskFailed
from keydnn.experiment.sweeps import Sweep
from tests.experiment.test_executors import DiesOnce, folds, run_script
from tests.experiment.test_folds import Bench
from tests.experiment.test_sweeps import LR, METRIC, table

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    """Address of a cluster with two processors."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def test_the_bits_of_this_process_also_where_a_worker_died(cluster, tmp_path):
    bench = Bench("keydnn")
    here = folds(bench, "serial")
    assert folds(bench, Processes(workers=2, threads_per_task=1)) == here
    assert folds(bench, "ray", workers=2) == here
    bench.train.add_callback(DiesOnce(tmp_path / "mark"))
    assert folds(bench, "ray", workers=2) == here and (tmp_path / "mark").exists()
    (tmp_path / "mark").unlink()
    with pytest.raises(TaskFailed, match="the worker of a task died again and again"):
        folds(bench, Ray(workers=1, threads_per_task=1, retries=0))


def test_the_same_table(cluster):
    bench = Bench("keydnn")
    options = {"space": {LR: [0.01, 0.1]}, "metric": METRIC, "threads_per_task": 1, "experiment": bench.exp}
    tables = [table(Sweep(**options, executor=where).run(show_progress=False)) for where in ("serial", "ray")]
    assert tables[0] == tables[1]


def test_classes_of_the_script_itself(cluster, tmp_path):
    run_script(tmp_path, "ray", RAY_ADDRESS=cluster)
