"""Results as states and in files: every query gives the same bits afterwards, and recording goes on as if nothing had happened."""

import pickle
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import keydnn
from keydnn.experiment import AppliedLoss, ConcatNode, Experiment, FeatureSet, Loss, ModelGraph, ModelNode, Optimizer
from keydnn.experiment.backends.tensors import to_backend
from keydnn.experiment.callbacks import ArtifactResult, Callback, CallbackResult, EarlyStopping, EvalLossMetric, Evaluation
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import Batch, BatchView, ExecutionContext, RoleData
from keydnn.experiment.errors import PackagedCodeError, ResolutionError
from keydnn.experiment.io import Checkpoint
from keydnn.experiment.phases import EvalPhase, FitPhase, PhaseGroup, TrainPhase
from keydnn.experiment.results import (
    EpochSteps,
    EvalResults,
    ExperimentRun,
    Frame,
    PhaseExecutionMeta,
    PhaseGroupExecutionMeta,
    PhaseGroupResults,
    PhaseResults,
    TrainResults,
)
from keydnn.experiment.results.frame_state import FrameTable
from keydnn.experiment.results.sources import IdsTable, SourceTable
from keydnn.experiment.results.state import results_from_state, results_state, run_from_state, run_state
from keydnn.experiment.results.values import NotStored, Unsayable, opened, say
from keydnn.experiment.samplers import PairedSampler, SimilarityCondition, SimpleSampler
from keydnn.experiment.training import LossCollection, LossRecord
from tests.experiment.result_answers import answers, bits

BACKENDS = ["keydnn", pytest.param("torch", marks=pytest.mark.torch)]


def through_file(state, folder, *, permitted=False):
    path = Checkpoint({"results": state}).save(folder / "state", overwrite=True)
    return Checkpoint.load(path, allow_packaged_code=permitted).entries["results"]


def read_back(results, folder, **options):
    return results_from_state(through_file(results_state(results), folder, **options))


# -- results of real runs


def experiment(backend, *, fs=None, batch_hooks=False, config=None, told=True):
    """Training with evaluation and early stopping, another evaluation, all on scaled targets."""
    if fs is None:
        rng = np.random.default_rng(3)
        data = {"x": rng.standard_normal((30, 3)).astype("f4"), "y": 5 + rng.standard_normal(30), "lot": ["a", "b", "c"] * 10}
        with ExperimentContext().activate():
            samples = FeatureSet.from_dict("cells", data, "x", "y", "lot").collection
        fs = FeatureSet("cells", samples, uuid_key=7)
        fs.split_random({"train": 0.6, "val": 0.4}, seed=0)
        fs.fit_transform("StandardScaler", domain="targets", fit_to_split="train")
    if backend == "torch":
        torch = pytest.importorskip("torch")
        torch.manual_seed(0)
        nn = torch.nn
        model = nn.Sequential(nn.Flatten(), nn.Linear(3, 1))
    else:
        model = keydnn.Sequential(keydnn.nn.Flatten(), keydnn.Dense(1))
    node = ModelNode("net", model, fs.reference(features="x.raw", targets="y.transformed", tags="lot.raw"))
    ModelGraph([node], Optimizer("sgd", opt_kwargs={"lr": 0.01}, backend=backend))
    exp = Experiment.from_active_context("run", seed=4, results_config=config)
    loss = AppliedLoss(Loss("mse", backend=backend), node, ["outputs", "targets"], label="mse")
    watch = Evaluation.from_split(label="watch", split="val", metrics=[EvalLossMetric(loss=loss)])
    callbacks = [
        watch,
        EarlyStopping(patience=9),
        *([Told("notes")] if told else []),
        *([Told("steps", per_batch=True)] if batch_hooks else []),
    ]
    sampler = SimpleSampler(batch_size=4, shuffle=True, seed=1)
    train = TrainPhase.from_split("train", split="train", sampler=sampler, losses=[loss], n_epochs=3, callbacks=callbacks)
    group = PhaseGroup("after", [EvalPhase.from_split("test", split="val", losses=[loss], batch_size=5)])
    exp.execution_plan.add_phase(train).add_group(group)
    return exp


