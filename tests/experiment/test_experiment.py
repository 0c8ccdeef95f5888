"""Experiment: plans, previews, the record of runs, seeds and predictions."""

import random
import warnings

import numpy as np
import pandas as pd
import pytest

import keydnn
from keydnn.experiment import AppliedLoss, ConcatNode, Experiment, ExperimentContext, FeatureSet, Loss, ModelGraph, ModelNode, Optimizer
from keydnn.experiment.callbacks import Callback, ExperimentCallback
from keydnn.experiment.execution.run_record import git_revision
from keydnn.experiment.models.keydnn import SequentialMLP
from keydnn.experiment.phases import Checkpointing, EvalPhase, FitPhase, InputBinding, PhaseGroup, TrainPhase
from keydnn.experiment.results import PhaseGroupResults
from keydnn.experiment.samplers import SimpleSampler

QUIET = {"show_sampler_progress": False, "show_training_progress": False}


class Bench:
    """A feature set, a node, a graph, a loss and an experiment over them."""

    def __init__(self, *, seed=3, dropout=0.0, callbacks=None, label="exp"):
        rng = np.random.default_rng(0)
        data = {"u": rng.normal(size=(24, 3)), "i": rng.normal(size=(24, 3)), "age": 5.0 + 3.0 * np.arange(24), "lot": ["a", "b"] * 12}
        self.fs = FeatureSet.from_dict("cells", data, ["u", "i"], "age", "lot")
        self.fs.split_random({"train": 0.5, "val": 0.5}, seed=1)
        self.fs.fit_transform("PerSampleMinMaxScaler", domain="features", keys="u")
        columns = self.fs.reference(features=["u.transformed", "i.raw"], targets="age.raw")
        model = SequentialMLP(hidden_dim=6, dropout=dropout)
        self.net = ModelNode("net", model, columns)
        self.graph = ModelGraph([self.net], Optimizer("adam", opt_kwargs={"lr": 0.01}, backend="keydnn"))
        self.exp = Experiment.from_active_context(label, seed=seed, callbacks=callbacks)
        self.loss = AppliedLoss(Loss("mse", backend="keydnn"), self.net, ["outputs", "targets"], label="error")

    def train(self, label="train", n_epochs=2, callbacks=None, **more):
        sampler = SimpleSampler(batch_size=4, shuffle=True, seed=5)
        return TrainPhase.from_split(
            label, split="train", sampler=sampler, losses=[self.loss], n_epochs=n_epochs, callbacks=callbacks, **more
        )

    def eval(self, label="test", **more):
        return EvalPhase.from_split(label, split="val", losses=[self.loss], **more)


@pytest.fixture
def bench():
    return Bench()


def weights(bench):
    return {name: value.copy() for name, value in bench.net.model.get_weights().items()}


