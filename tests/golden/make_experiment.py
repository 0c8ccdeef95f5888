"""How the files of ``experiment/`` were made: ``python -m tests.golden.make_experiment`` (see README.md; existing files are left alone).

One file of every kind of artifact, an experiment with a history, the folder of a run with its checkpoints, and YAML; what they
must give stands in ``numbers.npz`` (arrays) and ``numbers.json`` beside them.
"""

import json
import tempfile
from pathlib import Path

import numpy as np

import keydnn
from keydnn.experiment import AppliedLoss, EvalPhase, Experiment, FeatureSet, Loss, ModelGraph, ModelNode, Optimizer, PhaseGroup, TrainPhase
from keydnn.experiment.callbacks import EarlyStopping, EvalLossMetric, Evaluation
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.io import Checkpoint
from keydnn.experiment.models import wrap_model
from keydnn.experiment.models.keydnn import SequentialMLP
from keydnn.experiment.phases import Checkpointing
from keydnn.experiment.predicates import GT, Lambda
from keydnn.experiment.samplers import PairedSampler, SimilarityCondition, SimpleSampler
from keydnn.experiment.scalers import Scaler
from keydnn.experiment.splitters import ConditionSplitter, RandomSplitter

FOLDER = Path(__file__).parent / "experiment" / "kinds"
QUIET = {"show_sampler_progress": False, "show_training_progress": False}


def rows():
    """Twelve samples in two splits."""
    i = np.arange(12)
    x = np.stack([np.sin(i), np.cos(i), i / 12], 1).astype("f4")
    fs = FeatureSet.from_dict("rows", {"x": x, "y": (x.sum(1) / 2).astype("f4"), "t": ["a", "b", "c"] * 4}, "x", "y", "t")
    fs.split_random({"train": 0.5, "val": 0.5}, seed=1)
    return fs


def plan(fs, checkpointing=None):
    """An experiment: two nodes, a training phase with an evaluation and early stopping, a group with an evaluation."""
    first = ModelNode("first", SequentialMLP(output_shape=(3,), hidden_dim=4, dropout=0.25), fs)
    tail = ModelNode("tail", keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.Linear(3, 1)), first)
    ModelGraph([first, tail], Optimizer("adam", opt_kwargs={"lr": 0.01}, backend="keydnn"), "net")
    exp = Experiment.from_active_context("trial", seed=5)
    loss = AppliedLoss(Loss("mse", backend="keydnn"), tail, ["outputs", "targets"], label="error")
    watch = Evaluation(
        eval_phase=EvalPhase.from_split("watched", split="val", losses=[loss]), label="watch", metrics=[EvalLossMetric(loss=loss)]
    )
    train = TrainPhase.from_split(
        "train", split="train", sampler=SimpleSampler(batch_size=2, shuffle=True, seed=3), losses=[loss], n_epochs=2,
        callbacks=[watch, EarlyStopping(monitor="val_loss", patience=5)], checkpointing=checkpointing,
    )  # fmt: skip
    exp.execution_plan.add_phase(train).add_group(PhaseGroup("after", [EvalPhase.from_split("last", split="val", losses=[loss])]))
    return exp


def outputs(exp):
    """What the tail gives for the validation rows."""
    found = exp.run_evaluation(exp.execution_plan["after"]["last"]).tensors(node="tail", domain="outputs").values()
    return np.concatenate([tensor.numpy() for tensor in found])


def weights(graph):
    """All weights of the graph, in order, as one array."""
    nodes = [graph.nodes[key] for key in graph.nodes]
    return np.concatenate([value.ravel() for node in nodes for value in node.model.get_weights().values()])


def losses(run):
    """The loss of every step of the training phase."""
    return [record.to_float() for record in run.results["train"].losses(node="tail").values()]


