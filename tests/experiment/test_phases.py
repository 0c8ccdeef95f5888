"""Phases: bindings, what they refuse, what their steps read, configs, groups."""

import numpy as np
import pytest

import keydnn
from keydnn.experiment import AppliedLoss, FeatureSet, Loss, ModelGraph, ModelNode, Optimizer
from keydnn.experiment.data import FeatureSetView
from keydnn.experiment.graph import ConcatNode
from keydnn.experiment.phases import BatchSchedulingPolicy, EvalPhase, ExperimentPhase, FitPhase, InputBinding, PhaseGroup, TrainPhase
from keydnn.experiment.phases.schedule import schedule
from keydnn.experiment.samplers import PairedSampler, SimilarityCondition, SimpleSampler


def linear(n_in, n_out):
    return keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.Linear(n_in, n_out))


def sgd(**options):
    return Optimizer("sgd", opt_kwargs={"lr": 0.01, **options}, backend="keydnn")


def mse(node, label=None):
    return AppliedLoss(Loss("mse", backend="keydnn"), node, ["outputs", "targets"], label=label)


@pytest.fixture
def line():
    """Eight rows x = 0..7, y = 2x, split into train (rows 2, 4, 3, 6) and val."""
    fs = FeatureSet.from_dict("line", {"x": np.arange(8.0), "y": 2 * np.arange(8.0), "t": list("abababab")}, "x", "y", "t")
    fs.split_random({"train": 0.5, "val": 0.5}, seed=0)
    return fs


@pytest.fixture
def other():
    return FeatureSet.from_dict("other", {"x": np.arange(6.0), "y": np.arange(6.0)}, "x", "y")


@pytest.fixture
def net(line):
    """One linear unit with w = 1, b = 0 on ``line``."""
    node = ModelNode("net", linear(1, 1), line)
    ModelGraph([node], sgd()).build()
    node.model.set_weights({name: np.full_like(value, name.endswith("weight")) for name, value in node.model.get_weights().items()})
    return node


def two(line, other, optimizer=None, models=None):
    """Two separate branches, one on each feature set."""
    a, b = models or (linear(1, 1), linear(1, 1))
    with pytest.warns(UserWarning, match="connected to no other"):
        return ModelGraph([ModelNode("a", a, line), ModelNode("b", b, other)], optimizer or sgd())


def two_bindings(line, other, sizes=(2, 2)):
    return [
        InputBinding.for_training(node="a", sampler=SimpleSampler(batch_size=sizes[0]), upstream=line),
        InputBinding.for_training(node="b", sampler=SimpleSampler(batch_size=sizes[1]), upstream=other),
    ]


def rows_of(ctx):
    return [{role: rows.tolist() for role, rows in view.role_indices.items()} for view in ctx.input_views.values()]


def train(phase, graph):
    """Make all steps; the contexts."""
    found = []
    for ctx in phase.iter_execution():
        graph.train_step(ctx, phase.losses, active_nodes=phase.active_nodes)
        found.append(ctx)
    return found


# -- bindings


def test_a_binding_by_what_is_at_hand(line, net):
    sampler = SimpleSampler(batch_size=2)
    by_label = InputBinding.for_training(node="net", sampler=sampler, upstream="line", split="train")
    by_id = InputBinding.for_training(node=net.node_id, sampler=sampler, upstream=line.node_id, split="train")
    by_view = InputBinding.for_training(node=net, sampler=sampler, upstream=line["val"], split="train")
    assert by_label == by_id == by_view == InputBinding.for_training(node=net, sampler=sampler, upstream=None, split="train")
    assert by_label.upstream_ref == net.upstream_ref and by_label.node_id == net.node_id and not sampler.is_bound
    assert InputBinding.from_config(by_label.get_config()) == by_label
    evaluation = InputBinding.for_evaluation(node=net, upstream=line, split="val")
    assert evaluation.sampler is None and InputBinding.from_config(evaluation.get_config()) == evaluation
    assert list(evaluation.get_config()) == ["node_id", "upstream_ref", "split", "sampler", "stream"]
    with pytest.raises(AttributeError):
        evaluation.split = "train"


