"""The files of Keras, read with h5py alone.

.keras   zip: config.json {"class_name": "Sequential", "config": {"layers": [...]}}, model.weights.h5 with the groups
         layers/<class in snake case>[_<n>]/vars/<i>, counted per class
.h5      attribute model_config (the same JSON); group model_weights with layer_names, each a group with weight_names
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn.domain.errors import MissingExtraError

MOST_CONFIG = 64 << 20


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

    Args:
        path: A ``.keras`` or ``.h5`` file.
        error: What to raise for a file that cannot be read.

    Raises:
        ImportError: h5py is missing.
        OSError: There is no such file.
    """
    with open(path, "rb") as file:
        start = file.read(8)
    try:
        import h5py
    except ImportError as missing:
        raise MissingExtraError(f"reading {os.fspath(path)}", "h5py", "keras") from missing
    if start.startswith(b"\x89HDF"):
        read = _read_h5
    elif start.startswith(b"PK"):
        read = _read_keras
    else:
        raise error(f"{os.fspath(path)} is neither a .keras nor a .h5 file; it starts with {start!r}")
    try:
        return read(path, h5py)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, OSError, RecursionError, MemoryError,
            zipfile.BadZipFile, zlib.error) as cause:  # fmt: skip
        if isinstance(cause, error):
            raise
        raise error(f"{os.fspath(path)} cannot be read, it may be damaged, or no Sequential: {cause}") from cause


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
    size = os.path.getsize(path)
    with zipfile.ZipFile(path) as archive:
        config = json.loads(_member(archive, "config.json", MOST_CONFIG))
        weights = _member(archive, "model.weights.h5", max(1 << 28, 10 * size))
    with h5py.File(io.BytesIO(weights), "r") as file:
        group = file["layers"] if "layers" in file else file["_layer_checkpoint_dependencies"]
        return list(with_inputs(_from_groups(config, group)))


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    with archive.open(name) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{name} unpacks to more than {most} bytes")
    return data


def _from_groups(config: Any, group: Any) -> Iterator[KerasLayer]:
    counts: Counter[str] = Counter()
    for kind, name, entry in _layer_configs(config):
        if kind == "InputLayer":
            yield KerasLayer(kind, name, entry["config"], [])
            continue
        base = snake_case(kind)
        place = f"{base}_{counts[base]}" if counts[base] else base
        counts[base] += 1
        if kind == "Sequential":
            yield from _from_groups(entry, group[place]["layers"])
            continue
        yield KerasLayer(kind, name, entry["config"], list(_variables(group[place])) if place in group else [])


def _variables(group: Any) -> Iterator[np.ndarray]:
    """The arrays of a layer: its own, then those of the parts that recurrent layers have."""
    for part in ("vars", "cell", "forward_layer", "backward_layer"):
        if part not in group:
            continue
        if part == "vars":
            yield from (np.asarray(group[part][str(i)]) for i in range(len(group[part])))
        else:
            yield from _variables(group[part])


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
        return list(with_inputs(_from_names(config, file["model_weights"])))


def _from_names(config: Any, group: Any) -> Iterator[KerasLayer]:
    for kind, name, entry in _layer_configs(config):
        if kind == "Sequential":
            raise ValueError(f"the Sequential {name!r} inside another one cannot be read from .h5; save as .keras")
        own = group[name] if name in group else None
        names = [] if own is None else [n.decode() if isinstance(n, bytes) else str(n) for n in own.attrs["weight_names"]]
        yield KerasLayer(kind, name, entry["config"], [np.asarray(own[n]) for n in names])  # type: ignore[index]


RECURRENT_LAYERS = {"SimpleRNN", "LSTM", "GRU", "Bidirectional"}
IMAGE_LAYERS = {"Conv2D", "Conv2DTranspose", "MaxPooling2D", "AveragePooling2D"}


def with_inputs(layers: Iterator[KerasLayer]) -> Iterator[KerasLayer]:
    """Note for each layer how many axes its input has, as far as the layers before it tell."""
    rank: int | None = None
    for layer in layers:
        shape = layer.config.get("batch_shape") or layer.config.get("batch_input_shape")
        if shape:
            rank = len(shape)
        if layer.kind in IMAGE_LAYERS:
            rank = 4
        layer.rank = rank
        if layer.kind == "Embedding":
            rank = None if rank is None else rank + 1
        elif layer.kind in RECURRENT_LAYERS:
            inner = layer.config.get("layer", {}).get("config", {}) if layer.kind == "Bidirectional" else layer.config
            rank = 3 if inner.get("return_sequences") else 2
        elif layer.kind in ("Flatten", "GlobalAveragePooling2D"):
            rank = 2
        yield layer
