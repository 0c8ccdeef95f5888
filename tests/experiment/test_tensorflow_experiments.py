"""Experiments with Keras models: files prove their numbers, folds and trials give the same bits elsewhere."""

import numpy as np
import pytest
from click.testing import CliRunner

from keydnn.cli.commands import commands
from keydnn.experiment import (
    AppliedLoss,
    CrossValidation,
    CVBinding,
    EvalPhase,
    Experiment,
    ExperimentContext,
    FeatureSet,
    Loss,
    ModelGraph,
    ModelNode,
    Optimizer,
    Sweep,
    TrainPhase,
)
from keydnn.experiment.samplers import SimpleSampler
from tests.experiment.test_folds import QUIET, told
from tests.experiment.test_subfolders import Here

keras = pytest.importorskip("keras", reason="needs tensorflow")
RUN = {"show_sampler_progress": False, "show_training_progress": False}


def lazy():
    """Gets its weights when shapes are known, but for the first dense layer, which brings its own."""
    known = keras.layers.Dense(3)
    known.build((None, 3))
    drop = keras.layers.Dropout(0.3)
    return keras.Sequential([keras.layers.Flatten(), known, keras.layers.Dense(4, activation="relu"), drop, keras.layers.Dense(1)])


def functional():
    x = keras.Input((1, 3))
    return keras.Model(x, keras.layers.Dense(1)(keras.layers.BatchNormalization()(keras.layers.Flatten()(x))))


def experiment(model):
    exp = Experiment("exp", ctx=ExperimentContext(), seed=3)
    with exp.ctx.activate():
        x = np.random.default_rng(0).normal(size=(40, 3)).astype("f4")
        fs = FeatureSet.from_dict("cells", {"u": x, "y": x.sum(axis=1, keepdims=True)}, "u", "y")
        fs.split_random({"train": 0.6, "val": 0.2, "test": 0.2}, seed=1)
        net = ModelNode("net", model, fs)
        ModelGraph([net], Optimizer("adam", opt_kwargs={"learning_rate": 0.02}, backend="tensorflow"))
        loss = AppliedLoss(Loss("mse", backend="tensorflow"), net, ["outputs", "targets"], label="error")
        sampler = SimpleSampler(batch_size=8, shuffle=True, seed=5)
        exp.execution_plan.add_phase(TrainPhase.from_split("train", split="train", sampler=sampler, losses=[loss], n_epochs=2))
        exp.execution_plan.add_phase(EvalPhase.from_split("test", split="test", losses=[loss]))
    return exp, CVBinding(fs, ["train", "val"])


def called(*arguments):
    return CliRunner().invoke(commands, ["experiment", *map(str, arguments)])


@pytest.mark.slow
def test_a_file_proves_its_numbers_and_tells_a_changed_weight(tmp_path):
    for make in (lazy, functional):
        exp, _ = experiment(make())
        exp.run(**RUN)
        path = exp.save(tmp_path / make.__name__)
        done = called("reproduce", path)
        assert done.exit_code == 0 and ", 0 within, 0 different, 0 missing" in done.output, done.output
        with ExperimentContext().activate():
            again = Experiment.load(path)
        assert called("compare", path, again.save(tmp_path / f"{make.__name__}_again")).exit_code == 0
        with exp.ctx.activate():
            (net,) = exp.model_graph.nodes.values()
            weights = net.model.get_weights()
            name = next(name for name in weights if name.endswith("kernel"))
            weights[name][0, 0] += 0.5
            net.model.set_weights(weights)
        changed = called("reproduce", exp.save(tmp_path / "changed", overwrite=True))
        assert changed.exit_code == 1 and f"different  weight net/{name}  up to 0.5 apart" in changed.output


def test_lazy_layers_get_the_weights_that_the_seed_gives_and_keep_those_they_brought():
    found = []
    for _ in range(2):
        model = lazy()
        brought = model.layers[1].kernel.numpy().copy()
        exp, _ = experiment(model)
        exp.model_graph.build()
        assert np.array_equal(model.layers[1].kernel.numpy(), brought)
        found.append([model.layers[i].kernel.numpy() for i in (2, 4)])
    assert all(np.array_equal(a, b) and a.std() > 0 for a, b in zip(*found, strict=True))


@pytest.mark.slow
def test_folds_and_trials_elsewhere():
    exp, binding = experiment(lazy())
    folds = [
        CrossValidation(bindings=binding, n_folds=2, experiment=exp, executor=where, threads_per_task=1).run(**QUIET)
        for where in ("serial", Here(workers=1))
    ]
    here, there = ([told(results.get_fold(label)) for label in results.fold_labels] for results in folds)
    assert here == there and here[0] != here[1]
    space = {"model_graph.optimizer.opt_kwargs.learning_rate": [0.01, 0.1]}
    tables = [
        Sweep(space=space, metric="train/train_loss", experiment=exp, executor=where, threads_per_task=1).run(show_progress=False).trials
        for where in ("serial", Here(workers=1))
    ]
    assert tables[0] == tables[1] and tables[0][0].error is None and tables[0][0].value != tables[0][1].value
