"""Sweeps: settings by their ways, points that a seed fixes, and files from which a killed sweep goes on."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keydnn.experiment.execution.executors import Processes
from keydnn.experiment.sweeps import Sweep, SweepResults, Trial
from keydnn.experiment.sweeps.overrides import overridden
from keydnn.experiment.sweeps.points import make_proposer
from tests.experiment.test_folds import Bench

pytest.importorskip("yaml")
LR = "model_graph.optimizer.opt_kwargs.lr"
WIDTH = "model_graph.nodes.net.model_kwargs.hidden_dim"
METRIC = "train/train_loss"


@pytest.fixture
def bench():
    return Bench("keydnn")


def table(results):
    return [(trial.number, dict(trial.point), trial.value, dict(trial.metrics), trial.error) for trial in results.trials]


# -- ways and points ---------------------------------------------------------------------------------------------------------


def test_values_are_put_where_the_way_leads():
    document = {"seed": 1, "phases": [{"label": "a", "n": 1}, {"label": "b", "inputs": [{"sampler": {"size": 4}}]}]}
    made = overridden(document, {"seed": 2, "phases.a.n": 7, "phases.b.inputs.0.sampler.size": 8, "phases.1.new": [1]})
    assert made == {"seed": 2, "phases": [{"label": "a", "n": 7}, {"label": "b", "inputs": [{"sampler": {"size": 8}}], "new": [1]}]}
    assert document["seed"] == 1 and document["phases"][0]["n"] == 1
    with pytest.raises(ValueError, match=r"override 'phases.c.n' leads nowhere: no 'c' in phases; there are a, b"):
        overridden(document, {"phases.c.n": 1})
    with pytest.raises(ValueError, match=r"no 'deeper' in seed; there is nothing inside"):
        overridden(document, {"seed.deeper.still": 1})


def test_a_grid_is_every_combination_in_order():
    grid = make_proposer("grid", {"a": [1, 2], "b": ["x", "y", "z"]}, None, 0, "min")
    points = grid.propose([], 100)
    assert [tuple(point.values()) for point in points] == [(a, b) for a in (1, 2) for b in "xyz"]
    assert grid.propose([0.0] * 4, 1) == [{"a": 2, "b": "y"}] and grid.propose([0.0] * 6, 1) == []


@given(st.integers(0, 2**32), st.integers(1, 20))
def test_points_by_chance_depend_on_seed_and_number_alone(seed, n):
    space = {"a": {"loguniform": [1e-4, 1e-1]}, "b": {"int": [2, 5]}, "c": ["x", "y"], "d": {"uniform": [-1, 1]}}
    points = make_proposer("random", space, n, seed, "min").propose([], n)
    assert points == make_proposer("random", space, n + 3, seed, "min").propose([], n)
    for point in points:
        assert 1e-4 <= point["a"] <= 1e-1 and point["b"] in (2, 3, 4, 5) and point["c"] in "xy" and -1 <= point["d"] <= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"space": {}}, "the space of a sweep is empty"),
        ({"mode": "all"}, "unknown mode 'all'; expected one of grid, random, optuna"),
        ({"mode": "random"}, "mode 'random' needs n_trials"),
        ({"mode": "random", "n_trials": 0}, "n_trials must be a whole number of at least 1, got 0"),
        ({"direction": "down"}, "direction must be 'min' or 'max', got 'down'"),
        ({"space": {"seed": {"int": [1, 5]}}}, "a grid needs lists of choices, 'seed' is a range"),
        ({"space": {"seed": {"normal": [1, 5]}}, "mode": "random", "n_trials": 1}, "a range is one of uniform, loguniform, int"),
        ({"space": {"seed": {"loguniform": [0, 5]}}, "mode": "random", "n_trials": 1}, "above 0 for loguniform"),
        ({"space": {"seed": "12"}}, "a list of choices or a range is expected, got '12'"),
        ({"space": {"phases.trian.n_epochs": [1]}}, "no 'trian' in phases; there are train, test"),
        ({"space": {"phases.train.epochs": [1]}}, "epochs"),
        ({"experiment": 3}, "no experiment"),
        ({"metric": None}, "metric must be a name such as 'train/train_loss', got None"),
        ({"mode": "random", "n_trials": 1.5}, "n_trials must be a whole number of at least 1, got 1.5"),
        ({"seed": None}, "seed must be a whole number of at least 0, got None"),
    ],
)
def test_sweeps_that_make_no_sense(bench, options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        Sweep(**{"space": {"seed": [1]}, "metric": METRIC, **options})


# -- runs ----------------------------------------------------------------------------------------------------------------------


def test_every_trial_is_an_experiment_of_its_own(bench):
    before = bench.everything()
    sweep = Sweep(space={LR: [0.02, 0.2], WIDTH: [4, 6]}, metric=METRIC, threads_per_task=1)
    results = sweep.run(show_progress=False)
    assert bench.everything() == before and bench.exp.history == [] and not bench.graph.is_built
    assert [trial.point for trial in results.trials] == [{LR: lr, WIDTH: width} for lr in (0.02, 0.2) for width in (4, 6)]
    assert len({trial.value for trial in results.trials}) == 4
    bench.exp.run(show_sampler_progress=False, show_training_progress=False)
    own = bench.exp.last_run.results["train"].metrics().where(name="train_loss", epoch=1, batch=None).one().value
    assert results.trials[1].value == own  # lr 0.02 and width 6 are what the experiment has
    assert results.best.value == min(trial.value for trial in results.trials)
    assert list(results.to_pandas().columns) == ["trial", LR, WIDTH, "value", "error"]
    assert set(results.trials[0].metrics) >= {"train/train_loss", "test/eval_loss/error"}


@pytest.mark.slow
def test_processes_give_the_same_table(bench):
    options = {"space": {LR: {"loguniform": [1e-3, 1e-1]}}, "mode": "random", "n_trials": 4, "metric": METRIC, "threads_per_task": 1}
    here = Sweep(**options).run(show_progress=False)
    there = Sweep(**options, executor=Processes(workers=2, threads_per_task=1)).run(show_progress=False)
    assert table(here) == table(there)


def test_numbers_of_numpy_are_numbers(bench, tmp_path):
    results = Sweep(space={WIDTH: np.array([4]), "seed": list(np.arange(2))}, metric=METRIC).run(
        out=tmp_path / "t.jsonl", show_progress=False
    )
    assert [trial.point for trial in results.trials] == [{WIDTH: 4, "seed": 0}, {WIDTH: 4, "seed": 1}]
    assert all(trial.error is None for trial in results.trials)


def test_a_trial_that_fails_is_told_and_the_others_go_on(bench):
    results = Sweep(space={WIDTH: [4, -1]}, metric=METRIC).run(show_progress=False)
    assert results.trials[0].error is None and results.trials[1].value is None and "-1" in results.trials[1].error
    with pytest.raises(ValueError, match="none of 1 trials ended with a value"):
        SweepResults("m", "min", [Trial(0, {}, None, error="x")]).best  # noqa: B018
    with pytest.raises(ValueError, match=r"trial 0 ended without 'train/accuracy'; its metrics are train/train_loss"):
        Sweep(space={WIDTH: [4]}, metric="train/accuracy").run(show_progress=False)


def test_a_file_is_gone_on_with_and_belongs_to_one_sweep(bench, tmp_path):
    out = tmp_path / "sweep.jsonl"
    whole = Sweep(space={WIDTH: [2, 3, 4, 5]}, metric=METRIC).run(out=out, show_progress=False)
    text = out.read_bytes()
    with pytest.raises(FileExistsError, match="pass resume=True"):
        Sweep(space={WIDTH: [2, 3, 4, 5]}, metric=METRIC).run(out=out, show_progress=False)
    with pytest.raises(ValueError, match="is of another sweep"):
        Sweep(space={WIDTH: [2, 3]}, metric=METRIC).run(out=out, resume=True, show_progress=False)
    lines = text.splitlines(keepends=True)
    for kept in (lines[0][:10], b"".join(lines[:1]), b"".join(lines[:3]) + lines[3][:20], text):
        out.write_bytes(kept)
        again = Sweep(space={WIDTH: [2, 3, 4, 5]}, metric=METRIC).run(out=out, resume=True, show_progress=False)
        assert table(again) == table(whole) and out.read_bytes() == text
    out.write_bytes(b"".join(lines[:2]) + b'{"number": 5}\n')
    with pytest.raises(ValueError, match=r"line 3 is no trial"):
        Sweep(space={WIDTH: [2, 3, 4, 5]}, metric=METRIC).run(out=out, resume=True, show_progress=False)


def test_optuna_is_asked_again_as_it_was_asked(bench, tmp_path):
    pytest.importorskip("optuna")
    out = tmp_path / "sweep.jsonl"
    options = {"space": {LR: {"loguniform": [1e-3, 1e-1]}, WIDTH: [4, 6]}, "mode": "optuna", "n_trials": 6, "metric": METRIC}
    whole = Sweep(**options).run(out=out, show_progress=False)
    text = out.read_bytes()
    out.write_bytes(b"".join(text.splitlines(keepends=True)[:4]))
    assert table(Sweep(**options).run(out=out, resume=True, show_progress=False)) == table(whole) and out.read_bytes() == text


SCRIPT = """
    import os, signal, sys, time
    from pathlib import Path
    import numpy as np
    import pandas
    sys.path.insert(0, {root!r})
    from tests.experiment.test_folds import Bench
    from tests.experiment.test_sweeps import LR, METRIC
    from keydnn.experiment.sweeps import Sweep

    def sweep():
        bench = Bench("keydnn")
        space = {{LR: {{"loguniform": [1e-3, 1e-1]}}}}
        sweep = Sweep(space=space, mode="random", n_trials=40, metric=METRIC, experiment=bench.exp)
        sweep.run(out=out, resume=True, show_progress=False)

    out, rng = Path({out!r}), np.random.default_rng(0)
    for stop_at in (3, 17, 31, None):
        child = os.fork()  # everything is imported, nothing has run
        if child == 0:
            sweep()
            os._exit(0)
        if stop_at is not None:
            while os.waitpid(child, os.WNOHANG) == (0, 0) and not (out.exists() and out.read_bytes().count(b"\\n") > stop_at):
                time.sleep(0.002)
            time.sleep(float(rng.uniform(0, 0.05)))
            os.kill(child, signal.SIGKILL)  # an error where the child is through already
        how = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert how == (0 if stop_at is None else -signal.SIGKILL), how
"""


@pytest.mark.slow
def test_forty_trials_killed_and_resumed_give_the_same_table(bench, tmp_path):
    """The sweep is killed at random places until it is through; the file is that of a sweep that nobody killed."""
    out, undisturbed = tmp_path / "sweep.jsonl", tmp_path / "undisturbed.jsonl"
    space = {LR: {"loguniform": [1e-3, 1e-1]}}
    Sweep(space=space, mode="random", n_trials=40, metric=METRIC).run(out=undisturbed, show_progress=False)
    root = str(Path(__file__).resolve().parents[2])
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT.format(root=root, out=str(out))), encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([f"{root}/src", os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == undisturbed.read_bytes()
    assert len([json.loads(line) for line in out.read_text().splitlines()]) == 41
