"""Results of phases from contexts made by hand: recording, queries, losses, metrics, groups, runs."""

import gc
import tracemalloc
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keydnn
from keydnn.experiment import Backend, Batch, FeatureSet, ModelGraph, ModelNode, Optimizer, SampleData
from keydnn.experiment.backends.tensors import to_backend, to_numpy
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import BatchView, ExecutionContext
from keydnn.experiment.graph import ConcatNode
from keydnn.experiment.phases import ResultRecording
from keydnn.experiment.phases.recording import LARGE_BYTES, recorded_bytes, warn_if_large
from keydnn.experiment.results import (
    AxisSeries,
    ContextStore,
    EpochSteps,
    EvalResults,
    ExperimentRun,
    FitResults,
    Frame,
    LossSeries,
    MetricEntry,
    MetricStore,
    PhaseExecutionMeta,
    PhaseGroupExecutionMeta,
    PhaseGroupResults,
    PhaseResults,
    TensorSeries,
    TrainResults,
)
from keydnn.experiment.results.stores import ArtifactEntry, ArtifactStore
from keydnn.experiment.samplers import PairedSampler, SimilarityCondition
from keydnn.experiment.training import LossCollection, LossRecord

FRAMEWORKS = ["numpy", "keydnn", pytest.param("torch", marks=pytest.mark.torch)]
COLUMNS = ["features.a.raw", "features.b.raw", "targets.y.raw", "tags.t.raw"]


def step(node, view, batch, outputs, epoch=0, index=0, loss=None, phase="train", kind="trainable"):
    """A context in which a head node read a batch and produced outputs."""
    samples = {"default": batch.role_data["default"].with_domains({"features": outputs}, kind="output")}
    made = Batch(batch.batch_size, samples, None, dict(batch.role_weights), dict(batch.role_masks))
    key = (node.node_id, node.upstream_ref)
    losses = None if loss is None else LossCollection([LossRecord("mse", node.node_id, **{kind: loss})])
    return ExecutionContext(phase, epoch, index, {key: batch}, {key: view}, {node.node_id: made}, losses)


@pytest.fixture
def net(ten):
    return ModelNode("net", keydnn.Sequential(keydnn.Dense(1)), ten.reference(features="*.raw", targets="y.raw", tags="t.raw"))


@pytest.fixture
def views(ten):
    return [BatchView(ten, {"default": np.array(rows)}) for rows in ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9])]


def recorded(net, views, framework="numpy", epochs=2, results=None, **start):
    """Results of two epochs of three batches; output of a row r in epoch e: 100 e + r.  Returns them and the batches."""
    results = TrainResults("train") if results is None else results
    batches = [view.materialize_batch(framework, columns=COLUMNS) for view in views]
    if start:
        results.start_recording(**start)
    for epoch in range(epochs):
        results.start_epoch(epoch)
        for index, (view, batch) in enumerate(zip(views, batches, strict=True)):
            values = (100.0 * epoch + view.role_indices["default"]).astype("f4")[:, None]
            outputs = to_backend(values, _backend(framework))
            loss = to_backend(np.array(epoch + 0.5 * index, "f4"), _backend(framework))
            results.add_execution_context(step(net, view, batch, outputs, epoch, index, loss))
            results.metric_store.log(name="train_loss", value=loss, epoch_idx=epoch, batch_idx=index)
        results.metric_store.log(name="train_loss", value=epoch + 0.5, epoch_idx=epoch)
    return results, batches


def _backend(framework):
    return Backend.from_value(framework)


def numbers(tensor):
    return to_numpy(tensor).reshape(-1).tolist()


# -- recording ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_steps_come_back_as_they_were(framework, finished, net, views, ten):
    results, batches = recorded(net, views, framework)
    if finished:
        results.finish()
    series = results.execution_contexts()
    assert series.axes == ("epoch", "batch") and series.shape == {"epoch": 2, "batch": 3}
    for (epoch, index), ctx in series.items():
        assert (ctx.phase_label, ctx.epoch_idx, ctx.batch_idx) == ("train", epoch, index)
        assert ctx.inputs == {} and list(ctx.input_views.values()) == [views[index]]
        out = ctx.outputs[net.node_id]
        assert type(out.outputs) is type(batches[index].features) and out.batch_size == len(views[index])
        assert numbers(out.outputs) == [100.0 * epoch + r for r in views[index].role_indices["default"]]
        assert out.targets is batches[index].targets and out.tags is batches[index].tags  # views, not copies
        assert out.sample_uuids.tolist() == ten.take(views[index].role_indices["default"]).get_sample_uuids().tolist()
        assert out.role_weights["default"] is batches[index].role_weights["default"]
        assert ctx.losses.at(node=net, label="mse").trainable == pytest.approx(epoch + 0.5 * index)
    assert batches[0].role_data["default"].parts["sample_uuids"]._value is None  # ids were not kept


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_outputs_are_copies_without_history(framework, net, views):
    results = PhaseResults("p")
    batch = views[0].materialize_batch(framework, columns=COLUMNS)
    if framework == "torch":
        import torch

        outputs = torch.ones(4, 1, requires_grad=True) * 2
    else:
        outputs = to_backend(np.full((4, 1), 2.0, "f4"), _backend(framework))
    results.add_execution_context(step(net, views[0], batch, outputs))
    if framework == "torch":
        outputs.data.zero_()
    elif framework == "numpy":
        outputs[:] = 0
    else:
        outputs.copy_from_numpy(np.zeros((4, 1), "f4"))
    for _ in range(2):
        kept = results.tensors(net, "outputs").one()
        assert numbers(kept) == [2.0] * 4 and not getattr(kept, "requires_grad", False)
        results.finish()


def test_frames_are_shared_by_all_epochs_and_ids_are_rows(net, views):
    results, _ = recorded(net, views, epochs=4)
    results.finish()
    first, *others = results.context_store._segments
    assert len({id(one._frames) for one in others}) == 1
    assert [first.frame(i) for i in range(3)] == [others[0].frame(i) for i in range(3)]