def test_the_rows_of_a_split_come_in_ascending_order(line, net):
    binding = InputBinding.for_training(node=net, sampler=SimpleSampler(batch_size=2), upstream=line, split="train")
    assert line["train"].indices.tolist() == [2, 4, 3, 6]
    assert binding.resolve_input_view().indices.tolist() == [2, 3, 4, 6]
    assert [batch.rows("default").tolist() for batch in binding.materialize_batches().default] == [[2, 3], [4, 6]]
    assert InputBinding.for_evaluation(node=net, upstream=line, split="val").resolve_input_view().indices.tolist() == [0, 1, 5, 7]
    assert InputBinding.for_evaluation(node=net, upstream=line).resolve_input_view().indices.tolist() == list(range(8))


def test_what_no_binding_is_made_of(line, other, net):
    sampler = SimpleSampler()
    with pytest.raises(ValueError, match="'other' is no input of node 'net', which reads 'line'"):
        InputBinding.for_training(node=net, sampler=sampler, upstream=other)
    with pytest.raises(ValueError, match="no split 'gone'; it has 'train', 'val'"):
        InputBinding.for_evaluation(node=net, upstream=line, split="gone")
    with pytest.raises(ValueError, match="no stream 'gone'"):
        InputBinding.for_training(node=net, sampler=sampler, upstream=line, stream="gone")
    with pytest.raises(TypeError, match="sampler must be a sampler"):
        InputBinding.for_training(node=net, sampler=3, upstream=line)
    with pytest.raises(ValueError, match="no node 'gone'"):
        InputBinding.for_evaluation(node="gone", upstream=line)
    with pytest.raises(ValueError, match="no feature set 'gone'"):
        InputBinding.for_evaluation(node=net, upstream="gone")
    with pytest.raises(TypeError, match="node must be"):
        InputBinding.for_evaluation(node=line, upstream=line)
    with pytest.raises(TypeError, match="upstream must be"):
        InputBinding.for_evaluation(node=net, upstream=3)
    tail = ModelNode("tail", linear(1, 1), net)
    with pytest.raises(RuntimeError, match="reads no feature set"):
        InputBinding.for_evaluation(node=tail, upstream=None)
    merge = ConcatNode("merge", [line, other])
    with pytest.raises(ValueError, match="several feature sets"):
        InputBinding.for_evaluation(node=merge, upstream=None)
    with pytest.raises(ValueError, match="has no sampler"):
        InputBinding.for_evaluation(node=net, upstream=line).materialize_batches()


# -- what phases refuse


def test_what_no_training_phase_is_made_of(line, net, context):
    def made(**changed):
        sampler = SimpleSampler(batch_size=2)
        told = {"input_sources": [InputBinding.for_training(node=net, sampler=sampler, upstream=line)], "losses": [mse(net)]}
        return TrainPhase("train", **{**told, **changed})

    for changed, message in [
        ({"losses": None}, "at least one loss"),
        ({"losses": []}, "at least one loss"),
        ({"n_epochs": 0}, "n_epochs must be"),
        ({"n_epochs": 1.5}, "n_epochs must be"),
        ({"losses": [mse(net), mse(net)]}, "has a loss 'mse' already"),
        ({"input_sources": [InputBinding.for_evaluation(node=net, upstream=line)]}, "has no sampler"),
        ({"input_sources": []}, "node 'net' reads feature set 'line', and no binding feeds it"),
        ({"input_sources": made().input_sources * 2}, "two bindings feed 'line'"),
        ({"batch_schedule": "zip"}, "unknown batch scheduling policy 'zip'"),
        ({"result_recording": "some"}, "some"),
        ({"resample": "always"}, "resample must be one of never"),
        ({"prefetch": "some"}, "prefetch must be one of auto"),
        ({"accumulate": 0}, "accumulate must be"),
        ({"keep": ("outputs", "features")}, "keep: unknown domains .'features'.; expected some of outputs"),
        ({"precision": "fp8"}, "precision must be one of fp32, bf16"),
        ({"precision": "bf16"}, "precision 'bf16' is for torch, and node 'net' is keydnn's"),
        ({"accumulate": 2, "batch_schedule": "alternate_cycle"}, "accumulate goes with zip schedules"),
        ({"active_nodes": []}, "active_nodes is empty"),
    ]:
        with pytest.raises(ValueError, match=message):
            made(**changed)
    with pytest.raises(KeyError, match="'gone' is no node"):
        made(active_nodes=["gone"])
    with pytest.raises(TypeError, match="losses holds AppliedLoss"):
        made(losses=[Loss("mse", backend="keydnn")])
    with pytest.raises(TypeError, match="callbacks holds ICallback"):
        made(callbacks=[3])
    with pytest.raises(TypeError, match="input_sources holds InputBinding"):
        made(input_sources=[net])
    with pytest.raises(TypeError, match="checkpointing must be"):
        made(checkpointing="memory")
    with pytest.raises(ValueError):
        TrainPhase("", input_sources=made().input_sources, losses=[mse(net)])
    context.remove_model_graph()
    with pytest.raises(RuntimeError, match="no model graph"):
        made()