class Told(Callback):
    """Leaves payloads and artifacts of many types."""

    def __init__(self, label=None, per_batch=False):
        super().__init__(label)
        self.per_batch = per_batch

    def get_config(self):
        return super().get_config()

    def on_epoch_end(self, *, experiment, phase, exec_ctx, results):
        values = np.arange(3, dtype="i2") + exec_ctx.epoch_idx
        return {
            "epoch": exec_ctx.epoch_idx,
            "values": values,
            ("a", 1): [np.float32(0.1), None, {2, 1}],
            "when": datetime(2026, 1, 2, tzinfo=UTC),
        }

    def on_phase_end(self, *, experiment, phase, results):
        return ArtifactResult("weights", {"w": np.ones((2, 2), "f4"), "none": None})

    def on_batch_end(self, *, experiment, phase, exec_ctx, results):
        return exec_ctx.batch_idx if self.per_batch else None


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch_hooks", [False, True])
def test_a_run_answers_as_before(backend, batch_hooks, tmp_path):
    exp = experiment(backend, batch_hooks=batch_hooks)
    results = exp.run()
    expected = answers(results, unscale=True)
    back = read_back(results, tmp_path)
    assert answers(back, unscale=True) == expected
    assert back.get_train_result().validation().axes == results.get_train_result().validation().axes
    assert back.get_train_result().history.equals(results.get_train_result().history)
    twice = read_back(back, tmp_path)
    assert answers(twice, unscale=True) == expected
    run = run_from_state(through_file(run_state(exp.last_run), tmp_path))
    assert answers(run.results, unscale=True) == expected
    assert run.to_pandas().equals(exp.last_run.to_pandas()) and run.metadata == exp.last_run.metadata
    assert run.phase_durations == exp.last_run.phase_durations and repr(run) == repr(exp.last_run)


def test_equal_results_give_equal_files(tmp_path):
    results = experiment("keydnn").run()
    state = results_state(results)
    first = Checkpoint({"r": state}).save(tmp_path / "a").read_bytes()
    assert Checkpoint({"r": results_state(results)}).save(tmp_path / "b").read_bytes() == first
    back = results_from_state(Checkpoint.load(tmp_path / "a").entries["r"])
    second = Checkpoint({"r": results_state(back)}).save(tmp_path / "c").read_bytes()
    again = results_from_state(Checkpoint.load(tmp_path / "c").entries["r"])
    assert Checkpoint({"r": results_state(again)}).save(tmp_path / "d").read_bytes() == second


@pytest.mark.slow
def test_scikit_fits_come_back(tmp_path):
    linear_model = pytest.importorskip("sklearn.linear_model")
    fs = FeatureSet.from_dict("cells", {"x": np.arange(12.0), "y": 2 * np.arange(12.0)}, "x", "y")
    fs.split_random({"train": 0.5, "val": 0.5}, seed=0)
    node = ModelNode("line", linear_model.LinearRegression(), fs.reference(features="*.raw", targets="y.raw"))
    ModelGraph([node])
    exp = Experiment.from_active_context("fits")
    exp.execution_plan.add_phase(FitPhase.from_split("fit", split="train")).add_phase(
        EvalPhase.from_split("test", split="val", batch_size=4)
    )
    results = exp.run()
    assert len(results.get_eval_result("test").tensors("line", "outputs")) == 2
    back = read_back(results, tmp_path)
    assert answers(back) == answers(results)
    stacked = [one.get_eval_result("test").stacked_tensors("line", "outputs") for one in (back, results)]
    assert bits(stacked[0]) == bits(stacked[1])


_OTHER_PROCESS = """
import pickle, sys
from keydnn.experiment.io import Checkpoint
from keydnn.experiment.data import FeatureSet
from keydnn.experiment.results.state import results_from_state
from tests.experiment.result_answers import answers
if len(sys.argv) > 3:
    FeatureSet.load(sys.argv[3])
results = results_from_state(Checkpoint.load(sys.argv[1]).entries["r"])
with open(sys.argv[2], "wb") as file:
    pickle.dump(answers(results, unscale=True), file)
"""


@pytest.mark.slow
def test_another_process_gives_the_same_answers(tmp_path):
    exp = experiment("keydnn")
    results = exp.run()
    path = Checkpoint({"r": results_state(results)}).save(tmp_path / "results")
    data = exp.ctx.get_node(label="cells").save(tmp_path / "cells")
    subprocess.run([sys.executable, "-c", _OTHER_PROCESS, path, tmp_path / "answers", data], check=True)
    assert pickle.loads((tmp_path / "answers").read_bytes()) == answers(results, unscale=True)