def test_a_batch_is_recorded_once(net, views):
    results, batches = recorded(net, views, epochs=1)
    ctx = step(net, views[0], batches[0], np.ones((4, 1)), 0, 1)
    for _ in range(2):
        with pytest.raises(ValueError, match="batch 1 of epoch 0 is recorded already"):
            results.add_execution_context(ctx)
        results.finish()
    assert len(results.execution_contexts()) == 3
    with pytest.raises(TypeError, match="ExecutionContext"):
        results.add_execution_context({"epoch": 0})


def test_steps_may_come_in_any_order_of_epochs(net, views):
    results, batches = recorded(net, views, epochs=2)
    results.add_execution_context(step(net, views[0], batches[0], np.ones((4, 1)), 0, 7))
    assert results.execution_contexts().where(epoch=0).axis_values("batch") == [0, 1, 2, 7]
    assert results.epoch_indices == [0, 1] and results.n_epochs == 2


def test_outputs_that_do_not_fit_together_stay_apart(net, views):
    results = TrainResults("t")
    for i, (view, width) in enumerate(zip(views, (1, 2, 1), strict=True)):
        batch = view.materialize_batch(columns=COLUMNS)
        results.add_execution_context(step(net, view, batch, np.full((batch.batch_size, width), i), index=i))
    results.finish()
    assert [value.shape for value in results.tensors("net", "outputs").values()] == [(4, 1), (4, 2), (2, 1)]


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),  # epoch
        st.integers(0, 3),  # batch
        st.dictionaries(
            st.sampled_from(["u", "v"]), st.tuples(st.integers(1, 3), st.sampled_from(["f4", "f8"])), max_size=2
        ),  # width, dtype
        st.dictionaries(st.sampled_from(["u", "v"]), st.sampled_from(["trainable", "auxiliary", "both"]), max_size=2),  # losses
    ),
    max_size=8,
    unique_by=lambda told: told[:2],
)


@settings(max_examples=50)
@given(STEPS, st.booleans())
def test_whatever_ran_comes_back(steps, finished):
    results, expected = PhaseResults("p"), {}
    for i, (epoch, batch, nodes, losses) in enumerate(steps):
        outputs = {n: np.full((1 + batch, width), i, dtype) for n, (width, dtype) in nodes.items()}
        made = {
            n: Batch(1 + batch, {"r": SampleData(features=a, kind="output")}, None, *({"r": np.ones(1 + batch)},) * 2)
            for n, a in outputs.items()
        }
        values = {n: dict.fromkeys(("trainable", "auxiliary") if kind == "both" else (kind,), i + 0.5) for n, kind in losses.items()}
        records = LossCollection([LossRecord("l", n, **told) for n, told in values.items()])
        results.add_execution_context(ExecutionContext("p", epoch, batch, outputs=made, losses=records))
        expected[epoch, batch] = (outputs, values)
    if finished:
        results.finish()
    assert results.execution_contexts().keys() == list(expected)
    for key, ctx in results.execution_contexts().items():
        outputs, values = expected[key]
        assert {n: (b.outputs.tolist(), b.outputs.dtype) for n, b in ctx.outputs.items()} == {
            n: (a.tolist(), a.dtype) for n, a in outputs.items()
        }
        found = (
            {}
            if ctx.losses is None
            else {r.node_id: {k: v for k, v in r.as_dict().items() if k in values[r.node_id]} for r in ctx.losses.values()}
        )
        assert found == values
    for node in "uv":
        if any(node in outputs for outputs, _ in expected.values()):
            assert results.tensors(node, "outputs", role="r").keys() == [key for key, (outputs, _) in expected.items() if node in outputs]


@pytest.mark.parametrize(
    ("mode", "best", "kept"), [("all", None, [0, 1, 2]), ("last", None, [2]), ("last", 1, [1]), ("LAST", 9, [2]), ("none", 1, [])]
)
def test_recording_modes(mode, best, kept, net, views):
    results = TrainResults("train")
    results.start_recording(mode)
    for epoch in range(3):
        results.start_epoch(epoch)
        for index, view in enumerate(views):
            batch = view.materialize_batch(columns=COLUMNS)
            results.add_execution_context(step(net, view, batch, np.ones((batch.batch_size, 1)), epoch, index))
        if mode.lower() == "last":
            assert len(results.execution_contexts().where(epoch=epoch)) == 3
        if epoch == best:
            results.keep_epoch(epoch)
        results.metric_store.log(name="train_loss", value=1.0, epoch_idx=epoch)
    results.finish()
    assert results.epoch_indices == kept and len(results.history) == 3 and results.records_steps is (mode != "none")


def test_a_mode_cannot_change_between_steps(net, views):
    results, _ = recorded(net, views)
    results.start_recording("all")
    assert results.n_epochs == 2
    with pytest.raises(ValueError, match="recorded as 'all'"):
        results.start_recording("last")


def test_only_some_domains_are_kept(net, views):
    results, _ = recorded(net, views, recording="all", keep=("targets", "sample_uuids"))
    results.finish()
    assert len(results.tensors(net, "outputs")) == len(results.tensors(net, "tags")) == 0
    assert len(results.tensors(net, "targets")) == len(results.tensors(net, "sample_uuids")) == 6
    assert results.batches(net).first().batch_size == 4 and len(results.losses(net)) == 6
    with pytest.raises(ValueError, match="features"):
        results.start_recording(keep="features")


def test_recording_from_value():
    assert [ResultRecording.from_value(v) for v in ("all", " Last ", ResultRecording.NONE)] == list(ResultRecording)
    for bad in ("some", 3, None):
        with pytest.raises(ValueError, match="expected one of all, last, none"):
            ResultRecording.from_value(bad)


