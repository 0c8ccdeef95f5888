"""YAML: every kind comes again with an equal config, hand-written files need little, and what is wrong is told with its place."""

import importlib
import os
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keydnn
from keydnn.experiment import (
    Accelerator,
    AppliedLoss,
    Callback,
    Checkpointing,
    ConcatNode,
    EarlyStopping,
    EvalLossMetric,
    EvalPhase,
    Evaluation,
    Experiment,
    ExperimentCallback,
    ExperimentContext,
    FeatureSet,
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
from keydnn.experiment.callbacks import RMSE, callback_registry
from keydnn.experiment.documents.sides import Reader, Writer
from keydnn.experiment.documents.text import MAX_BYTES, from_text, to_text
from keydnn.experiment.documents.values import VALUE
from keydnn.experiment.equality import same_values
from keydnn.experiment.errors import ArtifactError, PackagedCodeError
from keydnn.experiment.graph import AddNode
from keydnn.experiment.io import from_yaml, to_yaml
from keydnn.experiment.models.keydnn import SequentialMLP
from keydnn.experiment.predicates import GT, In, Lambda
from keydnn.experiment.references import FeatureSetColumnReference, ModelOutputReference
from keydnn.experiment.samplers import BaseSampler, NSampler, PairedSampler, SimilarityCondition, SimpleSampler, TripletSampler
from keydnn.experiment.splitters import BaseSplitter, ConditionSplitter, KFoldSplitter, RandomSplitter, TimeSplitter

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


def cells():
    rng = np.random.default_rng(0)
    made = FeatureSet.from_dict(
        "cells",
        {
            "u": rng.normal(size=(16, 4)).astype("f4"),
            "i": rng.normal(size=(16, 4)).astype("f4"),
            "age": np.arange(16.0),
            "lot": ["a", "b"] * 8,
        },
        ["u", "i"],
        "age",
        "lot",
    )
    made.split_random({"train": 0.5, "val": 0.5})
    return made


def sgd(backend="keydnn", **more):
    return Optimizer("sgd", opt_kwargs={"lr": 0.05}, backend=backend, **more)


def branched(fs, build=False):
    """Two heads, a merge node of either kind, a frozen node, a device, an optimizer per node."""
    left = ModelNode("left", SequentialMLP(hidden_dim=4, output_shape=(1, 3)), fs.reference(features="u.raw"), sgd(), "cpu")
    right = ModelNode("right", SequentialMLP(output_shape=(1, 3)), fs.reference(features="i.raw"), sgd(clip_norm=1.0))
    right.freeze()
    both = ConcatNode("both", [left, right], -1, concat_axis_targets="first", concat_axis_tags=left)
    third = ModelNode("third", keydnn.Sequential(keydnn.nn.LayerNorm(6)), both, sgd())
    total = AddNode("sum", [both, third])
    tail = ModelNode("tail", SequentialMLP(n_layers=1), total, Optimizer(keydnn.optim.Adam))
    graph = ModelGraph([left, right, both, third, total, tail], label="branches")
    if build:
        graph.build()
    return graph


@pytest.fixture
def study(context):
    """An experiment with nearly everything that a plan can hold."""
    fs = cells()
    net = ModelNode("net", SequentialMLP(hidden_dim=4), fs.reference(features="u.raw"))
    ModelGraph([net], sgd())
    return plan(fs, net, "keydnn")


def plan(fs, net, backend):
    loss = AppliedLoss(Loss("mse", backend=backend), net, ["outputs", "targets"], weight=0.5)
    by_name = AppliedLoss(Loss("mae" if backend == "keydnn" else "l1", backend=backend), net, ["outputs", "age.raw"], label="abs")
    watch = Evaluation.from_split(label="watch", split="val", every_n_epochs=2, metrics=[EvalLossMetric(loss=loss), RMSE(net.node_id)])
    train = TrainPhase.from_split(
        "train",
        split="train",
        sampler=SimpleSampler(batch_size=4, shuffle=True, seed=5),
        losses=[loss, by_name],
        n_epochs=3,
        callbacks=[watch, EarlyStopping(patience=2, min_delta=1e-4, restore_best=True)],
        checkpointing=Checkpointing(max_to_keep=2, every_n=1),
        result_recording="last",
        accelerator="cpu",
    )
    pairs = TrainPhase.from_split(
        "pairs",
        split="train",
        sampler=PairedSampler({"lot": SimilarityCondition()}, batch_size=4, seed=1),
        losses=[AppliedLoss(Loss("mse", backend=backend), net, ["outputs.anchor", "targets.pair"])],
        active_nodes=["net"],
        resample="epoch",
    )
    exp = Experiment.from_active_context("study", seed=11)
    test = EvalPhase.from_split("test", split="val", losses=[loss], batch_size=3)
    exp.execution_plan.add_phase(train).add_group(PhaseGroup("more", [pairs, PhaseGroup("inner", [test])]))
    return exp


def anew(fs):
    """A fresh context that knows the feature set."""
    ctx = ExperimentContext(registration_policy="error")
    ctx.register_experiment_node(fs)
    return ctx


def same(a, b):
    return type(a) is type(b) and same_values(a.get_config(), b.get_config())


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


# -- options, by chance

names = st.text("abcdefghijklmnopqrstuvwxyzäß_-0123456789~!#&*'\"{}[],%@`|>?=", min_size=1, max_size=8)
seeds = st.one_of(st.integers(0, 2**62))


@given(
    options=st.fixed_dictionaries(
        {},
        optional={
            "batch_size": st.integers(1, 2**40),
            "shuffle": st.booleans(),
            "drop_last": st.booleans(),
            "group_by": st.lists(names, min_size=1, max_size=3),
            "seed": seeds,
            "strict_stratification": st.booleans(),
            "show_progress": st.booleans(),
        },
    )
)
def test_any_sampler_comes_again(options, tmp_path_factory):
    sampler = SimpleSampler(**options)
    assert same(from_yaml(sampler.to_yaml(tmp_path_factory.mktemp("any") / "s")), sampler)


@given(
    conditions=st.dictionaries(
        names,
        st.builds(
            SimilarityCondition,
            mode=st.sampled_from(["similar", "dissimilar"]),
            tolerance=st.floats(allow_nan=True),
            weight_mode=st.sampled_from(["binary", "linear", "exp"]),
            max_weight=st.floats(),
            min_weight=st.floats(),
            allow_fallback=st.booleans(),
        ),
        min_size=1,
        max_size=3,
    ),
    most=st.none() | st.integers(1, 9),
)
def test_any_condition_comes_again_to_the_bit(conditions, most, tmp_path_factory):
    sampler = PairedSampler(conditions, max_pairs_per_anchor=most, seed=0)
    again = from_yaml(sampler.to_yaml(tmp_path_factory.mktemp("any") / "s"))
    for name, condition in again.conditions.items():
        assert same_values(condition.get_config(), conditions[name].get_config())
    assert again.max_pairs_per_anchor == most and list(again.conditions) == list(conditions)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        [
            "no",
            "1e-3",
            "0x1f",
            "1:30",
            "2024-01-01",
            "~",
            "<<",
            "=",
            ".inf",
            "null",
            "010",
            "1_000",
            "",
            " x ",
            "a: b",
            "- c",
            "\u2028",
            "\x00",
        ]
    )
)
arrays = st.builds(
    lambda dtype, shape: np.arange(int(np.prod(shape))).reshape(shape).astype(dtype),
    st.sampled_from(["f4", "f8", "i2", "?", "<U3"]),
    st.sampled_from([(), (3,), (2, 0), (2, 2)]),
)
values = st.recursive(
    scalars | st.binary(max_size=8) | arrays | st.sampled_from([np.float32(0.1), np.float64(0.1), np.int8(3), GT(2.5), In(["a", 1])]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.sampled_from(["$x", "ref_type"]), inner, max_size=3)
        | st.dictionaries(st.tuples(st.integers()), inner, max_size=2)
    ),
    max_leaves=8,
)