def test_without_the_data_only_their_columns_are_missing(tmp_path):
    exp = experiment("keydnn")
    results = exp.run()
    fs = exp.ctx.get_node(label="cells")
    evaluation = results.get_eval_result("test") if "test" in results else results.get_group_result().get_eval_result()
    state = through_file(results_state(evaluation), tmp_path)
    expected = [bits(evaluation.stacked_tensors("net", domain, unscale=True)) for domain in ("outputs", "targets")]
    ids = evaluation.stacked_tensors("net", "sample_uuids").tolist()
    rows = evaluation.source_view("net").indices.tolist()
    with ExperimentContext().activate() as empty:
        back = results_from_state(state)
        assert [bits(back.stacked_tensors("net", domain, unscale=True)) for domain in ("outputs", "targets")] == expected
        assert back.stacked_tensors("net", "sample_uuids").tolist() == ids
        with pytest.raises(ResolutionError, match="'cells' with 30 samples is not registered"):
            back.source_view("net")
        empty.register_experiment_node(fs)
        assert back.source_view("net").indices.tolist() == rows  # found once it is there
        assert answers(back) == answers(evaluation)
        again = results_state(back)
    assert answers(results_from_state(again)) == answers(evaluation)


# -- recording goes on


def steps_of(fs, backend, batches, roles, width, *, native=False):
    """A node, and for an epoch the contexts of its steps or all of them in one."""
    reference = fs.reference(features="*.raw", targets="y.raw", tags="t.raw")
    node = ModelNode("net", keydnn.Sequential(keydnn.Dense(1)), reference, register=False)
    views = [BatchView(fs, {role: np.array(rows) for role in roles}, None) for rows in batches]
    made = [view.materialize_batch(backend, columns=["features.a.raw", "targets.y.raw", "tags.t.raw"]) for view in views]

    def outputs(epoch, view):
        rows = view.rows(roles[0])
        return to_backend((1000.0 * epoch + rows[:, None] + np.zeros(width)).astype("f4"), keydnn.experiment.Backend.from_value(backend))

    def contexts(epoch):
        for i, (view, batch) in enumerate(zip(views, made, strict=True)):
            samples = {r: one.with_domains({"features": outputs(epoch, view)}, kind="output") for r, one in batch.role_data.items()}
            out = Batch.trusted(batch.batch_size, RoleData(samples), dict(batch.role_weights), dict(batch.role_masks))
            losses = LossCollection([LossRecord("mse", node.node_id, trainable=np.float32(epoch + i / 3))])
            yield ExecutionContext(
                "train", epoch, i, {(node.node_id, reference): batch}, {(node.node_id, reference): view}, {node.node_id: out}, losses
            )

    return contexts


@pytest.fixture
def samples():
    rows = np.arange(24)
    return FeatureSet.from_dict("rows", {"a": 10.0 * rows, "y": 2.0 * rows, "t": [f"t{i % 11}" for i in rows]}, ["a"], "y", "t")


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    roles=st.sampled_from([["default"], ["anchor", "pair"]]),
    epochs=st.integers(1, 3),
    width=st.integers(1, 3),
    recording=st.sampled_from(["all", "last"]),
    keep=st.sampled_from([None, ("outputs",), ("targets", "sample_uuids")]),
    cut=st.data(),
    backend=st.sampled_from(["numpy", "keydnn"]),
)
def test_recording_goes_on_in_the_middle(sizes, roles, epochs, width, recording, keep, cut, backend, samples, tmp_path):
    ends = np.cumsum(sizes)
    batches = [list(range(end - n, end)) for n, end in zip(sizes, ends, strict=True)]
    if len(batches) > 1:
        batches[-1] = [-1, *batches[-1][1:]]  # padding
    contexts = steps_of(samples, backend, batches, roles, width)
    stop = cut.draw(st.integers(0, epochs * len(batches)))

    def record(interrupted):
        results, n = TrainResults("train"), 0
        results.start_recording(recording, keep=keep)
        for epoch in range(epochs):
            results.start_epoch(epoch)
            for ctx in contexts(epoch):
                if interrupted and n == stop:
                    state = through_file(results_state(results), tmp_path)
                    results = TrainResults("train")
                    results.set_state(state)
                results.add_execution_context(ctx)
                results.metric_store.log(name="loss", value=n / 7, epoch_idx=epoch, batch_idx=ctx.batch_idx)
                n += 1
        results.finish()
        return results

    whole, parts = record(False), record(True)
    assert answers(parts) == answers(whole)
    assert answers(read_back(parts, tmp_path)) == answers(whole)
    frames = [{id(place.frame) for place in one.context_store.places()} for one in (whole, parts)]
    assert len(frames[0]) == len(frames[1])  # steps before and after share frames


