"""What graphs, models and losses promise beside their numbers: devices, own activations, probes that leave no trace, who may be named."""

import numpy as np
import pytest

import keydnn
from keydnn.experiment import FeatureSet
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import BatchView, ExecutionContext, SampleData
from keydnn.experiment.errors import GraphNodeInputError, LossError
from keydnn.experiment.graph import ConcatNode, ModelGraph, ModelNode
from keydnn.experiment.models import wrap_model
from keydnn.experiment.models.keydnn import SequentialMLP
from keydnn.experiment.samplers import SimpleSampler
from keydnn.experiment.training import AppliedLoss, Loss, LossCollection, LossRecord, Optimizer
from keydnn.experiment.utils import Accelerator

TORCH = pytest.param("torch", marks=pytest.mark.torch)


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    data = {"x": rng.standard_normal((32, 4)).astype("f4"), "y": rng.standard_normal(32).astype("f4")}
    fs = FeatureSet.from_dict("rows", data, "x", "y")
    fs.split_random({"train": 0.5, "val": 0.5})
    return fs


def framework(backend):
    """Linear layers, an optimizer and a batch of one of the frameworks."""
    nn = keydnn.nn if backend == "keydnn" else __import__("torch").nn
    chain = keydnn.Sequential if backend == "keydnn" else nn.Sequential
    return nn, lambda n_in, n_out: chain(nn.Flatten(), nn.Linear(n_in, n_out)), Optimizer("sgd", opt_kwargs={"lr": 0.05}, backend=backend)


def tensor(backend, array):
    return keydnn.tensor(array) if backend == "keydnn" else __import__("torch").from_numpy(array)


def inputs_of(graph, rows, n=8):
    batch = BatchView(rows, {"default": np.arange(n)}).materialize_batch()
    return {(node.node_id, reference): batch for node in graph.head_nodes.values() for reference in node.get_upstream_refs()}


def stepped(graph, rows, kind, losses, **options):
    ctx = ExecutionContext("p", 0, 0, inputs=inputs_of(graph, rows))
    getattr(graph, f"{kind}_step")(ctx, losses, **options)
    return ctx


def on(node, **options):
    return AppliedLoss(Loss(lambda outputs, targets: (outputs - targets) * (outputs - targets)), node, ["outputs", "targets"], **options)


# -- devices


@pytest.mark.parametrize("backend", ["keydnn", TORCH])
@pytest.mark.parametrize("own", [False, True], ids=["of the step", "of the node"])
def test_a_device_that_is_not_there_is_told_by_node_and_name(rows, backend, own, monkeypatch):
    if backend == "torch":
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    _, linear, sgd = framework(backend)
    node = ModelNode("net", linear(4, 1), rows, accelerator="cuda:7" if own else None)
    graph = ModelGraph([node], sgd)
    graph.build()
    before, options = node.model.get_weights(), {} if own else {"accelerator": "cuda:7"}
    for kind in ("train", "eval", "fit"):
        with pytest.raises(RuntimeError, match="node 'net': device 'cuda:7' is not available"):
            stepped(graph, rows, kind, [on("net")], **options)
    with pytest.raises(RuntimeError, match="node 'net': device 'cuda:7'"):
        graph(inputs_of(graph, rows), **options)
    node.freeze()
    with pytest.raises(RuntimeError, match="node 'net': device 'cuda:7'"):
        node.eval_step(ExecutionContext("p", 0, 0, inputs=inputs_of(graph, rows)), **options)
    assert all(np.array_equal(value, node.model.get_weights()[name]) for name, value in before.items())
    assert not Accelerator("cuda:7").is_available()


def test_the_node_says_more_than_the_step(rows):
    _, linear, sgd = framework("keydnn")
    graph = ModelGraph([ModelNode("net", linear(4, 1), rows, accelerator=Accelerator.cpu())], sgd)
    assert stepped(graph, rows, "train", [on("net")], accelerator="cuda:7").losses.to_float() > 0


