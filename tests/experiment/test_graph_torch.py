"""Graphs beside bare torch: the same numbers, also where frameworks are mixed."""

import contextlib
import warnings

import numpy as np
import pytest

import keydnn
from keydnn.experiment import FeatureSet, SimilarityCondition
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import BatchView, ExecutionContext
from keydnn.experiment.graph import ConcatNode, ModelGraph, ModelNode
from keydnn.experiment.samplers import TripletSampler
from keydnn.experiment.training import AppliedLoss, Loss, Optimizer

pytestmark = pytest.mark.torch
B, STEPS = 32, 20


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    data = {"x": rng.standard_normal((64, 4)).astype("f4"), "y": rng.standard_normal(64).astype("f4"), "lot": rng.integers(0, 3, 64)}
    return FeatureSet.from_dict("rows", data, "x", "y", "lot")


def arrays(n_in, n_out, seed):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n_out, n_in)) * 0.4).astype("f4"), (rng.standard_normal(n_out) * 0.1).astype("f4")


def in_torch(n_in, n_out, seed, last=False):
    import torch

    layer = torch.nn.Linear(n_in, n_out)
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), arrays(n_in, n_out, seed), strict=True):
            parameter.copy_(torch.from_numpy(value))
    return torch.nn.Sequential(torch.nn.Flatten(), layer, torch.nn.Identity() if last else torch.nn.Tanh())


def in_keydnn(n_in, n_out, seed, last=False):
    layer = keydnn.nn.Linear(n_in, n_out)
    weight, bias = arrays(n_in, n_out, seed)
    layer.weight.copy_from_numpy(weight)
    layer.bias.copy_from_numpy(bias)
    return keydnn.Sequential(keydnn.nn.Flatten(), layer, keydnn.nn.Identity() if last else keydnn.nn.Tanh())


MAKE = {"torch": in_torch, "keydnn": in_keydnn}


def batches(rows, n):
    return [BatchView(rows, {"default": np.arange(i * B, i * B + B) % 64}).materialize_batch() for i in range(n)]


def run(graph, losses, rows, n=STEPS):
    """Losses of n steps."""
    told = []
    for batch in batches(rows, n):
        ctx = ExecutionContext("p", 0, 0)
        for node in graph.head_nodes.values():
            ctx.set_input(node_id=node.node_id, upstream=node.upstream_ref, batch=batch)
        graph.train_step(ctx, losses)
        told.append(ctx.losses.to_float())
    return told


def bare(rows, modules, value, n=STEPS, lr=0.1):
    """Losses of n steps of a hand-written loop."""
    import torch

    optimizer = torch.optim.SGD([p for module in modules for p in module.parameters()], lr=lr)
    told = []
    for batch in batches(rows, n):
        optimizer.zero_grad()
        loss = value(torch.from_numpy(batch.features), torch.from_numpy(batch.targets))
        loss.backward()
        optimizer.step()
        told.append(loss.item())
    return told


def sgd(backend="torch", lr=0.1):
    return Optimizer("sgd", opt_kwargs={"lr": lr}, backend=backend)


def close(graph, modules, told, expected):
    assert np.allclose(told, expected, rtol=1e-6)
    mine = [value for node in graph.nodes.values() if isinstance(node, ModelNode) for value in node.model.get_weights().values()]
    theirs = [parameter.detach().numpy() for module in modules for parameter in module.parameters()]
    for a, b in zip(mine, theirs, strict=True):
        assert np.allclose(a, b, rtol=1e-6, atol=1e-7)


def mse(out, y):
    return ((out - y) ** 2).mean()


def test_one_node(rows):
    graph = ModelGraph([ModelNode("net", in_torch(4, 1, 1), rows)], sgd())
    net = in_torch(4, 1, 1)
    told = run(graph, [AppliedLoss(Loss("mse", backend="torch"), "net", ["outputs", "targets"])], rows)
    close(graph, [net], told, bare(rows, [net], lambda x, y: mse(net(x), y)))


def test_a_chain(rows):
    a = ModelNode("a", in_torch(4, 8, 1), rows)
    graph = ModelGraph([a, ModelNode("b", in_torch(8, 1, 2), a)], sgd())
    first, second = in_torch(4, 8, 1), in_torch(8, 1, 2)
    told = run(graph, [AppliedLoss(Loss("mse", backend="torch"), "b", ["outputs", "targets"])], rows)
    close(graph, [first, second], told, bare(rows, [first, second], lambda x, y: mse(second(first(x)), y)))