@given(value=values)
def test_any_value_comes_again(value):
    ctx = ExperimentContext()
    text = to_text(VALUE.tell(Writer("", ctx), {"value": value}))
    again = VALUE.read(Reader("", ctx, overwrite=False, allow_packaged_code=False), from_text(text, "text"))["value"]
    assert _bare(again) == _bare(value)


def _bare(value):
    """Types and bits of everything inside."""
    if isinstance(value, dict):
        return ("dict", [(_bare(key), _bare(item)) for key, item in value.items()])
    if isinstance(value, list | tuple):
        return (type(value).__name__, [_bare(item) for item in value])
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        return ("array", array.dtype.str, array.shape, array.tobytes())
    return (type(value).__name__, repr(value))


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


@given(
    options=st.fixed_dictionaries(
        {"n_epochs": st.integers(1, 99)},
        optional={
            "batch_schedule": st.sampled_from(["zip_strict", "zip_cycle", "alternate_strict", "alternate_cycle"]),
            "result_recording": st.sampled_from(["all", "last", "none"]),
            "accelerator": st.sampled_from(["cpu", "cuda:1", Accelerator("gpu", pin_memory=True)]),
            "resample": st.sampled_from(["never", "epoch", "epoch_full"]),
            "prefetch": st.sampled_from(["auto", "all", "lazy"]),
            "keep": st.sampled_from([("outputs",), ("outputs", "targets")]),
            "checkpointing": st.builds(
                Checkpointing,
                save_on=st.sampled_from(["epoch_end", "epoch_start"]),
                every_n=st.integers(1, 5),
                max_to_keep=st.none() | st.integers(1, 3),
                name_template=st.none() | st.just("{phase}-{epoch}"),
                directory=st.none() | st.just("no/such/folder"),
            ),
            "callbacks": st.lists(
                st.builds(
                    EarlyStopping,
                    label=st.text(min_size=1, max_size=4),
                    mode=st.sampled_from(["min", "max"]),
                    min_delta=st.floats(0, allow_infinity=False),
                    patience=st.integers(1, 9),
                    reducer=st.sampled_from(["mean", "sum", "last", "first"]),
                    execution_order=st.integers(-3, 3),
                ),
                max_size=2,
                unique_by=lambda callback: callback.label,
            ),
        },
    ),
    weight=st.floats(allow_nan=False),
    label=st.text(min_size=1, max_size=5),
)
def test_any_training_phase_comes_again(options, weight, label, tmp_path_factory):
    with ExperimentContext(registration_policy="error").activate():
        net = ModelNode("net", SequentialMLP(), cells())
        ModelGraph([net], sgd())
        loss = AppliedLoss(Loss("mse", backend="keydnn", reduction="sum"), net, {"outputs": "outputs", "targets": "targets"}, weight=weight)
        sampler = SimpleSampler(batch_size=2)
        phase = TrainPhase.from_split(label, split="train", sampler=sampler, losses=[loss], **options)
        assert TrainPhase.from_yaml(phase.to_yaml(tmp_path_factory.mktemp("any") / "p")) == phase


