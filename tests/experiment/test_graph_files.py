"""Graphs in files: weights, optimizers, flags and connections come back; training goes on with the same bits."""

import logging

import numpy as np
import pytest

import keydnn
from keydnn.experiment import FeatureSet
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import BatchView, ExecutionContext
from keydnn.experiment.equality import same_values
from keydnn.experiment.errors import ArtifactError, ArtifactKindError, ResolutionError
from keydnn.experiment.graph import ConcatNode, ModelGraph, ModelNode
from keydnn.experiment.graph.graph_file import renamed
from keydnn.experiment.io import Checkpoint
from keydnn.experiment.models.keydnn import SequentialMLP
from keydnn.experiment.training import AppliedLoss, Loss, Optimizer


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return FeatureSet.from_dict(
        "rows", {"x": rng.standard_normal((32, 4)).astype("f4"), "y": rng.standard_normal(32).astype("f4")}, "x", "y"
    )


def adam():
    return Optimizer("adam", opt_kwargs={"lr": 0.01}, backend="keydnn")


def diamond(rows, own=False):
    rule = adam if own else lambda: None
    first = ModelNode("first", SequentialMLP(output_shape=(3,), hidden_dim=4), rows, rule())
    left = ModelNode("left", keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.Linear(3, 2), keydnn.nn.Tanh()), first, rule())
    right = ModelNode("right", keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.Linear(3, 2), keydnn.Dropout(0.5)), first, rule())
    both = ConcatNode("both", [left, right], concat_axis_targets="first")
    last = ModelNode("last", keydnn.Sequential(keydnn.nn.Linear(4, 1)), both, rule())
    return ModelGraph([first, left, right, both, last], None if own else adam(), "diamond")


def train(graph, rows, steps=2):
    """Losses of some steps; dropout starts from the same draw each time."""
    last = next(node for node in graph.nodes.values() if node.label == "last")
    loss = AppliedLoss(Loss("mse", backend="keydnn"), last, ["outputs", "targets"])
    found = []
    keydnn.random.seed(5)
    for i in range(steps):
        ctx = ExecutionContext("p", 0, i)
        batch = BatchView(rows, {"default": np.arange(8)}).materialize_batch()
        for node in graph.head_nodes.values():
            for reference in node.get_upstream_refs():
                ctx.set_input(node_id=node.node_id, upstream=reference, batch=batch)
        graph.train_step(ctx, [loss])
        found.append(ctx.losses.to_float())
    return found


def stored(graph):
    return {node.label: node.model.get_weights() for node in graph.nodes.values() if isinstance(node, ModelNode)}


@pytest.mark.parametrize("own", [False, True], ids=["graph-wise", "stage-wise"])
def test_training_goes_on_with_the_same_bits(rows, own, tmp_path):
    graph = diamond(rows, own)
    graph.build()
    graph.freeze("right")
    train(graph, rows)
    path = graph.save(tmp_path / "net.v1")
    assert path.name == "net.mg.mml"
    straight = train(graph, rows, 3)
    with ExperimentContext().activate() as ctx:
        ctx.register_experiment_node(rows)
        again = ModelGraph.load(tmp_path / "net")
        assert ctx.model_graph is again and again.get_config() == graph.get_config()
        assert [node.label for node in again.frozen_nodes.values()] == ["right"]
        assert train(again, rows, 3) == straight and same_values(stored(again), stored(graph))


def test_ids_that_are_taken(rows, tmp_path, caplog):
    graph = diamond(rows)
    graph.build()
    train(graph, rows)
    path = graph.save(tmp_path / "net")
    home = ExperimentContext.get_active()
    home.remove_model_graph()
    with caplog.at_level(logging.INFO, "keydnn"), home.use_policy("overwrite"):
        again = ModelGraph.load(path)
    assert "5 nodes" in caplog.text and not set(again.nodes) & set(graph.nodes)
    assert same_values(stored(again), stored(graph)) and train(again, rows) == train(graph, rows)
    over = ModelGraph.load(path, overwrite=True)
    assert set(over.nodes) == set(graph.nodes) and home.model_graph is over


