"""Progress of long work: a bar in a terminal or notebook, lines in a terminal without rich, nothing elsewhere.

    sampling pairs ━━━━━━━━━━━━━━━━━━━━━━  1200/5000 0:00:03 0:00:09

Work that is over within half a second shows nothing.  Code that works tells a :func:`task` how far it is; whether that is seen is
decided by whoever called it, with :func:`showing`.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Protocol

from keydnn.experiment.context import in_notebook
from keydnn.experiment.optional import is_installed

DELAY_S, LINE_S = 0.5, 1.0
Advance = Callable[[int], None]


class Display(Protocol):
    """Where tasks are drawn; a task has a number, and a total unless nobody knows it."""

    def add(self, what: str, total: int | None) -> int:
        """A task starts; its number."""

    def draw(self, number: int, done: int) -> None:
        """So much of a task is done."""

    def close(self) -> None:
        """Leave the terminal in order."""


class Lines:
    """Lines on standard error, at most one a second."""

    def __init__(self) -> None:
        self._tasks: list[tuple[str, int | None, float]] = []
        self._written_at = -LINE_S

    def add(self, what: str, total: int | None) -> int:
        """Note the task."""
        self._tasks.append((what, total, time.monotonic()))
        return len(self._tasks) - 1

    def draw(self, number: int, done: int) -> None:
        """Write the line, if the last one is old enough."""
        now = time.monotonic()
        if now - self._written_at < LINE_S:
            return
        self._written_at = now
        what, total, began = self._tasks[number]
        of = "" if total is None else f"/{total}"
        left = "" if not total or not done else f", {(now - began) * (total - done) / done:.0f} s left"
        sys.stderr.write(f"{what}: {done}{of}, {now - began:.0f} s{left}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Nothing to leave."""


class Bars:
    """Bars drawn by rich: count, elapsed and remaining time; a task without a total moves to and fro.

    Args:
        persist: Whether the bars stay when the work is over.
    """

    def __init__(self, persist: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
        columns += [TimeElapsedColumn(), TimeRemainingColumn()]
        console = Console(file=None if in_notebook() else sys.stderr)
        self._progress = Progress(*columns, console=console, transient=not persist)
        self._progress.start()

    def add(self, what: str, total: int | None) -> int:
        """A new bar."""
        return int(self._progress.add_task(what, total=total))

    def draw(self, number: int, done: int) -> None:
        """Move the bar; rich redraws ten times a second."""
        self._progress.update(self._progress.task_ids[number], completed=done)

    def close(self) -> None:
        """Stop drawing."""
        self._progress.stop()


class Stage:
    """Work that may become long enough to be shown; safe to tell from several threads.

    Args:
        persist: Whether bars stay.
    """

    def __init__(self, persist: bool) -> None:
        self._persist, self._display = persist, None
        self._shown_from = time.monotonic() + DELAY_S
        self._lock = threading.Lock()

    _display: Display | None

    def start(self, what: str, total: int | None) -> Advance:
        """A task; the function that tells how much more of it is done."""
        done, number = 0, -1

        def advance(more: int) -> None:
            nonlocal done, number
            with self._lock:
                done += more
                if time.monotonic() < self._shown_from:
                    return
                if self._display is None:
                    self._display = Bars(self._persist) if is_installed("rich") else Lines()
                if number < 0:
                    number = self._display.add(what, total)
                self._display.draw(number, done)

        return advance

    def close(self) -> None:
        """The work is over."""
        if self._display is not None:
            self._display.close()


_STAGE: ContextVar[Stage | None] = ContextVar("keydnn_experiment_progress", default=None)


def can_be_seen() -> bool:
    """Whether somebody looks: standard error is a terminal, or this is a notebook."""
    return sys.stderr.isatty() or in_notebook()


@contextlib.contextmanager
def showing(wanted: bool, what: str = "", *, persist: bool = False) -> Iterator[None]:
    """Show the tasks inside the block, if that is wanted and somebody can see it.

    Args:
        wanted: False silences them, also for blocks around this one.
        what: Name of the work as a whole, shown by a spinner; none without a name.
        persist: Whether bars stay.
    """
    outer = _STAGE.get()
    own = Stage(persist) if wanted and outer is None and can_be_seen() else None
    token = _STAGE.set((outer or own) if wanted else None)
    spinner = _Spinner(own, what) if own is not None and what else None
    try:
        yield
    finally:
        _STAGE.reset(token)
        if spinner is not None:
            spinner.stop()
        if own is not None:
            own.close()


class _Spinner(threading.Thread):
    """Tells a stage that its work as a whole goes on, while the work itself is silent."""

    def __init__(self, stage: Stage, what: str) -> None:
        super().__init__(daemon=True)
        self._advance, self._over = stage.start(what, None), threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(DELAY_S):
            self._advance(0)

    def stop(self) -> None:
        self._over.set()
        self.join()


def _silent(more: int) -> None:
    return None


@contextlib.contextmanager
def task(what: str, total: int | None = None) -> Iterator[Advance]:
    """Work of which parts are told as they are done; nothing is drawn outside of :func:`showing`.

    Args:
        what: Its name.
        total: How many parts there are; None if nobody knows.

    Example:
        >>> from keydnn.experiment.progress import task
        >>> with task("counting", 3) as advance:
        ...     for _ in range(3):
        ...         advance(1)
    """
    stage = _STAGE.get()
    yield _silent if stage is None else stage.start(what, total)
