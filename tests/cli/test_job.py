"""`keydnn train`, `evaluate`, `predict`, `summary`: from a configuration file to predictions."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("click")

from click.testing import CliRunner  # noqa: E402

from keydnn.cli.commands import commands  # noqa: E402
from keydnn.cli.job import config, rows, train, use  # noqa: E402

CONFIG = """
seed = 3
[data]
file = "points.csv"
target = "side"
[model]
layers = [{ type = "Dense", out_features = 8 }, { type = "Tanh" }, { type = "Dropout", p = 0.1 }, { type = "Dense", out_features = 3 }]
[training]
loss = "cross_entropy"
optimizer_kwargs = { lr = 0.05 }
metrics = ["acc"]
epochs = EPOCHS
"""


def keydnn(*arguments):
    return CliRunner().invoke(commands, [str(a) for a in arguments])


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A folder with a configuration and 150 points of three classes."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    centers = np.array([[100.0, 0.0], [101.0, 40.0], [104.0, -30.0]])
    with open("points.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "side", "b"])
        for i in range(150):
            a, b = centers[i % 3] + random.normal(size=2) * [0.5, 5]
            writer.writerow([a, ["left", "mid", "right"][i % 3], b])
    (tmp_path / "points.toml").write_text(CONFIG.replace("EPOCHS", "8"))
    return tmp_path / "points.toml"


def rewritten(job, old, new):
    text = job.read_text()
    assert old in text
    job.write_text(text.replace(old, new))
    return job


@pytest.mark.slow
def test_train_evaluate_predict(job):
    result = keydnn("train", job, "--verbose", 0)
    assert result.exit_code == 0, result.output
    run = job.parent / "runs" / "points"
    results = json.loads((run / "results.json").read_text())
    assert [results[p]["rows"] for p in ("train", "validation", "test")] == [90, 30, 30]
    assert results["test"]["acc"] > 0.9 and results["epochs"] == 8
    assert "0.9" in result.output or "1.0" in result.output
    assert len((run / "history.csv").read_text().splitlines()) == 9
    assert json.loads(keydnn("evaluate", run, "--json").stdout) == results["test"]
    given = json.loads(keydnn("evaluate", run, "--data", job.parent / "points.csv", "--json").stdout)
    assert given["rows"] == 150 and given["acc"] > 0.9
    assert keydnn("predict", run, job.parent / "points.csv", "-o", job.parent / "out.csv").exit_code == 0
    with open(job.parent / "out.csv", newline="") as file:
        predicted = list(csv.DictReader(file))
    truth = rows.read_csv(job.parent / "points.csv")["side"]
    assert np.mean([p["class"] == t for p, t in zip(predicted, truth, strict=True)]) == pytest.approx(given["acc"])
    assert all(sum(float(p[f"p({c})"]) for c in ("left", "mid", "right")) == pytest.approx(1, abs=1e-5) for p in predicted)
    assert "51 parameters" in keydnn("summary", run / "model.json", "--input-shape", "1,2").output
    told = json.loads(keydnn("predict", run, job.parent / "points.csv", "--json").stdout)
    assert told["columns"] == ["class", "p(left)", "p(mid)", "p(right)"]
    assert [row[0] for row in told["rows"]] == [p["class"] for p in predicted]
    assert told["rows"][0][1:] == pytest.approx([float(predicted[0][f"p({c})"]) for c in ("left", "mid", "right")])


@pytest.mark.slow
def test_resumed_ends_with_the_same_bits(job):
    rewritten(job, "epochs = 8", "epochs = 3")
    assert keydnn("train", job, "--json").exit_code == 0
    rewritten(job, "epochs = 3", "epochs = 6")
    resumed = keydnn("train", job, "--resume", "--json")
    whole = keydnn("train", job, "--out", "whole", "--json")
    assert resumed.exit_code == whole.exit_code == 0
    assert resumed.stdout == whole.stdout
    assert (job.parent / "runs/points/model.json").read_bytes() == (job.parent / "whole/model.json").read_bytes()


def test_a_run_is_not_overwritten_nor_continued_as_another(job):
    rewritten(job, "epochs = 8", "epochs = 1")
    assert keydnn("train", job, "--resume").exit_code == 2
    assert keydnn("train", job, "--json").exit_code == 0
    before = (job.parent / "runs/points/model.json").read_bytes()
    refused = keydnn("train", job)
    assert refused.exit_code == 2 and "--resume" in refused.output
    other = keydnn("train", rewritten(job, "lr = 0.05", "lr = 0.01"), "--resume")
    assert other.exit_code == 2 and "differs" in other.output
    assert (job.parent / "runs/points/model.json").read_bytes() == before


def test_numbers_instead_of_classes_from_npz(tmp_path):
    x = np.random.default_rng(1).normal(size=(60, 1, 4, 4))
    np.savez(tmp_path / "d.npz", x=x, y=x.mean(axis=(1, 2, 3)))
    file = tmp_path / "d.toml"
    file.write_text(
        '[data]\nfile = "d.npz"\nvalidation = 0.0\n[model]\nlayers = [{type = "Flatten"}, {type = "Dense", out_features = 1}]\n'
        '[training]\nloss = "mse"\nepochs = 2\n'
    )
    results = train.train(file, tmp_path / "run", verbose=0)
    assert results["validation"] == {"rows": 0} and results["train"]["rows"] == 48
    text = use.predict(tmp_path / "run", tmp_path / "d.npz")
    assert text.splitlines()[0] == "y0" and len(text.splitlines()) == 61


def test_features_are_scaled_by_training_rows_alone(job):
    prepared = train.prepare(config.read_job(job), job.parent)
    x = prepared.parts["train"].x
    assert np.allclose(x.mean(axis=0), 0, atol=1e-4) and np.allclose(x.std(axis=0), 1, atol=1e-4)
    assert not np.allclose(prepared.parts["test"].x.mean(axis=0), 0, atol=1e-4)
    assert prepared.encoding.features == ["a", "b"] and prepared.encoding.classes == ["left", "mid", "right"]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_split_is_complete_and_keeps_the_shares_of_classes(seed):
    y = np.repeat([0, 1, 2], [50, 30, 20])
    parts = rows.split(y, True, config.Data(file="", validation=0.1, test=0.3), seed)
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(100))
    assert np.bincount(y[parts["test"]]).tolist() == [15, 9, 6]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed = 3", "sead = 3", "unknown key sead; here may stand data, model, training, seed"),
        ("seed = 3", "seed = true", "seed must be int, got True"),
        ("seed = 3", "seed = [", "no TOML"),
        ('target = "side"', 'target = "slide"', "no column 'slide'; it has a, side, b"),
        ('target = "side"', "target = 1", "data.target must be str or list[str], got 1"),
        ('target = "side"', "", "data.target must name one column of a, side, b"),
        ('target = "side"', 'target = "side"\ntest = 0.9', "must leave rows"),
        ('target = "side"', 'target = "side"\ntest = 1.5', "data.test must be a share"),
        ('target = "side"', 'target = "a"\nfeatures = ["side"]', "line 2, column 'side': 'left' is no number"),
        ("points.csv", "missing.csv", "missing.csv"),
        ("points.csv", "points.toml", "rows are read from .csv or .npz"),
        ('type = "Tanh"', 'type = "Tan"', "model.layers[1] (Tan): unknown module type 'Tan'"),
        ("p = 0.1", "q = 0.1", "model.layers[2] (Dropout)"),
        ("out_features = 8", "out_features = 0", "model.layers[0] (Dense)"),
        ('type = "Tanh"', 'type = "Conv2d", in_channels = 1, out_channels = 1, kernel_size = 3', "do not take rows of shape (2,)"),
        ('loss = "cross_entropy"', "", "training.loss is missing"),
        ("lr = 0.05", "rate = 0.05", "training: "),
        ('"acc"', '"accu"', "training: unknown metric 'accu'"),
        ("epochs = 8", "epochs = 0", "training: "),
        ("epochs = 8", "epochs = 8\nearly_stopping = { patienc = 3 }", "training: "),
        ("epochs = 8", "epochs = 8\naccumulate = 0", "training: fit: accumulate must be at least 1"),
        ("epochs = 8", "epochs = 8\nclass_weight = { up = 3.0 }", "training.class_weight: 'up' is none of left, mid, right"),
        ("epochs = 8", "epochs = 8\nclass_weight = 3", "training.class_weight must be dict[str, Any] or str, got 3"),
    ],
)
def test_what_is_wrong_is_said(job, old, new, said):
    result = keydnn("train", rewritten(job, old, new), "--verbose", 0)
    assert result.exit_code in (1, 2) and said in result.output, result.output
    assert not (job.parent / "runs/points/model.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "want"), [("{ right = 3.0, left = 0.5 }", {2: 3.0, 0: 0.5}), ('"balanced"', "balanced")])
def test_class_weights_and_accumulation_reach_training(job, monkeypatch, weights, want):
    seen = []
    fit = train.keydnn.Sequential.fit
    monkeypatch.setattr(train.keydnn.Sequential, "fit", lambda *args, **options: seen.append(options) or fit(*args, **options))
    rewritten(job, "epochs = 8", f"epochs = 2\nclass_weight = {weights}\naccumulate = 2")
    result = keydnn("train", job, "--verbose", 0)
    assert result.exit_code == 0, result.output
    assert (seen[-1]["class_weight"], seen[-1]["accumulate"]) == (want, 2)


@pytest.mark.parametrize("text", ["", "a,b\n", "a,a\n1,2\n", "a,b\n1,2\n3\n", "a,b\n1,2\n1,2,3\n"])
def test_damaged_csv(tmp_path, text):
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(config.ConfigError, match=r"d\.csv"):
        rows.read_csv(tmp_path / "d.csv")


@pytest.mark.slow
def test_rows_that_do_not_fit_the_run(job):
    rewritten(job, "epochs = 8", "epochs = 1")
    run = job.parent / "runs/points"
    assert keydnn("evaluate", job.parent).exit_code == 2
    assert keydnn("train", job, "--json").exit_code == 0
    (job.parent / "new.csv").write_text("a,b,side\n1,2,above\n")
    assert "class 'above' is none of left, mid, right" in keydnn("evaluate", run, "--data", "new.csv").output
    (job.parent / "few.csv").write_text("a,side\n1,left\n")
    assert "has no column 'b'" in keydnn("predict", run, "few.csv").output
    assert keydnn("summary", run / "model.json", "--input-shape", "1,x").exit_code == 2
    np.savez(job.parent / "wide.npz", x=np.zeros((5, 9)), y=np.zeros(5, int))
    np.savez(job.parent / "other.npz", z=np.zeros(3))
    np.savez(job.parent / "single.npz", x=np.array(3.0), y=np.array(1))
    (job.parent / "torn.npz").write_bytes(b"PK\x03\x04torn")
    for name, said in (
        ("wide.npz", "rows of shape (9,) do not fit the model"),
        ("other.npz", "must hold arrays x"),
        ("single.npz", "holds a single number"),
        ("torn.npz", "no readable npz file"),
        ("points.toml", "rows are read from .csv or .npz files"),
    ):
        for command in (("predict", run, name), ("evaluate", run, "--data", name)):
            result = keydnn(*command)
            assert result.exit_code == 2 and said in result.output, (command, result.output, result.exception)


def test_a_run_on_arrays_reads_arrays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("d.npz", x=np.random.default_rng(0).random((20, 3)), y=np.arange(20) % 2)
    layers = '[model]\nlayers = [{ type = "Dense", out_features = 2 }]\n'
    Path("c.toml").write_text(f'[data]\nfile = "d.npz"\n{layers}[training]\nloss = "cross_entropy"\nepochs = 1\n')
    assert keydnn("train", "c.toml", "--json").exit_code == 0
    Path("rows.csv").write_text("a,b,c\n1,2,3\n")
    result = keydnn("predict", "runs/c", "rows.csv")
    assert result.exit_code == 2 and "arrays without names of columns" in result.output
    assert len(json.loads(keydnn("predict", "runs/c", "d.npz", "--json").stdout)["rows"]) == 20
