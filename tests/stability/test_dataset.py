"""Data sets: the exact numbers of the teacher, exports, pictures, and the two kinds of drift."""

import numpy as np
import pytest

from keydnn.stability import AffineDataset, BaseDataset, DataType, DriftModel
from keydnn.stability.dataset import ramp, spike, step_at


@pytest.fixture(autouse=True)
def agg():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.mark.slow
def test_the_generation_is_exact():
    data = AffineDataset(50, seed=3)
    X = np.random.default_rng(3).uniform(0, 1, size=(50, 4))
    np.testing.assert_array_equal(data.X, X)
    np.testing.assert_array_equal(data.Y, X @ np.array(data.A).T + [0.35, -0.25])
    assert data.get()[0] is data.X and data.to_numpy()[1] is data.Y and data.X.dtype == data.Y.dtype == np.float64
    assert (data.input_shape, data.output_shape) == ((50, 4), (50, 2))
    assert AffineDataset(5, seed=3, use_bias=False).reference_bias_vector.tolist() == [0, 0]
    assert AffineDataset(5, A=[[1.0], [2.0], [3.0]]).reference_bias_vector.tolist() == [0, 0, 0]
    assert AffineDataset(5, A=[[2.0]]).output_type is DataType.D1_FLOAT and data.input_type is DataType.D2_FLOAT


@pytest.mark.parametrize(
    ("seed", "lambda_max", "eta_max"), [(1, 1.0727888389611921, 1.8642997832981272), (13, 1.0945162000199675, 1.8272913639501303)]
)
def test_analytic_hessian(seed, lambda_max, eta_max):
    h = AffineDataset(1000, seed=seed).analytic_hessian
    np.testing.assert_allclose([h["lambda_max"], h["eta_max"]], [lambda_max, eta_max], rtol=1e-13)
    assert h["hessian"].shape == (8, 8) and np.linalg.eigvalsh(h["hessian"])[-1] == pytest.approx(lambda_max, rel=1e-12)


def test_bad_arguments():
    for bad in ({"A": [[1.0, 2.0]], "b": [1.0, 2.0]}, {"A": [1.0, 2.0]}, {"b": [1.0]}, {"num_samples": 0}):
        with pytest.raises(ValueError):
            AffineDataset(**{"num_samples": 5, **bad})
    with pytest.raises(TypeError):
        BaseDataset()


def test_repr_tells_the_law():
    text = repr(AffineDataset(20, seed=1))
    for part in ("(20, 4)", "(20, 2)", "2d-float", "Uniform(0, 1)", "A =", "b =", "lambda_max", "eta_max"):
        assert part in text


class Images(BaseDataset):
    def __post_init__(self):
        super().__post_init__()
        self.X, self.Y = np.random.default_rng(0).random((12, 1, 5, 5)), np.arange(24.0).reshape(12, 1, 2)
        self.input_type, self.output_type = DataType.IMAGE_FLOAT, DataType.D2_FLOAT

    reference_weight_matrix = reference_bias_vector = None

    def __repr__(self):
        return "Images()"


def test_exports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = AffineDataset(6, seed=1)
    data.to_txt("small")
    np.testing.assert_allclose(np.loadtxt("small_X.txt"), data.X, rtol=1e-15)
    np.testing.assert_allclose(np.loadtxt("small_Y.txt"), data.Y, rtol=1e-15)
    Images().to_dat("bench")
    assert np.loadtxt("bench/tb_input_features.dat").shape == (12, 25)
    assert np.loadtxt("bench/tb_output_predictions.dat").shape == (12, 2)


@pytest.mark.slow
def test_pictures(capsys):
    assert len(AffineDataset(30, seed=1).plot().axes) == 8
    assert len(AffineDataset(30, seed=1, A=[[2.0]]).plot(max_points=5).axes) == 1
    assert len(AffineDataset(30, seed=1).plot_histogram(bins=7).axes) >= 6
    assert sum(bool(ax.images) for ax in Images().plot().axes) == 9
    labels = AffineDataset(30, seed=1)
    labels.Y, labels.output_type = np.arange(30) % 3, DataType.D1_CLASS
    assert len(labels.plot().axes[0].patches) == 3
    labels.input_type, labels.output_type = DataType.D1_CLASS, DataType.D1_FLOAT
    assert labels.plot() is None and "no picture" in capsys.readouterr().out


def test_drift_has_two_kinds_of_target():
    data = AffineDataset(40, seed=2, use_bias=False)
    X, Y, best = DriftModel(gain=2.5).apply(data)
    np.testing.assert_allclose(X, 2.5 * data.X)
    np.testing.assert_allclose(X @ best.T, Y, atol=1e-12)
    assert Y is data.Y
    X, Y, best = DriftModel(gain=2.5, offset=0.1, target="consistent").apply(data)
    np.testing.assert_allclose(X @ data.A.T, Y)
    np.testing.assert_array_equal(best, data.A)
    X, _, best = DriftModel(gain=2.5, clip=(0.0, 1.0), dead_columns=(1,)).apply(data)
    assert X.max() == 1.0 and not X[:, 1].any() and best is None
    for bad in ({"target": "dirty"}, {"clip": (1.0, 0.0)}):
        with pytest.raises(ValueError):
            DriftModel(**bad)


def test_schedules():
    gain = lambda schedule: [DriftModel(schedule=schedule).parameters(step)["gain"] for step in range(5)]  # noqa: E731
    assert gain(None) == [1, 1, 1, 1, 1]
    assert gain(step_at(2, gain=3.0)) == [1, 1, 3, 3, 3]
    assert gain(spike(2, gain=3.0)) == [1, 1, 3, 1, 1]
    assert gain(ramp(1, 3, stop=3.0)) == [1, 1, 2, 3, 3]
    with pytest.raises(ValueError, match="gian"):
        DriftModel(schedule=step_at(0, gian=3.0)).parameters(0)
    with pytest.raises(ValueError, match="before"):
        ramp(3, 1, stop=2.0)
