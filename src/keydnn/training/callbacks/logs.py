"""Callbacks that pass the logs on: to a file, to functions."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keydnn.training.callbacks.base import Callback, Logs


class CSVLogger(Callback):
    """Write a line per epoch: its number from 0, then every log of the first epoch by name.

    A log that is missing in a later epoch leaves its field empty; a resumed run continues the table it had.

    Args:
        filename: The file; parent directories are created.
        separator: Between fields.
        append: Whether to keep what the file holds; else training starts it anew.
    """

    def __init__(self, filename: str | os.PathLike[str], *, separator: str = ",", append: bool = False) -> None:
        self.path, self.separator, self.append = Path(filename), separator, append
        self._rows: list[list[Any]] = []
        self._names: list[str] = []
        self._is_open = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Start a table; the file is touched when the first epoch is over."""
        self._rows, self._names, self._is_open = [], [], False

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write the line, after those from before an interruption."""
        logs = logs or {}
        fresh = not self._is_open
        if not self._names:
            self._names = list(logs)
        self._rows.append([epoch, *(logs.get(name, "") for name in self._names)])
        keep = self.append and self.path.exists() and self.path.stat().st_size > 0
        lines = [["epoch", *self._names], *self._rows] if fresh and not keep else self._rows[-1:]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a" if keep or not fresh else "w", newline="", encoding="utf-8") as file:
            file.write(self._text(lines))
        self._is_open = True

    def _text(self, lines: list[list[Any]]) -> str:
        text = io.StringIO()
        csv.writer(text, delimiter=self.separator, lineterminator="\n").writerows(lines)
        return text.getvalue()

    def get_state(self) -> dict[str, Any]:
        """The table so far."""
        return {"names": self._names, "rows": self._rows}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        self._names, self._rows, self._is_open = list(state["names"]), [list(row) for row in state["rows"]], False


class LambdaCallback(Callback):
    """A callback from functions, each called with the arguments of the hook it is named after.

    Example:
        >>> from keydnn.training import LambdaCallback
        >>> callback = LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs["loss"]))
    """

    def __init__(
        self,
        *,
        on_train_begin: Callable[..., Any] | None = None,
        on_epoch_begin: Callable[..., Any] | None = None,
        on_batch_begin: Callable[..., Any] | None = None,
        on_batch_end: Callable[..., Any] | None = None,
        on_epoch_end: Callable[..., Any] | None = None,
        on_train_end: Callable[..., Any] | None = None,
    ) -> None:
        hooks = {
            "on_train_begin": on_train_begin,
            "on_epoch_begin": on_epoch_begin,
            "on_batch_begin": on_batch_begin,
            "on_batch_end": on_batch_end,
            "on_epoch_end": on_epoch_end,
            "on_train_end": on_train_end,
        }
        for name, function in hooks.items():
            if function is None:
                continue
            if not callable(function):
                raise TypeError(f"LambdaCallback: {name} must be a function, got {type(function).__name__}")
            setattr(self, name, function)
