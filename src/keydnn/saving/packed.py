"""Checkpoints as msgpack: the same structure and weights as the JSON file, the arrays as bytes, in chunks.

    {"format": "keydnn.msgpack.ckpt.v1", "arch": node, "state": {"0.weight": entry, ...}}
    entry = {"dtype": "<f4", "shape": [...], "order": "C", "chunks": [bytes, ...], "compression": "zlib" or nil}

``arch`` is that of :mod:`keydnn.saving.json_v1`.  The chunks of an array are its C-order bytes, :data:`CHUNK` at a time, each
compressed on its own or not at all.  A third smaller than JSON before any compression, and nothing has to be parsed as text.

Source: https://github.com/msgpack/msgpack/blob/master/spec.md; read and written by the package ``msgpack``.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from keydnn.domain.errors import CheckpointError, MissingExtraError, MissingKeyError
from keydnn.saving import json_v1
from keydnn.saving.files import write_atomically
from keydnn.saving.migrations import migrate

FORMAT = "keydnn.msgpack.ckpt.v1"
CHUNK = 1 << 20  # bytes


def write_msgpack(path: str | os.PathLike[str], payload: dict[str, Any], *, compress: bool = True) -> None:
    """Write a checkpoint as msgpack, atomically; parent directories are created.

    Args:
        path: The file; it should end in ``.msgpack``.
        payload: What :func:`to_payload` returned.
        compress: Whether the chunks are compressed (zlib).

    Raises:
        ImportError: The package msgpack is missing.
        ValueError: The payload is no checkpoint.
        OSError: The file cannot be written; what stood there before is untouched.

    Example:
        >>> from keydnn.saving import from_payload, read_msgpack, to_payload, write_msgpack
        >>> model = keydnn.Sequential(keydnn.Linear(4, 3))
        >>> write_msgpack("model.msgpack", to_payload(model))                                         # doctest: +SKIP
        >>> again = from_payload(read_msgpack("model.msgpack"))                                       # doctest: +SKIP
    """
    msgpack = _package(os.fspath(path))
    json_v1.check_payload(payload)
    state = {name: _entry(json_v1.decode(entry, name), compress) for name, entry in payload["state"].items()}
    write_atomically(path, msgpack.packb({**payload, "format": FORMAT, "state": state}))


def read_msgpack(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The checkpoint in a msgpack file, as the payload that :func:`from_payload` and ``load_payload_`` take.

    Args:
        path: The file.

    Raises:
        ImportError: The package msgpack is missing.
        ValueError: The file is damaged or truncated, of another format, or unpacks to more than 10 times its size and 256 MiB.
        KeyError: ``arch``, ``state`` or part of an entry is missing.
        OSError: The file cannot be read.
    """
    name = os.fspath(path)
    msgpack = _package(name)
    data = Path(path).read_bytes()
    try:
        payload = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise CheckpointError(f"{name} is no readable checkpoint, it may be damaged or truncated: {error!r}") from error
    payload = migrate(payload, FORMAT)
    found = payload.get("format") if isinstance(payload, dict) else type(payload).__name__
    if found != FORMAT:
        raise CheckpointError(f"{name}: format {found!r} is not supported, expected {FORMAT!r}")
    for key in ("arch", "state"):
        if key not in payload:
            raise MissingKeyError(f"{name}: {key!r} is missing")
    if not isinstance(payload["state"], dict):
        raise CheckpointError(f"{name}: 'state' must be a map, got {type(payload['state']).__name__}")
    room = max(json_v1.MOST_UNPACKED, 10 * len(data))
    state = {}
    for key, entry in payload["state"].items():
        array = _array(entry, key, room)
        room -= array.nbytes
        state[key] = json_v1.encode(array)
    return {**payload, "format": json_v1.FORMAT, "state": state}


def _package(what: str) -> Any:
    try:
        import msgpack
    except ImportError as error:
        raise MissingExtraError(what, "msgpack", "msgpack") from error
    return msgpack


def _entry(array: np.ndarray, compress: bool) -> dict[str, Any]:
    data = array.tobytes(order="C")
    pieces: Iterable[bytes] = (data[i : i + CHUNK] for i in range(0, len(data), CHUNK))
    chunks = [zlib.compress(piece) for piece in pieces] if compress else list(pieces)
    return {
        "dtype": array.dtype.str,
        "shape": list(array.shape),
        "order": "C",
        "chunks": chunks,
        "compression": "zlib" if compress else None,
    }


def _array(entry: Any, name: str, room: int) -> np.ndarray:
    """The array of an entry of at most ``room`` bytes."""
    if not isinstance(entry, dict):
        raise CheckpointError(f"checkpoint: entry {name!r} must be a map, got {type(entry).__name__}")
    for key in ("dtype", "shape", "chunks"):
        if key not in entry:
            raise MissingKeyError(f"checkpoint: entry {name!r} has no {key!r}")
    dtype, shape = json_v1.dtype_of(entry["dtype"], name), json_v1.shape_of(entry["shape"], name)
    size, chunks, how = math.prod(shape) * dtype.itemsize, entry["chunks"], entry.get("compression")
    if entry.get("order", "C") != "C" or how not in (None, "zlib"):
        raise CheckpointError(f"checkpoint: entry {name!r} has order {entry.get('order')!r} and compression {how!r}")
    if size > room:
        raise CheckpointError(f"checkpoint: entry {name!r} of shape {shape} unpacks to more than its file justifies")
    if not isinstance(chunks, list) or not all(isinstance(piece, bytes) for piece in chunks):
        raise CheckpointError(f"checkpoint: the chunks of entry {name!r} are no list of bytes")
    found = bytearray()
    for piece in chunks:
        found += piece if how is None else _unpacked(piece, size - len(found), name)
        if len(found) > size:
            break
    if len(found) != size:
        raise CheckpointError(f"checkpoint: the chunks of entry {name!r} do not hold {size} bytes, which shape {shape} of {dtype} needs")
    return np.frombuffer(bytes(found), dtype).reshape(shape)


def _unpacked(piece: bytes, most: int, name: str) -> bytes:
    """A chunk, one byte more than ``most`` at the utmost."""
    worker = zlib.decompressobj()
    try:
        found = worker.decompress(piece, most + 1)
    except zlib.error as error:
        raise CheckpointError(f"checkpoint: a chunk of entry {name!r} is damaged: {error}") from error
    if len(found) <= most and not worker.eof:
        raise CheckpointError(f"checkpoint: a chunk of entry {name!r} is cut short")
    return found
