"""TensorBoardLogger: metrics as an event file, which TensorBoard draws; nothing but this file is needed to write it.

    record = u64 length | u32 masked crc of it | event | u32 masked crc of the event          little-endian
    masked crc = rotate_right(crc32c, 15) + 0xa282ead8
    event  { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5 }
    Summary { Value { string tag = 1; float simple_value = 2 } value = 1 }

Source: tensorflow/core/lib/io/record_writer.cc, tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto;
https://developers.google.com/protocol-buffers/docs/encoding; crc32c: RFC 3720, appendix B.4.
"""

from __future__ import annotations

import functools
import os
import struct
import time
from pathlib import Path
from typing import Any

from keydnn.experiment.callbacks.loggers import LATE, FileLogger, Metrics

_POLYNOMIAL = 0x82F63B78  # of crc32c, reflected


class TensorBoardLogger(FileLogger):
    """Metrics as scalars ``<phase>/<metric>`` over epochs, in ``<folder>/events.out.tfevents.keydnn``.

    Look at them with ``tensorboard --logdir <folder>`` (``pip install tensorboard``). Values are float32 there.

    Args:
        folder: Where the event file goes; made if it is not there.
        append: Whether to go on behind what is there when a phase begins; else it is replaced.
        label: Name; None takes that of the class.
        execution_order: Lower ones run first.

    Example:
        >>> from keydnn.experiment.callbacks import TensorBoardLogger
        >>> TensorBoardLogger("runs/first").path.name
        'events.out.tfevents.keydnn'
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, append: bool = False, label: str | None = None, execution_order: int = LATE
    ) -> None:
        path = Path(folder) / "events.out.tfevents.keydnn"
        super().__init__(path, append=append, label=label, execution_order=execution_order)

    @property
    def folder(self) -> Path:
        """Where the event file goes."""
        return self.path.parent

    def write(self, phase: str, epoch: int | None, metrics: Metrics) -> None:
        """Add an event; what belongs to the phase as a whole stands at step 0."""
        summary = b"".join(
            _bytes(1, _bytes(1, f"{phase}/{name}".encode()) + b"\x15" + struct.pack("<f", value)) for name, value in metrics.items()
        )
        event = _record(_event(b"\x10" + _varint(epoch or 0) + _bytes(5, summary)))
        self.add(event if self._size else _record(_event(_bytes(3, b"brain.Event:2"))) + event)

    def get_config(self) -> dict[str, Any]:
        """Type, label, order, folder and whether to append."""
        return {**self._base_config(), "folder": str(self.folder), "append": self.append}


def _event(fields: bytes) -> bytes:
    return b"\x09" + struct.pack("<d", time.time()) + fields


def _bytes(field: int, data: bytes) -> bytes:
    """A field of bytes, text or a message."""
    return bytes([field << 3 | 2]) + _varint(len(data)) + data


def _varint(n: int) -> bytes:
    found = bytearray()
    while n > 0x7F:
        found.append(n & 0x7F | 0x80)
        n >>= 7
    found.append(n)
    return bytes(found)


def _record(event: bytes) -> bytes:
    length = struct.pack("<Q", len(event))
    return length + struct.pack("<I", _masked(length)) + event + struct.pack("<I", _masked(event))


def _masked(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """The cyclic redundancy check of Castagnoli.

    Example:
        >>> from keydnn.experiment.callbacks.tensorboard import crc32c
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@functools.cache
def _table() -> list[int]:
    found = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        found.append(crc)
    return found
