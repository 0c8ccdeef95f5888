"""Progress of ``fit``: a drawn line in a terminal, plain lines elsewhere, nothing with ``verbose=0``.

    Epoch 2/5 [==============================] 32/32 (100%) - loss: 0.123456 - val_loss: 0.234567

Without a known total the number of batches stands in place of bar and quotient.  ``verbose=2`` adds a summary per epoch.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

WIDTH = 30
REFRESH_S = 0.1


def progress_text(epoch: int, epochs: int, done: int, total: int | None, logs: Mapping[str, float]) -> str:
    """The line for one epoch.

    Args:
        epoch: From 0.
        epochs: How many there will be.
        done: Batches so far.
        total: Batches of the epoch, None if unknown.
        logs: Means so far.

    Example:
        >>> from keydnn.training.progress import progress_text
        >>> progress_text(0, 5, 1, 2, {"loss": 0.5})
        'Epoch 1/5 [===============...............] 1/2 (50%) - loss: 0.500000'
    """
    head = f"Epoch {epoch + 1}/{epochs}"
    if total:
        filled = WIDTH * min(done, total) // total
        head += f" [{'=' * filled}{'.' * (WIDTH - filled)}] {done}/{total} ({100 * done // total}%)"
    else:
        head += f" {done} batches"
    return head + _values(logs)


def _values(logs: Mapping[str, float]) -> str:
    return "".join(f" - {name}: {value:.6f}" for name, value in logs.items())


class Progress(Protocol):
    """What ``fit`` tells; epochs count from 0."""

    def begin(self, epoch: int) -> None:
        """An epoch starts."""

    def update(self, done: int, logs: Mapping[str, float]) -> None:
        """So many batches are done; ``logs`` are the means so far."""

    def end(self, done: int, logs: Mapping[str, float], samples: int) -> None:
        """The epoch is over."""

    def close(self) -> None:
        """Leave the terminal in order, also after an error."""


class Silence:
    """``verbose=0``."""

    def begin(self, epoch: int) -> None:
        """Nothing."""

    def update(self, done: int, logs: Mapping[str, float]) -> None:
        """Nothing."""

    def end(self, done: int, logs: Mapping[str, float], samples: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines(Silence):
    """One line per finished epoch.

    Args:
        epochs: How many epochs there will be.
        total: Batches per epoch, None if unknown.
        verbose: 2 adds a summary line, which ends with the number of samples.
        stream: Where to; None is ``sys.stdout`` at the time of writing.
    """

    def __init__(self, epochs: int, total: int | None, verbose: int = 1, stream: TextIO | None = None) -> None:
        self.epochs, self.total, self.verbose, self.stream = epochs, total, verbose, stream
        self.epoch = 0

    def begin(self, epoch: int) -> None:
        """Note the number."""
        self.epoch = epoch

    def end(self, done: int, logs: Mapping[str, float], samples: int) -> None:
        """Write the line."""
        self._write(progress_text(self.epoch, self.epochs, done, self.total, logs))
        self._summary(logs, samples)

    def _summary(self, logs: Mapping[str, float], samples: int) -> None:
        if self.verbose >= 2:
            self._write(f"Epoch {self.epoch + 1}/{self.epochs} done{_values(logs)} - samples: {samples}")

    def _write(self, text: str) -> None:
        stream = sys.stdout if self.stream is None else self.stream
        stream.write(text + "\n")
        stream.flush()


class Terminal(Lines):
    """The same line, redrawn in place by rich while the epoch runs; arguments as :class:`Lines`."""

    def __init__(self, epochs: int, total: int | None, verbose: int = 1, stream: TextIO | None = None) -> None:
        super().__init__(epochs, total, verbose, stream)
        self._live: Any = None
        self._drawn_at = 0.0

    def begin(self, epoch: int) -> None:
        """Start drawing."""
        from rich.console import Console
        from rich.live import Live

        super().begin(epoch)
        self._live = Live(console=Console(file=self.stream, highlight=False), auto_refresh=False)
        self._live.start()
        self._draw(0, {})

    def update(self, done: int, logs: Mapping[str, float]) -> None:
        """Redraw, at most ten times a second."""
        if time.monotonic() - self._drawn_at >= REFRESH_S:
            self._draw(done, logs)

    def end(self, done: int, logs: Mapping[str, float], samples: int) -> None:
        """Leave the final line standing."""
        self._draw(done, logs, whole=True)
        self.close()
        self._summary(logs, samples)

    def close(self) -> None:
        """Stop drawing."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self, done: int, logs: Mapping[str, float], whole: bool = False) -> None:
        from rich.text import Text

        self._drawn_at = time.monotonic()
        line = progress_text(self.epoch, self.epochs, done, self.total, logs)
        self._live.update(Text(line, no_wrap=not whole, overflow="fold" if whole else "ellipsis"), refresh=True)


def make_progress(verbose: int, epochs: int, total: int | None) -> Progress:
    """What fits ``verbose`` and the place where standard output goes."""
    if verbose == 0:
        return Silence()
    kind = Terminal if sys.stdout.isatty() else Lines
    return kind(epochs, total, verbose)