def test_a_diamond_and_two_losses_on_one_node(rows):
    import torch

    a = ModelNode("a", in_torch(4, 8, 1), rows)
    left, right = ModelNode("left", in_torch(8, 2, 2), a), ModelNode("right", in_torch(8, 3, 3), a)
    both = ConcatNode("both", [left, right], -1, concat_axis_targets="first")
    graph = ModelGraph([a, left, right, both, ModelNode("out", in_torch(5, 1, 4), both)], sgd())
    modules = [in_torch(4, 8, 1), in_torch(8, 2, 2), in_torch(8, 3, 3), in_torch(5, 1, 4)]

    def value(x, y):
        h = modules[0](x)
        out = modules[3](torch.cat([modules[1](h), modules[2](h)], 1))
        return mse(out, y) + 0.5 * (out - y).abs().mean()

    losses = [AppliedLoss(Loss(name, backend="torch"), "out", ["outputs", "targets"], weight=w) for name, w in (("mse", 1.0), ("l1", 0.5))]
    close(graph, modules, run(graph, losses, rows), bare(rows, modules, value))


def test_class_targets(rows):
    import torch

    classes = FeatureSet.from_dict("classes", {"x": rows.get_features()["x"], "lot": rows.get_tags()["lot"]}, "x", "lot")
    graph = ModelGraph([ModelNode("net", in_torch(4, 3, 1), classes)], sgd())
    net = in_torch(4, 3, 1)
    told = run(graph, [AppliedLoss(Loss("crossentropy", backend="torch"), "net", ["outputs", "targets"])], classes)
    cross_entropy = torch.nn.CrossEntropyLoss()
    close(graph, [net], told, bare(classes, [net], lambda x, y: cross_entropy(net(x), y.reshape(-1).long())))


def test_stage_wise(rows):
    a = ModelNode("a", in_torch(4, 8, 1), rows, sgd())
    graph = ModelGraph([a, ModelNode("b", in_torch(8, 1, 2), a, sgd())])
    losses = [AppliedLoss(Loss(lambda outputs: outputs**2), "a", ["outputs"], label="size")]
    losses.append(AppliedLoss(Loss("mse", backend="torch"), "b", ["outputs", "targets"]))
    first, second = in_torch(4, 8, 1), in_torch(8, 1, 2)
    # the second stage reads what the first gave before its own step, without history: together that is one loop over both
    expected = bare(rows, [first, second], lambda x, y: (first(x) ** 2).mean() + mse(second(first(x).detach()), y))
    close(graph, [first, second], run(graph, losses, rows), expected)


def test_one_node_stage_wise(rows):
    graph = ModelGraph([ModelNode("net", in_torch(4, 1, 1), rows, sgd())])
    net = in_torch(4, 1, 1)
    told = run(graph, [AppliedLoss(Loss("mse", backend="torch"), "net", ["outputs", "targets"])], rows)
    close(graph, [net], told, bare(rows, [net], lambda x, y: mse(net(x), y)))


def test_class_targets_stage_wise(rows):
    import torch

    classes = FeatureSet.from_dict("classes", {"x": rows.get_features()["x"], "lot": rows.get_tags()["lot"]}, "x", "lot")
    graph = ModelGraph([ModelNode("net", in_torch(4, 3, 1), classes, sgd())])
    net, nll = in_torch(4, 3, 1), torch.nn.NLLLoss()
    told = run(graph, [AppliedLoss(Loss("nll", backend="torch"), "net", ["outputs", "targets"])], classes)
    close(graph, [net], told, bare(classes, [net], lambda x, y: nll(net(x), y.reshape(-1).long())))


