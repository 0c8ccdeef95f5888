"""Every kind of artifact, read and written again in another process: the same bytes, so the same config and state."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import keydnn
from keydnn.experiment import FeatureSet
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.equality import same_values
from keydnn.experiment.errors import ArtifactError, PackagedCodeError, SymbolResolutionError
from keydnn.experiment.graph import ConcatNode, ModelGraph, ModelNode
from keydnn.experiment.io import Checkpoint, artifact_path, inspect_packaged_code, load_artifact, migration_registry
from keydnn.experiment.models import wrap_model
from keydnn.experiment.models.keydnn import SequentialCNN, SequentialMLP
from keydnn.experiment.predicates import EQ, GT, In, Lambda, Not
from keydnn.experiment.samplers import NSampler, PairedSampler, SimilarityCondition, SimpleSampler, TripletSampler
from keydnn.experiment.scalers import Scaler
from keydnn.experiment.splitters import ConditionSplitter, KFoldSplitter, RandomSplitter, TimeSplitter
from keydnn.experiment.training import Loss, Optimizer


def rows():
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(12, 3)).astype("f4"), "y": np.arange(12.0), "t": ["a", "b", "c"] * 4}
    return FeatureSet.from_dict("rows", data, "x", "y", "t")


def drawn(sampler):
    sampler.materialize_batches()
    return sampler


def graph(fs):
    first = ModelNode("first", SequentialMLP(output_shape=(3,), hidden_dim=4), fs)
    second = ModelNode("second", keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.Linear(3, 2)), first)
    third = ModelNode("third", keydnn.Sequential(keydnn.nn.Flatten(), keydnn.Dropout(0.5)), first)
    made = ModelGraph(
        [first, second, third, ConcatNode("both", [second, third], concat_axis_targets="first")], Optimizer("adam", backend="keydnn"), "net"
    )
    made.build()
    made.freeze("first")
    return made


def built(model, shape):
    model.build(shape)
    return model


CLOSE = {"y": SimilarityCondition(tolerance=2, weight_mode="exp", min_weight=0.1)}
OBJECTS = {
    "fs": [lambda fs: fs],
    "sp": [
        lambda fs: RandomSplitter({"a": 0.5, "b": 0.5}, group_by="t", seed=None),
        lambda fs: ConditionSplitter(low={"y": GT(3) & Not(EQ(5)), "t": In(["a", "b"])}, high={"y": Lambda("lambda x: x > 3")}),
        lambda fs: KFoldSplitter(3, seed=None),
        lambda fs: TimeSplitter({"old": 0.75, "new": 0.25}, order_by="y"),
    ],
    "sm": [
        lambda fs: drawn(SimpleSampler(batch_size=5, shuffle=True, stratify_by="t", source=fs)),
        lambda fs: drawn(PairedSampler(CLOSE, batch_size=3, seed=1, source=fs)),
        lambda fs: drawn(TripletSampler(CLOSE, {"t": SimilarityCondition("dissimilar")}, batch_size=2, source=fs)),
        lambda fs: NSampler({"near": CLOSE, "far": {"y": SimilarityCondition("dissimilar", 5)}}, seed=None),
    ],
    "sc": [
        lambda fs: Scaler("SegmentedScaler", {"boundaries": (0, 2), "scaler": "Negate"}).fit(np.ones((3, 2))),
        lambda fs: Scaler("PerSampleMinMaxScaler").fit(np.arange(6.0).reshape(2, 3)),
        lambda fs: Scaler("Absolute"),
    ],
    "smc": [lambda fs: CLOSE["y"], lambda fs: SimilarityCondition("dissimilar", 0.5)],
    "md": [
        lambda fs: SequentialMLP(input_shape=(3,), output_shape=(1,), n_layers=2, hidden_dim=4, activation=keydnn.nn.Tanh()),
        lambda fs: SequentialCNN(input_shape=(2, 9), output_shape=(1, 3), hidden_dim=3, pooling=2),
        lambda fs: built(wrap_model(keydnn.Sequential(keydnn.Dense(4), keydnn.nn.BatchNorm1d(4), keydnn.Dropout(0.5))), (3,)),
    ],
    "mg": [graph],
    "op": [lambda fs: Optimizer("adam", opt_kwargs={"lr": 0.1, "betas": (0.5, 0.75)}, backend="keydnn", clip_norm=2.0)],
    "ls": [lambda fs: Loss("mse", backend="keydnn", reduction="sum"), lambda fs: Loss(keydnn.nn.CrossEntropy)],
    "ckpt": [lambda fs: Checkpoint({"net": {"w": np.arange(3.0), 4: (None, b"x")}, "": CLOSE["y"].get_config()}, {"epoch": 3})],
}
AGAIN = """
import pathlib, sys
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import FeatureSet
from keydnn.experiment.graph import ModelGraph
from keydnn.experiment.io import Checkpoint, load_artifact
read = {"fs": FeatureSet.load, "mg": ModelGraph.load, "ckpt": Checkpoint.load}
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    name, kind, _ = path.name.split(".")
    with ExperimentContext(registration_policy="overwrite").activate():
        FeatureSet.load(sys.argv[1] + "/0") if kind in ("sm", "mg") else None
        made = read[kind](path) if kind in read else load_artifact(path, kind)
        assert made.save(pathlib.Path(sys.argv[2]) / name).read_bytes() == path.read_bytes(), path.name
        print(path.name)
