"""Experiments in files: what comes back, where it goes, and what a failed load leaves."""

import logging
import sys
import zipfile

import numpy as np
import pytest

from keydnn.experiment import AppliedLoss, ConcatNode, Experiment, ExperimentContext, FeatureSet, Loss, ModelGraph, ModelNode, Optimizer
from keydnn.experiment.callbacks import EarlyStopping, EvalLossMetric, Evaluation, ExperimentCallback
from keydnn.experiment.equality import same_values
from keydnn.experiment.errors import ArtifactError, ArtifactKindError, PackagedCodeError, SampleLoadError
from keydnn.experiment.io import inspect_packaged_code
from keydnn.experiment.models.keydnn import SequentialMLP
from keydnn.experiment.phases import Checkpointing, EvalPhase, PhaseGroup, TrainPhase
from keydnn.experiment.phases.callback_configs import callback_registry
from keydnn.experiment.random_files import told_states
from keydnn.experiment.samplers import SimpleSampler, TripletSampler
from keydnn.experiment.similarity import SimilarityCondition

QUIET = {"show_sampler_progress": False, "show_training_progress": False}


def everything(exp):
    """What a file has to bring back."""
    sets = [(fs.node_id, fs.label, fs.uuid_key, fs.available_splits) for fs in exp.ctx.available_featuresets.values()]
    return [exp.get_config(), exp.model_graph.get_config(), exp.model_graph.get_state(), sets, told_states(exp.random_numbers())]


class Bench:
    """A feature set that two encoders read, a node that joins them, a head, and an experiment with a nested plan."""

    def __init__(self, label="exp", *, seed=3, callbacks=(), noise=0.0):
        rng = np.random.default_rng(0)
        data = {
            "u": noise + rng.normal(size=(24, 3)),
            "t": rng.normal(size=(24, 2)),
            "age": 5.0 + 3.0 * np.arange(24),
            "lot": ["a", "b"] * 12,
        }
        self.cells = cells = FeatureSet.from_dict("cells", data, ["u", "t"], "age", "lot")
        cells.split_random({"train": 0.5, "val": 0.5}, seed=1)
        cells.fit_transform("PerSampleMinMaxScaler", domain="features", keys="u")
        self.one = ModelNode(
            "one", SequentialMLP(output_shape=(3,), hidden_dim=6), cells.reference(features="u.transformed", targets="age.raw")
        )
        self.two = ModelNode(
            "two", SequentialMLP(output_shape=(3,), hidden_dim=5, dropout=0.25), cells.reference(features="t.raw", targets="age.raw")
        )
        both = ConcatNode("both", [self.one, self.two], concat_axis_targets="first")
        self.head = ModelNode("head", SequentialMLP(hidden_dim=4), both)
        self.graph = ModelGraph([self.one, self.two, both, self.head], Optimizer("adam", opt_kwargs={"lr": 0.01}, backend="keydnn"))
        self.exp = Experiment.from_active_context(label, seed=seed)
        self.loss = AppliedLoss(Loss("mse", backend="keydnn"), self.head, ["outputs", "targets"], label="error")
        val = self.eval("val")
        watch = [
            Evaluation(eval_phase=val, label="watch", metrics=[EvalLossMetric(loss=self.loss)]),
            EarlyStopping(monitor="val_loss", patience=3),
            *callbacks,
        ]
        sampler = SimpleSampler(batch_size=4, shuffle=True)  # draws its seed
        train = TrainPhase.from_split("train", split="train", sampler=sampler, losses=[self.loss], n_epochs=2, callbacks=watch)
        inner = PhaseGroup("inner", [PhaseGroup("deep", [self.eval("a")]), self.eval("b", batch_size=5)])
        self.exp.execution_plan.add_phase(train).add_group(inner)

    def eval(self, label, **more):
        return EvalPhase.from_split(label, split="val", losses=[self.loss], **more)


