"""Previews put back what callbacks and edits change: the graph, its labels, the plan, callbacks; also after an exception."""

import numpy as np
import pytest

import keydnn
from keydnn.experiment import (
    AppliedLoss,
    EarlyStopping,
    EvalLossMetric,
    Evaluation,
    Experiment,
    FeatureSet,
    Loss,
    ModelGraph,
    ModelNode,
    Optimizer,
)
from keydnn.experiment.callbacks import Callback
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.graph import AddNode
from keydnn.experiment.phases import EvalPhase, PhaseGroup, TrainPhase
from keydnn.experiment.samplers import SimpleSampler

QUIET = {"show_sampler_progress": False, "show_training_progress": False}


class Bench:
    """Two branches, their sum and a head, under one optimizer."""

    def __init__(self):
        keydnn.seed(0)
        rng = np.random.default_rng(0)
        data = {"x": rng.normal(size=(24, 4)).astype("f4"), "y": rng.normal(size=24).astype("f4")}
        self.fs = FeatureSet.from_dict("rows", data, "x", "y")
        self.fs.split_random({"train": 0.5, "val": 0.5}, seed=1)
        self.a, self.b = (ModelNode(label, self.linear(4, 3, flat=True), self.fs) for label in "ab")
        self.sum = AddNode("sum", [self.a, self.b])
        self.net = ModelNode("net", self.linear(3, 1), self.sum)
        self.graph = ModelGraph([self.a, self.b, self.sum, self.net], Optimizer("adam", opt_kwargs={"lr": 0.01}, backend="keydnn"))
        self.exp = Experiment.from_active_context("exp", seed=3)
        self.loss = AppliedLoss(Loss("mse", backend="keydnn"), self.net, ["outputs", "targets"], label="error")

    @staticmethod
    def linear(n_in, n_out, flat=False):
        return keydnn.Sequential(*[keydnn.nn.Flatten()] * flat, keydnn.nn.Linear(n_in, n_out))

    def train(self, label="train", n_epochs=2, callbacks=()):
        sampler = SimpleSampler(batch_size=4, shuffle=True, seed=5)
        return TrainPhase.from_split(
            label, split="train", sampler=sampler, losses=[self.loss], n_epochs=n_epochs, callbacks=list(callbacks)
        )

    def everything(self):
        """Nodes, labels, connections, weights and optimizer; the plan; the registry."""
        nodes = {key: (node.label, [str(ref) for ref in node.get_upstream_refs()]) for key, node in self.graph.nodes.items()}
        state = self.graph.get_state()
        weights = {n.label: {k: v.tobytes() for k, v in n.model.get_weights().items()} for n in (self.a, self.b, self.net)}
        plan, registry = repr(self.exp.execution_plan.get_config()), sorted(self.exp.ctx.available_nodes)
        return nodes, weights, repr(state["optimizer"]), state["is_built"], plan, registry, self.exp.ctx.model_graph


@pytest.fixture
def bench():
    made = Bench()
    made.exp.execution_plan.add_phase(made.train("first")).add_group(PhaseGroup("inner", [made.train("second")]))
    made.exp.run(**QUIET)
    return made


class Does(Callback):
    """Does something at the end of the first epoch, and perhaps fails then."""

    def __init__(self, act, fails):
        super().__init__()
        self.act, self.fails = act, fails

    def on_epoch_end(self, *, experiment, phase, exec_ctx, results):
        self.act(experiment, phase)
        if self.fails:
            raise OSError("disk")

    def get_config(self):
        return super().get_config()


