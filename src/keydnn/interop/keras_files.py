"""The files of Keras, read with h5py alone.

.keras   zip: config.json {"class_name": "Sequential", "config": {"layers": [...]}}, model.weights.h5 with the groups
         layers/<class in snake case>[_<n>]/vars/<i>, counted per class
.h5      attribute model_config (the same JSON); group model_weights with layer_names, each a group with weight_names
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keydnn.domain.errors import MissingExtraError

FACTOR, SLACK = 10, 16 << 20  # all weights of a file may take so many times its bytes, and so many more
LEAST_SECONDS, BYTES_A_SECOND = 30.0, 10 << 20
REFUSED = 3  # exit code of the process: the file makes no sense
CHILD = "import sys; sys.path.insert(0, sys.argv[1]); from keydnn.interop.keras_files import answer; answer(sys.argv[2])"


@dataclass
class KerasLayer:
    """One layer of a Keras Sequential.

    Attributes:
        kind: Name of its class.
        name: Its name.
        config: Its settings.
        weights: Its arrays in Keras' order.
        rank: Axes of its input with the batch, None if not known.
    """

    kind: str
    name: str
    config: dict[str, Any]
    weights: list[np.ndarray]
    rank: int | None = None


def read_layers(path: str | os.PathLike[str], error: type[Exception]) -> list[KerasLayer]:
    """The layers of the Sequential in a file.

    A damaged HDF5 file can hang or crash the library that reads it, so it is read by a process of its own, with a time limit.

    Args:
        path: A ``.keras`` or ``.h5`` file.
        error: What to raise for a file that cannot be read.

    Raises:
        ImportError: h5py is missing.
        OSError: There is no such file.
    """
    name, size = os.fspath(path), os.path.getsize(path)
    if importlib.util.find_spec("h5py") is None:
        raise MissingExtraError(f"reading {name}", "h5py", "keras")
    seconds = LEAST_SECONDS + size / BYTES_A_SECOND
    try:
        done = ask(name, seconds)
    except subprocess.TimeoutExpired as cause:
        raise error(f"{name} cannot be read, it may be damaged: reading took more than {seconds:.0f} s") from cause
    if done.returncode == REFUSED:
        raise error(f"{name} cannot be read, it may be damaged, or no Sequential: {done.stdout.decode('utf-8', 'replace')}")
    if done.returncode:
        why = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise error(f"{name} cannot be read, it may be damaged: the process that read it ended with {done.returncode} {' '.join(why)}")
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as arrays:
        rows = json.loads(arrays["layers"].item())
        return [KerasLayer(kind, own, config, [arrays[key] for key in keys], rank) for kind, own, config, keys, rank in rows]


def ask(path: str, seconds: float) -> subprocess.CompletedProcess[bytes]:
    """Run :func:`answer` in a process of its own.

    Raises:
        TimeoutExpired: It took more than ``seconds``.
    """
    root = str(Path(__file__).parents[2])
    return subprocess.run([sys.executable, "-c", CHILD, root, path], capture_output=True, timeout=seconds, check=False)


def answer(path: str) -> None:
    """Read a file and write its layers to standard output, as an npz archive; exit with ``REFUSED`` if that is not possible."""
    try:
        layers = _read(path)
        arrays = {f"{i}.{j}": array for i, layer in enumerate(layers) for j, array in enumerate(layer.weights)}
        keys = [[f"{i}.{j}" for j in range(len(layer.weights))] for i, layer in enumerate(layers)]
        rows = [(each.kind, each.name, each.config, names, each.rank) for each, names in zip(layers, keys, strict=True)]
        np.savez(sys.stdout.buffer, layers=np.array(json.dumps(rows)), **arrays)  # type: ignore[arg-type]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, OSError, RecursionError, MemoryError,
            zipfile.BadZipFile, zlib.error) as cause:  # fmt: skip
        sys.stdout.buffer.write(str(cause).encode())
        sys.exit(REFUSED)


def _read(path: str) -> list[KerasLayer]:
    import h5py

    with open(path, "rb") as file:
        start = file.read(8)
    if start.startswith(b"\x89HDF"):
        return _read_h5(path, h5py)
    if start.startswith(b"PK"):
        return _read_keras(path, h5py)
    raise ValueError(f"it is neither a .keras nor a .h5 file, it starts with {start!r}")


class _Arrays:
    """Reads the numbers of data sets, as long as all together are in proportion to their file.

    Args:
        most: Bytes that may be read.
    """

    def __init__(self, most: int) -> None:
        self.most = self.left = most

    def __call__(self, dataset: Any) -> np.ndarray:
        count = int(np.prod(dataset.shape, dtype=object))
        self.left -= count * dataset.dtype.itemsize
        if dataset.dtype.kind not in "fiub" or self.left < 0:
            raise ValueError(f"{dataset.name} holds {count} elements of {dataset.dtype}; all weights may take {self.most} bytes")
        return np.asarray(dataset)


def _most(size: int) -> int:
    return FACTOR * size + SLACK


def _layer_configs(config: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(class, name, settings) of each layer of a Sequential's config."""
    if config.get("class_name") != "Sequential":
        raise ValueError(f"holds a {config.get('class_name')!r}, expected a Sequential")
    inner = config["config"]
    for entry in inner if isinstance(inner, list) else inner["layers"]:  # a bare list in old files
        settings = entry["config"]
        if not isinstance(settings, dict) and entry["class_name"] != "Sequential":
            raise TypeError(f"settings of {entry['class_name']!r} are a {type(settings).__name__}")
        yield entry["class_name"], str(settings.get("name", "")) if isinstance(settings, dict) else "", entry


