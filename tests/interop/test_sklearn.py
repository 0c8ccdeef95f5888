"""The estimators: scikit-learn's own checks, pipelines, searches, weights, partial fitting, pickling."""

import pickle
import random

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs the sklearn extra: pip install '.[sklearn]'")

from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import keydnn
from keydnn.interop.sklearn import KeyDNNClassifier, KeyDNNRegressor


@parametrize_with_checks([KeyDNNClassifier(hidden=(20,), learning_rate=0.02, epochs=60), KeyDNNRegressor(learning_rate=0.02, epochs=60)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_grid_search_over_the_learning_rate_on_digits():
    x, y = load_digits(return_X_y=True)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), KeyDNNClassifier(hidden=(32,), epochs=8, random_state=0)),
        {"keydnnclassifier__learning_rate": [1e-5, 1e-2]},
        cv=3,
    ).fit(x[:900], y[:900])
    assert search.best_params_ == {"keydnnclassifier__learning_rate": 1e-2} and search.score(x[900:], y[900:]) > 0.85


def test_regression_of_one_and_several_values():
    x, y = load_diabetes(return_X_y=True)
    y = (y - y.mean()) / y.std()
    scores = cross_val_score(make_pipeline(StandardScaler(), KeyDNNRegressor(hidden=(16,), epochs=60, random_state=0)), x, y, cv=3)
    assert scores.mean() > 0.3
    both = KeyDNNRegressor(epochs=3, random_state=0).fit(x, np.c_[y, -y])
    assert both.predict(x[:5]).shape == (5, 2)
    assert KeyDNNRegressor(epochs=1).fit(x, y).predict(x[:5]).shape == (5,)


def test_labels_may_be_words_and_probabilities_follow_the_classes():
    x, y = load_iris(return_X_y=True)
    words = np.array(["setosa", "versicolor", "virginica"])[y]
    m = KeyDNNClassifier(learning_rate=0.02, epochs=80, random_state=0).fit(x, words)
    p = m.predict_proba(x)
    assert m.classes_.tolist() == ["setosa", "versicolor", "virginica"] and m.score(x, words) > 0.94
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    assert np.array_equal(m.classes_[p.argmax(axis=1)], m.predict(x))
    assert len(m.history_["loss"]) == m.n_iter_ == 80


def test_a_weight_is_a_number_of_repetitions_and_zero_leaves_out():
    x, y = load_iris(return_X_y=True)
    w = np.random.RandomState(0).randint(0, 3, len(x)) * 1.0
    options = {"epochs": 30, "batch_size": 1000, "random_state": 0, "learning_rate": 0.01}
    weighted = KeyDNNClassifier(**options).fit(x, y, sample_weight=w)
    repeated = KeyDNNClassifier(**options).fit(np.repeat(x, w.astype(int), axis=0), np.repeat(y, w.astype(int)))
    np.testing.assert_allclose(weighted.predict_proba(x), repeated.predict_proba(x), rtol=1e-8)
    with pytest.raises(ValueError, match="at least one non-zero"):
        KeyDNNClassifier().fit(x, y, np.zeros(len(x)))


def test_partial_fit_goes_on():
    x, y = load_iris(return_X_y=True)
    m = KeyDNNClassifier(learning_rate=0.02, random_state=0)
    for _ in range(40):
        m.partial_fit(x[:75], y[:75], classes=[0, 1, 2])
        m.partial_fit(x[75:], y[75:])
    assert m.score(x, y) > 0.9 and m.n_iter_ == 80
    with pytest.raises(ValueError, match="not those of the first call"):
        m.partial_fit(x, y, classes=[0, 1])
    with pytest.raises(ValueError, match="not among the classes"):
        m.partial_fit(x, y + 5)


def test_the_seed_repeats_a_fit_and_the_global_generators_are_left_alone():
    x, y = load_iris(return_X_y=True)
    state = np.random.get_state()[1].tolist(), random.getstate()
    a, b = (KeyDNNClassifier(epochs=3, random_state=4, batch_size=16).fit(x, y).predict_proba(x) for _ in range(2))
    assert np.array_equal(a, b) and (np.random.get_state()[1].tolist(), random.getstate()) == state
    assert not np.array_equal(a, KeyDNNClassifier(epochs=3, random_state=5, batch_size=16).fit(x, y).predict_proba(x))


def test_a_pickled_estimator_predicts_and_goes_on_with_the_same_bits():
    x, y = load_iris(return_X_y=True)
    m = KeyDNNClassifier(epochs=3, random_state=0).fit(x, y)
    copy = pickle.loads(pickle.dumps(m))
    assert np.array_equal(copy.predict_proba(x), m.predict_proba(x))
    assert np.array_equal(copy.partial_fit(x, y).predict_proba(x), m.partial_fit(x, y).predict_proba(x))
    assert not hasattr(clone(m), "model_")


def small_cnn(n_features, n_outputs):
    class Square(keydnn.Module):
        def forward(self, x):
            return x.reshape(-1, 1, 8, 8)

    return keydnn.Sequential(
        Square(), keydnn.Conv2d(1, 4, 3, dtype=np.float64), keydnn.ReLU(), keydnn.Flatten(), keydnn.Dense(n_outputs, dtype=np.float64)
    )


def test_a_network_of_ones_own():
    x, y = load_digits(return_X_y=True)
    m = KeyDNNClassifier(network=small_cnn, epochs=8, learning_rate=0.01, random_state=0).fit(x[:600] / 16, y[:600])
    assert m.score(x[600:] / 16, y[600:]) > 0.8
    with pytest.raises(TypeError, match="must return a Module, got int"):
        KeyDNNClassifier(network=lambda n, k: 3).fit(x, y)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"activation": "step"}, "activation"),
        ({"optimizer": "newton"}, "optimizer"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_arguments_out_of_range(options, text):
    x, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match=text):
        KeyDNNClassifier(**options).fit(x, y)


def test_reached_from_the_front_door():
    assert keydnn.KeyDNNClassifier is KeyDNNClassifier and keydnn.KeyDNNRegressor is KeyDNNRegressor
    assert "verbose" in KeyDNNRegressor.__doc__