def test_what_no_evaluation_or_fitting_phase_is_made_of(line, other):
    two(line, other)
    bindings = [InputBinding.for_evaluation(node="a", upstream=line), InputBinding.for_evaluation(node="b", upstream=other)]
    for kind in (EvalPhase, FitPhase):
        with pytest.raises(ValueError, match="one feature set and split"):
            kind("phase", input_sources=bindings)
        with pytest.raises(ValueError, match="from_split needs head nodes that read one feature set"):
            kind.from_split("phase", split=None)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        EvalPhase("phase", input_sources=bindings[:1], active_nodes=["a"], batch_size=0)
    sampled = [InputBinding.for_training(node="a", sampler=SimpleSampler(), upstream=line)]
    assert EvalPhase("phase", input_sources=sampled, active_nodes=["a"]).active_nodes == [sampled[0].node_id]
    with pytest.raises(ValueError, match="passes over all rows"):
        FitPhase("phase", input_sources=sampled, active_nodes=["a"])


def test_no_batches_and_no_rows_are_errors(line, net):
    phase = TrainPhase.from_split("train", split="train", sampler=SimpleSampler(batch_size=9, drop_last=True), losses=[mse(net)])
    with pytest.raises(RuntimeError, match="draws no batch"):
        next(phase.iter_execution())
    line.add_split(FeatureSetView(line, np.empty(0, np.int64), line.get_all_keys(), "empty"))
    with pytest.raises(RuntimeError, match="has no rows"):
        next(EvalPhase.from_split("eval", split="empty").iter_execution())


# -- worked numbers


@pytest.mark.parametrize("backend", ["keydnn", pytest.param("torch", marks=pytest.mark.torch)])
@pytest.mark.parametrize("prefetch", ["auto", "all", "lazy"])
def test_training_by_hand(line, backend, prefetch):
    if backend == "torch":
        torch = pytest.importorskip("torch")
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1, 1))
    else:
        model = linear(1, 1)
    node = ModelNode("net", model, line)
    graph = ModelGraph([node], Optimizer("sgd", opt_kwargs={"lr": 0.01}, backend=backend))
    graph.build()
    node.model.set_weights({name: np.full_like(value, name.endswith("weight")) for name, value in node.model.get_weights().items()})
    loss = AppliedLoss(Loss("mse", backend=backend), node, ["outputs", "targets"])
    sampler = SimpleSampler(batch_size=2)
    phase = TrainPhase.from_split("train", split="train", sampler=sampler, losses=[loss], n_epochs=2, prefetch=prefetch)
    contexts = train(phase, graph)
    assert [(ctx.epoch_idx, ctx.batch_idx) for ctx in contexts] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [rows_of(ctx) for ctx in contexts] == [[{"default": [2, 3]}], [{"default": [4, 6]}]] * 2
    np.testing.assert_allclose([ctx.losses.to_float() for ctx in contexts], [6.5, 19.2469, 0.89197, 3.0914], rtol=1e-5)
    w, b = (float(np.ravel(value)[0]) for value in node.model.get_weights().values())
    np.testing.assert_allclose([w, b], [1.804817, 0.188768], rtol=1e-6)
    evaluation = EvalPhase.from_split("val", split="val", losses=[loss], batch_size=3)
    told = []
    for ctx in evaluation.iter_execution():
        graph.eval_step(ctx, evaluation.losses, active_nodes=evaluation.active_nodes)
        told.append((ctx.losses.to_float(), len(next(iter(ctx.input_views.values())))))
    np.testing.assert_allclose(told, [(0.21842, 3), (1.38653, 1)], rtol=1e-4)


