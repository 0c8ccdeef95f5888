"""`keydnn run`: what it prints, what it leaves, and how well the network does."""

import csv
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import keydnn
from keydnn.domain.errors import KeyDNNError, MissingExtraError

if importlib.util.find_spec("sklearn") is None:
    pytest.skip("needs the sklearn extra: pip install '.[sklearn]'", allow_module_level=True)
pytest.importorskip("click")

from keydnn.cli import digits, plots  # noqa: E402

pytestmark = pytest.mark.slow

needs_matplotlib = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs the plot extra: pip install '.[plot]'")


def keydnn_run(*arguments, cwd, **environment):
    command = [sys.executable, "-m", "keydnn", "run", *arguments]
    return subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300)


def rows_of(array):
    return {row.tobytes() for row in array}


@pytest.mark.parametrize("seed", [0, 3])
def test_the_split(seed):
    data = digits.load(seed)
    again = digits.load(seed)
    assert all(np.array_equal(a, b) for a, b in zip(data, again, strict=True))
    assert [len(y) for y in data[1::2]] == [1144, 203, 450]
    assert data.x_train.dtype == np.float32 and data.x_train.shape[1:] == (1, 8, 8)
    assert data.x_train.min() == 0.0 and data.x_train.max() == 1.0
    labels = np.concatenate(data[1::2])
    for part in data[1::2]:  # stratified: each digit's share is that of the whole, within a row or so
        expected = np.bincount(labels) * len(part) / len(labels)
        assert np.abs(np.bincount(part, minlength=10) - expected).max() < 2
    assert len(np.concatenate(data[::2])) == 1797
    assert not rows_of(data.x_test) & rows_of(data.x_train)
    assert not np.array_equal(digits.load(seed + 1).y_test, data.y_test)


