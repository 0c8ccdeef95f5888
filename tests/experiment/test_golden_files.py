"""Artifacts written long ago stay readable and give the numbers that they gave (``tests/golden``)."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from keydnn.experiment import Experiment, FeatureSet, Loss, ModelGraph, Optimizer
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.equality import same_values
from keydnn.experiment.io import Checkpoint, from_yaml, load_artifact
from keydnn.experiment.models import BaseModel
from keydnn.experiment.predicates import GT, Lambda
from keydnn.experiment.samplers import SimilarityCondition
from keydnn.experiment.splitters import ConditionSplitter
from tests.golden import make_experiment as made

FOLDER = Path(__file__).parents[1] / "golden" / "experiment" / "kinds"


@pytest.fixture(scope="module")
def numbers():
    with np.load(FOLDER / "numbers.npz") as file:
        return dict(file)


def rows():
    return FeatureSet.load(FOLDER / "rows")


def close(got, wanted):
    """Arithmetic may differ in its last bits from one processor to another."""
    return got.shape == wanted.shape and np.allclose(got, wanted, rtol=1e-5, atol=1e-7)


def test_simple_kinds(numbers):
    fs = rows()
    assert fs.label == "rows" and len(fs["train"]) == len(fs["val"]) == 6 and fs.get_tags("list")[:3] == [["a"], ["b"], ["c"]]
    x = fs.values("features.x.raw")
    assert x.dtype == np.float32 and np.allclose(x[:, 2], np.arange(12) / 12)
    splitter, sampler = (load_artifact(FOLDER / name, kind) for name, kind in (("splitter", "sp"), ("sampler", "sm")))
    parts = splitter.split(fs, return_views=False)
    assert list(parts) == ["z", "a", "m"] and np.array_equal(
        np.concatenate([np.asarray(part) for part in parts.values()]), numbers["split"]
    )
    drawn = [np.stack([batch.role_indices["anchor"], batch.role_indices["pair"]]) for batch in sampler.get_batches()]
    assert np.array_equal(np.concatenate(drawn, 1), numbers["pairs"])
    assert close(load_artifact(FOLDER / "scaler", "sc").transform(x), numbers["scaled"])
    conditions = {"low": {"y": Lambda("lambda y: y < 0.5")}, "high": {"y": GT(0.5)}}
    assert load_artifact(FOLDER / "conditions", "sp") == ConditionSplitter(**conditions)
    assert load_artifact(FOLDER / "condition", "smc") == SimilarityCondition(tolerance=2.0, weight_mode="exp", min_weight=0.125)


def test_models_and_rules(numbers):
    import keydnn

    x = rows().values("features.x.raw")
    model = BaseModel.load(FOLDER / "model")
    model.eval()
    assert close(model(keydnn.tensor(x)).numpy(), numbers["model"])
    rule = Optimizer.load(FOLDER / "optimizer")
    assert rule.get_config()["opt_kwargs"] == {"lr": 0.5, "betas": (0.5, 0.75)}
    parameter = keydnn.nn.Linear(2, 1).weight
    parameter.copy_from_numpy(np.zeros((1, 2), "f4"))
    rule.build(parameters=[parameter])
    parameter.grad = keydnn.tensor(np.zeros((1, 2), "f4"))
    rule.step()  # moments of one step with ones: m = 0.25, v = 0.1875, corrected by 1 - 0.5^2 and 1 - 0.75^2
    assert np.allclose(parameter.numpy(), -0.5 * (0.25 / 0.75) / np.sqrt(0.1875 / 0.4375))
    assert Loss.load(FOLDER / "loss") == Loss("mse", backend="keydnn", reduction="sum")
    kept = Checkpoint.load(FOLDER / "checkpoint")
    assert same_values(kept.entries, {"a": {"w": np.arange(3.0), 4: (None, b"x", True)}}) and kept.meta == {"epoch": 2, "best": 0.5}


def test_an_estimator(numbers):
    pytest.importorskip("skops", reason="needs the sklearn extra")
    assert close(BaseModel.load(FOLDER / "estimator")(rows().values("features.x.raw")), numbers["estimator"])


def test_graphs_and_experiments(numbers):
    rows()
    graph = ModelGraph.load(FOLDER / "graph")
    assert np.array_equal(made.weights(graph), numbers["weights"])
    with ExperimentContext().activate() as ctx:
        exp = Experiment.load(FOLDER / "trial")
        (run,) = exp.history
        assert run.status == "completed" and np.array_equal(made.losses(run), numbers["losses"])
        assert np.array_equal(made.weights(ctx.model_graph), numbers["weights"])
        assert close(made.outputs(exp), numbers["outputs"])


def test_a_run_and_its_checkpoints(numbers, tmp_path):
    names = [name for name in made.json.loads((FOLDER / "files.json").read_text()) if name.startswith("run/checkpoints")]
    assert [Checkpoint.load(FOLDER / name).meta["phase"] for name in names] == ["train", "train"]
    run = shutil.copytree(FOLDER / "run", tmp_path / "run")
    with ExperimentContext().activate() as ctx:
        exp = Experiment.resume(run, **made.QUIET)
        assert np.array_equal(made.losses(exp.last_run), numbers["losses of the run"])
        assert np.array_equal(made.weights(ctx.model_graph), numbers["weights of the run"])
    (run / "plan.ckpt.mml").unlink()
    (run / names[-1].removeprefix("run/")).unlink()
    with ExperimentContext().activate() as ctx:  # the second epoch is run again
        exp = Experiment.resume(run, **made.QUIET)
        assert close(np.array(made.losses(exp.last_run)), numbers["losses of the run"])
        assert close(made.weights(ctx.model_graph), numbers["weights of the run"])


def test_yaml(tmp_path):
    pytest.importorskip("yaml", reason="needs the experiment extra")
    rows()
    exp = from_yaml(FOLDER / "trial")
    assert [item.label for item in exp.execution_plan] == ["train", "after"] and exp.seed == 5
    assert exp.to_yaml(tmp_path / "again").read_bytes() == (FOLDER / "trial.yaml").read_bytes()
    exp.run(**made.QUIET)
    assert len(made.losses(exp.last_run)) == 6


def test_nothing_is_missing():
    told = made.json.loads((FOLDER / "files.json").read_text())
    assert {*told} <= {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*")} and len(told) == 21