S = BatchSchedulingPolicy


def test_schedules():
    assert [len(schedule([4, 3], policy)) * 2 for policy in S] == [6, 8, 12, 16]
    assert schedule([3, 2], S.ZIP_STRICT) == [(0, 0), (1, 1)]
    assert schedule([3, 2], S.ZIP_CYCLE) == [(0, 0), (1, 1), (2, 0)]
    assert schedule([3, 2], S.ALTERNATE_STRICT) == [(0, None), (None, 0), (1, None), (None, 1)]
    assert schedule([3, 2], S.ALTERNATE_CYCLE) == [(0, None), (None, 0), (1, None), (None, 1), (2, None), (None, 0)]
    assert schedule([3], S.ALTERNATE_CYCLE) == [(0,), (1,), (2,)] and schedule([3, 0], S.ZIP_CYCLE) == []
    assert S.from_value(" Zip_Cycle ") is S.ZIP_CYCLE is S.from_value(S.ZIP_CYCLE)
    with pytest.raises(ValueError, match="unknown batch scheduling policy 3"):
        S.from_value(3)


@pytest.mark.parametrize(("policy", "steps"), [("zip_strict", 6), ("zip_cycle", 8), ("alternate_strict", 12), ("alternate_cycle", 16)])
def test_steps_of_a_phase_with_two_samplers(line, other, policy, steps):
    graph = two(line, other)
    phase = TrainPhase(
        "train", input_sources=two_bindings(line, other), losses=[mse("a", "la"), mse("b", "lb")], n_epochs=2, batch_schedule=policy
    )
    contexts = train(phase, graph)
    assert len(contexts) == steps  # samplers of 4 and 3 batches
    a, b = (graph.get_node(label).node_id for label in "ab")
    if policy.startswith("zip"):
        assert all(set(ctx.outputs) == {a, b} for ctx in contexts)
    else:
        for i, ctx in enumerate(contexts):
            active, resting = (a, b) if i % 2 == 0 else (b, a)
            masked = [batch for (node_id, _), batch in ctx.inputs.items() if node_id == resting]
            assert [batch.is_masked for batch in masked] == [True] and not masked[0].role_weights["default"].any()
            assert set(ctx.outputs) == {active}
            assert ctx.losses.where(node=resting).to_float() == 0.0
            assert [batch.is_masked for (node_id, _), batch in ctx.inputs.items() if node_id == active] == [False]


# -- sharing


def test_equal_samplers_on_the_same_rows_share_one_run(line):
    nodes = [ModelNode(name, linear(1, 1), line) for name in "abc"]
    with pytest.warns(UserWarning):
        graph = ModelGraph(nodes, sgd())

    def bound(node, split="train", **options):
        sampler = SimpleSampler(**{"batch_size": 2, "shuffle": True, "seed": 3, **options})
        return InputBinding.for_training(node=node, sampler=sampler, upstream=line, split=split)

    losses = [mse(node, node.label) for node in nodes]
    shared = TrainPhase("p", input_sources=[bound("a"), bound("b"), bound("c", seed=4)], losses=losses)
    for ctx in train(shared, graph):
        a, b, c = rows_of(ctx)
        assert a == b != c
        first, second = [view for (node_id, _), view in ctx.input_views.items() if node_id != nodes[2].node_id]
        assert first is second
    other = TrainPhase("q", input_sources=[bound("a"), bound("b", "val"), bound("c")], losses=losses)
    for ctx in train(other, graph):
        rows = {node_id: view.rows("default").tolist() for (node_id, _), view in ctx.input_views.items()}
        a, b, c = (rows[node.node_id] for node in nodes)
        assert a == c and not set(a) & set(b)


def test_one_sampler_object_on_two_splits_draws_from_both(line):
    nodes = [ModelNode(name, linear(1, 1), line) for name in "ab"]
    with pytest.warns(UserWarning):
        graph = ModelGraph(nodes, sgd())
    sampler = SimpleSampler(batch_size=2)
    sources = [InputBinding.for_training(node=n, sampler=sampler, upstream=line, split=s) for n, s in (("a", "train"), ("b", "val"))]
    phase = TrainPhase("p", input_sources=sources, losses=[mse("a", "la"), mse("b", "lb")])
    for _ in range(2):
        told = [[rows["default"] for rows in rows_of(ctx)] for ctx in train(phase, graph)]
        assert told == [[[2, 3], [0, 1]], [[4, 6], [5, 7]]]


