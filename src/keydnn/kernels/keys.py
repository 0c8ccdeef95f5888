"""Keys of random operations: int64 in [0, 2**63), from NumPy's global generator or, where somebody keeps streams, from one per name.

A block can have a name (:func:`named`).  Where streams are kept (:func:`kept_by`), what is drawn under a name comes from the stream of that
name, whatever is drawn beside it; the rest, and everything where none are kept, comes from NumPy's generator.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

_UPPER = 2**63


class KeyStream:
    """Numbers of a counter-based generator, Philox4x64-10: number i depends on the words and on i alone.

    Args:
        words: At least four 32-bit words.

    Attributes:
        count: How many keys were drawn.

    Example:
        >>> from keydnn.kernels.keys import KeyStream
        >>> stream = KeyStream(np.arange(4, dtype=np.uint32))
        >>> first = stream.draw(3)
        >>> stream.go_to(1)
        >>> stream.draw(2).tolist() == first[1:].tolist()
        True
    """

    def __init__(self, words: NDArray[np.uint32]) -> None:
        self._key = np.ascontiguousarray(words[:4]).view(np.uint64)
        self.count = 0
        self.go_to(0)

    def draw(self, n: int) -> NDArray[np.int64]:
        """The next ``n`` keys."""
        self.count += n
        return (self._bits.random_raw(n) >> np.uint64(1)).view(np.int64)

    def go_to(self, count: int) -> None:
        """Draw key number ``count`` next."""
        self._bits = np.random.Philox(counter=count // 4, key=self._key)  # four numbers per count
        self._bits.random_raw(count % 4, output=False)
        self.count = count


class KeyStreams(Protocol):
    """Who keeps streams."""

    def key_stream(self, name: str) -> KeyStream:
        """The stream of a name."""
        ...


_name: ContextVar[str | None] = ContextVar("keydnn_key_name", default=None)
_streams: ContextVar[KeyStreams | None] = ContextVar("keydnn_key_streams", default=None)


class named:
    """A block whose operations draw under a name.

    Args:
        name: The name.
    """

    __slots__ = ("_before", "_name")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._before = _name.set(self._name)

    def __exit__(self, *error: object) -> None:
        _name.reset(self._before)


def current_name() -> str | None:
    """The name of the innermost block, or None."""
    return _name.get()


@contextlib.contextmanager
def kept_by(streams: KeyStreams) -> Iterator[None]:
    """Inside the block somebody keeps streams."""
    before = _streams.set(streams)
    try:
        yield
    finally:
        _streams.reset(before)


def draw_one() -> Any:
    """A key, of the block that this is called in."""
    name, streams = _name.get(), _streams.get()
    if name is None or streams is None:
        return np.random.randint(0, _UPPER, dtype=np.int64)
    return streams.key_stream(name).draw(1)[0]


def draw(names: Sequence[str | None], steps: int = 1) -> NDArray[np.int64]:
    """Keys for steps that draw, in this order, under these names: ``steps * len(names)``, step by step."""
    streams = _streams.get()
    if streams is None or all(name is None for name in names):
        return np.random.randint(0, _UPPER, steps * len(names), dtype=np.int64)
    keys = np.empty((steps, len(names)), np.int64)
    for name in dict.fromkeys(names):
        at = [i for i, other in enumerate(names) if other == name]
        n = steps * len(at)
        drawn = np.random.randint(0, _UPPER, n, dtype=np.int64) if name is None else streams.key_stream(name).draw(n)
        keys[:, at] = drawn.reshape(steps, len(at))
    return keys.reshape(-1)


def from_numpy(names: Sequence[str | None]) -> int:
    """How many of these names are served by NumPy's generator here."""
    return len(names) if _streams.get() is None else sum(name is None for name in names)


class Mark:
    """Where the generators are that serve some names, to go back there.

    Args:
        names: The names.
    """

    def __init__(self, names: Sequence[str | None]) -> None:
        streams = _streams.get()
        self._numpy = np.random.get_state() if from_numpy(names) else None
        known = set() if streams is None else {name for name in names if name is not None}
        self._counts = [(streams.key_stream(name), streams.key_stream(name).count) for name in known] if streams is not None else []

    def go_back(self) -> None:
        """Draw again what was drawn since."""
        if self._numpy is not None:
            np.random.set_state(self._numpy)
        for stream, count in self._counts:
            stream.go_to(count)
