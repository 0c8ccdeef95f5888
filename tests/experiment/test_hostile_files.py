"""Hostile artifacts of every kind: none runs code, none leaves its place, none takes much more memory than its file."""

import io
import json
import os
import struct
import subprocess
import tracemalloc
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest

import keydnn
from keydnn.domain.errors import CheckpointError, MissingExtraError
from keydnn.experiment import Experiment, FeatureSet
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.errors import ArtifactError, ExperimentError, PackagedCodeError, SymbolResolutionError
from keydnn.experiment.graph import ModelGraph, ModelNode
from keydnn.experiment.io import Checkpoint, inspect_packaged_code, load_artifact
from keydnn.experiment.io.archive import ArchiveReader
from keydnn.experiment.io.artifact import ArtifactReader
from keydnn.experiment.io.values import read_npy
from keydnn.experiment.models import wrap_model
from keydnn.experiment.samplers import SimilarityCondition, SimpleSampler
from keydnn.experiment.scalers import Scaler
from keydnn.experiment.splitters import RandomSplitter
from keydnn.experiment.training import Loss, Optimizer

KINDS = ["fs", "sp", "sm", "sc", "smc", "md", "mg", "op", "ls", "ckpt", "exp"]
READ = {"fs": FeatureSet.load, "mg": ModelGraph.load, "ckpt": Checkpoint.load, "exp": Experiment.load}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Kind to the members of a good file."""
    folder, found = tmp_path_factory.mktemp("good"), {}
    with ExperimentContext().activate():
        fs = FeatureSet.from_dict("rows", {"x": np.ones((6, 2), "f4"), "y": np.arange(6.0), "t": list("ababab")}, "x", "y", "t")
        fs.fit_transform("PerSampleZeroStart", domain="features", keys="x")
        graph = ModelGraph(
            [
                ModelNode(
                    "n", keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.Linear(2, 1)), fs.reference(features="x.raw", targets="y.raw")
                )
            ],
            Optimizer("sgd", opt_kwargs={"lr": 0.5}, backend="keydnn"),
        )
        graph.build()
        sampler = SimpleSampler(batch_size=2, source=fs)
        sampler.materialize_batches()
        model = wrap_model(keydnn.nn.Linear(2, 1))
        model.build((2,))
        made = [
            fs, RandomSplitter({"a": 0.5, "b": 0.5}), sampler, Scaler("SegmentedScaler", {"boundaries": (0, 2), "scaler": "Negate"}),
            SimilarityCondition(tolerance=2), model, graph, Optimizer("adam", backend="keydnn"), Loss(keydnn.nn.CrossEntropy),
            Checkpoint({"a": {"w": np.arange(4.0)}}), Experiment.from_active_context("trial"),
        ]  # fmt: skip
        for kind, obj in zip(KINDS, made, strict=True):
            with zipfile.ZipFile(obj.save(folder / kind)) as archive:
                found[kind] = {name: archive.read(name) for name in archive.namelist()}
    return found


def write(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, data)
    return path


def read(path, kind):
    with ExperimentContext().activate():
        if kind in ("sm", "mg"):
            FeatureSet.from_dict("rows", {"x": np.ones((6, 2), "f4"), "y": np.arange(6.0), "t": list("ababab")}, "x", "y", "t")
        return READ[kind](path) if kind in READ else load_artifact(path, kind)


@pytest.fixture
def watched(monkeypatch):
    """Whatever would run code or write files fails the test."""

    def ran(*args, **kwargs):
        raise AssertionError(f"something ran: {args}")

    for place, name in ((os, "system"), (os, "popen"), (subprocess, "Popen"), (os, "remove"), (os, "mkdir")):
        monkeypatch.setattr(place, name, ran)


@pytest.mark.parametrize("kind", KINDS)
def test_good_files_are_good(kind, files, tmp_path):
    assert read(write(tmp_path / f"a.{kind}.mml", files[kind]), kind) is not None


# -- archives ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("member", ["artifact.json", "config.json"])
def test_bombs_take_no_memory(kind, member, files, tmp_path):
    path = write(tmp_path / f"a.{kind}.mml", {**files[kind], member: b" " * (32 << 20) + files[kind][member]}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 17
    tracemalloc.start()
    with pytest.raises(ArtifactError, match="more than the"):
        read(path, kind)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20  # what a thousandfold of the member, and one block, come to


def test_a_bomb_among_arrays(files, tmp_path):
    members = {name: b"\0" * (1 << 24) if name.endswith(".npy") else data for name, data in files["ckpt"].items()}
    with pytest.raises(ArtifactError, match="more than the"):
        read(write(tmp_path / "a.ckpt.mml", members, zipfile.ZIP_DEFLATED), "ckpt")


def test_json_beyond_its_limit(files, tmp_path, monkeypatch):
    monkeypatch.setattr("keydnn.experiment.io.archive.MAX_JSON_BYTES", 1 << 16)
    path = write(tmp_path / "a.sc.mml", {**files["sc"], "config.json": b'{"a":"' + b"x" * (1 << 16) + b'"}'})
    with pytest.raises(ArtifactError, match="more than the 65536 bytes"):
        read(path, "sc")


@pytest.mark.parametrize("kind", ["op", "sc", "smc"])
def test_a_limit_of_the_caller(kind, files, tmp_path):
    path = write(tmp_path / f"a.{kind}.mml", files[kind])
    total = sum(len(data) for data in files[kind].values())
    assert load_artifact(path, kind, max_bytes=total) is not None
    with pytest.raises(ArtifactError, match="more than the"):
        load_artifact(path, kind, max_bytes=100)


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "a/..", "..", "C:\\x", "a\\..\\x", "file:x"])
@pytest.mark.parametrize("kind", ["fs", "ckpt", "exp"])
def test_names_that_lead_out(kind, name, files, tmp_path, watched):
    path = write(tmp_path / f"a.{kind}.mml", {**files[kind], name: b"x"})
    with pytest.raises(ArtifactError, match="leads out"):
        read(path, kind)
    with pytest.raises(ArtifactError, match="leads out"):
        inspect_packaged_code(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", KINDS)
def test_names_that_stand_there_twice(kind, files, tmp_path):
    path = write(tmp_path / f"a.{kind}.mml", [*files[kind].items(), ("config.json", b"{}")])
    with pytest.raises(ArtifactError, match="twice"):
        read(path, kind)


def test_links_are_read_as_the_text_that_they_hold(files, tmp_path):
    """No member is ever written to the disk, so a link leads nowhere: its text is no JSON."""
    link = zipfile.ZipInfo("config.json")
    link.external_attr, link.create_system = 0o120777 << 16, 3
    members = [(name, data) for name, data in files["sc"].items() if name != "config.json"]
    path = write(tmp_path / "a.sc.mml", [*members, (link, b"/etc/passwd")])
    with pytest.raises(ArtifactError, match="no JSON"):
        read(path, "sc")


def entries_of(data):
    """Places of the entries in the directory at the end of a zip file."""
    places, at = [], data.find(b"PK\x01\x02")
    while at >= 0:
        places.append(at)
        at = data.find(b"PK\x01\x02", at + 4)
    return places


def test_members_that_overlap(files, tmp_path):
    data = bytearray(write(tmp_path / "a.sc.mml", files["sc"]).read_bytes())
    first, second, *_ = entries_of(data)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]  # the second member begins where the first does
    (tmp_path / "a.sc.mml").write_bytes(data)
    with pytest.raises(ArtifactError):
        read(tmp_path / "a.sc.mml", "sc")


@pytest.mark.parametrize("kind", KINDS)
def test_checksums_are_compared(kind, files, tmp_path):
    data = bytearray(write(tmp_path / f"a.{kind}.mml", files[kind]).read_bytes())
    at = data.find(files[kind]["config.json"])
    data[at + len(files[kind]["config.json"]) // 2] ^= 1
    (tmp_path / f"a.{kind}.mml").write_bytes(data)
    with pytest.raises(ArtifactError, match="damaged"):
        read(tmp_path / f"a.{kind}.mml", kind)


def test_sizes_that_are_not_true(files, tmp_path):
    data = bytearray(write(tmp_path / "a.sc.mml", files["sc"]).read_bytes())
    for at in entries_of(data):
        data[at + 24 : at + 28] = struct.pack("<I", 0xFFFFFFF0)  # each says it holds 4 GiB
    (tmp_path / "a.sc.mml").write_bytes(data)
    tracemalloc.start()
    assert read(tmp_path / "a.sc.mml", "sc").scaler_name == "SegmentedScaler"  # what is there is read, nothing is reserved
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"PK\x05\x06" + b"\0" * 18, b"\0" * 1000, b"{}", np.random.default_rng(0).bytes(5000)], ids=len
)
def test_what_is_no_archive(content, tmp_path):
    for kind in KINDS:
        (tmp_path / f"a.{kind}.mml").write_bytes(content)
        with pytest.raises(ArtifactError):
            read(tmp_path / f"a.{kind}.mml", kind)
    with pytest.raises(ArtifactError):
        ArchiveReader(content).json("artifact.json")


# -- JSON and arrays -----------------------------------------------------------------------------------------------------------

STRANGE = {
    "deep lists": b"[" * 200_000,
    "deep objects": b'{"a":' * 50_000,
    "closed and deep": b"[" * 900 + b"]" * 900,
    "no text": b"\xff\xfe\x00",
    "nothing": b"",
    "a number": b"1",
    "NaN": b"NaN",
    "huge number": b"1" * 10_000,
    "NaN as a key": b'{"$dict": [[NaN, 1], [NaN, 2]]}',
    "a list as a key": b'{"$dict": [[[1], 1]]}',
    "three in a pair": b'{"$dict": [[1, 2, 3]]}',
    "two marks": b'{"$tuple": [], "$dict": []}',
    "a mark and a name": b'{"$tuple": [], "a": 1}',
    "member that is none": b'{"$array": "../../etc/passwd"}',
    "member that is JSON": b'{"$array": "config.json"}',
    "bytes that are none": b'{"$bytes": 3}',
    "a pickle": b'{"$unsafe": {"member": "config.json", "type": "x"}}',
    "packed": b'{"$packed": "nowhere"}',
}


@pytest.mark.parametrize("content", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("kind", KINDS)
def test_strange_configs(kind, content, files, tmp_path, watched):
    path = write(tmp_path / f"a.{kind}.mml", {**files[kind], "config.json": content})
    with pytest.raises(ExperimentError):
        read(path, kind)


def npy(descr, shape, body=b"", order="False"):
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    header += b" " * (64 - (10 + len(header)) % 64 - 1) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


PICKLE = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94."
ARRAYS = {
    "objects": npy("'|O'", "(1,)", PICKLE),
    "objects in a struct": npy("[('a', '|O')]", "(1,)", PICKLE),
    "a pickle": PICKLE,
    "too large": npy("'<f8'", "(1000000000000,)"),
    "too large for any number": npy("'<f8'", f"({10**30}, 4)"),
    "negative": npy("'<f8'", "(-1, -8)", b"\0" * 64),
    "more than said": npy("'<f8'", "(1,)", b"\0" * 800),
    "no shape": npy("'<f8'", "'x'"),
    "code in the header": npy("__import__('os').system('id')", "(1,)", b"\0" * 8),
    "a call in the shape": npy("'<f8'", "(print(1),)", b"\0" * 8),
    "a huge struct": npy("[('a', '<f8', (2147483647,))]", "(1,)"),
    "a long header": b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
    "another version": b"\x93NUMPY\x09\x00" + b"\0" * 80,
    "strings without end": npy("'<U536870911'", "(4,)"),
    "nothing": b"",
}


@pytest.mark.parametrize("data", ARRAYS.values(), ids=ARRAYS)
def test_strange_arrays(data, files, tmp_path, watched):
    tracemalloc.start()
    with pytest.raises(ArtifactError, match="damaged"):
        read_npy(data, "a")
    for kind in ("ckpt", "md", "sm", "exp"):
        members = {name: data if name.endswith(".npy") else old for name, old in files[kind].items()}
        if members != files[kind]:
            with pytest.raises(ArtifactError):
                read(write(tmp_path / f"a.{kind}.mml", members), kind)
    assert tracemalloc.get_traced_memory()[1] < 1 << 23
    tracemalloc.stop()


# -- classes ---------------------------------------------------------------------------------------------------------------------

NAMES = [
    {"policy": "builtin", "key": "os:system"},
    {"policy": "builtin", "key": "subprocess:Popen"},
    {"policy": "builtin", "module": "os", "name": "system"},
    {"policy": "builtin", "module": "builtins", "name": "eval"},
    {"policy": "builtin", "module": "math", "name": "__loader__"},
    {"policy": "builtin", "backend": "torch", "name": "hub.load"},
    {"policy": "builtin", "backend": "torch", "name": "nn.sys"},
    {"policy": "builtin", "backend": "keydnn", "name": "nn.__builtins__"},
    {"policy": "builtin", "backend": "scikit", "name": "utils.check_array"},
    {"policy": "builtin", "backend": ["x"], "name": "y"},
    {"policy": "registered", "registry": "os", "name": "system"},
    {"policy": "registered", "registry": "scaler", "name": "__class__"},
    {"policy": "packaged", "source_ref": "code/x.py", "qualname": "X"},
    {"policy": "packaged", "source_ref": "/etc/x.py", "qualname": "X"},
    {"policy": "state_only"},
    {"policy": "importable", "path": "os:system"},
    {"policy": ["x"]},
    "os.system",
    None,
]
CODE = {"code/x.py": b"import os\nos.system('id')\nclass X: pass\n"}


@pytest.mark.parametrize("named", NAMES, ids=str)
@pytest.mark.parametrize("mark", ["$symbol", "$object", "header"])
def test_names_of_what_runs(named, mark, files, tmp_path, watched):
    if mark != "header":
        said = named if mark == "$symbol" else {"class": named, "config": {"command": "id", "expression": "1"}}
        changed = {"config.json": json.dumps({"told": {mark: said}}).encode()}
    else:
        told = json.loads(files["sc"]["artifact.json"])
        told["header"]["symbol"] = named
        changed = {"artifact.json": json.dumps(told).encode()}
    path = write(tmp_path / "a.sc.mml", {**files["sc"], **CODE, **changed})
    with pytest.raises((ArtifactError, SymbolResolutionError, PackagedCodeError, MissingExtraError)):
        load_artifact(path, "sc")
    assert "os.system" in inspect_packaged_code(path)["code/x.py"]  # it is shown, and did not run


@pytest.mark.parametrize(
    "named",
    [
        {"policy": "builtin", "module": "math", "name": "exp"},
        {"policy": "builtin", "key": "Checkpoint"},
        {"policy": "builtin", "key": "FeatureSet"},
        {"policy": "builtin", "backend": "keydnn", "name": "nn.Linear"},
    ],
    ids=str,
)
def test_a_class_of_another_kind(named, files, tmp_path):
    told = json.loads(files["sc"]["artifact.json"])
    told["header"]["symbol"] = named
    with ExperimentContext().activate() as ctx:
        with pytest.raises(ArtifactError, match="no class of kind 'sc'"):
            load_artifact(write(tmp_path / "a.sc.mml", {**files["sc"], "artifact.json": json.dumps(told).encode()}), "sc")
        assert not ctx.available_nodes


def test_functions_make_no_objects(files, tmp_path, watched):
    said = {"class": {"policy": "builtin", "module": "math", "name": "factorial"}, "config": {"n": 10**9}}
    path = write(tmp_path / "a.sc.mml", {**files["sc"], "config.json": json.dumps({"$object": said}).encode()})
    with pytest.raises(ArtifactError, match="no class"):
        load_artifact(path, "sc")


@pytest.mark.parametrize("kind", ["md", "mg"])
def test_a_config_asks_for_no_more_weights_than_the_file_has(kind, files, tmp_path):
    config = files[kind]["config.json"].replace(b'"out_features":1', b'"out_features":100000000')
    assert config != files[kind]["config.json"]
    tracemalloc.start()
    with pytest.raises(ArtifactError, match="more than the file has weights for"):
        read(write(tmp_path / f"a.{kind}.mml", {**files[kind], "config.json": config}), kind)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


def test_what_a_file_may_ask_for_ends_with_its_reading(files, tmp_path):
    path = write(tmp_path / "a.md.mml", files["md"])
    with ArtifactReader(path, "md") as first, pytest.raises(CheckpointError, match="more than the file has weights for"):
        keydnn.nn.Linear(2048, 2048)
    with ArtifactReader(path, "md") as second:
        pass
    del first  # as they came, not the last one first
    del second
    keydnn.nn.Linear(2048, 2048)


def test_pickles_stay_closed(files, tmp_path, watched):
    state = json.dumps({"left": {"$unsafe": {"member": "evil.pkl", "type": "x"}}}).encode()
    path = write(tmp_path / "a.ckpt.mml", {**files["ckpt"], "entries/0000/state.json": state, "evil.pkl": PICKLE})
    mark = Checkpoint.load(path).entries["a"]["left"]
    assert not mark.is_permitted
    with pytest.raises(PackagedCodeError, match="allow_packaged_code=True"):
        mark.open()


# -- tables ------------------------------------------------------------------------------------------------------------------------


def ipc(table):
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def strings(text=b"ababab"):
    return pa.StringArray.from_buffers(6, pa.py_buffer(np.arange(7, dtype=np.int32)), pa.py_buffer(text))


def codes(indices):
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(["a", "b"]), safe=False)


def lists():
    return pa.array([[float(i)] for i in range(6)], pa.list_(pa.float64()))


GOOD = np.arange(7, dtype=np.int32).tobytes()  # the offsets as they are written
TABLES = {  # a column, and other offsets
    "offsets beyond the text": (strings, [0, 1, 2, 3, 4, 5, 2**31 - 1]),
    "offsets that go back": (strings, [0, 2, 1, 2, 0, 1, 6]),
    "negative offsets": (strings, [-5, 0, 0, 1, 1, 1, 2]),
    "text that is none": (lambda: strings(b"\xff\xfe\xff\xfe\xff\xfe"), range(7)),
    "codes beyond the dictionary": (lambda: codes([0, 1, 0, 1, 0, 99]), range(7)),
    "negative codes": (lambda: codes([0, 1, 0, 1, 0, -7]), range(7)),
    "lists beyond their values": (lists, [0, 1, 2, 3, 4, 5, 10**6]),
    "lists that go back": (lists, [0, 5, 1, 3, 4, 5, 6]),
}


@pytest.mark.parametrize(("make", "offsets"), TABLES.values(), ids=TABLES)
def test_tables_that_point_outside(make, offsets, files, tmp_path):
    table = pa.ipc.open_file(pa.BufferReader(files["fs"]["sample_collection.arrow"])).read_all()
    (place,) = (i for i, name in enumerate(table.column_names) if name.startswith("tags.t"))
    field = pa.field(table.column_names[place], make().type)
    written = ipc(table.set_column(place, field, make()))
    assert GOOD in written or list(offsets) == list(range(7))
    hostile = written.replace(GOOD, np.array(offsets, np.int32).tobytes())
    path = write(tmp_path / "a.fs.mml", {**files["fs"], "sample_collection.arrow": hostile})
    with pytest.raises(ArtifactError), ExperimentContext().activate():
        FeatureSet.load(path)


@pytest.mark.parametrize("rows", [[99], [-2], [0.5], [[0, 1]], [True]], ids=str)
def test_rows_that_are_not_there(rows, files, tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.array(rows))
    told = {"splits": [{"name": "s", "rows": "splits/0000.npy", "parent": None}], "label_classes": {}}
    members = {**files["fs"], "split_configs.json": json.dumps(told).encode(), "splits/0000.npy": buffer.getvalue()}
    with pytest.raises(ArtifactError, match="not there"), ExperimentContext().activate():
        FeatureSet.load(write(tmp_path / "a.fs.mml", members))