def evaluated(exp, path=("inner", "b")):
    phase = exp.execution_plan
    for label in path:
        phase = phase[label]
    found = exp.run_evaluation(phase).tensors(node="head", domain="outputs").values()
    return np.concatenate([tensor.numpy() for tensor in found])


@pytest.fixture
def bench():
    return Bench()


def test_everything_comes_back(bench, tmp_path):
    exp = bench.exp
    exp.run(**QUIET)
    path = exp.save(tmp_path / "deep" / "trial.v1")
    assert path == tmp_path / "deep" / "trial.exp.mml"
    with ExperimentContext().activate() as ctx:
        again = Experiment.load(tmp_path / "deep" / "trial")
        assert again.ctx is ctx is ExperimentContext.get_active() and ctx.get_experiment() is again
        assert again == exp and same_values(everything(again), everything(exp))
        assert ctx.available_featuresets[bench.cells.node_id] == bench.cells
        assert again.save(tmp_path / "second").read_bytes() == path.read_bytes() == exp.save(path, overwrite=True).read_bytes()


def test_training_goes_on_with_the_same_bits(bench, tmp_path):
    path = bench.exp.save(tmp_path / "trial")
    with ExperimentContext().activate():
        again = Experiment.load(path)
        for exp in (bench.exp, again):
            exp.run(**QUIET)
            exp.run(**QUIET)
        assert same_values(everything(again), everything(bench.exp))


def test_the_generators_are_left_alone(bench, tmp_path):
    bench.exp.run(**QUIET)
    path = bench.exp.save(tmp_path / "trial")
    before = np.random.get_state()[1].tolist()
    with ExperimentContext().activate():
        Experiment.load(path)
    assert np.random.get_state()[1].tolist() == before


def test_a_context_with_an_experiment_is_left_alone(bench, tmp_path, caplog):
    path = bench.exp.save(tmp_path / "trial")
    home = ExperimentContext.get_active()
    for overwrite in (False, True):
        ExperimentContext.set_active(home)
        with caplog.at_level(logging.INFO, "keydnn"):
            again = Experiment.load(path, overwrite=overwrite)
        assert "lives in a new one" in caplog.text
        assert ExperimentContext.get_active() is again.ctx is not home
        assert home.get_experiment() is bench.exp and home.model_graph is bench.graph
        assert again == bench.exp and again.ctx.registration_policy is home.registration_policy
    ExperimentContext.set_active(home)


def test_ids_that_are_taken(bench, tmp_path):
    path = bench.exp.save(tmp_path / "trial")
    other = FeatureSet("other", bench.cells.collection.select(["features.u.raw"]), node_id=bench.cells.node_id, register=False)
    for kind in ("identical", "other", "replaced"):
        with ExperimentContext().activate() as ctx:
            if kind == "identical":
                ctx.register_experiment_node(bench.cells)
            else:
                ctx.register_experiment_node(other)
            again = Experiment.load(path, overwrite=kind == "replaced")
            (reference,) = again.model_graph.get_node("one").get_upstream_refs()
            read = reference.resolve().source
            if kind == "identical":
                assert read is bench.cells and len(ctx.available_featuresets) == 1
            if kind == "other":
                assert read.node_id != bench.cells.node_id and ctx.available_featuresets[bench.cells.node_id] is other
                assert again.execution_plan["train"].input_sources[0].upstream_ref.node_id == read.node_id
            if kind == "replaced":
                assert ctx.available_featuresets == {bench.cells.node_id: read}
            assert read == bench.cells or kind == "other"
            again.run(**QUIET)


def test_ids_of_nodes_that_are_taken(bench, tmp_path):
    path = bench.exp.save(tmp_path / "trial")
    with ExperimentContext().activate() as ctx:
        ctx.register_experiment_node(bench.cells)
        stray = ModelNode("stray", SequentialMLP(), bench.cells.reference(features="t.raw", targets="age.raw"), node_id=bench.one.node_id)
        again = Experiment.load(path)
        assert ctx.available_nodes[bench.one.node_id] is stray
        one = again.model_graph.get_node("one")
        assert one.node_id != bench.one.node_id and one.node_id in again.execution_plan["train"].active_nodes
        again.run(**QUIET)


