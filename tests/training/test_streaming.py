"""Streaming metrics over uneven batches against scikit-learn on all rows at once."""

import numpy as np
import pytest

import keydnn
from keydnn.training.streaming import AUC, F1, R2, RMSE, Precision, Recall

metrics = pytest.importorskip("sklearn.metrics")

ROWS = {
    "precision": (Precision, lambda y, p: metrics.precision_score(y, p > 0.5)),
    "recall": (Recall, lambda y, p: metrics.recall_score(y, p > 0.5)),
    "f1": (F1, lambda y, p: metrics.f1_score(y, p > 0.5)),
    "auc": (AUC, metrics.roc_auc_score),
    "rmse": (RMSE, metrics.root_mean_squared_error),
    "r2": (R2, metrics.r2_score),
}


@pytest.mark.parametrize("name", ROWS)
def test_value_over_uneven_batches(name):
    cls, define = ROWS[name]
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 101).astype(float) if name in ("precision", "recall", "f1", "auc") else rng.normal(1e3, 1.0, 101)
    p = np.round(rng.uniform(size=101), 1) if name in ("precision", "recall", "f1", "auc") else y + rng.normal(size=101)
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
    with pytest.raises(ValueError, match="Recall: threshold"):
        Recall(1.5)