def test_repeated_runs_see_the_same_batches_and_resampling_other_ones(line, net):
    def rows(resample, **options):
        sampler = SimpleSampler(batch_size=2, shuffle=True, seed=5, **options)
        losses = [mse(net)]
        phase = TrainPhase.from_split("p", split=None, sampler=sampler, losses=losses, n_epochs=3, resample=resample, prefetch="lazy")
        runs = [[rows_of(ctx)[0]["default"] for ctx in phase.iter_execution()] for _ in range(2)]
        assert runs[0] == runs[1]
        return [runs[0][i : i + 4] for i in (0, 4, 8)]

    never, epoch, full = rows("never"), rows("epoch"), rows("epoch_full")
    assert never[0] == never[1] == never[2]
    assert epoch[0] != epoch[1] != epoch[2] and epoch == full
    assert all(sorted(sum(one, [])) == list(range(8)) for one in epoch)


def test_pairs_are_drawn_anew_only_in_full(line, net):
    def pairs(resample):
        sampler = PairedSampler({"t": SimilarityCondition()}, max_pairs_per_anchor=1, batch_size=8, seed=1)
        loss = AppliedLoss(Loss("mse", backend="keydnn"), net, ["outputs.anchor", "outputs.pair"])
        phase = TrainPhase.from_split("p", split=None, sampler=sampler, losses=[loss], n_epochs=4, resample=resample)
        told = [rows_of(ctx)[0] for ctx in phase.iter_execution()]
        return [sorted(zip(one["anchor"], one["pair"], strict=True)) for one in told]

    kept, drawn = pairs("epoch"), pairs("epoch_full")
    assert kept[0] == kept[1] == kept[2] == kept[3]
    assert len({tuple(one) for one in drawn}) > 1


# -- what does not learn


@pytest.mark.parametrize("backend", ["keydnn", pytest.param("torch", marks=pytest.mark.torch)])
@pytest.mark.parametrize("own", [False, True], ids=["graph-wise", "stage-wise"])
def test_inactive_branches_are_untouched(line, other, backend, own):
    """Neither momentum nor weight decay moves the weights, nor do batch statistics change."""
    if backend == "torch":
        nn = pytest.importorskip("torch").nn
        models = [nn.Sequential(nn.Flatten(), nn.BatchNorm1d(1), nn.Linear(1, 1)) for _ in range(2)]
        options = {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}
    else:
        models = [keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.BatchNorm1d(1), keydnn.nn.Linear(1, 1)) for _ in range(2)]
        options = {"lr": 0.01, "weight_decay": 0.1}

    def optimizer():
        return Optimizer("adamw" if backend == "keydnn" else "sgd", opt_kwargs=options, backend=backend)

    nodes = [ModelNode(n, m, fs, optimizer() if own else None) for n, m, fs in zip("ab", models, (line, other), strict=True)]
    with pytest.warns(UserWarning):
        graph = ModelGraph(nodes, None if own else optimizer())
    graph.build()
    losses = [AppliedLoss(Loss("mse", backend=backend), node, ["outputs", "targets"], label=node.label) for node in nodes]
    phase = TrainPhase(
        "p", input_sources=two_bindings(line, other), losses=losses, n_epochs=3, batch_schedule=BatchSchedulingPolicy.ALTERNATE_CYCLE
    )
    before = [node.model.get_weights() for node in nodes]
    for i, ctx in enumerate(phase.iter_execution()):
        graph.train_step(ctx, phase.losses, active_nodes=phase.active_nodes)
        after = [node.model.get_weights() for node in nodes]
        for j in range(2):
            same = [np.array_equal(before[j][name], after[j][name]) for name in after[j]]
            assert all(same) if j != i % 2 else not any(same[-2:]), (i, j)
        before = after