def test_large_recordings_are_told_once(recwarn):
    size = {"n_epochs": 10, "n_samples": 2**20, "bytes_per_sample": 104}
    assert recorded_bytes(ResultRecording.ALL, **size) == 10 * 104 * 2**20 > LARGE_BYTES
    with pytest.warns(UserWarning, match=r"about 1,040 MiB; set result_recording='last' or 'none'"):
        assert warn_if_large(ResultRecording.ALL, **size) == 10 * 104 * 2**20
    assert warn_if_large(ResultRecording.LAST, **size) == 104 * 2**20 and warn_if_large(ResultRecording.NONE, **size) == 0
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"1 epochs .* 1,040 MiB; set result_recording='none'"):
        warn_if_large(ResultRecording.LAST, **(size | {"bytes_per_sample": 1040}))


@pytest.mark.slow
def test_ten_epochs_of_45000_samples_take_less_than_10_mib():
    """Everything that the results keep alive, apart from the feature set: outputs, targets, tags, rows, weights, losses, metrics."""
    n, batch_size = 45_000, 100
    data = {"x": np.ones((n, 10), "f4"), "y": np.arange(n, dtype="f4"), "t": np.arange(n)}
    fs = FeatureSet.from_dict("large", data, "x", "y", "t")
    node = ModelNode("net", keydnn.Sequential(keydnn.Dense(1)), fs.reference(features="x.raw", targets="y.raw", tags="t.raw"))
    rows = np.random.default_rng(0).permutation(n)
    BatchView(fs, {"default": rows[:2]}).materialize_batch()  # what the set itself keeps
    gc.collect()
    tracemalloc.start()
    try:
        views = [BatchView(fs, {"default": rows[i : i + batch_size]}) for i in range(0, n, batch_size)]
        batches = [view.materialize_batch(columns=["features.x.raw", "targets.y.raw", "tags.t.raw"]) for view in views]
        results = TrainResults("train")
        for epoch in range(10):
            results.start_epoch(epoch)
            for i, (view, batch) in enumerate(zip(views, batches, strict=True)):
                outputs = np.full((batch.batch_size, 1), epoch, "f4")
                results.add_execution_context(step(node, view, batch, outputs, epoch, i, float(i)))
                results.metric_store.log(name="train_loss", value=float(i), epoch_idx=epoch, batch_idx=i)
        results.finish()
        del views, batches, view, batch, outputs
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 10 * n * 4 < taken <= 10 * 2**20
    assert results.tensors("net", "outputs").where(epoch=9).collapse("batch", "concat").one().sum() == 9 * n
    assert len(results.tensors("net", "sample_uuids").first()) == batch_size


def test_a_graph_that_leaves_much_is_told_before_the_first_step(net):
    graph = ModelGraph([net], Optimizer("sgd", backend="keydnn"))
    graph.build()
    large = {"graph": graph, "n_epochs": 2**10, "n_samples": 2**20}
    with pytest.warns(UserWarning, match="4,096 MiB"):
        PhaseResults("p").start_recording(active_nodes=[net.node_id], **large)
    for quiet in ({"recording": "last"}, {"recording": "none"}, {"keep": "targets"}, {"n_epochs": 1}):
        PhaseResults("p").start_recording(**(large | quiet))


@pytest.mark.filterwarnings("ignore:node 'both'. its inputs have the same targets")
def test_frames_are_shared_where_a_merge_makes_targets_anew(ten, views):
    """Targets and tags of a merge node are new tensors in every step; those of an epoch before are held for all."""
    heads = [
        ModelNode(label, keydnn.Sequential(keydnn.Dense(1)), ten.reference(features="*.raw", targets="y.raw", tags="t.raw"))
        for label in "uv"
    ]
    both = ConcatNode("both", heads, concat_axis=-1)
    graph = ModelGraph([*heads, both], Optimizer("sgd", backend="keydnn"))
    batches = [view.materialize_batch("keydnn", columns=COLUMNS) for view in views]
    results = TrainResults("t")
    for epoch in range(3):
        for i, (view, batch) in enumerate(zip(views, batches, strict=True)):
            keys = [(head.node_id, head.upstream_ref) for head in heads]
            ctx = ExecutionContext("t", epoch, i, dict.fromkeys(keys, batch), dict.fromkeys(keys, view))
            graph.eval_step(ctx, [])
            results.add_execution_context(ctx)
    results.finish()
    assert len({id(place.frame) for place in results.context_store.places()}) == 3
    assert results.tensors("both", "targets", fmt="np").at(epoch=2, batch=2).tolist() == [[16.0, 16.0], [18.0, 18.0]]
    kept = [value for place in results.context_store.places() for role in place.frame.node(both.node_id).roles for _, value in role.domains]
    assert all(getattr(value, "_value", None) is None for value in kept)  # ids that the merge compared are not kept


@pytest.mark.parametrize("changed", ["targets", "tags"])
def test_batches_with_other_samples_have_frames_of_their_own(changed, net, views):
    results = TrainResults("t")
    for epoch in range(2):
        batch = views[0].materialize_batch(columns=COLUMNS)
        samples = batch.role_data["default"]
        if epoch:
            other = samples.get_domain_data(changed)[::-1]
            batch = Batch(4, {"default": samples.with_domains({changed: other})}, None, dict(batch.role_weights), dict(batch.role_masks))
        results.add_execution_context(step(net, views[0], batch, np.ones((4, 1)), epoch))
    first, second = results.tensors(net, changed).values()
    assert first.tolist() == second.tolist()[::-1] != second.tolist()


# -- steps that ran in one call -----------------------------------------------------------------------------------------


