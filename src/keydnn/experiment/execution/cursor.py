"""Cursor: how far a run has come, and what of a phase is over when it is taken up again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

DONE, FINISHED = "done", "finished"  # an item of the plan is over, with its hooks; the whole run is
_INSIDE = ("epoch_start", "batch_start", "batch_end")  # hooks after which an epoch goes on


@dataclass(frozen=True)
class Cursor:
    """What a run reached last.

    Attributes:
        path: Labels from the group that runs down to the item; empty for what runs itself.
        hook: The hook of the phase, with which callbacks and its checkpoint are through; ``done`` and ``finished`` of items.
        epoch: Of the hooks of epochs and batches.
        batch: Of the hooks of batches.

    Example:
        >>> from keydnn.experiment.execution.cursor import Cursor
        >>> Cursor(("warm_up", "train"), "epoch_end", 3).get_config()
        {'path': ['warm_up', 'train'], 'hook': 'epoch_end', 'epoch': 3, 'batch': None}
    """

    path: tuple[str, ...]
    hook: str
    epoch: int | None = None
    batch: int | None = None

    def get_config(self) -> dict[str, Any]:
        """The four values, as JSON says them."""
        return {"path": list(self.path), "hook": self.hook, "epoch": self.epoch, "batch": self.batch}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The cursor of a config."""
        return cls(tuple(config["path"]), config["hook"], config["epoch"], config["batch"])


class Begun:
    """What of a phase is over already; nothing without a cursor.

    Args:
        cursor: How far the phase has come.

    Attributes:
        phase: Whether it has started.
        is_over: Whether it is through with its last hook.

    Example:
        >>> from keydnn.experiment.execution.cursor import Begun, Cursor
        >>> begun = Begun(Cursor((), "batch_end", 2, 5))
        >>> list(begun.epochs(4)), begun.epoch(2), begun.first_step(2), begun.epoch(3)
        ([2, 3], True, 6, False)
    """

    def __init__(self, cursor: Cursor | None) -> None:
        self._cursor = cursor
        self.phase = cursor is not None
        self.is_over = cursor is not None and cursor.hook == "phase_end"

    def epochs(self, n_epochs: int, *, is_stopped: bool = False) -> range:
        """The epochs that are left; ``is_stopped`` says that training ends after the one that runs."""
        if self._cursor is None:
            return range(n_epochs)
        between = self._cursor.hook == "epoch_end"
        over = self.is_over or (between and is_stopped)
        return range(n_epochs if over else (self._cursor.epoch or 0) + between, n_epochs)

    def epoch(self, epoch: int) -> bool:
        """Whether an epoch has started."""
        return self._cursor is not None and self._cursor.hook in _INSIDE and self._cursor.epoch == epoch

    def first_step(self, epoch: int) -> int:
        """The step with which an epoch goes on."""
        if self._cursor is None or self._cursor.batch is None or not self.epoch(epoch):
            return 0
        return self._cursor.batch + (self._cursor.hook == "batch_end")

    def batch(self, epoch: int, batch: int) -> bool:
        """Whether a step has started, though it is not made."""
        found = self._cursor
        return found is not None and found.hook == "batch_start" and (found.epoch, found.batch) == (epoch, batch)
