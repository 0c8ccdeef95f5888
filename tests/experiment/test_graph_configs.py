"""Configs and states of nodes, graphs, losses and optimizers: their keys, and that they make equal objects again."""

import json

import numpy as np
import pytest

import keydnn
from keydnn.experiment import FeatureSet
from keydnn.experiment.data import BatchView, ExecutionContext
from keydnn.experiment.graph import AddNode, ConcatNode, GraphNode, MeanNode, MergeNode, ModelGraph, ModelNode, MultiplyNode
from keydnn.experiment.models import KeydnnModelWrapper, ScikitModelWrapper
from keydnn.experiment.models.keydnn import SequentialCNN, SequentialMLP
from keydnn.experiment.training import AppliedLoss, Loss, Optimizer
from keydnn.experiment.utils import Accelerator

TORCH = pytest.param("torch", marks=pytest.mark.torch)
NODE = {"label", "node_id"}
GRAPH_NODE = NODE | {"upstream_refs", "downstream_refs", "graph_node_type"}
MERGE_NODE = GRAPH_NODE | {"merge_node_type", "output_shape", "input_shapes", "is_built", "backend"}
MODEL = {"model_class", "init_args", "backend", "is_built", "input_shape", "output_shape"}


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return FeatureSet.from_dict(
        "rows", {"x": rng.standard_normal((32, 4)).astype("f4"), "y": rng.standard_normal(32).astype("f4")}, "x", "y"
    )


def sgd():
    return Optimizer("sgd", opt_kwargs={"lr": 0.05}, backend="keydnn")


def mlp(**options):
    return SequentialMLP(n_layers=1, **options)


def diamond(rows, own=False):
    a = ModelNode("a", mlp(output_shape=(1, 3)), rows, sgd() if own else None)
    left, right = (ModelNode(name, mlp(output_shape=(1, 2)), a, sgd() if own else None) for name in ("left", "right"))
    both = ConcatNode("both", [left, right], -1, concat_axis_targets="first")
    return ModelGraph([a, left, right, both, ModelNode("out", mlp(), both, sgd() if own else None)], None if own else sgd())


def again(thing):
    """An object of the config of another one, which must say the same."""
    config = thing.get_config()
    twin = type(thing).from_config(config, register=False) if isinstance(thing, GraphNode) else type(thing).from_config(config)
    assert twin.get_config() == config and twin is not thing
    return twin


# -- nodes


def test_keys_of_nodes(rows):
    node = ModelNode("net", mlp(), rows, sgd(), "cpu")
    assert set(rows.get_config()) == NODE
    assert set(node.get_config()) == GRAPH_NODE | {"model", "optimizer", "frozen", "accelerator"}
    assert node.get_config()["graph_node_type"] == "ModelNode" and node.get_config()["upstream_refs"] == [rows.reference()]
    assert set(AddNode("sum", [node, rows]).get_config()) == MERGE_NODE
    concat = ConcatNode("both", [node, rows])
    own = {"concat_axis", "target_strategy", "tags_strategy", "pad_inputs", "pad_mode", "pad_value"}
    assert set(concat.get_config()) == MERGE_NODE | own
    assert (concat.get_config()["graph_node_type"], concat.get_config()["merge_node_type"]) == ("MergeNode", "ConcatNode")


def test_nodes_come_again_from_their_configs(rows):
    node = ModelNode("net", mlp(), rows, sgd(), Accelerator("cpu", pin_memory=True))
    node.build_model((4,), (1,))
    node.freeze()
    twin = again(node)
    assert twin.is_frozen and twin.is_built and twin.output_shape == (1, 1) and twin.optimizer == again(node.optimizer)
    assert twin.node_id == node.node_id and twin.accelerator == node.accelerator
    assert type(GraphNode.from_config(node.get_config(), register=False)) is ModelNode


@pytest.mark.parametrize("cls", [AddNode, MeanNode, MultiplyNode])
def test_merge_nodes_come_again(rows, cls):
    node = cls("merged", [ModelNode("a", mlp(), rows), ModelNode("b", mlp(), rows)], backend="keydnn")
    node.build(dict.fromkeys(node.get_upstream_refs(), (1, 2)))
    twin = again(node)
    assert twin.output_shape == (1, 2) and twin.input_shapes == node.input_shapes and twin.backend.value == "keydnn"


@pytest.mark.parametrize("targets", [-1, 0, "first", "mean", "a"])
def test_concat_nodes_come_again(rows, targets):
    nodes = [ModelNode(name, mlp(), rows) for name in "ab"]
    options = {"pad_inputs": True, "pad_mode": "circular", "pad_value": 2.0, "concat_axis_tags": nodes[1]}
    node = ConcatNode("both", nodes, -1, concat_axis_targets=targets, **options)
    twin = again(node)
    assert type(twin) is ConcatNode and not twin.is_built
    assert (twin.target_strategy, twin.tags_strategy) == (node.target_strategy, nodes[1].reference())
    assert (twin.pad_inputs, twin.pad_mode, twin.pad_value, twin.concat_axis) == (True, node.pad_mode, 2.0, -1)


