"""Artifacts: one object in one file, ``<name>.<kind>.mml``.

artifact.json   header {package_version, schema_version, object_version, kind, symbol} and files {role: member}
config.json     what get_config returns        state.json   what get_state returns
arrays/*.npy    arrays of both                 code/*.py    packaged sources
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from keydnn import __version__
from keydnn.domain.budget import element_budget
from keydnn.experiment.contracts import IStateful
from keydnn.experiment.errors import ArtifactError, ArtifactKindError, ExperimentError
from keydnn.experiment.io.archive import CODE, ArchiveFolder, ArchiveReader, to_json, write_archive
from keydnn.experiment.io.classes import Symbols, spec_of
from keydnn.experiment.io.migrations import SCHEMA_VERSION, check_schema, migration_registry
from keydnn.experiment.io.values import Decoder, Encoder

EXTENSION = "mml"
OBJECT_VERSION = "1.0"
_SLACK = 1 << 20  # parameters that any file may ask for
KINDS = ("fs", "sp", "sm", "sc", "smc", "md", "mg", "op", "ls", "ckpt", "exp")
MALFORMED = (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError, RecursionError, MemoryError)


@contextlib.contextmanager
def clear_errors(name: Any) -> Iterator[None]:
    """What a file that is not as it should be brings up inside of the block becomes one kind of error.

    Args:
        name: Of the file.

    Raises:
        ArtifactError: Values of other types, missing keys and the like; errors that we raise ourselves pass.
    """
    try:
        yield
    except MALFORMED as error:
        if isinstance(error, ExperimentError):
            raise
        raise ArtifactError(f"{name} is malformed: {type(error).__name__}: {error}") from error


def artifact_path(filepath: str | os.PathLike[str], kind: str) -> Path:
    """``<name before the first dot>.<kind>.mml`` in the same folder.

    Example:
        >>> from keydnn.experiment.io.artifact import artifact_path
        >>> artifact_path("runs/cells.v2", "fs").name
        'cells.fs.mml'
    """
    path = Path(filepath)
    return path.with_name(f"{path.name.split('.')[0]}.{kind}.{EXTENSION}")


def existing_path(filepath: str | os.PathLike[str], kind: str) -> Path:
    """The path as given if there is such a file, else with the suffix of the kind.

    Raises:
        FileNotFoundError: Neither exists.
    """
    for path in (Path(filepath), artifact_path(filepath, kind)):
        if path.is_file():
            return path
    raise FileNotFoundError(f"no file {filepath} and no {artifact_path(filepath, kind)}")


def save_artifact(
    obj: Any, filepath: str | os.PathLike[str], kind: str, *, overwrite: bool = False, members: dict[str, Any] | None = None
) -> Path:
    """Write an object with ``get_config`` (and ``get_state``) to a file.

    Args:
        obj: The object.
        filepath: Name of the file; the suffix is forced on what stands before its first dot.
        kind: One of ``KINDS``.
        overwrite: Whether an existing file may be replaced.
        members: Members that stand for the state; without them it is ``get_state()``.

    Returns:
        The path of the file.

    Raises:
        FileExistsError: The file exists.
        PackagedCodeError: A class or function can be neither named nor packaged.
    """
    path = artifact_path(filepath, kind)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; pass overwrite=True to replace it")
    write_archive(path, artifact_members(obj, kind, members), overwrite=overwrite)
    return path


def artifact_members(obj: Any, kind: str, members: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What :func:`save_artifact` writes, by the names of the members.

    Raises:
        PackagedCodeError: A class or function can be neither named nor packaged.
    """
    encoder = Encoder()
    config = encoder.encode(getattr(obj, "artifact_config", obj.get_config)())
    files = {"config": "config.json"}
    if members is None and isinstance(obj, IStateful):
        encoder.members["state.json"] = to_json(encoder.encode(obj.get_state()))
        files["state"] = "state.json"
    header = {
        "package_version": __version__,
        "schema_version": SCHEMA_VERSION,
        "object_version": OBJECT_VERSION,
        "kind": kind,
        "symbol": spec_of(type(obj), encoder.members),
    }
    files.update({name.partition(".")[0]: name for name in members or {}})
    return {
        **encoder.members,
        **(members or {}),
        "config.json": to_json(config),
        "artifact.json": to_json({"header": header, "files": files}),
    }


