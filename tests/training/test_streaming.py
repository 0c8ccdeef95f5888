"""Streaming metrics over uneven batches against scikit-learn on all rows at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keydnn
from keydnn.training.streaming import AUC, F1, R2, RMSE, ConfusionMatrix, Precision, Recall, StreamingMetric, TopKAccuracy

metrics = pytest.importorskip("sklearn.metrics")

ROWS = {
    "precision": (Precision, lambda y, p: metrics.precision_score(y, p > 0.5)),
    "recall": (Recall, lambda y, p: metrics.recall_score(y, p > 0.5)),
    "f1": (F1, lambda y, p: metrics.f1_score(y, p > 0.5)),
    "auc": (AUC, metrics.roc_auc_score),
    "auc of bins": (lambda: AUC(bins=1000), metrics.roc_auc_score),
    "rmse": (RMSE, metrics.root_mean_squared_error),
    "r2": (R2, metrics.r2_score),
}


@pytest.mark.parametrize("name", ROWS)
def test_value_over_uneven_batches(name):
    cls, define = ROWS[name]
    rng = np.random.default_rng(0)
    is_error = name in ("rmse", "r2")
    y = rng.normal(1e3, 1.0, 101) if is_error else rng.integers(0, 2, 101).astype(float)
    p = y + rng.normal(size=101) if is_error else np.round(rng.uniform(size=101), 1)
    metric = cls()
    metric.update(y[::-1], p)
    metric.reset()
    for start, end in ((0, 1), (1, 60), (60, 60), (60, 101)):
        metric.update(keydnn.tensor(y[start:end]), p[start:end])
    assert metric.result() == pytest.approx(define(y, p), rel=1e-9)


@pytest.mark.parametrize("name", ROWS)
def test_shapes_must_be_equal(name):
    with pytest.raises(ValueError, match=r"Shape mismatch: y_true \(3,\) vs y_pred \(3, 1\)"):
        ROWS[name][0]().update(np.zeros(3), np.zeros((3, 1)))


def test_without_data():
    assert np.isnan([RMSE().result(), R2().result(), AUC().result()]).all()
    assert Precision().result() == Recall().result() == F1().result() == 0.0
    one_class = AUC()
    one_class.update(np.ones(3), np.ones(3))
    assert np.isnan(one_class.result())
    assert np.isnan(AUC(bins=5).result())
    with pytest.raises(ValueError, match="bins must be at least 2, got 1"):
        AUC(bins=1)
    with pytest.raises(ValueError, match="Recall: threshold"):
        Recall(1.5)


# -- any cut into batches, any classes, any ties

CLASSES = 4


@st.composite
def cut_rows(draw):
    """A generator, a number of rows and the places where they are cut into batches."""
    n = draw(st.integers(1, 40))
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=4)))
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1))), n, [0, *cuts, n]


def counted(metric, y, p, edges):
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        metric.update(keydnn.tensor(y[start:end]), p[start:end])
    return metric.result()


@pytest.mark.slow
@given(case=cut_rows())
@settings(max_examples=60, deadline=None)
def test_decisions_are_those_of_sklearn(case):
    rng, n, edges = case
    y, p = rng.integers(0, 2, n).astype(float), np.round(rng.uniform(size=n), 1)
    for cls, define in ((Precision, metrics.precision_score), (Recall, metrics.recall_score), (F1, metrics.f1_score)):
        for threshold in (0.3, 0.5):
            want = define(y, p > threshold, zero_division=0.0)
            assert counted(cls(threshold), y, p, edges) == pytest.approx(want, rel=1e-12)
    z = rng.normal(size=n)
    want = metrics.recall_score(y, 1 / (1 + np.exp(-z)) > 0.3, zero_division=0.0)
    assert counted(Recall(0.3, from_logits=True), y, z, edges) == pytest.approx(want, rel=1e-12)


@given(case=cut_rows(), offset=st.sampled_from([0.0, 1e6]))
@settings(max_examples=60, deadline=None)
def test_ranks_and_errors_are_those_of_sklearn(case, offset):
    rng, n, edges = case
    y, p = rng.integers(0, 2, n).astype(float), np.round(rng.uniform(size=n), 1)
    want = metrics.roc_auc_score(y, p) if 0 < y.sum() < n else np.nan
    assert counted(AUC(), y, p, edges) == pytest.approx(want, rel=1e-12, nan_ok=True)
    fine = rng.normal(0.5, 0.4, n)
    for bins in (2, 10, 300):
        edge = np.clip(np.floor(fine * bins), 0, bins - 1)
        want = metrics.roc_auc_score(y, edge) if 0 < y.sum() < n else np.nan
        assert counted(AUC(bins), y, fine, edges) == pytest.approx(want, rel=1e-12, nan_ok=True)
    y, p = offset + rng.normal(size=n), offset + rng.normal(size=n)
    assert counted(RMSE(), y, p, edges) == pytest.approx(metrics.root_mean_squared_error(y, p), rel=1e-12)
    if n > 1:
        assert counted(R2(), y, p, edges) == pytest.approx(metrics.r2_score(y, p), rel=1e-6)


@pytest.mark.slow
@given(case=cut_rows(), average=st.sampled_from(["macro", "micro", "weighted"]))
@settings(max_examples=60, deadline=None)
def test_several_classes_are_those_of_sklearn(case, average):
    rng, n, edges = case
    y, scores = rng.integers(0, CLASSES, n), np.round(rng.normal(size=(n, CLASSES)), 1)
    best = scores.argmax(1)
    for cls, define in ((Precision, metrics.precision_score), (Recall, metrics.recall_score), (F1, metrics.f1_score)):
        want = define(y, best, average=average, zero_division=0.0)
        for truth, said in ((y, scores), (keydnn.one_hot(y, CLASSES), scores), (y, best)):
            assert counted(cls(n_classes=CLASSES, average=average), truth, said, edges) == pytest.approx(want, rel=1e-12)
    np.testing.assert_array_equal(
        counted(ConfusionMatrix(CLASSES), y, scores, edges), metrics.confusion_matrix(y, best, labels=range(CLASSES))
    )


@given(case=cut_rows(), k=st.integers(1, CLASSES + 1))
@settings(max_examples=60, deadline=None)
def test_top_k_accuracy(case, k):
    rng, n, edges = case
    y, scores = rng.integers(0, CLASSES, n), rng.normal(size=(n, CLASSES))
    if k < CLASSES:  # sklearn warns of a useless k
        want = metrics.top_k_accuracy_score(y, scores, k=k, labels=range(CLASSES))
        assert counted(TopKAccuracy(k), y, scores, edges) == pytest.approx(want, rel=1e-12)
    scores = np.round(scores)  # ties: the first of equals is larger
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    want = (order == y[:, None]).any(1).mean()
    assert counted(TopKAccuracy(k), keydnn.one_hot(y, CLASSES), scores, edges) == pytest.approx(want, rel=1e-12)


def test_a_score_that_is_nan_is_not_among_the_best():
    metric = TopKAccuracy(2)
    metric.update(np.array([0, 1]), np.array([[np.nan, 0.0], [0.0, -np.inf]]))
    assert metric.result() == 0.5


@pytest.mark.parametrize("name", ROWS)
def test_state_goes_on(name):
    rng = np.random.default_rng(1)
    y, p = rng.integers(0, 2, 20).astype(float), rng.uniform(size=20)
    whole, first, second = ROWS[name][0](), ROWS[name][0](), ROWS[name][0]()
    for metric, rows in ((whole, [slice(9), slice(9, 20)]), (first, [slice(9)])):
        for part in rows:
            metric.update(y[part], p[part])
    second.update(y, p)
    second.set_state(first.get_state())
    second.update(y[9:], p[9:])
    assert second.result() == whole.result()


def test_wrong_arguments():
    for make, error in [
        (lambda: ConfusionMatrix(1), ValueError),
        (lambda: ConfusionMatrix(2.5), TypeError),
        (lambda: TopKAccuracy(0), ValueError),
        (lambda: F1(average="binary"), ValueError),
        (lambda: ConfusionMatrix(2).update([0, 2], [0, 1]), ValueError),
        (lambda: ConfusionMatrix(2).update([0, 1, 1], [0, 1]), ValueError),
        (lambda: TopKAccuracy().update([0, 1], [0.1, 0.2]), ValueError),
        (lambda: TopKAccuracy().update([0], np.zeros((2, 3))), ValueError),
        (lambda: ConfusionMatrix(2).set_state(ConfusionMatrix(3).get_state()), ValueError),
        (lambda: StreamingMetric().update(0, 0), NotImplementedError),
        (lambda: StreamingMetric().result(), NotImplementedError),
    ]:
        with pytest.raises(error):
            make()
