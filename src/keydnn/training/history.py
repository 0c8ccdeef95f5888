"""History: what was logged in each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class History:
    """Values by name and epoch.

    Attributes:
        history: Name to one float per epoch in which it was logged.
        epoch: Numbers of those epochs, from 0.

    Example:
        >>> from keydnn.training import History
        >>> history = History()
        >>> history.append_epoch(0, {"loss": 0.5})
        >>> history.append_epoch(1, {"loss": 0.25})
        >>> history.history, history.last()
        ({'loss': [0.5, 0.25]}, {'loss': 0.25})
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    epoch: list[int] = field(default_factory=list)

    def append_epoch(self, epoch_idx: int, logs: Mapping[str, Any]) -> None:
        """Add the logs of one epoch; values are coerced to float.

        Raises:
            TypeError: A value is no number; nothing is added.
        """
        values = {name: float(value) for name, value in logs.items()}
        self.epoch.append(int(epoch_idx))
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)

    def last(self) -> dict[str, float]:
        """The latest value of each name."""
        return {name: values[-1] for name, values in self.history.items() if values}