@given(
    options=st.fixed_dictionaries(
        {"opt": st.sampled_from(["adam", "SGD", keydnn.optim.Adam])},
        optional={
            "opt_kwargs": st.dictionaries(st.sampled_from(["lr", "eps"]), st.floats(0, 1)) | st.just({"betas": (0.8, 0.9)}),
            "clip_norm": st.floats(0.0, exclude_min=True, allow_infinity=False),
            "clip_value": st.floats(0.0, exclude_min=True),
        },
    )
)
def test_any_optimizer_comes_again(options, tmp_path_factory):
    with ExperimentContext(registration_policy="error").activate():
        fs = cells()
        graph = ModelGraph([ModelNode("net", SequentialMLP(), fs)], Optimizer(**options, backend="keydnn"))
        path = graph.to_yaml(tmp_path_factory.mktemp("any") / "g")
        with anew(fs).activate():
            assert same(ModelGraph.from_yaml(path), graph)


# -- written by hand

BY_HAND = """
model_graph:
  graph_name: g
  optimizer: {{opt: adam, opt_kwargs: {{lr: 0.001}}, backend: {backend}}}
  nodes:
  - node_name: MLP
    node_class: model            # or: merge
    model_class: keydnn.experiment.models.{backend}.SequentialMLP
    model_kwargs: {{n_layers: 2, hidden_dim: 32}}
    upstream: {{ref_type: FeatureSetReference, node_label: Data, features: [features.x.raw], targets: [targets.y.raw], tags: []}}
    frozen: false                # optional, also optimizer, accelerator
"""


