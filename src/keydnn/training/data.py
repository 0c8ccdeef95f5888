"""Data adapters: what ``fit`` and its siblings take, as batches of Tensors.

Arrays (Tensor or ndarray) are gathered row by row into batches, in an order that a 64-bit key gives:
``Generator(Philox(key)).permutation(n)``.  Iterables of pairs are walked as they are.  An ndarray takes the dtype of the
model when its batch is made, so a large array is never copied whole; a Tensor stays as it is.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Protocol, runtime_checkable

import numpy as np

from keydnn._tensor import Tensor
from keydnn.autograd.modes import no_grad
from keydnn.domain.errors import ShapeError
from keydnn.training.order import order_of

Pair = tuple[Any, Any]
MOST_COPIED = 256 << 20  # bytes of a data set that may be copied to run epochs natively


@runtime_checkable
class Batches(Protocol):
    """Batches of one epoch after another; a data loader is one."""

    @property
    def n_batches(self) -> int | None:
        """Batches per epoch; None if unknown."""

    def draw_key(self) -> int | None:
        """What fixes the order of one epoch; None where there is nothing to fix."""

    def epoch(self, key: int | None, first: int = 0) -> Iterator[tuple[Any, ...]]:
        """The batches of an epoch from number ``first`` on."""


@runtime_checkable
class Rows(Protocol):
    """A map-style data set: samples by number, gathered into a batch ``(x, y)``."""

    is_random: bool

    def __len__(self) -> int: ...

    def gather(self, rows: Any, key: int | None) -> Any:
        """The samples of ``rows``; ``key`` fixes what is random about them."""


@runtime_checkable
class Exchangeable(Protocol):
    """An array of another library (PyTorch, CuPy, JAX, ...) that can be read over DLPack."""

    def __dlpack__(self, *, stream: None = ...) -> Any: ...

    def __dlpack_device__(self) -> tuple[int, int]: ...


def as_array(value: Any, what: str) -> Any:
    """A Tensor or ndarray as it is, an array of another library as a read-only ndarray of the same memory.

    Raises:
        TypeError: ``value`` is none, holds no real numbers, or its memory cannot be read.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind not in "fiub":
        mend = (
            "real and imaginary parts as columns of their own" if value.dtype.kind == "c" else "array.astype('float32') if they are numbers"
        )
        raise TypeError(f"{what} must be an array of real numbers, got one of dtype {value.dtype}; pass {mend}")
    if isinstance(value, Tensor | np.ndarray):
        return value
    if isinstance(value, Exchangeable) and not isinstance(value, np.generic):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise TypeError(f"{what}: this {type(value).__name__} cannot be read as an array: {error}") from error
    raise TypeError(f"{what} must be a Tensor or an ndarray, got {_described(value)}")


def as_tensor(value: Any, dtype: Any, what: str) -> Tensor:
    """A Tensor as it is, an ndarray or an array of another library as a Tensor of ``dtype``.

    Raises:
        TypeError: ``value`` is none.
    """
    found = as_array(value, what)
    return found if isinstance(found, Tensor) else Tensor(data=found, dtype=dtype)


def _described(value: Any) -> str:
    mend = "; pass np.asarray(...)" if isinstance(value, list | tuple) or callable(getattr(value, "__array__", None)) else ""
    return f"{type(value).__name__}{mend}"


class ArrayBatches:
    """Rows of two arrays in batches; the last one may be short.

    Args:
        x: Tensor or ndarray (n, ...), n at least 1.
        y: Tensor or ndarray (n, ...).
        batch_size: Rows per batch.
        shuffle: Whether each epoch has its own order.
        dtype: What ndarrays are cast to.
        owner: Named in errors.
        weights: What each row counts (n,), or None; batches are then triples (x, y, weights).
        most: Batches of an epoch at most, None for all: the first in its order.

    Raises:
        TypeError: An array is neither Tensor nor ndarray.
        ValueError: The numbers of rows differ, or there are none.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        *,
        batch_size: int,
        shuffle: bool,
        dtype: Any,
        owner: str,
        weights: np.ndarray | None = None,
        most: int | None = None,
    ) -> None:
        x, y = as_array(x, f"{owner}: x"), as_array(y, f"{owner}: y")
        for name, value in (("x", x), ("y", y)):
            if value.ndim == 0 or value.shape[0] == 0:
                raise ShapeError(f"{owner}: {name} has no rows, its shape is {value.shape}")
        if x.shape[0] != y.shape[0]:
            raise ShapeError(f"{owner}: x and y have different numbers of rows\n  x {x.shape}\n  y {y.shape}")
        self.arrays = (x, y) if weights is None else (x, y, weights)
        self.batch_size, self.shuffle, self.dtype, self.most = batch_size, shuffle, dtype, most

    @property
    def n_rows(self) -> int:
        """Rows of the arrays."""
        return int(self.arrays[0].shape[0])

    @property
    def n_batches(self) -> int:
        """Batches per epoch."""
        found = -(-self.n_rows // self.batch_size)
        return found if self.most is None else min(found, self.most)

    def draw_key(self) -> int | None:
        """A fresh key from Python's global generator if rows are shuffled."""
        return random.getrandbits(64) if self.shuffle else None

    def epoch(self, key: int | None, first: int = 0) -> Iterator[tuple[Any, ...]]:
        """Tuples of Tensors; the order follows from ``key``, None keeps that of the arrays."""
        order = self.order(key)
        for i in range(first, self.n_batches):
            yield self.batch(order, i)

    def order(self, key: int | None) -> np.ndarray | None:
        """Row numbers in the order of an epoch; None is the order of the arrays."""
        return None if key is None else order_of(key, self.n_rows)

    def batch(self, order: np.ndarray | None, i: int) -> tuple[Tensor, ...]:
        """Batch number ``i``."""
        start, end = i * self.batch_size, min((i + 1) * self.batch_size, self.n_rows)
        rows = slice(start, end) if order is None else order[start:end]
        return tuple(self._rows(array, rows) for array in self.arrays)

    def whole(self) -> tuple[np.ndarray, ...] | None:
        """All arrays as contiguous ndarrays in the dtypes of the batches; None if that would copy much."""
        found = []
        for array in self.arrays:
            values = np.asarray(array)
            dtype = values.dtype if isinstance(array, Tensor) else np.dtype(self.dtype)
            if (values.dtype != dtype or not values.flags.c_contiguous) and values.size * dtype.itemsize > MOST_COPIED:
                return None
            found.append(np.ascontiguousarray(values, dtype))
        return tuple(found)

    def _rows(self, array: Any, rows: Any) -> Tensor:
        if isinstance(array, np.ndarray):
            return Tensor(data=array[rows], dtype=self.dtype)
        with no_grad():
            return array[rows]


