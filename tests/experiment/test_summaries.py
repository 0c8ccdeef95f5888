"""Summaries: boxes of text, on everything that a user makes or gets."""

import numpy as np
import pytest

import keydnn
from keydnn.experiment import AppliedLoss, EvalPhase, Experiment, FeatureSet, Loss, ModelGraph, ModelNode, Optimizer, PhaseGroup, TrainPhase
from keydnn.experiment.graph import ConcatNode
from keydnn.experiment.samplers import SimpleSampler
from keydnn.experiment.visualization.summary import summary_box

GRAPH = """\
┌─ ModelGraph ─────────────────────────────────────────────────────────────┐
│ label : model-graph                                                      │
│ optimizer : Optimizer('sgd', lr=0.01)                                    │
│ built : True                                                             │
│ parameters : 13, of which 7 are trained                                  │
│                                                                          │
│ node  kind        input           output  parameters  trainable  backend │
│ a     ModelNode   line (1, 2)     (2,)    6           frozen     keydnn  │
│ b     ModelNode   line (1, 2)     (1,)    3           3          keydnn  │
│ both  ConcatNode  a (2,), b (1,)  (3,)                           keydnn  │
│ net   ModelNode   both (3,)       (1,)    4           4          keydnn  │
└──────────────────────────────────────────────────────────────────────────┘"""
EXPERIMENT = """\
┌─ Experiment ────────────────────────────────────────────────────────────────────────┐
│ label : all                                                                         │
│ seed : 7                                                                            │
│ feature sets : [line=[n_samples=6, split train=3, split val=3]]                     │
│ graph :                                                                             │
│   a : ModelNode (keydnn) of line                                                    │
│   b : ModelNode (keydnn) of line                                                    │
│   both : ConcatNode (none) of a, b                                                  │
│   net : ModelNode (keydnn) of both                                                  │
│ plan :                                                                              │
│   train : [type=TrainPhase, epochs=2, reads=line, split=train, nodes=b, losses=mse] │
│   end :                                                                             │
│     type : PhaseGroup                                                               │
│     val : [type=EvalPhase, batch_size=2, reads=line, split=val, losses=mse]         │
│     later : [type=PhaseGroup]                                                       │
│ runs : none                                                                         │
└─────────────────────────────────────────────────────────────────────────────────────┘"""


@pytest.fixture
def made(context):
    """One of everything, by name."""
    fs = FeatureSet.from_dict("line", {"u": np.ones((6, 2)), "y": np.arange(6.0)}, "u", "y")
    fs.split_random({"train": 0.5, "val": 0.5}, seed=1)
    a, b = (ModelNode(label, keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.Linear(2, n)), fs) for label, n in (("a", 2), ("b", 1)))
    both = ConcatNode("both", [a, b], concat_axis_targets="first")
    net = ModelNode("net", keydnn.Sequential(keydnn.nn.Linear(3, 1)), both)
    graph = ModelGraph([a, b, both, net], Optimizer("sgd", opt_kwargs={"lr": 0.01}, backend="keydnn"))
    loss = AppliedLoss(Loss("mse", backend="keydnn"), b, ["outputs", "targets"])
    sampler = SimpleSampler(batch_size=3, seed=1)
    train = TrainPhase.from_split("train", split="train", sampler=sampler, losses=[loss], n_epochs=2, active_nodes=["b"])
    evaluation = EvalPhase.from_split("val", split="val", losses=[loss], batch_size=2)
    experiment = Experiment.from_active_context("all", seed=7)
    experiment.execution_plan.add_phase(train).add_group(PhaseGroup("end", [evaluation, PhaseGroup("later")]))
    sampled = train.input_sources[0].materialize_batches()
    batch = sampled.default[0].materialize_batch()
    parts = {"view": fs["train"], "sampled": sampled, "batch_view": sampled.default[0], "batch": batch, "role_data": batch.role_data}
    parts["samples"] = batch.role_data["default"]
    nodes = {"fs": fs, "a": a, "both": both, "graph": graph, "loss": loss, "plain_loss": loss.loss}
    return {**parts, **nodes, "train": train, "eval": evaluation, "plan": experiment.execution_plan, "experiment": experiment}


def test_every_summary_is_a_box_that_fits(made):
    for name, thing in made.items():
        for width in (88, 30):
            lines = thing.summary(width).splitlines()
            assert lines[0].startswith(f"┌─ {type(thing).__name__} ─"), name
            assert len({len(line) for line in lines}) == 1 and len(lines[0]) <= width, name
            assert thing.summary() == thing.summary(88), name


def test_the_table_of_a_graph(made):
    graph = made["graph"]
    assert "net   ModelNode   both ?" in graph.summary() and "parameters :" not in graph.summary()
    graph.build()
    made["a"].freeze()
    assert graph.summary() == GRAPH


def test_an_experiment_tells_data_graph_plan_and_runs(made):
    experiment = made["experiment"]
    assert experiment.summary() == EXPERIMENT
    experiment.run()
    assert experiment.summary().splitlines()[-2].startswith("│ runs : [all=completed]")
    assert repr(experiment) == "Experiment('all', 2 items, 1 runs)"


def test_a_table_stands_below_the_pairs():
    box = summary_box("T", [("a", 1)], table=[("x", "long"), ("yy", "")])
    assert [line.strip("│ ") for line in box.splitlines()[1:-1]] == ["a : 1", "", "x   long", "yy"]