@pytest.mark.parametrize("backend", ["keydnn", TORCH])
def test_the_graph_of_the_manual(backend, tmp_path, context):
    fs = FeatureSet.from_dict("Data", {"x": np.ones((4, 3)), "y": np.ones(4), "z": np.ones(4)}, "x", ["y", "z"])
    (tmp_path / "g.yaml").write_text(BY_HAND.format(backend=backend))
    graph = ModelGraph.from_yaml(tmp_path / "g")
    (node,) = graph.nodes.values()
    assert (graph.label, node.label, node.is_frozen, graph.optimizer.kwargs) == ("g", "MLP", False, {"lr": 0.001})
    assert node.model.get_init_args()["hidden_dim"] == 32 and node.upstream_ref == fs.reference(features="x.raw", targets="y.raw")
    graph.build()
    assert node.output_shape == (1, 1)


WHOLE = """
experiment:
  label: ageing
  model_graph:
    nodes:                       # in any order
    - node_name: top
      model_class: keydnn.experiment.models.keydnn.SequentialMLP
      upstream: joined
      optimizer: {opt: sgd, opt_kwargs: {lr: 1e-3}, backend: keydnn}
    - node_name: joined
      node_class: merge
      merge_node_class: ConcatNode
      concat_axis: -1
      concat_axis_targets: first
      concat_axis_tags: first
      upstream: [left, right]
    - node_name: left
      model_class: keydnn.experiment.models.keydnn.SequentialMLP
      model_kwargs: {output_shape: [1, 2]}
      upstream: cells
      frozen: true
      optimizer: {opt: keydnn.optim.Adam}
    - node_name: right
      model_class: keydnn.experiment.models.keydnn.SequentialMLP
      model_kwargs: {output_shape: [1, 2]}
      upstream: {ref_type: FeatureSetReference, node_label: cells, features: [features.u.raw], targets: [targets.age.raw]}
      optimizer: {opt: sgd, backend: keydnn}
  phases:
  - phase_type: train_phase
    label: train
    input_sources:
    - &left {node: left, featureset: cells, split: train, sampler: {sampler_class: SimpleSampler, batch_size: 4}}
    - {node: right, split: train, sampler: {sampler_class: keydnn.experiment.samplers.SimpleSampler, batch_size: 4}}
    losses:
    - {loss: {loss: mse, backend: keydnn}, node: top, inputs: [outputs, targets]}
    callbacks:
    - callback_type: Evaluation
      eval_phase: {label: val, input_sources: [{node: left, split: val}, {node: right, split: val}]}
      metrics: [{callback_type: RMSE}]
    - {callback_type: earlystopping, monitor: val_rmse, patience: 1}
  - phase_type: phase_group
    label: tests
    items:
    - {phase_type: eval_phase, label: test, input_sources: [{node: left, split: val}, {node: right, split: val}], batch_size: 2}
"""


def test_an_experiment_with_only_what_is_needed(tmp_path, context):
    cells()
    (tmp_path / "ageing.yaml").write_text(WHOLE)
    exp = Experiment.from_yaml(tmp_path / "ageing")
    assert [phase.label for phase in exp.execution_plan.flatten()] == ["train", "test"]
    assert [node.label for node in exp.model_graph.nodes.values()] == ["left", "right", "joined", "top"]
    train = exp.execution_plan.get_train_phase("train")
    assert (train.n_epochs, len(train.active_nodes), train.callbacks[1].monitor) == (1, 4, "val_rmse")
    assert exp.model_graph.get_node("top").optimizer.kwargs == {"lr": 1e-3}
    found = exp.run(show_training_progress=False).get_group_result("tests").get_eval_result("test")
    assert found.n_batches == 4
    path = exp.to_yaml(tmp_path / "written")
    assert same(Experiment.from_yaml(path, overwrite=True), exp)


# -- what is wrong is told, and leaves no trace

