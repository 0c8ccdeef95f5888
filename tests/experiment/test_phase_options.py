"""Options of training phases: what recorded steps hold, the precision of torch, samples with weights."""

import types

import numpy as np
import pytest

import keydnn
from keydnn.experiment import AppliedLoss, FeatureSet, Loss, ModelGraph, ModelNode, Optimizer
from keydnn.experiment.data import SampleData
from keydnn.experiment.execution.phase_running import run_phase
from keydnn.experiment.phases import TrainPhase
from keydnn.experiment.samplers import PairedSampler, SimilarityCondition, SimpleSampler, TripletSampler

BACKENDS = ["keydnn", pytest.param("torch", marks=pytest.mark.torch)]


def lab(graph):
    return types.SimpleNamespace(model_graph=graph)


def layers(backend, *sizes, flatten=True):
    """Linear layers with rectifiers between them."""
    nn = pytest.importorskip("torch").nn if backend == "torch" else keydnn.nn
    found = [nn.Flatten()] if flatten else []
    for i in range(len(sizes) - 1):
        found += [nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU()]
    return (nn.Sequential if backend == "torch" else keydnn.Sequential)(*found[:-1])


def start(node, seed=0):
    """Known weights."""
    rng = np.random.default_rng(seed)
    node.model.set_weights({k: rng.normal(0, 0.5, v.shape).astype(v.dtype) for k, v in node.model.get_weights().items()})


@pytest.fixture
def wide():
    rng = np.random.default_rng(3)
    data = {"x": rng.standard_normal((40, 6)).astype("f4"), "y": rng.standard_normal(40).astype("f4"), "t": list("ab") * 20}
    return FeatureSet.from_dict("wide", data, "x", "y", "t")


def trained(fs, context, backend, steps=None, **options):
    """Weights, results and node after a training; ``steps`` notes how many were made in native calls."""
    context.clear_registries()
    context.register_experiment_node(fs)
    node = ModelNode("net", layers(backend, 6, 5, 1), fs)
    graph = ModelGraph([node], Optimizer("sgd", opt_kwargs={"lr": 0.05}, backend=backend))
    graph.build()
    start(node)
    if steps is not None:
        real = graph.train_steps

        def counted(*args, **kwargs):
            found = real(*args, **kwargs)
            steps.append(0 if found is None else len(found))
            return found

        graph.train_steps = counted
    loss = AppliedLoss(Loss("mse", backend=backend), node, ["outputs", "targets"])
    sampler = SimpleSampler(batch_size=8, shuffle=True, seed=2)
    phase = TrainPhase.from_split("t", split=None, sampler=sampler, losses=[loss], n_epochs=3, **options)
    results = run_phase(phase, experiment=lab(graph))
    return node.model.get_weights(), results, node


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("keep", [("outputs",), ("targets", "tags"), "sample_uuids", ()])
def test_recorded_steps_hold_what_they_are_told_to(wide, context, backend, keep):
    plain, everything, node = trained(wide, context, backend)
    made = []
    weights, results, node = trained(wide, context, backend, made, keep=keep)
    assert all(np.array_equal(weights[k], plain[k]) for k in plain)
    assert results.execution_contexts().keys() == everything.execution_contexts().keys()
    told = {keep} if isinstance(keep, str) else set(keep)
    for domain in ("outputs", "targets", "tags", "sample_uuids"):
        kept = results.tensors(node, domain, fmt="np").to_dict() if domain in told else {}
        for place, value in kept.items():
            assert np.array_equal(value, everything.tensors(node.label, domain, fmt="np").at(epoch=place[0], batch=place[1]))
        batch = results.batches(node).first().role_data["default"]
        held = batch.features if domain == "outputs" else batch.get_domain_data(domain)
        assert (held is not None) is (domain in told), domain
    assert [r.to_float() for r in results.losses(node).values()] == [r.to_float() for r in everything.losses(node.label).values()]
    rows = [list(ctx.input_views.values())[0].rows("default").tolist() for ctx in results.execution_contexts().values()]
    assert rows == [list(ctx.input_views.values())[0].rows("default").tolist() for ctx in everything.execution_contexts().values()]


# -- precision


