"""Watching one value of the logs for improvement."""

from __future__ import annotations

import math
import warnings
from typing import Any

from keydnn.training.callbacks.base import Logs

MODES = ("auto", "min", "max")


class Monitor:
    """Remembers the best value of one log so far.

    Args:
        owner: Class of the callback, named in messages.
        name: The log.
        mode: ``min``, ``max``, or ``auto``: ``max`` if the name contains ``acc``, else ``min``.
        min_delta: A value is better only beyond the best by more than this; at least 0.

    Attributes:
        best: Best value; plus or minus infinity before the first.
        missing: Whether the log was found missing.

    Raises:
        ValueError: Another mode, or a negative ``min_delta``.
    """

    def __init__(self, owner: str, name: str, mode: str = "auto", min_delta: float = 0.0) -> None:
        if mode not in MODES:
            raise ValueError(f"{owner}: mode must be one of {', '.join(MODES)}, got {mode!r}")
        if not min_delta >= 0:
            raise ValueError(f"{owner}: min_delta must be at least 0, got {min_delta!r}")
        self.owner, self.name, self.min_delta = owner, name, float(min_delta)
        self.mode = ("max" if "acc" in name else "min") if mode == "auto" else mode
        self.reset()

    def reset(self) -> None:
        """Forget."""
        self.best = -math.inf if self.mode == "max" else math.inf
        self.missing = False

    def read(self, logs: Logs | None) -> float | None:
        """The monitored value; None, with one warning, if it is not there."""
        value = (logs or {}).get(self.name)
        if value is None and not self.missing:
            self.missing = True
            known = ", ".join(logs or {}) or "nothing"
            warnings.warn(
                f"{self.owner}: {self.name!r} is not logged (there is {known}); the callback does nothing", UserWarning, stacklevel=2
            )
        return value

    def is_better(self, value: float) -> bool:
        """Whether ``value`` beats the best by more than ``min_delta``; NaN never does."""
        return value > self.best + self.min_delta if self.mode == "max" else value < self.best - self.min_delta

    def get_state(self) -> dict[str, Any]:
        """``best``, None before the first value."""
        return {"best": None if math.isinf(self.best) else self.best}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        self.reset()
        if state["best"] is not None:
            self.best = state["best"]