WRONG = [  # (text, what takes its place, what the message says)
    ("label: ageing", "label: 3", "experiment: label must be a text, got 3"),
    ("  label: ageing\n", "", "experiment: label must be a text, got None"),
    ("  model_graph:", "  graph:", "an experiment has no 'graph'; did you mean"),
    ("experiment:", "experiments:", "a file has no 'experiments'; did you mean 'experiment'"),
    ("upstream: cells", "upstream: data", "model_graph, node 'left', upstream: no node 'data' is registered; feature sets are not in YAML"),
    ("node_label: cells", "node_label: data", "node 'right', upstream: no node 'data' is registered"),
    ("features.u.raw", "features.x.raw", "node 'right', upstream: 'cells' has no column features.x.raw"),
    ("[left, right]", "[left]", "node 'joined': merge node 'joined' needs"),
    ("[left, right]", "[top, right]", "nodes read each other in a circle"),
    ("node_name: top", "node_name: left", "two nodes are named 'left'"),
    ("concat_axis: -1", "concat_axes: -1", "node 'joined': ConcatNode has no 'concat_axes'; did you mean 'concat_axis'"),
    ("concat_axis: -1", "concat_axis: last", "node 'joined', concat_axis: concat_axis must be int, got 'last'"),
    ("frozen: true", "frozen: 1", "frozen must be bool, got 1"),
    ("frozen: true", "frosen: true", "a model node has no 'frosen'; did you mean 'frozen'"),
    ("merge_node_class: ConcatNode", "merge_node_class: Concat", "node 'joined': unknown class of graph nodes 'Concat'"),
    ("opt: keydnn.optim.Adam", "opt: atam, backend: keydnn", "node 'left', optimizer: unknown keydnn optimizer 'atam'"),
    ("lr: 1e-3}, backend: keydnn}", "lr: 1e-3}, backend: torsh}", "optimizer: unknown backend 'torsh'"),
    ("output_shape: [1, 2]}", "output_shapes: [1, 2]}", "unexpected keyword argument 'output_shapes'"),
    ("n: train", "n: train", None),
    ("split: train, s", "split: trane, s", "input_sources[0]: feature set 'cells' has no split 'trane'"),
    (
        "batch_size: 4}}\n    - {",
        "batch_size: four}}\n    - {",
        "phases[0] 'train', input_sources[0], sampler, batch_size: batch_size must be int, got 'four'",
    ),
    ("sampler_class: SimpleSampler", "sampler_class: Simple", "sampler: unknown sampler 'Simple'; known"),
    ("label: train\n", "label: train\n    n_epochs: 0\n", "phases[0] 'train'"),
    ("label: train\n", "label: train\n    n_epochs: many\n", "n_epochs must be int, got 'many'"),
    ("label: train\n", "label: train\n    n_epoch: 1\n", "TrainPhase has no 'n_epoch'; did you mean 'n_epochs'"),
    ("label: train\n", "label: train\n    active_nodes: [middle]\n", "active_nodes[0]: no node 'middle'"),
    ("label: train\n", "label: train\n    checkpointing: {save_on: never}\n", "save_on must be one of"),
    ("label: train\n", "label: train\n    accelerator: tpu\n", "accelerator: unknown device 'tpu'"),
    ("node: top, inputs", "node: peak, inputs", "losses[0], node: no node 'peak' is registered"),
    ("node: top, inputs", "nodes: top, inputs", "losses[0]: an applied loss has no 'nodes'; did you mean 'node'"),
    ("loss: mse", "loss: mze", "losses[0], loss: unknown keydnn loss 'mze'"),
    ("patience: 1", "patient: 1", "callbacks[1]: EarlyStopping has no 'patient'; did you mean 'patience'"),
    ("patience: 1", "patience: soon", "callbacks[1], patience: patience must be int, got 'soon'"),
    ("callback_type: earlystopping", "callback_type: stopping", "callbacks[1]: unknown callback 'stopping'"),
    ("phase_type: train_phase", "phase_type: training", "unknown phase_type 'training'; expected one of train_phase"),
    ("  phases:", "  phases: no\n  seed:", "phases: phases must be a list, got 'no'"),
    ("label: tests", "label: train", "label 'train' is taken"),
    ("    items:\n", "    itmes:\n", "a phase_group has no 'itmes'; did you mean 'items'"),
    ("upstream: joined", "upstream: joined\n      node_name: twice", "the key 'node_name' stands there twice"),
    ("label: ageing", "label: [ageing", "while parsing a flow"),
    ("label: ageing", "label: !!python/object/apply:os.system [id]", "could not determine a constructor for the tag"),
    ("label: ageing", "label: !!binary aaaa", "could not determine a constructor for the tag"),
    ("label: ageing", "label: {$object: {class: os.system, config: {}}}", "label must be a text"),
]


