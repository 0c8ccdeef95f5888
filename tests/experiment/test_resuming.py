"""Runs in a folder, taken up from any checkpoint; a kill is a copy of the folder, made when the checkpoint was written."""

import json
import logging
import os
import shutil

import numpy as np
import pytest

from keydnn.experiment import (
    EvalPhase,
    Experiment,
    ExperimentContext,
    FeatureSet,
    FitPhase,
    ModelGraph,
    ModelNode,
    Optimizer,
    PhaseGroup,
    ResultsConfig,
    TrainPhase,
)
from keydnn.experiment.callbacks import Callback
from keydnn.experiment.errors import ArtifactError
from keydnn.experiment.io import Checkpoint
from keydnn.experiment.phases import Checkpointing
from keydnn.experiment.phases.checkpointing import PHASE_HOOKS
from keydnn.experiment.samplers import SimpleSampler
from tests.experiment import kill_world
from tests.experiment.kill_trials import difference

QUIET = {"show_sampler_progress": False, "show_training_progress": False}


class Copies(dict):
    """Number of a checkpoint to a copy of the folder ``run`` when it was written; the start has number 0.

    Attributes:
        every: Only so many are copied.
    """

    every = 1


@pytest.fixture
def copies(monkeypatch, tmp_path):
    """Copies of the folder ``run``."""
    made, rename, run = Copies(), os.replace, tmp_path / "run"

    def renamed(source, target, **more):
        rename(source, target, **more)
        if str(target).endswith(".ckpt.mml") and run in target.parents:
            number = Checkpoint.load(target, only=[]).meta["number"]
            if number and number % made.every == 0:
                made[number] = shutil.copytree(run, tmp_path / f"copy{number}", dirs_exist_ok=True)

    monkeypatch.setattr(os, "replace", renamed)
    return made


def hooks_told(monkeypatch):
    """What the callbacks tell, from now on."""
    told = []
    monkeypatch.setattr(kill_world.EVENTS, "happened", lambda what=None: told.append(what) if what else None)
    return told


def resumed(folder):
    """The experiment of a folder, in a context of its own."""
    with ExperimentContext(registration_policy="error").activate():
        return Experiment.resume(folder, allow_packaged_code=True, **QUIET)


@pytest.mark.slow
@pytest.mark.parametrize(("save_on", "by_batch"), [*((hook, True) for hook in PHASE_HOOKS), ("epoch_start", False), ("epoch_end", False)])
def test_it_goes_on_after_every_kind_of_checkpoint(save_on, by_batch, copies, tmp_path, monkeypatch):
    told, copies.every = hooks_told(monkeypatch), {"phase": 2, "epoch": 4, "batch": 11}[save_on.split("_")[0]]
    first = kill_world.experiment("keydnn", save_on=save_on, by_batch=by_batch, n_epochs=3)
    first.run(tmp_path / "run", **QUIET)
    wanted, whole = kill_world.answer(first), list(told)
    assert len(copies) >= 2
    for copy in list(copies.values()):
        told.clear()
        exp = resumed(copy)
        assert difference(wanted, kill_world.answer(exp)) is None
        assert told == whole[len(whole) - len(told) :]
        assert len(told) < len(whole) and "hook experiment start" not in told
        assert exp.last_run.started_at == first.last_run.started_at < exp.last_run.ended_at


@pytest.mark.slow
def test_a_run_that_is_over_stays_as_it_is(tmp_path, monkeypatch, caplog):
    told = hooks_told(monkeypatch)
    first = kill_world.experiment("keydnn")
    first.run(tmp_path / "run", **QUIET)
    told.clear()
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with caplog.at_level(logging.WARNING):
        exp = resumed(tmp_path / "run")
    assert told == [] and "this run is over" in caplog.text
    assert difference(kill_world.answer(first), kill_world.answer(exp)) is None
    assert exp.last_run.ended_at == first.last_run.ended_at
    assert files == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    exp.run(tmp_path / "again", **QUIET)
    first.run(tmp_path / "more", **QUIET)
    assert difference(kill_world.answer(first), kill_world.answer(exp)) is None  # and both go on in the same way