def test_steps_of_one_call_come_back(samples, tmp_path):
    contexts = steps_of(samples, "keydnn", [[0, 1], [2, 3]], ["default"], 2)
    frames = [Frame.of(ctx) for ctx in contexts(0)]
    (node_id,) = next(iter(contexts(0))).outputs
    results = TrainResults("train")
    for epoch in range(3):
        losses = np.arange(2, dtype="f4")[:, None] + epoch
        outputs = {(node_id, "default"): keydnn.tensor(np.full((2, 2, 2), epoch, "f4"))}
        results.add_steps(EpochSteps("train", epoch, frames, losses, [(node_id, "mse")], outputs))
    back = read_back(results, tmp_path)
    assert answers(back) == answers(results)
    assert len({id(place.frame) for place in back.context_store.places()}) == 2


@pytest.mark.parametrize("stored", [False, True])
def test_ids_are_those_of_the_set(stored, tmp_path):
    import pyarrow as pa

    from keydnn.experiment.data import SampleCollection

    table = pa.table({"features.a.raw": [1.0, 2.0, 3.0], "targets.y.raw": [1.0, 2.0, 3.0], "tags.t.raw": ["x", "y", "z"]})
    if stored:
        table = table.append_column("sample_uuids", pa.array(["ü", "two", "and three"]))
    fs = FeatureSet("ids", SampleCollection(table))
    results = EvalResults("e")
    for ctx in steps_of(fs, "numpy", [[2, 0], [1, -1]], ["default"], 1)(0):
        results.add_execution_context(ctx)
    expected = [one.tolist() for one in results.tensors(next(iter(results.nodes.notes)), "sample_uuids").values()]
    state = through_file(results_state(results), tmp_path)
    with ExperimentContext().activate():
        back = results_from_state(state)
        assert [one.tolist() for one in back.tensors(next(iter(back.nodes.notes)), "sample_uuids").values()] == expected
    if stored:
        assert expected[0] == ["and three", "ü"]


def test_weights_of_samplers_come_back(tmp_path):
    fs = FeatureSet.from_dict("pairs", {"x": np.arange(8.0), "y": np.arange(8.0), "g": np.arange(8) % 2}, "x", "y", "g")
    sampler = PairedSampler(
        {
            "g": SimilarityCondition(mode="similar", tolerance=0.0),
            "y": SimilarityCondition(mode="similar", weight_mode="exp", tolerance=3.0),
        },
        batch_size=3,
        seed=2,
    )
    node = ModelNode(
        "net", keydnn.Sequential(keydnn.nn.Flatten(), keydnn.Dense(1)), fs.reference(features="x.raw", targets="y.raw", tags="g.raw")
    )
    ModelGraph([node], Optimizer("sgd", opt_kwargs={"lr": 0.01}, backend="keydnn"))
    exp = Experiment.from_active_context("pairs", seed=1)
    loss = AppliedLoss(Loss("mse", backend="keydnn"), node, ["outputs.anchor", "outputs.pair"])
    fs.split_random({"train": 0.75, "val": 0.25}, seed=0)
    results = exp.run_phase(TrainPhase.from_split("train", split="train", sampler=sampler, losses=[loss], n_epochs=2))
    assert any(view.role_indice_weights is not None for ctx in results.execution_contexts().values() for view in ctx.input_views.values())
    assert answers(read_back(results, tmp_path)) == answers(results)