@pytest.mark.parametrize(("text", "other", "message"), [row for row in WRONG if row[2]], ids=lambda part: str(part)[:24])
def test_what_is_wrong_is_told_with_its_place(text, other, message, tmp_path, context):
    cells()
    assert text in WHOLE
    path = tmp_path / "ageing.yaml"
    path.write_text(WHOLE.replace(text, other, 1))
    before = context.get_state()
    with pytest.raises(ValueError) as caught:
        Experiment.from_yaml(path)
    assert message in str(caught.value).replace("\n", " ") and str(path) in str(caught.value)
    after = context.get_state()
    assert [entry[:2] for entry in after["nodes"]] == [entry[:2] for entry in before["nodes"]] and len(after["nodes"]) == 1
    assert {name: after[name] for name in ("graph", "policy", "experiment", "entropy")} == {
        name: before[name] for name in ("graph", "policy", "experiment", "entropy")
    }
    path.write_text(WHOLE)
    assert Experiment.from_yaml(path).label == "ageing"


def test_labels_that_are_taken(tmp_path, context):
    fs = cells()
    (tmp_path / "whole.yaml").write_text(WHOLE)
    old = ModelNode("left", SequentialMLP(), fs)
    with pytest.raises(ValueError, match="node 'left': a ModelNode with this label is registered; pass overwrite=True"):
        Experiment.from_yaml(tmp_path / "whole")
    assert context.get_node("left") is old and context.model_graph is None and context.get_experiment() is None
    exp = Experiment.from_yaml(tmp_path / "whole", overwrite=True)
    assert context.get_node("left") is not old and exp.model_graph.get_node("left").node_id == old.node_id
    (tmp_path / "set.yaml").write_text(WHOLE.replace("node_name: top", "node_name: cells").replace("node: top", "node: cells"))
    with pytest.raises(ValueError, match="the label belongs to a FeatureSet"):
        Experiment.from_yaml(tmp_path / "set", overwrite=True)
    assert context.get_node("cells") is fs and context.get_experiment() is exp


def test_a_failed_overwrite_leaves_graph_and_experiment(study, tmp_path, context):
    (fs,) = context.available_featuresets.values()
    graph, nodes = study.model_graph, context.available_nodes
    text = study.to_yaml(tmp_path / "study").read_text()
    (tmp_path / "bad.yaml").write_text(text.replace("patience: 2", "patience: 2, mood: 1"))
    with pytest.raises(ValueError, match="has no 'mood'"):
        Experiment.from_yaml(tmp_path / "bad", overwrite=True)
    assert context.get_experiment() is study and context.model_graph is graph and context.available_nodes == nodes
    assert study.run(show_training_progress=False) is not None


def test_files_kinds_and_paths(tmp_path, context):
    sampler = SimpleSampler(batch_size=2, seed=1)
    path = to_yaml(sampler, tmp_path / "deep" / "rows.v2")
    assert path == tmp_path / "deep" / "rows.v2.yaml" and [p.name for p in path.parent.iterdir()] == ["rows.v2.yaml"]
    with pytest.raises(FileExistsError, match="overwrite=True"):
        to_yaml(SimpleSampler(), path)
    assert to_yaml(SimpleSampler(batch_size=7), path, overwrite=True) == path and from_yaml(path).batch_size == 7
    with pytest.raises(FileNotFoundError):
        from_yaml(tmp_path / "nothing")
    with pytest.raises(ValueError, match="holds a sampler, expected splitter"):
        from_yaml(path, "splitter")
    with pytest.raises(ValueError, match="unknown kind 'rows'"):
        from_yaml(path, "rows")
    with pytest.raises(ValueError, match="holds a SimpleSampler, expected a NSampler"):
        NSampler.from_yaml(path)
    with pytest.raises(TypeError, match="not of FeatureSet"):
        to_yaml(cells(), tmp_path / "cells")
    for text in ("", "a", "[]", "sampler: {}\nsplitter: {}", "4: 3"):
        (tmp_path / "odd.yaml").write_text(text)
        with pytest.raises(ValueError, match="odd.yaml: a file has"):
            from_yaml(tmp_path / "odd")


