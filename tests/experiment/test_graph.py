"""Graphs: building, edits, steps, freezing, merging."""

import warnings

import numpy as np
import pytest

import keydnn
from keydnn.experiment import FeatureSet
from keydnn.experiment.data import Batch, BatchView, ExecutionContext, RoleData, SampleData
from keydnn.experiment.errors import BackendMismatchError, GraphConnectivityError, GraphNodeInputError
from keydnn.experiment.graph import AddNode, ConcatNode, MeanNode, MergeStrategy, ModelGraph, ModelNode, MultiplyNode, PadMode
from keydnn.experiment.models.keydnn import SequentialMLP
from keydnn.experiment.training import AppliedLoss, Loss, Optimizer


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return FeatureSet.from_dict(
        "rows", {"x": rng.standard_normal((32, 4)).astype("f4"), "y": rng.standard_normal(32).astype("f4")}, "x", "y"
    )


def linear(n_in, n_out):
    return keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.Linear(n_in, n_out))


def sgd():
    return Optimizer("sgd", opt_kwargs={"lr": 0.05}, backend="keydnn")


def chain(rows, own=False):
    a = ModelNode("a", linear(4, 3), rows, sgd() if own else None)
    b = ModelNode("b", linear(3, 2), a, sgd() if own else None)
    c = ModelNode("c", linear(2, 1), b, sgd() if own else None)
    return ModelGraph([a, b, c], None if own else sgd())


def step(graph, rows, kind, losses, n=8, **options):
    ctx = ExecutionContext("p", 0, 0)
    batch = BatchView(rows, {"default": np.arange(n)}).materialize_batch()
    for node in graph.head_nodes.values():
        for reference in node.get_upstream_refs():
            ctx.set_input(node_id=node.node_id, upstream=reference, batch=batch)
    getattr(graph, f"{kind}_step")(ctx, losses, **options)
    return ctx


def on(node, label=None):
    return AppliedLoss(Loss("mse", backend="keydnn"), node, ["outputs", "targets"], label=label)


def weights(graph):
    return {node.label: node.model.get_weights() for node in graph.nodes.values() if isinstance(node, ModelNode)}


def changed(before, after):
    return {name for name in before if any(not np.array_equal(before[name][key], after[name][key]) for key in before[name])}


# -- construction


def test_a_chain(rows):
    graph = chain(rows)
    assert list(graph.head_nodes.values())[0].label == "a" and [n.label for n in graph.tail_nodes.values()] == ["c"]
    assert graph.node_labels == {"a", "b", "c"} and graph.backend.value == "keydnn" and not graph.is_built
    graph.build()
    assert graph.is_built and [node.output_shape for node in graph.nodes.values()] == [(3,), (2,), (1,)]
    assert "a (3,)" in graph.summary() and repr(graph) == "ModelGraph('model-graph', 3 nodes, built)"
    a, b, _ = graph.nodes.values()
    assert [ref.node_label for ref in a.get_downstream_refs()] == ["b"] and b.upstream_ref.node_id == a.node_id
    told = graph.get_optimizer_parameters()
    assert told["contributing_nodes"] == set(graph.nodes) and len(told["parameters"]) == 6


def test_all_nodes_of_the_context(rows, context):
    a = ModelNode("a", linear(4, 3), rows)
    ModelNode("b", linear(3, 1), a)
    graph = ModelGraph(None, sgd())
    assert graph.node_labels == {"a", "b"} and context.model_graph is graph
    with pytest.raises(ValueError, match="is registered"):
        ModelGraph(None, sgd())


def test_an_output_shape_is_found_from_the_targets(rows):
    node = ModelNode("net", SequentialMLP(), rows)
    ModelGraph([node], sgd()).build()
    assert node.input_shape == (1, 4) and node.output_shape == (1, 1)


def test_a_model_with_an_output_shape_of_its_own_keeps_it(rows):
    node = ModelNode("net", linear(4, 7), rows)
    ModelGraph([node], sgd()).build()
    assert node.output_shape == (7,)


