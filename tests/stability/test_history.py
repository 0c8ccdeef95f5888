"""Histories: files, joining, pictures."""

import subprocess
import sys

import numpy as np
import pytest

from keydnn.stability import AffineDataset, FitHistory, LinearBlockModel

DATA = AffineDataset(30, seed=1)


@pytest.fixture(scope="module")
def history():
    model = LinearBlockModel(DATA, num_hidden=[], seed=0)
    return model.train_instrumented(*DATA.get(), epochs=12, batch_size=30, learning_rate=1.0, use_controller=True, reference_A=DATA.A)


@pytest.fixture
def plt():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")


def same(a, b):
    return list(a) == list(b) and all(np.array_equal(a[k], b[k], equal_nan=True) for k in a)


def test_repr_and_summary():
    h = FitHistory(loss=[3, 1], alpha=np.array([np.nan, 0.5]))
    assert repr(h) == "FitHistory:\n  loss: (2,)\n  alpha: (2,)" and h["loss"].dtype == np.float64 and h.steps == 2
    assert h.summary()["loss"] == {"first": 3.0, "last": 1.0, "min": 1.0, "max": 3.0} and h.summary()["alpha"]["max"] == 0.5


def test_files_keep_every_bit(history, tmp_path):
    history.to_npz(tmp_path / "h.npz")
    read = FitHistory.from_npz(tmp_path / "h.npz")
    assert same(read, history) and read.meta["seed"] == 0 and read.meta["arguments"]["chi"] == 1.5
    text = history.to_json(tmp_path / "h.json")
    assert same(FitHistory.from_json(text), history) and (tmp_path / "h.json").read_text() == text
    history.to_csv(tmp_path / "h.csv")
    head, *rows = (tmp_path / "h.csv").read_text().splitlines()
    assert head.split(",") == ["step", *history] and len(rows) == 12
    np.testing.assert_array_equal([[float(v) for v in row.split(",")[1:]] for row in rows], np.column_stack(list(history.values())))
    np.savez(tmp_path / "other.npz", a=np.ones(2))
    with pytest.raises(ValueError, match="no history"):
        FitHistory.from_npz(tmp_path / "other.npz")


def test_concat_fills_what_is_missing():
    joined = FitHistory.concat([FitHistory(loss=[1.0, 2.0]), FitHistory(loss=[3.0], alpha=[0.5])])
    assert joined["loss"].tolist() == [1, 2, 3] and np.isnan(joined["alpha"][:2]).all() and joined["alpha"][2] == 0.5


def test_results_plot(history, plt):
    fig, axes = history.plot_results("a run", show=False)
    assert axes.shape == (3, 2) and fig.get_suptitle() == "a run" and all(ax.get_title() for ax in axes.flat)
    assert [ax.get_xlabel() for ax in axes[-1]] == ["step", "step"]
    assert axes[0, 0].get_yscale() == "log" and len(axes[1, 1].lines) == 3
    assert any(np.allclose(line.get_ydata(), 2) for line in axes[2, 0].lines)
    fig, axes = FitHistory(loss=[1.0, 0.5]).plot_results(show=False)
    assert [len(ax.lines) for ax in axes.flat] == [1, 0, 0, 0, 0, 0]


def test_quantization_plot_overlays(history, plt):
    fig, axes = history.plot_quantization({"other": history}, show=False)
    assert axes.shape == (4, 3) and len(axes[0, 0].lines) == 2 and len(fig.legends) == 1
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["this run", "other"]
    first, second = axes[0, 0].lines
    assert first.get_linestyle() != second.get_linestyle() and first.get_color() != second.get_color()  # equal runs both show


def test_what_fell_to_zero_shows(plt):
    h = FitHistory(raw_update_norm=[1.0, 0.9, 0.9], actual_update_norm=[1.0, 0.0, 0.0], alpha=[1.0, 1.0, 1.0])
    _, axes = h.plot_quantization(show=False)
    panel = axes[2, 0]
    assert panel.get_yscale() == "symlog" and panel.get_ylim()[0] < 0.0 and axes[0, 1].get_yscale() == "linear"


def test_edge_plot(plt):
    fig, axes = FitHistory(margin_to_limit=[0.5, 0.9, 1.02], loss=[1.0, 0.1, 0.02]).plot_edge("edge", show=False)
    assert len(axes) == 2 and fig.get_suptitle() == "edge" and axes[1].get_yscale() == "log"
    assert any(np.allclose(line.get_ydata(), 1.0) for line in axes[0].lines)


def test_phase_plot(history, plt):
    fig, ax = history.plot_phase(show=False)
    assert [text.get_text() for text in ax.texts] == ["0.25", "0.5", "1", "1.5"] and ax.get_xlabel()
    FitHistory().plot_phase(show=False)


@pytest.mark.slow
def test_import_needs_no_matplotlib_and_prints_nothing():
    code = "import sys; sys.modules['matplotlib'] = None; import keydnn.stability; print('matplotlib.pyplot' in sys.modules)"
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("False\n", "")