class IterableBatches:
    """An iterable of ``(x, y)`` pairs, walked once per epoch.

    Args:
        pairs: The iterable; items are tuples of two Tensors or ndarrays.
        dtype: What ndarrays are cast to.
        owner: Named in errors.

    Raises:
        TypeError: ``pairs`` is no iterable, or is an array (then ``y`` is missing).
    """

    def __init__(self, pairs: Any, *, dtype: Any, owner: str) -> None:
        if isinstance(pairs, Exchangeable):
            raise TypeError(f"{owner}: y is missing for x of shape {as_array(pairs, owner).shape}")
        if not isinstance(pairs, Iterable) or isinstance(pairs, str | bytes):
            raise TypeError(f"{owner}: without y, x must be an iterable of (x, y) pairs, got {type(pairs).__name__}")
        self.pairs, self.dtype, self.owner = pairs, dtype, owner

    @property
    def n_batches(self) -> int | None:
        """Batches per epoch if the iterable has a length."""
        return len(self.pairs) if isinstance(self.pairs, Sized) else None

    def draw_key(self) -> None:
        """None: the iterable has its own order."""

    def epoch(self, key: int | None, first: int = 0) -> Iterator[Pair]:
        """Pairs of Tensors.

        Raises:
            TypeError: An item is no tuple of two Tensors or ndarrays.
            ValueError: There is no batch, as in an iterator that was used up before.
        """
        count = 0
        for count, item in enumerate(self.pairs, 1):
            if count > first:
                yield self._pair(item, count - 1)
        if count == 0:
            raise ValueError(f"{self.owner}: the iterable gave no batches; an iterator can be walked only once, pass a list or a loader")

    def _pair(self, item: Any, i: int) -> Pair:
        if not isinstance(item, tuple) or len(item) != 2:
            size = f" of {len(item)}" if isinstance(item, tuple) else ""
            raise TypeError(f"{self.owner}: batch {i} must be a tuple (x, y), got a {type(item).__name__}{size}")
        x, y = (as_tensor(value, self.dtype, f"{self.owner}: {name} of batch {i}") for name, value in zip("xy", item, strict=True))
        return x, y


class LoaderBatches(IterableBatches):
    """The pairs of a loader, which knows its own order.

    Args:
        loader: Gives the batches.
        dtype: What ndarrays are cast to.
        owner: Named in errors.
    """

    def __init__(self, loader: Batches, *, dtype: Any, owner: str) -> None:
        self.loader, self.dtype, self.owner = loader, dtype, owner

    @property
    def n_batches(self) -> int | None:
        """Batches per epoch if the loader knows."""
        return self.loader.n_batches

    def draw_key(self) -> int | None:  # type: ignore[override]
        """What the loader draws."""
        return self.loader.draw_key()

    def epoch(self, key: int | None, first: int = 0) -> Iterator[Pair]:
        """Pairs of Tensors.

        Raises:
            TypeError: An item is no tuple of two Tensors or ndarrays.
            ValueError: There is no batch.
        """
        i = first
        for i, item in enumerate(self.loader.epoch(key, first), first):
            yield self._pair(item, i)
        if i == 0 and self.loader.n_batches == 0:
            raise ValueError(f"{self.owner}: the loader gives no batches")


