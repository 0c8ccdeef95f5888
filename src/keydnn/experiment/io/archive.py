"""Archives: zip files with sorted names and fixed times, so equal contents give equal bytes; and reading them with suspicion.

Refused when reading: names that lead out of the archive, doubled names, members that inflate more than 1,000 times, more than
64 MiB of one JSON member, more bytes than ``max_bytes`` in all, and members whose checksum is wrong.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from keydnn.experiment.errors import ArtifactError

MAX_INFLATION = 1000
MAX_JSON_BYTES = 64 << 20
FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can say
_BLOCK = 1 << 20
CODE = "code/"  # where packaged sources stand
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError, UnicodeDecodeError)

Bytes = bytes | bytearray | memoryview


def write_archive(path: Path, members: Mapping[str, Bytes], *, overwrite: bool) -> None:
    """Write an archive beside ``path`` and move it there; a reader sees the old file or the new one.

    Raises:
        FileExistsError: The file exists and ``overwrite`` is False.
    """
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; pass overwrite=True to replace it")
    with _replacing(path) as file:
        _write(file, members)


def write_bytes(path: Path, data: Bytes) -> None:
    """Write bytes beside ``path`` and move them there."""
    with _replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file beside ``path`` that takes its place, once all of it is on disk, unless the block fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".keydnn-{os.urandom(8).hex()}.tmp"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):  # the rename moved it away
            temporary.unlink()


def archive_bytes(members: Mapping[str, Bytes]) -> bytes:
    """An archive as bytes: not compressed, names sorted, times fixed."""
    buffer = io.BytesIO()
    _write(buffer, members)
    return buffer.getvalue()


def _write(file: IO[bytes], members: Mapping[str, Bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, FIXED_TIME)
            info.external_attr = 0o644 << 16
            info.create_system = 3  # the same bytes on every system
            with archive.open(info, "w", force_zip64=True) as member:
                member.write(members[name])


def to_json(value: Any) -> bytes:
    """Plain values as JSON: keys in their order, which may mean something, exact floats, no spaces, which takes a tenth of the time."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class ArchiveReader:
    """The members of an archive, each read and checked when asked for.

    Args:
        source: The file, or its bytes.
        name: What errors call bytes; a file is called by its path.
        max_bytes: Limit of what may be read in all; None allows four times the file and 1 GiB.

    Attributes:
        path: The file, or the name.
        size: Its bytes.

    Raises:
        FileNotFoundError: No such file.
        ArtifactError: No archive, or one that is not safe.
    """

    def __init__(self, source: Path | bytes, name: str | None = None, max_bytes: int | None = None) -> None:
        if isinstance(source, Path) and not source.is_file():
            raise FileNotFoundError(f"no file {source}")
        self.size = size = source.stat().st_size if isinstance(source, Path) else len(source)
        self.path = source if isinstance(source, Path) else Path(name or "an archive in memory")
        self._left = 4 * size + (1 << 30) if max_bytes is None else max_bytes
        try:
            self._archive = zipfile.ZipFile(source if isinstance(source, Path) else io.BytesIO(source))
        except _DAMAGED as error:
            raise ArtifactError(f"{self.path} is no artifact: {error}") from error
        self._infos: dict[str, zipfile.ZipInfo] = {}
        for info in self._archive.infolist():
            self._check(info)

    def _check(self, info: zipfile.ZipInfo) -> None:
        name, path = info.filename, PurePosixPath(info.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or name in self._infos or not name:
            self._archive.close()
            raise ArtifactError(f"{self.path}: member {name!r} leads out of the archive or stands there twice; nothing was read")
        self._infos[name] = info

    @property
    def names(self) -> list[str]:
        """Names of all members."""
        return list(self._infos)

    def read(self, name: str, limit: int | None = None) -> bytes:
        """The bytes of a member.

        Raises:
            ArtifactError: It is missing, damaged or too large.
        """
        info = self._infos.get(name)
        if info is None:
            raise ArtifactError(f"{self.path}: no member {name!r}; the file is incomplete")
        allowed = min(self._left, MAX_INFLATION * max(info.compress_size, 1), self._left if limit is None else limit)
        blocks: list[bytes] = []
        size = 0
        try:
            with self._archive.open(info) as member:
                while block := member.read(_BLOCK):
                    size += len(block)
                    if size > allowed:
                        raise ArtifactError(f"{self.path}: member {name!r} holds more than the {allowed} bytes that are allowed")
                    blocks.append(block)
        except ArtifactError:
            raise
        except _DAMAGED as error:
            raise ArtifactError(f"{self.path}: member {name!r} is damaged: {error}") from error
        self._left -= size
        return b"".join(blocks)

    def json(self, name: str) -> Any:
        """A JSON member.

        Raises:
            ArtifactError: It is missing, damaged, too large or no JSON.
        """
        try:
            return json.loads(self.read(name, MAX_JSON_BYTES))
        except (ValueError, RecursionError) as error:
            if isinstance(error, ArtifactError):
                raise
            raise ArtifactError(f"{self.path}: member {name!r} is no JSON: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._archive.close()

    def __enter__(self) -> ArchiveReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ArchiveFolder:
    """A folder of an archive, read as if it were one; sources stand beside the folders, so that all of them share what they package.

    Args:
        archive: The archive, which stays open.
        folder: Its name, without a slash at the end.
    """

    def __init__(self, archive: ArchiveReader, folder: str) -> None:
        self._archive, self._folder = archive, f"{folder}/"
        self.path, self.size = archive.path / folder, archive.size

    @property
    def names(self) -> list[str]:
        """Names of all members, without the folder."""
        return [name.removeprefix(self._folder) for name in self._archive.names if name.startswith(self._folder)]

    def read(self, name: str, limit: int | None = None) -> bytes:
        """See :meth:`ArchiveReader.read`."""
        return self._archive.read(self._place(name), limit)

    def json(self, name: str) -> Any:
        """See :meth:`ArchiveReader.json`."""
        return self._archive.json(self._place(name))

    def _place(self, name: str) -> str:
        return name if name.startswith(CODE) else f"{self._folder}{name}"

    def close(self) -> None:
        """Nothing: the archive is another's."""


def in_folder(folder: str, members: Mapping[str, Any]) -> dict[str, Any]:
    """Members of an artifact under the names that :class:`ArchiveFolder` reads."""
    return {name if name.startswith(CODE) else f"{folder}/{name}": data for name, data in members.items()}
