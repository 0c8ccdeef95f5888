"""Files of named arrays with a JSON text beside them: the complete state of a run.

The container is safetensors (https://github.com/huggingface/safetensors).  Its text section holds ``format``,
``version``, ``meta`` (any JSON value) and ``crc32`` of everything, so that damage anywhere is noticed.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keydnn.domain.errors import CheckpointError
from keydnn.saving.files import write_atomically

FORMAT = "keydnn.state"
VERSION = 1


def write_state(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], meta: Any) -> None:
    """Write named arrays and a JSON value to a file, atomically; parent directories are created.

    Args:
        path: The file.
        arrays: Name to array of float, integer or bool.
        meta: Anything that ``json.dumps`` takes.

    Raises:
        TypeError: An array or ``meta`` holds what the file cannot.
        OSError: The file cannot be written; what stood there before is untouched.
    """
    from safetensors.numpy import save

    little = {name: _little_endian(name, array) for name, array in arrays.items()}
    text = json.dumps(meta)
    header = {"format": FORMAT, "version": str(VERSION), "meta": text, "crc32": str(_checksum(little, text))}
    write_atomically(path, save(little, metadata=header))


def read_state(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], Any]:
    """The arrays and the JSON value in a file.

    Raises:
        ValueError: The file is damaged, truncated, of another kind, or newer than this version of KeyDNN.
        OSError: The file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = Path(path).read_bytes()
    name = os.fspath(path)
    try:
        arrays = load(data)
        header = _text_section(data)
    except (SafetensorError, ValueError, KeyError, TypeError, struct.error) as error:
        mend = "; a JSON checkpoint is read by load_json()" if data[:1] == b"{" else ""
        raise CheckpointError(f"{name} is no readable state file, it may be damaged or truncated{mend}: {error}") from error
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{name}: format {header.get('format')!r} is not supported, expected {FORMAT!r}")
    if header.get("version") != str(VERSION):
        raise CheckpointError(
            f"{name}: version {header.get('version')!r} of {FORMAT} is not supported, this program reads version {VERSION}"
        )
    if header.get("crc32") != str(_checksum(arrays, header.get("meta", ""))):
        raise CheckpointError(f"{name} is damaged: its contents do not match their checksum")
    return arrays, json.loads(header["meta"])


def _little_endian(name: str, array: np.ndarray) -> np.ndarray:
    found = np.asarray(array)
    if found.dtype.kind not in "fiub":
        raise TypeError(f"state entry {name!r}: dtype {found.dtype} cannot be stored")
    return np.asarray(found, dtype=found.dtype.newbyteorder("<"), order="C")


def _checksum(arrays: Mapping[str, np.ndarray], text: str) -> int:
    total = zlib.crc32(text.encode("utf-8"))
    for name in sorted(arrays):
        array = arrays[name]
        total = zlib.crc32(f"{name}:{array.dtype.str}:{array.shape}".encode(), total)
        total = zlib.crc32(array.tobytes(), total)
    return total


def _text_section(data: bytes) -> dict[str, str]:
    """``__metadata__`` of a safetensors file: 8 bytes length, then that many bytes of JSON."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]).get("__metadata__") or {}