@pytest.mark.parametrize("at", ["of_a", "tail"])
def test_merged_graphs_come_back(at, tmp_path):
    rng = np.random.default_rng(1)
    fs = FeatureSet.from_dict("both", {"a": rng.normal(size=14), "b": rng.normal(size=14), "y": rng.normal(size=14)}, ["a", "b"], "y")
    fs.split_random({"train": 1.0})

    def small():
        return keydnn.Sequential(keydnn.Flatten(), keydnn.Dense(1))

    heads = [ModelNode(f"of_{key}", small(), fs.reference(features=f"{key}.raw", targets="y.raw")) for key in "ab"]
    both = ConcatNode("both_heads", heads, concat_axis_targets="first")
    ModelGraph([*heads, both, ModelNode("tail", small(), both)], Optimizer("sgd", opt_kwargs={"lr": 0.01}, backend="keydnn"))
    exp = Experiment.from_active_context("merged", seed=1)
    loss = AppliedLoss(Loss("mse", backend="keydnn"), at, ["outputs", "targets"])
    sampler = SimpleSampler(batch_size=4, shuffle=True, seed=1)
    results = exp.run_phase(TrainPhase.from_split("train", split="train", sampler=sampler, losses=[loss], n_epochs=2))
    assert len(results.batches("both_heads")) == 2 * 4
    assert answers(read_back(results, tmp_path)) == answers(results)


def test_a_file_of_many_epochs_holds_shared_parts_once(tmp_path):
    n, epochs = 4500, 10
    fs = FeatureSet.from_dict("many", {"a": np.arange(float(n)), "y": np.arange(float(n)), "t": np.arange(n)}, ["a"], "y", "t")
    contexts = steps_of(fs, "numpy", [list(range(i, min(i + 64, n))) for i in range(0, n, 64)], ["default"], 1)
    results = TrainResults("train")
    for epoch in range(epochs):
        results.start_epoch(epoch)
        for ctx in contexts(epoch):
            results.add_execution_context(ctx)
    results.finish()
    path = Checkpoint({"r": results_state(results)}).save(tmp_path / "many")
    assert path.stat().st_size < epochs * n * 4 + n * (4 + 4 + 8 + 8) + 150_000  # outputs; rows, ids, targets and tags once


# -- what callbacks leave behind


@dataclass
class Mine(CallbackResult):
    """A kind of a user."""

    kind: ClassVar[str] = "mine"

    number: float = 0.0


class Odd:
    """A value that files do not know."""

    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        return isinstance(other, Odd) and other.number == self.number

    __hash__ = None


def left(*found, artifacts=()):
    results = PhaseResults("p")
    for one in found:
        one.callback_label, one.phase_label, one.epoch_idx, one.edge = "cb", "p", 1, "end"
        results.add_callback_result(one)
        if isinstance(one, ArtifactResult):
            results.artifact_store.log(name=one.artifact_name, artifact=one.artifact, epoch_idx=1)
    for name, artifact in artifacts:
        results.artifact_store.log(name=name, artifact=artifact, epoch_idx=0)
    return results


def test_kinds_of_users_come_back_with_permission(tmp_path):
    results = left(Mine(number=2.5))
    state = results_state(results)
    with pytest.raises(PackagedCodeError, match="brings code for 'Mine'"):
        through_file(state, tmp_path)
    (back,) = results_from_state(through_file(state, tmp_path, permitted=True)).callback_results
    assert type(back).__name__ == "Mine" and back.number == 2.5 and (back.epoch_idx, back.callback_label, back.edge) == (1, "cb", "end")


def test_kinds_of_classes_without_a_name_lose_their_class_alone(tmp_path):
    @dataclass
    class Local(Mine):
        kind: ClassVar[str] = "local"

    results = left(Local(number=2.5))
    with pytest.warns(UserWarning, match="read back without their class"):
        back = read_back(results, tmp_path)
    (one,) = back.callback_results
    assert back.callbacks(kind="local").keys() == results.callbacks(kind="local").keys()
    assert one.number == 2.5 and one.kind == "local" and "number=2.5" in repr(one)
    assert answers(read_back(back, tmp_path)) == answers(back)


def test_results_of_hooks_that_are_no_callback_results_keep_kind_and_fields(tmp_path):
    class Own:
        kind = "own"

        def __init__(self):
            self.callback_label = self.epoch_idx = self.batch_idx = self.edge = None
            self.number = 3

    results = PhaseResults("p")
    results.add_callback_result(Own())
    (back,) = read_back(results, tmp_path).callback_results
    assert (back.kind, back.number, back.edge) == ("own", 3, None)


