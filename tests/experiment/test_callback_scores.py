"""Ready-made metrics beside scikit-learn, over batches as an evaluation returns them."""

import numpy as np
import pytest

from keydnn.experiment.callbacks import F1, MAE, R2, RMSE, Accuracy, Callback, EvaluationMetric, MetricResult

RNG = np.random.default_rng(5)
N = 60
TRUTH = {
    "two": RNG.integers(0, 2, (N, 1)),
    "four": RNG.integers(0, 4, (N, 1)),
    "one hot": np.eye(4, dtype="f4")[RNG.integers(0, 4, N)][:, None],
    "numbers": RNG.standard_normal((N, 1, 3)) * [1, 5, 0.1] + 10,
}
OUTPUT = {
    "two": RNG.random((N, 1, 1)).astype("f4"),
    "four": RNG.standard_normal((N, 4)).astype("f4"),
    "one hot": RNG.standard_normal((N, 1, 4)),
    "numbers": RNG.standard_normal((N, 3)) + 10,
}


class Results:
    """An evaluation of one node."""

    def __init__(self, kind):
        self.tensors = {"outputs": OUTPUT[kind], "targets": TRUTH[kind]}
        self.asked = []

    def stacked_tensors(self, node, domain, *, role, fmt, unscale):
        self.asked.append((node, domain, role, fmt, unscale))
        return self.tensors[domain]


def classes(kind):
    """True and found classes, as scikit-learn takes them."""
    truth = TRUTH[kind].argmax(-1).ravel() if kind == "one hot" else TRUTH[kind].ravel()
    found = (OUTPUT[kind].ravel() > 0.5).astype(int) if kind == "two" else OUTPUT[kind].reshape(N, -1).argmax(1)
    return truth, found


@pytest.mark.parametrize("kind", ["two", "four", "one hot"])
def test_classes(kind):
    reference = pytest.importorskip("sklearn.metrics", reason="needs the sklearn extra")
    truth, found = classes(kind)
    got = Accuracy("n").extract(eval_result=Results(kind))
    assert (got.metric_name, got.metric_value) == ("val_accuracy", reference.accuracy_score(truth, found))
    for average in ["binary"] * (kind == "two") + ["macro", "micro", "weighted"]:
        got = F1("n", average=average, name="f").extract(eval_result=Results(kind))
        assert got.metric_value == pytest.approx(reference.f1_score(truth, found, average=average), rel=1e-14)
    default = F1("n").extract(eval_result=Results(kind)).metric_value
    assert default == pytest.approx(reference.f1_score(truth, found, average="binary" if kind == "two" else "macro"), rel=1e-14)


def test_numbers():
    reference = pytest.importorskip("sklearn.metrics", reason="needs the sklearn extra")
    truth, found = TRUTH["numbers"].reshape(N, 3), OUTPUT["numbers"]
    expected = {
        MAE: reference.mean_absolute_error(truth, found),
        RMSE: np.sqrt(reference.mean_squared_error(truth, found)),
        R2: reference.r2_score(truth, found),
    }
    for metric, value in expected.items():
        got = metric("n").extract(eval_result=Results("numbers"))
        assert got.metric_value == pytest.approx(value, rel=1e-12) and got.metric_name == f"val_{metric.__name__.lower()}"


def test_threshold_of_logits():
    truth = TRUTH["two"].ravel()
    logits = OUTPUT["two"] - 0.5
    assert Accuracy("n", threshold=0.0).value(truth, logits) == np.mean((logits.ravel() > 0) == truth)


def test_what_is_asked_of_the_results():
    results = Results("numbers")
    MAE("n", role="anchor", unscale=True).extract(eval_result=results)
    assert results.asked == [("n", domain, "anchor", "np", True) for domain in ("outputs", "targets")]


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="classes 0 .. 1"):
        Accuracy("n").value(np.array([0, 2]), np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match="classes 0 .. 2"):
        Accuracy("n").value(np.array([0.5, 1]), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="fit neither"):
        Accuracy("n").value(np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="two classes"):
        F1("n", average="binary").value(np.zeros(4), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="number of elements"):
        RMSE("n").value(np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="average"):
        F1(average="mean")


def test_configs():
    for metric in (Accuracy("n", threshold=0.3), F1(average="micro", name="f"), MAE(role="pair"), RMSE(unscale=True), R2("n")):
        config = metric.get_config()
        assert config["callback_type"] == type(metric).__name__
        for asked in (type(metric), EvaluationMetric, Callback):
            assert asked.from_config(config) == metric
    assert MAE("a") != MAE("b") and MAE("a") != RMSE("a")


def test_own_metric():
    class Largest(EvaluationMetric):
        def extract(self, *, eval_result, exec_ctx=None):
            return MetricResult(self.name, eval_result.stacked_tensors("n", "outputs", role="r", fmt="np", unscale=False).max())

    assert Largest("top").extract(eval_result=Results("two")).metric_value == OUTPUT["two"].max()
    with pytest.raises(ValueError, match="reserved"):
        Largest("train_loss")
    with pytest.raises(TypeError, match="abstract"):
        EvaluationMetric("x")