def test_epochs_in_one_piece(net, views, ten):
    batches = [view.materialize_batch("keydnn", columns=COLUMNS) for view in views]
    key = (net.node_id, net.upstream_ref)
    frames = [Frame.of_inputs([net], {key: batch}, {key: view}) for view, batch in zip(views, batches, strict=True)]
    results = TrainResults("train")
    for epoch in range(2):
        results.start_epoch(epoch)
        losses = np.array([[epoch + 1.0], [epoch + 2.0], [epoch + 3.0]], "f4")
        full = EpochSteps("train", epoch, frames[:2], losses[:2], [(net.node_id, "mse")], {(net.node_id, "default"): np.ones((2, 4, 1))})
        rest = EpochSteps(
            "train", epoch, frames[2:], losses[2:], [(net.node_id, "mse")], {(net.node_id, "default"): np.zeros((1, 2, 1))}, first_batch=2
        )
        results.add_steps(full)
        results.add_steps(rest)
        results.metric_store.log_steps(name="train_loss", values=losses[:, 0], epoch_idx=epoch)
        with pytest.raises(ValueError, match=r"batches \[2\] of epoch"):
            results.add_steps(rest)
    results.finish()
    ctx = results.execution_contexts().at(epoch=1, batch=2)
    assert ctx.outputs[net.node_id].outputs.tolist() == [[0.0], [0.0]] and ctx.losses.to_float() == 4.0
    assert ctx.outputs[net.node_id].targets is batches[2].targets and ctx.input_views == {key: views[2]}
    assert results.losses("net").collapse("batch", "sum").map(LossRecord.to_float).to_dict() == {(0, "mse"): 6.0, (1, "mse"): 9.0}
    assert results.metric_store.of_epoch("train_loss", 1) == [MetricEntry("train_loss", i + 2.0, 1, i) for i in range(3)]
    assert results.source_view("net", epoch=0, batch=1).valid_indices.tolist() == [4, 5, 6, 7]
    with pytest.raises(ValueError, match="batch 1 of epoch 1"):
        results.add_execution_context(step(net, views[1], batches[1], np.ones((4, 1)), 1, 1))
    results.add_execution_context(step(net, views[0], batches[0], np.ones((4, 1)), 2, 1))
    with pytest.raises(ValueError, match=r"batches \[1\] of epoch 2"):
        results.add_steps(EpochSteps("train", 2, frames[:2], losses[:2], [(net.node_id, "mse")]))
    some = TrainResults("some")
    some.start_recording(keep=["targets"])
    some.add_steps(full)
    assert len(some.tensors(net.node_id, "outputs")) == 0 and len(some.tensors(net.node_id, "targets")) == 2
    results.context_store.recording = ResultRecording.NONE
    results.add_steps(full)
    assert len(results.execution_contexts()) == 7


def test_sizes_of_pieces_are_checked(net, views):
    frames = [Frame({}, []) for _ in views]
    for wrong in ({"losses": np.ones((2, 1))}, {"outputs": {("n", "default"): np.ones((2, 1))}}, {"kind": "other"}):
        with pytest.raises(ValueError, match="shape|steps|kind"):
            EpochSteps(
                **({"phase_label": "p", "epoch_idx": 0, "frames": frames, "losses": np.ones((3, 1)), "loss_keys": [("n", "l")]} | wrong)
            )


def test_frames_of_inputs_follow_chains_and_merges(ten, net, views):
    tail = ModelNode("tail", keydnn.Sequential(keydnn.Dense(1)), net)
    merge = ConcatNode("both", [net, tail], concat_axis_targets="first", concat_axis_tags=-1)
    key, batch = (net.node_id, net.upstream_ref), views[0].materialize_batch(columns=COLUMNS)
    frame = Frame.of_inputs([net, tail], {key: batch}, {key: views[0]})
    assert frame.node(tail.node_id).batch({}).targets is batch.targets and frame.node("other") is None
    assert frame.node(tail.node_id).batch({}).role_data["default"].kind == "output"
    merged = Frame.of_inputs([net, tail, merge], {key: batch}, {key: views[0]}).node(merge.node_id).batch({}).role_data["default"]
    assert merged.targets is batch.targets and merged.kind == "output"
    assert merged.tags.tolist() == np.concatenate([batch.tags, batch.tags], axis=-1).tolist()
    assert merged.sample_uuids.tolist() == batch.sample_uuids.tolist()


# -- queries ------------------------------------------------------------------------------------------------------------


def test_series_of_a_node(net, views, ten):
    results, batches = recorded(net, views)
    for node in (net, net.node_id, "net"):
        assert results.batches(node).axes == ("epoch", "batch")
        assert numbers(results.tensors(node, "outputs").at(epoch=1, batch=2)) == [108.0, 109.0]
    assert results.tensors("net", "targets").where(epoch=0).collapse("batch", "concat").one().reshape(-1).tolist() == list(range(0, 20, 2))
    assert results.tensors("net", "tags").first().reshape(-1).tolist() == ["x", "y", "x", "y"]
    assert (
        results.tensors("net", "sample_uuids").where(epoch=1).collapse("batch", "concat").one().tolist() == ten.get_sample_uuids().tolist()
    )
    converted = results.batches(net).to_format("keydnn").where(epoch=1)
    assert isinstance(converted.first().outputs, keydnn.Tensor) and type(converted).__name__ == "BatchSeries"
    assert isinstance(results.tensors(net, "outputs", fmt="kd").first(), keydnn.Tensor)
    with pytest.raises(ValueError, match="concat"):
        results.batches(net).collapse("batch", "concat")
    with pytest.raises(ValueError, match="mean"):
        results.tensors(net, "outputs").collapse("batch", "mean")
    with pytest.raises(ValueError, match="not tensor-like"):
        results.batches(net).to_format("pandas")


@pytest.mark.parametrize(
    ("ask", "error", "told"),
    [
        (lambda r: r.tensors("net", "features"), KeyError, "outputs, targets, tags, sample_uuids"),
        (lambda r: r.tensors("net", "outputs", role="anchor"), KeyError, "there are default"),
        (lambda r: r.tensors("net", "outputs", fmt="pandas"), ValueError, "tensor-like"),
        (lambda r: r.tensors("other", "outputs"), KeyError, "know 'net'"),
        (lambda r: r.losses("other"), KeyError, "'other'"),
        (lambda r: r.batches(3), TypeError, "got int"),
        (lambda r: r.source_view("net", role="anchor"), KeyError, "there are default"),
        (lambda r: r.source_view("net", epoch=8), ValueError, "there are: none"),
        (lambda r: r.epoch_losses("net", "median"), ValueError, "median"),
        (lambda r: r.add_callback_result(3), TypeError, "callback_label"),
    ],
)
def test_errors_of_queries(ask, error, told, net, views):
    results, _ = recorded(net, views)
    with pytest.raises(error, match=told):
        ask(results)


