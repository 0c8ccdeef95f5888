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

from keydnn.experiment.optional import is_installed
from keydnn.experiment.registration import in_notebook

DELAY_S, LINE_S, DRAW_S = 0.5, 1.0, 0.25  # nothing before, at most a line, at most a movement of a bar in so many seconds
Note = str | Callable[[], str]  # text behind a bar, or what gives it when it is drawn
Advance = Callable[[int], None]


class Display(Protocol):
    """Where tasks are drawn; a task has a number, and a total unless nobody knows it."""

    def add(self, what: str, total: int | None) -> int:
        """A task starts; its number."""

    def draw(self, number: int, done: int, note: str = "") -> None:
        """So much of a task is done; ``note`` stands behind it."""

    def renew(self, number: int, what: str, total: int | None) -> None:
        """The task is over and another one takes its place."""

    def remove(self, number: int) -> None:
        """The task is over and leaves nothing."""

    def leave(self, text: str) -> None:
        """A line that stays."""

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

    def draw(self, number: int, done: int, note: str = "") -> None:
        """Write the line, if the last one is old enough."""
        now = time.monotonic()
        if now - self._written_at < LINE_S:
            return
        self._written_at = now
        what, total, began = self._tasks[number]
        of = "" if total is None else f"/{total}"
        left = "" if not total or not done else f", {(now - began) * (total - done) / done:.0f} s left"
        sys.stderr.write(f"{what}: {done}{of}, {now - began:.0f} s{left}{note and ', '}{note}\n")
        sys.stderr.flush()

    def renew(self, number: int, what: str, total: int | None) -> None:
        """Note the other task."""
        self._tasks[number] = (what, total, time.monotonic())

    def remove(self, number: int) -> None:
        """Lines stay anyway."""

    def leave(self, text: str) -> None:
        """Lines stay anyway."""

    def close(self) -> None:
        """Nothing to leave."""


class Bars:
    """Bars drawn by rich: count, elapsed and remaining time, a note; a task without a total moves to and fro.

    Args:
        persist: Whether the bars stay when the work is over.
    """

    def __init__(self, persist: bool) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TaskID,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
        columns += [TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}")]
        console = Console(file=None if in_notebook() else sys.stderr)
        self._task_id = TaskID
        self._progress = Progress(*columns, console=console, transient=not persist, refresh_per_second=4)
        self._progress.start()

    def add(self, what: str, total: int | None) -> int:
        """A new bar."""
        return int(self._progress.add_task(what, total=total, note=""))

    def draw(self, number: int, done: int, note: str = "") -> None:
        """Move the bar; rich redraws four times a second."""
        self._progress.update(self._task_id(number), completed=done, note=note)

    def renew(self, number: int, what: str, total: int | None) -> None:
        """The bar starts again under another name."""
        self._progress.reset(self._task_id(number), total=total, description=what, note="")

    def remove(self, number: int) -> None:
        """The bar goes."""
        self._progress.remove_task(self._task_id(number))

    def leave(self, text: str) -> None:
        """A line above the bars."""
        self._progress.console.print(text, highlight=False)

    def close(self) -> None:
        """Stop drawing."""
        self._progress.stop()


class Stage:
    """Work that may become long enough to be shown; safe to tell from several threads.

    Args:
        persist: Whether bars stay.
    """

    def __init__(self, persist: bool) -> None:
        self._persist, self._display, self._first = persist, None, None
        self._shown_from = time.monotonic() + DELAY_S
        self._lock = threading.Lock()

    _display: Display | None
    _first: Task | None

    def start(self, what: str, total: int | None, *, first: bool = False) -> Task:
        """A task, which is told how much more of it is done; the ``first`` one stands above the others."""
        made = Task(self, what, total)
        self._first = made if first else self._first
        return made

    def display(self, now: float) -> Display:
        """Where tasks are drawn; opened when it is first asked for."""
        if self._display is None:
            self._display = Bars(self._persist) if is_installed("rich") else Lines()
        if self._first is not None:
            first, self._first = self._first, None
            first.draw(now)
        return self._display

    @property
    def lock(self) -> threading.Lock:
        """Held by whoever draws."""
        return self._lock

    @property
    def shown_from(self) -> float:
        """When drawing begins."""
        return self._shown_from

    def close(self) -> None:
        """The work is over."""
        if self._display is not None:
            self._display.close()


class Task:
    """Work of a stage; called with how much more of it is done.

    Args:
        stage: Where it is shown.
        what: Its name.
        total: How many parts there are; None if nobody knows.
    """

    def __init__(self, stage: Stage, what: str, total: int | None) -> None:
        self._stage, self.what, self.total = stage, what, total
        self.done, self._number, self._renewed = 0, -1, False
        self._next = stage.shown_from
        self.note: Note = ""
        self.drawn = False  # since it began or was renewed

    def __call__(self, more: int = 1) -> None:
        """So much more is done; it is drawn if the last time is long enough ago, and at the end."""
        with self._stage.lock:
            self.done += more
            now = time.monotonic()
            if now >= self._next or (self.done == self.total and now >= self._stage.shown_from):
                self.draw(now)

    def draw(self, now: float) -> None:
        """Show how far it is; the stage is locked."""
        display = self._stage.display(now)
        if self._number < 0:
            self._number = display.add(self.what, self.total)
        elif self._renewed:
            display.renew(self._number, self.what, self.total)
        note = self.note if isinstance(self.note, str) else self.note()
        display.draw(self._number, self.done, note)
        self._next, self._renewed, self.drawn = now + DRAW_S, False, True

    @property
    def is_due(self) -> bool:
        """Whether the next call will be drawn."""
        return time.monotonic() >= self._next

    def renew(self, what: str, total: int | None) -> None:
        """Go on as another task in the same place."""
        with self._stage.lock:
            self.what, self.total, self.done, self._renewed, self.drawn = what, total, 0, True, False

    def close(self) -> None:
        """The task is over; its bar goes."""
        if self._number >= 0:
            with self._stage.lock:
                self._stage.display(0.0).remove(self._number)

    def leave(self, text: str) -> None:
        """A line that stays, if the task was drawn at all."""
        if self.drawn:
            with self._stage.lock:
                self._stage.display(0.0).leave(text)


_STAGE: ContextVar[Stage | None] = ContextVar("keydnn_experiment_progress", default=None)


def active_stage() -> Stage | None:
    """Where tasks are shown now; None shows nothing."""
    return _STAGE.get()


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
