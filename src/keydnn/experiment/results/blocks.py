"""Blocks: files of a folder of results, each an archive of plain values and arrays, written at once or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from keydnn.experiment.io.archive import ArchiveReader, to_json, write_archive
from keydnn.experiment.io.classes import Symbols
from keydnn.experiment.io.migrations import SCHEMA_VERSION, check_schema
from keydnn.experiment.io.values import Decoder, Encoder

SUFFIX = ".block.mml"
_MEMBER = "block.json"


class Blocks:
    """The blocks of one folder, numbered by name.

    Args:
        folder: Made when the first block is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._counts: dict[str, int] = {}
        self._hashes: dict[Path, bytes] = {}  # of those that hold pickles

    def write(self, name: str, state: Any) -> Path:
        """Write the next block of a name.

        Raises:
            FileExistsError: Somebody else writes into this folder.
        """
        number = self._counts.get(name, 0)
        path = self.folder / f"{name}_{number:05d}{SUFFIX}"
        encoder = Encoder()
        told = to_json({"schema_version": SCHEMA_VERSION, "state": encoder.encode(state)})
        write_archive(path, {**encoder.members, _MEMBER: told}, overwrite=False)
        self._counts[name] = number + 1
        if any(member.endswith(".pkl") for member in encoder.members):
            self._hashes[path] = _hash(path)
        return path

    def read(self, path: Path) -> Any:
        """What was written; pickles are opened if this process wrote them and nobody changed the file.

        Raises:
            FileNotFoundError: The file is gone.
            ArtifactError: The file is damaged.
        """
        trusted = path in self._hashes and path.is_file() and _hash(path) == self._hashes[path]
        return read_block(path, allow_packaged_code=trusted)

    def delete(self, path: Path) -> None:
        """Remove a block."""
        path.unlink(missing_ok=True)


def read_block(path: Path, *, allow_packaged_code: bool = False) -> Any:
    """The values of a block.

    Raises:
        FileNotFoundError: No such file.
        ArtifactError: No block, or a damaged one.
    """
    with ArchiveReader(path) as reader:
        told = reader.json(_MEMBER)
        check_schema(told["schema_version"])
        return Decoder(Symbols(reader, allow_packaged_code)).decode(told["state"])


def _hash(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