def test_what_cannot_be_written_says_where(study, tmp_path):
    phase = study.execution_plan.get_train_phase("train")
    phase.losses[0].loss._kwargs["what"] = {"x": object()}
    with pytest.raises(ValueError, match=r"losses\[0\], loss, loss_kwargs: a object cannot be written to YAML"):
        phase.to_yaml(tmp_path / "phase")
    assert list(tmp_path.iterdir()) == []


def test_writing_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = SimpleSampler(batch_size=3).to_yaml(tmp_path / "rows")
    text = path.read_text()

    def full(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        SimpleSampler(batch_size=4).to_yaml(path, overwrite=True)
    assert path.read_text() == text and list(tmp_path.iterdir()) == [path]


# what may stand in the place of anything
odd = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 1, 2**70, 10**15, 1.5, float("nan"), float("inf"), "", "a", "cells", "left", "keydnn.optim.Adam", "math.exp"])
    | st.sampled_from(["keydnn.experiment.models.keydnn.SequentialMLP", "SimpleSampler", "EarlyStopping", "train", "ConcatNode", "first"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["$tuple", "$array", "$object", "$symbol", "$node", "ref_type", "label", "class", "x"]), inner, max_size=2
        )
    ),
    max_leaves=3,
)


@given(data=st.data(), how=st.sampled_from(["replace", "replace", "replace", "drop", "add", "rename"]))
def test_a_document_with_anything_in_it_is_read_or_refused(data, how, tmp_path_factory):
    whole = from_text(WHOLE, "whole")
    places = list(_places(whole))
    holder, key = data.draw(st.sampled_from(places))
    other = data.draw(odd)
    if how == "drop":
        del holder[key]
    elif how == "rename" and isinstance(holder, dict):
        holder[data.draw(st.sampled_from(["label", "loss", "node", "x", 3]))] = holder.pop(key)
    elif how == "add" and isinstance(holder, dict):
        holder[data.draw(st.sampled_from(["label", "weight", "seed", "sampler", "factory", "schedule", "model_options", "node_id"]))] = (
            other
        )
    else:
        holder[key] = other
    path = tmp_path_factory.mktemp("odd") / "odd.yaml"
    path.write_text(to_text(whole))
    with ExperimentContext(registration_policy="error").activate() as ctx, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as nodes that nobody reads
        fs = cells()
        try:
            Experiment.from_yaml(path)
        except (ArtifactError, PackagedCodeError) as error:
            assert str(path) in str(error)
            assert list(ctx.available_nodes.values()) == [fs] and ctx.model_graph is None and ctx.get_experiment() is None


def _places(value):
    """Every place that something can stand in."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


# -- code


MODULE = """
from keydnn.experiment.models import KeydnnBaseModel
from keydnn.experiment.samplers import SimpleSampler
ran = True
def far(a, b):
    return abs(a - b)
class Own(SimpleSampler):
    pass
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "yaml_users_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "yaml_users_module"
    sys.modules.pop("yaml_users_module", None)


def test_nothing_is_imported_without_permission(module, tmp_path):
    text = f"sampler:\n  sampler_class: PairedSampler\n  conditions:\n    age: {{metric: {module}.far}}\n"
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(PackagedCodeError, match="s.yaml: sampler, conditions, age, metric: 'yaml_users_module.far' is no class of KeyDNN"):
        from_yaml(tmp_path / "s")
    assert module not in sys.modules
    sampler = from_yaml(tmp_path / "s", allow_packaged_code=True)
    assert sampler.conditions["age"].metric is sys.modules[module].far
    assert same(from_yaml(sampler.to_yaml(tmp_path / "t"), allow_packaged_code=True), sampler)
    (tmp_path / "s.yaml").write_text(text.replace(".far", ".near"))
    with pytest.raises(ValueError, match="nothing can be imported from"):
        from_yaml(tmp_path / "s", allow_packaged_code=True)


