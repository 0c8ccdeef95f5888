"""Checkpoint: states under keys in one file, with a few words about them.

config.json   the keys        entries/<number>/state.json and entries/<number>/arrays/*.npy        meta.json
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keydnn.experiment.contracts import IStateful
from keydnn.experiment.errors import ArtifactError
from keydnn.experiment.io.archive import to_json
from keydnn.experiment.io.artifact import ArtifactReader, save_artifact
from keydnn.experiment.io.values import Encoder


class Checkpoint:
    """States by key.

    Args:
        entries: Key to a state, or to an object with ``get_state``.
        meta: What else is worth knowing: JSON values and arrays.

    Raises:
        TypeError: A key that is no text, or a value in ``meta`` that is neither.

    Example:
        >>> from keydnn.experiment.io import Checkpoint
        >>> path = Checkpoint({"net": {"w": np.arange(3.0)}}, {"epoch": 2}).save("runs/best")
        >>> path.name, Checkpoint.load(path).meta
        ('best.ckpt.mml', {'epoch': 2})
    """

    kind = "ckpt"

    def __init__(self, entries: Mapping[str, Any] | None = None, meta: Mapping[str, Any] | None = None) -> None:
        self._entries: dict[str, Any] = {}
        for key, value in (entries or {}).items():
            self.add_entry(key, value)
        self.meta = dict(meta or {})
        _check_plain(self.meta, "meta")

    @property
    def entries(self) -> dict[str, Any]:
        """Key to state; a copy."""
        return dict(self._entries)

    def add_entry(self, key: str, value: Any) -> None:
        """Keep a state, or that of an object.

        Raises:
            TypeError: The key is no text.
        """
        if not isinstance(key, str):
            raise TypeError(f"a key of a checkpoint is text, got {type(key).__name__}: {key!r}")
        self._entries[key] = value.get_state() if isinstance(value, IStateful) and not isinstance(value, Mapping) else value

    def get_config(self) -> dict[str, Any]:
        """``entries``: the keys."""
        return {"entries": list(self._entries)}

    def save(self, filepath: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write ``<name>.ckpt.mml``; a reader sees the old file or the new one.

        Raises:
            FileExistsError: The file exists and ``overwrite`` is False.
            TypeError: A state holds something that a file cannot say.
            PackagedCodeError: It names a class or function that cannot be packaged.
        """
        members: dict[str, Any] = {}
        for i, state in enumerate(self._entries.values()):
            encoder = Encoder(f"entries/{i:04d}/")
            members[f"entries/{i:04d}/state.json"] = to_json(encoder.encode(state))
            members |= encoder.members
        encoder = Encoder("meta/")
        members["meta.json"] = to_json(encoder.encode(self.meta))
        return save_artifact(self, filepath, self.kind, overwrite=overwrite, members={**members, **encoder.members})

    @classmethod
    def load(cls, filepath: str | os.PathLike[str], *, allow_packaged_code: bool = False, only: Sequence[str] | None = None) -> Checkpoint:
        """Read a checkpoint.

        Args:
            filepath: The file, with or without its suffix.
            allow_packaged_code: Whether code in the file may be run; read it first with ``inspect_packaged_code``.
            only: Keys that are wanted, if they are there; None reads all.

        Raises:
            FileNotFoundError: No such file.
            ArtifactError: No checkpoint, or a damaged or hostile one.
            PackagedCodeError: It brings code, and that is not permitted.
        """
        with ArtifactReader(filepath, cls.kind, allow_packaged_code=allow_packaged_code) as reader:
            keys = reader.config["entries"]
            if not isinstance(keys, list) or len(set(keys)) != len(keys):
                raise ArtifactError(f"{reader.archive.path}: {keys!r} are no keys")
            wanted = {key: i for i, key in enumerate(keys) if only is None or key in only}
            return cls({key: reader.json(f"entries/{i:04d}/state.json") for key, i in wanted.items()}, reader.json("meta.json"))

    def __repr__(self) -> str:
        return f"Checkpoint({list(self._entries)}, meta={self.meta})"


def _check_plain(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where}: a key is text, got {type(key).__name__}: {key!r}")
            _check_plain(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            _check_plain(inner, f"{where}[{i}]")
    elif not (value is None or isinstance(value, bool | int | float | str | np.generic | np.ndarray)):
        raise TypeError(f"{where}: JSON values and arrays are expected, got {type(value).__name__}: {value!r}")