def test_a_diamond_stage_wise(rows):
    import torch

    a = ModelNode("a", in_torch(4, 8, 1), rows, sgd())
    left, right = ModelNode("left", in_torch(8, 2, 2), a, sgd()), ModelNode("right", in_torch(8, 3, 3), a, sgd())
    both = ConcatNode("both", [left, right], -1, concat_axis_targets="first")
    graph = ModelGraph([a, left, right, both, ModelNode("out", in_torch(5, 1, 4), both, sgd())])
    losses = [AppliedLoss(Loss(lambda outputs: outputs**2), node, ["outputs"], label="size") for node in (a, left, right)]
    losses += [AppliedLoss(Loss(name, backend="torch"), "out", ["outputs", "targets"], weight=w) for name, w in (("mse", 1.0), ("l1", 0.5))]
    modules = [in_torch(4, 8, 1), in_torch(8, 2, 2), in_torch(8, 3, 3), in_torch(5, 1, 4)]

    def value(x, y):
        first = modules[0](x)
        sides = [module(first.detach()) for module in modules[1:3]]
        out = modules[3](torch.cat([side.detach() for side in sides], 1))
        return sum((h**2).mean() for h in (first, *sides)) + mse(out, y) + 0.5 * (out - y).abs().mean()

    close(graph, modules, run(graph, losses, rows), bare(rows, modules, value))


def test_clipping_and_adam(rows):
    import torch

    optimizer = Optimizer(torch.optim.Adam, opt_kwargs={"lr": 0.01}, clip_norm=0.1)
    graph = ModelGraph([ModelNode("net", in_torch(4, 1, 1), rows)], optimizer)
    told = run(graph, [AppliedLoss(Loss("mse", backend="torch"), "net", ["outputs", "targets"])], rows)
    net = in_torch(4, 1, 1)
    adam, expected = torch.optim.Adam(net.parameters(), lr=0.01), []
    for batch in batches(rows, STEPS):
        adam.zero_grad()
        loss = mse(net(torch.from_numpy(batch.features)), torch.from_numpy(batch.targets))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        adam.step()
        expected.append(loss.item())
    close(graph, [net], told, expected)


def test_triplet_loss(rows):
    import torch

    lots = {"lot": SimilarityCondition(mode="similar")}, {"lot": SimilarityCondition(mode="dissimilar")}
    sampler = TripletSampler(*lots, max_samples_per_anchor=1, batch_size=8, seed=0, source=rows)
    view = sampler.get_batches()[0]
    node = ModelNode("Enc", in_torch(4, 3, 1), rows)
    graph = ModelGraph([node], sgd())
    loss = AppliedLoss(Loss(torch.nn.TripletMarginLoss), on="Enc", inputs=["outputs.anchor", "outputs.positive", "outputs.negative"])
    ctx = ExecutionContext("p", 0, 0)
    ctx.set_input(node_id=node.node_id, upstream=node.upstream_ref, batch=view.materialize_batch())
    graph.train_step(ctx, [loss])
    net = in_torch(4, 3, 1)
    sides = [net(torch.from_numpy(view.materialize_batch().role_data[role].features)) for role in ("anchor", "positive", "negative")]
    assert ctx.losses.to_float() == pytest.approx(torch.nn.TripletMarginLoss()(*sides).item(), rel=1e-6)
    assert set(ctx.outputs[node.node_id].available_roles) == {"anchor", "positive", "negative"}


def test_engine_and_torch_train_alike_stage_wise(rows):
    """A torch encoder and an engine head, each with a loss and an optimizer of its own, beside the same in torch."""
    told = {}
    for framework in ("keydnn", "torch"):
        with apart(rows):
            a = ModelNode("a", in_torch(4, 8, 1), rows, sgd())
            graph = ModelGraph([a, ModelNode("b", MAKE[framework](8, 1, 2, True), a, sgd(framework))])
            losses = [AppliedLoss(Loss(lambda outputs: outputs**2), "a", ["outputs"], label="size"), *mixed_loss("b")]
            told[framework] = run(graph, losses, rows)
    assert np.allclose(told["keydnn"], told["torch"], rtol=1e-5)


# -- across frameworks


@contextlib.contextmanager
def apart(rows):
    """A context of its own, in which the rows are known; that frameworks are mixed is what these tests are about."""
    with ExperimentContext(registration_policy="overwrite").activate() as ctx, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the graph mixes backends")
        ctx.register_experiment_node(rows)
        yield


def chain_of(rows, frameworks):
    a = ModelNode("a", MAKE[frameworks[0]](4, 8, 1), rows)
    b = ModelNode("b", MAKE[frameworks[1]](8, 6, 2), a)
    nodes = [a, b, ModelNode("c", MAKE[frameworks[2]](6, 1, 3, True), b)]
    return nodes, "c"


