"""YAML: every kind comes again with an equal config."""

import importlib
import os
import subprocess
import sys

import pytest

import keydnn
from keydnn.experiment import (
    Accelerator,
    AppliedLoss,
    Callback,
    Checkpointing,
    ConcatNode,
    EvalPhase,
    Experiment,
    ExperimentCallback,
    ExperimentContext,
    FitPhase,
    InputBinding,
    Loss,
    ModelGraph,
    ModelNode,
    Optimizer,
    PhaseGroup,
    ResultsConfig,
    TrainPhase,
)
from keydnn.experiment.callbacks import callback_registry
from keydnn.experiment.equality import same_values
from keydnn.experiment.errors import PackagedCodeError
from keydnn.experiment.io import from_yaml
from keydnn.experiment.models.keydnn import SequentialMLP
from keydnn.experiment.predicates import GT, In, Lambda
from keydnn.experiment.references import FeatureSetColumnReference, ModelOutputReference
from keydnn.experiment.samplers import BaseSampler, NSampler, PairedSampler, SimilarityCondition, SimpleSampler, TripletSampler
from keydnn.experiment.splitters import BaseSplitter, ConditionSplitter, KFoldSplitter, RandomSplitter, TimeSplitter
from tests.experiment.yaml_studies import anew, branched, cells, everything, plan, same, sgd

TORCH = pytest.param("torch", marks=pytest.mark.torch)


class Steps(Callback):
    """A callback of a user, registered in one test."""

    def __init__(self, every: int = 1, sizes=(1, 2), label=None):
        super().__init__(label)
        self.every, self.sizes = every, sizes

    def get_config(self):
        return {**super().get_config(), "every": self.every, "sizes": self.sizes}


class Bell(ExperimentCallback):
    """A callback of a user, around runs."""


@pytest.fixture
def study(context):
    return everything()


# -- every kind comes again