def test_a_merge_of_an_active_and_an_inactive_branch_rests(line, other):
    a, b = ModelNode("a", linear(1, 2), line), ModelNode("b", linear(1, 2), other)
    merge = ConcatNode("merge", [a, b], concat_axis_targets="first")
    tail = ModelNode("tail", linear(4, 1), merge)
    graph = ModelGraph([a, b, merge, tail], sgd())
    graph.build()
    losses = [mse(tail, "joint"), AppliedLoss(Loss(lambda out: out * out, backend="keydnn"), a, ["outputs"], label="small")]
    phase = TrainPhase("p", input_sources=two_bindings(line, other), losses=losses, batch_schedule="alternate_strict")
    state = {node.label: node.model.get_weights() for node in (a, b, tail)}
    for ctx in train(phase, graph):
        assert ctx.losses.at(node=tail, label="joint").to_float() == 0.0
    assert all(np.array_equal(state["b"][name], value) for name, value in b.model.get_weights().items())
    assert all(np.array_equal(state["tail"][name], value) for name, value in tail.model.get_weights().items())
    assert not all(np.array_equal(state["a"][name], value) for name, value in a.model.get_weights().items())


@pytest.mark.parametrize("compiled", [True, False])
def test_freeze_flags_are_the_users(line, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr("keydnn.experiment.graph.recorded.usable", lambda: False)
    a = ModelNode("a", linear(1, 3), line)
    b = ModelNode("b", linear(3, 3), a)
    c = ModelNode("c", linear(3, 1), b)
    graph = ModelGraph([a, b, c], sgd())
    graph.build()
    b.freeze()
    start = {node.label: node.model.get_weights() for node in (a, b, c)}

    def moved():
        told = {n.label: n.model.get_weights() for n in (a, b, c)}
        return {n for n, w in told.items() if any(not np.array_equal(w[k], start[n][k]) for k in w)}

    sampler = SimpleSampler(batch_size=2)
    phase = TrainPhase.from_split("p", split=None, sampler=sampler, losses=[mse(c)], active_nodes=["b", "c"], n_epochs=2)
    assert [binding.node_id for binding in phase.input_sources] == [a.node_id]  # the head that runs, though it is not active
    train(phase, graph)
    assert moved() == {"c"} and [node.is_frozen for node in (a, b, c)] == [False, True, False]
    iterator = phase.iter_execution()
    next(iterator)
    assert a.is_frozen  # inside a step
    iterator.close()
    assert not a.is_frozen
    train(TrainPhase.from_split("q", split=None, sampler=sampler, losses=[mse(c)]), graph)
    assert moved() == {"a", "c"} and b.is_frozen


# -- configs and groups


def test_configs_of_phases(line, net):
    sampler = SimpleSampler(batch_size=2, seed=1)
    options = {"n_epochs": 3, "batch_schedule": "zip_cycle", "accelerator": "cpu", "resample": "epoch", "prefetch": "lazy", "accumulate": 2}
    options["keep"] = ("targets", "outputs")
    phase = TrainPhase.from_split("train", split="train", sampler=sampler, losses=[mse(net)], result_recording="last", **options)
    common = ["label", "input_sources", "losses", "active_nodes", "callbacks", "accelerator", "phase_type"]
    extra = ["n_epochs", "batch_schedule", "checkpointing", "result_recording", "resample", "accumulate", "prefetch", "keep", "precision"]
    assert list(phase.get_config()) == [*common, *extra] and phase.get_config()["keep"] == ["outputs", "targets"]
    evaluation = EvalPhase.from_split("val", split="val", losses=[mse(net)], batch_size=3)
    assert list(evaluation.get_config()) == [*common, "batch_size"]
    fit = FitPhase.from_split("fit", split=None, freeze_after_fit=False)
    assert list(fit.get_config()) == [*common, "freeze_after_fit"]
    for one in (phase, evaluation, fit):
        again = ExperimentPhase.from_config(one.get_config())
        assert type(again) is type(one) and again == one and again is not one
        assert type(one).from_config(one.get_config()) == one
    assert phase != TrainPhase.from_split("train", split="train", sampler=sampler, losses=[mse(net)])
    with pytest.raises(ValueError, match="expected TrainPhase"):
        TrainPhase.from_config(evaluation.get_config())
    with pytest.raises(ValueError, match="expected EvalPhase, FitPhase, TrainPhase"):
        ExperimentPhase.from_config({**fit.get_config(), "phase_type": "Other"})
    assert repr(phase) == "TrainPhase('train', 1 nodes, 1 losses, 3 epochs)"


def test_phases_find_their_feature_set_by_id(line, net):
    phase = EvalPhase.from_split("val", split="val", batch_size=3)
    line.label = "renamed"
    assert [rows_of(ctx) for ctx in phase.iter_execution()] == [[{"default": [0, 1, 5]}], [{"default": [7]}]]


def test_a_stop_is_forgotten_by_the_next_run(line, net):
    phase = TrainPhase.from_split("p", split=None, sampler=SimpleSampler(batch_size=4), losses=[mse(net)], n_epochs=3)
    seen = []
    for ctx in phase.iter_execution():
        seen.append(ctx.epoch_idx)
        phase.request_stop()
    assert seen == [0, 0] and phase.stop_requested
    assert len(list(phase.iter_execution())) == 6 and not phase.stop_requested


@pytest.fixture
def phases(line, net):
    sampler = SimpleSampler(batch_size=2, seed=1)
    train_phase = TrainPhase.from_split("train", split="train", sampler=sampler, losses=[mse(net)])
    return train_phase, EvalPhase.from_split("val", split="val"), FitPhase.from_split("fit", split=None)


def test_groups(phases):
    first, second, third = phases
    inner = PhaseGroup("inner", [second])
    group = PhaseGroup("plan", [first]).add_group(inner).add_phase(third)
    assert group.all == [first, inner, third] and len(group) == 3 and "inner" in group and second not in group
    assert list(group.phases) == ["train", "fit"] and list(group.phase_groups) == ["inner"]
    assert group.flatten() == [first, second, third] and [label for label, _ in group.items()] == ["train", "inner", "fit"]
    assert group[0] is group["train"] is group.get_phase(0) is group.get_train_phase("train") is first
    assert group.get_group("inner") is inner and inner.get_eval_phase(0) is second and group.get_fit_phase(-1) is third
    assert PhaseGroup.from_config(group.get_config()) == group != inner
    assert [item["item_type"] for item in group.get_config()["items"]] == ["phase", "group", "phase"]
    for call, error in [
        (lambda: group.get_phase("gone"), KeyError),
        (lambda: group.get_phase("inner"), TypeError),
        (lambda: group.get_eval_phase("train"), TypeError),
        (lambda: group.get_group("train"), ValueError),
        (lambda: group.get_group("gone"), KeyError),
        (lambda: group.add_phase(first), ValueError),
        (lambda: group.add_phase(inner), TypeError),
        (lambda: group.add_group(PhaseGroup("plan")), ValueError),
        (lambda: group.add_group(PhaseGroup("loop", [group])), ValueError),
        (lambda: group.add_items([PhaseGroup("new"), first]), ValueError),
        (lambda: group.remove_phase("inner"), KeyError),
        (lambda: group.remove_items(["train", "gone"]), KeyError),
        (lambda: PhaseGroup(""), ValueError),
        (lambda: PhaseGroup(3), TypeError),
        (lambda: PhaseGroup("p", [3]), TypeError),
    ]:
        with pytest.raises(error):
            call()
        assert group.all == [first, inner, third]
    assert group.remove_group("inner").remove_phase(first).all == [third]
    assert group.clear().all == [] and group.add_items([first, second]) is None and group.remove_items([0, "val"]) is None
    with pytest.raises(ValueError, match="'plan' is taken"):
        group.clear().add_group(PhaseGroup("plan"))


def test_groups_make_phases(phases, net):
    told = phases[0].input_sources
    group = PhaseGroup("plan")
    group.add_train_phase("a", input_sources=told, losses=[mse(net)], n_epochs=2, prefetch="lazy", keep="outputs").add_training(
        "b", input_sources=told, losses=[mse(net)]
    ).add_train("c", input_sources=told, losses=[mse(net)])
    evaluated = phases[1].input_sources
    group.add_eval_phase("d", input_sources=evaluated, batch_size=2).add_eval("e", input_sources=evaluated)
    group.add_evaluation("f", input_sources=evaluated).add_fit("g", input_sources=evaluated)
    group.add_fit_phase("h", input_sources=evaluated, freeze_after_fit=False)
    assert "".join(group.phases) == "abcdefgh" and group.get_train_phase("a").n_epochs == 2
    assert group.get_eval_phase("d").batch_size == 2 and group.get_fit_phase("h").freeze_after_fit is False