def test_what_no_graph_is_made_of(rows, context):
    a = ModelNode("a", linear(4, 3), rows)
    b = ModelNode("b", linear(3, 1), a)
    with pytest.raises(ValueError, match="no node 'gone'"):
        ModelGraph(["gone"], sgd(), register=False)
    with pytest.raises(TypeError, match="compute nodes"):
        ModelGraph([rows], sgd(), register=False)
    with pytest.raises(ValueError, match="two nodes"):
        ModelGraph([a, a], sgd(), register=False)
    with pytest.raises(GraphConnectivityError, match="'a', which is no node of this graph"):
        ModelGraph([b], sgd(), register=False)
    with pytest.raises(RuntimeError, match="'a', 'b' have no optimizer"):
        ModelGraph([a, b], register=False)
    a.set_upstream_refs([b])
    with pytest.raises(ValueError, match="cycle"):
        ModelGraph([a, b], sgd(), register=False)
    assert context.model_graph is None


def test_what_no_node_is_made_of(rows):
    with pytest.raises(TypeError, match="exactly one input"):
        ModelNode("a", linear(4, 3), [rows, rows])
    with pytest.raises(TypeError, match="must be a FeatureSet"):
        ModelNode("a", linear(4, 3), 3)
    with pytest.raises(TypeError, match="must be an Optimizer"):
        ModelNode("a", linear(4, 3), rows, 3)
    with pytest.raises(BackendMismatchError):
        ModelNode("a", linear(4, 3), rows, Optimizer(type("Own", (), {"__module__": "torch.optim"}), opt_kwargs={}))
    from keydnn.experiment.references import GraphNodeReference

    with pytest.raises(ValueError, match="no node"):
        ModelNode("a", linear(4, 3), GraphNodeReference("gone"))


def test_optimizer_rules(rows):
    sklearn = pytest.importorskip("sklearn.linear_model")
    tree = ModelNode("ridge", sklearn.Ridge(), rows)
    with pytest.raises(RuntimeError, match="no node of the graph learns"):
        ModelGraph([tree], sgd(), register=False)
    a = ModelNode("a", linear(4, 3), rows, sgd())
    with pytest.warns(UserWarning, match="those of 'a' are dropped"):
        ModelGraph([a], sgd(), register=False)
    assert a.optimizer is None
    middle = ModelNode("middle", sklearn.Ridge(), a)
    last = ModelNode("last", linear(1, 1), middle)
    with pytest.raises(RuntimeError, match="stands between"):
        ModelGraph([a, middle, last], sgd(), register=False)


def test_lonely_nodes_are_told(rows):
    nodes = [ModelNode(name, linear(4, 1), rows) for name in ("left", "right")]
    with pytest.warns(UserWarning, match="'left', 'right' are connected to no other"):
        ModelGraph(nodes, sgd())


# -- steps


def test_graph_wise_training_lowers_the_loss_and_moves_every_node(rows):
    graph = chain(rows)
    graph.build()
    before = weights(graph)
    losses = [step(graph, rows, "train", [on("c")]).losses.to_float() for _ in range(60)]
    assert losses[-1] < 0.7 * losses[0] and changed(before, weights(graph)) == {"a", "b", "c"}


def test_outputs_of_a_step_have_no_history(rows):
    graph = chain(rows)
    ctx = step(graph, rows, "train", [on("c")])
    assert set(ctx.outputs) == set(graph.nodes)
    assert not any(batch.outputs.requires_grad for batch in ctx.outputs.values())
    assert np.array_equal(next(iter(ctx.outputs.values())).sample_uuids, rows.get_sample_uuids()[:8])


def test_stage_wise_training_moves_only_nodes_with_a_loss(rows):
    graph = chain(rows, own=True)
    graph.build()
    before = weights(graph)
    narrow = AppliedLoss(Loss(lambda outputs: outputs * outputs), "a", ["outputs"], label="size")
    ctx = step(graph, rows, "train", [on("c"), narrow])
    assert changed(before, weights(graph)) == {"a", "c"}
    assert ctx.losses.loss_labels == ["mse", "size"] and ctx.losses.where(node="a").trainable.item() > 0


