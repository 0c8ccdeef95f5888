"""What reads files: a row each, with how to write good ones."""

import gzip
import importlib.util
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import tempfile
import traceback
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

import keydnn
from keydnn.cli.job import config, rows
from keydnn.data import download, idx, images
from keydnn.interop import keras_files
from keydnn.interop.keras import from_keras
from keydnn.interop.onnx import load_onnx, to_onnx
from keydnn.saving import from_payload, read_msgpack, read_state, read_weights, to_payload, write_msgpack, write_state
from tests.fuzz import experiments

FORK_SLACK = 64 * 2**20  # bytes that a fork may take: libraries that it is the first to touch


@dataclass(frozen=True)
class Reader:
    """A reader of files.

    Attributes:
        name: What the command line calls it.
        suffix: Of its files.
        samples: Folder -> good files, as bytes.
        read: (file, folder to write into) -> anything.
        factor: How many times the file's size it may use, because its format is packed.
    """

    name: str
    suffix: str
    samples: Any
    read: Any
    factor: int = 10


def networks():
    keydnn.seed(0)
    small = keydnn.Sequential(keydnn.Linear(3, 2), keydnn.BatchNorm1d(2), keydnn.ReLU())
    images = keydnn.Sequential(
        keydnn.Conv2d(1, 2, 3, padding="same"), keydnn.MaxPool2d(2), keydnn.Flatten(), keydnn.Sequential(keydnn.Linear(8, 3))
    )
    return [small, images]


def saved(folder, suffix, save):
    result = []
    for i, model in enumerate(networks()):
        save(model, folder / f"good{i}{suffix}")
        result.append((folder / f"good{i}{suffix}").read_bytes())
    return result


def checkpoints(folder):
    return saved(folder, ".json", lambda model, path: model.save_json(path))


def packed_checkpoints(folder):
    return [gzip.compress(data, mtime=0) for data in checkpoints(folder)]


def packed(folder):
    both = [saved(folder, ".msgpack", lambda model, path, c=c: write_msgpack(path, to_payload(model), compress=c)) for c in (False, True)]
    return [data for files in both for data in files]


def read_packed(path, folder):
    from_payload(read_msgpack(path))


def states(folder):
    write_state(folder / "plain", {"a": np.arange(6.0).reshape(2, 3), "b": np.zeros(0, "f4")}, {"kind": "x", "deep": [1, {"y": None}]})
    runs = saved(folder, ".safetensors", lambda model, path: model.save(path, optimizer=keydnn.Adam(model.parameters())))
    return [(folder / "plain").read_bytes(), *runs]


def configs(folder):
    return [
        b'seed = 3\n[data]\nfile = "x.csv"\ntarget = "y"\ntest = 0.1\n[model]\nlayers = [{ type = "Dense", out_features = 8 }]\n'
        b'[training]\nloss = "mse"\noptimizer_kwargs = { lr = 0.05 }\nmetrics = ["acc"]\nepochs = 4\nearly_stopping = { patience = 2 }\n'
    ]


def tables(folder):
    return [b"a,b,c\n1,2,x\n3,4.5,y\n-1e3,0,z\n", b'"a","b"\r\n"1","2"\r\n']


def row_arrays(folder):
    np.savez(folder / "plain.npz", x=np.zeros((4, 3)), y=np.arange(4))
    np.savez_compressed(folder / "packed.npz", x=np.zeros((4, 3, 2), "f4"), y=np.arange(4, dtype="u1"))
    return [(folder / name).read_bytes() for name in ("plain.npz", "packed.npz")]