"""


def run(*arguments):
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    return subprocess.run([sys.executable, "-c", *arguments], capture_output=True, text=True, check=False, env=env)


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(tmp_path):
    (tmp_path / "there").mkdir()
    n = 0
    with ExperimentContext().activate():
        fs = rows()
        for kind, makers in OBJECTS.items():
            for make in makers:
                assert make(fs).save(tmp_path / "here" / str(n)).name == f"{n}.{kind}.mml"
                n += 1
    done = run(AGAIN, str(tmp_path / "here"), str(tmp_path / "there"))
    assert len(done.stdout.split()) == n, done.stderr[-1500:]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        | st.dictionaries(st.integers() | st.booleans() | st.tuples(st.text(max_size=2)), inner, max_size=2)
    ),
    max_leaves=8,
)
ARRAYS = arrays(
    st.sampled_from(["f4", "f8", "f2", "i1", "u8", "?", "c8", "<U3", "M8[s]", ">i4"]),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    elements=None,
    fill=st.nothing(),
)


@given(st.dictionaries(st.text(max_size=5), PLAIN | ARRAYS, max_size=4))
def test_checkpoints_hold_what_states_hold(tmp_path_factory, entries):
    path = Checkpoint(entries).save(tmp_path_factory.mktemp("c") / "c")
    again = Checkpoint.load(path).entries
    assert again.keys() == entries.keys()
    for key, value in entries.items():
        if isinstance(value, np.ndarray):
            got = again[key]
            assert (got.dtype, got.shape, got.tobytes()) == (value.dtype, value.shape, value.tobytes())
        else:
            assert same_values(again[key], value) and repr(again[key]) == repr(value)


@given(
    mode=st.sampled_from(["similar", "dissimilar"]),
    tolerance=st.floats(0, 1e300),
    weights=st.tuples(st.floats(0, 1), st.floats(1, 1e9)),
    weight_mode=st.sampled_from(["binary", "linear", "exp"]),
)
def test_conditions_and_optimizers_keep_every_bit_of_their_numbers(tmp_path_factory, mode, tolerance, weights, weight_mode):
    folder = tmp_path_factory.mktemp("c")
    condition = SimilarityCondition(mode, tolerance, weight_mode=weight_mode, min_weight=weights[0], max_weight=weights[1])
    assert SimilarityCondition.load(condition.save(folder / "a")) == condition
    rule = Optimizer("sgd", opt_kwargs={"lr": tolerance + 1e-9, "momentum": weights[0] * 0.5}, backend="keydnn")
    assert same_values(Optimizer.load(rule.save(folder / "a")).get_config(), rule.get_config())


# -- how a file names a class -----------------------------------------------------------------------------------------------

MINE = """
from keydnn.experiment.splitters import BaseSplitter
class {name}(BaseSplitter):
    def __init__(self, n=2):
        self.n = n
    def split(self, view, *, return_views=True):
        return {{"all": list(range(len(view)))}}
    def get_config(self):
        return {{"n": self.n}}
    @classmethod
    def from_config(cls, config):
        return cls(**config)
def twice(a, b):
    return 2.0
"""
PACKAGED = """
import pathlib, sys
from keydnn.experiment.io import load_artifact
made = load_artifact(sys.argv[1], "sp", allow_packaged_code=True)
again = made.save(pathlib.Path(sys.argv[2]) / "again")
print(made.n, again.read_bytes() == pathlib.Path(sys.argv[1]).read_bytes())
"""


def module(folder, monkeypatch, name):
    (folder / f"{name}.py").write_text(MINE.format(name=name.title()))
    monkeypatch.syspath_prepend(folder)
    return __import__(name)


@pytest.mark.slow
def test_packaged_classes_without_their_module(tmp_path, monkeypatch):
    mine = module(tmp_path, monkeypatch, "packagedsplitter")
    path = mine.Packagedsplitter(7).save(tmp_path / "p" / "mine")
    assert [MINE.format(name="Packagedsplitter")] == list(inspect_packaged_code(path).values())
    with pytest.raises(PackagedCodeError, match="inspect_packaged_code"):
        load_artifact(path, "sp")
    done = run(PACKAGED, str(path), str(tmp_path / "q"))
    assert done.stdout.split() == ["7", "True"], done.stderr[-1500:]


def test_registered_and_supplied_classes(tmp_path, monkeypatch):
    from keydnn.experiment.splitters import splitter_registry

    mine = module(tmp_path, monkeypatch, "registeredsplitter").Registeredsplitter
    splitter_registry["Registeredsplitter"] = mine
    try:
        path = mine(3).save(tmp_path / "r")
        assert not inspect_packaged_code(path) and load_artifact(path, "sp").n == 3
    finally:
        del splitter_registry["Registeredsplitter"]
    with pytest.raises(SymbolResolutionError, match="register the class first"):
        load_artifact(path, "sp")


def local():
    outer = 3.0
    return lambda a, b: outer


@pytest.mark.parametrize(
    ("metric", "said"), [(lambda a, b: 0.0, "lambda"), (local(), "lambda"), (eval, "source of")], ids=["lambda", "closure", "builtin"]
)
def test_what_cannot_be_packaged(metric, said, tmp_path):
    with pytest.raises(RuntimeError, match=said):
        SimilarityCondition(metric=metric).save(tmp_path / "m")
    assert not list(tmp_path.iterdir())


IN_MAIN = """
import sys
from keydnn.experiment.samplers import SimilarityCondition
def near(a, b):
    return 1.0