def test_frozen_nodes_stay_as_they_are_in_every_step(rows):
    for own in (False, True):
        with warnings.catch_warnings():
            graph = chain(rows, own)
        graph.build()
        graph.freeze(["a", "b"])
        assert {node.label for node in graph.frozen_nodes.values()} == {"a", "b"}
        before = weights(graph)
        step(graph, rows, "train", [on("c")])
        step(graph, rows, "eval", [on("c")])
        step(graph, rows, "fit", [on("c")])
        assert changed(before, weights(graph)) == {"c"}
        graph.freeze()
        with pytest.raises(ValueError, match="is frozen"):
            step(graph, rows, "train", [on("c")])
        graph.unfreeze("a")
        if not own:
            before = weights(graph)
            step(graph, rows, "train", [on("c")])
            assert changed(before, weights(graph)) == {"a"}  # gradients pass through frozen nodes
        for label in "abc":
            graph_node = next(node for node in graph.nodes.values() if node.label == label)
            from keydnn.experiment.context import ExperimentContext

            ExperimentContext.get_active().remove_node(node_id=graph_node.node_id)
        ExperimentContext.get_active().remove_model_graph()


def test_unfreezing_gives_each_parameter_its_own_flag_back(rows):
    node = ModelNode("net", linear(4, 1), rows)
    node.build_model((1, 4))
    first, second = node.parameters()
    second.requires_grad = False
    node.freeze()
    assert not first.requires_grad
    node.unfreeze()
    assert first.requires_grad and not second.requires_grad