def test_nodes_that_did_not_run_are_absent(net, views, ten):
    other = ModelNode("other", keydnn.Sequential(keydnn.Dense(1)), ten.reference(features="*.raw", targets="y.raw"))
    results, batches = recorded(net, views, epochs=1)
    results.add_execution_context(step(other, views[0], batches[0], np.ones((4, 1)), 0, 3, 9.0))
    assert results.batches("other").keys() == [(0, 3)] and results.batches("net").keys() == [(0, 0), (0, 1), (0, 2)]
    assert [label for _, _, label in results.losses(other)] == ["mse"] and len(results.losses(net)) == 3
    never = ModelNode("never", keydnn.Sequential(keydnn.Dense(1)), ten)
    for node in (never, "never"):
        assert len(results.batches(node)) == len(results.tensors(node, "targets")) == len(results.losses(node)) == 0
        assert results.source_views(node) == {}


def test_results_need_no_context(net, views):
    results, _ = recorded(net, views)
    for ctx in (ExperimentContext(), None):
        with ExperimentContext().activate():
            ExperimentContext.set_active(ctx)
            assert results.tensors("net", "outputs", unscale=True).shape == {"epoch": 2, "batch": 3}
            assert len(results.losses("net")) == 6 and results.source_view("net").label == "ten"
            with pytest.raises(KeyError):
                results.batches("gone")
    with ExperimentContext().activate():
        ExperimentContext.set_active(None)
        fresh = PhaseResults("p")
        fresh.add_execution_context(step(net, views[0], views[0].materialize_batch(columns=COLUMNS), np.ones((4, 1))))
        assert len(fresh.batches(net.node_id)) == 1
    ExperimentContext.set_active(ExperimentContext())


def test_rows_that_were_used(net, views, ten):
    results, _ = recorded(net, views)
    view = results.source_view("net")
    assert view.source is ten and view.valid_indices.tolist() == list(range(10)) and "tags.t.raw" in view.get_all_keys()
    assert results.source_views(net, epoch=1, batch=2)["ten"].valid_indices.tolist() == [8, 9]


def test_rows_of_roles_without_padding(ten):
    node = ModelNode("enc", keydnn.Sequential(keydnn.Dense(1)), ten.reference(features="*.raw", targets="y.raw"))
    sampler = PairedSampler({"b": SimilarityCondition(tolerance=1)}, max_pairs_per_anchor=1, batch_size=4, source=ten, seed=0)
    view = sampler.get_batches()[0]
    view = BatchView(ten, {"anchor": view.role_indices["anchor"], "pair": np.array([1, -1, 1, 3])})
    batch = view.materialize_batch(columns=COLUMNS[:3])
    samples = {role: SampleData(features=np.full((4, 1), i), kind="output") for i, role in enumerate(batch.role_data)}
    key = (node.node_id, node.upstream_ref)
    out = Batch(4, samples, None, dict(batch.role_weights), dict(batch.role_masks))
    results = EvalResults("e")
    results.add_execution_context(ExecutionContext("e", 0, 0, {key: batch}, {key: view}, {node.node_id: out}))
    results.finish()
    assert results.source_view("enc", role="pair").valid_indices.tolist() == [1, 3]
    assert results.stacked_tensors("enc", "outputs", role="pair").tolist() == [[1]] * 4
    assert results.execution_contexts().one().outputs[node.node_id].role_masks["pair"].tolist() == [1, 0, 1, 1]
    with pytest.raises(KeyError, match="there are anchor, pair"):
        results.tensors("enc", "outputs")
    with pytest.raises(KeyError, match="anchor, pair"):
        results.source_views("enc")


def test_frames_of_tensors(net, views):
    results, _ = recorded(net, views)
    frame = results.tensors("net", "outputs").where(epoch=1).to_pandas()
    assert frame.columns.tolist() == ["epoch", "batch", "sample", "value"] and frame["value"].tolist() == [100.0 + i for i in range(10)]
    two = TensorSeries(("epoch",), {(0,): np.arange(6.0).reshape(3, 2)}).to_pandas()
    assert two.columns.tolist() == ["epoch", "sample", "value_0", "value_1"] and two["value_1"].tolist() == [1.0, 3.0, 5.0]
    assert TensorSeries(("epoch",), {}).to_pandas().columns.tolist() == ["epoch", "sample", "value"]


# -- losses -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_losses(framework, finished, net, views):
    results, _ = recorded(net, views, framework)
    if finished:
        results.finish()
    losses = results.losses("net")
    assert losses.axes == ("epoch", "batch", "label") and isinstance(losses.where(epoch=1), LossSeries)
    assert losses.where(epoch=1).to_float() == 4.5 and float(losses.where(epoch=1).trainable) == 4.5 and losses.auxiliary == 0.0
    assert losses.map(LossRecord.to_float).values() == [0.0, 0.5, 1.0, 1.0, 1.5, 2.0]
    means = results.epoch_losses("net")
    assert means.axes == ("epoch", "label") and [one.to_float() for one in means.values()] == [0.5, 1.5]
    assert [one.to_float() for one in results.epoch_losses("net", "last").values()] == [1.0, 2.0]
    frame = losses.to_pandas()
    assert frame.columns.tolist() == ["epoch", "batch", "label", "trainable", "auxiliary", "total"]
    assert frame["total"].tolist() == frame["trainable"].tolist() and frame["auxiliary"].isna().all()
    assert results.history["train_loss"].tolist() == [0.5, 1.5] and results.history.index.tolist() == [0, 1]


