"""IDX files, the format of MNIST.

    2 zero bytes, 1 byte type (8: uint8, 9: int8, 11: int16, 12: int32, 13: float32, 14: float64), 1 byte number of axes,
    one big-endian uint32 per axis, then the numbers, big-endian, row by row.

Source: http://yann.lecun.com/exdb/mnist/ (THE IDX FILE FORMAT).  A file that starts with the gzip mark is unpacked on the fly.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from keydnn.domain.errors import CheckpointError
from keydnn.saving import write_atomically

TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
CODES = {np.dtype(text).newbyteorder("=").str[1:]: code for code, text in TYPES.items()}
MOST = 1 << 30  # bytes of one array


def read_idx(path: str | os.PathLike[str], *, max_bytes: int = MOST) -> np.ndarray:
    """The array in an IDX file, compressed or not.

    Args:
        path: The file.
        max_bytes: Largest array to read.

    Raises:
        ValueError: The file is damaged, truncated, or larger than allowed.
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        is_packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            if not is_packed:
                return _read(file, path, max_bytes)
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _read(unpacked, path, max_bytes)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise CheckpointError(f"{os.fspath(path)} is no readable IDX file, it may be damaged or truncated: {error}") from error


def _read(file: Any, path: str | os.PathLike[str], max_bytes: int) -> np.ndarray:
    name = os.fspath(path)
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in TYPES:
        raise CheckpointError(f"{name}: starts with {head!r}, which is no IDX header")
    dtype, axes = np.dtype(TYPES[head[2]]), head[3]
    sizes = file.read(4 * axes)
    if len(sizes) < 4 * axes:
        raise CheckpointError(f"{name}: the IDX header is cut short")
    shape = struct.unpack(f">{axes}I", sizes)
    if axes > 32 or math.prod(max(size, 1) for size in shape) * dtype.itemsize > max_bytes:  # NumPy limits empty shapes too
        raise CheckpointError(f"{name}: says that it holds shape {shape} of {dtype.name}, more than the {max_bytes} bytes allowed")
    wanted, data = math.prod(shape) * dtype.itemsize, bytearray()
    while len(data) <= wanted and (chunk := file.read(min(1 << 20, wanted + 1 - len(data)))):
        data += chunk
    if len(data) != wanted:
        more = "more" if len(data) > wanted else f"{len(data)}"
        raise CheckpointError(f"{name}: shape {shape} of {dtype.name} needs {wanted} bytes, the file has {more}")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def write_idx(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write an array as an IDX file, atomically; a name that ends in ``.gz`` asks for compression.

    Raises:
        TypeError: A dtype that the format does not have.
    """
    code = CODES.get(array.dtype.str[1:])
    if code is None:
        raise TypeError(f"write_idx: IDX has no {array.dtype}; it has {', '.join(CODES)}")
    big = array.astype(np.dtype(TYPES[code]))
    data = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + big.tobytes()
    write_atomically(path, gzip.compress(data, mtime=0) if Path(path).suffix == ".gz" else data)
