"""Random states of Python, NumPy and whichever of torch and TensorFlow is loaded, kept, put back and derived from a seed.

Words for a generator: ``SeedSequence(entropy, spawn_key=bytes of a name).generate_state(8)``, so a name's numbers depend on no other name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.optional import is_installed
from keydnn.kernels import keys
from keydnn.kernels.keys import KeyStream

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
    """Numbers of one experiment: every block goes on where the latest one ended, and every node draws from a stream of its own.

    The stream of a node starts from ``spawn_key = (bytes of the name..., 256, bytes of the label...)``, so what a node draws depends on no
    other node.

    Args:
        entropy: The seed.
        name: Of the stream; another one has other numbers, also in nodes.
    """

    def __init__(self, entropy: int, name: str) -> None:
        self._entropy, self._name = entropy, name
        self._states: RandomStates = {}
        self._keys: dict[str, KeyStream] = {}
        self._own: dict[tuple[Backend, str], Any] = {}
        self._is_active = False

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Inside the block every generator belongs to this stream; afterwards it is where it was."""
        before, token = captured(), _ACTIVE.set(self)
        try:
            if before.keys() - self._states.keys():  # at first all, later what was loaded after the latest block
                seeded(self._entropy, self._name, but=self._states)
            restore(self._states)
            for own in self._own.values():
                own.forget()
            self._is_active = True
            try:
                with keys.kept_by(self):
                    yield
            finally:
                self._states, self._is_active = captured(), False
        finally:
            _ACTIVE.reset(token)
            restore(before)

    # -- nodes

    def key_stream(self, name: str) -> KeyStream:
        """Keys of the engine's random operations in a node."""
        found = self._keys.get(name)
        if found is None:
            found = self._keys[name] = KeyStream(self._words(name))
        return found

    def own(self, backend: Backend, label: str) -> Any:
        """What stands in for the generators of a framework while a node runs."""
        found = self._own.get((backend, label))
        if found is None:
            found = self._own[backend, label] = adapter(backend).OwnNumbers(self._words(label))
        return found

    def _words(self, label: str) -> Any:
        return np.random.SeedSequence(self._entropy, spawn_key=(*self._name.encode(), 256, *label.encode())).generate_state(8)

    # -- state

    def get_state(self) -> RandomStates:
        """Where the stream is: per framework, and under ``Backend.NONE`` by label of nodes and by framework, as numbers and arrays."""
        found = captured() if self._is_active else dict(self._states)
        nodes: dict[str, dict[str, Any]] = {label: {Backend.KEYDNN.value: stream.count} for label, stream in self._keys.items()}
        for (backend, label), own in self._own.items():
            nodes.setdefault(label, {})[backend.value] = own.get_state()
        return {**found, Backend.NONE: nodes} if nodes else found

    def set_state(self, states: RandomStates) -> None:
        """Take back :meth:`get_state`, also inside of a block; nodes of frameworks that are not installed are left out."""
        self._states = {backend: state for backend, state in states.items() if backend is not Backend.NONE}
        if self._is_active:
            restore(self._states)
        self._keys, self._own = {}, {}
        for label, told in states.get(Backend.NONE, {}).items():
            for name, state in told.items():
                backend = Backend(name)
                if backend is Backend.KEYDNN:
                    self.key_stream(label).go_to(state)
                elif is_installed(_PACKAGES[backend]):
                    self.own(backend, label).set_state(state)


_ACTIVE: ContextVar[Stream | None] = ContextVar("keydnn_experiment_stream", default=None)
_PACKAGES = {Backend.TORCH: "torch", Backend.TENSORFLOW: "tensorflow"}


def of_node(label: str, backend: Backend, model: Any) -> contextlib.AbstractContextManager[None] | None:
    """A block in which a node draws from its own stream; None where it draws nothing, or, outside of runs of experiments, like everybody.

    Args:
        label: Of the node.
        backend: Whose model it has.
        model: The framework's model; None for models without.
    """
    if backend is Backend.KEYDNN:
        return keys.named(label)
    stream = _ACTIVE.get()
    return None if stream is None or model is None else stream.own(backend, label).inside(model)
