"""Choice: the base of this wing's enums, whose members may also be given as text."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any, Self


class Choice(enum.Enum):
    """An enum whose members are accepted as text wherever they are accepted.

    Example:
        >>> from keydnn.experiment.graph import PadMode
        >>> PadMode.from_value(" Circular ") is PadMode.CIRCULAR
        True
    """

    @classmethod
    def synonyms(cls) -> Mapping[str, str]:
        """Other spellings of values, in lower case."""
        return {}

    @classmethod
    def from_value(cls, value: Any) -> Self:
        """A member, or the one that a text means: its value in any case, or a synonym.

        Raises:
            ValueError: Neither; the message lists the values.
        """
        if isinstance(value, cls):
            return value
        name = value.strip().lower() if isinstance(value, str) else None
        name = cls.synonyms().get(name or "", name)
        for member in cls:
            if member.value == name:
                return member
        what = re.sub(r"(?<!^)(?=[A-Z])", " ", cls.__name__).lower()
        raise ValueError(f"unknown {what} {value!r}; expected one of {', '.join(str(member.value) for member in cls)}")