def edits(bench):
    """By name, what a callback may do to graph and plan."""

    def relabel(exp, phase):
        bench.a.label = "renamed"
        bench.fs.label = "other"

    def replace(exp, phase):
        exp.model_graph.replace_node("a", ModelNode("new", bench.linear(4, 3, flat=True), bench.fs))

    def remove(exp, phase):
        exp.model_graph.remove_node("net")

    def insert(exp, phase):
        exp.model_graph.insert_node_before(ModelNode("mid", bench.linear(3, 3), bench.sum), downstream="net")

    def add(exp, phase):
        exp.model_graph.add_node(ModelNode("tail", bench.linear(3, 2), bench.sum))

    def another(exp, phase):
        with exp.ctx.use_policy("overwrite"):
            lone = ModelNode("lone", bench.linear(4, 1, flat=True), bench.fs)
            ModelGraph([lone], Optimizer("sgd", opt_kwargs={"lr": 0.1}, backend="keydnn"))

    def weights(exp, phase):
        exp.model_graph.reset_state()

    def plan(exp, phase):
        exp.execution_plan.add_phase(EvalPhase.from_split("more", split="val")).remove_phase("first")
        exp.execution_plan["inner"].clear()
        exp.execution_plan["inner"].label = "outer"

    def arguments(exp, phase):
        phase.n_epochs, phase.label = 7, "another"
        phase.add_loss(AppliedLoss(Loss("mae", backend="keydnn"), bench.net, ["outputs", "targets"], label="more"))
        phase.callbacks.append("something")
        phase.request_stop()

    return {one.__name__: one for one in (relabel, replace, remove, insert, add, another, weights, plan, arguments)}


@pytest.mark.parametrize("fails", [False, True], ids=["ends", "fails"])
@pytest.mark.parametrize("name", ["relabel", "replace", "remove", "insert", "add", "another", "weights", "plan", "arguments"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_preview_takes_back_what_callbacks_do(bench, context, name, fails):
    before, phase = bench.everything(), bench.train("looked", n_epochs=1)
    phase.add_callback(Does(edits(bench)[name], fails))
    told, callbacks = phase.get_config(), list(phase.callbacks)
    if fails:
        with pytest.raises(OSError, match="disk"):
            bench.exp.preview_phase(phase, **QUIET)
    else:
        bench.exp.preview_phase(phase, **QUIET)
    assert bench.everything() == before
    assert phase.get_config() == told and phase.callbacks == callbacks and not phase.stop_requested
    bench.exp.run_phase(bench.train("after"), **QUIET)
    clean = _trained_without_preview()
    assert {k: v.tobytes() for k, v in bench.net.model.get_weights().items()} == clean


def _trained_without_preview():
    with ExperimentContext(registration_policy="error").activate():
        other = Bench()
        other.exp.execution_plan.add_phase(other.train("first")).add_group(PhaseGroup("inner", [other.train("second")]))
        other.exp.run(**QUIET)
        other.exp.run_phase(other.train("after"), **QUIET)
        return {k: v.tobytes() for k, v in other.net.model.get_weights().items()}


class Counts(Callback):
    """Counts epochs, in its state."""

    def __init__(self, fail_at=None):
        super().__init__()
        self.epochs, self.fail_at = [], fail_at

    def on_epoch_end(self, *, exec_ctx, **rest):
        self.epochs.append(exec_ctx.epoch_idx)
        if self.fail_at == exec_ctx.epoch_idx:
            raise OSError("disk")

    def get_config(self):
        return super().get_config()

    def get_state(self):
        return {"epochs": self.epochs}

    def set_state(self, state):
        self.epochs = state["epochs"]


@pytest.mark.parametrize("fail_at", [None, 1])
@pytest.mark.parametrize("how", ["phase", "group", "run"])
def test_a_preview_takes_back_the_states_of_callbacks(bench, fail_at, how):
    counts, stopping = Counts(), EarlyStopping(monitor="train_loss", patience=9)
    watch = Evaluation(eval_phase=EvalPhase.from_split("val", split="val"), metrics=[EvalLossMetric(loss=bench.loss)])
    phase = bench.train("watched", n_epochs=3, callbacks=[counts, stopping, watch])
    bench.exp.run_phase(phase, **QUIET)
    told = stopping.best_epoch, stopping.best_value, stopping.stopped_epoch
    assert counts.epochs == [0, 1, 2] and told[0] is not None
    counts.fail_at, stopped = fail_at, bench.everything()
    bench.exp.execution_plan.clear()
    bench.exp.execution_plan.add_phase(phase)
    preview = {
        "phase": lambda: bench.exp.preview_phase(phase, **QUIET),
        "group": lambda: bench.exp.preview_group(PhaseGroup("g", [PhaseGroup("h", [phase])]), **QUIET),
        "run": lambda: bench.exp.preview_run(**QUIET),
    }[how]
    if fail_at is None:
        preview()
    else:
        with pytest.raises(OSError, match="disk"):
            preview()
    assert counts.epochs == [0, 1, 2] and (stopping.best_epoch, stopping.best_value, stopping.stopped_epoch) == told
    assert bench.everything()[:4] == stopped[:4]
