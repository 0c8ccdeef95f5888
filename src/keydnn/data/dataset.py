"""Data sets: samples by number (map style), or one after the other (iterable style).

A map-style data set has ``len(d)`` and ``d[i]``.  Two more methods exist for speed and for randomness, both with a default:

    d.sample(i, rng)      sample i, where rng is a generator of its own for random augmentation
    d.gather(rows, key)   the batch of these rows; rng of row i is Generator(Philox((key, i)))

So what a sample looks like follows from the key of the epoch and its number, not from who computes it or in which order.
"""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.data.collate import collate
from keydnn.domain.errors import ShapeError

Rows = Sequence[int] | np.ndarray


def sample_rng(key: int, i: int) -> np.random.Generator:
    """The generator of sample ``i`` in the epoch with this key."""
    return np.random.Generator(np.random.Philox(key=np.array([key, i], dtype=np.uint64)))


class Dataset:
    """Samples by number; write ``__len__`` and ``__getitem__``.

    Attributes:
        is_random: Whether samples differ from epoch to epoch; then each epoch draws a key even without shuffling.

    Example:
        >>> from keydnn.data import Dataset
        >>> class Squares(Dataset):
        ...     def __len__(self):
        ...         return 5
        ...
        ...     def __getitem__(self, i):
        ...         return np.float32(i), np.float32(i * i)
        >>> [y.tolist() for x, y in keydnn.data.DataLoader(Squares(), 3)]
        [[0.0, 1.0, 4.0], [9.0, 16.0]]
    """

    is_random = False

    def __len__(self) -> int:
        """Number of samples."""
        raise NotImplementedError(f"{type(self).__name__} does not implement __len__()")

    def __getitem__(self, i: int) -> Any:
        """Sample ``i``: usually a tuple (x, y).

        Raises:
            IndexError: There is no such sample.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement __getitem__()")

    def sample(self, i: int, rng: np.random.Generator) -> Any:
        """Sample ``i`` with what is random about it drawn from ``rng``."""
        return self[i]

    def gather(self, rows: Rows, key: int | None) -> Any:
        """The samples of ``rows`` as one batch of arrays."""
        return collate(self.samples(rows, key))

    def samples(self, rows: Rows, key: int | None) -> list[Any]:
        """The samples of ``rows``."""
        if not self.is_random or key is None:
            return [self[int(i)] for i in rows]
        return [self.sample(int(i), sample_rng(key, int(i))) for i in rows]

    def map(self, function: Callable[[Any], Any]) -> Mapped:
        """This data set with ``function`` applied to each sample."""
        return Mapped(self, function)

    def augment(self, transform: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Augmented:
        """This data set with ``transform(x, rng)`` applied to the first part of each sample."""
        return Augmented(self, transform)


class IterableDataset:
    """Samples one after the other; write ``__iter__``.  The order is its own, so it cannot be shuffled.

    Example:
        >>> from keydnn.data import DataLoader, IterableDataset
        >>> class Count(IterableDataset):
        ...     def __iter__(self):
        ...         return iter(range(5))
        >>> [batch.tolist() for batch in DataLoader(Count(), batch_size=2, drop_last=True)]
        [[0, 1], [2, 3]]
    """

    def __iter__(self) -> Iterator[Any]:
        """The samples of one epoch."""
        raise NotImplementedError(f"{type(self).__name__} does not implement __iter__()")


class ArrayDataset(Dataset):
    """Rows of arrays; sample ``i`` is the tuple of their rows ``i`` (the row itself with one array).

    Args:
        arrays: ndarrays or Tensors (n, ...).

    Raises:
        TypeError: Something else.
        ValueError: No arrays, or different numbers of rows.
    """

    def __init__(self, *arrays: Any) -> None:
        if not arrays:
            raise ValueError("ArrayDataset: give at least one array")
        for array in arrays:
            if not isinstance(array, np.ndarray | Tensor):
                raise TypeError(f"ArrayDataset: expected ndarrays or Tensors, got {type(array).__name__}")
        self.arrays = tuple(np.asarray(array) for array in arrays)
        if any(a.ndim == 0 for a in self.arrays) or len({a.shape[0] for a in self.arrays}) > 1:
            raise ShapeError(f"ArrayDataset: arrays have different numbers of rows: {[a.shape for a in self.arrays]}")

    def __len__(self) -> int:
        return self.arrays[0].shape[0]

    def __getitem__(self, i: int) -> Any:
        row = tuple(array[i] for array in self.arrays)
        return row if len(row) > 1 else row[0]

    def gather(self, rows: Rows, key: int | None) -> Any:
        """The rows as arrays, without a detour over single samples."""
        found = tuple(array[rows] for array in self.arrays)
        return found if len(found) > 1 else found[0]


class _Wrapped(Dataset):
    """A data set made of another one."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.is_random = bool(getattr(dataset, "is_random", False))  # any sequence will do

    def __len__(self) -> int:
        return len(self.dataset)

    def _inner(self, i: int, rng: np.random.Generator) -> Any:
        return self.dataset.sample(i, rng) if isinstance(self.dataset, Dataset) else self.dataset[i]


class Mapped(_Wrapped):
    """``function(sample)`` of each sample.

    Args:
        dataset: The samples.
        function: Called with one sample.
    """

    def __init__(self, dataset: Any, function: Callable[[Any], Any]) -> None:
        super().__init__(dataset)
        self.function = function

    def __getitem__(self, i: int) -> Any:
        return self.function(self.dataset[i])

    def sample(self, i: int, rng: np.random.Generator) -> Any:
        """``function`` of sample ``i``."""
        return self.function(self._inner(i, rng))


