"""Who may set the modes of a model: any number of threads that evaluate it, or one that trains it.

Evaluation mode is a flag on every module, so what one thread sets the others see.  Threads that evaluate share the mode: the first
sets it, the last gives every module its own flag back.  A training step waits for them, and they wait for it.  A thread that is
inside already, such as one whose metric calls ``predict``, never waits.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from weakref import WeakKeyDictionary

from keydnn.nn.module import Module

Flags = list[tuple[Module, bool]]


class _Turns:
    """The threads that use one model now."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.evaluating: set[int] = set()
        self.training: int | None = None
        self.waiting = 0  # threads that want to train
        self.before: Flags = []

    def is_inside(self) -> bool:
        """Whether this thread has its turn already."""
        me = threading.get_ident()
        return me in self.evaluating or me == self.training


_TURNS: WeakKeyDictionary[Module, _Turns] = WeakKeyDictionary()
os.register_at_fork(after_in_child=_TURNS.clear)  # threads do not come along


def _turns(model: Module) -> _Turns:
    found = _TURNS.get(model)
    return _TURNS.setdefault(model, _Turns()) if found is None else found


def restore(flags: Flags) -> None:
    """Give modules their training flags back."""
    for module, training in flags:
        module.training = training


@contextlib.contextmanager
def evaluation_mode(model: Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module has its own flag back."""
    turns, me = _turns(model), threading.get_ident()
    if turns.is_inside():
        before = _flags(model)
        model.eval()
        try:
            yield
        finally:
            restore(before)
        return
    with turns.changed:
        turns.changed.wait_for(lambda: turns.training is None and not turns.waiting)
        if not turns.evaluating:
            turns.before = _flags(model)
            model.eval()
        turns.evaluating.add(me)
    try:
        yield
    finally:
        with turns.changed:
            turns.evaluating.discard(me)
            if not turns.evaluating:
                restore(turns.before)
                turns.before = []
                turns.changed.notify_all()


@contextlib.contextmanager
def training_turn(model: Module) -> Iterator[None]:
    """Nobody else trains or evaluates the model inside."""
    turns = _turns(model)
    if turns.is_inside():
        yield
        return
    with turns.changed:
        turns.waiting += 1
        try:
            turns.changed.wait_for(lambda: turns.training is None and not turns.evaluating)
            turns.training = threading.get_ident()
        finally:
            turns.waiting -= 1
    try:
        yield
    finally:
        with turns.changed:
            turns.training = None
            turns.changed.notify_all()


def _flags(model: Module) -> Flags:
    return [(module, module.training) for module in model.modules()]
