"""Files of weights alone: arrays by name.

    .safetensors        https://github.com/huggingface/safetensors; also what other libraries write, bfloat16 as float32
    .json, .json.gz     a checkpoint (``keydnn.json.ckpt.v1``), of which the state is read
    .msgpack            the same as msgpack (:mod:`keydnn.saving.packed`)
    .npz                NumPy's archive, arrays of numbers only

A training state (:mod:`keydnn.saving.state`) is read too: its entries ``model/...``.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keydnn.domain.errors import CheckpointError
from keydnn.saving.files import write_atomically
from keydnn.saving.json_v1 import decode, read_json
from keydnn.saving.packed import read_msgpack

FORMAT = "keydnn.weights"
MOST_MEMBERS = 100_000
SAFETENSORS_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
                     "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}  # fmt: skip


def write_weights(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], note: Mapping[str, str] | None = None) -> None:
    """Write named arrays as a safetensors file, atomically.

    Args:
        path: The file; it should end in ``.safetensors``.
        arrays: Name to array of numbers.
        note: Texts for the file's ``__metadata__``.

    Raises:
        TypeError: An array holds no numbers.
        OSError: The file cannot be written.
    """
    from safetensors.numpy import save

    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise TypeError(f"weights: {name!r} has dtype {array.dtype}, which cannot be stored")
    little = {name: np.asarray(array, array.dtype.newbyteorder("<"), order="C") for name, array in arrays.items()}
    write_atomically(path, save(little, metadata={"format": FORMAT, **(note or {})}))


def read_weights(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The named arrays of a file, told by its contents.

    Args:
        path: A file as listed above.

    Raises:
        ValueError: The file is damaged, truncated, or of another kind.
        OSError: It cannot be read.
    """
    name = os.fspath(path)
    with open(path, "rb") as file:
        start = file.read(16)
    if start.startswith((b"{", b"\x1f\x8b")):
        state = read_json(path)["state"]
        if not isinstance(state, dict):
            raise CheckpointError(f"{name}: 'state' must be an object, got {type(state).__name__}")
        return {key: decode(entry, key) for key, entry in state.items()}
    if start[:1] and (0x80 <= start[0] <= 0x8F or start[0] in (0xDE, 0xDF)) and start[8:9] != b"{":  # a map of msgpack
        return {key: decode(entry, key) for key, entry in read_msgpack(path)["state"].items()}
    if start.startswith(b"PK"):
        return _read_npz(path, name)
    if start[8:9] == b"{":
        return _read_safetensors(path, name)
    raise CheckpointError(
        f"{name} is no file of weights that can be read (safetensors, JSON or msgpack checkpoint, npz); it starts with {start!r}"
    )


def _read_safetensors(path: str | os.PathLike[str], name: str) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, deserialize

    try:
        entries = deserialize(Path(path).read_bytes())
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{name} is no readable safetensors file, it may be damaged or truncated: {error}") from error
    arrays = {key: _element_array(entry, f"{name}: {key!r}") for key, entry in entries}
    inner = {key.removeprefix("model/"): array for key, array in arrays.items() if key.startswith("model/")}
    return inner if inner and all("/" in key for key in arrays) else arrays


def _element_array(entry: Mapping[str, Any], what: str) -> np.ndarray:
    """The array of an entry of a safetensors file; bfloat16, which NumPy does not have, becomes float32 (the same number)."""
    kind = entry["dtype"]
    if kind == "BF16":
        return (np.frombuffer(entry["data"], "<u2").astype("<u4") << 16).view("<f4").reshape(entry["shape"])
    if kind not in SAFETENSORS_TYPES:
        raise CheckpointError(f"{what} has elements of type {kind}, which cannot be read; {', '.join(SAFETENSORS_TYPES)} and BF16 can")
    return np.frombuffer(entry["data"], SAFETENSORS_TYPES[kind]).reshape(entry["shape"])


def _read_npz(path: str | os.PathLike[str], name: str) -> dict[str, np.ndarray]:
    size, found = os.path.getsize(path), {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MOST_MEMBERS or sum(m.file_size for m in members) > max(1 << 28, 10 * size):
                raise CheckpointError(f"{name}: says that it unpacks to far more than its {size} bytes")
            for member in members:
                with archive.open(member) as file:
                    found[member.filename.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
    except CheckpointError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, OverflowError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{name} is no readable npz file, it may be damaged or truncated: {error}") from error
    return found
