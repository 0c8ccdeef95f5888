"""YAML written by hand: it needs little, and what is wrong is told with its place and leaves no trace."""

import os
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keydnn.experiment import (
    Experiment,
    ExperimentContext,
    FeatureSet,
    ModelGraph,
    ModelNode,
)
from keydnn.experiment.documents.text import from_text, to_text
from keydnn.experiment.errors import ArtifactError, PackagedCodeError
from keydnn.experiment.io import from_yaml, to_yaml
from keydnn.experiment.models.keydnn import SequentialMLP
from keydnn.experiment.samplers import NSampler, SimpleSampler
from tests.experiment.yaml_studies import cells, everything, same

TORCH = pytest.param("torch", marks=pytest.mark.torch)


@pytest.fixture
def study(context):
    return everything()


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
