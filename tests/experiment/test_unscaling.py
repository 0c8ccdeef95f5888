"""Targets and outputs of results in the units of their columns: which columns, which scalers, and what cannot be undone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keydnn
from keydnn.experiment import Batch, ConcatNode, EvalResults, FeatureSet, ModelGraph, ModelNode, Optimizer
from keydnn.experiment.backends import Backend
from keydnn.experiment.backends.tensors import to_backend, to_numpy
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import BatchView, ExecutionContext
from keydnn.experiment.scalers import Absolute

N = 8


class Shift:
    """Adds a number per column; no other package is needed."""

    def __init__(self, by=10.0, factor=2.0):
        self.by, self.factor = by, factor

    def fit(self, X):
        return self

    def transform(self, X):
        return X * self.factor + self.by

    def inverse_transform(self, X):
        return (X - self.by) / self.factor


class Mix(Shift):
    """Every column depends on all columns: it cannot be undone for one alone."""

    def fit(self, X):
        self.weights = np.eye(X.shape[1]) + 0.25
        return self

    def transform(self, X):
        return X @ self.weights

    def inverse_transform(self, X):
        return X @ np.linalg.inv(self.weights)


def columns(label="set"):
    rows = np.arange(float(N))
    data = {"x": rows, "a": rows, "b": 100 + rows, "c": 1000 + rows, "w": np.arange(N * 3.0).reshape(N, 3)}
    return FeatureSet.from_dict(label, data, "x", ["a", "b", "c", "w"])


def dense(label, upstream):
    return ModelNode(label, keydnn.Sequential(keydnn.Dense(1)), upstream)


def recorded(node, view, outputs=None, framework="numpy", heads=None):
    """One step of ``view``; the node passes its targets on as outputs, or gives those told."""
    reference = node.upstream_ref if heads is None else heads[0].upstream_ref
    owner = node if heads is None else heads[0]
    names = [*reference.features, *(reference.targets or ())]
    batch = view.materialize_batch(framework, columns=names)
    samples = batch.role_data["default"]
    features = samples.targets if outputs is None else to_backend(np.asarray(outputs), Backend.from_value(framework))
    out = Batch(
        batch.batch_size,
        {"default": samples.with_domains({"features": features}, kind="output")},
        None,
        batch.role_weights,
        batch.role_masks,
    )
    key = (owner.node_id, reference)
    results = EvalResults("e")
    results.add_execution_context(ExecutionContext("e", 0, 0, {key: batch}, {key: view}, {node.node_id: out}))
    results.finish()
    return results


ROWS = np.array([3, 1, 6])


@pytest.mark.parametrize("framework", ["numpy", "keydnn", pytest.param("torch", marks=pytest.mark.torch)])
def test_targets_and_outputs_come_back_in_raw_units(framework):
    fs = columns()
    fs.fit_transform(Shift(), domain="targets", keys=["a", "b"])
    node = dense("net", fs.reference(features="x.raw", targets=["a.transformed", "b.transformed"]))
    results = recorded(node, BatchView(fs, {"default": ROWS}), framework=framework)
    raw = np.stack([ROWS, 100.0 + ROWS], axis=1)
    for domain in ("targets", "outputs"):
        found = results.tensors("net", domain, unscale=True).one()
        assert type(found) is type(results.tensors("net", domain).one())
        np.testing.assert_allclose(to_numpy(found), raw, rtol=1e-6)
        np.testing.assert_allclose(results.stacked_tensors("net", domain, fmt="np", unscale=True), raw, rtol=1e-6)
        np.testing.assert_allclose(to_numpy(results.tensors("net", domain).one()), raw * 2 + 10, rtol=1e-6)


def test_columns_keep_their_order_and_raw_ones_their_values():
    fs = columns()
    fs.fit_transform(Mix(), domain="targets", keys=["c", "a"])  # another order than in the reference
    node = dense("net", fs.reference(features="x.raw", targets=["a.transformed", "b.raw", "c.transformed"]))
    results = recorded(node, BatchView(fs, {"default": ROWS}))
    np.testing.assert_allclose(results.stacked_tensors("net", "targets", unscale=True), np.stack([ROWS, 100 + ROWS, 1000 + ROWS], axis=1))


def test_raw_columns_of_a_scaled_key_are_left_alone():
    fs = columns()
    fs.fit_transform(Shift(), domain="targets", keys=["a"])
    node = dense("net", fs.reference(features="x.raw", targets="a.raw"))
    results = recorded(node, BatchView(fs, {"default": ROWS}))
    kept = results.tensors("net", "targets", unscale=True).one()
    assert kept is results.tensors("net", "targets").one() and kept.reshape(-1).tolist() == ROWS.tolist()


def test_nothing_scaled_is_nothing_changed():
    fs = columns()
    node = dense("net", fs.reference(features="x.raw", targets=["a.raw", "b.raw"]))
    results = recorded(node, BatchView(fs, {"default": ROWS}))
    for domain in ("targets", "outputs"):
        assert (results.stacked_tensors("net", domain, unscale=True) == results.stacked_tensors("net", domain)).all()


def test_tags_and_ids_have_no_units():
    fs = columns()
    results = recorded(dense("net", fs.reference(features="x.raw", targets="a.raw")), BatchView(fs, {"default": ROWS}))
    assert results.stacked_tensors("net", "sample_uuids", unscale=True).tolist() == fs.take(ROWS).get_sample_uuids().tolist()


def test_records_are_those_of_the_run():
    fs = columns()
    fs.fit_transform(Shift(), domain="targets", keys="a")
    results = recorded(dense("net", fs.reference(features="x.raw", targets="a.transformed")), BatchView(fs, {"default": ROWS}))
    fs.undo_all_transforms()
    fs.fit_transform(Shift(by=-5.0), domain="targets", keys="a")
    with ExperimentContext().activate():
        assert results.stacked_tensors("net", "targets", unscale=True).reshape(-1).tolist() == ROWS.tolist()


def test_scalers_on_top_of_each_other_and_beside_each_other():
    fs = columns()
    fs.fit_transform(Shift(by=1.0), domain="targets", keys=["a"])
    fs.fit_transform(Mix(), domain="targets", keys=["a", "b"])
    fs.fit_transform(Shift(by=3.0), domain="targets", keys=["c"])
    node = dense("net", fs.reference(features="x.raw", targets=["a.transformed", "b.transformed", "c.transformed"]))
    results = recorded(node, BatchView(fs, {"default": ROWS}))
    with pytest.warns(
        UserWarning, match="partial"
    ):  # the one on a alone lies under the joint one and may mix columns, as far as anybody knows
        found = results.stacked_tensors("net", "targets", unscale=True)
    np.testing.assert_allclose(found, np.stack([ROWS * 2.0 + 1.0, 100 + ROWS, 1000 + ROWS], axis=1))


def test_a_part_of_a_joint_scaler_cannot_be_undone():
    fs = columns()
    fs.fit_transform(Mix(), domain="targets", keys=["a", "b"])
    results = recorded(dense("net", fs.reference(features="x.raw", targets="a.transformed")), BatchView(fs, {"default": ROWS}))
    with pytest.raises(ValueError, match=r"joint scaler on \{a, b\}"):
        results.stacked_tensors("net", "targets", unscale=True)
    assert results.stacked_tensors("net", "targets").shape == (3, 1)


def test_columns_with_inner_axes():
    fs = columns()
    fs.fit_transform(Shift(), domain="targets", keys="w")
    node = dense("net", fs.reference(features="x.raw", targets="w.transformed"))
    raw = np.arange(N * 3.0).reshape(N, 3)[ROWS]
    view = BatchView(fs, {"default": ROWS})
    assert recorded(node, view).stacked_tensors("net", "targets", unscale=True).tolist() == raw[:, None].tolist()
    for shape in ((3, 3), (3, 1, 3), (3, 3, 1)):  # what a model may give for it
        results = recorded(node, view, outputs=(raw * 2 + 10).reshape(shape))
        np.testing.assert_allclose(results.stacked_tensors("net", "outputs", unscale=True), raw.reshape(shape))


def test_outputs_of_another_size_do_not_fit():
    fs = columns()
    fs.fit_transform(Shift(), domain="targets", keys="a")
    node = dense("net", fs.reference(features="x.raw", targets="a.transformed"))
    results = recorded(node, BatchView(fs, {"default": ROWS}), outputs=np.ones((3, 5)))
    with pytest.raises(ValueError, match=r"shape \(5,\) do not fit the columns targets.a.transformed"):
        results.stacked_tensors("net", "outputs", unscale=True)


@pytest.mark.parametrize("with_views", [True, False])
def test_scalers_that_remember_rows_find_theirs(with_views):
    """The sign of a row is not in its absolute value: rows are known from the view, or else from the ids."""
    rows = np.array([-3.0, 4.0, -5.0, 6.0])
    fs = FeatureSet.from_dict("signed", {"x": rows, "y": rows}, "x", "y")
    fs.fit_transform(Absolute(), domain="targets")
    node = dense("net", fs.reference(features="x.raw", targets="y.transformed"))
    view = BatchView(fs, {"default": np.array([2, 1, 0])})
    results = recorded(node, view)
    if not with_views:
        ctx = results.execution_contexts().one()
        (reference,) = {reference for _, reference in ctx.input_views}
        ctx.input_views = {}
        results = EvalResults("e")
        results.add_execution_context(ctx)
        results.nodes.learn_graph(ModelGraph([node], Optimizer("sgd", backend="keydnn")))
        assert reference == node.upstream_ref
    assert results.stacked_tensors("net", "targets", unscale=True).reshape(-1).tolist() == [-5.0, 4.0, -3.0]


def test_padded_rows_do_no_harm():
    fs = columns()
    fs.fit_transform(Absolute(), domain="targets", keys="a")
    node = dense("net", fs.reference(features="x.raw", targets="a.transformed"))
    results = recorded(node, BatchView(fs, {"default": np.array([4, -1])}))
    assert results.stacked_tensors("net", "targets", unscale=True)[0].tolist() == [4.0]


# -- which node ---------------------------------------------------------------------------------------------------------


def test_outputs_inside_the_graph_have_no_units():
    fs = columns()
    fs.fit_transform(Shift(), domain="targets", keys="a")
    head = dense("head", fs.reference(features="x.raw", targets="a.transformed"))
    tail = dense("tail", head)
    ModelGraph([head, tail], Optimizer("sgd", backend="keydnn"))
    view = BatchView(fs, {"default": ROWS})
    inside = recorded(head, view)
    assert (inside.stacked_tensors("head", "outputs", unscale=True) == inside.stacked_tensors("head", "outputs")).all()
    assert inside.stacked_tensors("head", "targets", unscale=True).reshape(-1).tolist() == ROWS.tolist()
    last = recorded(tail, view, heads=[head])
    for domain in ("outputs", "targets"):
        assert last.stacked_tensors("tail", domain, unscale=True).reshape(-1).tolist() == ROWS.tolist()


def test_several_feature_sets_and_none():
    one, two = columns("one"), columns("two")
    a, b = (dense(label, fs.reference(features="x.raw", targets="a.raw")) for label, fs in (("a", one), ("b", two)))
    both = ConcatNode("both", [a, b], concat_axis=-1)
    tail = dense("tail", both)
    ModelGraph([a, b, both, tail], Optimizer("sgd", backend="keydnn"))
    results = recorded(tail, BatchView(one, {"default": ROWS}), heads=[a])
    with pytest.raises(RuntimeError, match="several feature sets stand upstream of it: 'one', 'two'"):
        results.stacked_tensors("tail", "outputs", unscale=True)
    assert sorted(results.source_views("tail")) == ["one"]
    lone = EvalResults("e")
    out = results.execution_contexts().one().outputs[tail.node_id]
    lone.add_execution_context(ExecutionContext("e", 0, 0, outputs={"stranger": out}))
    with pytest.raises(ValueError, match="no feature set is known upstream"):
        lone.tensors("stranger", "outputs", unscale=True)
    assert len(lone.tensors("stranger", "outputs")) == 1


def test_a_node_without_target_columns():
    fs = columns()
    node = dense("net", fs.reference(features="x.raw", targets=[]))
    results = recorded(node, BatchView(fs, {"default": ROWS}), outputs=np.ones((3, 1)))
    assert len(results.tensors("net", "targets")) == 0
    with pytest.raises(ValueError, match="reads no target columns of 'set'"):
        results.stacked_tensors("net", "outputs", unscale=True)


@pytest.mark.parametrize("joined", [True, False])
def test_merged_targets(joined):
    """Two heads on one set: their targets side by side, or those of the first."""
    fs = columns()
    fs.fit_transform(Shift(), domain="targets", keys="a")
    heads = [dense(label, fs.reference(features="x.raw", targets="a.transformed")) for label in ("u", "v")]
    both = ConcatNode("both", heads, concat_axis=-1, concat_axis_targets=-1 if joined else "first")
    ModelGraph([*heads, both], Optimizer("sgd", backend="keydnn"))
    width = 2 if joined else 1
    scaled = np.repeat(ROWS[:, None] * 2.0 + 10.0, width, axis=1)
    results = recorded(both, BatchView(fs, {"default": ROWS}), outputs=scaled, heads=heads)
    assert results.stacked_tensors("both", "outputs", unscale=True).tolist() == np.repeat(ROWS[:, None] * 1.0, width, axis=1).tolist()


@settings(max_examples=25)
@given(
    st.permutations("abc"),
    st.integers(1, 3),
    st.lists(st.tuples(st.sets(st.sampled_from("abc"), min_size=1), st.floats(0.5, 2.0)), max_size=4),
)
def test_whatever_was_scaled_whatever_is_read(order, n_read, fits):
    """Scalers that act on each column alone: the columns that are read come back, whatever else was scaled with them."""
    with ExperimentContext().activate():
        fs = columns()
        for keys, factor in fits:
            for key in sorted(keys):
                fs.fit_transform(Shift(by=factor, factor=factor), domain="targets", keys=key)
        scaled = {key for keys, _ in fits for key in keys}
        wanted = [f"targets.{key}.{'transformed' if key in scaled else 'raw'}" for key in order[:n_read]]
        node = dense("net", fs.reference(features="x.raw", targets=wanted))
        results = recorded(node, BatchView(fs, {"default": ROWS}))
        start = {"a": 0, "b": 100, "c": 1000}
        expected = np.stack([start[key] + ROWS for key in sorted(order[:n_read])], axis=1)
        np.testing.assert_allclose(results.stacked_tensors("net", "targets", unscale=True), expected, rtol=1e-9)
