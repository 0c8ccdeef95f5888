"""The worked numbers of the data model: if one of these changes, results of earlier runs can no longer be compared."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from keydnn.experiment.data import FeatureSet
from keydnn.experiment.samplers import PairedSampler, SimilarityCondition, SimpleSampler
from keydnn.experiment.scalers import PerSampleMinMaxScaler, SegmentedScaler
from keydnn.experiment.splitters.base import part_sizes


def rows_of(sampler, role="default"):
    return [batch.role_indices[role].tolist() for batch in sampler.get_batches()]


def test_columns_are_sorted(ten):
    assert ten.get_feature_keys() == ["features.a.raw", "features.b.raw"]
    assert ten.get_features("np")[1].tolist() == [10, 1]


@pytest.mark.parametrize(
    ("n", "ratios", "sizes"),
    [(7, (0.5, 0.3, 0.2), (4, 2, 1)), (3, (0.8, 0.1, 0.1), (3, 0, 0)), (10, (0.7, 0.2, 0.1), (7, 2, 1))],
)
def test_split_sizes(n, ratios, sizes):
    assert tuple(part_sizes(dict(enumerate(ratios)), n).values()) == sizes


def test_a_split_without_samples_is_refused():
    fs = FeatureSet.from_dict("three", {"x": [1.0, 2.0, 3.0]}, "x", [])
    with pytest.raises(ValueError, match="'val', 'test' would get no samples"):
        fs.split_random({"train": 0.8, "val": 0.1, "test": 0.1})


def test_plain_splits(ten):
    ten.split_random({"train": 0.7, "val": 0.2, "test": 0.1}, seed=13)
    assert [ten[name].indices.tolist() for name in ("train", "val", "test")] == [[6, 1, 5, 0, 4, 7, 2], [8, 3], [9]]
    parts = ten.split_random({"train": 0.65, "val": 0.35}, seed=0, register=False, return_views=True)
    assert [parts[name].indices.tolist() for name in ("train", "val")] == [[4, 6, 2, 7, 3, 5, 9], [0, 8, 1]]


def test_stratified_split(ten):
    ten.split_random({"train": 0.6, "val": 0.4}, stratify_by="t", seed=13)
    assert ten["train"].indices.tolist() == [0, 4, 6, 1, 3, 9]
    assert ten["val"].indices.tolist() == [2, 8, 7, 5]


def test_shuffled_batches(ten):
    assert rows_of(SimpleSampler(batch_size=4, shuffle=True, seed=1, source=ten)) == [[8, 4, 7, 0], [1, 2, 5, 9], [6, 3]]


@pytest.fixture
def groups():
    return FeatureSet.from_dict("groups", {"x": np.arange(10), "g": list("aabbbccccc")}, "x", [], "g")


def test_grouped_batches(groups):
    sampler = SimpleSampler(batch_size=2, group_by="g", source=groups)
    assert rows_of(sampler) == [[0, 1], [2, 3], [4], [5, 6], [7, 8], [9]]
    dropped = SimpleSampler(batch_size=2, group_by="g", drop_last=True, source=groups)
    assert rows_of(dropped) == [[0, 1], [2, 3], [5, 6], [7, 8]]


def test_stratified_batches(groups):
    assert rows_of(SimpleSampler(batch_size=4, stratify_by="g", source=groups)) == [[0, 2, 5, 1], [3, 6, 4, 7]]
    loose = SimpleSampler(batch_size=4, stratify_by="g", strict_stratification=False, source=groups)
    assert rows_of(loose) == [[0, 2, 5, 1], [3, 6, 4, 7], [8, 9]]


@pytest.mark.parametrize(
    ("mode", "weight_mode", "scores"),
    [
        ("similar", "binary", [10, 10, 10, 0.1, 0.1]),
        ("similar", "linear", [10, 2, 1, 0.5, 0.25]),
        ("similar", "exp", [2.7183, 1.6487, 1, 0.3679, 0.1]),
        ("dissimilar", "linear", [0.1, 0.5, 1, 2, 4]),
        ("dissimilar", "exp", [0.3679, 0.6065, 1, 2.7183, 10]),
    ],
)
def test_similarity_scores(mode, weight_mode, scores):
    condition = SimilarityCondition(mode, 2, weight_mode=weight_mode, min_weight=0.1, max_weight=10, allow_fallback=True)
    assert_allclose([condition.score(0.0, d) for d in (0, 1, 2, 4, 8)], scores, atol=5e-5)  # the table gives four digits


def test_without_fallback_a_score_says_match_or_not():
    condition = SimilarityCondition(tolerance=2, weight_mode="exp", max_weight=10)
    assert [condition.score(0, d) for d in (0, 1, 2, 4, 8)] == [1, 1, 1, 0, 0]


def test_pairs(ten):
    sampler = PairedSampler({"b": SimilarityCondition(tolerance=1)}, max_pairs_per_anchor=2, batch_size=100, source=ten)
    (batch,) = sampler.get_batches()
    anchors, pairs = batch.role_indices["anchor"].tolist(), batch.role_indices["pair"].tolist()
    assert len(anchors) == 18 and anchors[:6] == [0, 1, 1, 2, 2, 3]
    assert [pairs[0], set(pairs[1:3]), set(pairs[3:5])] == [1, {0, 2}, {1, 3}]
    assert (batch.role_indice_weights["pair"] == 1).all() and (batch.role_indice_weights["anchor"] == 1).all()


X = np.array([[0.0, 10, 5, 5], [2, 20, 7, 9], [4, 30, 9, 13]])


def test_segmented_scaler():
    pytest.importorskip("sklearn", reason="needs the sklearn extra: pip install '.[sklearn]'")
    assert SegmentedScaler((0, 2, 4), "MinMaxScaler").fit_transform(X).tolist() == [[0] * 4, [0.5] * 4, [1] * 4]


def test_per_sample_min_max_scaler():
    want = [[0, 1, 0.5, 0.5], [0, 1, 0.2778, 0.3889], [0, 1, 0.1923, 0.3462]]
    assert_allclose(PerSampleMinMaxScaler().fit_transform(X), want, atol=5e-5)


@pytest.fixture
def three():
    values = np.arange(12.0).reshape(4, 3) ** 1.5
    return FeatureSet.from_dict("three", dict(zip("abc", values.T, strict=True)), ["a", "b", "c"], [])


def test_undo_in_the_right_order_only(three):
    for keys in ("a", ["a", "b"], "c"):
        three.fit_transform("Negate", domain="features", keys=keys)
    with pytest.raises(ValueError, match=r"\{a, b\}"):
        three.undo_last_transform("features", "a")
    with pytest.raises(ValueError, match=r"no transform on exactly \{b\}"):
        three.undo_last_transform("features", "b")
    three.undo_last_transform("features", ["a", "b"])
    three.undo_last_transform("features", "a")
    assert [record.keys for record in three.scaler_records] == [("c",)]
    assert three.get_feature_keys() == ["features.a.raw", "features.b.raw", "features.c.raw", "features.c.transformed"]


def test_undo_is_blocked_by_any_newer_transform_that_shares_a_key(three):
    three.fit_transform("Negate", domain="features", keys=["a", "b"])
    three.fit_transform("Negate", domain="features", keys="a")
    with pytest.raises(ValueError, match=r"blocked by a newer one on \{a\}"):
        three.undo_last_transform("features", ["a", "b"])


def test_rows_that_a_phase_sees_ascend():
    """The training example: split rows 2, 4, 3, 6 of eight."""
    fs = FeatureSet.from_dict("eight", {"x": np.arange(8.0), "y": 2 * np.arange(8.0)}, "x", "y")
    fs.split_random({"train": 0.5, "val": 0.5}, seed=0)
    assert sorted(fs["train"].indices.tolist()) == [2, 3, 4, 6]
    assert sorted(fs["val"].indices.tolist()) == [0, 1, 5, 7]


def test_folds(ten):
    from keydnn.experiment.splitters import KFoldSplitter

    folds = ten.split(KFoldSplitter(5), return_views=True, register=False)
    assert [fold.indices.tolist() for fold in folds.values()] == [[6, 1], [5, 0], [4, 7], [2, 8], [3, 9]]


# -- models and graphs


def test_built_in_models():
    from keydnn.experiment.models.keydnn import SequentialCNN, SequentialMLP

    mlp = SequentialMLP(input_shape=(10,), output_shape=(1,), n_layers=3, hidden_dim=8)
    assert (mlp.input_shape, mlp.output_shape) == ((1, 10), (1, 1))
    shapes = [value.shape for value in mlp.get_weights().values()]
    assert shapes == [(8, 10), (8,), (8, 8), (8,), (1, 8), (1,)]
    cnn = SequentialCNN(input_shape=(2, 16), output_shape=(1, 3), n_layers=2, hidden_dim=4, pooling=2)
    assert [value.shape for value in cnn.get_weights().values() if value.ndim > 1] == [(4, 2, 3), (4, 4, 3), (3, 16)]


@pytest.fixture
def branches(ten):
    import keydnn
    from keydnn.experiment.graph import ModelNode

    return [ModelNode(name, keydnn.nn.Linear(2, 1), ten) for name in ("left", "right")]


def test_concatenation(branches):
    from keydnn.experiment.data import SampleData
    from keydnn.experiment.graph import ConcatNode

    data = [SampleData(features=np.ones((4, 1, n), "f4"), targets=np.arange(4.0)[:, None]) for n in (8, 4)]
    with pytest.warns(UserWarning, match="'first' keeps one"):
        doubled = ConcatNode("doubled", branches, -1).merge(data)
    assert doubled.features.shape == (4, 1, 12) and doubled.targets.shape == (4, 2)
    assert ConcatNode("once", branches, -1, concat_axis_targets="first").merge(data).targets.shape == (4, 1)
    padded = ConcatNode("padded", branches, 0, pad_inputs=True, pad_value=9.0, concat_axis_targets="first")
    long, short = (SampleData(features=np.ones((4, *shape), "f4")) for shape in ((2, 8), (3, 6)))
    got = padded.merge([long, short]).features
    assert got.shape == (4, 5, 8) and np.all(got[:, 2:, 6:] == 9.0) and np.all(got[:, :2] == 1.0) and np.all(got[:, 2:, :6] == 1.0)


def test_all_roles_of_a_triplet_pass_one_node_in_one_step(ten):
    import keydnn
    from keydnn.experiment.data import ExecutionContext
    from keydnn.experiment.graph import ModelGraph, ModelNode
    from keydnn.experiment.samplers import TripletSampler
    from keydnn.experiment.training import AppliedLoss, Loss, Optimizer

    same, other = {"t": SimilarityCondition(mode="similar")}, {"t": SimilarityCondition(mode="dissimilar")}
    batch = TripletSampler(same, other, max_samples_per_anchor=1, batch_size=4, seed=0, source=ten).get_batches()[0].materialize_batch()
    node = ModelNode("Enc", keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.Linear(2, 3)), ten)
    graph = ModelGraph([node], Optimizer("sgd", opt_kwargs={"lr": 0.001}, backend="keydnn"))
    graph.build()
    weights = node.model.get_weights()
    weight, bias = (next(value for value in weights.values() if value.ndim == ndim).astype("f8") for ndim in (2, 1))

    def triplet(anchor, positive, negative):
        return ((anchor - positive) ** 2).sum(axis=1) - ((anchor - negative) ** 2).sum(axis=1)

    ctx = ExecutionContext("p", 0, 0)
    ctx.set_input(node_id=node.node_id, upstream=node.upstream_ref, batch=batch)
    graph.train_step(ctx, [AppliedLoss(Loss(triplet), on="Enc", inputs=["outputs.anchor", "outputs.positive", "outputs.negative"])])
    sides = [batch.role_data[role].features.reshape(4, 2).astype("f8") @ weight.T + bias for role in ("anchor", "positive", "negative")]
    assert ctx.losses.to_float() == pytest.approx(triplet(*sides).mean(), rel=1e-4)
    assert set(ctx.outputs[node.node_id].available_roles) == {"anchor", "positive", "negative"}


def test_the_value_of_a_loss(ten):
    import keydnn
    from keydnn.experiment.data import Batch, ExecutionContext, SampleData
    from keydnn.experiment.graph import ModelNode
    from keydnn.experiment.training import AppliedLoss, Loss

    node = ModelNode("net", keydnn.nn.Linear(2, 1), ten)
    values = SampleData(features=keydnn.tensor(np.array([[1.0], [4.0], [7.0]], "f4")), kind="output")
    weights, mask = {"default": np.array([1.0, 0.5, 1.0])}, {"default": np.array([1, 1, 0], np.int8)}
    ctx = ExecutionContext("p", 0, 0)
    ctx.set_output(node_id=node.node_id, batch=Batch(3, {"default": values}, None, weights, mask))
    assert AppliedLoss(Loss(lambda outputs: outputs), node, ["outputs"], weight=2).compute(ctx).item() == pytest.approx(2.0)
