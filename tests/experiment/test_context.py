"""Contexts: which one is active where, what registration means, what a temporary one leaves behind."""

import subprocess
import sys
import threading

import numpy as np
import pytest

import keydnn
from keydnn.experiment.context import ExperimentContext, RegistrationPolicy
from keydnn.experiment.data import FeatureSet
from keydnn.experiment.graph import ModelGraph, ModelNode
from keydnn.experiment.training import Optimizer


def make(label="a", **options):
    return FeatureSet.from_numpy(label, np.ones((3, 1)), **options)


def test_policies(context):
    first = make()
    with pytest.raises(ValueError, match="needs another label"):
        make()
    context.set_registration_policy("overwrite")
    second = make()
    assert context.available_featuresets == {second.node_id: second} and first.node_id != second.node_id
    context.set_registration_policy(RegistrationPolicy.OVERWRITE_WARN)
    with pytest.warns(UserWarning, match="replaced"):
        make()
    with ExperimentContext.dont_register(), context.dont_register():
        make("b")
    assert not context.has_node(label="b")
    with context.use_policy("NO_REGISTER"):
        make("b")
    assert not context.has_node(label="b") and context.registration_policy is RegistrationPolicy.OVERWRITE_WARN


def test_a_context_has_one_graph(context):
    def graph(label):
        return ModelGraph(
            [ModelNode(label, keydnn.Sequential(keydnn.Dense(1)), cells)], Optimizer("sgd", backend="keydnn"), f"graph-{label}"
        )

    cells = FeatureSet.from_dict("cells", {"x": np.ones(3), "y": np.ones(3)}, "x", "y")
    graph("a")
    with pytest.raises(ValueError, match=r"label 'graph-a' is registered; a context has one graph: make this one in another, `with Exp"):
        graph("b")


def test_lookups(context):
    a, b = make("a"), make("b")
    assert context.get_node("a") is context.get_node(a.node_id) is context.get_node(label="a", enforce_type=FeatureSet) is a
    nodes = context.available_nodes
    nodes.clear()
    assert context.remove_node(label="b") is b and context.remove_node(label="b", error_if_missing=False) is None
    a.label = "c"
    assert context.get_node("c") is a and not context.has_node(label="a")
    with pytest.raises(ValueError, match="taken"):
        make("d").label = "c"
    twin = FeatureSet("c", a.collection, register=False)
    context.register_experiment_node(twin, check_label_collision=False)
    assert context.get_node(label="c") is twin


def test_labels():
    with pytest.warns(UserWarning, match="' '"):
        make("two words")
    for bad, error in (("", ValueError), ("a.b", ValueError), (3, TypeError)):
        with pytest.raises(error):
            make(bad)


def test_activation_nests_and_ends(context):
    inner = ExperimentContext()
    with pytest.raises(KeyError), inner.activate() as got:
        assert got is inner is ExperimentContext.get_active()
        raise KeyError
    assert ExperimentContext.get_active() is context


def test_a_temporary_context_restores_after_an_error(context):
    fs = make()
    with pytest.raises(ZeroDivisionError), context.temporary():
        fs.split_random({"a": 1.0})
        make("b")
        context.set_registration_policy("overwrite")
        ExperimentContext.set_active(ExperimentContext())
        raise ZeroDivisionError
    assert ExperimentContext.get_active() is context and context.registration_policy is RegistrationPolicy.ERROR
    assert list(context.available_nodes.values()) == [fs] and fs.available_splits == []


IN_A_NEW_PROCESS = """
import os, threading
from keydnn.experiment.context import ExperimentContext
seen = []
first = ExperimentContext.get_active()
thread = threading.Thread(target=lambda: seen.append(ExperimentContext.get_active() is first)); thread.start(); thread.join()
ExperimentContext.set_active(None)
try:
    ExperimentContext.get_active()
except RuntimeError as error:
    seen.append("no active" in str(error))
ExperimentContext.set_active(ExperimentContext())
seen.append(first.registration_policy.value)
print(*seen)
"""


@pytest.mark.slow
def test_threads_see_the_fallback_and_none_is_none():
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS],
        capture_output=True,
        text=True,
        check=True,
        env={**__import__("os").environ, "KEYDNN_EXP_REGISTRATION_POLICY": "Overwrite"},
    )
    assert done.stdout.split() == ["True", "True", "overwrite"]


def test_a_thread_does_not_see_what_another_activated(context):
    seen = []
    thread = threading.Thread(target=lambda: seen.append(ExperimentContext.get_active() is context))
    thread.start()
    thread.join()
    assert seen == [False]


def test_experiments_are_held_weakly():
    class Experiment:
        pass

    experiment = Experiment()
    ctx = ExperimentContext(experiment=experiment)
    assert ctx.get_experiment() is experiment
    del experiment
    assert ctx.get_experiment() is None
    ctx.set_experiment(None, reset_registries=True)
    assert ctx.available_nodes == {} and ctx.model_graph is None