def test_a_context_with_a_graph_stays_as_it_is(rows, tmp_path, caplog):
    graph = diamond(rows)
    path = graph.save(tmp_path / "net")
    home = ExperimentContext.get_active()
    with caplog.at_level(logging.INFO, "keydnn"):
        again = ModelGraph.load(path)
    assert "new one" in caplog.text and home.model_graph is graph
    ctx = ExperimentContext.get_active()
    assert ctx is not home and ctx.model_graph is again and ctx.get_node(label="rows") is rows and not again.is_built
    ExperimentContext.set_active(home)


def test_a_graph_without_its_feature_set_changes_nothing(rows, tmp_path):
    path = diamond(rows).save(tmp_path / "net")
    with ExperimentContext().activate() as ctx:
        with pytest.raises(ResolutionError, match="rows"):
            ModelGraph.load(path)
        assert not ctx.available_nodes and ctx.model_graph is None
    with pytest.raises(ArtifactKindError, match="'mg'"):
        ModelGraph.load(rows.save(tmp_path / "set"))


def test_ids_are_renamed_where_they_stand(rows):
    reference = ModelNode("n", keydnn.Sequential(keydnn.nn.Linear(4, 1)), rows).reference()
    told = renamed({"ids": (reference.node_id, [reference])}, {reference.node_id: "new"})
    assert told["ids"][0] == "new" and told["ids"][1][0].node_id == "new" and told["ids"][1][0].node_label == "n"


@pytest.mark.parametrize("own", [False, True])
def test_checkpoints_of_a_graph(rows, own, tmp_path):
    graph = diamond(rows, own)
    train(graph, rows)
    graph.freeze("left")
    path = graph.save_checkpoint(tmp_path / "deep" / "best", meta={"epoch": 2})
    state = graph.get_state()
    assert path.name == "best.ckpt.mml" and Checkpoint.load(path).meta == {"epoch": 2}
    graph.unfreeze()
    train(graph, rows)
    assert not same_values(graph.get_state(), state)
    assert graph.restore_checkpoint(tmp_path / "deep" / "best") is graph and same_values(graph.get_state(), state)
    with pytest.raises(FileExistsError):
        graph.save_checkpoint(path)
    with ExperimentContext(registration_policy="error").activate() as other:
        other.register_experiment_node(rows)
        twin = diamond(rows, own).restore_checkpoint(path)  # an unbuilt graph of other ids
        assert [node.label for node in twin.frozen_nodes.values()] == ["left"]
        assert same_values(stored(twin), stored(graph))


def test_checkpoints_that_do_not_fit_change_nothing(rows, tmp_path):
    graph = diamond(rows)
    train(graph, rows, 1)
    state = graph.get_state()
    with pytest.raises(ValueError, match="no checkpoint"):
        graph.restore_checkpoint(tmp_path / "nothing")
    with pytest.raises(TypeError, match="holds run; the state of a graph is expected"):
        graph.restore_checkpoint(Checkpoint({"run": {}}).save(tmp_path / "run"))
    with ExperimentContext(registration_policy="error").activate() as other:
        other.register_experiment_node(rows)
        path = ModelGraph([ModelNode("first", SequentialMLP(), rows)], adam()).save_checkpoint(tmp_path / "one")
    with pytest.raises(ValueError, match="nodes first; here there are both, first"):
        graph.restore_checkpoint(path)
    broken = graph.get_state()
    broken["nodes"] = {**broken["nodes"], graph.get_node("last").node_id: {**broken["nodes"][graph.get_node("last").node_id], "model": {}}}
    with pytest.raises(ArtifactError, match="malformed: KeyError"):
        graph.restore_checkpoint(Checkpoint({"modelgraph": broken}).save(tmp_path / "broken"))
    assert same_values(graph.get_state(), state)