class Augmented(_Wrapped):
    """``transform(x, rng)`` of the first part of each sample, with a generator per epoch and sample.

    Args:
        dataset: Samples that are an array, or tuples whose first entry is one.
        transform: Function of array and generator, such as those of :mod:`keydnn.data.augment`.

    Example:
        >>> from keydnn.data import ArrayDataset, DataLoader, RandomFlip
        >>> images = ArrayDataset(np.zeros((10, 1, 8, 8), np.float32), np.zeros(10, np.int64))
        >>> x, y = next(iter(DataLoader(images.augment(RandomFlip()), 4)))
        >>> x.shape
        (4, 1, 8, 8)
    """

    def __init__(self, dataset: Any, transform: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> None:
        super().__init__(dataset)
        self.transform = transform
        self.is_random = True

    def __getitem__(self, i: int) -> Any:
        """A fresh variant, drawn from Python's global generator."""
        return self.sample(i, np.random.default_rng(random.getrandbits(64)))

    def sample(self, i: int, rng: np.random.Generator) -> Any:
        """The variant of sample ``i`` that ``rng`` gives."""
        found = self._inner(i, rng)
        if isinstance(found, tuple | list):
            return (self.transform(np.asarray(found[0]), rng), *found[1:])
        return self.transform(np.asarray(found), rng)


class Subset(_Wrapped):
    """Some samples of a data set, in a given order.

    Args:
        dataset: The samples.
        rows: Their numbers.

    Raises:
        IndexError: A number is out of range.
    """

    def __init__(self, dataset: Any, rows: Sequence[int] | np.ndarray) -> None:
        super().__init__(dataset)
        self.rows = np.asarray(rows, dtype=np.int64).reshape(-1)
        if self.rows.size and not (0 <= self.rows.min() and self.rows.max() < len(dataset)):
            raise IndexError(f"Subset: rows go from {self.rows.min()} to {self.rows.max()}, the data set has {len(dataset)} samples")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Any:
        return self.dataset[int(self.rows[i])]

    def sample(self, i: int, rng: np.random.Generator) -> Any:
        """The chosen sample."""
        return self._inner(int(self.rows[i]), rng)

    def gather(self, rows: Rows, key: int | None) -> Any:
        """By the data set itself, so that its own way of gathering is used."""
        chosen = self.rows[np.asarray(rows, dtype=np.int64)]
        return self.dataset.gather(chosen, key) if isinstance(self.dataset, Dataset) else super().gather(rows, key)


class ConcatDataset(Dataset):
    """Data sets one after the other.

    Args:
        datasets: At least one.

    Raises:
        ValueError: There is none.
    """

    def __init__(self, *datasets: Any) -> None:
        if not datasets:
            raise ValueError("ConcatDataset: give at least one data set")
        self.datasets = [d if isinstance(d, Dataset) else Mapped(d, _same) for d in datasets]
        self.ends = list(itertools.accumulate(len(d) for d in self.datasets))
        self.is_random = any(d.is_random for d in self.datasets)

    def __len__(self) -> int:
        return self.ends[-1]

    def _place(self, i: int) -> tuple[Dataset, int]:
        n = len(self)
        if not -n <= i < n:
            raise IndexError(f"ConcatDataset: sample {i} of {n}")
        i %= n
        part = bisect.bisect_right(self.ends, i)
        return self.datasets[part], i - (self.ends[part - 1] if part else 0)

    def __getitem__(self, i: int) -> Any:
        dataset, inner = self._place(i)
        return dataset[inner]

    def sample(self, i: int, rng: np.random.Generator) -> Any:
        """Sample ``i`` of the whole chain."""
        dataset, inner = self._place(i)
        return dataset.sample(inner, rng)


def _same(sample: Any) -> Any:
    return sample


def random_split(dataset: Any, parts: Sequence[float], *, seed: int | None = None) -> list[Subset]:
    """Divide a data set at random.

    Args:
        dataset: Map style.
        parts: Numbers of samples (ints), or shares (floats) that sum to 1.
        seed: Fixes the division; None draws from Python's global generator.

    Raises:
        ValueError: The parts do not sum to the whole.

    Example:
        >>> from keydnn.data import ArrayDataset, random_split
        >>> [len(part) for part in random_split(ArrayDataset(np.zeros(10)), [0.8, 0.2], seed=0)]
        [8, 2]
    """
    n = len(dataset)
    if all(isinstance(p, int | np.integer) for p in parts):
        sizes = [int(p) for p in parts]
    else:
        if abs(sum(parts) - 1) > 1e-9:
            raise ValueError(f"random_split: shares must sum to 1, got {sum(parts)}")
        edges = [round(n * s) for s in itertools.accumulate(parts)]
        sizes = [end - start for start, end in zip([0, *edges[:-1]], edges, strict=True)]
    if any(size < 0 for size in sizes) or sum(sizes) != n:
        raise ValueError(f"random_split: parts {list(parts)} give {sizes}, the data set has {n} samples")
    key = random.getrandbits(64) if seed is None else seed
    order = np.random.Generator(np.random.Philox(key)).permutation(n)
    starts = [0, *itertools.accumulate(sizes)]
    return [Subset(dataset, order[a:b]) for a, b in itertools.pairwise(starts)]