def simple(folder):
    """One file of every simple kind; what they give."""
    with ExperimentContext().activate():
        fs = rows()
        condition = SimilarityCondition(tolerance=2.0, weight_mode="exp", min_weight=0.125)
        sampler = PairedSampler({"t": SimilarityCondition(), "y": condition}, batch_size=3, seed=4, source=fs)
        sampler.materialize_batches()
        scaler = Scaler("SegmentedScaler", {"boundaries": (0, 1, 3), "scaler": "PerSampleMinMaxScaler"}).fit(fs.values("features.x.raw"))
        rule, parameter = Optimizer("adam", opt_kwargs={"lr": 0.5, "betas": (0.5, 0.75)}, backend="keydnn"), keydnn.nn.Linear(2, 1).weight
        rule.build(parameters=[parameter])
        parameter.grad = keydnn.tensor(np.ones((1, 2), "f4"))
        rule.step()
        keydnn.seed(1)
        model = wrap_model(
            keydnn.Sequential(keydnn.Dense(4), keydnn.nn.BatchNorm1d(4), keydnn.nn.Tanh(), keydnn.Dropout(0.5), keydnn.Dense(2))
        )
        model.build((3,))
        splitter = RandomSplitter({"z": 0.5, "a": 0.25, "m": 0.25}, stratify_by="t", seed=2)
        kept = Checkpoint({"a": {"w": np.arange(3.0), 4: (None, b"x", True)}}, {"epoch": 2, "best": np.float32(0.5)})
        conditions = ConditionSplitter(low={"y": Lambda("lambda y: y < 0.5")}, high={"y": GT(0.5)})
        named = {
            "splitter": splitter,
            "conditions": conditions,
            "sampler": sampler,
            "scaler": scaler,
            "condition": condition,
            "model": model,
        }
        for name, obj in {
            **named,
            "optimizer": rule,
            "loss": Loss("mse", backend="keydnn", reduction="sum"),
            "checkpoint": kept,
            "rows": fs,
        }.items():
            obj.save(folder / name)
        model.eval()
        return {
            "scaled": scaler.transform(fs.values("features.x.raw")),
            "model": model(keydnn.tensor(fs.values("features.x.raw"))).numpy(),
            "split": np.concatenate([np.asarray(part) for part in splitter.split(fs, return_views=False).values()]),
            "pairs": np.concatenate([np.stack([b.role_indices["anchor"], b.role_indices["pair"]]) for b in sampler.get_batches()], 1),
        }


def estimator(folder):
    """A fitted estimator; what it predicts."""
    from sklearn import ensemble, pipeline, preprocessing

    with ExperimentContext().activate():
        fs = rows()
        x, y = fs.values("features.x.raw"), fs.values("targets.y.raw")
        model = wrap_model(pipeline.make_pipeline(preprocessing.StandardScaler(), ensemble.RandomForestRegressor(3, random_state=0)))
        model.fit(x, y)
        model.save(folder / "estimator")
        return {"estimator": model(x)}


def experiment(folder):
    """An experiment with a history, its graph, its YAML, and the folder of a run; what they give."""
    with ExperimentContext().activate() as ctx:
        exp = plan(rows())
        exp.run(**QUIET)
        exp.save(folder / "trial")
        ctx.model_graph.save(folder / "graph")
        exp.to_yaml(folder / "trial")
        found = {"losses": np.array(losses(exp.last_run)), "outputs": outputs(exp), "weights": weights(ctx.model_graph)}
    with ExperimentContext().activate() as ctx:
        exp = plan(rows(), Checkpointing(mode="disk", save_on="epoch_end"))
        exp.run(folder / "run", **QUIET)
        return {**found, "weights of the run": weights(ctx.model_graph), "losses of the run": np.array(losses(exp.last_run))}


def main():
    if FOLDER.exists():
        raise SystemExit(f"{FOLDER} is there; nothing here is ever written again")
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as name:
        folder = Path(name) / "kinds"
        folder.mkdir()
        numbers = {**simple(folder), **estimator(folder), **experiment(folder)}
        np.savez(folder / "numbers.npz", **numbers)
        (folder / "files.json").write_text(
            json.dumps(sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()), indent=1)
        )
        folder.rename(FOLDER)


if __name__ == "__main__":
    main()