def test_modes_follow_the_step(rows):
    seen = []

    class Spy(keydnn.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = keydnn.nn.Linear(4, 1)

        def forward(self, x):
            seen.append(self.training)
            return self.inner(x.reshape((x.shape[0], 4)))

    graph = ModelGraph([ModelNode("net", Spy(), rows)], sgd())
    graph.build()
    (node,) = graph.nodes.values()
    seen.clear()
    node.model.eval()
    step(graph, rows, "train", [on("net")])
    step(graph, rows, "eval", [on("net")])
    assert seen == [True, False] and node.model.module.training  # as the training step left it
    graph.freeze()
    node.eval_step(step(graph, rows, "eval", []).__class__("p", 0, 0, inputs=step(graph, rows, "eval", []).inputs), [on("net")])
    assert seen[-1] is False


def test_active_nodes_run_with_all_they_read(rows):
    graph = chain(rows)
    ctx = step(graph, rows, "eval", [on("b", "b"), on("c", "c")], active_nodes=["b"])
    labels = {graph.nodes[node_id].label for node_id in ctx.outputs}
    assert labels == {"a", "b"}
    with pytest.raises(ValueError, match="no loss sits"):
        step(graph, rows, "train", [on("c")], active_nodes=["b"])
    with pytest.raises(ValueError, match="no node of this graph"):
        step(graph, rows, "eval", [], active_nodes=["gone"])


def test_forward(rows):
    graph = chain(rows)
    head = next(iter(graph.head_nodes.values()))
    inputs = {(head.node_id, head.upstream_ref): BatchView(rows, {"default": np.arange(3)})}
    with pytest.raises(RuntimeError, match="not built"):
        graph(inputs)
    graph.build()
    outputs = graph(inputs, active_nodes=["b"])
    assert {graph.nodes[node_id].label: out.outputs.shape for node_id, out in outputs.items()} == {"a": (3, 3), "b": (3, 2)}
    with pytest.raises(KeyError, match="feature set 'rows'"):
        graph({})


def test_node_steps_refuse_what_they_cannot_do(rows):
    node = ModelNode("net", linear(4, 1), rows, sgd())
    ctx = ExecutionContext("p", 0, 0)
    ctx.set_input(node_id=node.node_id, upstream=node.upstream_ref, batch=BatchView(rows, {"default": np.arange(4)}).materialize_batch())
    with pytest.raises(RuntimeError, match="is not frozen"):
        node.eval_step(ctx)
    with pytest.raises(AttributeError, match="no fit method"):
        node.fit_step(ctx)
    with pytest.raises(ValueError, match="no loss on node"):
        node.train_step(ctx, [])
    node.freeze()
    with pytest.raises(RuntimeError, match="is frozen"):
        node.train_step(ctx, [on(node)])
    with pytest.raises(RuntimeError, match="is frozen"):
        node.fit_step(ctx)
    bare = ModelNode("bare", linear(4, 1), rows)
    with pytest.raises(RuntimeError, match="no optimizer"):
        bare.train_step(ExecutionContext("p", 0, 0), [on(bare)], data=next(iter(ctx.inputs.values())))


def test_fit_step_of_an_estimator_behind_a_network(rows):
    sklearn = pytest.importorskip("sklearn.linear_model")
    a = ModelNode("a", linear(4, 3), rows, sgd())
    graph = ModelGraph([a, ModelNode("ridge", sklearn.Ridge(alpha=1e-6), a)])
    graph.freeze("a")
    loss = AppliedLoss(Loss("mse", backend="scikit"), "ridge", ["outputs", "targets"])
    ctx = step(graph, rows, "fit", [loss], n=32)
    features = ctx.outputs[a.node_id].outputs.numpy()
    y = rows.get_targets()["y"].reshape(-1)
    expected = sklearn.Ridge(alpha=1e-6).fit(features, y).predict(features)
    assert ctx.losses.to_float() == pytest.approx(np.mean((expected - y) ** 2), rel=1e-5)
    assert {node.label for node in graph.frozen_nodes.values()} == {"a", "ridge"}
    with pytest.raises(ValueError, match="is frozen"):
        step(graph, rows, "train", [loss])


# -- state


def test_state_brings_everything_back(rows):
    graph = chain(rows)
    step(graph, rows, "train", [on("c")])
    graph.freeze("a")
    state, before = graph.get_state(), weights(graph)
    graph.unfreeze()
    step(graph, rows, "train", [on("c")])
    graph.set_state(state)
    assert changed(before, weights(graph)) == set() and [n.label for n in graph.frozen_nodes.values()] == ["a"]
    state["nodes"].pop(next(iter(graph.nodes)))
    with pytest.raises(KeyError, match="lacks"):
        graph.set_state(state)


def test_reset(rows):
    graph = chain(rows)
    graph.build()
    before = weights(graph)
    graph.reset_state()
    assert changed(before, weights(graph)) == {"a", "b", "c"} and graph.is_built


def test_config_makes_the_same_graph(rows, context):
    a = ModelNode("a", SequentialMLP(hidden_dim=5, output_shape=(1, 6)), rows)
    graph = ModelGraph([a, ModelNode("b", SequentialMLP(n_layers=1), a)], sgd())
    graph.build()
    config, state = graph.get_config(), graph.get_state()
    context.remove_model_graph()
    for node_id in list(graph.nodes):
        context.remove_node(node_id=node_id)
    twin = ModelGraph.from_config(config)
    twin.set_state(state)
    assert twin.node_labels == {"a", "b"} and twin.is_built and changed(weights(graph), weights(twin)) == set()


# -- edits


def test_edits_rewire_and_keep_weights(rows):
    graph = chain(rows)
    graph.build()
    before = weights(graph)
    new = ModelNode("new", linear(3, 3), "a")
    graph.insert_node_between(new, upstream="a", downstream="b")
    graph.build()
    assert "new (3,)" in graph.summary() and not changed(before, {name: weights(graph)[name] for name in before})
    graph.remove_node("new").build()
    assert graph.node_labels == {"a", "b", "c"} and new.get_upstream_refs() == []
    graph.insert_node_before(ModelNode("front", linear(4, 4), rows), downstream="a").build()
    assert [node.label for node in graph.head_nodes.values()] == ["front"]
    graph.remove_node("front").build()  # its feature set goes to the consumers
    assert [node.label for node in graph.head_nodes.values()] == ["a"]
    graph.insert_node_after(ModelNode("side", linear(3, 1), "a"), upstream="a").build()
    assert {node.label for node in graph.tail_nodes.values()} == {"c", "side"}
    graph.replace_node("side", ModelNode("other", linear(3, 2), "a")).build()
    assert "other" in graph.node_labels and "side" not in graph.node_labels
    graph.add_node(ModelNode("third", linear(2, 1), "other")).build()
    assert not changed(before, {name: weights(graph)[name] for name in before})
    assert step(graph, rows, "train", [on("c")]).losses.to_float() > 0


def test_a_node_whose_input_changed_starts_anew_and_says_so(rows):
    a = ModelNode("a", SequentialMLP(n_layers=1, output_shape=(1, 6)), rows)
    b = ModelNode("b", SequentialMLP(n_layers=1, output_shape=(1, 2)), a)
    graph = ModelGraph([a, b], sgd())
    graph.build()
    before = weights(graph)
    graph.remove_node("a")
    with pytest.warns(UserWarning, match=r"'b' was built for inputs of shape \(1, 6\) and now gets \(1, 4\)"):
        graph.build()
    assert b.input_shape == (1, 4) and before["b"].keys() == weights(graph)["b"].keys()


def test_edits_that_do_not_hold_change_nothing(rows):
    graph = chain(rows)
    graph.build()
    c = next(iter(graph.tail_nodes.values()))
    before = graph.summary(), c.get_upstream_refs()
    d = ModelNode("d", linear(1, 1), "c")
    with pytest.raises(ValueError, match="does not read"):
        graph.insert_node_between(d, upstream="a", downstream="c")
    with pytest.raises(ValueError, match="in this graph already"):
        graph.add_node("a")
    with pytest.raises(TypeError):
        graph.remove_node(3)
    with pytest.raises(ValueError, match="no node of this graph"):
        graph.remove_node("d")
    lost = ModelNode("lost", linear(1, 1), "d")
    with pytest.raises(GraphConnectivityError):
        graph.add_node(lost)
    hidden = ModelNode("hidden", linear(2, 1), "b", register=False)
    with pytest.raises(KeyError, match="not registered"):
        graph.add_node(hidden)
    assert (graph.summary(), c.get_upstream_refs()) == before and graph.is_built


def test_a_node_of_one_input_does_not_take_two(rows):
    a, b = (ModelNode(name, linear(4, 2), rows) for name in "ab")
    both = ConcatNode("both", [a, b])
    c = ModelNode("c", linear(4, 1), both)
    graph = ModelGraph([a, b, both, c], sgd())
    before = graph.summary()
    with pytest.raises(GraphNodeInputError, match="'c' takes at most 1"):
        graph.remove_node("both")
    assert graph.summary() == before
    with pytest.raises(GraphNodeInputError, match="at most 1"):
        c.add_upstream_ref(a)
    with pytest.raises(RuntimeError, match="at most one"):
        _ = both.upstream_ref


def test_order_of_inputs_survives_a_replacement(rows):
    a, b = (ModelNode(name, linear(4, 2), rows) for name in "ab")
    both = ConcatNode("both", [a, b], -1)
    graph = ModelGraph([a, b, both], sgd())
    graph.replace_node("a", ModelNode("z", linear(4, 3), rows))
    assert [ref.node_label for ref in both.get_upstream_refs()] == ["z", "b"]


# -- merging


def pair(rows):
    return [ModelNode(name, linear(4, 2), rows) for name in ("left", "right")]


def sample(shape, targets=None, uuids=None, tags=None):
    rng = np.random.default_rng(abs(hash(shape)) % 100)
    return SampleData(features=rng.standard_normal(shape).astype("f4"), targets=targets, sample_uuids=uuids, tags=tags)


@pytest.mark.parametrize(
    ("shapes", "axis", "merged"),
    [
        (((1, 8), (1, 4)), -1, (1, 12)),
        (((1, 8), (1, 8)), 0, (2, 8)),
        (((1, 8), (1, 8)), 1, (1, 16)),
        (((1, 2, 3), (4, 2, 3)), -3, (5, 2, 3)),
    ],
)
def test_concatenation(rows, shapes, axis, merged):
    node = ConcatNode("both", pair(rows), axis)
    values = [sample((5, *shape)) for shape in shapes]
    got = node.merge(values)
    assert got.features.shape == (5, *merged) and node.output_shape == merged
    assert np.array_equal(got.features, np.concatenate([value.features for value in values], axis if axis < 0 else axis + 1))


def test_targets_of_one_feature_set(rows):
    targets = np.arange(5.0)[:, None]
    values = [sample((5, 1, 8), targets), sample((5, 1, 4), targets)]
    with pytest.warns(UserWarning, match="'first' keeps one"):
        assert ConcatNode("both", pair(rows), -1).merge(values).targets.shape == (5, 2)


@pytest.mark.parametrize(("strategy", "value"), [("first", 1.0), ("LAST", 3.0), (MergeStrategy.MEAN, 2.0), ("right", 3.0)])
def test_strategies_for_targets(rows, strategy, value):
    values = [sample((2, 1, 3), np.full((2, 1), number)) for number in (1.0, 3.0)]
    node = ConcatNode("both", pair(rows), -1, concat_axis_targets=strategy)
    assert np.array_equal(node.merge(values).targets, np.full((2, 1), value))
    with pytest.raises(TypeError, match="target_axis"):
        _ = node.target_axis
    assert node.tags_axis == -1


def test_a_domain_that_some_input_lacks(rows):
    values = [sample((2, 1, 3), np.ones((2, 1))), sample((2, 1, 3))]
    with pytest.warns(UserWarning, match="no targets"):
        assert ConcatNode("both", pair(rows), -1).merge(values).targets is None


@pytest.mark.parametrize(
    ("mode", "behind"),
    [("constant", [7.0, 7.0]), ("reflect", [4.0, 3.0]), ("replicate", [5.0, 5.0]), (PadMode.CIRCULAR, [0.0, 1.0])],
)
@pytest.mark.parametrize("framework", ["numpy", "keydnn", pytest.param("torch", marks=pytest.mark.torch)])
def test_padding(rows, mode, behind, framework):
    long, short = np.zeros((1, 2, 8), "f4"), np.tile(np.arange(6, dtype="f4"), (1, 3, 1))
    node = ConcatNode("both", pair(rows), 0, pad_inputs=True, pad_mode=mode, pad_value=7.0)
    got = node.merge([SampleData(features=value).to_format(framework) for value in (long, short)]).to_format("numpy").features
    assert got.shape == (1, 5, 8)
    assert np.array_equal(got[0, 2:, :6], short[0]) and np.array_equal(got[0, 2:, 6:], np.tile(np.array(behind, "f4"), (3, 1)))


def test_shapes_that_do_not_fit(rows):
    values = [sample((2, 2, 8)), sample((2, 3, 6))]
    with pytest.raises(ValueError, match="pad_inputs=True"):
        ConcatNode("both", pair(rows), 0).merge(values)
    with pytest.raises(ValueError, match="no axis 5"):
        ConcatNode("both2", ["left", "right"], 5).merge(values)
    with pytest.raises(ValueError, match="at most by 1"):
        ConcatNode("both3", ["left", "right"], 0, pad_inputs=True, pad_mode="reflect").merge([sample((2, 2, 8)), sample((2, 2, 2))])
    with pytest.raises(ValueError, match="unknown pad mode"):
        ConcatNode("both4", ["left", "right"], pad_mode="wrap")
    with pytest.raises(ValueError, match="one of its inputs"):
        ConcatNode("both5", ["left", "right"], concat_axis_targets="middle")
    with pytest.raises(GraphNodeInputError, match="two or more"):
        ConcatNode("both6", ["left"])


def test_inputs_of_one_type_and_roles(rows):
    node = ConcatNode("both", pair(rows), -1)
    one = sample((2, 1, 3))
    with pytest.raises(TypeError, match="one type"):
        node.merge([one, RoleData({"default": one})])
    with pytest.raises(ValueError, match="same roles"):
        node.merge([RoleData({"anchor": one}), RoleData({"pair": one})])
    with pytest.raises(RuntimeError, match="not built"):
        _ = node.output_shape


def test_weights_masks_and_ids(rows):
    node = ConcatNode("both", pair(rows), -1)
    ids = np.array(["a", "b"])

    def batch(weight, mask, uuids=ids):
        return Batch(
            2, {"default": sample((2, 1, 3), uuids=uuids)}, None, {"default": np.full(2, weight)}, {"default": np.array(mask, np.int8)}
        )

    got = node.merge([batch(1.0, [1, 1]), batch(3.0, [1, 0])])
    assert got.role_weights["default"].tolist() == [2.0, 2.0] and got.role_masks["default"].tolist() == [1, 0]
    assert np.array_equal(got.sample_uuids, ids)
    with pytest.warns(UserWarning, match="not aligned"):
        assert np.array_equal(node.merge([batch(1.0, [1, 1]), batch(1.0, [1, 1], ids[::-1])]).sample_uuids, ids)


@pytest.mark.parametrize(("cls", "expected"), [(AddNode, 6.0), (MeanNode, 3.0), (MultiplyNode, 8.0)])
def test_elementwise_merges(rows, cls, expected):
    node = cls("both", pair(rows))
    values = [SampleData(features=np.full((2, 3), number), targets=np.full((2, 1), number)) for number in (2.0, 4.0)]
    got = node.merge(values)
    assert np.array_equal(got.features, np.full((2, 3), expected)) and np.array_equal(got.targets, np.full((2, 1), 2.0))
    with pytest.raises(ValueError, match="one shape"):
        node.merge([values[0], SampleData(features=np.ones((2, 4)))])


def test_a_diamond_trains(rows):
    a = ModelNode("a", linear(4, 3), rows)
    left, right = ModelNode("left", linear(3, 2), a), ModelNode("right", linear(3, 2), a)
    both = ConcatNode("both", [left, right], -1, concat_axis_targets="first")
    graph = ModelGraph([a, left, right, both, ModelNode("out", linear(4, 1), both)], sgd())
    losses = [step(graph, rows, "train", [on("out")]).losses.to_float() for _ in range(40)]
    assert losses[-1] < 0.8 * losses[0] and both.output_shape == (4,) and both.backend.value == "keydnn"


# -- recorded steps


def diamond(rows):
    a = ModelNode("a", SequentialMLP(n_layers=1, output_shape=(1, 3)), rows)
    left, right = (ModelNode(name, SequentialMLP(n_layers=1, output_shape=(1, 2)), a) for name in ("left", "right"))
    both = ConcatNode("both", [left, right], -1, concat_axis_targets="first")
    nodes = [a, left, right, both, ModelNode("out", SequentialMLP(dropout=0.3, output_shape=(1, 1)), both)]
    schedule = {"clip_norm": 0.5, "schedule": lambda step: 1.0 / (1 + step)}
    return ModelGraph(nodes, Optimizer("adam", opt_kwargs={"lr": 0.01}, backend="keydnn", **schedule))


def test_recorded_steps_equal_eager_ones(rows, monkeypatch, context):
    from keydnn.experiment.graph import recorded
    from keydnn.kernels.dispatch import native_status

    told = {}
    for is_recorded in (True, False):
        if not is_recorded:
            monkeypatch.setattr(recorded, "usable", lambda: False)
        np.random.seed(3)
        graph = diamond(rows)
        losses = [AppliedLoss(Loss("mse", backend="keydnn"), "out", ["outputs", "targets"], weight=0.5)]
        told[is_recorded] = []
        for i in range(8):
            if i == 5:
                graph.freeze("left")
            ctx = step(graph, rows, "train", losses, n=8 if i < 7 else 5)
            (both,) = [ctx.outputs[n] for n in graph.nodes if graph.nodes[n].label == "both"]
            told[is_recorded].append((ctx.losses.to_float(), both.outputs.numpy(), both.targets.numpy(), both.sample_uuids))
        told[is_recorded].append(weights(graph))
        if is_recorded and native_status().loaded:
            assert graph.plan_report().startswith("plan of")
        context.remove_model_graph()
        for node_id in list(graph.nodes):
            context.remove_node(node_id=node_id)
    for (loss, outputs, targets, ids), (loss2, outputs2, targets2, ids2) in zip(told[True][:-1], told[False][:-1], strict=True):
        assert loss == pytest.approx(loss2, rel=1e-5) and np.allclose(outputs, outputs2, rtol=1e-4, atol=1e-6)
        assert np.array_equal(targets, targets2) and np.array_equal(ids, ids2)
    for name, values in told[True][-1].items():
        for key, value in values.items():
            assert np.allclose(value, told[False][-1][name][key], rtol=1e-4, atol=1e-6), (name, key)


def test_outputs_of_recorded_steps_stay(rows):
    graph = chain(rows)
    first, *_ = [step(graph, rows, "train", [on("c")]) for _ in range(5)]
    before = {node_id: batch.outputs.numpy().copy() for node_id, batch in first.outputs.items()}
    fourth = step(graph, rows, "train", [on("c")])
    kept = {node_id: batch.outputs.numpy().copy() for node_id, batch in fourth.outputs.items()}
    step(graph, rows, "train", [on("c")])
    assert all(np.array_equal(kept[node_id], fourth.outputs[node_id].outputs.numpy()) for node_id in kept)
    assert all(np.array_equal(before[node_id], first.outputs[node_id].outputs.numpy()) for node_id in before)


def test_weighted_batches_are_not_recorded_and_count_as_they_should(rows):
    graph = chain(rows)
    graph.build()
    batch = BatchView(rows, {"default": np.arange(4)}, {"default": np.array([1.0, 0.0, 0.0, 0.0])}).materialize_batch()
    ctx = ExecutionContext("p", 0, 0)
    head = next(iter(graph.head_nodes.values()))
    ctx.set_input(node_id=head.node_id, upstream=head.upstream_ref, batch=batch)
    out = graph({(head.node_id, head.upstream_ref): batch})[next(iter(graph.tail_nodes))].outputs.numpy()
    graph.train_step(ctx, [on("c")])
    assert ctx.losses.to_float() == pytest.approx(float((out[0, 0] - batch.targets[0, 0]) ** 2) / 4, rel=1e-5)
    assert "plan of" not in graph.plan_report()


def test_class_numbers_as_floats_are_recorded_too(rows, monkeypatch, context):
    from keydnn.experiment.graph import recorded
    from keydnn.kernels.dispatch import native_status

    classes = FeatureSet.from_dict("classes", {"x": rows.get_features()["x"], "lot": (np.arange(32) % 3).astype("f4")}, "x", "lot")
    told = []
    for is_recorded in (True, False):
        if not is_recorded:
            monkeypatch.setattr(recorded, "usable", lambda: False)
        np.random.seed(0)
        graph = ModelGraph([ModelNode("net", linear(4, 3), classes)], sgd())
        loss = AppliedLoss(Loss("crossentropy", backend="keydnn"), "net", ["outputs", "targets"])
        steps = [step(graph, classes, "train", [loss], n=16) for _ in range(5)]
        told.append([ctx.losses.to_float() for ctx in steps])
        assert {ctx.outputs[next(iter(graph.nodes))].targets.dtype.name for ctx in steps} == {"float32"}
        if is_recorded and native_status().loaded:
            assert graph.plan_report().startswith("plan of")
        context.remove_model_graph()
        context.remove_node(label="net")
    assert np.allclose(*told, rtol=1e-6)


def test_a_loss_that_reads_another_value_each_step_ends_recording(rows, monkeypatch):
    from keydnn.experiment.graph import recorded
    from keydnn.kernels.dispatch import native_status

    made, settings = [], {"weight": 0.0}
    record = recorded._recorded
    monkeypatch.setattr(recorded, "_recorded", lambda *args: made.append(args) or record(*args))
    graph = chain(rows)
    loss = AppliedLoss(Loss(lambda y, t: ((y - t) ** 2).mean() * settings["weight"], backend="keydnn"), "c", ["outputs", "targets"])
    for i in range(70):
        settings["weight"] = 1.0 / (10 + i)
        before = step(graph, rows, "eval", [loss]).losses.to_float()
        assert step(graph, rows, "train", [loss]).losses.to_float() == pytest.approx(before, rel=1e-5)
    assert len(made) == (65 if native_status().loaded else 0)