class ArtifactReader:
    """An opened artifact: header checked, config migrated and decoded.

    Args:
        source: The file, with or without its suffix, or the folder of an artifact that lies in another one.
        kind: The kind it must have.
        allow_packaged_code: Whether code in the file may be run.
        max_bytes: Limit of what may be read.

    Raises:
        FileNotFoundError: No such file.
        ArtifactError: No artifact, or a damaged or hostile one.
        ArtifactKindError: An artifact of another kind.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | ArchiveFolder,
        kind: str,
        *,
        allow_packaged_code: bool = False,
        max_bytes: int | None = None,
    ) -> None:
        self._undo = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            self.archive: Any = (
                source if isinstance(source, ArchiveFolder) else ArchiveReader(existing_path(source, kind), max_bytes=max_bytes)
            )
            undo.push(self)
            with self._budget():
                self._open(kind, allow_packaged_code)
            undo.pop_all()

    def _open(self, kind: str, allow_packaged_code: bool) -> None:
        described = self.archive.json("artifact.json")
        header = described.get("header") if isinstance(described, dict) else None
        if not isinstance(header, dict):
            raise ArtifactError(f"{self.archive.path}: artifact.json has no header")
        check_schema(header.get("schema_version"))
        if header.get("kind") != kind:
            raise ArtifactKindError(f"{self.archive.path} holds an artifact of kind {header.get('kind')!r}, expected {kind!r}")
        self.header, self.files = header, described.get("files") or {}
        self.symbols = Symbols(self.archive, allow_packaged_code)
        self.decoder = Decoder(self.symbols)
        config = self.archive.json("config.json")
        self.config = self.decoder.decode(migration_registry.apply(kind, str(header.get("object_version")), config))

    def cls(self) -> type:
        """The class of the object."""
        found = self.symbols.find(self.header.get("symbol"))
        if not isinstance(found, type) or getattr(found, "kind", None) != self.header["kind"]:
            raise ArtifactError(f"{self.archive.path}: {found!r} is no class of kind {self.header['kind']!r}")
        return found

    def json(self, name: str) -> Any:
        """A JSON member, decoded."""
        return self.decoder.decode(self.archive.json(name))

    def close(self) -> None:
        """Close the file."""
        self.archive.close()

    def _budget(self) -> contextlib.AbstractContextManager[None]:
        """A config must not ask for more parameters than a file of this size can have weights for."""
        return element_budget(4 * self.archive.size + _SLACK)

    def __enter__(self) -> ArtifactReader:
        self._undo.enter_context(self._budget())
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._undo.close()
        self.close()
        if isinstance(error, MALFORMED) and not isinstance(error, ExperimentError):
            raise ArtifactError(f"{self.archive.path} is malformed: {type(error).__name__}: {error}") from error


def load_artifact(
    filepath: str | os.PathLike[str], kind: str, *, allow_packaged_code: bool = False, max_bytes: int | None = None, **arguments: Any
) -> Any:
    """Read an object that :func:`save_artifact` wrote.

    Args:
        filepath: The file, with or without its suffix.
        kind: The kind it must have.
        allow_packaged_code: Whether code in the file may be run; read it first with :func:`inspect_packaged_code`.
        max_bytes: Limit of what may be read; None allows four times the file and 1 GiB.
        **arguments: For ``from_config``.

    Raises:
        FileNotFoundError: No such file.
        ArtifactError: No artifact, or a damaged or hostile one.
        ArtifactKindError: An artifact of another kind.
        PackagedCodeError: It brings code, and that is not permitted.
    """
    with ArtifactReader(filepath, kind, allow_packaged_code=allow_packaged_code, max_bytes=max_bytes) as reader:
        made: Any = reader.cls().from_config(reader.config, **arguments)  # type: ignore[attr-defined]
        if "state" in reader.files:
            made.set_state(reader.json("state.json"))
        return made


def inspect_packaged_code(path: str | os.PathLike[str]) -> dict[str, str]:
    """The sources that an artifact brings, those of checkpoints in it too, by name; nothing is executed.

    Raises:
        FileNotFoundError: No such file.
        ArtifactError: No archive, or one that is not safe.
    """
    with ArchiveReader(Path(path)) as archive:
        found = _sources(archive)
        for name in [name for name in archive.names if name.endswith(f".{EXTENSION}")]:
            with ArchiveReader(archive.read(name), f"{path}/{name}") as inner:
                found |= {f"{name}/{source}": text for source, text in _sources(inner).items()}
        return found


def _sources(archive: ArchiveReader) -> dict[str, str]:
    names = [name for name in archive.names if name.startswith(CODE) or f"/{CODE}" in name]
    return {name: archive.read(name).decode("utf-8", errors="replace") for name in names}


class Saved:
    """Adds ``save`` and ``load`` to a class with a config; the class says its ``kind``."""

    kind: ClassVar[str] = ""

    def save(self, filepath: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write this object to ``<name>.<kind>.mml``; see :func:`save_artifact`.

        Raises:
            FileExistsError: The file exists and ``overwrite`` is False.
        """
        return save_artifact(self, filepath, self.kind, overwrite=overwrite)

    @classmethod
    def load(cls, filepath: str | os.PathLike[str], *, allow_packaged_code: bool = False) -> Self:
        """Read an object of this kind; see :func:`load_artifact`.

        Raises:
            FileNotFoundError: No such file.
            ArtifactError: No artifact, or a damaged or hostile one.
            PackagedCodeError: It brings code, and that is not permitted.
        """
        return load_artifact(filepath, cls.kind, allow_packaged_code=allow_packaged_code)