def test_classes_of_users(module, tmp_path):
    import importlib

    own = importlib.import_module(module).Own
    path = own(batch_size=2, seed=3).to_yaml(tmp_path / "own")
    assert "sampler_class: yaml_users_module.Own" in path.read_text()
    with pytest.raises(PackagedCodeError, match="register it"):
        from_yaml(path)
    assert same(from_yaml(path, allow_packaged_code=True), own(batch_size=2, seed=3))


@pytest.mark.slow
def test_metrics_of_math_are_trusted_and_those_of_main_cannot_be_named(tmp_path):
    import math

    sampler = PairedSampler({"age": SimilarityCondition(metric=math.dist)}, seed=1)
    assert same(from_yaml(sampler.to_yaml(tmp_path / "s")), sampler)
    with pytest.raises(ImportError, match="sampler, conditions, age, metric: no import path leads to"):
        PairedSampler({"age": SimilarityCondition(metric=lambda a, b: 0.0)}).to_yaml(tmp_path / "t")
    script = textwrap.dedent(
        """
        import sys
        from keydnn.experiment.samplers import PairedSampler, SimilarityCondition
        def far(a, b):
            return 0.0
        try:
            PairedSampler({"age": SimilarityCondition(metric=far)}).to_yaml(sys.argv[1])
        except ImportError as error:
            print(error)
        """
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "t")], capture_output=True, text=True, env=os.environ)
    assert "metric: no import path leads to __main__.far" in done.stdout and not (tmp_path / "t.yaml").exists()


# -- hostile files

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (BOMB, "values"),
        ("sampler: " + "[" * 500, "levels"),
        ("sampler:\n" + "".join("  " * i + "- \n" for i in range(1, 90)), "levels"),
        ("sampler: &a {b: *a}", "inside of what it names"),
        ("sampler: {<<: {a: 1}, sampler_class: SimpleSampler}", "has no '<<'"),
        ("sampler: !!python/name:os.system", "constructor"),
        ("sampler: !Own {a: 1}", "constructor"),
        ("sampler: {? [a, b] : 1}", "key"),
        ("sampler: *nobody", "undefined alias"),
        ("sampler: {}\n--- \nsampler: {}", "single document"),
        (b"\xff\xfe\x00", "no YAML"),
        (b"sampler: \x00", "no YAML"),
        ("x" * (MAX_BYTES + 1), "bytes"),
        pytest.param("sampler: [" + "1, " * 50_001 + "]", "values", marks=pytest.mark.slow),
        ("sampler: {sampler_class: SimpleSampler, seed: {$array: {dtype: O, shape: [1], values: [1]}}}", "dtype"),
        ("sampler: {sampler_class: SimpleSampler, seed: {$array: {dtype: f4, shape: [99999999], values: [1]}}}", "reshape"),
        ("sampler: {sampler_class: SimpleSampler, seed: {$bytes: '*'}}", "seed"),
        ("sampler: {sampler_class: SimpleSampler, seed: {$what: 1}}", r"unknown mark \$what"),
        ("sampler: {sampler_class: SimpleSampler, seed: " + "9" * 6000 + "}", "seed|digits"),
        ("splitter: {splitter_class: ConditionSplitter, conditions: {a: {x: {type: lambda, source: 'lambda x: x.y'}}}}", None),
        ("splitter: {splitter_class: ConditionSplitter, conditions: {a: {x: {$object: {class: os.system, config: ls}}}}}", None),
        ("splitter: {splitter_class: ConditionSplitter}", "at least one split"),
        ("splitter: {splitter_class: subprocess.Popen}", None),
    ],
    ids=range(23),
)
def test_hostile_files_are_refused(data, message, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(PackagedCodeError if message is None else ArtifactError, match=message):
        from_yaml(path)


@given(data=st.binary(max_size=200) | st.text("sampler: {}[]&*!-?|>'\"\n\t ,#%@$class_1e.", max_size=120).map(str.encode))
def test_no_bytes_do_anything_but_a_clear_error(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("bytes") / "any.yaml"
    path.write_bytes(data)
    with pytest.raises((ArtifactError, PackagedCodeError)):
        from_yaml(path)
