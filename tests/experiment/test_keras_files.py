"""Keras models in files: told by public classes, the same bits in another process, and nothing else is named."""

import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from keydnn.experiment import FeatureSet
from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import BatchView, ExecutionContext
from keydnn.experiment.equality import same_values
from keydnn.experiment.errors import ExperimentError
from keydnn.experiment.graph import ModelGraph, ModelNode
from keydnn.experiment.models import BaseModel, wrap_model
from keydnn.experiment.training import AppliedLoss, Loss, Optimizer

keras = pytest.importorskip("keras", reason="needs tensorflow")


def recurrent():
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Reshape((4, 1)),
            layers.Conv1D(3, 2, activation="relu", kernel_regularizer=keras.regularizers.L2(0.1)),
            layers.Bidirectional(layers.LSTM(2, dropout=0.25)),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(2, kernel_initializer=keras.initializers.HeNormal(seed=3), kernel_constraint=keras.constraints.NonNeg()),
        ]
    )


def branches():
    layers = keras.layers
    start = keras.Input((4,))
    left, right = layers.Dense(3, activation="tanh")(start), layers.Dense(3, name="right")(start)
    return keras.Model(start, layers.Dense(1)(layers.Concatenate()([layers.Add()([left, right]), right])))


MODELS = {"recurrent": recurrent, "branches": branches, "layer": lambda: keras.layers.Dense(3, use_bias=False)}
READ = """
import pathlib, sys, numpy as np
from keydnn.experiment.models import BaseModel
import keras
keras.Sequential([keras.layers.Dropout(0.5), keras.layers.Dense(1)])(np.ones((2, 2)))  # so that counted names differ
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.md.mml")):
    model, name = BaseModel.load(path), path.name.split(".")[0]
    out = model(np.load(path.parent / "x.npy")).numpy()
    assert out.tobytes() == np.load(path.parent / f"{name}.y.npy").tobytes(), name
print("all")
"""


def test_models_compute_the_same_bits_in_another_process(tmp_path):
    x = np.random.default_rng(0).standard_normal((6, 4)).astype("f4")
    np.save(tmp_path / "x.npy", x)
    for name, make in MODELS.items():
        model = wrap_model(make())
        model.build((4,))
        model(x, training=True)  # moves the statistics of the batch norm
        again = BaseModel.load(model.save(tmp_path / name))
        assert again == model and again.get_config() == model.get_config()
        np.save(tmp_path / f"{name}.y.npy", model(x).numpy())
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, check=False, env=env)
    assert done.stdout.strip().endswith("all"), done.stderr[-2000:]


class Own(keras.layers.Layer):
    def call(self, x):
        return 2 * x


@pytest.mark.parametrize("layer", [lambda: keras.layers.Lambda(lambda x: x), Own], ids=["lambda", "own"])
def test_what_a_file_cannot_tell_is_not_written(layer, tmp_path):
    model = keras.Sequential([keras.layers.Dense(2), layer()])
    assert adapter(Backend.TENSORFLOW).describe(model) is None
    with pytest.raises(TypeError, match="put the model into a class in a module"):
        wrap_model(model).save(tmp_path / "net")
    assert not list(tmp_path.iterdir())


def rows():
    rng = np.random.default_rng(0)
    return FeatureSet.from_dict(
        "rows", {"x": rng.standard_normal((32, 4)).astype("f4"), "y": rng.standard_normal(32).astype("f4")}, "x", "y"
    )


def train(graph, fs, n):
    node = graph.nodes[next(iter(graph.nodes))]
    loss, losses = AppliedLoss(Loss("mse", backend="tensorflow"), node, ["outputs", "targets"]), []
    for i in range(n):
        ctx = ExecutionContext("p", 0, i)
        batch = BatchView(fs, {"default": np.arange(i * 4, i * 4 + 8) % 32}).materialize_batch()
        ctx.set_input(node_id=node.node_id, upstream=node.upstream_ref, batch=batch)
        graph.train_step(ctx, [loss])
        losses.append(ctx.losses.to_float())
    return losses


def test_training_goes_on_with_the_same_bits(tmp_path):
    with ExperimentContext().activate():
        fs = rows()
        model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(12, activation="tanh"), keras.layers.Dense(1)])
        node = ModelNode("net", model, fs, Optimizer("adam", opt_kwargs={"learning_rate": 0.01}, backend="tensorflow"))
        graph = ModelGraph([node])
        graph.build()
        train(graph, fs, 3)
        path = graph.save(tmp_path / "net")
        straight = train(graph, fs, 3)
    with ExperimentContext().activate() as ctx:
        ctx.register_experiment_node(fs)
        again = ModelGraph.load(path)
        assert again.get_config() == graph.get_config() and train(again, fs, 3) == straight
        weights = [next(iter(g.nodes.values())).model.get_weights() for g in (graph, again)]
        assert same_values(*weights)


LAMBDA = {"class_name": "__lambda__", "config": {"value": ["4wEAAAA=", None, None]}}
SYSTEM = {"module": "os", "class_name": "system", "config": "id", "registered_name": "system"}


@pytest.mark.parametrize(
    "hostile",
    [
        SYSTEM,
        LAMBDA,
        {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": "eval"},
        {"class": {"$symbol": {"policy": "builtin", "backend": "tensorflow", "name": "layers.Lambda"}}, "config": {}},
        {"class": {"$symbol": {"policy": "builtin", "backend": "tensorflow", "name": "optimizers.Adam"}}, "config": {}},
        {
            "class": {"$symbol": {"policy": "builtin", "backend": "tensorflow", "name": "layers.StringLookup"}},
            "config": {"vocabulary": "/etc/x"},
        },
        {"class": {"$symbol": {"policy": "builtin", "key": "Loss"}}, "config": {}},
        {"mark": "__lambda__", "config": LAMBDA["config"]},
        {"mark": "__typespec__", "config": [], "spec_name": "system"},
        {"$symbol": {"policy": "builtin", "module": "math", "name": "exp"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("place", ["activation", "kernel_initializer", "dtype"])
def test_a_file_names_nothing_else(hostile, place, tmp_path):
    model = wrap_model(keras.Sequential([keras.layers.Dense(2)]))
    model.build((3,))
    path = model.save(tmp_path / "net")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    layers = config["init_args"]["model"]["$object"]["config"]["tree"]["config"]["layers"]
    assert place in layers[-1]["config"]
    layers[-1]["config"][place] = hostile
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(ExperimentError):
        BaseModel.load(path)
