"""Many steps in one native call where that is not plain: merge nodes, several samplers, batches made lazily in windows, mapped files."""

import types
import warnings

import numpy as np
import pytest

import keydnn
from keydnn.experiment import AppliedLoss, FeatureSet, InputBinding, Loss, ModelGraph, ModelNode, Optimizer
from keydnn.experiment.execution.phase_running import run_phase
from keydnn.experiment.graph import AddNode, ConcatNode
from keydnn.experiment.phases import TrainPhase, feeding
from keydnn.experiment.samplers import SimpleSampler
from tests.native.common import needs_native

pytestmark = needs_native


def linear(n_in, n_out, flat=False):
    return keydnn.Sequential(*[keydnn.nn.Flatten()] * flat, keydnn.nn.Linear(n_in, n_out))


def rows(label, n, n_in, seed=0):
    rng = np.random.default_rng(seed)
    data = {"x": rng.standard_normal((n, n_in)).astype("f4"), "y": rng.standard_normal(n).astype("f4"), "t": list("abcd") * (n // 4)}
    return FeatureSet.from_dict(label, data, "x", "y", "t")


def mse(node):
    return AppliedLoss(Loss("mse", backend="keydnn"), node, ["outputs", "targets"], label=f"of {node.label}")


def ready(nodes):
    """A graph over nodes, with known weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = ModelGraph(nodes, Optimizer("adam", opt_kwargs={"lr": 0.01}, backend="keydnn"))
    graph.build()
    for node in nodes:
        if isinstance(node, ModelNode):
            start = np.random.default_rng(1)
            node.model.set_weights({k: start.normal(0, 0.5, v.shape).astype(v.dtype) for k, v in node.model.get_weights().items()})
    return graph


def told(results, nodes):
    """All that is recorded, as bytes."""
    tensors = {
        (node.label, domain): {place: np.asarray(value).tobytes() for place, value in results.tensors(node, domain, fmt="np").items()}
        for node in nodes
        for domain in ("outputs", "targets", "tags")
    }
    losses = {node.label: [record.to_float() for record in results.losses(node).values()] for node in nodes}
    metrics = [(e.epoch_idx, e.batch_idx, e.value) for e in results.metrics().values()]
    weights = {node.label: [v.tobytes() for v in node.model.get_weights().values()] for node in nodes if isinstance(node, ModelNode)}
    views = [[v.rows("default").tolist() for v in ctx.input_views.values()] for ctx in results.execution_contexts().values()]
    return tensors, losses, metrics, weights, views


def both_ways(context, monkeypatch, make, fraction=0.5):
    """What is recorded of a phase step by step and by native calls; ``make`` gives nodes, graph and phase."""
    found = []
    for forbid in (True, False):
        context.clear_registries()
        nodes, graph, phase = make()
        real, made = graph.train_steps, []

        def counted(*args, real=real, made=made, forbid=forbid, **kwargs):
            steps = None if forbid else real(*args, **kwargs)
            made.append(0 if steps is None else len(steps))
            return steps

        with monkeypatch.context() as patch:
            patch.setattr(graph, "train_steps", counted, raising=True)
            results = run_phase(phase, experiment=types.SimpleNamespace(model_graph=graph))
        found.append(told(results, nodes))
        assert forbid or sum(made) >= fraction * len(results.metrics().where(name="train_loss"))
    return found


@pytest.mark.filterwarnings("ignore:node 'm'. its inputs have the same targets")
@pytest.mark.parametrize("keep", [None, ("outputs",)])
@pytest.mark.parametrize("kind", ["add", "concat"])
def test_merge_nodes_are_recorded_bit_for_bit(context, monkeypatch, kind, keep):
    def make():
        fs = rows("rows", 40, 6)
        a, b = ModelNode("a", linear(6, 3, flat=True), fs), ModelNode("b", linear(6, 3, flat=True), fs)
        merged = AddNode("m", [a, b]) if kind == "add" else ConcatNode("m", [a, b], -1)
        head = ModelNode("head", linear(3 if kind == "add" else 6, 2 if kind == "concat" else 1), merged)
        nodes = [a, b, merged, head]
        sampler = SimpleSampler(batch_size=8, shuffle=True, seed=4)
        losses = [AppliedLoss(Loss("mse", backend="keydnn"), head, ["outputs", "targets"]), mse(a)] if kind == "concat" else [mse(head)]
        graph = ready(nodes)
        return nodes, graph, TrainPhase.from_split("t", split=None, sampler=sampler, losses=losses, n_epochs=4, keep=keep)

    plain, native = both_ways(context, monkeypatch, make)
    assert plain == native
    assert keep is not None or plain[0]["m", "targets"]


@pytest.mark.parametrize("schedule", ["zip_strict", "zip_cycle"])
@pytest.mark.parametrize("prefetch", ["all", "lazy"])
def test_several_samplers_are_native_where_their_batches_follow_each_other(context, monkeypatch, schedule, prefetch):
    monkeypatch.setattr(feeding, "_WINDOW_BYTES", 1000)

    def make():
        one, two = rows("one", 80, 4), rows("two", 48, 3, seed=1)
        a, b = ModelNode("a", linear(4, 1, flat=True), one), ModelNode("b", linear(3, 1, flat=True), two)
        graph = ready([a, b])
        sources = [
            InputBinding.for_training(node=node, sampler=SimpleSampler(batch_size=8, seed=seed), upstream=fs)
            for node, fs, seed in ((a, one, 1), (b, two, 2))
        ]
        options = {"batch_schedule": schedule, "prefetch": prefetch, "n_epochs": 3}
        return [a, b], graph, TrainPhase("t", input_sources=sources, losses=[mse(a), mse(b)], **options)

    plain, native = both_ways(context, monkeypatch, make)
    assert plain == native and len(plain[4]) == 3 * (6 if schedule == "zip_strict" else 10)


@pytest.mark.parametrize("recording", ["all", "none"])
@pytest.mark.parametrize("window", [200, 500, 1 << 20])
def test_batches_of_a_mapped_file_are_native_window_by_window(context, monkeypatch, tmp_path, window, recording):
    pa = pytest.importorskip("pyarrow")
    names = ["features.x.raw", "features.z.raw", "targets.y.raw"]
    monkeypatch.setattr(feeding, "_WINDOW_BYTES", window)
    rng = np.random.default_rng(0)
    table = pa.table({name: rng.standard_normal(70).astype("f4") for name in names})
    with pa.OSFile(str(tmp_path / "rows.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    made_windows = []
    real = feeding._Window

    def make():
        fs = FeatureSet.from_arrow_file("mapped", tmp_path / "rows.arrow")
        assert fs.collection.is_mapped
        node = ModelNode("net", linear(2, 1, flat=True), fs)
        sampler = SimpleSampler(batch_size=8, shuffle=True, seed=4)
        options = {"n_epochs": 4, "result_recording": recording}
        return [node], ready([node]), TrainPhase.from_split("t", split=None, sampler=sampler, losses=[mse(node)], **options)

    monkeypatch.setattr(feeding, "_Window", lambda *args: made_windows.append(args[0]) or real(*args))
    plain, native = both_ways(context, monkeypatch, make, fraction=0.4)
    assert plain == native and made_windows[0] == 0
    assert (len(made_windows) > 2 * 4) is (window < 1 << 20)


def test_a_failed_step_leaves_no_thread_at_work(context, monkeypatch):
    monkeypatch.setattr(feeding, "_WINDOW_BYTES", 1)
    fs = rows("rows", 40, 6)
    node = ModelNode("net", linear(6, 1, flat=True), fs)
    graph = ready([node])
    phase = TrainPhase.from_split("t", split=None, sampler=SimpleSampler(batch_size=4), losses=[mse(node)], prefetch="lazy")
    steps = feeding.TrainFeeding(phase, graph).epoch(0)
    assert len(steps) == 10 and [view.rows("default").tolist() for view in steps[7][1].values()] == [[28, 29, 30, 31]]
    with pytest.raises(IndexError):
        steps[10]
    assert [list(views.values())[0].rows("default")[0] for _, views in steps] == list(range(0, 40, 4))