try:
    SimilarityCondition(metric=near).save(sys.argv[1])
except RuntimeError as error:
    print("__main__" in str(error), "register" in str(error))
"""


@pytest.mark.slow
def test_what_stands_in_main_cannot_be_packaged(tmp_path):
    assert run(IN_MAIN, str(tmp_path / "m")).stdout.split() == ["True", "True"]


def test_code_of_parts_is_told(tmp_path, monkeypatch):
    mine = module(tmp_path, monkeypatch, "partsplitter")
    with ExperimentContext().activate():
        fs = rows()
        fs.split(mine.Partsplitter())
        sampler = PairedSampler({"y": SimilarityCondition(metric=mine.twice)}, batch_size=2, source=fs)
        for path in (
            fs.save(tmp_path / "fs"),
            sampler.save(tmp_path / "sm"),
            Checkpoint({"a": sampler.get_config()}).save(tmp_path / "ck"),
        ):
            assert list(inspect_packaged_code(path).values()) == [MINE.format(name="Partsplitter")], path.name


# -- versions -----------------------------------------------------------------------------------------------------------------


def with_header(path, **changes):
    from tests.experiment.test_files import rewritten

    told = json.loads(__import__("zipfile").ZipFile(path).read("artifact.json"))
    told["header"] |= changes
    return rewritten(path, {"artifact.json": told}, path.with_name(f"{'-'.join(changes.values())}.{path.name}"))


@pytest.mark.parametrize("kind", OBJECTS)
def test_a_newer_schema_is_refused_for_every_kind(kind, tmp_path):
    with ExperimentContext().activate():
        fs = rows()
        made = OBJECTS[kind][0](fs)
        path = made.save(tmp_path / "a")
        with pytest.raises(ValueError, match="use a newer one"):
            type(made).load(with_header(path, schema_version="2.0"))
        for minor in ("1.7", "1"):
            with ExperimentContext().activate() as ctx:
                ctx.register_experiment_node(fs)
                type(made).load(with_header(path, schema_version=minor))


def test_migrations_go_step_by_step_and_never_in_a_circle(tmp_path):
    path = with_header(SimilarityCondition(tolerance=2).save(tmp_path / "a"), object_version="0.1")
    seen = []
    steps = [("0.1", "0.2"), ("0.2", "1.0")]
    for a, b in steps:
        step = lambda config, a=a: seen.append(a) or {**config, "tolerance": config["tolerance"] + 1}  # noqa: E731
        migration_registry.register(object_type="smc", from_version=a, to_version=b, fn=step)
    try:
        assert load_artifact(path, "smc").tolerance == 4 and seen == ["0.1", "0.2"]
        migration_registry.register(object_type="smc", from_version="0.2", to_version="0.1", fn=dict, overwrite=True)
        with pytest.raises(ArtifactError, match="circle"):
            load_artifact(path, "smc")
    finally:
        for a, _ in steps:
            migration_registry.unregister(object_type="smc", from_version=a)


def test_the_order_of_names_is_kept(tmp_path):
    ratios = {"train": 0.5, "beta": 0.25, "alpha": 0.25}
    with ExperimentContext().activate():
        fs = rows()
        splitter = RandomSplitter(ratios)
        again = load_artifact(splitter.save(tmp_path / "a"), "sp")
        assert list(again.ratios) == list(ratios)
        parts = [one.split(fs, return_views=False) for one in (splitter, again)]
        assert {name: list(rows) for name, rows in parts[0].items()} == {name: list(rows) for name, rows in parts[1].items()}


def test_names_of_files():
    assert artifact_path("a/b.c.ckpt", "ckpt") == Path("a/b.ckpt.mml") and artifact_path("b", "fs") == Path("b.fs.mml")