@pytest.mark.torch
@pytest.mark.parametrize("frameworks", ["graph-wise", "stage-wise"])
def test_model_data_and_what_the_optimizer_learned_move_together(rows, frameworks, monkeypatch):
    """On a device that only has shapes, everything that computes has to be there."""
    _, linear, _ = framework("torch")
    own = [Optimizer("adam", backend="torch") if frameworks == "stage-wise" else None for _ in range(2)]
    a = ModelNode("a", linear(4, 3), rows, own[0])
    b = ModelNode("b", linear(4, 2), rows, own[1])
    both = ConcatNode("both", [a, b], -1, concat_axis_targets="first")
    last = [Optimizer("adam", backend="torch")]
    c = ModelNode("c", linear(5, 1), both, last[0] if frameworks == "stage-wise" else None)
    graph = ModelGraph([a, b, both, c], last[0] if frameworks == "graph-wise" else None)
    stepped(graph, rows, "train", [on("c")])
    monkeypatch.setattr(Accelerator, "torch_device_str", lambda self: "meta")
    monkeypatch.setattr(Accelerator, "require", lambda *args: None)
    for accelerator in ("cuda", None):  # without one, data go where the models were left
        ctx = stepped(graph, rows, "train", [on("c")], accelerator=accelerator)
        assert {batch.outputs.device.type for batch in ctx.outputs.values()} == {"meta"}
        assert next(iter(ctx.losses.values())).trainable.device.type == "meta"
    stepped(graph, rows, "eval", [on("c")])


# -- models


@pytest.mark.parametrize("backend", ["keydnn", TORCH])
@pytest.mark.parametrize("kind", ["layer", "class", "function"])
def test_every_block_has_an_activation_of_its_own(backend, kind):
    nn, _, _ = framework(backend)
    make = __import__(f"keydnn.experiment.models.{backend}", fromlist=["SequentialMLP"]).SequentialMLP
    wanted = {"layer": nn.Tanh(), "class": nn.Tanh, "function": lambda x: x.tanh()}[kind]
    model, twin = (make(input_shape=(3,), output_shape=(2,), n_layers=3, activation=one) for one in (wanted, "tanh"))
    layers = [layer for layer in model.net.modules() if type(layer).__name__ in ("Tanh", "Calling")]
    assert len(layers) == 2 and layers[0] is not layers[1] and wanted not in layers
    twin.set_weights(model.get_weights())
    x = tensor(backend, np.random.default_rng(0).standard_normal((5, 1, 3)).astype("f4"))
    assert np.allclose(model(x).detach().numpy(), twin(x).detach().numpy(), rtol=1e-6)


@pytest.mark.torch
def test_a_trial_leaves_the_generator_alone():
    import torch

    class Noisy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(3, 2).double()

        def forward(self, x):
            return self.inner(x) + torch.randn(1)

    model = wrap_model(Noisy())
    before = torch.get_rng_state()
    model.build((3,))
    assert torch.equal(before, torch.get_rng_state()) and model.output_shape == (2,)


@pytest.mark.torch
def test_two_lazy_models_start_apart():
    import torch

    models = [wrap_model(torch.nn.LazyLinear(3)) for _ in range(2)]
    assert models[0].get_weights() == {}
    for model in models:
        model.build((4,))
    assert not np.array_equal(models[0].get_weights()["weight"], models[1].get_weights()["weight"])


