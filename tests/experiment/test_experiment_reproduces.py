"""An experiment from a file evaluates to the same bits, in a process that never saw the script that made it."""

import os
import subprocess
import sys

import numpy as np
import pytest

from keydnn.experiment import AppliedLoss, Experiment, FeatureSet, Loss, ModelGraph, ModelNode, Optimizer
from keydnn.experiment.phases import EvalPhase, FitPhase, PhaseGroup, TrainPhase
from keydnn.experiment.samplers import SimpleSampler

TOLD = """
import sys
import numpy as np
from keydnn.experiment import Experiment


def told(exp):
    '''Every array of an experiment that has to be the same: outputs of an evaluation, its losses, history and metrics.'''
    found = {}
    results = exp.run_evaluation(exp.execution_plan["after"]["val"])
    for i, run in enumerate(exp.history):
        frame = run.results.to_pandas()
        found[f"{i} metrics"] = frame["value"].to_numpy(float)
        found[f"{i} names"] = (frame["name"] + "/" + frame["epoch"].astype(str)).to_numpy().astype(str)
        found[f"{i} facts"] = np.array([run.label, run.status, run.started_at.isoformat(), run.ended_at.isoformat()][: 4 if i == 0 else 2])
    parts = {"again": results, "stored": exp.history[0].results["after"]["val"]}
    if "train" in exp.history[0].results:
        parts["train"] = exp.history[0].results["train"]
    for name, part in parts.items():
        for domain in ("outputs", "targets", "sample_uuids"):
            array = part.stacked_tensors("net", domain, fmt="np") if name != "train" else None
            tensors = [array] if array is not None else part.tensors("net", domain).values()
            for j, tensor in enumerate(tensors):
                found[f"{name} {domain} {j}"] = np.asarray(tensor.detach().numpy() if hasattr(tensor, "detach") else tensor)
    return found


def write(found, path):
    np.savez(path, **found)
"""
FRESH = f"""{TOLD}
exp = Experiment.load(sys.argv[1])
write(told(exp), sys.argv[2])
"""


def rows():
    rng = np.random.default_rng(0)
    fs = FeatureSet.from_dict("rows", {"x": rng.normal(size=(40, 6)), "y": rng.normal(size=40), "t": ["a", "b"] * 20}, "x", "y", "t")
    fs.split_random({"train": 0.6, "val": 0.4}, seed=1)
    fs.fit_transform("PerSampleMinMaxScaler", domain="features")
    return fs.reference(features="x.transformed", targets="y.raw")


def trained(model, backend, optimizer):
    net = ModelNode("net", model, rows())
    ModelGraph([net], Optimizer(optimizer, opt_kwargs={"lr": 0.01}, backend=backend))
    exp = Experiment.from_active_context("exp", seed=5)
    loss = AppliedLoss(Loss("mse", backend=backend), net, ["outputs", "targets"], label="error")
    sampler = SimpleSampler(batch_size=5, shuffle=True)
    train = TrainPhase.from_split("train", split="train", sampler=sampler, losses=[loss], n_epochs=3)
    exp.execution_plan.add_phase(train).add_group(PhaseGroup("after", [EvalPhase.from_split("val", split="val", losses=[loss])]))
    return exp


def keydnn_experiment():
    from keydnn.experiment.models.keydnn import SequentialMLP

    return trained(SequentialMLP(hidden_dim=16, dropout=0.2), "keydnn", "adam")


def torch_experiment():
    pytest.importorskip("torch")
    from keydnn.experiment.models.torch import SequentialMLP

    return trained(SequentialMLP(hidden_dim=16, dropout=0.2), "torch", "adamw")


def wrapped_experiment():
    torch = pytest.importorskip("torch")
    from keydnn.experiment.models import TorchModelWrapper

    layers = [torch.nn.Flatten(), torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1)]
    return trained(TorchModelWrapper(model=torch.nn.Sequential(*layers)), "torch", "sgd")


def scikit_experiment():
    ensemble = pytest.importorskip("sklearn.ensemble", reason="needs the sklearn extra")
    node = ModelNode("net", ensemble.RandomForestRegressor(5, random_state=0), rows())
    ModelGraph([node])
    exp = Experiment.from_active_context("exp", seed=5)
    exp.execution_plan.add_phase(FitPhase.from_split("fit", split="train"))
    exp.execution_plan.add_group(PhaseGroup("after", [EvalPhase.from_split("val", split="val")]))
    return exp


MAKERS = [
    keydnn_experiment,
    pytest.param(torch_experiment, marks=[pytest.mark.torch, pytest.mark.slow]),
    pytest.param(wrapped_experiment, marks=[pytest.mark.torch, pytest.mark.slow]),
    pytest.param(scikit_experiment, marks=pytest.mark.slow),
]


@pytest.mark.slow
@pytest.mark.parametrize("make", MAKERS)
def test_in_a_new_process(make, tmp_path):
    exp = make()
    exp.run(show_sampler_progress=False, show_training_progress=False)
    path = exp.save(tmp_path / "trial")
    here = {}
    exec(TOLD, here)
    expected = here["told"](exp)
    command = [sys.executable, "-W", "error", "-c", FRESH, str(path), str(tmp_path / "told.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ})
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "told.npz") as found:
        assert set(found) == set(expected)
        for name, array in expected.items():
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
            assert found[name].tobytes() == array.tobytes(), name
    assert any(name.startswith("stored outputs") for name in expected) and np.isfinite(expected["stored outputs 0"]).all()
    assert expected["again outputs 0"].tobytes() == expected["stored outputs 0"].tobytes()
