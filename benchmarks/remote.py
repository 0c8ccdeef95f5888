"""Contestants: code to time, in this process or in one of its own, under this interpreter or another.

A process of its own keeps thread pools and allocators apart.  It speaks pickles over its standard input and output; when it
ends before it answered, the last line it wrote to standard error says why, and the next case starts it anew.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any, BinaryIO

Call = Callable[[], Any]
ROOT = Path(__file__).resolve().parents[1]


class ContestantError(Exception):
    """A contestant ended, is not installed, or has no such case; the text says which."""


class NotOfferedError(ContestantError):
    """A contestant that has no such layer, operation or way to train."""


def nothing() -> None:
    """The default of :class:`Session`'s optional steps."""


@dataclass
class Session:
    """One case, ready to run.

    Attributes:
        call: What is timed.
        answer: Returns what the others must agree with; None takes what the first call returns.
        end: Called before the clock stops, to wait for work that runs on.
        warm: Called after a pause, before the clock starts.
    """

    call: Call
    answer: Call | None = None
    end: Call = nothing
    warm: Call = nothing


def seconds_per_call(session: Session, budget_s: float) -> float:
    """Mean time of one call over about ``budget_s``; a call longer than that is timed once."""

    def timed(n: int) -> float:
        start = time.perf_counter()
        for _ in range(n):
            session.call()
        session.end()
        return time.perf_counter() - start

    once = timed(1)
    if once > budget_s:
        return once
    n = max(1, int(budget_s / 5 / max(once, 1e-7)))
    n = max(1, int(budget_s * n / timed(n)))
    return timed(n) / n


class Local:
    """A contestant in this process.

    Args:
        name: Shown in the table.
        make: ``make(case)`` returns a Session.
    """

    def __init__(self, name: str, make: Callable[[Any], Session]) -> None:
        self.name = name
        self.make = make
        self._session: Session | None = None

    def prepare(self, case: Any) -> Any:
        """Build the case, call it once and return its answer."""
        self._session = None
        self._session = session = self.make(case)
        first = session.call if session.answer is None else session.answer
        answer = first()
        session.call()
        session.end()
        return answer

    def time(self, budget_s: float) -> float:
        """Seconds per call of the case prepared last."""
        assert self._session is not None
        self._session.warm()
        return seconds_per_call(self._session, budget_s)

    def repeat(self, n: int) -> None:
        """Call it so often."""
        assert self._session is not None
        for _ in range(n):
            self._session.call()
        self._session.end()

    def memory(self) -> tuple[float, float]:
        """MiB resident in this process: now, and at most so far."""
        with open("/proc/self/status", encoding="utf-8") as f:
            status = dict(line.split(":", 1) for line in f)
        return int(status["VmRSS"].split()[0]) / 1024, int(status["VmHWM"].split()[0]) / 1024

    def close(self) -> None:
        """Forget the case."""
        self._session = None


class Remote:
    """A contestant in a process of its own.

    Args:
        name: Shown in the table.
        make: As for :class:`Local`, spelled ``module:function``; the module is imported there.
        packages: Distributions whose versions are reported.
        python: Interpreter; None is this one.
        environment: Variables to set for it.
        threads: Thread count its libraries are told; it may run on so many cores.
    """

    def __init__(
        self,
        name: str,
        make: str,
        *,
        packages: tuple[str, ...] = (),
        python: str | None = None,
        environment: Mapping[str, str] | None = None,
        threads: int = 2,
    ) -> None:
        self.name = name
        self.make = make
        self.packages = packages
        self.python = python or sys.executable
        self.environment = dict(environment or {})
        self.threads = threads
        self.versions: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process, if it is not running.

        Raises:
            ContestantError: It cannot import what it needs.
        """
        if self._process is not None:
            return
        paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        found = [str(Path(self.python).parent), os.environ.get("PATH", "")]  # an environment's own tools first
        told = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "KEYDNN_NUM_THREADS")}
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PATH": os.pathsep.join(found)} | told | self.environment
        command = [self.python, "-m", "benchmarks.remote", self.make, str(self.threads), *self.packages]
        self._log = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=environment)
        except OSError as error:
            self._log.close()
            raise ContestantError(f"cannot start {self.python}: {error}") from None
        try:
            self.versions = self._answer()
        except NotOfferedError:
            self.close()
            raise

    def _ask(self, *message: Any) -> Any:
        self.start()
        assert self._process is not None and self._process.stdin is not None
        try:
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self._answer()

    def _answer(self) -> Any:
        assert self._process is not None and self._process.stdout is not None
        try:
            offered, answer = pickle.load(self._process.stdout)
        except EOFError:
            raise self._ended() from None
        if not offered:
            raise NotOfferedError(answer)
        return answer

    def _ended(self) -> ContestantError:
        assert self._process is not None
        code = self._process.wait()
        self._log.seek(0)
        said = self._log.read().decode(errors="replace")
        self.close()
        return ContestantError(why(said, code))

    def prepare(self, case: Any) -> Any:
        """Build the case there and return its answer."""
        return self._ask("prepare", case)

    def time(self, budget_s: float) -> float:
        """Seconds per call, measured there."""
        return self._ask("time", budget_s)

    def repeat(self, n: int) -> None:
        """Call the case prepared last so often."""
        self._ask("repeat", n)

    def memory(self) -> tuple[float, float]:
        """MiB resident there: now, and at most so far."""
        return self._ask("memory")

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None and self._process.stdin is not None
        self._process.stdout.close()
        with contextlib.suppress(BrokenPipeError):  # what it did not read
            self._process.stdin.close()
        self._log.close()
        self._process = None


def why(log: str, code: int) -> str:
    """One line from what an ended process wrote: the last one that names an error, else the last one."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt|Fail|Exit)\b", line)]
    return f"ended with code {code}: {(named or lines or ['(it said nothing)'])[-1][:200]}"


def serve(make: str, threads: int, packages: list[str], questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer ``prepare`` and ``time`` until the other side hangs up."""

    def say(offered: bool, answer: Any) -> None:
        pickle.dump((offered, answer), answers)
        answers.flush()

    if sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    module, function = make.split(":")
    try:
        local = Local("served", getattr(importlib.import_module(module), function))
    except ModuleNotFoundError as error:
        return say(False, f"not installed: {error.name}")
    distributions = packages_distributions()
    say(True, {name: version(distributions[name][0]) for name in packages})
    while True:
        try:
            command, *rest = pickle.load(questions)
        except EOFError:
            return
        try:
            say(True, getattr(local, command)(*rest))
        except NotOfferedError as error:
            say(False, str(error))


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print goes where errors go
    from benchmarks import remote  # under its own name: cases and errors are pickled by it

    remote.serve(sys.argv[1], int(sys.argv[2]), sys.argv[3:], sys.stdin.buffer, answers)