def bytes_of(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def idx_files(folder):
    arrays = [np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.arange(5, dtype=np.int32), np.zeros((2, 2), np.float64)]
    for i, array in enumerate(arrays):
        idx.write_idx(folder / f"good{i}.idx", array)
    return [(folder / f"good{i}.idx").read_bytes() for i in range(len(arrays))]


def archives(folder):
    def write(buffer, member):
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, content in (("data/a.bin", b"1234" * 50), ("data/b.txt", b"text")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            if member is not None:
                tar.addfile(member)

    link, above = tarfile.TarInfo("data/link"), tarfile.TarInfo("../above")
    link.type, link.linkname = tarfile.SYMTYPE, "../../outside"
    return [bytes_of(lambda b, m=m: write(b, m)) for m in (None, link, above)]


def cifar_batches(folder):
    import pickle

    batch = {b"data": np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072), b"labels": [3, 4], b"batch_label": b"x"}
    return [pickle.dumps(batch, protocol=p) for p in (2, 4)]


def weights(folder):
    models = networks()
    np.savez(folder / "good.npz", **models[0].state_dict())
    np.savez_compressed(folder / "packed.npz", **models[1].state_dict())
    models[0].save_weights(folder / "good.safetensors")
    return [path.read_bytes() for path in (folder / "good.npz", folder / "packed.npz", folder / "good.safetensors")]


def onnx_files(folder):
    small, images = networks()
    encoder = keydnn.Sequential(keydnn.TransformerEncoderLayer(4, 2, 4)).eval()
    nn = keydnn.nn
    planes = keydnn.Sequential(nn.Upsample(2), nn.GroupNorm(1, 1), nn.AdaptiveAvgPool2d((2, 3)), nn.Hardtanh()).eval()
    lines = keydnn.Sequential(keydnn.LSTM(4, 2, return_state=False), nn.Conv1d(1, 2, 1), nn.AvgPool1d(2)).eval()
    models = ((small, (1, 3)), (images, (1, 1, 4, 4)), (encoder, (2, 1, 4)), (planes, (1, 1, 4, 4)), (lines, (2, 1, 4)))
    return [*(to_onnx(m, shape).SerializeToString() for m, shape in models), looping()]


def looping():
    """Graphs inside of nodes, and operators that choose."""
    from onnx import TensorProto, helper

    def info(name, kind=TensorProto.FLOAT):
        return helper.make_tensor_value_info(name, kind, None)

    def branch(op):
        return helper.make_graph([helper.make_node(op, ["w"], ["b"])], op, [], [info("b")])

    body = helper.make_graph(
        [
            helper.make_node("Add", ["v", "one"], ["w"]),
            helper.make_node("If", ["c"], ["e"], then_branch=branch("Relu"), else_branch=branch("Neg")),
            helper.make_node("Identity", ["c"], ["d"]),
        ],
        "body",
        [info("i", TensorProto.INT64), info("c", TensorProto.BOOL), info("v")],
        [info("d", TensorProto.BOOL), info("e"), info("w")],
    )
    nodes = [
        helper.make_node("Loop", ["n", "", "x"], ["last", "all"], body=body),
        helper.make_node("TopK", ["last", "k"], ["best", ""], axis=-1),
        helper.make_node("Resize", ["best", "", "s"], ["y"], mode="cubic"),
        helper.make_node("CumProd", ["y", "n"], ["p"]),
        helper.make_node("QuantizeLinear", ["p", "one"], ["q"]),
    ]
    constants = [
        helper.make_tensor(name, kind, shape, values)
        for name, kind, shape, values in (
            ("one", TensorProto.FLOAT, [], [1.0]),
            ("n", TensorProto.INT64, [], [1]),
            ("k", TensorProto.INT64, [1], [2]),
            ("s", TensorProto.FLOAT, [2], [1.0, 1.5]),
        )
    ]
    graph = helper.make_graph(nodes, "g", [info("x")], [info("q", TensorProto.UINT8), info("all")], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()


def run_onnx(path, folder):
    model = load_onnx(path)
    for shape in ((1, 3), (1, 1, 4, 4), (2, 1, 4)):
        with np.errstate(all="ignore"):
            try:
                model(*[keydnn.zeros(shape) for _ in model.inputs])
            except ValueError as error:
                if not isinstance(error, keydnn.interop.onnx.OnnxError):
                    raise


def keras_models(folder):
    import h5py

    kernel = np.ones((3, 2), np.float32)
    layers = [{"class_name": "Dense", "config": {"name": "d", "units": 2}}, {"class_name": "ReLU", "config": {"name": "r"}}]
    made = json.dumps({"class_name": "Sequential", "config": {"layers": layers}})
    with h5py.File(folder / "good.h5", "w") as file:
        file.attrs["model_config"] = made
        group = file.create_group("model_weights/d")
        group.attrs["weight_names"] = ["kernel", "bias"]
        group["kernel"], group["bias"] = kernel, kernel[0]
    with h5py.File(folder / "inner.h5", "w") as file:
        file["layers/dense/vars/0"], file["layers/dense/vars/1"] = kernel, kernel[0]
    with h5py.File(folder / "empty.h5", "w") as file:  # says that it holds much, and holds nothing
        file.attrs["model_config"] = made
        group = file.create_group("model_weights/d")
        group.attrs["weight_names"] = ["kernel", "bias", "kernel"]
        group.create_dataset("kernel", (9000, 9000), "f4", chunks=(10, 10))
        group["bias"] = kernel[0]
    with zipfile.ZipFile(folder / "good.keras", "w") as archive:
        archive.writestr("config.json", made)
        archive.write(folder / "inner.h5", "model.weights.h5")
    return [(folder / name).read_bytes() for name in ("good.h5", "good.keras", "empty.h5")]


def forked(path, seconds):
    """What `keras_files.ask` does, in a fork instead of a new process: the same code and the same protection, many times as fast."""
    with tempfile.TemporaryFile() as answers:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if (child := os.fork()) == 0:
            code = 70
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.setitimer(signal.ITIMER_REAL, seconds)
                sys.stdout = io.TextIOWrapper(answers, write_through=True)
                keras_files.answer(path)
                code = 0
            except SystemExit as end:
                code = end.code
            except BaseException:  # noqa: BLE001  the process that stands for this one would show it, and end with 1
                traceback.print_exc()
                code = 1
            finally:
                sys.stdout.flush()
                os._exit(code)
        _, status, usage = os.wait4(child, 0)
        grown = (usage.ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)
        if grown > 10 * os.path.getsize(path) + FORK_SLACK:
            raise MemoryError(f"the process that read {os.path.getsize(path):,} bytes grew by {grown:,}")
        if (code := os.waitstatus_to_exitcode(status)) == 1:
            raise AssertionError("the process that read the file met an error nobody thought of, see above")
        if code == -signal.SIGALRM:
            raise subprocess.TimeoutExpired(path, seconds)
        answers.seek(0)
        return subprocess.CompletedProcess(path, code, answers.read(), b"")


def read_keras(path, folder):
    keras_files.LEAST_SECONDS, keras_files.ask = 2.0, forked
    return from_keras(path)


def run_job(path, folder):
    return config.read_job(path)


def unpacked_samples(reader):
    return lambda folder: experiments.unpacked(reader.samples(folder))


def read_unpacked(reader):
    return lambda path, folder: reader.read(experiments.packed(path.read_bytes(), folder / "packed.mml"), folder)


READERS = [
    Reader("checkpoint", ".json", checkpoints, lambda path, folder: keydnn.Sequential.load_json(path)),
    Reader("packed-checkpoint", ".json.gz", packed_checkpoints, lambda path, folder: keydnn.Sequential.load_json(path), factor=10_000),
    Reader("state", ".safetensors", states, lambda path, folder: read_state(path)),
    Reader("model-state", ".safetensors", states, lambda path, folder: keydnn.Sequential.load(path)),
    Reader("config", ".toml", configs, run_job),
    Reader("csv", ".csv", tables, lambda path, folder: rows.read_csv(path)),
    Reader("idx", ".idx", idx_files, lambda path, folder: idx.read_idx(path)),
    Reader("cifar", "", cifar_batches, lambda path, folder: images.read_cifar(path, "labels")),
    Reader("tar", ".tar", archives, lambda path, folder: download.extract_tar(path, folder)),
    Reader("rows", ".npz", row_arrays, lambda path, folder: rows.read_npz(path, "x", "y")),
    Reader("weights", "", weights, lambda path, folder: read_weights(path)),
]
if importlib.util.find_spec("onnx"):
    READERS.append(Reader("onnx", ".onnx", onnx_files, run_onnx))
if importlib.util.find_spec("msgpack"):
    READERS.append(Reader("msgpack", ".msgpack", packed, read_packed, factor=10_000))
if importlib.util.find_spec("h5py"):
    READERS.append(Reader("keras", "", keras_models, read_keras))
if importlib.util.find_spec("pyarrow") and importlib.util.find_spec("pandas"):
    READERS += [
        Reader("artifact", ".mml", experiments.artifacts, experiments.read_artifact),
        Reader("model", ".mml", experiments.models, experiments.read_model),
        Reader("experiment", ".mml", experiments.experiments, experiments.read_experiment),
    ]
    READERS += [Reader(f"unpacked-{made.name}", ".txt", unpacked_samples(made), read_unpacked(made)) for made in READERS[-3:]]
if importlib.util.find_spec("pyarrow") and importlib.util.find_spec("yaml"):
    READERS.append(Reader("yaml", ".yaml", experiments.documents, experiments.read_document))
if importlib.util.find_spec("skops"):
    READERS.append(Reader("estimator", ".txt", experiments.estimators, experiments.read_estimator))
