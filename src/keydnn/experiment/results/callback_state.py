"""What callbacks left behind, in states: results of hooks with class and fields, and artifacts, which may be pickled.

Fields that hold results (evaluations) are told as their states; an artifact that stands in the store too is told there alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from keydnn.experiment.errors import ArtifactError, PackagedCodeError
from keydnn.experiment.io.classes import BUILTINS, import_string, spec_of
from keydnn.experiment.io.values import UnsafePickle
from keydnn.experiment.results.kinds import KINDS, results_from_state
from keydnn.experiment.results.stores import ArtifactEntry, ArtifactStore
from keydnn.experiment.results.values import NotStored, Unsayable, is_in_memory, opened, said_or_left_out, say, type_name


class KeptResult:
    """The result of a hook whose class a file cannot name: its kind and what it held.

    Args:
        kind: Of the class.
        fields: What it held, which are its attributes now.
    """

    def __init__(self, kind: str, fields: Mapping[str, Any]) -> None:
        self.kind = kind
        self.__dict__.update(fields)

    def __repr__(self) -> str:
        return f"KeptResult({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


# -- results of hooks -------------------------------------------------------------------------------------------------------


def callbacks_state(found: Sequence[Any], store: ArtifactStore) -> list[dict[str, Any]]:
    """The states of results of hooks.

    Args:
        found: The results.
        store: Artifacts that are told elsewhere.

    Warns:
        UserWarning: Something cannot be written and is left out.
    """
    return [{"class": None if isinstance(one, KeptResult) else _nameable(one), **fields_state(one, store)} for one in found]


def fields_state(one: Any, store: ArtifactStore) -> dict[str, Any]:
    """Kind and fields of a result of a hook.

    Warns:
        UserWarning: Something cannot be written and is left out.
    """
    names = [name for name in vars(one) if not (name == "kind" and isinstance(one, KeptResult))]
    return {"kind": one.kind, "fields": [[name, _field_state(one, name, store)] for name in names]}


def _nameable(one: Any) -> type | None:
    """The class, if it is one of results of hooks and a file can name it.

    Warns:
        UserWarning: A file cannot name it.
    """
    if is_in_memory():
        return type(one)
    if not issubclass(type(one), _base()):
        return None
    try:
        spec_of(type(one), {})
    except PackagedCodeError as error:
        told = f"results of hooks are read back without their class: {error}"
        warnings.warn(told, UserWarning, stacklevel=5)
        return None
    return type(one)


def _field_state(one: Any, name: str, store: ArtifactStore) -> dict[str, Any]:
    value = getattr(one, name)
    if type(value) in KINDS.values():
        return {"results": value.get_state()}
    if name == "artifact":
        key = (one.artifact_name, one.epoch_idx, one.batch_idx)
        entry = store.get(*key)
        if entry is not None and entry.is_of(value):
            return {"artifact": key}
    return {"value": said_or_left_out(value, f"{name} of a result of callback {one.callback_label!r}")}


def callbacks_from_state(states: Sequence[Mapping[str, Any]], store: ArtifactStore) -> list[Any]:
    """The results that :func:`callbacks_state` told of.

    Raises:
        TypeError: A class that is none of results of hooks.
    """
    return [callback_from_state(told, told["class"], store) for told in states]


def callback_from_state(told: Mapping[str, Any], cls: Any, store: ArtifactStore) -> Any:
    """One result.

    Args:
        told: Its state.
        cls: Its class; None if nobody knows it.
        store: Artifacts that are told elsewhere.

    Raises:
        TypeError: A class that is none of results of hooks.
    """
    fields = {name: _field(one, store) for name, one in told["fields"]}
    if cls is None:
        return KeptResult(told["kind"], fields)
    is_trusted = not told.get("class")  # the class is the caller's, not the file's
    if not isinstance(cls, type) or not (is_trusted or issubclass(cls, _base())) or getattr(cls, "kind", None) != told["kind"]:
        raise TypeError(f"{cls!r} is no class of results of hooks of kind {told['kind']!r}")
    made: Any = object.__new__(cls)
    made.__dict__.update(fields)
    return made


def _base() -> type:
    """CallbackResult, which stands in a later room."""
    found: type = import_string(BUILTINS["CallbackResult"])
    return found


def _field(told: Mapping[str, Any], store: ArtifactStore) -> Any:
    if "results" in told:
        return results_from_state(told["results"])
    if "artifact" not in told:
        return opened(told["value"])
    name, epoch, batch = told["artifact"]
    entry = store.get(name, epoch, batch)
    return NotStored(f"artifact {name}") if entry is None else entry.artifact


# -- artifacts --------------------------------------------------------------------------------------------------------------


def artifact_state(entry: ArtifactEntry) -> dict[str, Any]:
    """The state of an artifact; one that cannot even be pickled is left out.

    Warns:
        UserWarning: It is left out.
    """
    value = entry.artifact
    try:
        told = told_artifact(value)
    except TypeError as error:
        warnings.warn(f"artifact {entry.name!r} is left out: {error}", UserWarning, stacklevel=2)
        told = {"value": say(NotStored(type_name(value)))}
    return {"name": entry.name, "epoch": entry.epoch_idx, "batch": entry.batch_idx, **told}


def told_artifact(value: Any) -> dict[str, Any]:
    """An object as a file can hold it: ``value``, or the pickle ``unsafe``.

    Raises:
        TypeError: It cannot be pickled either.
    """
    try:
        return {"value": say(value)}
    except Unsayable:
        return {"unsafe": UnsafePickle.of(value)}


def opened_artifact(told: Mapping[str, Any]) -> Any:
    """What :func:`told_artifact` was given.

    Raises:
        PackagedCodeError: A pickle that was not permitted.
        ArtifactError: A pickle that cannot be opened.
    """
    return told["unsafe"].open() if "unsafe" in told else opened(told["value"])


def artifacts_from_state(states: Sequence[Mapping[str, Any]]) -> ArtifactStore:
    """The artifacts that :func:`artifact_state` told of; pickles are opened only if that was permitted when the file was read.

    Warns:
        UserWarning: Some are left out, because they are pickles that were not permitted, or cannot be opened.
    """
    store, refused = ArtifactStore(), []
    for told in states:
        pickled: UnsafePickle | None = told.get("unsafe")
        if pickled is not None and not pickled.is_permitted:
            refused.append(f"{told['name']} ({pickled.type_name})")
            continue
        try:
            value = opened_artifact(told)
        except ArtifactError as error:
            warnings.warn(f"artifact {told['name']!r} is left out: {error}", UserWarning, stacklevel=2)
            continue
        store.log(name=told["name"], artifact=value, epoch_idx=told["epoch"], batch_idx=told["batch"])
    if refused:
        mend = "a pickle can run code; pass allow_packaged_code=True if you trust the file"
        warnings.warn(f"artifacts are left out: {', '.join(dict.fromkeys(refused))}; {mend}", UserWarning, stacklevel=2)
    return store