@pytest.mark.torch
def test_lower_precision_is_that_of_autocast(wide, context):
    torch = pytest.importorskip("torch")
    weights, results, node = trained(wide, context, "torch", precision="bf16", prefetch="all")
    assert {value.dtype for value in weights.values()} == {np.dtype("f4")}
    assert {value.dtype for value in results.tensors(node, "outputs").values()} == {torch.float32}
    single, _, node = trained(wide, context, "torch")
    assert not np.array_equal(weights["1.weight"], single["1.weight"])
    start(node)
    module, optimizer = node.model.module, torch.optim.SGD(node.model.module.parameters(), lr=0.05)
    sampler = SimpleSampler(batch_size=8, shuffle=True, seed=2, source=wide)
    sampler.materialize_batches(show_progress=False)
    rows = [view.rows("default") for view in sampler.get_batches()]
    x, y = (torch.from_numpy(wide.values(name).copy()) for name in ("features.x.raw", "targets.y.raw"))
    for at in rows * 3:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            made = module(x[at.tolist()])
        loss = torch.nn.functional.mse_loss(made.float(), y[at.tolist()][:, None])
        loss.backward()
        optimizer.step()
    for name, value in module.state_dict().items():
        np.testing.assert_allclose(weights[name], value.numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.torch
def test_lower_precision_ends_with_the_step(wide, context):
    torch = pytest.importorskip("torch")
    _, _, node = trained(wide, context, "torch", precision="bf16")
    assert not torch.is_autocast_enabled("cpu")
    x = wide.values("features.x.raw").copy()
    outputs = node.forward_single(SampleData({"features": torch.from_numpy(x)})).features
    assert torch.equal(outputs, node.model.module.float()(torch.from_numpy(x))) and outputs.dtype == torch.float32


# -- weights of samples


def weighted(context, backend, kind):
    """Weights of a linear unit after one epoch over pairs or triplets with weights, recorded results, and what was drawn."""
    context.clear_registries()
    rng = np.random.default_rng(1)
    x = rng.standard_normal((12, 3)).astype("f4")
    fs = FeatureSet.from_dict("rows", {"x": x, "y": np.arange(12.0), "s": np.arange(12) % 3.0}, "x", "y", "s")
    node = ModelNode("net", layers(backend, 3, 1), fs.reference(features="x.raw", targets="y.raw"))
    graph = ModelGraph([node], Optimizer("sgd", opt_kwargs={"lr": 0.05}, backend=backend))
    graph.build()
    start(node)
    near = SimilarityCondition(tolerance=1.0, weight_mode="linear", allow_fallback=True, max_weight=3.0, min_weight=0.2)
    far = SimilarityCondition("dissimilar", tolerance=4.0, weight_mode="linear", allow_fallback=True, max_weight=3.0, min_weight=0.2)
    if kind == "pairs":
        sampler = PairedSampler({"y": near}, max_pairs_per_anchor=3, batch_size=5, seed=4)
        inputs = ["outputs.anchor", "outputs.pair"]
        losses = [AppliedLoss(Loss("mse", backend=backend), node, inputs, weight=2.0)]
    else:
        sampler = TripletSampler({"y": near}, {"y": far}, max_samples_per_anchor=2, batch_size=5, seed=4)
        inputs = ["outputs.anchor", "outputs.positive", "outputs.negative"]
        losses = [AppliedLoss(Loss(triplet, backend=backend), node, inputs)]
    phase = TrainPhase.from_split("t", split=None, sampler=sampler, losses=losses, n_epochs=2)
    results = run_phase(phase, experiment=lab(graph))
    return node.model.get_weights(), results, sampler.get_batches(), x, losses[0].weight


def triplet(anchor, positive, negative):
    """Squared distances, without a margin: a value per row."""
    return (anchor - positive) * (anchor - positive) - (anchor - negative) * (anchor - negative)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["pairs", "triplets"])
def test_weights_of_samples_reach_losses_and_gradients(context, backend, kind):
    weights, results, batches, x, factor = weighted(context, backend, kind)
    rng = np.random.default_rng(0)
    w, b = rng.normal(0, 0.5, (1, 3)).astype("f4").astype(float)[0], float(rng.normal(0, 0.5, 1).astype("f4")[0])
    told = {(e.epoch_idx, e.batch_idx): e.value for e in results.metrics().values()}
    seen = set()
    for epoch in range(2):
        for i, batch in enumerate(batches):
            rows = {role: x[batch.rows(role)].astype(float) for role in batch.roles}
            out = {role: values @ w + b for role, values in rows.items()}
            each = np.mean([batch.role_indice_weights[role] for role in batch.roles], axis=0)
            seen |= set(np.round(each, 4).tolist())
            n, (anchor, *others) = len(batch), list(rows)
            value, slope = 0.0, np.zeros(3)
            for sign, other in zip((1, -1), others, strict=False):
                difference = out[anchor] - out[other]
                value += sign * factor * np.sum(each * difference**2) / n
                slope += sign * factor * np.sum((each * 2 * difference)[:, None] * (rows[anchor] - rows[other]), axis=0) / n
            assert told[epoch, i] == pytest.approx(value, rel=1e-4, abs=1e-6)
            w = w - 0.05 * slope  # the intercepts cancel
    assert len(seen) > 2  # weights differ
    np.testing.assert_allclose(weights[[name for name in weights if name.endswith("weight")][0]].ravel(), w, rtol=1e-4, atol=1e-6)
    kept = results.batches("net").first()
    assert all(np.array_equal(kept.role_weights[role], batches[0].role_indice_weights[role]) for role in batches[0].roles)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["pairs", "triplets"])
def test_weights_of_samples_survive_lazy_batches(context, backend, kind, monkeypatch):
    first = weighted(context, backend, kind)[0]
    monkeypatch.setattr("keydnn.experiment.phases.feeding.TrainFeeding._is_large", lambda self, where: True)
    monkeypatch.setattr("keydnn.experiment.phases.feeding._WINDOW_BYTES", 300)
    again = weighted(context, backend, kind)[0]
    assert all(np.array_equal(first[name], again[name]) for name in first)


@pytest.mark.torch
@pytest.mark.parametrize("name", ["mse", "l1", "smoothl1", "huber"])
@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_a_mean_in_one_step_is_the_mean_of_the_values(name, factor):
    torch = pytest.importorskip("torch")
    loss = Loss(name, backend="torch").build()
    x = torch.linspace(-3, 3, 12).reshape(6, 2).requires_grad_(True)
    y = torch.sin(torch.arange(12.0)).reshape(6, 2)
    at_once, values = loss.mean(x, y), loss(x, y)
    assert values.shape == (6, 2) and torch.equal(at_once, values.mean())
    (a,), (b,) = torch.autograd.grad(at_once * factor, x), torch.autograd.grad(values.mean() * factor, x)
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.torch
def test_other_losses_have_no_mean_in_one_step():
    torch = pytest.importorskip("torch")
    for other in (
        Loss("mse", backend="torch", reduction="sum"),
        Loss("crossentropy", backend="torch"),
        Loss(lambda outputs, targets: (outputs - targets) ** 2, backend="torch"),
        Loss("mse", backend="keydnn"),
    ):
        assert other.build().mean(torch.ones(2), torch.ones(2)) is None
