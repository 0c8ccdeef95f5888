"""Checkpoints in the format ``keydnn.json.ckpt.v1``: one JSON object with structure and weights.

    {"format": "keydnn.json.ckpt.v1", "arch": node, "state": {"0.weight": entry, ...}}
    entry = {"b64": base64 of the C-order bytes, "dtype": "<f4", "shape": [...], "order": "C"}

``arch`` is described in :mod:`keydnn.saving.config`.  ``state`` has every parameter and buffer under every dotted path
that leads to it.  Buffers may be missing (their values then stay as they are), parameters may not; unknown entries are
ignored.  Files are UTF-8, indented by two spaces, keys sorted; a name that ends in ``.gz`` asks for compression.
Payloads of older formats are migrated, see :mod:`keydnn.saving.migrations`.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import io
import json
import math
import os
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from keydnn.domain.budget import element_budget
from keydnn.domain.device import Device
from keydnn.domain.errors import CheckpointError, MissingKeyError, WrongClassError
from keydnn.saving.config import module_from_config, module_to_config, nodes_of
from keydnn.saving.files import write_atomically
from keydnn.saving.migrations import migrate
from keydnn.saving.names import KeyMap, renamed

FORMAT = "keydnn.json.ckpt.v1"
MOST_UNPACKED = 1 << 28  # bytes; beyond, ten times the size of the file
PLAIN_DTYPE = re.compile(r"[<>=|]?[fiub][0-9]{1,2}|\?|[a-z]{3,7}[0-9]{0,3}")  # others are a language of NumPy's own
SLACK = 1 << 20  # elements that a module may have beyond those of its file


# --- a module in memory -----------------------------------------------------------------------------------------


def to_payload(module: Any) -> dict[str, Any]:
    """Structure and weights of ``module`` as the dict that a file holds.

    Raises:
        NotImplementedError: A class has no ``get_config``.
    """
    return {"format": FORMAT, "arch": module_to_config(module), "state": to_state(module)}


def from_payload(payload: Any, cls: type | None = None, *, device: Device | str | None = None) -> Any:
    """A new module with the structure and weights of ``payload``.

    Args:
        payload: What :func:`to_payload` returned or :func:`read_json` read.
        cls: The class that the result must be an instance of; None takes any.
        device: Where the parameters shall live; None takes what the payload says.

    Raises:
        ValueError: Another format, an unknown module type, a config or entry that makes no sense.
        KeyError: ``arch``, ``state`` or the entry of a parameter is missing.
        TypeError: The module is not an instance of ``cls``.
    """
    payload = migrate(payload, FORMAT)
    check_payload(payload)
    most = _most_elements(payload["state"])
    for path, node in nodes_of(payload["arch"]):
        _check_sizes(path, node, most)
    with element_budget(most):
        module = module_from_config(payload["arch"], root=cls, device=device)
    if cls is not None and not isinstance(module, cls):
        raise WrongClassError(f"checkpoint: holds a {type(module).__name__}, which is not a {cls.__name__}")
    load_state_(module, payload["state"])
    return module


def _most_elements(state: Any) -> int:
    """More elements than a module can have whose weights are ``state``: a character of base64 for each, and some."""
    entries = state.values() if isinstance(state, dict) else ()
    texts = [entry.get("b64") for entry in entries if isinstance(entry, dict)]
    return SLACK + sum(len(text) for text in texts if isinstance(text, str))


def _check_sizes(path: str, node: dict[str, Any], most: int) -> None:
    for key, value in (node.get("config") or {}).items():
        if isinstance(value, int) and value > most:
            raise CheckpointError(f"checkpoint: {key}={value} of {path or 'the root'!r} is more than the file has weights for")


def load_payload_(
    module: Any, payload: Any, *, strict: bool = True, key_map: KeyMap | None = None, prefix: str = ""
) -> tuple[list[str], list[str]]:
    """Write the weights of ``payload`` into ``module``, in place; its structure is not looked at.

    Everything is checked before anything is written, so on an error the module is as it was.

    Args:
        module: The module.
        payload: What :func:`to_payload` returned.
        strict: Whether every parameter must have an entry.
        key_map: Changes names of entries, see :func:`keydnn.saving.renamed`.
        prefix: Take only the entries under it, without it.

    Returns:
        The names that are missing and those that the module does not know.

    Raises:
        ValueError: Another format, another shape, or a damaged entry.
        KeyError: ``state`` or the entry of a parameter is missing.
    """
    payload = migrate(payload, FORMAT)
    check_payload(payload)
    state = payload["state"]
    if isinstance(state, dict):
        state = renamed(state, key_map, prefix)
    return load_state_(module, state, strict)


def check_payload(payload: Any) -> None:
    """Raise unless ``payload`` has the envelope of the format."""
    if not isinstance(payload, dict):
        raise CheckpointError(f"checkpoint: expected an object, got {type(payload).__name__}")
    if payload.get("format") != FORMAT:
        raise CheckpointError(f"checkpoint: format {payload.get('format')!r} is not supported, expected {FORMAT!r}")
    for key in ("arch", "state"):
        if key not in payload:
            raise MissingKeyError(f"checkpoint: {key!r} is missing")


# --- weights ----------------------------------------------------------------------------------------------------


def to_state(module: Any) -> dict[str, dict[str, Any]]:
    """The entry of every parameter and buffer, under every path that leads to it."""
    named = [*module.named_parameters(unique=False), *module.named_buffers(unique=False, persistent=True)]
    return {path: encode(tensor.to_numpy()) for path, tensor in named}


def load_state_(module: Any, state: Any, strict: bool = True) -> tuple[list[str], list[str]]:
    """Write the entries of ``state`` into the parameters and buffers of ``module``, in place, all or none.

    Returns:
        The names that are missing and those that the module does not know.

    Raises:
        ValueError: An entry is damaged or has another shape.
        KeyError: The entry of a parameter is missing.
    """
    if not isinstance(state, dict):
        raise CheckpointError(f"checkpoint: 'state' must be an object, got {type(state).__name__}")
    loaded, missing = [], []
    for name, parameter in module.named_parameters():
        if name not in state:
            missing.append(name)
            if not strict:
                continue
            raise MissingKeyError(f"checkpoint: no entry for parameter {name!r} of shape {parameter.shape}")
        loaded.append((parameter, _fitting(name, state[name], parameter)))
    for name, buffer in module.named_buffers(persistent=True):
        if name in state:
            loaded.append((buffer, _fitting(name, state[name], buffer)))
    for tensor, array in loaded:
        tensor.copy_from_numpy(array)
    known = {name for walk in (module.named_parameters, module.named_buffers) for name, _ in walk(unique=False)}
    return missing, sorted(set(state) - known)


def _fitting(name: str, entry: Any, tensor: Any) -> np.ndarray:
    array = decode(entry, name)
    if array.shape != tensor.shape:
        raise CheckpointError(f"checkpoint: {name!r} has shape {array.shape}, the model expects {tensor.shape}")
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf
        return array.astype(tensor.dtype)


def encode(array: np.ndarray) -> dict[str, Any]:
    """``array`` as an entry of ``state``."""
    data = base64.b64encode(array.tobytes(order="C")).decode("ascii")
    return {"b64": data, "dtype": array.dtype.str, "shape": list(array.shape), "order": "C"}


def decode(entry: Any, name: str = "entry") -> np.ndarray:
    """The array of an entry of ``state``, in the dtype it was stored in.

    Raises:
        ValueError: The entry is damaged; the message names it.
        KeyError: One of its keys is missing.
    """
    if not isinstance(entry, dict):
        raise CheckpointError(f"checkpoint: entry {name!r} must be an object, got {type(entry).__name__}")
    for key in ("b64", "dtype", "shape"):
        if key not in entry:
            raise MissingKeyError(f"checkpoint: entry {name!r} has no {key!r}")
    if entry.get("order", "C") != "C":
        raise CheckpointError(f"checkpoint: entry {name!r} has order {entry['order']!r}, expected 'C'")
    dtype, shape = dtype_of(entry["dtype"], name), shape_of(entry["shape"], name)
    try:
        data = base64.b64decode(entry["b64"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise CheckpointError(f"checkpoint: entry {name!r} is damaged: {error}") from error
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise CheckpointError(
            f"checkpoint: entry {name!r} has {len(data)} bytes, shape {shape} of {dtype} needs {math.prod(shape) * dtype.itemsize}"
        )
    return np.frombuffer(data, dtype).reshape(shape)


def dtype_of(text: Any, name: str) -> np.dtype:
    """The dtype that an entry names.

    Raises:
        ValueError: It is no type of numbers.
    """
    try:
        dtype = np.dtype(text) if isinstance(text, str) and PLAIN_DTYPE.fullmatch(text) else None
    except TypeError:  # of a size that there is not
        dtype = None
    if dtype is None or dtype.kind not in "fiub":
        raise CheckpointError(f"checkpoint: entry {name!r} has dtype {text!r}, which is no type of numbers")
    return dtype


def shape_of(sizes: Any, name: str) -> tuple[int, ...]:
    """The shape that an entry gives.

    Raises:
        ValueError: It is no list of sizes.
    """
    if not isinstance(sizes, list | tuple) or not all(type(n) is int and n >= 0 for n in sizes):
        raise CheckpointError(f"checkpoint: entry {name!r} has shape {sizes!r}, expected a list of sizes")
    return tuple(sizes)


# --- files ------------------------------------------------------------------------------------------------------


def write_json(path: str | os.PathLike[str], payload: dict[str, Any]) -> None:
    """Write ``payload`` to a file, atomically; parent directories are created.

    Args:
        path: A name that ends in ``.gz`` is written compressed.
        payload: What :func:`to_payload` returned.

    Raises:
        OSError: The file cannot be written; what stood there before is untouched.
    """
    data = json.dumps(payload, indent=2, sort_keys=True).encode("utf-8")
    write_atomically(path, gzip.compress(data, mtime=0) if Path(path).suffix == ".gz" else data)


def _unpacked(data: bytes) -> bytes:
    """The contents of a gzip file, unless they are out of all proportion to it."""
    most = max(MOST_UNPACKED, 10 * len(data))
    found = bytearray()
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        while len(found) <= most and (piece := file.read(1 << 20)):  # one large read would take all it may before it unpacks
            found += piece
    if len(found) > most:
        raise CheckpointError(f"a checkpoint of {len(data)} bytes that unpacks to more than {most} is not read")
    return bytes(found)


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The payload in a file, compressed or not, with its envelope checked.

    Raises:
        ValueError: The file is damaged or truncated, no JSON object, or of another format.
        KeyError: ``arch`` or ``state`` is missing.
        OSError: The file cannot be read.
    """
    data = Path(path).read_bytes()
    try:
        if data[:2] == b"\x1f\x8b":
            data = _unpacked(data)
        payload = migrate(json.loads(data.decode("utf-8")), FORMAT)
    except CheckpointError:
        raise
    except (EOFError, OSError, RecursionError, ValueError, zlib.error) as error:
        mend = "; a training state that save() wrote is read by load()" if data[8:10] == b'{"' else ""
        raise CheckpointError(f"{os.fspath(path)} is no readable checkpoint, it may be damaged or truncated{mend}: {error}") from error
    check_payload(payload)
    return payload