def test_a_failed_load_leaves_the_context_as_it_was(bench, tmp_path):
    path = bench.exp.save(tmp_path / "trial")
    with ExperimentContext(registration_policy="error").activate() as ctx:
        ctx.register_experiment_node(bench.cells)
        ModelNode("head", SequentialMLP(), bench.cells.reference(features="t.raw", targets="age.raw"))
        before = dict(ctx.available_nodes), ctx.registration_policy, ctx.entropy
        with pytest.raises(ValueError, match="'head'.* is registered"):
            Experiment.load(path)
        assert (dict(ctx.available_nodes), ctx.registration_policy, ctx.entropy) == before
        assert ctx.model_graph is ctx.get_experiment() is None and ExperimentContext.get_active() is ctx


def test_files_that_are_none(bench, tmp_path):
    path = bench.exp.save(tmp_path / "trial")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        bench.exp.save(path)
    with pytest.raises(FileNotFoundError):
        Experiment.load(tmp_path / "nothing")
    with pytest.raises(ArtifactKindError, match="'mg', expected 'exp'"):
        Experiment.load(bench.graph.save(tmp_path / "net"))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for gone in ("state.json", "featuresets/0000/sample_collection.arrow", "model_graph/state.json", "featuresets/0000/artifact.json"):
        with zipfile.ZipFile(tmp_path / "bad.exp.mml", "w") as archive:
            for name, data in members.items():
                if name != gone:
                    archive.writestr(name, data)
        with ExperimentContext().activate() as ctx:
            with pytest.raises(ArtifactError, match="incomplete"):
                Experiment.load(tmp_path / "bad")
            assert not ctx.available_nodes and ctx.model_graph is None


def test_other_samplers_and_checkpointing_come_back(bench, tmp_path):
    conditions = {
        "pos_conditions": {"age": SimilarityCondition(tolerance=20.0)},
        "neg_conditions": {"age": SimilarityCondition("dissimilar")},
    }
    for label, sampler in {"triplets": TripletSampler(**conditions, seed=4), "plain": SimpleSampler(stratify_by="lot")}.items():
        kept = Checkpointing(mode="disk", directory=tmp_path / "kept", save_on="phase_end", max_to_keep=2)
        phase = TrainPhase.from_split(
            label, split="train", sampler=sampler, losses=[bench.loss], checkpointing=kept, result_recording="last"
        )
        bench.exp.execution_plan.add_phase(phase)
    bench.exp.set_checkpointing(Checkpointing(mode="disk", save_on="group_end", name_template="g_{label}"))
    path = bench.exp.save(tmp_path / "trial")
    with ExperimentContext().activate():
        assert Experiment.load(path) == bench.exp


# -- callbacks ----------------------------------------------------------------------------------------------------------------


class Counting(ExperimentCallback):
    """Counts runs."""

    def __init__(self, *, label=None, execution_order=0):
        super().__init__(label=label, execution_order=execution_order)
        self.n = 0

    def on_experiment_end(self, experiment):
        self.n += 1

    def get_state(self):
        return {"n": self.n}

    def set_state(self, state):
        self.n = state["n"]


def test_states_of_callbacks_and_registered_classes(bench, tmp_path, monkeypatch):
    bench.exp.add_callback(Counting())
    bench.exp.run(**QUIET)
    callback_registry.register("counting", Counting)
    try:
        path = bench.exp.save(tmp_path / "trial")
        with ExperimentContext().activate():
            assert inspect_packaged_code(path) == {} and Experiment.load(path).exp_callbacks[0].n == 1
    finally:
        del callback_registry["counting"]
    with ExperimentContext().activate(), pytest.raises(ValueError, match="register the class"):
        Experiment.load(path)


