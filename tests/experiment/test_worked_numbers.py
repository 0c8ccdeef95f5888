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
