"""Files: every bit comes back, damage and hostility are told apart from content, and nothing in a file is run."""

import json
import os
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import FeatureSet, SampleCollection
from keydnn.experiment.errors import ArtifactError, ArtifactKindError, ExperimentError, PackagedCodeError, SampleLoadError
from keydnn.experiment.io import inspect_packaged_code, load_artifact, migration_registry
from keydnn.experiment.io.artifact import clear_errors
from keydnn.experiment.predicates import GT, Lambda
from keydnn.experiment.samplers import SimilarityCondition
from keydnn.experiment.scalers import Scaler
from keydnn.experiment.splitters import BaseSplitter, ConditionSplitter

OWN_SCALERS = ["Absolute", "Negate", "PerSampleMinMaxScaler", "PerSampleZeroStart"]


@pytest.fixture
def rich(ten):
    ten.split_random({"train": 0.8, "test": 0.2})
    ten["train"].split_by_condition({"big": {"b": GT(4)}, "small": {"b": Lambda("lambda x: x <= 4")}})
    ten.fit_transform("Negate", domain="features", keys=["b", "a"], fit_to_split="train")
    ten.fit_transform("PerSampleZeroStart", domain="targets")
    ten.encode_labels("t")
    return ten


def test_everything_comes_back(rich, tmp_path):
    path = rich.save(tmp_path / "deep" / "set.old")
    assert path.name == "set.fs.mml"
    assert FeatureSet.load(path) is rich
    with ExperimentContext(registration_policy="error").activate() as ctx:
        again = FeatureSet.load(tmp_path / "deep" / "set")
        assert ctx.get_node(rich.node_id) is again
        assert [(r.keys, r.fit_split, r.scaler_obj) for r in again.scaler_records] == [
            (r.keys, r.fit_split, r.scaler_obj) for r in rich.scaler_records
        ]
        assert again.available_splits == rich.available_splits and again.split_registry.ancestors("big") == ["big", "train"]
        assert all((again[n].indices == rich[n].indices).all() for n in again.available_splits)
        assert again.collection == rich.collection and again.get_sample_uuids().tolist() == rich.get_sample_uuids().tolist()
        assert again.label_classes == {"t_code": ["x", "y"]} and again.fingerprint == rich.fingerprint
        again.undo_last_transform("targets")
        rich.undo_last_transform("targets")
        assert again.collection == rich.collection


