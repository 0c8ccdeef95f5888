"""What was cut by which splitter, kept so that it can be told and cut again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class SplitterRecord:
    """One registered splitting.

    Attributes:
        order: Position among the records, from 0.
        splitter: What cut.
        applied_to: Name of the split that was cut; None for the whole set.
        produced_splits: Names of the parts.
    """

    order: int
    splitter: Any
    applied_to: str | None
    produced_splits: tuple[str, ...]

    def get_config(self) -> dict[str, Any]:
        """The fields."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}