@pytest.mark.parametrize(
    "sampler",
    [
        SimpleSampler(batch_size=3, shuffle=True, drop_last=True, seed=4, stratify_by=["lot", "age.raw"]),
        SimpleSampler(group_by="lot"),
        PairedSampler({"lot": SimilarityCondition(metric=None, allow_fallback=True)}, max_pairs_per_anchor=None),
        TripletSampler(
            {"age": SimilarityCondition(tolerance=0.1, weight_mode="exp")}, {"lot": SimilarityCondition("dissimilar")}, pairing="zip"
        ),
        NSampler({"near": {"age": SimilarityCondition(tolerance=2.0), "lot": SimilarityCondition()}}, choose_best_only=True, n_workers=2),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_samplers_come_again(sampler, tmp_path):
    path = sampler.to_yaml(tmp_path / "rows")
    assert path.name == "rows.yaml" and path.read_text().startswith("sampler:\n")
    for again in (from_yaml(path), from_yaml(tmp_path / "rows", "sampler"), BaseSampler.from_yaml(path), type(sampler).from_yaml(path)):
        assert same(again, sampler)


@pytest.mark.parametrize(
    "splitter",
    [
        RandomSplitter({"train": 0.1 + 0.2, "rest": 0.7}, group_by=["lot"], seed=3),
        RandomSplitter({"a": 0.5, "b": 0.5}, stratify_by=FeatureSetColumnReference("tags", "lot", "raw"), strict_stratification=True),
        KFoldSplitter(4, shuffle=False, seed=None),
        TimeSplitter({"early": 0.25, "late": 0.75}, "age"),
        ConditionSplitter(big={"age.raw": GT(4) & ~In([9, 10]), "lot": ["a", "b"]}, rest={"age": Lambda("lambda x: x <= 4"), "lot": "a"}),
    ],
    ids=lambda splitter: type(splitter).__name__,
)
def test_splitters_come_again(splitter, tmp_path, context):
    cells()
    again = BaseSplitter.from_yaml(splitter.to_yaml(tmp_path / "cut.yml"))
    assert same(again, splitter) and (tmp_path / "cut.yml").is_file()


def test_a_lambda_becomes_text(tmp_path):
    splitter = ConditionSplitter(
        big={"age": lambda x: x > 4},
    )
    again = from_yaml(splitter.to_yaml(tmp_path / "cut"))
    assert again.conditions["big"]["age"] == Lambda("lambda x: x > 4")


@pytest.mark.parametrize("build", [False, True])
def test_graphs_come_again_in_a_fresh_context_and_in_their_own(build, tmp_path, context):
    fs = cells()
    graph = branched(fs, build)
    path = graph.to_yaml(tmp_path / "graph")
    with anew(fs).activate() as fresh:
        again = ModelGraph.from_yaml(path)
        assert same(again, graph) and fresh.model_graph is again and again.nodes.keys() == graph.nodes.keys()
        assert again.to_yaml(tmp_path / "again").read_text() == path.read_text()
        assert [node.is_built for node in again.nodes.values()] == [build] * 6
        again.build()
    with pytest.raises(ValueError, match="already; pass overwrite=True"):
        ModelGraph.from_yaml(path)
    assert context.model_graph is graph
    replaced = from_yaml(path, overwrite=True)
    assert same(replaced, graph) and context.model_graph is replaced and len(context.available_nodes) == 7


@pytest.mark.parametrize("backend", ["keydnn", TORCH])
def test_optimizers_by_backend_and_classes_come_again(backend, tmp_path, context):
    fs = cells()
    if backend == "torch":
        import torch
        from torch.nn import Linear, Sequential, Tanh

        model, one = Sequential(Linear(4, 3), Tanh()), Optimizer(torch.optim.Adam, schedule=torch.optim.lr_scheduler.LinearLR)
    else:
        model, one = keydnn.Sequential(keydnn.Dense(3)), Optimizer(keydnn.optim.Adam, opt_kwargs={"betas": (0.8, 0.9)})
    graph = ModelGraph([ModelNode("net", model, fs.reference(features="u.raw"))], {backend: one})
    path = graph.to_yaml(tmp_path / "graph")
    assert "$symbol" not in path.read_text() or backend == "torch"
    with anew(fs).activate():
        assert same(ModelGraph.from_yaml(path), graph)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["keydnn", TORCH])
def test_activations_of_every_form_come_again(backend, tmp_path, context):
    import importlib

    home = importlib.import_module("torch.nn" if backend == "torch" else "keydnn.nn")
    models = importlib.import_module(f"keydnn.experiment.models.{backend}")
    fs = cells()
    for i, form in enumerate(["tanh", home.Tanh, home.LeakyReLU(0.3)]):
        node = ModelNode(f"net{i}", models.SequentialMLP(activation=form), fs.reference(features="u.raw"), sgd(backend))
        graph = ModelGraph([node], register=False)
        graph.build()
        with anew(fs).activate():
            assert same(ModelGraph.from_yaml(graph.to_yaml(tmp_path / f"graph{i}")), graph)
        with anew(fs).activate():
            assert same(ModelGraph.load(graph.save(tmp_path / f"graph{i}")), graph)


@pytest.mark.torch
def test_a_module_with_a_class_that_cannot_be_named_is_refused(tmp_path, context):
    import torch

    class Own(torch.nn.Module):
        def forward(self, x):
            return x

    graph = ModelGraph([ModelNode("net", torch.nn.Sequential(torch.nn.Linear(4, 3), Own()), cells())], sgd("torch"))
    with pytest.raises(ImportError, match="model_graph, node 'net', model_kwargs: no import path leads to .*Own"):
        graph.to_yaml(tmp_path / "graph")
    assert list(tmp_path.iterdir()) == []


def test_a_context_that_registers_nothing(study, tmp_path, context):
    graph, nodes = study.model_graph, context.available_nodes
    path, whole = graph.to_yaml(tmp_path / "graph"), study.to_yaml(tmp_path / "study")
    with context.dont_register():
        again = ModelGraph.from_yaml(path)
        with pytest.raises(ValueError, match="registers nothing"):
            Experiment.from_yaml(whole, overwrite=True)
    assert same(again, graph) and again is not graph
    assert context.available_nodes == nodes and context.model_graph is graph and context.get_experiment() is study


def test_a_graph_is_written_from_anywhere(tmp_path, context):
    graph = branched(cells())
    with ExperimentContext().activate():
        path = graph.to_yaml(tmp_path / "graph")
    assert path.read_text() == graph.to_yaml(tmp_path / "again").read_text()


@pytest.mark.slow
def test_estimators_come_again(tmp_path, context):
    pytest.importorskip("sklearn", reason="needs the sklearn extra")
    from sklearn.linear_model import Ridge

    from keydnn.experiment.models import ScikitModelWrapper

    fs = cells()
    graph = ModelGraph([ModelNode("ridge", ScikitModelWrapper(Ridge(alpha=0.1 + 0.2), training_mode="batch_fit"), fs)])
    fit = FitPhase.from_split("fit", split="train", freeze_after_fit=False)
    path, again = graph.to_yaml(tmp_path / "graph"), FitPhase.from_yaml(fit.to_yaml(tmp_path / "fit"))
    assert "sklearn.linear_model.Ridge" in path.read_text() and again == fit and not again.freeze_after_fit
    with anew(fs).activate():
        assert same(ModelGraph.from_yaml(path), graph)


@pytest.mark.parametrize("label", ["train", "pairs"])
def test_training_phases_come_again(study, label, tmp_path):
    phase = next(phase for phase in study.execution_plan.flatten() if phase.label == label)
    path = phase.to_yaml(tmp_path / "phase")
    assert path.read_text().startswith("train_phase:\n") and from_yaml(path) == TrainPhase.from_yaml(path) == phase
    with pytest.raises(ValueError, match="holds a train_phase, expected EvalPhase"):
        EvalPhase.from_yaml(path)


def test_evaluation_phases_and_groups_come_again(study, tmp_path):
    group = study.execution_plan.get_group("more")
    test = group.flatten()[-1]
    assert EvalPhase.from_yaml(test.to_yaml(tmp_path / "test")) == test
    assert PhaseGroup.from_yaml(group.to_yaml(tmp_path / "group")) == group


def test_experiments_come_again(study, tmp_path, context):
    path = study.to_yaml(tmp_path / "study")
    (fs,) = context.available_featuresets.values()
    with anew(fs).activate() as fresh:
        again = Experiment.from_yaml(path)
        assert same(again, study) and fresh.get_experiment() is again and same(fresh.model_graph, context.model_graph)
        assert again.to_yaml(tmp_path / "again").read_text() == path.read_text()
        found = again.run(show_training_progress=False)
    assert (
        study.run(show_training_progress=False)
        .get_train_result("train")
        .metrics()
        .to_pandas()
        .equals(found.get_train_result("train").metrics().to_pandas())
    )
    with pytest.raises(ValueError, match="belongs to experiment 'study' already"):
        Experiment.from_yaml(path)
    assert context.get_experiment() is study
    taken = Experiment.from_yaml(path, overwrite=True)
    assert same(taken, study) and context.get_experiment() is taken


def test_where_things_are_written_comes_again(tmp_path, context):
    fs = cells()
    ModelGraph([ModelNode("net", SequentialMLP(), fs)], sgd())
    kept = Checkpointing(mode="disk", save_on="phase_end", directory=tmp_path / "kept", name_template="at-{label}")
    results = ResultsConfig(results_dir=tmp_path / "results", save_metrics=True)
    exp = Experiment.from_active_context("disk", "overwrite", checkpointing=kept, results_config=results)
    path = exp.to_yaml(tmp_path / "disk")
    with anew(fs).activate() as fresh:
        again = Experiment.from_yaml(path)
        assert same(again, exp) and again.checkpointing == kept and again.results_config.save_metrics
        assert fresh.registration_policy.value == "overwrite"
    with pytest.raises(ValueError, match="experiment, results_config: results_config has no 'save_all'"):
        (tmp_path / "bad.yaml").write_text(path.read_text().replace("save_metrics", "save_all"))
        Experiment.from_yaml(tmp_path / "bad", overwrite=True)


def test_a_built_graph_gets_the_weights_of_the_seed(study, tmp_path, context):
    study.model_graph.build()
    (fs,) = context.available_featuresets.values()
    (net,) = study.model_graph.nodes.values()
    with anew(fs).activate():
        again = Experiment.from_yaml(study.to_yaml(tmp_path / "study"))
        (other,) = again.model_graph.nodes.values()
        assert other.is_built and same_values(other.model.get_weights(), net.model.get_weights())


CHILD = """
import sys, warnings
warnings.simplefilter("error")
from keydnn.experiment import Experiment, FeatureSet
FeatureSet.load(sys.argv[1])
Experiment.from_yaml(sys.argv[2]).to_yaml(sys.argv[3])
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["keydnn", TORCH])
def test_experiments_come_again_in_a_fresh_process(backend, tmp_path, context):
    fs = cells()
    model = importlib.import_module(f"keydnn.experiment.models.{backend}").SequentialMLP(hidden_dim=4)
    net = ModelNode("net", model, fs.reference(features="u.raw"))
    ModelGraph([net], sgd(backend))
    path = plan(fs, net, backend).to_yaml(tmp_path / "study")
    child = [sys.executable, "-c", CHILD, str(fs.save(tmp_path / "cells")), str(path), str(tmp_path / "again.yaml")]
    done = subprocess.run(child, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.yaml").read_text() == path.read_text()


def test_callbacks_of_users_come_again(study, tmp_path):
    callback_registry.register("Strides", Steps)
    callback_registry.register("Bell", Bell)
    try:
        phase = study.execution_plan.get_train_phase("train")
        phase.add_callback(Steps(every=2, sizes=(3, (4, None)), label="steps"))
        study.add_callback(Bell(label="bell", execution_order=3))
        text = study.to_yaml(tmp_path / "study").read_text()
        assert "callback_type: Strides" in text and "callback_type: Bell" in text
        again = Experiment.from_yaml(tmp_path / "study", overwrite=True)
        assert same(again, study)
        steps = next(callback for callback in again.execution_plan[0].callbacks if callback.label == "steps")
        assert steps.sizes == (3, (4, None)) and again.exp_callbacks[0].execution_order == 3
    finally:
        del callback_registry["Strides"], callback_registry["Bell"]


def test_two_inputs_from_one_set_and_references_in_losses(tmp_path, context):
    fs = cells()
    both = ConcatNode("both", [fs.reference(features="u.raw"), fs.reference(features="i.raw")], -1, concat_axis_targets="first")
    net = ModelNode("net", SequentialMLP(n_layers=1), both, sgd(), Accelerator("cpu", pin_memory=True))
    graph = ModelGraph([both, net])
    sources = [InputBinding(both.node_id, reference, "train", SimpleSampler(seed=1)) for reference in both.get_upstream_refs()]
    outputs = ModelOutputReference("net", net.node_id)
    column = FeatureSetColumnReference("targets", "age", "raw", "cells", fs.node_id)
    loss = AppliedLoss(Loss(keydnn.losses.MSE, reduction="mean"), net, [outputs, column])
    phase = TrainPhase("train", input_sources=sources, losses=[loss], accelerator=Accelerator("cuda:1", pin_memory=True))
    assert TrainPhase.from_yaml(phase.to_yaml(tmp_path / "phase")) == phase
    path = graph.to_yaml(tmp_path / "graph")
    with anew(fs).activate():
        assert same(ModelGraph.from_yaml(path), graph)


# -- nodes and models of users

USERS = """
from keydnn.experiment.graph import ComputeNode, MergeNode
from keydnn.experiment.models import KeydnnBaseModel
import keydnn

class Scaled(KeydnnBaseModel):
    def __init__(self, factor=(1.0, 2.0), width=3):
        super().__init__(factor=factor, width=width)
        self.width, self.linear = width, None
    input_shape = property(lambda self: None if self.linear is None else (self.linear.in_features,))
    output_shape = property(lambda self: None if self.linear is None else (self.width,))
    def build(self, input_shape=None, output_shape=None, *, force=False):
        if self.linear is None or force:
            self.linear = keydnn.nn.Linear(input_shape[-1], self.width)
    def forward(self, x):
        return self.linear(x)

class Largest(MergeNode):
    def __init__(self, label, upstream_refs, *, power=1, node_id=None, register=True):
        self.power = power
        super().__init__(label, upstream_refs, node_id=node_id, register=register)
    def apply_merge(self, values, *, includes_batch_dim=True, fmt=None, domain="features"):
        return values[0]
    def get_config(self):
        return {**super().get_config(), "power": self.power}
    @classmethod
    def _options(cls, config):
        return {"power": config["power"]}
"""


def test_nodes_and_models_of_users(tmp_path, monkeypatch, context):
    import importlib

    (tmp_path / "yaml_users_nodes.py").write_text(USERS)
    monkeypatch.syspath_prepend(tmp_path)
    theirs = importlib.import_module("yaml_users_nodes")
    fs = cells()
    left = ModelNode("left", theirs.Scaled(factor=(0.1, 3.0)), fs.reference(features="u.raw"), sgd())
    right = ModelNode("right", theirs.Scaled(), fs.reference(features="i.raw"), sgd())
    graph = ModelGraph([left, right, theirs.Largest("most", [left, right], power=2)])
    path = graph.to_yaml(tmp_path / "graph")
    assert "merge_node_class: yaml_users_nodes.Largest" in path.read_text()
    with anew(fs).activate() as fresh:
        with pytest.raises(PackagedCodeError, match="node 'left', model_class: 'yaml_users_nodes.Scaled'"):
            ModelGraph.from_yaml(path)
        assert fresh.model_graph is None and len(fresh.available_nodes) == 1
        assert same(ModelGraph.from_yaml(path, allow_packaged_code=True), graph)
    sys.modules.pop("yaml_users_nodes")