@given(
    values=arrays(
        st.sampled_from(["f4", "f8", "i2", "u8", "?", "<U4"]),
        st.tuples(st.integers(2, 9), st.integers(2, 3)),
        elements=None,
        fill=st.nothing(),
    ),
    steps=st.lists(
        st.tuples(st.sampled_from([*OWN_SCALERS, "StandardScaler", "MinMaxScaler"]), st.sampled_from(["ab", "ba", "a", "b"])), max_size=3
    ),
    seed=st.integers(0, 99),
)
def test_every_bit_and_every_fitted_scaler_comes_back(values, steps, seed, tmp_path_factory):
    if any(name in ("StandardScaler", "MinMaxScaler") for name, _ in steps):
        pytest.importorskip("sklearn", reason="needs the sklearn extra")
    n, rng = len(values), np.random.default_rng(seed)
    with ExperimentContext(registration_policy="no_register").activate(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rounding of tiny variances
        columns = {"v": values, "a": rng.normal(size=n), "b": rng.normal(size=n), "t": rng.integers(0, 2, n)}
        fs = FeatureSet.from_dict("fs", columns, ["v", "a", "b"], [], "t")
        fs.split_random({"one": 0.5, "two": 0.5}, seed=seed)
        for name, keys in steps:
            fs.fit_transform(name, domain="features", keys=list(keys), fit_to_split="one")
        path = fs.save(tmp_path_factory.mktemp("bits") / "a")
        again = FeatureSet.load(path)
        assert again.get_all_keys() == fs.get_all_keys() and again.node_id == fs.node_id
        for name in fs.get_all_keys():
            x, y = fs.values(name), again.values(name)
            assert (x.dtype, x.shape, x.tolist() if x.dtype == object else x.tobytes()) == (
                y.dtype,
                y.shape,
                y.tolist() if y.dtype == object else y.tobytes(),
            )
        assert [again[name].indices.tolist() for name in ("one", "two")] == [fs[name].indices.tolist() for name in ("one", "two")]
        assert again.scaler_records == fs.scaler_records
        for before, after in zip(fs.scaler_records, again.scaler_records, strict=True):
            x = rng.normal(size=(n, len(before.keys)))
            assert before.scaler_obj.transform(x).tobytes() == after.scaler_obj.transform(x).tobytes()


def test_a_lambda_is_kept_as_text(ten, tmp_path):
    ten.split_by_condition({"low": {"b": lambda x: x < 3}})
    path = ten.save(tmp_path / "a")
    with ExperimentContext().activate():
        (record,) = FeatureSet.load(path).splitter_records
    assert record.splitter.conditions == {"low": {"b": Lambda("lambda x: x < 3")}}


def test_equal_content_gives_equal_bytes(rich, tmp_path):
    a, b = (rich.save(tmp_path / name).read_bytes() for name in ("a", "b"))
    assert a == b


def test_another_set_with_the_same_id(ten, tmp_path, context):
    path = ten.save(tmp_path / "a")
    ten.split_random({"all": 1.0})
    loaded = FeatureSet.load(path)
    assert loaded.node_id != ten.node_id and loaded.available_splits == [] and len(context.available_nodes) == 2
    replaced = FeatureSet.load(path, overwrite=True)
    assert replaced.node_id == ten.node_id and context.get_node(ten.node_id) is replaced


def test_existing_files_stay(ten, tmp_path):
    ten.save(tmp_path / "a")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        ten.save(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        FeatureSet.load(tmp_path / "b")


def test_another_kind_is_refused(tmp_path):
    path = Scaler("Negate").save(tmp_path / "a")
    with pytest.raises(ArtifactKindError, match="kind 'sc', expected 'fs'"):
        FeatureSet.load(path)


def rewritten(path, changes, target):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members.update({name: value if isinstance(value, bytes) else json.dumps(value).encode() for name, value in changes.items()})
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return target


@pytest.mark.parametrize("name", ["../evil.txt", "/tmp/evil.txt", "a/../../evil", "C:evil", "..\\evil"])
def test_paths_that_lead_out_are_refused(name, ten, tmp_path):
    path = rewritten(ten.save(tmp_path / "a"), {name: b"x"}, tmp_path / "b.fs.mml")
    with pytest.raises(ArtifactError, match="leads out"):
        FeatureSet.load(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.fs.mml", "b.fs.mml"]


def test_a_bomb_is_refused(ten, tmp_path):
    path = ten.save(tmp_path / "a")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = b" " * (1 << 24) + members["config.json"]
    with zipfile.ZipFile(tmp_path / "b.fs.mml", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(ArtifactError, match="more than the"):
        FeatureSet.load(tmp_path / "b")
    with pytest.raises(ArtifactError, match="more than the"):
        load_artifact(Scaler("Negate").save(tmp_path / "c"), "sc", max_bytes=10)


@given(data=st.data())
def test_damage_is_an_error_or_the_same_set(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    with ExperimentContext(registration_policy="overwrite").activate():
        fs = FeatureSet.from_dict(
            "fs",
            {"x": np.arange(6.0), "t": list("abcabc")},
            "x",
            [],
            "t",
        )
        fs.split_random({"a": 0.5, "b": 0.5})
        fs.fit_transform("Negate", domain="features")
        path = fs.save(folder / "a")
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        member = data.draw(st.sampled_from([None, *members]))  # with a checksum that fits, or the file as a whole
        octets = bytearray(path.read_bytes() if member is None else members[member])
        cut = data.draw(st.booleans())
        if cut:
            octets = octets[: data.draw(st.integers(0, len(octets) - 1))]
        else:
            for _ in range(data.draw(st.integers(1, 4))):
                octets[data.draw(st.integers(0, len(octets) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        if member is None:
            (folder / "b.fs.mml").write_bytes(octets)
        else:
            rewritten(path, {member: bytes(octets)}, folder / "b.fs.mml")
        with ExperimentContext().activate():
            try:
                again = FeatureSet.load(folder / "b")
            except ExperimentError as error:
                assert len(str(error)) > 20
                return
            assert not cut and isinstance(again, FeatureSet) and (member is not None or again.collection == fs.collection)


MALFORMED = [
    {"artifact.json": [1]},
    {"artifact.json": {"header": {"schema_version": "9.0", "kind": "sc"}}},
    {"artifact.json": {"header": {"schema_version": "x", "kind": "sc"}}},
    {"config.json": {"scaler_cls": {"$symbol": {"policy": "builtin", "key": "os.system"}}}},
    {"config.json": {"scaler_cls": {"$symbol": {"policy": "importable", "path": "os:system"}}}},
    {"config.json": {"scaler_cls": {"$symbol": {"policy": "builtin", "module": "math", "name": "__loader__"}}}},
    {"config.json": {"scaler_cls": {"$symbol": {"policy": "packaged", "source_ref": "code/x.py", "qualname": "X"}}}},
    {"config.json": {"$array": "nowhere.npy"}},
    {"config.json": {"$what": 1}},
    {"config.json": b"{"},
    {"config.json": b"[" * 100000},
    {"config.json": b"[" * 600 + b"]" * 600},
    {"config.json": {"scaler_cls": "Absolute", "scaler_kwargs": "x"}},
    {"config.json": {"$tuple": 3}},
    {"config.json": {"$dict": [[[], 1]]}},
    {"config.json": {"$bytes": "!"}},
    {"config.json": {"$object": 3}},
    {"config.json": {"$predicate": {"type": "in"}}},
    {"config.json": {"$predicate": {"type": "unheard of"}}},
    {"config.json": {}},
    {"state.json": {}},
]


@pytest.mark.parametrize("changes", MALFORMED, ids=str)
def test_malformed_members_are_told(changes, tmp_path):
    path = rewritten(Scaler("Absolute").fit([[1.0]]).save(tmp_path / "a"), changes, tmp_path / "b.sc.mml")
    with pytest.raises(ExperimentError):
        Scaler.load(path)


PICKLE = b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94."


def test_no_pickle_is_read(tmp_path):
    scaler = Scaler("PerSampleZeroStart")
    scaler.fit_transform([[1.0, 2.0]])
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    header += b" " * (64 - (10 + len(header)) % 64 - 1) + b"\n"
    npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + PICKLE
    path = scaler.save(tmp_path / "a")
    with zipfile.ZipFile(path) as archive:
        arrays = [name for name in archive.namelist() if name.endswith(".npy")]
    with pytest.raises(ArtifactError, match="damaged"):
        Scaler.load(rewritten(path, dict.fromkeys(arrays, npy), tmp_path / "b.sc.mml"))
    torn = b"\x93NUMPY\x01\x00\x10\x00" + b"{'descr': '<f8',\n"  # NumPy reads such a header with a tokenizer
    with pytest.raises(ArtifactError, match="damaged"):
        Scaler.load(rewritten(path, dict.fromkeys(arrays, torn), tmp_path / "c.sc.mml"))


SOURCE = """
import pathlib
pathlib.Path(__file__).name
RUNS = []
from keydnn.experiment.splitters import BaseSplitter
class Halves(BaseSplitter):
    def split(self, view, *, return_views=True):
        n = len(view) // 2
        return {"first": list(range(n)), "second": list(range(n, len(view)))}
"""


def test_code_of_others_needs_permission(tmp_path, monkeypatch, ten):
    (tmp_path / "halves_for_test.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    halves_for_test = __import__("halves_for_test")
    path = halves_for_test.Halves().save(tmp_path / "mine")
    assert "class Halves" in "".join(inspect_packaged_code(path).values())
    with pytest.raises(PackagedCodeError, match="inspect_packaged_code"):
        BaseSplitter.load(path)
    ten.split(BaseSplitter.load(path, allow_packaged_code=True))
    assert len(ten["first"]) == 5
    with pytest.raises(RuntimeError, match="lambda"):
        SimilarityCondition(metric=lambda a, b: 0.0).save(tmp_path / "metric")


def test_predicate_text_is_checked_when_it_comes_from_a_file(tmp_path):
    path = ConditionSplitter(a={"b": Lambda("lambda x: x.__class__")}).save(tmp_path / "bad")
    with pytest.raises(PackagedCodeError, match="allow_packaged_code=True"):
        ConditionSplitter.load(path)
    assert ConditionSplitter.load(path, allow_packaged_code=True).conditions["a"]["b"].source == "lambda x: x.__class__"


def test_migrations_run_in_a_chain(tmp_path):
    path = rewritten(SimilarityCondition(tolerance=2).save(tmp_path / "a"), {}, tmp_path / "b.smc.mml")
    steps = {"1.0": ("1.1", lambda config: {**config, "tolerance": 3}), "1.1": ("1.2", lambda config: {**config, "mode": "dissimilar"})}
    for version, (to, fn) in steps.items():
        migration_registry.register(object_type="smc", from_version=version, to_version=to, fn=fn)
    try:
        assert SimilarityCondition.load(path) == SimilarityCondition("dissimilar", 3)
        with pytest.raises(ValueError, match="overwrite=True"):
            migration_registry.register(object_type="smc", from_version="1.0", to_version="2", fn=dict)
    finally:
        for version in steps:
            migration_registry.unregister(object_type="smc", from_version=version)


def chunked_file(path, n_chunks=20, rows=1000, width=4):
    fields = [pa.field(f"features.x{i}.raw", pa.float64()) for i in range(width)] + [pa.field("tags.t.raw", pa.string())]
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, pa.schema(fields)) as writer:
        for c in range(n_chunks):
            base = np.arange(c * rows, (c + 1) * rows, dtype=float)
            columns = [pa.array(base + i) for i in range(width)] + [pa.array([f"t{c % 3}"] * rows)]
            writer.write_batch(pa.record_batch(columns, schema=pa.schema(fields)))
    return path


def test_a_mapped_file_of_many_chunks(tmp_path):
    fs = FeatureSet.from_arrow_file("mapped", chunked_file(tmp_path / "x.arrow"))
    assert len(fs) == 20000
    rows = np.random.default_rng(0).integers(0, 20000, 500)
    assert (fs.take(rows).get_features("np")[:, 2] == rows + 2).all()
    assert fs.take(rows).get_tags("list")[7] == [f"t{rows[7] // 1000 % 3}"]
    fs.split_random({"a": 0.5, "b": 0.5}, stratify_by="t")
    assert len(fs["a"]) == 10000


LARGER_THAN_MEMORY = """
import os, resource, sys
import numpy as np
from keydnn.experiment.data import FeatureSet
from keydnn.experiment.samplers import SimpleSampler
limit = os.path.getsize(sys.argv[1]) // 2
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    np.ones(limit, dtype=np.uint8)
except MemoryError:
    print("limited")
def mapped():
    return [int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("RssFile")][0]
before = mapped()
fs = FeatureSet.from_arrow_file("mapped", sys.argv[1])
fs.split_random({"train": .8, "test": .2})
SimpleSampler(batch_size=4, seed=0, source=fs["train"].take([5, 90_000, 700_000, 3])).get_batches()[0].materialize_batch()
print(0 <= mapped() - before < 2 * limit / 5)  # a few pages around each value
total = 0.0
for batch in SimpleSampler(batch_size=256, shuffle=True, seed=0, source=fs["train"]).get_batches()[:200]:
    total += float(batch.materialize_batch().features[:, 0].sum())
print(total > 0)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA as Linux has it")
def test_a_file_twice_as_large_as_the_memory_allowed(tmp_path):
    path = chunked_file(tmp_path / "x.arrow", n_chunks=40, rows=25_000, width=42)  # 340 MB
    command = [sys.executable, "-c", LARGER_THAN_MEMORY, str(path)]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **one_thread})
    assert done.stdout.split() == ["limited", "True", "True"], done.stderr[-2000:]


def test_collections_in_files(tmp_path, ten):
    path = ten.collection.save(tmp_path / "c")
    assert path.name == "c.arrow"
    assert SampleCollection.load(path) == ten.collection == SampleCollection.load(tmp_path / "c")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SampleLoadError, match="no readable Arrow file"):
        SampleCollection.load(path)


def test_files_of_format_1_0_stay_readable():
    fs = FeatureSet.load(Path(__file__).parents[1] / "golden" / "experiment" / "feature_set")
    rows = np.arange(8)
    assert fs.label == "sample" and fs.node_id == "00000000-0000-4000-8000-000000000001" and fs.uuid_key == 7
    assert fs.available_splits == ["train", "test", "low", "high"]
    assert fs["low"].indices.tolist() == [i for i in fs["train"].indices if i < 4]
    assert (fs.values("features.x.raw") == np.stack([rows, rows**2, -rows], 1) / 4).all() and fs.values("features.b.raw").dtype == "f4"
    assert fs.get_tags("list", tags=["n", "t"])[:2] == [[None, "red"], ["a", "blue"]] and fs.label_classes == {"t_code": ["blue", "red"]}
    assert [(record.scaler_obj.scaler_name, record.fit_split) for record in fs.scaler_records] == [
        ("PerSampleZeroStart", "train"), ("Negate", None), ("Absolute", None),
    ]  # fmt: skip
    assert fs.get_sample_uuids()[0] == "f4607a2d-c009-49dc-9d3a-ba4215edac82"
    fs.undo_all_transforms()
    assert fs.get_feature_keys() == ["features.b.raw", "features.x.raw"]


def test_a_file_that_asks_for_more_memory_than_there_is():
    with pytest.raises(ArtifactError, match="big is malformed: MemoryError"), clear_errors("big"):
        raise MemoryError