def bits(value):
    """A nested state as something to compare bit by bit."""
    if isinstance(value, dict):
        return {str(key): bits(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [bits(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def everything(bench):
    """All that a preview has to put back."""
    graph = bench.graph
    flags = [(node.is_frozen, [p.requires_grad for p in node.parameters()], node.face.modes(node.model.module)) for node in (bench.net,)]
    fs = {name: view.indices for name, view in bench.fs.splits.items()}
    values = {name: bench.fs.values(name) for name in bench.fs.get_all_keys() if name != "sample_uuids"}
    generators = random.getstate(), np.random.get_state()
    registry = sorted(bench.exp.ctx.available_nodes)
    rest = [len(bench.exp.history), len(bench.fs.scaler_records), bench.exp.get_state()["random"]]
    return bits([graph.get_state(), flags, fs, values, generators, registry, rest])


# -- the plan -------------------------------------------------------------------------------------------------------------


def test_a_plan_is_run_in_order_and_recorded(bench):
    exp = bench.exp
    exp.execution_plan.add_phase(bench.train()).add_group(PhaseGroup("inner", [bench.eval("a"), bench.eval("b")]))
    results = exp.run(**QUIET)
    assert isinstance(results, PhaseGroupResults)
    assert results.labels == ["train", "inner"]
    assert list(results.flatten()) == ["train", "a", "b"]
    run = exp.last_run
    assert (run.label, run.status, len(exp.history)) == ("exp", "completed", 1)
    assert run.results is results
    assert set(run.phase_durations) == {"train", "a", "b"}
    assert 0 <= sum(run.phase_durations.values()) <= run.duration_seconds
    assert run.metadata["seed"] == 3
    assert run.metadata["sampler_seeds"] == {"train": [5]}
    assert run.metadata["packages"]["numpy"] == np.__version__
    assert {"host", "system", "python", "git_revision"} <= set(run.metadata)
    assert [label for label, _ in run.execution_meta.items()] == ["train", "inner"]


def test_a_second_run_goes_on_with_the_weights_there_are(bench):
    exp = bench.exp
    exp.execution_plan.add_phase(bench.train())
    first, middle = exp.run(**QUIET), weights(bench)
    second = exp.run(**QUIET)
    one, two = (
        r.get_train_result().metrics().where(name="train_loss", batch=None).at(name="train_loss", epoch=1, batch=None).value
        for r in (first, second)
    )
    assert two < one
    assert not bits(weights(bench)) == bits(middle)
    assert len(exp.history) == 2


class Told(ExperimentCallback):
    """Writes down what it is told."""

    def __init__(self, notes, label="told", execution_order=0):
        super().__init__(label=label, execution_order=execution_order)
        self.notes = notes

    def on_experiment_start(self, experiment):
        self.notes.append("experiment_start")

    def on_experiment_end(self, experiment):
        self.notes.append("experiment_end")

    def on_phase_start(self, experiment, phase):
        self.notes.append(f"phase_start {phase.label}")

    def on_phase_end(self, experiment, phase, results):
        self.notes.append(f"phase_end {results.label}")

    def on_group_start(self, experiment, group):
        self.notes.append(f"group_start {group.label}")

    def on_group_end(self, experiment, group, results):
        self.notes.append(f"group_end {results.label}")

    def on_exception(self, experiment, phase, exception):
        self.notes.append(f"exception {phase and phase.label} {type(exception).__name__}")


class Fails(Callback):
    """Fails at the end of an epoch."""

    def __init__(self, error, epoch=0):
        super().__init__()
        self.error, self.epoch = error, epoch

    def get_config(self):
        return super().get_config()

    def on_epoch_end(self, *, experiment, phase, exec_ctx, results):
        if exec_ctx.epoch_idx == self.epoch:
            raise self.error


def test_experiment_callbacks_are_told_in_order(bench):
    notes = []
    bench.exp.add_callback(Told(notes))
    bench.exp.execution_plan.add_phase(bench.eval("a")).add_group(PhaseGroup("inner", [bench.eval("b")]))
    bench.graph.build()
    bench.exp.run()
    inner = ["group_start inner", "phase_start b", "phase_end b", "group_end inner"]
    plan = ["phase_start a", "phase_end a", *inner]
    assert notes == ["experiment_start", "group_start exp", *plan, "group_end exp", "experiment_end"]
    notes.clear()
    bench.exp.run_group(PhaseGroup("inner", [bench.eval("b")]))
    assert notes == inner
    notes.clear()
    bench.exp.run_evaluation(bench.eval("c"))
    assert notes == ["phase_start c", "phase_end c"]
    notes.clear()
    bench.exp.preview_run()
    bench.exp.preview_phase(bench.eval("c"))
    bench.exp.preview_group(PhaseGroup("inner", [bench.eval("b")]))
    assert notes == []
    assert len(bench.exp.history) == 3


def test_callbacks_run_by_their_order(bench):
    notes = []
    for label, order in (("late", 5), ("first", 0), ("second", 0)):
        bench.exp.add_callback(Told(notes, label, order))
    assert [callback.label for callback in bench.exp.exp_callbacks] == ["first", "second", "late"]
    with pytest.raises(TypeError, match="ExperimentCallback"):
        bench.exp.add_callback(Fails(KeyError()))


@pytest.mark.parametrize(("error", "status"), [(ArithmeticError("too much"), "failed"), (KeyboardInterrupt(), "stopped")])
def test_a_phase_that_fails_is_in_the_history_with_its_partial_results(bench, error, status):
    notes = []
    bench.exp.add_callback(Told(notes))
    plan = bench.exp.execution_plan
    plan.add_phase(bench.eval("before")).add_phase(bench.train(n_epochs=3, callbacks=[Fails(error, 1)])).add_phase(bench.eval("after"))
    bench.graph.build()
    with pytest.raises(type(error)) as caught:
        bench.exp.run(**QUIET)
    assert caught.value is error
    run = bench.exp.last_run
    assert run.status == status
    assert run.results.labels == ["before", "train"]
    assert run.results.get_train_result().epoch_indices == [0, 1]
    assert run.metadata["error"]["type"] == type(error).__name__
    assert run.metadata["error"]["message"] == str(error)
    assert run.metadata["error"]["phase"] == "train"
    assert "on_epoch_end" in run.metadata["error"]["traceback"]
    assert notes[-1] == f"exception train {type(error).__name__}"
    assert notes.count(notes[-1]) == 1
    table = bench.exp.run_table()
    assert table.status.tolist() == [status]
    assert table["error"].tolist() == [str(error)]


def test_a_callback_of_the_experiment_that_fails_is_recorded_too(bench):
    class Refuses(ExperimentCallback):
        def on_experiment_start(self, experiment):
            raise LookupError("no")

    bench.exp.add_callback(Refuses())
    with pytest.raises(LookupError):
        bench.exp.run()
    assert (bench.exp.last_run.status, bench.exp.last_run.metadata["error"]["phase"]) == ("failed", None)


def test_unknown_keywords_are_refused_before_anything_runs(bench):
    exp = bench.exp
    exp.execution_plan.add_phase(bench.train()).add_phase(bench.eval())
    for call in (
        lambda: exp.run(epochs=3),
        lambda: exp.preview_run(epochs=3),
        lambda: exp.run_phase(bench.eval(), show_training_progress=False),
        lambda: exp.preview_phase(bench.train(), show_eval_progress=True),
    ):
        with pytest.raises(TypeError, match="unknown keywords"):
            call()
    with pytest.raises(TypeError, match="^EvalPhase .*; show_training_progress is for a TrainPhase"):
        exp.run_phase(bench.eval(), show_training_progress=False)
    assert exp.history == []
    assert not bench.graph.is_built
    exp.run(show_eval_progress=False, **QUIET)
    with pytest.raises(TypeError, match="expected a PhaseGroup"):
        exp.run_group(bench.eval())
    with pytest.raises(TypeError, match="expected a ExperimentPhase"):
        exp.run_phase(PhaseGroup("g"))


# -- previews ---------------------------------------------------------------------------------------------------------------


def test_a_preview_of_training_puts_every_bit_back(bench):
    exp = bench.exp
    exp.run_phase(bench.train(), **QUIET)
    bench.net.model.module.train(False)
    before = everything(bench)
    results = exp.preview_phase(bench.train(n_epochs=1), **QUIET)
    assert results.n_epochs == 1
    assert everything(bench) == before
    group = exp.preview_group(PhaseGroup("g", [bench.train(n_epochs=1), bench.eval()]), **QUIET)
    assert group.labels == ["train", "test"]
    assert everything(bench) == before


def test_a_preview_that_fails_puts_every_bit_back(bench):
    class Meddles(Fails):
        def on_epoch_end(self, *, experiment, phase, exec_ctx, results):
            bench.fs.split_random({"x": 0.5, "y": 0.5}, seed=3)
            bench.fs.fit_transform("PerSampleZeroStart", domain="features", keys="u")
            FeatureSet.from_dict("other", {"x": np.ones(2)}, "x", [])
            np.random.seed(1)
            random.seed(1)
            raise self.error

    bench.exp.run_phase(bench.train(), **QUIET)
    bench.graph.freeze("net")
    bench.graph.unfreeze("net")
    before = everything(bench)
    with pytest.warns(UserWarning), pytest.raises(OSError):
        bench.exp.preview_phase(bench.train(callbacks=[Meddles(OSError("disk"))]), **QUIET)
    assert everything(bench) == before
    assert bench.exp.last_run.status == "completed"


def test_training_after_a_preview_is_training_without_it():
    found = []
    for previews in (False, True):
        with ExperimentContext(registration_policy="error").activate():
            bench = Bench(dropout=0.5)
            if previews:
                bench.exp.preview_phase(bench.train(), **QUIET)
            bench.exp.run_phase(bench.train(), **QUIET)
            if previews:
                bench.exp.preview_phase(bench.train(n_epochs=3), **QUIET)
                bench.exp.preview_phase(bench.eval())
            bench.exp.run_phase(bench.train(), **QUIET)
            found.append(bits(weights(bench)))
    assert found[0] == found[1]


def test_previews_inside_callbacks_change_nothing():
    class Looks(Callback):
        def __init__(self, wanted):
            super().__init__()
            self.wanted, self.seen = wanted, []

        def get_config(self):
            return super().get_config()

        def on_epoch_end(self, *, experiment, phase, exec_ctx, results):
            if self.wanted:
                self.seen.append(experiment.preview_phase(bench.eval("look")).aggregated_losses("net")["error"])
                experiment.preview_phase(bench.train("deep", n_epochs=1), **QUIET)

    found, notes = [], []
    for wanted in (False, True):
        with ExperimentContext(registration_policy="error").activate():
            bench = Bench(dropout=0.3, callbacks=[Told(notes)])
            looks = Looks(wanted)
            bench.exp.run_phase(bench.train(callbacks=[looks]), **QUIET)
            found.append(bits(weights(bench)))
            assert len(looks.seen) == (2 if wanted else 0)
            assert len(bench.exp.history) == 1
    assert found[0] == found[1]
    assert notes == ["phase_start train", "phase_end train"] * 2


def test_runs_inside_callbacks_are_recorded_and_nobody_is_told(bench):
    class Runs(Callback):
        def get_config(self):
            return super().get_config()

        def on_phase_end(self, *, experiment, phase, results):
            experiment.run_phase(bench.eval("inner"))

    notes = []
    bench.exp.add_callback(Told(notes))
    bench.exp.run_phase(bench.train(callbacks=[Runs()]), **QUIET)
    assert [run.label for run in bench.exp.history] == ["inner", "train"]
    assert notes == ["phase_start train", "phase_end train"]
    bench.exp.preview_phase(bench.train(callbacks=[Runs()]), **QUIET)
    assert len(bench.exp.history) == 2


def test_previews_keep_no_checkpoints_and_disabling_reaches_phases(bench):
    kept = Checkpointing()
    phase = bench.train(checkpointing=kept)
    bench.exp.preview_phase(phase, **QUIET)
    with bench.exp.disable_checkpointing():
        bench.exp.run_phase(phase, **QUIET)
    assert kept.saved_keys == []
    assert phase.checkpointing is kept
    bench.exp.run_phase(phase, **QUIET)
    assert kept.saved_keys == [0, 1]


def test_only_checkpointing_to_files_fits_an_experiment(bench, tmp_path):
    disk = Checkpointing(mode="disk", save_on="phase_end", directory=tmp_path / "c")
    for wrong, error in ((Checkpointing(), ValueError), (3, TypeError)):
        with pytest.raises(error):
            bench.exp.set_checkpointing(wrong)
    bench.exp.set_checkpointing(disk)
    assert bench.exp.checkpointing is disk
    bench.exp.set_checkpointing(None)
    assert bench.exp.checkpointing is None


# -- contexts, config, state --------------------------------------------------------------------------------------------------


def test_a_new_experiment_has_a_new_active_context():
    before = ExperimentContext.get_active()
    exp = Experiment("fresh", "overwrite")
    try:
        assert ExperimentContext.get_active() is exp.ctx is not before
        assert exp.ctx.get_experiment() is exp
        assert exp.ctx.registration_policy.value == "overwrite"
        assert exp.model_graph is None
        assert exp.last_run is None
    finally:
        ExperimentContext.set_active(before)


def test_a_context_that_is_given_is_linked_and_not_activated():
    ctx, active = ExperimentContext(), ExperimentContext.get_active()
    exp = Experiment("linked", ctx=ctx)
    assert exp.ctx is ctx and ctx.get_experiment() is exp
    assert ExperimentContext.get_active() is active
    with pytest.warns(UserWarning, match="'linked'; 'other' takes it over"):
        other = Experiment("other", ctx=ctx)
    assert ctx.get_experiment() is other
    with pytest.raises(TypeError, match="ExperimentContext"):
        Experiment("wrong", ctx=3)


def test_from_active_context_keeps_nodes_and_takes_over_the_link(bench):
    exp, ctx = bench.exp, bench.exp.ctx
    bench.exp.run_phase(bench.train(), **QUIET)
    kept = weights(bench)
    assert exp.ctx is ExperimentContext.get_active()
    with pytest.warns(UserWarning, match="takes it over"):
        second = Experiment.from_active_context("second")
    assert ctx.get_experiment() is second and second.model_graph is bench.graph
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        third = Experiment.from_active_context("third", overwrite=True, seed=3)
    assert ctx.get_experiment() is third
    assert bits(weights(bench)) == bits(kept)
    with pytest.raises(ValueError):
        Experiment.from_active_context("bad", overwrite=True, checkpointing=Checkpointing())
    assert ctx.get_experiment() is third
    fourth = Experiment.from_active_context("fourth", overwrite=True, reset=True, seed=3)
    assert fourth.seed == 3
    assert not bits(weights(bench)) == bits(kept)
    ExperimentContext.set_active(None)
    with pytest.raises(RuntimeError):
        Experiment.from_active_context("fifth")


def test_config_round_trip(bench):
    exp = bench.exp
    exp.execution_plan.add_phase(bench.train()).add_group(PhaseGroup("inner", [bench.eval()]))
    config = exp.get_config()
    assert set(config) == {"label", "registration_policy", "execution_plan", "checkpointing", "callbacks", "results_config", "seed"}
    with pytest.warns(UserWarning, match="takes it over"):
        again = Experiment.from_config(config)
    assert again == exp and again is not exp
    assert again.ctx is exp.ctx
    assert again.seed == exp.seed
    assert [phase.label for phase in again.execution_plan.flatten()] == ["train", "test"]
    again.run(**QUIET)
    again.execution_plan.clear()
    assert again != exp


def test_state_round_trip(bench):
    exp = bench.exp
    exp.run_phase(bench.train(), **QUIET)
    state, before = exp.get_state(), everything(bench)
    exp.run_phase(bench.train(), **QUIET)
    after = bits(weights(bench))
    exp.set_state(state)
    assert everything(bench) == before
    assert len(exp.history) == 1
    exp.run_phase(bench.train(), **QUIET)
    assert bits(weights(bench)) == after


@pytest.mark.parametrize("wrong", [-1, 1.5, "x"])
def test_bad_seeds(wrong):
    with pytest.raises((TypeError, ValueError)):
        Experiment("x", ctx=ExperimentContext(), seed=wrong)


# -- seeds --------------------------------------------------------------------------------------------------------------------


def trained(seed, noise, dropout=0.5):
    with ExperimentContext(registration_policy="error").activate():
        keydnn.seed(noise)
        bench = Bench(seed=seed, dropout=dropout)
        follows = np.random.get_state()[1].tolist(), random.getstate()
        bench.exp.run_phase(bench.train(), **QUIET)
        assert (np.random.get_state()[1].tolist(), random.getstate()) == follows
        return bits(weights(bench)), bench.exp.seed


def test_a_run_derives_from_the_seed_alone():
    assert trained(1, noise=1) == trained(1, noise=2)
    assert trained(1, noise=1) != trained(2, noise=1)
    drawn, seed = trained(None, noise=1)
    assert drawn == trained(seed, noise=2)[0]


# -- runs side by side ----------------------------------------------------------------------------------------------------------


def test_run_table(bench):
    exp = bench.exp
    assert exp.run_table().empty
    exp.execution_plan.add_phase(bench.train()).add_group(PhaseGroup("inner", [bench.eval()]))
    first = exp.run(**QUIET)
    exp.run_phase(bench.eval("alone"))
    table = exp.run_table()
    assert isinstance(table, pd.DataFrame)
    assert table.label.tolist() == ["exp", "alone"]
    assert table.status.tolist() == ["completed", "completed"]
    assert (table.duration_seconds > 0).all()
    last = first.get_train_result().metrics().at(name="train_loss", epoch=1, batch=None).value
    assert table["train/train_loss"].tolist()[0] == pytest.approx(last)
    assert np.isnan(table["train/train_loss"].tolist()[1])
    inner, alone = table["inner/test/eval_loss/error"], table["alone/eval_loss/error"]
    assert inner[0] == pytest.approx(alone[1])


def test_git_revision(tmp_path):
    assert git_revision(tmp_path) is None
    git = tmp_path / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    assert git_revision(tmp_path) is None
    (git / "packed-refs").write_text("# pack-refs\n" + "a" * 40 + " refs/heads/main\n")
    assert git_revision(tmp_path) == "a" * 40
    (git / "refs" / "heads" / "main").write_text("b" * 40 + "\n")
    inner = tmp_path / "src" / "deep"
    inner.mkdir(parents=True)
    assert git_revision(inner) == "b" * 40
    (git / "HEAD").write_text("c" * 40 + "\n")
    assert git_revision(inner) == "c" * 40
    linked = git / "worktrees" / "w"
    linked.mkdir(parents=True)
    (linked / "HEAD").write_text("ref: refs/heads/main\n")
    (linked / "commondir").write_text("../..\n")
    other = tmp_path / "src" / "w"
    other.mkdir()
    (other / ".git").write_text(f"gitdir: {linked}\n")
    assert git_revision(other) == "b" * 40


# -- predictions ------------------------------------------------------------------------------------------------------------------


def scaled_bench():
    pytest.importorskip("sklearn", reason="needs the sklearn extra")
    rng = np.random.default_rng(0)
    data = {"u": rng.normal(2, 3, 30), "i": rng.normal(size=30), "age": 5.0 + 3.0 * np.arange(30), "z": np.arange(30.0)}
    fs = FeatureSet.from_dict("cells", data, ["u", "i"], ["age", "z"])
    fs.split_random({"train": 0.5, "val": 0.5}, seed=1)
    fs.fit_transform("MinMaxScaler", domain="features", keys=["u", "i"], fit_to_split="train")
    fs.fit_transform("StandardScaler", domain="features", fit_to_split="train")
    fs.fit_transform("StandardScaler", domain="targets", keys="age", fit_to_split="train")
    net = ModelNode("net", SequentialMLP(hidden_dim=4), fs.reference(features="*.transformed", targets=["age.transformed", "z.raw"]))
    ModelGraph([net], Optimizer("sgd", opt_kwargs={"lr": 0.01}, backend="keydnn"))
    exp = Experiment.from_active_context("predicting", seed=1)
    loss = AppliedLoss(Loss("mse", backend="keydnn"), net, ["outputs", "targets"])
    return fs, net, exp, EvalPhase.from_split("val", split="val", losses=[loss])


def test_predictions_for_raw_data_are_those_of_an_evaluation():
    fs, net, exp, phase = scaled_bench()
    with pytest.raises(RuntimeError, match="built"):
        exp.predict({"u": [1.0], "i": [1.0]})
    exp.model_graph.build()
    wanted = exp.preview_phase(phase).stacked_tensors(net, "outputs", fmt="np")
    rows = np.sort(fs["val"].indices)
    frame = pd.DataFrame({"i": fs.values("features.i.raw")[rows], "u": fs.values("features.u.raw")[rows], "more": 0.0})
    before, records = sorted(exp.ctx.available_nodes), list(fs.scaler_records)
    scaled = exp.predict(frame, unscale=False)
    assert np.allclose(scaled.reshape(wanted.shape), wanted, atol=1e-6)
    array = frame[["i", "u"]].to_numpy()
    for data in (array, fs.take(rows), {"u": array[:, 1].tolist(), "i": array[:, 0]}):
        assert np.array_equal(exp.predict(data, unscale=False), scaled)
    assert np.allclose(exp.predict(array, "net", unscale=False, batch_size=4), scaled, atol=1e-6)
    back = exp.predict(frame, node=net).reshape(len(rows), 2)
    flat = scaled.reshape(len(rows), 2)
    assert np.allclose(back[:, 0], fs.unscale_data_for_cols(data=flat[:, 0], domain="targets", columns="age"))
    assert np.array_equal(back[:, 1], flat[:, 1])
    assert isinstance(exp.predict(frame, fmt="keydnn"), keydnn.Tensor)
    assert sorted(exp.ctx.available_nodes) == before and fs.scaler_records == records
    assert net.model.module.training and exp.history == []


@pytest.mark.parametrize(
    ("data", "options", "error", "match"),
    [
        ({"u": [1.0]}, {}, ValueError, "lack i"),
        (np.ones((3, 5)), {}, ValueError, "expected"),
        (np.ones((0, 2)), {}, ValueError, "no rows"),
        (np.ones((3, 2)), {"node": "gone"}, KeyError, "net"),
        (np.ones((3, 2)), {"fmt": "pandas"}, TypeError, "tensor-like"),
        (np.ones((3, 2)), {"batch_size": 0}, ValueError, "batch_size"),
    ],
)
def test_predictions_that_are_refused(data, options, error, match):
    _, _, exp, _ = scaled_bench()
    exp.model_graph.build()
    with pytest.raises(error, match=match):
        exp.predict(data, **options)


@pytest.mark.parametrize("second", [[], "y.transformed"])
def test_outputs_of_joined_sets_are_unscaled_by_the_only_targets(ten, second):
    other = FeatureSet.from_dict("other", {"w": np.arange(10.0), "y": np.arange(10.0)}, "w", "y")
    for rows in (ten, other):
        rows.fit_transform("StandardScaler", domain="targets")
    heads = [
        ModelNode("a", SequentialMLP(output_shape=(2,), hidden_dim=4), ten.reference(features="a.raw", targets="y.transformed")),
        ModelNode("b", SequentialMLP(output_shape=(2,), hidden_dim=4), other.reference(features="w.raw", targets=second)),
    ]
    joined = ConcatNode("joined", heads, -1, concat_axis_targets="first")
    tail = ModelNode("tail", SequentialMLP(output_shape=(1, 1), hidden_dim=4), joined)
    graph = ModelGraph([*heads, joined, tail], Optimizer("sgd", opt_kwargs={"lr": 0.1}, backend="keydnn"))
    exp = Experiment.from_active_context("two")
    graph.build()
    data = {"ten": np.ones(3), "other": np.arange(3.0)}
    scaled = exp.predict(data, unscale=False)
    if second:
        with pytest.raises(RuntimeError, match=r"'other' targets.y.transformed; 'ten' .*targets=\[\] in the references of the others"):
            exp.predict(data)
        return
    y = 2.0 * np.arange(10)
    assert np.allclose(exp.predict(data), scaled * y.std() + y.mean(), rtol=1e-5)
    sources = [InputBinding.for_evaluation(node=head, upstream=rows) for head, rows in zip(heads, (ten, other), strict=True)]
    with pytest.raises(ValueError, match="several: 'other' split None, 'ten' split None; put the columns"):
        EvalPhase("test", input_sources=sources)


def test_predictions_of_graphs_with_several_inputs_and_ends(ten):
    other = FeatureSet.from_dict("other", {"w": np.arange(10.0)}, "w", [])
    a = ModelNode("a", SequentialMLP(output_shape=(3,), hidden_dim=4), ten.reference(features="a.raw", targets="y.raw"))
    b = ModelNode("b", SequentialMLP(output_shape=(2,), hidden_dim=4), other.reference(features="w.raw"))
    with pytest.warns(UserWarning, match="connected"):
        graph = ModelGraph([a, b], Optimizer("sgd", opt_kwargs={"lr": 0.1}, backend="keydnn"))
    exp = Experiment.from_active_context("two")
    graph.build()
    with pytest.raises(ValueError, match="name a node"):
        exp.predict(np.ones(3))
    assert exp.predict(np.ones(3), "a").shape[0] == 3
    c = ConcatNode("joined", [a, b], concat_axis=-1, concat_axis_targets="first")
    graph.add_node(c).build()
    found = exp.predict({"ten": np.ones(3), "other": np.arange(3.0)})
    parts = exp.predict(np.ones(3), "a"), exp.predict(np.arange(3.0), "b")
    assert np.allclose(found, np.concatenate(parts, axis=-1))
    with pytest.raises(ValueError, match="several feature sets"):
        exp.predict(np.ones(3))
    with pytest.raises(ValueError, match="differ in length"):
        exp.predict({"ten": np.ones(3), "other": np.arange(4.0)})


# -- whole experiments ------------------------------------------------------------------------------------------------------------


def frame_of_cells():
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"u": rng.normal(3.7, 0.2, 60), "i": rng.normal(0, 1, 60), "lot": np.repeat(np.arange(20), 3)})
    frame["age"] = 100 * (4.2 - frame.u) + 3 * frame.i
    return frame


@pytest.mark.torch
def test_typical_use_with_torch():
    torch = pytest.importorskip("torch")
    pytest.importorskip("sklearn", reason="needs the sklearn extra")
    from keydnn.experiment import EarlyStopping, EvalLossMetric, Evaluation
    from keydnn.experiment.models.torch import SequentialMLP as TorchMLP

    torch.manual_seed(0)
    data = FeatureSet.from_pandas(label="cells", df=frame_of_cells(), feature_cols=["u", "i"], target_cols="age", tag_cols="lot")
    data.split_random({"train": 0.7, "val": 0.15, "test": 0.15}, group_by="lot", seed=5)
    data.fit_transform("StandardScaler", domain="features", fit_to_split="train")
    cols = data.reference(features="*.transformed", targets="age.raw")
    net = ModelNode("net", TorchMLP(hidden_dim=64), upstream_ref=cols)
    graph = ModelGraph([net], optimizer=Optimizer("adamw", opt_kwargs={"lr": 0.01}, backend="torch"))
    fit_loss = AppliedLoss(Loss("l1", backend="torch"), on=net, inputs=["outputs", "targets"], label="mae")
    exp = Experiment.from_active_context("ageing", seed=1)
    watch = Evaluation.from_split(label="watch", split="val", metrics=[EvalLossMetric(loss=fit_loss)])
    train = TrainPhase.from_split(
        "train",
        split="train",
        sampler=SimpleSampler(batch_size=64, shuffle=True, seed=5),
        losses=[fit_loss],
        n_epochs=40,
        callbacks=[watch, EarlyStopping(restore_best=True)],
    )
    exp.execution_plan.add_phase(train).add_phase(EvalPhase.from_split("test", split="test", losses=[fit_loss]))
    res = exp.run(**QUIET)
    outputs = res.get_eval_result("test").stacked_tensors("net", "outputs", fmt="np")
    assert len(outputs) == len(data["test"])
    found = res.get_train_result().metrics().where(name="val_loss").values()
    assert 1 < len(found) <= 40
    assert found[-1].value < found[0].value
    assert graph is exp.model_graph
    raw = {key: data["test"].values(f"features.{key}.raw") for key in ("u", "i")}
    order = np.argsort(data["test"].indices)
    assert np.allclose(exp.predict({k: v[order] for k, v in raw.items()}).reshape(-1), outputs.reshape(-1), atol=1e-4)


@pytest.mark.torch
def test_a_preview_with_torch_puts_every_bit_back():
    torch = pytest.importorskip("torch")
    from keydnn.experiment.models import TorchModelWrapper

    rng = np.random.default_rng(0)
    fs = FeatureSet.from_dict("rows", {"x": rng.normal(size=(16, 3)), "y": rng.normal(size=16)}, "x", "y")
    fs.split_random({"train": 0.5, "val": 0.5})
    layers = [torch.nn.Flatten(), torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1)]
    net = ModelNode("net", TorchModelWrapper(model=torch.nn.Sequential(*layers)), fs.reference(features="x.raw", targets="y.raw"))
    graph = ModelGraph([net], Optimizer("adam", backend="torch"))
    exp = Experiment.from_active_context("torch", seed=2)
    loss = AppliedLoss(Loss("mse", backend="torch"), net, ["outputs", "targets"])

    def phase():
        sampler = SimpleSampler(batch_size=4, shuffle=True, seed=5)
        return TrainPhase.from_split("train", split="train", sampler=sampler, losses=[loss], n_epochs=2)

    exp.run_phase(phase(), **QUIET)
    before = bits([graph.get_state(), torch.get_rng_state().numpy(), net.face.modes(net.model.module)])
    exp.preview_phase(phase(), **QUIET)
    assert bits([graph.get_state(), torch.get_rng_state().numpy(), net.face.modes(net.model.module)]) == before


def test_fit_phases_and_estimators():
    linear = pytest.importorskip("sklearn.linear_model", reason="needs the sklearn extra")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 2))
    fs = FeatureSet.from_dict("rows", {"a": x[:, 0], "b": x[:, 1], "y": x @ [1.0, 2.0]}, ["a", "b"], "y")
    fs.split_random({"train": 0.5, "val": 0.5})
    net = ModelNode("line", linear.LinearRegression(), fs.reference(features="*.raw", targets="y.raw"))
    ModelGraph([net])
    exp = Experiment.from_active_context("line")
    phase = FitPhase.from_split("fit", split="train")
    exp.preview_phase(phase)
    assert not net.model.is_fitted and not net.is_frozen
    exp.execution_plan.add_phase(phase).add_phase(EvalPhase.from_split("val", split="val"))
    res = exp.run()
    assert np.allclose(
        res.get_eval_result().stacked_tensors("line", "outputs", fmt="np").reshape(-1),
        fs["val"].take(np.argsort(fs["val"].indices)).values("targets.y.raw"),
    )
    assert np.allclose(exp.predict(np.ones((1, 2))), 3.0)
    assert net.is_frozen