class Largest(MergeNode):
    """A merge node of a user."""

    def apply_merge(self, values, *, includes_batch_dim=True, fmt=None, domain="features"):
        return values[0] if domain != "features" else np.maximum(values[0], values[1])


def test_a_class_of_a_user_stands_as_itself(rows):
    node = Largest("top", [ModelNode("a", mlp(), rows), ModelNode("b", mlp(), rows)])
    assert node.get_config()["merge_node_type"] is Largest
    assert type(MergeNode.from_config(node.get_config(), register=False)) is Largest
    with pytest.raises(TypeError, match="no ModelNode"):
        ModelNode.from_config(node.get_config(), register=False)
    with pytest.raises(ValueError, match="unknown class of graph nodes 'Gone'"):
        GraphNode.from_config({**node.get_config(), "merge_node_type": "Gone"}, register=False)


# -- graphs


@pytest.mark.parametrize("own", [False, True])
def test_graphs_come_again(rows, context, own):
    graph = diamond(rows, own)
    assert set(graph.get_config()) == {"label", "nodes", "optimizer"}
    assert [config["label"] for config in graph.get_config()["nodes"]] == ["a", "left", "right", "both", "out"]
    graph.build()
    graph.freeze("left")
    twin = ModelGraph.from_config(graph.get_config(), register=False)
    assert twin.get_config() == graph.get_config() and not twin.is_built and context.model_graph is graph
    assert all(context.available_nodes[node_id] is node for node_id, node in graph.nodes.items())
    assert not set(map(id, twin.nodes.values())) & set(map(id, graph.nodes.values()))
    state = graph.get_state()
    assert set(state) == {"nodes", "optimizer", "opt_built_from_node_ids", "is_built"}
    twin.set_state(state)
    assert twin.is_built and [node.label for node in twin.frozen_nodes.values()] == ["left"]
    for node_id, node in graph.nodes.items():
        if isinstance(node, ModelNode):
            assert node.model == twin.nodes[node_id].model


def test_optimizers_by_backend_come_again(rows):
    graph = ModelGraph([ModelNode("net", mlp(), rows)], {"keydnn": sgd()})
    assert set(graph.get_config()["optimizer"]) == {"keydnn"} == set(graph.get_state()["optimizer"])
    twin = ModelGraph.from_config(graph.get_config(), register=False)
    assert twin.get_config() == graph.get_config() and twin.backend is None


def test_what_a_state_says(rows):
    graph = diamond(rows)
    graph.build()
    node = next(iter(graph.nodes.values()))
    assert set(node.get_state()) == {"super", "model", "optimizer", "frozen"}
    assert set(node.get_state()["model"]) == {"weights"}
    assert set(graph.optimizer.get_state()) == {"is_built", "internal"} and graph.optimizer.get_state()["is_built"]
    assert graph.get_state()["opt_built_from_node_ids"] == []
    ctx = ExecutionContext("p", 0, 0)
    ctx.set_input(node_id=node.node_id, upstream=node.upstream_ref, batch=BatchView(rows, {"default": np.arange(8)}).materialize_batch())
    graph.freeze("left")
    graph.train_step(ctx, [AppliedLoss(Loss("mse", backend="keydnn"), "out", ["outputs", "targets"])])
    learned = {n.node_id for n in graph.nodes.values() if n.label in ("a", "right", "out")}
    assert set(graph.get_state()["opt_built_from_node_ids"]) == learned


def test_a_preview_leaves_an_edited_graph_as_it_was(rows, context):
    graph = diamond(rows)
    graph.build()
    before, config = graph.get_state(), graph.get_config()
    with context.temporary():
        graph.remove_node("out")
        graph.insert_node_after(ModelNode("new", mlp(), "a"), upstream="a")
        graph.build()
        graph.freeze()
    assert graph.get_config() == config and graph.is_built and not graph.frozen_nodes
    for node_id, state in before["nodes"].items():
        if "model" in state:
            weights = graph.nodes[node_id].model.get_weights()
            assert all(np.array_equal(value, weights[name]) for name, value in state["model"]["weights"].items())


def test_a_state_of_an_unbuilt_graph_takes_back_what_was_learned_since(rows):
    graph = diamond(rows)
    state = graph.get_state()
    graph.build()
    before = {node.label: node.model.get_weights() for node in graph.nodes.values() if isinstance(node, ModelNode)}
    graph.set_state(state)
    assert not graph.is_built
    after = {node.label: node.model.get_weights() for node in graph.nodes.values() if isinstance(node, ModelNode)}
    assert all(
        not np.array_equal(value, after[label][name]) for label, told in before.items() for name, value in told.items() if value.ndim > 1
    )