@pytest.mark.slow
def test_a_run_that_failed_goes_on_too(tmp_path, monkeypatch):
    undisturbed = kill_world.experiment("keydnn")
    undisturbed.run(tmp_path / "other", **QUIET)
    with ExperimentContext(registration_policy="error").activate():
        first = kill_world.experiment("keydnn")
        monkeypatch.setattr(kill_world.EVENTS, "happened", lambda what=None: what == "step second 2 1" and 1 / 0)
        with pytest.raises(ZeroDivisionError):
            first.run(tmp_path / "run", **QUIET)
    monkeypatch.setattr(kill_world.EVENTS, "happened", lambda what=None: None)
    assert difference(kill_world.answer(undisturbed), kill_world.answer(resumed(tmp_path / "run"))) is None


@pytest.mark.slow
def test_nothing_was_over_yet(tmp_path):
    first = kill_world.experiment("keydnn")
    first.run(tmp_path / "run", **QUIET)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "plan.ckpt.mml").unlink()
    (tmp_path / "run" / ".keydnn-0123.tmp").write_bytes(b"half")
    exp = resumed(tmp_path / "run")
    assert difference(kill_world.answer(first), kill_world.answer(exp)) is None and len(exp.history) == 1
    assert not list((tmp_path / "run").rglob("*.tmp*"))


def test_what_is_refused(tmp_path, copies):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        Experiment.resume(tmp_path)
    first = kill_world.experiment("keydnn")
    first.run(tmp_path / "run", **QUIET)
    with pytest.raises(FileExistsError, match="Experiment.resume"):
        first.run(tmp_path / "run", **QUIET)
    with ExperimentContext().activate(), pytest.raises(TypeError, match="unknown keywords"):
        Experiment.resume(copies[2], allow_packaged_code=True, speed=2)
    active = ExperimentContext.get_active()
    (data,) = (copies[2] / "data").iterdir()
    other = FeatureSet.from_dict("other", {"x": np.arange(24.0), "y": np.arange(24.0)}, "x", "y")
    shutil.copy(other.collection.save(tmp_path / "other"), data)
    with pytest.raises(ArtifactError, match="fingerprint"):
        Experiment.resume(copies[2], allow_packaged_code=True)
    assert ExperimentContext.get_active() is active


@pytest.mark.slow
def test_a_damaged_checkpoint_is_left_out(tmp_path, copies, caplog):
    first = kill_world.experiment("keydnn")
    first.run(tmp_path / "run", **QUIET)
    files = sorted(copies[3].rglob("*epoch*.ckpt.mml"))
    latest = max(files, key=lambda file: Checkpoint.load(file, only=[]).meta["number"])
    latest.write_bytes(latest.read_bytes()[:-2000])
    with caplog.at_level(logging.WARNING):
        exp = resumed(copies[3])
    assert f"{latest} is left out" in caplog.text
    assert difference(kill_world.answer(first), kill_world.answer(exp)) is None


class Watched(Callback):
    """Tells of batches."""

    told = []

    def on_batch_end(self, *, experiment, phase, exec_ctx, results):
        self.told.append((phase.label, exec_ctx.epoch_idx, exec_ctx.batch_idx))

    def get_config(self):
        return super().get_config()


class World:
    """A graph of one unit in the active context."""

    def __init__(self, **options):
        import keydnn
        from keydnn.experiment import AppliedLoss, Loss

        keydnn.seed(0)
        self.rows = FeatureSet.from_dict("rows", {"x": np.arange(12.0), "y": 2 * np.arange(12.0)}, "x", "y")
        net = keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.Linear(1, 1))
        self.exp = Experiment.from_active_context("small", seed=1, **options)
        self.net = ModelNode("net", net, self.rows)
        self.graph = ModelGraph([self.net], Optimizer("sgd", opt_kwargs={"lr": 0.001}, backend="keydnn"))
        self.loss = AppliedLoss(Loss("mse", backend="keydnn"), "net", ["outputs", "targets"], label="mse")

    def phase(self, label="train", **options):
        sampler = options.pop("sampler", SimpleSampler(batch_size=4, show_progress=False))
        kept = options.pop("checkpointing", Checkpointing(mode="disk"))
        return TrainPhase.from_split(label, split=None, sampler=sampler, losses=[self.loss], n_epochs=3, checkpointing=kept, **options)


