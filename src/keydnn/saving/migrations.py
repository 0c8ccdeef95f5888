"""Migrations: payloads of older formats are brought up step by step to the one that is read.

A step is a function from the payload of one format to that of the next.  A reader follows the steps from whatever ``format`` a
file has; so a file once written stays readable, and no reader knows more than one format.

>>> from keydnn.saving import migrate, register_migration
>>> @register_migration("example.v1")
... def _(payload):
...     return {**payload, "format": "example.v2", "names": payload["keys"]}
>>> migrate({"format": "example.v1", "keys": [1]}, "example.v2")["names"]
[1]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keydnn.domain.errors import CheckpointError, MissingKeyError

Step = Callable[[dict[str, Any]], dict[str, Any]]

_STEPS: dict[str, Step] = {}


def register_migration(old: str) -> Callable[[Step], Step]:
    """Decorator: the function takes payloads of format ``old`` one step up.

    Raises:
        ValueError: There is a step from this format.
    """

    def register(step: Step) -> Step:
        if old in _STEPS:
            raise ValueError(f"register_migration: there is a step from {old!r}")
        _STEPS[old] = step
        return step

    return register


def migrate(payload: Any, wanted: str) -> Any:
    """``payload`` in the format ``wanted`` if steps lead there; else as it is.

    Raises:
        ValueError: A step failed, since the payload is not what its format says.
    """
    seen: set[str] = set()
    while isinstance(payload, dict) and isinstance(payload.get("format"), str) and payload["format"] != wanted:
        old = payload["format"]
        if old not in _STEPS or old in seen:
            break
        seen.add(old)
        try:
            payload = _STEPS[old](payload)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            kind = MissingKeyError if isinstance(error, KeyError) else CheckpointError
            raise kind(f"checkpoint: the payload is not what its format {old!r} says: {error}") from error
    return payload
