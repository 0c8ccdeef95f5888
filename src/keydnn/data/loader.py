"""DataLoader: batches of a data set, made ahead of time by threads or processes.

Each epoch takes a 64-bit key from Python's global generator (if it is shuffled or its samples are random).  The key gives the
order, ``Generator(Philox(key)).permutation(n)``, and each sample its generator; batches are handed out in order.  So the same
seed gives the same bits for any number of workers, and an epoch can be entered at any batch.

Workers: threads share the data set and suit reading files and NumPy; processes (started anew, not forked) get a copy of it by
pickling and suit slow Python code.  They stay until :meth:`DataLoader.close` or the end of the loader.
"""

from __future__ import annotations

import itertools
import random
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.data.collate import collate as default_collate
from keydnn.data.dataset import ArrayDataset, Dataset, IterableDataset, Mapped, _same

KINDS = ("threads", "processes")


class DataLoader:
    """Batches of a data set, once per iteration.

    Args:
        dataset: A :class:`Dataset`, any other object with ``len`` and ``[i]``, an ndarray, or an :class:`IterableDataset`.
        batch_size: Samples per batch.
        shuffle: Whether each epoch has its own order; not for iterable data sets.
        drop_last: Whether a last batch that is not full is left out.
        collate: From a list of samples to a batch; None stacks them, see :func:`keydnn.data.collate`.
        workers: How many threads or processes make batches; 0 makes each when it is asked for.
        worker_kind: ``"threads"`` or ``"processes"``.
        prefetch: Batches made ahead per worker.
        dtype: What floating arrays are cast to.
        as_tensors: Whether batches hold Tensors; else they are what ``collate`` gave.

    Raises:
        TypeError: The data set is none, or a number is no int.
        ValueError: A number out of range, or shuffling an iterable data set.

    Example:
        >>> from keydnn.data import ArrayDataset, DataLoader
        >>> x = np.arange(8.0).reshape(8, 1)
        >>> loader = DataLoader(ArrayDataset(x, 2 * x), batch_size=4, shuffle=True, workers=2)
        >>> model = keydnn.Sequential(keydnn.Linear(1, 1))
        >>> history = model.fit(loader, loss="mse", optimizer="adam", epochs=2, verbose=0)
        >>> loader.close()
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        collate: Callable[[list[Any]], Any] | None = None,
        workers: int = 0,
        worker_kind: str = "threads",
        prefetch: int = 2,
        dtype: Any = np.float32,
        as_tensors: bool = True,
    ) -> None:
        self.dataset = _as_dataset(dataset)
        self.batch_size = _count("batch_size", batch_size, 1)
        self.workers, self.prefetch = _count("workers", workers, 0), _count("prefetch", prefetch, 1)
        if worker_kind not in KINDS:
            raise ValueError(f"DataLoader: worker_kind must be one of {KINDS}, got {worker_kind!r}")
        if self.is_iterable and shuffle:
            raise ValueError("DataLoader: an iterable data set has its own order and cannot be shuffled")
        if self.is_iterable and workers and worker_kind == "processes":
            raise ValueError("DataLoader: an iterable data set is read by one thread; leave worker_kind at 'threads'")
        self.shuffle, self.drop_last, self.collate, self.worker_kind = bool(shuffle), bool(drop_last), collate, worker_kind
        self.dtype, self.as_tensors = np.dtype(dtype), bool(as_tensors)
        self._pool: Any = None
        self._stop_pool: Any = None

    @property
    def is_iterable(self) -> bool:
        """Whether the data set is iterable style."""
        return isinstance(self.dataset, IterableDataset)

    @property
    def n_batches(self) -> int | None:
        """Batches per epoch; None for an iterable data set."""
        return None if self.is_iterable else len(self)

    def __len__(self) -> int:
        """Batches per epoch.

        Raises:
            TypeError: The data set is iterable style.
        """
        if self.is_iterable:
            raise TypeError("DataLoader: an iterable data set has no length")
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def draw_key(self) -> int | None:
        """What fixes the next epoch: 64 bits from Python's global generator, None if nothing is random."""
        return random.getrandbits(64) if self.shuffle or getattr(self.dataset, "is_random", False) else None

    def __iter__(self) -> Iterator[Any]:
        """The batches of a fresh epoch."""
        return self.epoch(self.draw_key())

    def epoch(self, key: int | None, first: int = 0) -> Iterator[Any]:
        """The batches of the epoch with this key, from number ``first`` on."""
        made = self._read(first) if self.is_iterable else self._gather(key, first)
        return map(self._finished, made) if self.as_tensors else made

    def close(self) -> None:
        """End the workers; the next epoch starts new ones."""
        if self._stop_pool is not None:
            self._stop_pool()
        self._pool = self._stop_pool = None

    def __getstate__(self) -> dict[str, Any]:
        """For copies: everything but the workers."""
        return {**self.__dict__, "_pool": None, "_stop_pool": None}

    # -- map style

    def _gather(self, key: int | None, first: int) -> Iterator[Any]:
        n, size = len(self.dataset), self.batch_size
        order = np.random.Generator(np.random.Philox(key)).permutation(n) if self.shuffle and key is not None else np.arange(n)
        batches = (order[i * size : (i + 1) * size] for i in range(first, len(self)))
        if not self.workers:
            return (_make(self.dataset, self.collate, rows, key) for rows in batches)
        return self._ahead(batches, key)

    def _ahead(self, batches: Iterator[np.ndarray], key: int | None) -> Iterator[Any]:
        submit, waiting = self._workers(), deque[Any]()
        try:
            for rows in itertools.islice(batches, self.workers * self.prefetch):
                waiting.append(submit(rows, key))
            while waiting:
                batch = self._result(waiting.popleft())
                for rows in itertools.islice(batches, 1):
                    waiting.append(submit(rows, key))
                yield batch
        finally:
            for future in waiting:
                future.cancel()

    def _result(self, future: Any) -> Any:
        from concurrent.futures import BrokenExecutor

        try:
            return future.result()
        except BrokenExecutor as error:
            self.close()
            raise RuntimeError(
                "DataLoader: a worker process died; it may have run out of memory, or the data set cannot be pickled and imported anew"
                " (classes must stand in a module, and scripts need `if __name__ == '__main__':`)"
            ) from error

    def _workers(self) -> Callable[[np.ndarray, int | None], Any]:
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

        if self._pool is None and self.worker_kind == "threads":
            self._pool = ThreadPoolExecutor(self.workers, "keydnn-data")
        elif self._pool is None:
            from multiprocessing import get_context

            self._pool = ProcessPoolExecutor(
                self.workers, get_context("spawn"), initializer=_remember, initargs=(self.dataset, self.collate)
            )
        if self._stop_pool is None:
            self._stop_pool = weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        pool = self._pool
        if self.worker_kind == "threads":
            return lambda rows, key: pool.submit(_make, self.dataset, self.collate, rows, key)
        return lambda rows, key: pool.submit(_make_remembered, rows, key)

    # -- iterable style

    def _read(self, first: int) -> Iterator[Any]:
        batches = self._read_in_order(first)
        return _read_ahead(batches, self.prefetch) if self.workers else batches

    def _read_in_order(self, first: int) -> Iterator[Any]:
        join = self.collate or default_collate
        samples = iter(self.dataset)
        for i in itertools.count():
            batch = list(itertools.islice(samples, self.batch_size))
            if not batch or (self.drop_last and len(batch) < self.batch_size):
                return
            if i >= first:
                yield join(batch)

    # -- batches

    def _finished(self, batch: Any) -> Any:
        if isinstance(batch, Mapping):
            return {key: self._finished(part) for key, part in batch.items()}
        if isinstance(batch, tuple | list):
            return tuple(self._finished(part) for part in batch)
        if isinstance(batch, np.ndarray):
            return Tensor(data=batch, dtype=self.dtype if batch.dtype.kind == "f" else batch.dtype)
        return batch


