"""Ray: tasks on a cluster, of which only the address is new; tables go through its object store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keydnn.experiment.execution.executors.executor import Done, TaskFailed, Work
from keydnn.experiment.optional import need


class Ray:
    """Workers of a Ray cluster, which must have keydnn installed.

    Args:
        address: Of the cluster; None takes the one that is connected, else that of ``RAY_ADDRESS``, else starts one on this machine.
        workers: How many tasks are done at once; None: as many as the cluster has room for.
        threads_per_task: Threads of a task, which are also the processors that it reserves; None means 1.
        retries: How often a task whose worker died is given out again.

    Example:
        >>> from keydnn.experiment.execution.executors import Ray
        >>> Ray(address="ray://head:10001", threads_per_task=4)
        Ray(address='ray://head:10001', workers=None, threads_per_task=4, retries=2)
    """

    def __init__(
        self, *, address: str | None = None, workers: int | None = None, threads_per_task: int | None = None, retries: int = 2
    ) -> None:
        self.address, self.workers, self.threads_per_task, self.retries = address, workers, threads_per_task or 1, retries

    def run(self, work: Work, base: bytes, tables: Mapping[str, Any], tasks: Sequence[bytes], done: Done) -> None:
        """Have every task done; see :class:`IExecutor`.

        Raises:
            TaskFailed: The worker of a task died more often than ``retries``.
        """
        ray = need("ray", "executor='ray'")
        if not ray.is_initialized():
            ray.init(address=self.address, log_to_driver=False)
        remote = ray.remote(num_cpus=self.threads_per_task, max_retries=self.retries)(work)
        shared, stored = ray.put(base), {name: ray.put(table) for name, table in tables.items()}
        names, values = list(stored), list(stored.values())
        waiting = list(enumerate(tasks))
        running: dict[Any, int] = {}
        room = self.workers or len(tasks)
        try:
            while waiting or running:
                while waiting and len(running) < room:
                    i, task = waiting.pop(0)
                    running[remote.remote(shared, task, self.threads_per_task, names, *values)] = i
                (ready,), _ = ray.wait(list(running), num_returns=1)
                done(running.pop(ready), _answer(ray, ready))
        finally:
            for call in running:
                ray.cancel(call, force=True)

    def __repr__(self) -> str:
        return f"Ray(address={self.address!r}, workers={self.workers}, threads_per_task={self.threads_per_task}, retries={self.retries})"


def _answer(ray: Any, call: Any) -> bytes:
    try:
        found: bytes = ray.get(call)
    except ray.exceptions.WorkerCrashedError as error:
        raise TaskFailed(f"the worker of a task died again and again: {error}") from error
    return found
