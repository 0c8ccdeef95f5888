"""Processes: tasks in other processes of this machine (joblib's loky); tables are written once and mapped."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc

from keydnn.experiment.data import collection_file
from keydnn.experiment.execution.executors.executor import Done, TaskFailed, Work
from keydnn.experiment.optional import need

log = logging.getLogger(__name__)

_IDLE_S = 300  # after which a worker that waits for more goes away
_THREADS = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR")  # of libraries that ask the environment


class Processes:
    """Workers on this machine.

    Args:
        workers: How many at once; None: one per processor, over the threads of a task.
        threads_per_task: Threads of a task; None shares the processors among the workers.
        retries: How often what was lost is given out again after a worker died.

    Example:
        >>> from keydnn.experiment.execution.executors import Processes
        >>> Processes(workers=2, threads_per_task=1)
        Processes(workers=2, threads_per_task=1, retries=2)
    """

    def __init__(self, *, workers: int | None = None, threads_per_task: int | None = None, retries: int = 2) -> None:
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.workers = workers or max(1, processors // (threads_per_task or 1))
        self.threads_per_task = threads_per_task or max(1, processors // self.workers)
        self.retries = retries

    def run(self, work: Work, base: bytes, tables: Mapping[str, Any], tasks: Sequence[bytes], done: Done) -> None:
        """Have every task done; see :class:`IExecutor`.

        Raises:
            TaskFailed: Workers died more often than ``retries``.
        """
        left = dict(enumerate(tasks))
        with tempfile.TemporaryDirectory(prefix="keydnn-") as folder:
            paths = {name: str(collection_file.write(table, Path(folder, f"{i:04d}"))) for i, (name, table) in enumerate(tables.items())}
            for i in range(self.retries + 1):
                if self._give_out(work, base, paths, left, done):
                    return
                if i < self.retries:
                    log.warning("a worker died; tasks %s are given out again", ", ".join(map(str, left)))
        lost = ", ".join(map(str, left))
        raise TaskFailed(f"workers died {self.retries + 1} times; tasks {lost} are not done: they may need more memory than there is")

    def _give_out(self, work: Work, base: bytes, paths: Mapping[str, str], left: dict[int, bytes], done: Done) -> bool:
        """Have the tasks that are left done, each leaving ``left`` with its answer; whether no worker died."""
        from concurrent.futures.process import BrokenProcessPool  # brings multiprocessing

        pool = self._pool()
        calls = [pool.submit(_mapped, work, i, base, task, self.threads_per_task, paths) for i, task in left.items()]
        try:
            for call in as_completed(calls):
                if not isinstance(call.exception(), BrokenProcessPool):
                    i, answer = call.result()
                    del left[i]
                    done(i, answer)
        except BaseException:
            pool.shutdown(wait=False, kill_workers=True)
            raise
        return not left

    def _pool(self) -> Any:
        """Workers that are there from an earlier run, or new ones; joblib's own front would use no other process for a single one."""
        loky = need("joblib.externals.loky", "executor='processes'")
        threads = {f"{name}_NUM_THREADS": str(self.threads_per_task) for name in _THREADS}
        return loky.get_reusable_executor(max_workers=self.workers, timeout=_IDLE_S, env=threads)

    def __repr__(self) -> str:
        return f"Processes(workers={self.workers}, threads_per_task={self.threads_per_task}, retries={self.retries})"


def _mapped(work: Work, i: int, base: bytes, task: bytes, threads: int, paths: Mapping[str, str]) -> tuple[int, bytes]:
    """In the worker: a task whose tables lie in Arrow files; its number and its answer."""
    tables = [pa.ipc.open_file(pa.memory_map(path)).read_all() for path in paths.values()]
    return i, work(base, task, threads, list(paths), *tables)
