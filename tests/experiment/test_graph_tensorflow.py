"""Graphs that mix TensorFlow with the engine and torch, beside torch alone (the engine, where torch is missing)."""

import warnings
from importlib.util import find_spec

import numpy as np
import pytest

import keydnn
from keydnn.experiment import FeatureSet
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import BatchView, ExecutionContext
from keydnn.experiment.graph import ConcatNode, ModelGraph, ModelNode
from keydnn.experiment.models import TensorflowModelWrapper, wrap_model
from keydnn.experiment.training import AppliedLoss, Loss, Optimizer
from keydnn.testing import check_backend

keras = pytest.importorskip("keras", reason="needs tensorflow")
B = 32
BESIDE = "torch" if find_spec("torch") else "keydnn"


def arrays(n_in, n_out, seed):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n_out, n_in)) * 0.4).astype("f4"), (rng.standard_normal(n_out) * 0.1).astype("f4")


def in_keras(n_in, n_out, seed, is_last):
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(n_out, activation=None if is_last else "tanh")])
    model.build((None, 1, n_in) if seed == 1 else (None, n_in))
    weight, bias = arrays(n_in, n_out, seed)
    model.set_weights([weight.T, bias])
    return model


def in_keydnn(n_in, n_out, seed, is_last):
    layer = keydnn.nn.Linear(n_in, n_out)
    weight, bias = arrays(n_in, n_out, seed)
    layer.weight.copy_from_numpy(weight)
    layer.bias.copy_from_numpy(bias)
    return keydnn.Sequential(keydnn.nn.Flatten(), layer, keydnn.nn.Identity() if is_last else keydnn.nn.Tanh())


def in_torch(n_in, n_out, seed, is_last):
    import torch

    layer = torch.nn.Linear(n_in, n_out)
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), arrays(n_in, n_out, seed), strict=True):
            parameter.copy_(torch.from_numpy(value))
    return torch.nn.Sequential(torch.nn.Flatten(), layer, torch.nn.Identity() if is_last else torch.nn.Tanh())


MAKE = {"tensorflow": in_keras, "keydnn": in_keydnn, "torch": in_torch}
RATE = {"tensorflow": {"learning_rate": 0.1}, "keydnn": {"lr": 0.1}, "torch": {"lr": 0.1}}


def chain(rows, frameworks):
    node, nodes = rows, []
    for i, (framework, sizes) in enumerate(zip(frameworks, ((4, 8), (8, 6), (6, 1)), strict=True)):
        node = ModelNode("abc"[i], MAKE[framework](*sizes, i + 1, i == 2), node)
        nodes.append(node)
    return nodes


def diamond(rows, frameworks):
    first, left, right, last = frameworks
    a = ModelNode("a", MAKE[first](4, 8, 1, False), rows)
    b, c = ModelNode("b", MAKE[left](8, 3, 2, False), a), ModelNode("c", MAKE[right](8, 3, 3, False), a)
    both = ConcatNode("both", [b, c], -1, concat_axis_targets="first")
    return [a, b, c, both, ModelNode("d", MAKE[last](6, 1, 4, True), both)]


def trained(make, frameworks, monkeypatch, n=100):
    """Gradients of the first step by node and shape, and the losses of n steps."""
    rng, steps, first = np.random.default_rng(0), [], {}
    step = Optimizer.update

    def update(self, grads=None, variables=None, *, norm=None):
        if not steps:
            own = self.parameters if grads is None else variables
            of = [p.grad for p in own] if grads is None else grads
            first.update({id(p): np.array(g.numpy()) for p, g in zip(own, of, strict=True)})
        step(self, grads, variables, norm=norm)

    monkeypatch.setattr(Optimizer, "update", update)
    with ExperimentContext(registration_policy="overwrite").activate(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the graph mixes backends")
        data = {"x": rng.standard_normal((64, 4)).astype("f4"), "y": rng.standard_normal(64).astype("f4")}
        rows = FeatureSet.from_dict("rows", data, "x", "y")
        nodes = make(rows, frameworks)
        graph = ModelGraph(nodes, {name: Optimizer("sgd", opt_kwargs=RATE[name], backend=name) for name in set(frameworks)})
        loss = AppliedLoss(Loss(lambda outputs, targets: (outputs - targets) * (outputs - targets)), nodes[-1], ["outputs", "targets"])
        for i in range(n):
            ctx = ExecutionContext("p", 0, i)
            batch = BatchView(rows, {"default": np.arange(i * B, i * B + B) % 64}).materialize_batch()
            ctx.set_input(node_id=nodes[0].node_id, upstream=nodes[0].upstream_ref, batch=batch)
            graph.train_step(ctx, [loss])
            steps.append(ctx.losses.to_float())
        gradients = {}
        for node in nodes:
            for p in node.parameters() if isinstance(node, ModelNode) else ():
                value = first[id(p)]
                gradients[node.label, value.ndim] = value.T if node.backend.value == "tensorflow" else value
    return gradients, steps


@pytest.mark.parametrize(
    ("make", "frameworks"),
    [
        (chain, ("tensorflow",) * 3),
        (chain, ("tensorflow", "keydnn", "tensorflow")),
        (chain, ("keydnn", "tensorflow", "keydnn")),
        (diamond, ("tensorflow", "tensorflow", "keydnn", "tensorflow")),
        pytest.param(chain, ("torch", "tensorflow", "torch"), marks=pytest.mark.torch),
        pytest.param(diamond, ("torch", "tensorflow", "keydnn", "torch"), marks=pytest.mark.torch),
    ],
    ids=["f-f-f", "f-k-f", "k-f-k", "diamond f-(f,k)-f", "t-f-t", "diamond t-(f,k)-t"],
)
def test_mixed_graphs_train_like_one_framework_alone(make, frameworks, monkeypatch):
    gradients, losses = trained(make, frameworks, monkeypatch)
    beside, expected = trained(make, (BESIDE,) * len(frameworks), monkeypatch)
    biggest = max(np.abs(g).max() for g in beside.values())
    assert gradients.keys() == beside.keys()
    assert max(np.abs(gradients[key] - g).max() for key, g in beside.items()) <= 1e-6 * biggest
    assert np.allclose(losses, expected, rtol=1e-5, atol=0)


def test_the_adapter():
    check_backend("tensorflow")


@pytest.mark.parametrize(("reduction", "value"), [("none", [1.0, 4.0]), ("mean", 2.5), ("sum", 5.0)])
def test_functions_and_classes_of_losses_are_reduced_alike(reduction, value):
    import tensorflow

    outputs, targets = (tensorflow.constant(values) for values in ([[1.0], [3.0]], [[0.0], [1.0]]))
    for name in ("mse", "MeanSquaredError"):
        got = Loss(name, backend="keras", reduction=reduction).build()(outputs, targets)
        assert got.numpy().tolist() == pytest.approx(value)


def test_a_wrapped_model():
    model = wrap_model(keras.Sequential([keras.layers.Dense(3), keras.layers.Dropout(0.5)]))
    assert isinstance(model, TensorflowModelWrapper)
    model.build((4,))
    assert model.output_shape == (3,) and len(model.get_weights()) >= 2
    x = np.ones((8, 4), "f4")
    assert np.array_equal(model(x), model(x)) and not np.array_equal(model(x, training=True), model(x, training=True))
    with pytest.raises(ValueError, match="no variable gone"):
        model.set_weights({"gone": np.ones(1)})