def _read_keras(path: Any, h5py: Any) -> list[KerasLayer]:
    most = _most(os.path.getsize(path))
    with zipfile.ZipFile(path) as archive:
        config = json.loads(_member(archive, "config.json", most))
        weights = _member(archive, "model.weights.h5", most)
    with h5py.File(io.BytesIO(weights), "r") as file:
        group = file["layers"] if "layers" in file else file["_layer_checkpoint_dependencies"]
        return list(with_inputs(_from_groups(config, group, _Arrays(most))))


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    with archive.open(name) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{name} unpacks to more than {most} bytes")
    return data


def _from_groups(config: Any, group: Any, array: _Arrays) -> Iterator[KerasLayer]:
    counts: Counter[str] = Counter()
    for kind, name, entry in _layer_configs(config):
        if kind == "InputLayer":
            yield KerasLayer(kind, name, entry["config"], [])
            continue
        base = snake_case(kind)
        place = f"{base}_{counts[base]}" if counts[base] else base
        counts[base] += 1
        if kind == "Sequential":
            yield from _from_groups(entry, group[place]["layers"], array)
            continue
        yield KerasLayer(kind, name, entry["config"], list(_variables(group[place], array)) if place in group else [])


def _variables(group: Any, array: _Arrays) -> Iterator[np.ndarray]:
    """The arrays of a layer: its own, then those of the parts that recurrent layers have."""
    for part in ("vars", "cell", "forward_layer", "backward_layer"):
        if part not in group:
            continue
        if part == "vars":
            yield from (array(group[part][str(i)]) for i in range(len(group[part])))
        else:
            yield from _variables(group[part], array)


def snake_case(name: str) -> str:
    """``BatchNormalization`` -> ``batch_normalization``, as Keras does it."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _read_h5(path: Any, h5py: Any) -> list[KerasLayer]:
    with h5py.File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise ValueError("has weights without a model_config; save the whole model")
        config = json.loads(file.attrs["model_config"])
        return list(with_inputs(_from_names(config, file["model_weights"], _Arrays(_most(os.path.getsize(path))))))


def _from_names(config: Any, group: Any, array: _Arrays) -> Iterator[KerasLayer]:
    for kind, name, entry in _layer_configs(config):
        if kind == "Sequential":
            raise ValueError(f"the Sequential {name!r} inside another one cannot be read from .h5; save as .keras")
        own = group[name] if name in group else None
        names = [] if own is None else [n.decode() if isinstance(n, bytes) else str(n) for n in own.attrs["weight_names"]]
        yield KerasLayer(kind, name, entry["config"], [array(own[n]) for n in names])  # type: ignore[index]


RECURRENT_LAYERS = {"SimpleRNN", "LSTM", "GRU", "Bidirectional"}
IMAGE_LAYERS = {"Conv2D", "Conv2DTranspose", "MaxPooling2D", "AveragePooling2D", "UpSampling2D", "AdaptiveAveragePooling2D"}
LINE_LAYERS = {"Conv1D", "MaxPooling1D", "AveragePooling1D"}


def with_inputs(layers: Iterator[KerasLayer]) -> Iterator[KerasLayer]:
    """Note for each layer how many axes its input has, as far as the layers before it tell."""
    rank: int | None = None
    for layer in layers:
        shape = layer.config.get("batch_shape") or layer.config.get("batch_input_shape")
        if shape:
            rank = len(shape)
        if layer.kind in IMAGE_LAYERS:
            rank = 4
        elif layer.kind in LINE_LAYERS:
            rank = 3
        layer.rank = rank
        if layer.kind == "Embedding":
            rank = None if rank is None else rank + 1
        elif layer.kind in RECURRENT_LAYERS:
            inner = layer.config.get("layer", {}).get("config", {}) if layer.kind == "Bidirectional" else layer.config
            rank = 3 if inner.get("return_sequences") else 2
        elif layer.kind in ("Flatten", "GlobalAveragePooling2D"):
            rank = 2
        yield layer
