"""Graphs that mix TensorFlow with the engine, beside the engine alone."""

import warnings

import numpy as np
import pytest

import keydnn
from keydnn.experiment import FeatureSet
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import BatchView, ExecutionContext
from keydnn.experiment.graph import ModelGraph, ModelNode
from keydnn.experiment.training import AppliedLoss, Loss, Optimizer
from keydnn.testing import check_backend

keras = pytest.importorskip("keras", reason="needs tensorflow")
B = 32


def arrays(n_in, n_out, seed):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n_out, n_in)) * 0.4).astype("f4"), (rng.standard_normal(n_out) * 0.1).astype("f4")


def in_keras(n_in, n_out, seed, activation):
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(n_out, activation=activation)])
    model.build((None, 1, n_in) if seed == 1 else (None, n_in))
    weight, bias = arrays(n_in, n_out, seed)
    model.set_weights([weight.T, bias])
    return model


def in_keydnn(n_in, n_out, seed, activation):
    layer = keydnn.nn.Linear(n_in, n_out)
    weight, bias = arrays(n_in, n_out, seed)
    layer.weight.copy_from_numpy(weight)
    layer.bias.copy_from_numpy(bias)
    return keydnn.Sequential(keydnn.nn.Flatten(), layer, keydnn.nn.Tanh() if activation else keydnn.nn.Identity())


MAKE = {"tensorflow": (in_keras, {"learning_rate": 0.1}), "keydnn": (in_keydnn, {"lr": 0.1})}


def losses_of(frameworks, n=100):
    rng = np.random.default_rng(0)
    with ExperimentContext(registration_policy="overwrite").activate(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the graph mixes backends")
        data = {"x": rng.standard_normal((64, 4)).astype("f4"), "y": rng.standard_normal(64).astype("f4")}
        rows = FeatureSet.from_dict("rows", data, "x", "y")
        node, nodes = rows, []
        for i, (framework, sizes) in enumerate(zip(frameworks, ((4, 8), (8, 6), (6, 1)), strict=True)):
            node = ModelNode("abc"[i], MAKE[framework][0](*sizes, i + 1, "tanh" if i < 2 else None), node)
            nodes.append(node)
        graph = ModelGraph(nodes, {name: Optimizer("sgd", opt_kwargs=MAKE[name][1], backend=name) for name in set(frameworks)})
        loss = AppliedLoss(Loss(lambda outputs, targets: (outputs - targets) * (outputs - targets)), "c", ["outputs", "targets"])
        told = []
        for i in range(n):
            ctx = ExecutionContext("p", 0, i)
            batch = BatchView(rows, {"default": np.arange(i * B, i * B + B) % 64}).materialize_batch()
            ctx.set_input(node_id=nodes[0].node_id, upstream=nodes[0].upstream_ref, batch=batch)
            graph.train_step(ctx, [loss])
            told.append(ctx.losses.to_float())
    return told


@pytest.mark.parametrize("frameworks", [("tensorflow",) * 3, ("tensorflow", "keydnn", "tensorflow"), ("keydnn", "tensorflow", "keydnn")])
def test_mixed_graphs_train_like_the_engine_alone(frameworks):
    assert np.allclose(losses_of(frameworks), losses_of(("keydnn",) * 3), rtol=1e-5)


def test_the_adapter():
    check_backend("tensorflow")
