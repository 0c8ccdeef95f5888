"""Fitted estimators as bytes: an archive of skops, brought into one form, so that equal estimators give equal bytes.

What is read is looked through first: which types it names, and the numbers that compiled code of scikit-learn does not look at.
"""

from __future__ import annotations

import json
import re
from typing import Any

from keydnn.experiment.backends.scikit_types import entries, foreign_types
from keydnn.experiment.errors import ArtifactError, ExperimentError, PackagedCodeError
from keydnn.experiment.io.archive import ArchiveReader, archive_bytes
from keydnn.experiment.io.values import read_npy
from keydnn.experiment.models.estimator_checks import check_estimator, check_tree
from keydnn.experiment.optional import need

_SCHEMA = "schema.json"
_SKOPS = "a fitted scikit-learn model in a file"
_MALFORMED = (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError, RecursionError, ImportError)


def dumps(estimator: Any) -> bytes:
    """An estimator with all that it learned.

    Raises:
        TypeError: It holds what skops cannot write.
    """
    written = need("skops.io", _SKOPS).dumps(estimator)
    with ArchiveReader(written, "the estimator") as archive:
        names: dict[str, str] = {}
        told = _numbered(archive.json(_SCHEMA), {}, names)
        members = {new: archive.read(old) for old, new in names.items()}
    members = {name: _stored(data) if name.endswith(".npz") else data for name, data in members.items()}
    return archive_bytes({**members, _SCHEMA: json.dumps(told).encode()})


def _numbered(told: Any, known: dict[Any, Any], names: dict[str, str]) -> Any:
    """A schema with numbers instead of addresses; what stands there again under an address stands there in the same words."""
    if isinstance(told, list):
        return [_numbered(value, known, names) for value in told]
    if not isinstance(told, dict):
        return told
    address = told.get("__id__")
    if address in known:
        return known[address]
    made: dict[str, Any] = {}
    if address is not None:
        known[address], made["__id__"] = made, len(known) + 1
    for key, value in told.items():
        if key == "file":
            made[key] = names.setdefault(value, f"{len(names):05d}{re.sub('^[^.]*', '', value)}")
        elif key != "__id__":
            made[key] = _numbered(value, known, names)
    return made


def _stored(packed: bytes) -> bytes:
    """A sparse matrix, not compressed."""
    with ArchiveReader(packed, "the estimator", len(packed) * 1000) as archive:
        return archive_bytes({name: archive.read(name) for name in archive.names})


def loads(data: bytes, is_trusted: bool) -> Any:
    """The estimator in what :func:`dumps` gave.

    Args:
        data: The bytes.
        is_trusted: Whether they may name any type: they were made in this process, or their file may bring code.

    Raises:
        PackagedCodeError: They name types that are not scikit-learn's own.
        ArtifactError: They are damaged or hostile.
    """
    skops = need("skops.io", _SKOPS)
    if is_trusted:
        return skops.loads(data, trusted=skops.get_untrusted_types(data=data))
    try:
        told, members = _members(data)
        if foreign := foreign_types(told):
            raise PackagedCodeError(
                f"the estimator holds {', '.join(foreign)}, which can do anything when they are made or used;"
                " if you trust who made the file, pass allow_packaged_code=True"
            )
        _check_trees(told, members)
        made = skops.loads(data, trusted=skops.get_untrusted_types(data=data))
        check_estimator(made)
    except _MALFORMED as error:
        if isinstance(error, ExperimentError):
            raise
        raise ArtifactError(f"the estimator is damaged or hostile: {type(error).__name__}: {error}") from error
    return made


def _members(data: bytes) -> tuple[Any, dict[str, Any]]:
    """The schema, and the arrays by member; each is read as a whole, and none may be larger than it is written."""
    with ArchiveReader(data, "the estimator", len(data)) as archive:
        told = json.loads(archive.read(_SCHEMA))
        if not isinstance(told, dict) or told.get("protocol") not in (1, 2):
            raise ArtifactError("the estimator has a schema of another version of skops")
        arrays = {name: read_npy(archive.read(name), name) for name in archive.names if name.endswith(".npy")}
        others = [name for name in archive.names if name not in arrays and name != _SCHEMA]
        for name in others:
            packed = archive.read(name)
            with ArchiveReader(packed, f"the estimator's {name!r}", len(packed)) as inner:
                for part in inner.names:
                    read_npy(inner.read(part), part)
    return told, arrays


def _check_trees(told: Any, members: dict[str, Any]) -> None:
    """The trees, before they are made: their constructor believes the sizes it is given."""
    for entry in entries(told):
        if entry["__loader__"] == "TreeNode":
            n_features, n_classes, n_outputs = entry["__reduce__"]["args"]["content"]
            state = {key: _value(value, members) for key, value in entry["content"]["content"].items()}
            check_tree(_value(n_features, members), _value(n_classes, members), _value(n_outputs, members), state)


def _value(entry: Any, members: dict[str, Any]) -> Any:
    return members[entry["file"]] if entry["__loader__"] == "NdArrayNode" else json.loads(entry["content"])


def estimator_of(data: bytes, is_trusted: bool, like: Any) -> Any:
    """:func:`loads`, of the class of another estimator.

    Raises:
        ArtifactError: Of another class, damaged or hostile.
        PackagedCodeError: They name types that are not scikit-learn's own.
    """
    made = loads(data, is_trusted)
    if type(made) is not type(like):
        raise ArtifactError(f"the file holds a fitted {type(made).__name__} for a {type(like).__name__}")
    return made