def weights(exp):
    return {name: value.tolist() for name, value in exp.ctx.get_node("net").model.get_weights().items()}


@pytest.mark.slow
def test_a_single_phase_and_a_group(tmp_path, copies):
    world = World()
    train = world.phase()
    world.exp.run_phase(train, run_dir=tmp_path / "run", **QUIET)
    wanted, metrics = weights(world.exp), world.exp.last_run.results.to_pandas()
    exp = resumed(copies[2])
    assert weights(exp) == wanted and exp.last_run.results.to_pandas().equals(metrics) and exp.last_run.label == "train"
    shutil.rmtree(tmp_path / "run")
    copies.clear()
    group = PhaseGroup("both", [PhaseGroup("one", [world.phase("a")]), world.phase("b"), EvalPhase.from_split("c", split=None)])
    world.exp.run_group(group, run_dir=tmp_path / "run", **QUIET)
    wanted = weights(world.exp)
    for place in (1, 3, 5, 6, 8, 10):
        exp = resumed(copies[place])
        assert weights(exp) == wanted and exp.last_run.results.labels == ["one", "b", "c"]
        assert len(exp.history) == 2  # the phase that ran before belongs to the start


def test_checkpoints_in_memory_do_not_survive(tmp_path, copies):
    world = World()
    kept = [Checkpointing(), Checkpointing()]
    for label, one in zip("ab", kept, strict=True):
        world.exp.execution_plan.add_phase(world.phase(label, checkpointing=one))
    world.exp.run(tmp_path / "run", **QUIET)
    exp = resumed(copies[1])  # a is over
    assert weights(exp) == weights(world.exp)
    phases = exp.execution_plan.flatten()
    assert [phase.checkpointing.saved_keys for phase in phases] == [[], [0, 1, 2]]


def test_samplers_go_on_with_what_they_drew(tmp_path, copies):
    world = World()
    sampler = SimpleSampler(batch_size=4, shuffle=True, seed=1, show_progress=False)
    sampler.bind_sources(world.rows)
    sampler.materialize_batches(show_progress=False)
    sampler.reshuffle(7)  # by hand, before the run
    world.exp.execution_plan.add_phase(world.phase(sampler=sampler, resample="epoch"))
    results = world.exp.run(tmp_path / "run", **QUIET)
    seen = [batch.tolist() for batch in results["train"].tensors("net", "targets", fmt="np").values()]
    again = resumed(copies[1])
    found = again.last_run.results["train"].tensors("net", "targets", fmt="np").values()
    assert [batch.tolist() for batch in found] == seen and weights(again) == weights(world.exp)


def test_updates_of_several_steps_are_not_cut(tmp_path, copies):
    Watched.told = []
    world = World()
    kept = Checkpointing(mode="disk", save_on="batch_end", directory=tmp_path / "own")
    world.exp.execution_plan.add_phase(world.phase(accumulate=2, checkpointing=kept, sampler=SimpleSampler(batch_size=2)))
    world.exp.run(tmp_path / "run", **QUIET)
    entries = {path.name: set(Checkpoint.load(path).entries) for path in (tmp_path / "own").iterdir()}
    assert entries["train_epoch0_batch0.ckpt.mml"] == {"modelgraph"}
    assert entries["train_epoch0_batch1.ckpt.mml"] == {"modelgraph", "run"}
    (tmp_path / "run" / "plan.ckpt.mml").unlink()
    (tmp_path / "own" / "train_epoch2_batch5.ckpt.mml").unlink()  # goes on from the third of its six steps
    assert weights(resumed(tmp_path / "run")) == weights(world.exp)