SOURCE = """
from keydnn.experiment.callbacks import Callback

class Quiet(Callback):
    def __init__(self, times=1, label=None, execution_order=0):
        super().__init__(label, execution_order)
        self.times = times

    def get_config(self):
        return {**super().get_config(), "times": self.times}
"""


def test_packaged_callbacks_need_permission(bench, tmp_path, monkeypatch):
    (tmp_path / "quiet_callbacks.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    from quiet_callbacks import Quiet

    bench.exp.execution_plan["train"].add_callback(Quiet(times=4))
    bench.exp.execution_plan["train"].add_callback(Quiet(times=5, label="again"))
    path = bench.exp.save(tmp_path / "trial")
    sys.modules.pop("quiet_callbacks")
    assert list(inspect_packaged_code(path).values()) == [SOURCE]
    with ExperimentContext().activate() as ctx:
        with pytest.raises(PackagedCodeError, match="inspect_packaged_code"):
            Experiment.load(path)
        assert not ctx.available_nodes
        again = Experiment.load(path, allow_packaged_code=True)
        assert [cb.times for cb in again.execution_plan["train"].callbacks if type(cb).__name__ == "Quiet"] == [4, 5]


OWN = """
from keydnn.experiment import Experiment

class Own(Experiment):
    pass
"""


def test_classes_of_their_own(bench, tmp_path, monkeypatch):
    (tmp_path / "own_experiment.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    from own_experiment import Own

    with ExperimentContext().activate():
        path = Own("own", ctx=ExperimentContext()).save(tmp_path / "own")
        assert type(Own.load(path)) is Own  # the caller brings the class
    sys.modules.pop("own_experiment")
    with ExperimentContext().activate():
        with pytest.raises(PackagedCodeError):
            Experiment.load(path)
        found = Experiment.load(path, allow_packaged_code=True)
        assert (type(found).__name__, type(found) is Own, found.label) == ("Own", False, "own")
    with ExperimentContext().activate(), pytest.raises(ArtifactError, match="holds a Experiment, no Own"):
        type(found).load(bench.exp.save(tmp_path / "trial"), allow_packaged_code=True)


# -- without data -------------------------------------------------------------------------------------------------------------


def test_without_data(bench, tmp_path):
    bench.exp.run(**QUIET)
    full, path = bench.exp.save(tmp_path / "full"), bench.exp.save(tmp_path / "bare", include_data=False)
    assert path.stat().st_size < full.stat().st_size
    with zipfile.ZipFile(path) as archive:
        assert not any("sample_collection" in name for name in archive.namelist())
    with ExperimentContext().activate() as ctx:
        again = Experiment.load(path)
        assert again == bench.exp
        (cells,) = ctx.available_featuresets.values()
        assert cells.fingerprint == bench.cells.fingerprint and len(cells) == 24 and cells.n_splits == 2
        assert cells.get_sample_uuids("np").tolist() == bench.cells.get_sample_uuids("np").tolist()
        assert cells.get_feature_shapes() == bench.cells.get_feature_shapes() and cells.scaler_records == bench.cells.scaler_records
        assert np.array_equal(cells["val"].indices, bench.cells["val"].indices)
        for refused in (
            lambda: again.run(**QUIET),
            lambda: evaluated(again),
            lambda: cells.get_features("np", rep="raw"),
            lambda: cells.fit_transform("Absolute", domain="targets"),
            lambda: cells.save(tmp_path / "cells"),
            lambda: again.save(tmp_path / "third"),
        ):
            with pytest.raises(SampleLoadError, match="include_data=False"):
                refused()
        assert again.save(tmp_path / "third", include_data=False).name == "third.exp.mml"
        data = bench.cells.save(tmp_path / "cells")
        FeatureSet.load(data, overwrite=True)
        assert np.array_equal(evaluated(again), evaluated(bench.exp))
