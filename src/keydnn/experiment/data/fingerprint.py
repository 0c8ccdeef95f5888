"""Fingerprint: a hash of schema and raw values in row order, whatever the chunks; labels and ids do not count."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

from keydnn.experiment.data.collection import SampleCollection
from keydnn.experiment.data.storage import to_numpy
from keydnn.experiment.names import REP_RAW

BLOCK = 1 << 20  # rows hashed at once


def fingerprint(collection: SampleCollection) -> str:
    """32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(str(collection.n_samples).encode())
    table = collection.columns_table
    for name in sorted(n for n in table.column_names if n.endswith(f".{REP_RAW}")):
        column = table[name]
        digest.update(f"\0{name}\0{column.type}\0".encode())
        for start in range(0, len(column), BLOCK):
            for chunk in column.slice(start, BLOCK).chunks:
                digest.update(_octets(chunk))
    return digest.hexdigest()


def _octets(chunk: pa.Array) -> bytes | memoryview:
    values = to_numpy(chunk)
    if values.dtype == object:
        return "".join(f"{value!r}\0" for value in values.tolist()).encode()
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
