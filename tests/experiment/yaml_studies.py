"""What the tests of YAML write: rows, a graph with branches, an experiment with nearly everything that a plan can hold."""

import numpy as np

import keydnn
from keydnn.experiment import (
    AppliedLoss,
    Checkpointing,
    ConcatNode,
    EarlyStopping,
    EvalLossMetric,
    EvalPhase,
    Evaluation,
    Experiment,
    ExperimentContext,
    FeatureSet,
    Loss,
    ModelGraph,
    ModelNode,
    Optimizer,
    PhaseGroup,
    TrainPhase,
)
from keydnn.experiment.callbacks import RMSE
from keydnn.experiment.equality import same_values
from keydnn.experiment.graph import AddNode
from keydnn.experiment.models.keydnn import SequentialMLP
from keydnn.experiment.samplers import PairedSampler, SimilarityCondition, SimpleSampler


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


def everything():
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