@needs_matplotlib
def test_the_job_from_the_command_line(tmp_path):
    result = keydnn_run("--seed", "1", "--epochs", "10", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    accuracy = [line for line in lines if re.fullmatch(r"test accuracy 0\.\d{4}", line)]
    assert len(accuracy) == 1
    assert float(accuracy[0].split()[-1]) >= 0.95
    assert any(re.search(r"time per epoch \d+\.\d{3} s", line) for line in lines)
    assert lines[-1].startswith("done")

    folder = tmp_path / "runs" / "digits-seed1"
    assert sorted(os.listdir(folder)) == ["confusion.png", "curves.png", "history.csv", "model.json"]
    with (folder / "history.csv").open(encoding="utf-8") as file:
        history = list(csv.DictReader(file))
    assert list(history[0]) == ["epoch", "loss", "acc", "val_loss", "val_acc", "seconds"]
    assert [int(row["epoch"]) for row in history] == list(range(1, len(history) + 1))
    assert float(history[-1]["loss"]) < float(history[0]["loss"]) / 5

    (reload,) = [line.partition("reload with: ")[2] for line in lines if line.startswith("reload with: ")]
    data = digits.load(1)
    np.save(tmp_path / "x.npy", data.x_test)
    code = f"import keydnn, numpy as np\n{reload}\nnp.save('p.npy', model.predict(np.load('x.npy')).to_numpy())"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    share = np.mean(np.load(tmp_path / "p.npy").argmax(axis=1) == data.y_test)
    assert f"{share:.4f}" == accuracy[0].split()[-1]


def test_the_kept_weights_are_those_of_the_best_epoch(tmp_path, capsys):
    data = digits.load(0)
    keydnn.seed(0)
    model, history, seconds, best = digits.train(data, epochs=4, verbose=0)
    assert best == int(np.argmin(history.history["val_loss"]))
    assert len(seconds) == len(history.epoch) == 4
    found = model.evaluate(data.x_validation, data.y_validation, loss="cross_entropy")["loss"]
    assert found == pytest.approx(history.history["val_loss"][best], rel=1e-5)


def test_out_epochs_and_silence(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    digits.run(seed=0, folder=tmp_path / "deep" / "out", epochs=1, verbose=0)
    assert sorted(os.listdir(tmp_path / "deep" / "out")) == ["confusion.png", "curves.png", "history.csv", "model.json"]
    assert "Epoch" not in capsys.readouterr().out


def test_runs_repeat(tmp_path):
    for name in "ab":
        digits.run(seed=2, folder=tmp_path / name, epochs=2, verbose=0)
    assert (tmp_path / "a" / "model.json").read_bytes() == (tmp_path / "b" / "model.json").read_bytes()


def test_a_checkpoint_that_predicts_something_else_is_noticed(tmp_path):
    model = digits.network()
    model.build((1, 1, 8, 8))
    x = keydnn.rand((3, 1, 8, 8)).to_numpy()
    path = tmp_path / "model.json"
    model.save_json(path)
    digits.check_reload(model, path, x)
    model[0].weight.fill(0.5)
    with pytest.raises(KeyDNNError, match="predicts something else"):
        digits.check_reload(model, path, x)


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"keydnn run needs scikit-learn; from the checkout: pip install '\.\[sklearn\]'"):
        digits.load(0)


def test_without_matplotlib(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    history = keydnn.History()
    assert plots.draw(tmp_path, history, 0, np.zeros(1, int), np.zeros(1, int)) == []
    assert "pip install '.[plot]'" in capsys.readouterr().out
    assert os.listdir(tmp_path) == []


@needs_matplotlib
def test_the_pictures_say_what_they_show():
    from matplotlib.figure import Figure

    history = keydnn.History()
    for epoch in range(3):
        history.append_epoch(epoch, {"loss": 1.0 / (epoch + 1), "acc": 0.5, "val_loss": 1.0, "val_acc": 0.25 * epoch})
    loss, accuracy = plots.curves(Figure(), history, 1).axes
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("epoch", "cross-entropy loss")
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["training", "validation", "kept: epoch 2"]
    np.testing.assert_array_equal(accuracy.lines[1].get_ydata(), [0, 0.25, 0.5])
    np.testing.assert_array_equal(accuracy.lines[1].get_xdata(), [1, 2, 3])
    axes = plots.confusion(Figure(), np.array([3, 3, 7]), np.array([3, 5, 7])).axes[0]
    assert {(text.get_position(), text.get_text()) for text in axes.texts} == {((3, 3), "1"), ((5, 3), "1"), ((7, 7), "1")}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted digit", "true digit")
    assert "accuracy 0.6667" in axes.get_title()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = keydnn_run("--out", str(tmp_path / "file" / "sub"), "--epochs", "1", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: ") and "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [("--seed", "-1"), ("--seed", "x"), ("--epochs", "0"), ("--what",)])
def test_wrong_calls_end_with_2(tmp_path, arguments):
    result = keydnn_run(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert "Error: " in result.stderr
    assert os.listdir(tmp_path) == []


@functools.cache
def accuracy_of(seed):
    data = digits.load(seed)
    keydnn.seed(seed)
    model, *_ = digits.train(data, epochs=40, verbose=0)
    return float(np.mean(np.argmax(model.predict(data.x_test).to_numpy(), axis=1) == data.y_test))


def torch_accuracy_of(seed):
    """The same network, data, optimizer and stopping rule in PyTorch."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    data = [torch.from_numpy(part) for part in digits.load(seed)]
    x, y, x_val, y_val, x_test, y_test = data
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1024, 10),
    )  # fmt: skip
    adam = torch.optim.Adam(model.parameters(), lr=digits.LEARNING_RATE)
    best, kept, waited = float("inf"), None, 0
    for _ in range(40):
        for rows in torch.randperm(len(y)).split(digits.BATCH_SIZE):
            adam.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            adam.step()
        with torch.no_grad():
            loss = nn.functional.cross_entropy(model(x_val), y_val).item()
        waited += 1
        if loss < best - digits.MIN_DELTA:
            best, waited, kept = loss, 0, {name: value.clone() for name, value in model.state_dict().items()}
        if waited >= digits.PATIENCE:
            break
    model.load_state_dict(kept)
    with torch.no_grad():
        return float((model(x_test).argmax(dim=1) == y_test).float().mean())


@pytest.mark.long
def test_five_seeds_are_as_good_as_promised():
    accuracies = [accuracy_of(seed) for seed in range(5)]
    assert min(accuracies) >= 0.965, accuracies
    assert np.mean(accuracies) >= 0.975, accuracies


@pytest.mark.long
@pytest.mark.torch
def test_five_seeds_are_as_good_as_in_pytorch():
    ours, theirs = np.mean([accuracy_of(seed) for seed in range(5)]), np.mean([torch_accuracy_of(seed) for seed in range(5)])
    assert abs(ours - theirs) <= 0.01


def test_the_checkpoint_is_plain_json(tmp_path):
    digits.run(seed=0, folder=tmp_path, epochs=1, verbose=0)
    payload = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    assert [node["type"] for _, node in sorted(payload["arch"]["children"].items())] == [
        "Conv2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d", "Flatten", "Dense",
    ]  # fmt: skip