class RowBatches:
    """Rows of a map-style data set in batches; the last one may be short.

    Args:
        rows: The data set.
        batch_size: Samples per batch.
        shuffle: Whether each epoch has its own order.
    """

    def __init__(self, rows: Rows, *, batch_size: int, shuffle: bool) -> None:
        self.rows, self.batch_size, self.shuffle = rows, batch_size, shuffle

    @property
    def n_batches(self) -> int:
        """Batches per epoch."""
        return -(-len(self.rows) // self.batch_size)

    def draw_key(self) -> int | None:
        """A fresh key from Python's global generator if the order or the samples are random."""
        return random.getrandbits(64) if self.shuffle or self.rows.is_random else None

    def epoch(self, key: int | None, first: int = 0) -> Iterator[Pair]:
        """The batches, made one by one; the order follows from ``key`` as that of :class:`ArrayBatches`."""
        n, size = len(self.rows), self.batch_size
        order = order_of(key, n) if self.shuffle and key is not None else np.arange(n)
        for i in range(first, self.n_batches):
            yield self.rows.gather(order[i * size : (i + 1) * size], key)


class FirstBatches:
    """The first batches of each epoch; of an iterator, which goes on where it stands, the next ones.

    Args:
        batches: All batches.
        most: How many of them.
    """

    def __init__(self, batches: Batches, most: int) -> None:
        self.batches, self.most = batches, most

    @property
    def n_batches(self) -> int:
        """Batches per epoch, if there are so many."""
        found = self.batches.n_batches
        return self.most if found is None else min(found, self.most)

    def draw_key(self) -> int | None:
        """What the batches draw."""
        return self.batches.draw_key()

    def epoch(self, key: int | None, first: int = 0) -> Iterator[tuple[Any, ...]]:
        """The batches."""
        return itertools.islice(self.batches.epoch(key, first), self.most - first)


def make_batches(
    x: Any,
    y: Any,
    *,
    batch_size: int,
    shuffle: bool,
    dtype: Any,
    owner: str,
    weights: np.ndarray | None = None,
    most: int | None = None,
) -> Batches:
    """The adapter for ``x`` and ``y`` (and weights); without ``y`` the pairs of ``x``: a data set, a loader, or any iterable.

    Raises:
        TypeError: Wrong types.
        ValueError: Shapes that do not fit.
    """
    if y is None and isinstance(x, Rows):
        x = RowBatches(x, batch_size=batch_size, shuffle=shuffle)
    if y is None:
        kind = LoaderBatches if isinstance(x, Batches) else IterableBatches
        batches = kind(x, dtype=dtype, owner=owner)
        return batches if most is None else FirstBatches(batches, most)
    return ArrayBatches(x, y, batch_size=batch_size, shuffle=shuffle, dtype=dtype, owner=owner, weights=weights, most=most)


def input_batches(x: Rows | Batches, batch_size: int, dtype: Any, owner: str) -> Iterator[Tensor]:
    """The inputs of a data set or loader in order, without targets.

    Raises:
        TypeError: A batch holds something else than Tensors or ndarrays.
        ValueError: There are no batches, or the loader shuffles.
    """
    if getattr(x, "shuffle", False):  # a loader of another make need not have it
        raise ValueError(f"{owner}: the loader shuffles, so its outputs could not be told apart; pass one without")
    source: Batches = RowBatches(x, batch_size=batch_size, shuffle=False) if isinstance(x, Rows) else x
    if source.n_batches == 0:
        raise ValueError(f"{owner}: there are no batches")
    for i, item in enumerate(source.epoch(source.draw_key())):
        yield as_tensor(item[0] if isinstance(item, tuple) else item, dtype, f"{owner}: batch {i}")


def split_rows(arrays: tuple[Any, ...], part: float, owner: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The first rows for training and the last ``part`` of them for validation; an array that is None stays None.

    Raises:
        ValueError: ``part`` is not between 0 and 1, or leaves one side empty.
    """
    if isinstance(part, bool) or not isinstance(part, int | float) or not 0 < part < 1:
        raise ValueError(f"{owner}: validation_split must lie between 0 and 1, got {part!r}")
    n = arrays[0].shape[0]
    kept = n - int(n * part)
    if kept in (0, n):
        raise ValueError(f"{owner}: validation_split={part} of {n} rows leaves one side empty")
    with no_grad():
        first, last = (tuple(None if a is None else a[rows] for a in arrays) for rows in (slice(kept), slice(kept, None)))
    return first, last


def batch_size_of(x: Any) -> int:
    """Rows of a batch: the first dimension, 1 if it has none."""
    shape: tuple[int, ...] = getattr(x, "shape", ())  # foreign batches may have no shape
    return int(shape[0]) if len(shape) else 1


def iter_minibatches_xy(x: Any, y: Any, *, batch_size: int, shuffle: bool = False) -> Iterator[Pair]:
    """Rows of ``x`` and ``y`` in batches, in a fresh order if ``shuffle``."""
    batches = ArrayBatches(x, y, batch_size=batch_size, shuffle=shuffle, dtype=None, owner="minibatches")
    return itertools.chain(batches.epoch(batches.draw_key()))  # type: ignore[arg-type]