def test_losses_of_both_kinds_and_of_some_steps(net, views):
    results = TrainResults("t")
    for i, view in enumerate(views):
        batch = view.materialize_batch(columns=COLUMNS)
        ctx = step(net, view, batch, np.ones((batch.batch_size, 1)), index=i)
        if i != 1:
            ctx.add_losses(
                LossCollection([LossRecord("a", net.node_id, trainable=1.0 + i, auxiliary=0.25), LossRecord("b", "x", auxiliary=8.0)])
            )
        results.add_execution_context(ctx)
    for _ in range(2):
        losses = results.losses(net)
        assert losses.keys() == [(0, 0, "a"), (0, 2, "a")] and losses.trainable == 4.0 and losses.auxiliary == 0.5
        assert results.execution_contexts().at(epoch=0, batch=1).losses is None
        results.finish()


def evaluated(net, values, sizes, kind="auxiliary"):
    results, at = EvalResults("test"), 0
    fs = net.upstream_ref.resolve().source
    for i, (value, size) in enumerate(zip(values, sizes, strict=True)):
        view = BatchView(fs, {"default": np.arange(at, at + size)})
        batch = view.materialize_batch(columns=COLUMNS)
        outputs = np.arange(at, at + size, dtype="f4")[:, None]
        results.add_execution_context(step(net, view, batch, outputs, 0, i, value, "test", kind))
        at += size
    return results


def test_means_are_weighted_by_the_sizes_of_the_batches(net):
    results = evaluated(net, [0.21842, 1.38653], [3, 1])  # worked numbers of a training
    assert results.aggregated_losses("net") == {"mse": pytest.approx(0.5104475)}
    assert results.aggregated_losses(net, reducer="sum")["mse"] == pytest.approx(1.60495)
    assert (
        results.aggregated_losses(net, reducer="first") == {"mse": 0.21842}
        and results.aggregated_losses(net, reducer="last")["mse"] == 1.38653
    )
    with pytest.raises(ValueError, match="mean, sum, first, last"):
        results.aggregated_losses(net, reducer="max")


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(1, 4)), min_size=1, max_size=2))
def test_the_weighted_mean_is_that_of_all_samples(pairs):
    with ExperimentContext().activate():
        rows = np.arange(10.0)
        fs = FeatureSet.from_dict("ten", {"a": rows, "b": rows, "y": rows, "t": rows}, ["a", "b"], "y", "t")
        net = ModelNode("net", keydnn.Sequential(keydnn.Dense(1)), fs.reference(features="*.raw", targets="y.raw", tags="t.raw"))
        results = evaluated(net, *zip(*pairs, strict=True))
        expected = np.mean(np.concatenate([[value] * size for value, size in pairs]))
        assert results.aggregated_losses(net)["mse"] == pytest.approx(expected, rel=1e-12, abs=1e-9)


@pytest.mark.parametrize("kind", [EvalResults, FitResults])
def test_one_pass(kind, net, ten):
    results = evaluated(net, [1.0, 2.0], [3, 4])
    results = kind("test", results.context_store, nodes=results.nodes)
    results.finish()
    assert results.stacked_tensors("net", "outputs", fmt="np").reshape(-1).tolist() == list(range(7))
    assert isinstance(results.stacked_tensors("net", "outputs", fmt="keydnn"), keydnn.Tensor)
    joined = results.stacked_batches("net")
    assert joined.batch_size == 7 and joined.tags.shape == (7, 1) and joined.sample_uuids.tolist() == ten.get_sample_uuids().tolist()[:7]
    assert results.source_view("net").valid_indices.tolist() == list(range(7)) and list(results.source_views(net)) == ["ten"]
    assert repr(results) == ("EvalResults(label='test', batches=2)" if kind is EvalResults else "FitResults(label='test')")
    never = ModelNode("never", keydnn.Sequential(keydnn.Dense(1)), ten)
    for ask in (lambda: results.stacked_tensors(never, "outputs"), lambda: results.stacked_batches(never)):
        with pytest.raises(ValueError, match="left no"):
            ask()
    assert results.aggregated_losses(never) == {}
    if kind is EvalResults:
        assert results.batch_indices == [0, 1] and results.n_batches == 2
        assert results.source_view("net", batch=1).valid_indices.tolist() == [3, 4, 5, 6]


# -- metrics, callbacks, artifacts --------------------------------------------------------------------------------------


def test_metrics():
    store = MetricStore()
    for name, value, epoch, batch in [
        ("a", 1, 0, 0),
        ("a", np.float32(3.0), 0, 1),
        ("a", 2.0, 0, None),
        ("b", True, None, None),
        ("a", 5.0, 0, 1),
    ]:
        store.log(name=name, value=value, epoch_idx=epoch, batch_idx=batch)
    assert store.names == ["a", "b"] and len(store) == 4
    assert (
        store.entries()
        == list(store)
        == [*(MetricEntry("a", v, 0, b) for v, b in ((1.0, 0), (5.0, 1), (2.0, None))), MetricEntry("b", 1.0, None)]
    )
    assert store.of_epoch("a", 0) == store.entries()[:3] and store.of_epoch("a", 1) == store.of_epoch("c", 0) == []
    assert store.of_epoch("b", None) == [MetricEntry("b", 1.0, None, None)]
    series = PhaseResults("p", metric_store=store).metrics()
    assert series.axes == ("name", "epoch", "batch") and series.where(name="a", batch=1).one().value == 5.0
    steps = series.where(name="a", batch=[0, 1])
    assert steps.collapse("batch", "mean").one() == MetricEntry("a", 3.0, 0, None) and steps.collapse("batch", "sum").one().value == 6.0
    frame = store.to_pandas()
    assert frame.columns.tolist() == ["name", "epoch", "batch", "value"] and frame["batch"].tolist() == [0, 1, pd.NA, pd.NA]
    assert (
        str(frame["epoch"].dtype) == str(MetricStore().to_pandas()["batch"].dtype) == "Int64" and repr(store) == "MetricStore(a: 4, b: 1)"
    )


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_metrics_of_tensors_are_copies(framework):
    store = MetricStore()
    for shape in ((), (1,)):
        value = to_backend(np.full(shape, 2.5, "f4"), _backend(framework))
        store.log(name=f"m{len(shape)}", value=value, epoch_idx=0)
    assert [entry.value for entry in store] == [2.5, 2.5]