@pytest.mark.parametrize("cls", [FeatureSet, ModelGraph, int, "text"])
def test_a_file_makes_no_other_objects_of_results_of_hooks(cls):
    told = {"class": cls, "kind": getattr(cls, "kind", "payload"), "fields": [["callback_label", {"value": None}]]}
    with pytest.raises(TypeError, match="is no class of results of hooks"):
        results_from_state({**PhaseResults("p").get_state(), "callbacks": [told]})


def test_steps_after_a_state_share_the_ids_of_the_set(samples, tmp_path):
    contexts = steps_of(samples, "numpy", [[0, 1], [2, 3]], ["default"], 1)
    results = TrainResults("t")
    for ctx in contexts(0):
        results.add_execution_context(ctx)
    back = read_back(results, tmp_path)
    ids = [dict(place.frame.nodes[0].roles[0].domains)["sample_uuids"].ids for place in back.context_store.places()]
    assert len(ids) == 2 and all(one is samples.collection.ids for one in ids)


def test_artifacts_are_pickled_only_where_they_must(tmp_path):
    results = left(ArtifactResult("odd", Odd(3)), artifacts=[("plain", {"a": (1, 2)}), ("array", np.arange(3))])
    state = results_state(results)
    assert [list(told)[-1] for told in state["artifacts"]] == ["unsafe", "value", "value"]
    trusted = results_from_state(through_file(state, tmp_path, permitted=True))
    assert trusted.artifacts().at(name="odd", epoch=1, batch=None).artifact == Odd(3)
    assert trusted.callback_results[0].artifact is trusted.artifacts().at(name="odd", epoch=1, batch=None).artifact
    with pytest.warns(UserWarning, match=r"odd \(tests.experiment.test_result_states.Odd\); a pickle can run code") as told:
        careful = results_from_state(through_file(state, tmp_path))
    assert len(told) == 1
    assert careful.artifact_names() == ["plain", "array"] and careful.artifacts().at(name="plain", epoch=0, batch=None).artifact == {
        "a": (1, 2)
    }
    assert careful.callback_results[0].artifact == NotStored("artifact odd")


_RAN = []


def note():
    _RAN.append(1)


class Trap:
    """Notes that it was unpickled."""

    def __reduce__(self):
        return note, ()


def test_no_pickle_is_opened_without_permission(tmp_path):
    state = results_state(left(artifacts=[("trap", Trap())]))
    with pytest.warns(UserWarning, match="trap"):
        results_from_state(through_file(state, tmp_path))
    assert not _RAN
    results_from_state(through_file(state, tmp_path, permitted=True))
    assert _RAN.pop() == 1 and not _RAN


def test_what_cannot_be_written_is_told(tmp_path):
    from keydnn.experiment.callbacks import PayloadResult

    results = left(PayloadResult({"odd": Odd(1), "even": 2}), artifacts=[("open", open)])
    results.artifact_store.log(name="lambda", artifact=lambda: 0, epoch_idx=None)
    with pytest.warns(UserWarning) as told:
        back = read_back(results, tmp_path, permitted=True)
    texts = [str(one.message) for one in told]
    assert any("payload of a result of callback 'cb' cannot be written" in text and "Odd" in text for text in texts)
    assert any("artifact 'lambda' is left out" in text for text in texts)
    assert back.callback_results[0].payload == {"odd": NotStored("tests.experiment.test_result_states.Odd"), "even": 2}
    assert back.artifacts().at(name="open", epoch=0, batch=None).artifact is open


# -- values


_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(max_size=5),
    st.datetimes(),
    st.dates(),
    st.timedeltas(),
    st.complex_numbers(allow_nan=False),
    st.frozensets(st.integers(), max_size=3),
    st.sampled_from([np.float32(0.1), np.int64(-3), np.bool_(True), np.datetime64("2026-01-02"), np.str_("x")]),
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=3), st.just("$tuple"), st.integers()), inner, max_size=3),
    ),
    max_leaves=8,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(value=_VALUES)
def test_values_come_back_with_their_types(value, tmp_path):
    back = opened(through_file({"v": say(value)}, tmp_path)["v"])
    assert back == value and repr(back) == repr(value)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i8", "u2", "?", "c8", "U3", "S2", "M8[ns]", "O"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_arrays_come_back(dtype, shape, tmp_path):
    array = np.ones(shape, "i8").astype(dtype) if dtype != "O" else np.full(shape, None, object)
    back = opened(through_file({"v": say(array)}, tmp_path)["v"])
    assert back.dtype == array.dtype and back.shape == array.shape and bits(back) == bits(array) and back.flags.writeable