def test_a_model_trained_here_goes_on_there(rows):
    inner = keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.Linear(4, 1))
    graph = ModelGraph([ModelNode("net", inner, rows)], framework("keydnn")[2])
    stepped(graph, rows, "train", [on("net")])
    features = rows.get_features("np").reshape(32, 4)
    history = inner.fit(features, rows.get_targets("np"), loss="mse", optimizer="sgd", epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"][-1])


def test_a_shape_of_its_own_wins_also_when_built_anew(rows):
    own, opened = SequentialMLP(output_shape=(1, 6)), SequentialMLP()
    nodes = [ModelNode("own", own, rows), ModelNode("opened", opened, rows)]
    with pytest.warns(UserWarning, match="connected to no other"):
        graph = ModelGraph(nodes, framework("keydnn")[2])
    for force in (False, True):
        graph.build(force=force)
        assert (own.output_shape, opened.output_shape) == ((1, 6), (1, 1))


def test_estimators_get_targets_only_if_they_learn_from_them(monkeypatch):
    cluster = pytest.importorskip("sklearn.cluster")
    linear = pytest.importorskip("sklearn.linear_model")
    seen = []
    for cls in (cluster.KMeans, linear.Ridge):
        monkeypatch.setattr(cls, "fit", lambda self, X, y=None, fit=cls.fit: (seen.append(y), fit(self, X, y))[1])
    x, y = np.random.default_rng(0).standard_normal((20, 2)), np.arange(20.0)[:, None]
    wrap_model(cluster.KMeans(2, n_init=1)).fit(x, y)
    wrap_model(linear.Ridge()).fit(x, y)
    assert seen[0] is None and seen[1].shape == (20,)


def test_an_estimator_learns_batch_by_batch_beside_a_network(rows):
    linear = pytest.importorskip("sklearn.linear_model")
    _, net, sgd = framework("keydnn")
    a = ModelNode("a", net(4, 3), rows)
    graph = ModelGraph([a, ModelNode("head", net(3, 1), a), ModelNode("tail", linear.SGDRegressor(random_state=0), a)], sgd)
    losses = [on("head"), AppliedLoss(Loss("mse", backend="scikit"), "tail", ["outputs", "targets"])]
    told = [stepped(graph, rows, "train", losses).losses for _ in range(2)]
    assert told[0].where(node="tail").to_float() > told[1].where(node="tail").to_float() > 0
    assert told[0].where(node="tail").trainable > 0 == told[0].where(node="tail").auxiliary


# -- edits


def test_a_merge_node_keeps_two_inputs_and_the_one_it_takes_targets_of(rows):
    _, linear, sgd = framework("keydnn")
    a, b, c = (ModelNode(name, linear(4, 2), rows) for name in "abc")
    both = ConcatNode("both", [a, b, c], -1, concat_axis_targets=b)
    graph = ModelGraph([a, b, c, both], sgd)
    before = graph.summary(), both.get_config()
    b2 = ModelNode("b2", linear(4, 2), rows)
    graph.replace_node("b", b2)
    assert both.target_strategy == b2.reference()  # follows to the node in its place
    graph.replace_node("b2", b)
    with pytest.raises(GraphNodeInputError, match="takes targets or tags of 'b'"):
        both.set_upstream_refs([a, c])
    assert (graph.summary(), both.get_config()) == before and both.target_strategy == b.reference()
    plain = ConcatNode("plain", [a, b], -1)
    graph2 = ModelGraph([a, b, plain], sgd, register=False)
    graph2.remove_node("a")  # its rows go to the merge node
    with pytest.raises(GraphNodeInputError, match="'plain' needs two or more inputs, got 1"):
        graph2.remove_node("b")


def test_a_graph_that_may_not_register_changes_no_node(rows):
    _, linear, sgd = framework("keydnn")
    ModelGraph([ModelNode("first", linear(4, 1), rows)], sgd)
    own = Optimizer("sgd", opt_kwargs={"lr": 0.1})
    node = ModelNode("second", linear(4, 1), rows, own)
    unset = Optimizer("sgd", opt_kwargs={"lr": 0.1})
    with pytest.raises(ValueError, match="is registered"):
        ModelGraph([node], unset)
    assert node.optimizer is own and unset.backend is None


def test_a_graph_looks_feature_sets_up_in_its_own_context(rows):
    _, linear, sgd = framework("keydnn")
    graph = ModelGraph([ModelNode("net", linear(4, 1), rows)], sgd)
    with ExperimentContext().activate():
        graph.build()
        assert stepped(graph, rows, "train", [on(graph.nodes[next(iter(graph.nodes))])]).losses.to_float() > 0


def test_bindings_of_a_node(rows):
    _, linear, _ = framework("keydnn")
    node = ModelNode("net", linear(4, 1), rows)
    training = node.create_input_binding(sampler=SimpleSampler(batch_size=4), split="train")
    assert training.materialize_batches().num_batches == 4 and training.node_id == node.node_id
    evaluation = node.create_input_binding(split="val", upstream=rows)
    assert evaluation.sampler is None and evaluation.resolve_input_view().n_samples == 16
    with pytest.raises(RuntimeError, match="reads no feature set"):
        ModelNode("next", linear(1, 1), node).create_input_binding()
    with pytest.raises(ValueError, match="no split"):
        node.create_input_binding(split="gone")


# -- losses


def test_who_can_have_a_loss(rows):
    _, linear, _ = framework("keydnn")
    nodes = [ModelNode(name, linear(4, 1), rows) for name in "ab"]
    for other in (rows, ConcatNode("both", nodes)):
        with pytest.raises(TypeError, match="on must be a model node"):
            AppliedLoss(Loss(abs), other, ["outputs"])
    with pytest.raises(TypeError, match="expected a ModelNode"):
        AppliedLoss(Loss(abs), "both", ["outputs"])


def test_a_backend_that_nobody_told(rows):
    loss = Loss(abs)
    assert not loss.has_backend
    with pytest.raises(LossError, match="no backend yet"):
        _ = loss.backend
    applied = AppliedLoss(loss, ModelNode("net", framework("keydnn")[1](4, 1), rows), ["outputs"])
    assert applied.backend.value == "keydnn" and not loss.has_backend
    assert loss.build(backend="keydnn").backend.value == "keydnn"


@pytest.mark.parametrize("backend", ["keydnn", TORCH])
def test_a_loss_class_of_a_user_need_not_know_reductions(backend):
    base = framework(backend)[0].Module

    class Distance(base):
        def __init__(self, power=2):
            super().__init__()
            self.power = power

        def forward(self, outputs, targets):
            return abs(outputs - targets) ** self.power

    loss = Loss(Distance, loss_kwargs={"power": 3}, backend=backend).build()
    a, b = (tensor(backend, np.array(values, "f4")) for values in ([1.0, 3.0], [0.0, 1.0]))
    assert loss(a, b).tolist() == [1.0, 8.0]


def test_a_loss_reads_another_node_that_ran(rows):
    _, linear, sgd = framework("keydnn")
    a = ModelNode("a", linear(4, 1), rows)
    graph = ModelGraph([a, ModelNode("b", linear(1, 1), a)], sgd)
    ctx = stepped(graph, rows, "eval", [])
    distance = AppliedLoss(Loss(lambda p, q: (p - q) * (p - q)), "b", ["outputs", "a.outputs"])
    out = {node.label: ctx.outputs[node.node_id].outputs.numpy() for node in graph.nodes.values()}
    assert distance.compute(ctx).item() == pytest.approx(float(np.mean((out["b"] - out["a"]) ** 2)), rel=1e-6)


@pytest.mark.torch
def test_losses_of_several_frameworks_add_up_as_numbers():
    import torch

    records = [LossRecord("x", "a", trainable=torch.tensor(1.5)), LossRecord("x", "b", trainable=keydnn.tensor(2.0))]
    assert LossCollection(records).trainable == 3.5
    assert isinstance(LossCollection(records[:1]).trainable, torch.Tensor)


@pytest.mark.torch
def test_another_framework_gets_memory_of_its_own():
    data = SampleData(features=keydnn.tensor(np.zeros((2, 3), "f4")))
    data.to_format("torch").features.add_(1.0)
    assert not data.features.numpy().any()