def test_metrics_that_wait_on_a_device_travel_together(monkeypatch):
    from keydnn.experiment.results import scalars, stores

    moved = []
    monkeypatch.setattr(stores, "is_on_host", lambda value: False)
    monkeypatch.setattr(scalars, "is_on_host", lambda value: not isinstance(value, np.ndarray))
    original = scalars._moved
    monkeypatch.setattr(scalars, "_moved", lambda tensors, backend: moved.append(len(tensors)) or original(tensors, backend))
    store = MetricStore()
    for i in range(5):
        store.log(name="m", value=np.array(i / 2), epoch_idx=0, batch_idx=i)
    store.log(name="m", value=7.0, epoch_idx=0)
    assert moved == [] and [entry.value for entry in store.of_epoch("m", 0)] == [0.0, 0.5, 1.0, 1.5, 2.0, 7.0] and moved == [5]
    assert len(store.entries()) == 6 and moved == [5]


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"value": "much"}, TypeError, "'m' must be a number"),
        ({"value": None}, TypeError, "NoneType"),
        ({"value": np.ones(3)}, ValueError, r"shape \(3,\)"),
        ({"epoch_idx": -1}, ValueError, "count from 0"),
        ({"batch_idx": -2}, ValueError, "count from 0"),
        ({"name": 3}, TypeError, "named by text"),
    ],
)
def test_what_is_no_metric(given, error, told):
    store = MetricStore()
    with pytest.raises(error, match=told):
        store.log(**({"name": "m", "value": 1.0, "epoch_idx": 0} | given))
    assert len(store) == 0


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(allow_nan=False), st.none() | st.integers(0, 3), st.none() | st.integers(0, 3))))
def test_the_later_metric_counts(entries):
    store, table = MetricStore(), {}
    for name, value, epoch, batch in entries:
        store.log(name=name, value=value, epoch_idx=epoch, batch_idx=batch)
        table[name, epoch, batch] = value
    assert {key: one.value for key, one in store.series().items()} == table
    for name, epoch, _ in table:
        assert {one.batch_idx: one.value for one in store.of_epoch(name, epoch)} == {
            b: v for (n, e, b), v in table.items() if (n, e) == (name, epoch)
        }


def test_history_has_a_row_per_epoch():
    results = TrainResults("t")
    for name, epoch, value in [("loss", 2, 1.0), ("loss", 0, 3.0), ("val", 2, 4.0)]:
        results.metric_store.log(name=name, value=value, epoch_idx=epoch)
    results.metric_store.log(name="loss", value=9.0, epoch_idx=1, batch_idx=0)
    results.metric_store.log(name="phase", value=9.0, epoch_idx=None)
    expected = pd.DataFrame({"loss": [3.0, 1.0], "val": [np.nan, 4.0]}, index=pd.Index([0, 2], name="epoch"))
    pd.testing.assert_frame_equal(results.history, expected)
    assert TrainResults("t").history.shape == (0, 0) and repr(results) == "TrainResults(label='t', epochs=0)"
    assert results.metric_names() == ["loss", "val", "phase"] and len(results.to_pandas()) == 5


@dataclass
class Said:
    """What a callback left behind."""

    kind: str
    callback_label: str
    epoch_idx: int | None
    batch_idx: int | None = None
    edge: str = "end"
    eval_results: Any = None


def test_callbacks():
    results = TrainResults("t")
    said = [Said("payload", "p", 0, 1), Said("payload", "p", 0, 1, "start"), Said("metric", "m", None)]
    for one in said:
        results.add_callback_result(one)
    assert results.callbacks().axes == ("kind", "label", "epoch", "batch", "edge") and results.callbacks().values() == said
    assert results.callbacks(kind="metric").one() is said[2] and results.callbacks().select(edge="start") == [said[1]]
    assert results.callbacks().to_pandas()["batch"].tolist() == [1, 1, pd.NA]
    with pytest.raises(ValueError, match="first, last"):
        results.callbacks().collapse("edge", "mean")


def test_validation():
    results = TrainResults("t")
    found = {epoch: EvalResults(f"val{epoch}") for epoch in (None, 0, 2)}
    assert len(results.validation()) == 0
    for epoch, one in found.items():
        results.add_callback_result(
            Said("evaluation", "val", 0 if epoch is None else epoch, None, "start" if epoch is None else "end", one)
        )
    assert results.validation().to_dict() == {(epoch,): one for epoch, one in found.items()} and results.validation("val").axes == (
        "epoch",
    )
    with pytest.raises(KeyError, match="there are: val"):
        results.validation("other")
    results.add_callback_result(Said("evaluation", "other", 0))
    with pytest.raises(ValueError, match="val, other; name one"):
        results.validation()
    assert len(results.validation("other")) == 1


def test_artifacts():
    loaded = []
    store = ArtifactStore()
    store.log(name="plot", artifact={"a": 1}, epoch_idx=0)
    store.add(ArtifactEntry("big", None, 1, 2, load=lambda: loaded.append(1) or "big one"))
    results = PhaseResults("p", artifact_store=store)
    assert results.artifact_names() == ["plot", "big"] and results.artifacts().axes == ("name", "epoch", "batch")
    entry = results.artifacts().at(name="big", epoch=1, batch=2)
    assert "not loaded yet" in repr(entry) and loaded == []
    assert entry.artifact == entry.artifact == "big one" and loaded == [1] and "artifact=str" in repr(entry)
    assert results.artifacts().first().artifact == {"a": 1} and len(store) == 2 and [one.name for one in store] == store.names
    for wrong in (lambda: store.log(name=3, artifact=1, epoch_idx=0), lambda: store.add("x")):
        with pytest.raises(TypeError):
            wrong()


# -- groups and runs ----------------------------------------------------------------------------------------------------


