"""Collections in Arrow IPC files: written uncompressed, read where they are mapped, refused when they are damaged."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc

from keydnn.experiment.errors import SampleLoadError
from keydnn.experiment.names import METADATA_UUID_KEY

SUFFIX = ".arrow"


def write(table: pa.Table, path: str | os.PathLike[str]) -> Path:
    """Write a table to ``<path>.arrow`` and return its path."""
    target = Path(path)
    target = target if target.suffix == SUFFIX else target.with_name(target.name + SUFFIX)
    target.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return target


def existing(path: str | os.PathLike[str]) -> Path:
    """The path as given if there is such a file, else with the suffix.

    Raises:
        FileNotFoundError: Neither exists.
    """
    source = Path(path)
    source = source if source.is_file() else source.with_name(source.name + SUFFIX)
    if not source.is_file():
        raise FileNotFoundError(f"no file {path}")
    return source


@contextlib.contextmanager
def readable(name: str) -> Iterator[None]:
    """Tell what makes a file unreadable.

    Raises:
        SampleLoadError: Anything that reading it, or making samples of it, brought up.
    """
    try:
        yield
    except (pa.ArrowException, ValueError, OSError) as error:
        raise SampleLoadError(f"{name} is no readable Arrow file of samples: {error}") from error


def read(source: Any, trusted: bool) -> pa.Table:
    """The table in an open file or in bytes; every value is checked unless it is trusted."""
    table = pa.ipc.open_file(pa.BufferReader(source) if isinstance(source, bytes) else source).read_all()
    table.validate(full=not trusted)
    return table


def uuid_key_of(table: pa.Table) -> int | None:
    """The key of computed ids that a table carries; None without one."""
    key = (table.schema.metadata or {}).get(METADATA_UUID_KEY.encode())
    return None if key is None else int(key, 16)


def deep_copy(table: pa.Table) -> pa.Table:
    """The same values in memory of their own."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return pa.ipc.open_stream(sink.getvalue()).read_all()