@pytest.mark.parametrize("backend", ["keydnn", pytest.param("torch", marks=pytest.mark.torch), "tensorflow"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_tensors_come_back_in_their_framework(backend, dtype, tmp_path):
    pytest.importorskip(backend)
    from keydnn.experiment.backends.tensors import adapter

    tensor = adapter(keydnn.experiment.Backend.from_value(backend)).to_tensor(np.array([[0, 1], [2, -3]]).astype(dtype))
    back = opened(through_file({"v": [say(tensor)]}, tmp_path)["v"][0])
    assert type(back) is type(tensor) and bits(back) == bits(tensor)


@pytest.mark.torch
@pytest.mark.parametrize("name", ["bfloat16", "float16", "float8_e5m2", "complex64"])
def test_dtypes_that_numpy_lacks_come_back(name, tmp_path):
    torch = pytest.importorskip("torch")
    tensor = torch.tensor([0.5, -2.0, 3.0]).to(getattr(torch, name))
    back = opened(through_file({"v": say(tensor)}, tmp_path)["v"])
    assert back.dtype is tensor.dtype and back.tolist() == tensor.tolist()


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float8_e5m2", "complex64"])
def test_dtypes_of_tensorflow_that_numpy_lacks_come_back(name, tmp_path):
    tensorflow = pytest.importorskip("tensorflow")
    tensor = tensorflow.cast(tensorflow.constant([0.5, -2.0, 3.0]), tensorflow.as_dtype(name))
    back = opened(through_file({"v": say(tensor)}, tmp_path)["v"])
    assert back.dtype is tensor.dtype and back.numpy().tolist() == tensor.numpy().tolist()


@pytest.mark.parametrize("value", [object(), Odd(1), open, np.zeros(2, [("a", "i4")]), np.array([Odd(1)]), [1, {"a": Odd(2)}]])
def test_other_values_are_refused(value):
    with pytest.raises(Unsayable):
        say(value)


# -- groups and runs


def test_half_done_groups_go_on():
    results = PhaseGroupResults("plan")
    results.add_result(TrainResults("a"))
    inner = PhaseGroupResults("inner")
    inner.add_result(EvalResults("b"))
    results.add_result(inner)
    results.get_train_result().metric_store.log(name="m", value=1.0, epoch_idx=None)
    state = results_state(results)
    there = PhaseGroupResults("plan")
    there.add_result(TrainResults("a"))
    kept = there.get_train_result()
    there.set_state(state)
    assert there.get_train_result() is kept and kept.metrics().values() == results.get_train_result().metrics().values()
    assert isinstance(there.get_group_result("inner").get_eval_result(), EvalResults)
    with pytest.raises(ValueError, match="holds results of kind 'train', the state is of kind 'eval'"):
        kept.set_state(EvalResults("x").get_state())
    with pytest.raises(ValueError, match="results of kind 'other' are not known"):
        results_from_state({**state, "kind": "other"})
    with pytest.raises(TypeError, match="results of a phase or of a group are expected, got int"):
        results_state(3)


def test_runs_come_back(tmp_path):
    start = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    inside = PhaseExecutionMeta("a", start, start + timedelta(seconds=2), "failed", {"error": {"type": "ValueError"}})
    meta = PhaseGroupExecutionMeta("plan", start, start + timedelta(seconds=3), "failed", {}, [inside])
    run = ExperimentRun("plan", start, start + timedelta(seconds=3), "failed", None, meta, {"seed": 3, "packages": {"numpy": "2"}})
    assert run_from_state(through_file(run_state(run), tmp_path)) == run
    with pytest.raises(TypeError, match="an ExperimentRun is expected, got int"):
        run_state(3)


def test_frames_that_are_missing_are_refused():
    from keydnn.experiment.results.frame_state import frames_from_state

    ids = IdsTable()
    told = FrameTable(SourceTable(ids), ids).get_state() | {"order": np.zeros(1, np.int32)}
    with pytest.raises(ValueError, match="frames of steps are missing"):
        frames_from_state(told, [], [])
