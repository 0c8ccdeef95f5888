"""Callbacks that pass the logs on: to a file, to a line of text, to functions."""

from __future__ import annotations

import csv
import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from keydnn.training.callbacks.base import Callback, Logs
from keydnn.training.progress import REFRESH_S, progress_text


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


class ProgressBar(Callback):
    """The line that ``fit(verbose=1)`` shows, on a stream of one's choice and for models trained with ``verbose=0``.

    A terminal sees it grow, elsewhere there is one line per epoch.  It asks to be told of every batch, which ``fit`` on its own
    does not need.

    Args:
        epochs: How many epochs there will be.
        steps: Batches per epoch; None counts those of the first epoch.
        stream: Where to; None is ``sys.stdout`` at the time of writing.

    Example:
        >>> from keydnn.training import ProgressBar
        >>> model = keydnn.Sequential(keydnn.Linear(2, 1))
        >>> x, y = np.zeros((4, 2)), np.zeros((4, 1))
        >>> bar = ProgressBar(epochs=1, steps=2)
        >>> _ = model.fit(x, y, loss="mse", optimizer="sgd", batch_size=2, verbose=0, callbacks=[bar])
        Epoch 1/1 [==============================] 2/2 (100%) - loss: 0.000000
    """

    def __init__(self, epochs: int, *, steps: int | None = None, stream: TextIO | None = None) -> None:
        self.epochs, self.steps, self.stream = epochs, steps, stream
        self._epoch, self._done, self._shown_at = 0, 0, 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Note its number."""
        self._epoch, self._done = epoch, 0

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Redraw the line, at most ten times a second."""
        self._done = batch + 1
        stream = sys.stdout if self.stream is None else self.stream
        if stream.isatty() and time.monotonic() - self._shown_at >= REFRESH_S:
            self._shown_at = time.monotonic()
            self._write(f"\r{self._line(logs)}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Leave the final line standing."""
        self.steps = self.steps or self._done
        stream = sys.stdout if self.stream is None else self.stream
        self._write(("\r" if stream.isatty() else "") + self._line(logs) + "\n")

    def _line(self, logs: Logs | None) -> str:
        return progress_text(self._epoch, self.epochs, self._done, self.steps, logs or {})

    def _write(self, text: str) -> None:
        stream = sys.stdout if self.stream is None else self.stream
        stream.write(text)
        stream.flush()


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