def _as_dataset(dataset: Any) -> Any:
    if isinstance(dataset, Dataset | IterableDataset):
        return dataset
    if isinstance(dataset, np.ndarray | Tensor):
        return ArrayDataset(dataset)
    if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__") and not isinstance(dataset, str | bytes | Mapping):
        return Mapped(dataset, _same)
    raise TypeError(f"DataLoader: expected a Dataset, an IterableDataset or an object with len() and [i], got {type(dataset).__name__}")


def _count(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"DataLoader: {name} must be an int, got {value!r}")
    if value < least:
        raise ValueError(f"DataLoader: {name} must be at least {least}, got {value}")
    return int(value)


def _make(dataset: Dataset, collate: Any, rows: np.ndarray, key: int | None) -> Any:
    """One batch; runs in a worker."""
    return dataset.gather(rows, key) if collate is None else collate(dataset.samples(rows, key))


_own: list[Any] = []  # what a worker process works on


def _remember(dataset: Any, collate: Any) -> None:
    _own[:] = [dataset, collate]


def _make_remembered(rows: np.ndarray, key: int | None) -> Any:
    return _make(_own[0], _own[1], rows, key)


_END = object()


def _read_ahead(items: Iterator[Any], n: int) -> Iterator[Any]:
    """``items``, read by a thread up to ``n`` ahead; an error of theirs is raised here, in its place."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, "keydnn-data") as reader:
        ahead = deque(reader.submit(next, items, _END) for _ in range(n))
        try:
            while (item := ahead.popleft().result()) is not _END:
                ahead.append(reader.submit(next, items, _END))
                yield item
        finally:
            reader.shutdown(wait=False, cancel_futures=True)
