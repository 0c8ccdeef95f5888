"""What an executor is: it has messages answered somewhere else, and tells each answer as it comes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

Done = Callable[[int, bytes], None]  # number of the task, answer
Work = Callable[..., bytes]  # (what all tasks share, task, threads, names of tables, *tables) -> answer; importable by name

EXECUTORS = {  # name -> module:class
    "processes": "keydnn.experiment.execution.executors.processes:Processes",
    "ray": "keydnn.experiment.execution.executors.ray:Ray",
}


class TaskFailed(RuntimeError):
    """Workers died too often."""


@runtime_checkable
class IExecutor(Protocol):
    """Has tasks done elsewhere."""

    threads_per_task: int

    def run(self, work: Work, base: bytes, tables: Mapping[str, Any], tasks: Sequence[bytes], done: Done) -> None:
        """Have every task done.

        Args:
            work: What a worker calls for each task.
            base: What all tasks share.
            tables: Name to Arrow table, which workers read and never write to.
            tasks: What differs.
            done: Is told each answer, in the order in which they come.

        Raises:
            TaskFailed: A worker died, and died again when its tasks were given out once more.
        """


def checked_whole(name: str, value: Any, least: int) -> int:
    """A whole number of at least so much.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def make_executor(
    executor: str | IExecutor, *, workers: int | None = None, threads_per_task: int | None = None, retries: int = 2
) -> IExecutor | None:
    """The executor that a name means; None for ``"serial"``.

    Args:
        executor: "serial", "processes" or "ray", or an executor.
        workers: How many tasks are done at once; None: as many as fit.
        threads_per_task: Threads that a task computes with; None shares the processors among the workers.
        retries: How often tasks are given out again after a worker died.

    Raises:
        ValueError: Another name, or numbers that make no sense.
    """
    for name, value, least in (("workers", workers, 1), ("threads_per_task", threads_per_task, 1), ("retries", retries, 0)):
        if value is not None:
            checked_whole(name, value, least)
    if isinstance(executor, IExecutor):
        return executor
    if executor == "serial":
        return None
    if executor not in EXECUTORS:
        raise ValueError(f"unknown executor {executor!r}; expected one of serial, {', '.join(EXECUTORS)}, or an executor")
    module, _, name = EXECUTORS[executor].partition(":")
    made: IExecutor = getattr(importlib.import_module(module), name)(workers=workers, threads_per_task=threads_per_task, retries=retries)
    return made