@pytest.fixture
def plan():
    inner, outer = PhaseGroupResults("inner"), PhaseGroupResults("plan")
    inner.add_result(FitResults("scale"))
    for one in (TrainResults("pre"), inner, EvalResults("test")):
        outer.add_result(one)
    return outer


def test_groups(plan):
    assert plan.labels == ["pre", "inner", "test"] and len(plan) == 3 and [one.label for one in plan] == plan.labels
    assert list(plan.phase_results) == ["pre", "test"] and list(plan.group_results) == ["inner"]
    assert plan["test"] is plan[-1] is plan.get_eval_result() is plan.get_phase_result("test") and plan[0] is plan.get_train_result("pre")
    assert "inner" in plan and plan["pre"] in plan and "scale" not in plan and 3 not in plan
    assert plan.get_group_result() is plan["inner"] and plan["inner"].get_fit_result().label == "scale"
    assert list(plan.flatten()) == ["pre", "scale", "test"] and dict(plan.items())["pre"] is plan["pre"]
    assert repr(plan) == "PhaseGroupResults(label='plan', results=['pre', 'inner', 'test'])"


@pytest.mark.parametrize(
    ("ask", "error", "told"),
    [
        (lambda p: p["nope"], KeyError, "there are pre, inner, test"),
        (lambda p: p["scale"], KeyError, "stands in group 'inner'"),
        (lambda p: p.get_train_result("test"), TypeError, "is a EvalResults, not a TrainResults"),
        (lambda p: p.get_phase_result("inner"), TypeError, "PhaseGroupResults"),
        (lambda p: p.get_fit_result(), ValueError, "there are: none"),
        (lambda p: p.get_train_result("nope"), KeyError, "nope"),
        (lambda p: p.add_result(TrainResults("pre")), ValueError, "'pre' already"),
        (lambda p: p.add_result("pre"), TypeError, "got str"),
    ],
)
def test_errors_of_groups(ask, error, told, plan):
    with pytest.raises(error, match=told):
        ask(plan)
    assert len(plan) == 3


def test_groups_with_two_of_a_kind(plan):
    plan.add_result(TrainResults("main"))
    with pytest.raises(ValueError, match="'pre', 'main'"):
        plan.get_train_result()
    plan.add_result(EvalResults("scale"))
    with pytest.raises(ValueError, match="two phases 'scale'"):
        plan.flatten()


def test_metrics_of_a_group(plan):
    assert plan.to_pandas().shape == (0, 5)
    plan["pre"].metric_store.log(name="a", value=1.0, epoch_idx=0)
    plan["inner"]["scale"].metric_store.log(name="b", value=2.0, epoch_idx=0, batch_idx=1)
    assert plan.to_pandas()[["phase", "name", "value"]].values.tolist() == [["pre", "a", 1.0], ["inner/scale", "b", 2.0]]


START = datetime(2024, 1, 1, 12)


def meta(label, seconds, cls=PhaseExecutionMeta, **more):
    return cls(label, START, START + timedelta(seconds=seconds), **more)


def test_runs():
    inner = meta("inner", 3, PhaseGroupExecutionMeta, children=[meta("train", 2), meta("test", 1)])
    whole = meta("plan", 9, PhaseGroupExecutionMeta, children=[meta("train", 5, metadata={"early_stop_epoch": 3}), inner])
    run = ExperimentRun("plan", START, START + timedelta(seconds=10), "completed", PhaseGroupResults("plan"), whole, {"host": "h"})
    assert run.duration_seconds == 10.0 and run.phase_durations == {"train": 5.0, "inner/train": 2.0, "test": 1.0}
    assert [label for label, _ in whole.items()] == ["train", "inner"] and whole.duration_seconds == 9.0
    assert (
        run.to_pandas()["seconds"].tolist() == [5.0, 2.0, 1.0]
        and repr(run) == "ExperimentRun(label='plan', status='completed', seconds=10)"
    )
    assert ExperimentRun("p", START, START, "failed", None).phase_durations == {}
    assert ExperimentRun("p", START, START, "stopped", None, meta("p", 4)).phase_durations == {"p": 4.0}


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: meta("p", 1, status="done"), ValueError),
        (lambda: meta("p", -1), ValueError),
        (lambda: ExperimentRun("p", START, START, "done", None), ValueError),
        (lambda: meta("g", 1, PhaseGroupExecutionMeta, children=[meta("p", 1), meta("p", 1)]), ValueError),
        (lambda: meta("g", 1, PhaseGroupExecutionMeta).add("p"), TypeError),
    ],
)
def test_errors_of_runs(make, error):
    with pytest.raises(error):
        make()


# -- through a real graph -----------------------------------------------------------------------------------------------


def test_a_graph_tells_labels_tails_and_inputs(ten, views):
    head = ModelNode("head", keydnn.Sequential(keydnn.Dense(2)), ten.reference(features="*.raw", targets="y.raw"))
    tail = ModelNode("tail", keydnn.Sequential(keydnn.Dense(1)), head)
    graph = ModelGraph([head, tail], Optimizer("sgd", backend="keydnn"))
    results = EvalResults("e")
    results.start_recording(graph=graph)
    for i, view in enumerate(views):
        key = (head.node_id, head.upstream_ref)
        ctx = ExecutionContext("e", 0, i, {key: view.materialize_batch("keydnn", columns=COLUMNS[:3])}, {key: view})
        graph.eval_step(ctx, [])
        results.add_execution_context(ctx)
    results.finish()
    assert results.nodes.is_tail(tail.node_id) and not results.nodes.is_tail(head.node_id)
    assert results.stacked_tensors("head", "outputs").shape == (10, 2) and results.stacked_tensors("tail", "outputs").shape == (10, 1)
    assert results.source_view("tail").valid_indices.tolist() == list(range(10)) and isinstance(results.execution_contexts(), AxisSeries)
    assert repr(ContextStore("last")) == "ContextStore(last, epochs=0, steps=0)"