def test_a_table_is_stored_once(tmp_path):
    world = World()
    FeatureSet("twin", world.rows.collection.copy())
    FeatureSet.from_dict("other_ids", {"x": np.arange(12.0), "y": 2 * np.arange(12.0)}, "x", "y")
    world.exp.execution_plan.add_phase(world.phase())
    world.exp.run(tmp_path / "run", **QUIET)
    names = sorted(path.name for path in (tmp_path / "run" / "data").iterdir())
    assert names == [f"{world.rows.fingerprint}-1.arrow", f"{world.rows.fingerprint}.arrow"]
    with ExperimentContext().activate() as ctx:
        Experiment.resume(tmp_path / "run")
        assert ctx.get_node("twin").collection == world.rows.collection


def test_a_run_in_a_folder_says_where_its_checkpoints_are(tmp_path):
    world = World()
    world.exp.execution_plan.add_group(PhaseGroup("late", [world.phase()]))
    with pytest.raises(RuntimeError, match="run_dir"):
        world.exp.run(**QUIET)
    world.exp.run(tmp_path / "run", **QUIET)
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints" / "late" / "train").iterdir()) == [
        f"train_epoch{epoch}.ckpt.mml" for epoch in range(3)
    ]
    found = Checkpoint.load(tmp_path / "run" / "checkpoints" / "late" / "train" / "train_epoch1")
    assert found.entries["run"]["cursor"] == {"path": ["late", "train"], "hook": "epoch_end", "epoch": 1, "batch": None}
    assert json.dumps(found.meta["number"]) == "2"


def test_it_lives_in_an_empty_context_or_a_new_one(tmp_path):
    world = World()
    world.exp.execution_plan.add_phase(world.phase())
    world.exp.run(tmp_path / "run", **QUIET)
    with ExperimentContext().activate() as ctx:
        assert Experiment.resume(tmp_path / "run").ctx is ctx
        other = Experiment.resume(tmp_path / "run")
        assert other.ctx is ExperimentContext.get_active() is not ctx and other.ctx.get_node("net").node_id == world.net.node_id
    ExperimentContext.set_active(ExperimentContext())


@pytest.mark.slow
def test_batches_that_are_made_before_their_step(tmp_path, copies):
    world = World()
    kept, sampler = Checkpointing(mode="disk", save_on="batch_end"), SimpleSampler(batch_size=2, shuffle=True, seed=4, show_progress=False)
    phase = world.phase(prefetch="lazy", resample="epoch_full", checkpointing=kept, sampler=sampler)
    world.exp.run_phase(phase, run_dir=tmp_path / "run", **QUIET)
    for number in (3, 6, 17, 18):  # also after the last step of an epoch
        exp = resumed(copies[number])
        assert weights(exp) == weights(world.exp)
        assert exp.last_run.results.to_pandas().equals(world.exp.last_run.results.to_pandas())


@pytest.mark.slow
def test_results_on_disk_are_written_again(tmp_path, copies):
    world = World(results_config=ResultsConfig(tmp_path / "results", save_metrics=True))
    world.exp.execution_plan.add_phase(world.phase("a")).add_phase(world.phase("b"))
    results = world.exp.run(tmp_path / "run", **QUIET)
    for number in (2, 5):
        exp = resumed(copies[number])
        found = exp.last_run.results
        for label in "ab":
            assert found[label].to_pandas().equals(results[label].to_pandas())
            outputs = [np.stack(one[label].tensors("net", "outputs", fmt="np").values()) for one in (found, results)]
            assert outputs[0].shape == (9, 4, 1) and np.array_equal(*outputs)
        assert exp.results_config == world.exp.results_config


def test_models_that_are_fitted_at_once(tmp_path, copies):
    pytest.importorskip("sklearn")
    from sklearn.linear_model import SGDRegressor

    rows = FeatureSet.from_dict("rows", {"x": np.arange(12.0), "y": 2 * np.arange(12.0)}, "x", "y")
    exp = Experiment.from_active_context("fitted", seed=1)
    ModelGraph([ModelNode("net", SGDRegressor(), rows)])
    exp.execution_plan.add_phase(FitPhase.from_split("fit", split=None)).add_phase(EvalPhase.from_split("test", split=None))
    results = exp.run(tmp_path / "run")
    again = resumed(copies[1])
    outputs = [one["test"].stacked_tensors("net", "outputs", fmt="np") for one in (results, again.last_run.results)]
    assert np.array_equal(*outputs) and again.ctx.get_node("net").is_frozen