# -- models


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("make", [SequentialMLP, SequentialCNN])
def test_models_come_again(make, built):
    model = make(hidden_dim=5)
    if built:
        model.build((2, 6), (1, 3))
    assert set(model.get_config()) == MODEL and json.dumps({**model.get_config(), "model_class": None})
    twin = again(model)
    assert twin.is_built == built and twin.output_shape == ((1, 3) if built else None)


class Net(keydnn.nn.Module):
    """A module of a user."""

    def __init__(self, width, output_shape):
        super().__init__()
        self.width, self.output_shape = width, output_shape
        self.inner = keydnn.nn.Linear(4, output_shape[0])

    def forward(self, x):
        return self.inner(x)


def test_wrappers_come_again():
    by_class = KeydnnModelWrapper(model_class=Net, model_kwargs={"width": 3})
    with pytest.warns(UserWarning, match="'input_shape'"):
        by_class.build((4,), (2,))
    assert set(by_class.get_config()) == MODEL
    with pytest.warns(UserWarning, match="'input_shape'"):
        twin = again(by_class)
    twin.set_state(by_class.get_state())
    assert twin == by_class
    by_instance = KeydnnModelWrapper(model=Net(3, (2,)))
    assert again(by_instance).get_config()["init_args"]["model_kwargs"] == {"width": 3, "output_shape": (2,)}


def test_scikit_models_come_again():
    ensemble = pytest.importorskip("sklearn.ensemble")
    tree = pytest.importorskip("sklearn.tree")
    model = ScikitModelWrapper(ensemble.BaggingRegressor(tree.DecisionTreeRegressor(max_depth=2), n_estimators=3, random_state=0))
    assert set(model.get_config()) == MODEL | {"model_params", "training_mode", "output_method", "partial_fit_kwargs"}
    model.build((4,), (1,))
    twin = type(model).from_config(model.get_config())
    assert twin == model and twin.model is not model.model and twin.model.estimator is not model.model.estimator
    assert twin.is_built and twin.model.get_params(deep=False).keys() == model.model.get_params(deep=False).keys()
    x, y = np.random.default_rng(0).standard_normal((20, 4)), np.arange(20.0)
    model.fit(x, y)
    assert twin != model
    twin.fit(x, y)
    assert twin == model
    assert ScikitModelWrapper(tree.DecisionTreeRegressor(), output_method="predict") != ScikitModelWrapper(tree.DecisionTreeRegressor())


# -- optimizers and losses


@pytest.mark.parametrize("backend", ["keydnn", TORCH])
def test_optimizers_come_again(backend):
    named = Optimizer("adam", opt_kwargs={"lr": 0.1}, backend=backend)
    assert set(named.get_config()) == {"opt", "opt_kwargs", "backend"}
    by_class = Optimizer(named.cls, opt_kwargs={"lr": 0.1}, clip_norm=1.0)
    assert set(by_class.get_config()) == {"opt", "opt_kwargs", "backend", "clip_norm"} and by_class.get_config()["opt"] is named.cls
    custom = Optimizer.from_factory(lambda parameters: named.cls(parameters, lr=0.5), backend=backend)
    assert set(custom.get_config()) == {"opt", "opt_kwargs", "backend", "factory"}
    for optimizer in (named, by_class, custom):
        assert again(optimizer) == optimizer
    assert named != by_class and named.get_state() == {"is_built": False, "internal": None}


def test_a_state_of_an_unbuilt_optimizer_makes_one_start_anew():
    p = keydnn.tensor([1.0, 2.0], requires_grad=True)
    optimizer = Optimizer("adam", opt_kwargs={"lr": 0.1}, backend="keydnn")
    unbuilt = optimizer.get_state()
    optimizer.build(parameters=[p])
    fresh = optimizer.get_state()
    (p * p).sum().backward()
    optimizer.step()
    assert optimizer.get_state()["internal"]["steps"] == 1
    optimizer.set_state(unbuilt)
    assert optimizer.get_state()["internal"]["steps"] == 0 == fresh["internal"]["steps"]


def error(outputs, targets, scale=1.0):
    return (outputs - targets) * scale


@pytest.mark.parametrize(
    "loss",
    [
        lambda: Loss("mse", backend="keydnn", reduction="mean"),
        lambda: Loss(error, loss_kwargs={"scale": 2.0}),
        lambda: Loss(factory=float, backend="keydnn"),
        lambda: Loss(keydnn.losses.Huber, loss_kwargs={"delta": 0.5}),
    ],
)
def test_losses_come_again(loss, rows):
    made = loss()
    assert set(made.get_config()) == {"loss", "loss_kwargs", "backend", "reduction", "factory"} and again(made) == made
    ModelNode("net", mlp(), rows)
    applied = AppliedLoss(made, "net", {"outputs": "outputs", "targets": "targets"}, weight=0.5, label="error")
    assert set(applied.get_config()) == {"loss", "on", "inputs", "weight", "label"} and again(applied) == applied
    listed = AppliedLoss(made, "net", ["outputs", "targets"])
    assert again(listed) == listed != applied and listed.inputs == {"0": "outputs", "1": "targets"}
