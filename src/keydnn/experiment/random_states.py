"""Random states of Python, NumPy and whichever of torch and TensorFlow is loaded, kept, put back and derived from a seed.

Words for a generator: ``SeedSequence(entropy, spawn_key=bytes of a name).generate_state(8)``, so a name's numbers depend on no other name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter

RandomStates = dict[Backend, Any]

_GENERATORS = (Backend.NUMPY, Backend.TORCH, Backend.TENSORFLOW)


def captured() -> RandomStates:
    """Where every generator of this process is."""
    found = {backend: adapter(backend).random_state() for backend in _GENERATORS}
    return {backend: state for backend, state in found.items() if state is not None}


def restore(states: RandomStates) -> None:
    """Take back :func:`captured`; what was loaded only afterwards is left alone."""
    for backend, state in states.items():
        adapter(backend).set_random_state(state)


def seeded(entropy: int, name: str, but: Collection[Backend] = ()) -> None:
    """Start every generator, but some, from a seed and a name."""
    words = np.random.SeedSequence(entropy, spawn_key=tuple(name.encode())).generate_state(8)
    for backend in _GENERATORS:
        if backend not in but:
            adapter(backend).seed_random(words)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """After the block every generator is where it was."""
    before = captured()
    try:
        yield
    finally:
        restore(before)


@contextlib.contextmanager
def forked(entropy: int | None, name: str) -> Iterator[None]:
    """Inside the block every generator starts from a seed and a name, afterwards it is where it was; without a seed nothing happens.

    Example:
        >>> from keydnn.experiment.random_states import forked
        >>> def drawn(name):
        ...     with forked(7, name):
        ...         return np.random.rand()
        >>> drawn("encoder") == drawn("encoder") != drawn("decoder")
        True
    """
    if entropy is None:
        yield
        return
    with kept():
        seeded(entropy, name)
        yield


class Stream:
    """Numbers of one experiment: every block goes on where the latest one ended.

    Args:
        entropy: The seed.
        name: Of the stream.
    """

    def __init__(self, entropy: int, name: str) -> None:
        self._entropy, self._name = entropy, name
        self._states: RandomStates = {}

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Inside the block every generator belongs to this stream; afterwards it is where it was."""
        before = captured()
        try:
            if before.keys() - self._states.keys():  # at first all, later what was loaded after the latest block
                seeded(self._entropy, self._name, but=self._states)
            restore(self._states)
            try:
                yield
            finally:
                self._states = captured()
        finally:
            restore(before)

    def get_state(self) -> RandomStates:
        """Where the stream is; empty before the first block."""
        return dict(self._states)

    def set_state(self, states: RandomStates) -> None:
        """Take back :meth:`get_state`."""
        self._states = dict(states)