def diamond_of(rows, frameworks):
    a = ModelNode("a", MAKE["torch"](4, 8, 1), rows)
    middle = [ModelNode(name, MAKE[framework](8, 3, seed), a) for name, framework, seed in zip("bc", frameworks, (2, 3), strict=True)]
    both = ConcatNode("both", middle, -1, concat_axis_targets="first")
    return [a, *middle, both, ModelNode("d", MAKE["torch"](6, 1, 4, True), both)], "d"


def mixed(nodes, last, lr=0.1):
    backends = {node.backend for node in nodes if isinstance(node, ModelNode)}
    graph = ModelGraph(nodes, {backend: sgd(backend.value, lr) for backend in backends})
    return graph, [AppliedLoss(Loss(lambda outputs, targets: (outputs - targets) * (outputs - targets)), last, ["outputs", "targets"])]


def gradients(graph):
    found = {}
    for node in graph.nodes.values():
        if isinstance(node, ModelNode):
            found.update({(node.label, i): np.array(p.grad.numpy()) for i, p in enumerate(node.parameters())})
    return found


@pytest.mark.parametrize(
    ("make", "mix", "same"),
    [
        (chain_of, ("torch", "keydnn", "torch"), ("torch",) * 3),
        (chain_of, ("keydnn", "torch", "keydnn"), ("torch",) * 3),
        (chain_of, ("keydnn",) * 3, ("torch",) * 3),
        (diamond_of, ("torch", "keydnn"), ("torch", "torch")),
    ],
    ids=["t-k-t", "k-t-k", "k-k-k", "diamond"],
)
def test_mixed_graphs_train_like_torch_alone(rows, make, mix, same):
    told = {}
    for name, frameworks in (("mix", mix), ("same", same)):
        with apart(rows):
            graph, losses = mixed(*make(rows, frameworks))
            run(graph, losses, rows, 1)
            told[name] = gradients(graph), run(graph, losses, rows, 100)
    biggest = max(np.abs(g).max() for g in told["same"][0].values())
    assert told["mix"][0].keys() == told["same"][0].keys()
    for key, gradient in told["same"][0].items():
        assert np.abs(told["mix"][0][key] - gradient).max() <= 1e-6 * biggest
    assert np.allclose(told["mix"][1], told["same"][1], rtol=1e-5)


def test_one_optimizer_cannot_serve_two_frameworks(rows):
    with apart(rows):
        nodes, _ = chain_of(rows, ("torch", "keydnn", "torch"))
        with pytest.raises(RuntimeError, match="several backends"):
            ModelGraph(nodes, sgd())
        with pytest.raises(RuntimeError, match="no optimizer for backend keydnn"):
            ModelGraph(nodes, {"torch": sgd()})


def test_the_norm_counts_all_frameworks(rows):
    with apart(rows):
        nodes, last = chain_of(rows, ("torch", "keydnn", "torch"))
        clipped = {name: Optimizer("sgd", opt_kwargs={"lr": 1.0}, backend=name, clip_norm=0.01) for name in ("torch", "keydnn")}
        graph = ModelGraph(nodes, clipped)
        before = {node.label: node.model.get_weights() for node in nodes}
        run(graph, mixed_loss(last), rows, 1)
        moved = [node.model.get_weights()[name] - old for node in nodes for name, old in before[node.label].items()]
    assert np.sqrt(sum((m.astype("f8") ** 2).sum() for m in moved)) == pytest.approx(0.01, rel=1e-3)


def mixed_loss(last):
    return [AppliedLoss(Loss(lambda outputs, targets: (outputs - targets) * (outputs - targets)), last, ["outputs", "targets"])]


def test_frozen_nodes_pass_gradients_between_frameworks(rows):
    with apart(rows):
        graph, losses = mixed(*chain_of(rows, ("torch", "keydnn", "torch")))
        graph.build()
        graph.freeze("b")
        before = {node.label: node.model.get_weights() for node in graph.nodes.values()}
        run(graph, losses, rows, 1)
        after = {node.label: node.model.get_weights() for node in graph.nodes.values()}
    changed = {label for label in before if any(not np.array_equal(before[label][k], after[label][k]) for k in before[label])}
    assert changed == {"a", "c"}
