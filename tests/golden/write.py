"""How the files of `ours/` were made: ``python tests/golden/write.py NAME...`` (see README.md; existing files are left alone)."""

import sys
from pathlib import Path

import numpy as np

import keydnn

FOLDER = Path(__file__).parent / "ours"
EXPERIMENT = FOLDER.parent / "experiment"


def filled(model, shape):
    """Every weight and statistic away from its default."""
    model.build(shape)
    rng = np.random.default_rng(1)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        low = 0.5 if name.endswith(("running_var", "gamma")) else -0.5
        tensor.copy_from_numpy(rng.uniform(low, low + 1, tensor.shape))
    return model, rng.normal(size=shape)


def cnn():
    return filled(
        keydnn.Sequential(
            keydnn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=1, bias=False),
            keydnn.BatchNorm2d(4, eps=1e-3, momentum=0.2),
            keydnn.LeakyReLU(0.2),
            keydnn.MaxPool2d(2, stride=1, padding=1),
            keydnn.Conv2dTranspose(4, 3, 3, stride=2, padding=1, output_padding=1),
            keydnn.Sigmoid(),
            keydnn.AvgPool2d((2, 1)),
            keydnn.Dropout(0.3),
            keydnn.Flatten(),
            keydnn.Dense(5),
            keydnn.Softmax(),
        ),
        (2, 2, 6, 5),
    )


def conv_extras():
    return filled(
        keydnn.Sequential(
            keydnn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=2, initializer="xavier"),
            keydnn.Tanh(),
            keydnn.GlobalAvgPool2d(),
            keydnn.Flatten(),
            keydnn.Linear(4, 2),
        ),
        (2, 4, 7, 6),
    )


def float64_named_shared():
    shared = keydnn.Linear(3, 3, dtype="float64")
    model = keydnn.Sequential()
    for name, layer in [
        ("stem", keydnn.Dense(3, dtype="float64")),
        ("again", shared),
        ("act", keydnn.ReLU()),
        ("inner", keydnn.Sequential(shared, keydnn.LayerNorm((3,), dtype="float64"))),
        ("final", keydnn.Linear(3, 2, bias=False, dtype="float64")),
    ]:
        model.add(layer, name)
    model.build(keydnn.zeros((1, 4), dtype="float64"))
    return filled(model, (5, 4))


def write_checkpoint(name):
    """A JSON checkpoint."""
    net, x = WRITERS[name]()
    x = x.astype(next(net.parameters()).dtype)
    net.save_json(FOLDER / f"{name}.json")
    np.savez(FOLDER / f"{name}.npz", x=x, y=net.predict(x).to_numpy())


def write_run():
    """A training state: three epochs of a small network, data included."""
    keydnn.seed(3)
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(20, 4)).astype(np.float32), rng.integers(0, 3, 20)
    net = keydnn.Sequential(keydnn.Dense(6), keydnn.BatchNorm1d(6), keydnn.ReLU(), keydnn.Dropout(0.2), keydnn.Dense(3))
    net.build((1, 4))
    net.fit(x, y, loss="cross_entropy", optimizer="adam", optimizer_kwargs={"lr": 0.01}, batch_size=8, epochs=3, verbose=0)
    net.save(FOLDER / "run.safetensors")
    np.savez(FOLDER / "run.npz", x=x, y=net.predict(x).to_numpy(), labels=y)


def write_feature_set():
    """A feature set with nested splits, scalers and encoded labels."""
    from keydnn.experiment.context import ExperimentContext
    from keydnn.experiment.data import FeatureSet
    from keydnn.experiment.predicates import GT, Lambda

    rows = np.arange(8)
    data = {"x": np.stack([rows, rows**2, -rows], 1) / 4, "b": rows.astype("f4"), "y": 2 * rows}
    data |= {"t": ["red", "blue"] * 4, "n": [None, "a"] * 4}
    with ExperimentContext(registration_policy="no_register").activate():
        made = FeatureSet.from_dict("sample", data, ["x", "b"], "y", ["t", "n"])
        fs = FeatureSet("sample", made.collection, node_id="00000000-0000-4000-8000-000000000001", uuid_key=7)
        fs.split_random({"train": 0.75, "test": 0.25}, stratify_by="t")
        fs["train"].split_by_condition({"low": {"b": Lambda("lambda x: x < 4")}, "high": {"b": GT(3)}})
        fs.fit_transform("PerSampleZeroStart", domain="features", keys="x", fit_to_split="train")
        fs.fit_transform("Negate", domain="features", keys="b")
        fs.fit_transform("Absolute", domain="targets")
        fs.encode_labels("t")
        fs.save(EXPERIMENT / "feature_set")


WRITERS = {function.__name__: function for function in (cnn, conv_extras, float64_named_shared)}

if __name__ == "__main__":
    for chosen in sys.argv[1:] or WRITERS:
        if not (FOLDER / f"{chosen}.json").exists():
            write_checkpoint(chosen)
    if not (FOLDER / "run.safetensors").exists():
        write_run()
    if not (EXPERIMENT / "feature_set.fs.mml").exists():
        write_feature_set()
