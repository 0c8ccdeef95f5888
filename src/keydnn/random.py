"""Random numbers: one seed for everything, and the state of the generators.

All randomness comes from two generators: NumPy's global one gives each random operation its key (initial weights,
:meth:`Tensor.rand`, dropout), Python's :mod:`random` gives the key of each epoch's shuffling.  So ``seed(n)`` (or
``np.random.seed`` and ``random.seed``) repeats a run, and the states of the two are all that a checkpoint needs.

>>> seed(7)
>>> first = keydnn.rand((3,)).tolist()
>>> seed(7)
>>> keydnn.rand((3,)).tolist() == first
True
"""

from __future__ import annotations

import operator
import os
import random
from typing import Any, NamedTuple, SupportsIndex

import numpy as np

from keydnn.threads import set_threads

_LIBRARIES = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")  # each reads <name>_NUM_THREADS


class Determinism(NamedTuple):
    """What :func:`set_deterministic` was told."""

    enabled: bool
    cpu_threads: int


_last_seed: list[int] = []
_determinism = [Determinism(False, 1)]


def seed(n: int) -> None:
    """Seed Python's and NumPy's global generators.

    Args:
        n: From 0 to 2**32 - 1.

    Raises:
        TypeError: n is no integer.
        ValueError: n is out of range.
    """
    number = _integer("seed", "n", n)
    if not 0 <= number < 2**32:
        raise ValueError(f"seed: n must be between 0 and 2**32 - 1, got {number}")
    random.seed(number)
    np.random.seed(number)
    _last_seed[:] = [number]


def get_seed() -> int | None:
    """What :func:`seed` was last called with, or None."""
    return _last_seed[0] if _last_seed else None


def set_deterministic(enabled: bool, *, cpu_threads: int = 1) -> Determinism:
    """Ask for repeatable runs, also from the libraries beside this one.

    Our own kernels give the same bits for every number of threads.  Enabling sets the number of their threads and, for
    libraries loaded later and for child processes, ``OMP_NUM_THREADS``, ``MKL_NUM_THREADS``, ``OPENBLAS_NUM_THREADS``
    and ``NUMEXPR_NUM_THREADS``.  Disabling leaves threads and environment as they are.

    Args:
        enabled: Whether to ask.
        cpu_threads: How many threads, at least 1.

    Returns:
        The pair ``(enabled, cpu_threads)``.

    Raises:
        TypeError: ``enabled`` is no bool, or ``cpu_threads`` no integer.
        ValueError: ``cpu_threads`` is below 1.
    """
    if not isinstance(enabled, bool):
        raise TypeError(f"set_deterministic: enabled must be a bool, got {type(enabled).__name__}")
    threads = _integer("set_deterministic", "cpu_threads", cpu_threads)
    if threads < 1:
        raise ValueError(f"set_deterministic: cpu_threads must be at least 1, got {threads}")
    if enabled:
        set_threads(threads)
        os.environ.update({f"{library}_NUM_THREADS": str(threads) for library in _LIBRARIES})
    _determinism[0] = Determinism(enabled, threads)
    return _determinism[0]


def get_deterministic() -> Determinism:
    """What :func:`set_deterministic` was last told; ``(False, 1)`` at first."""
    return _determinism[0]


def _integer(owner: str, name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise TypeError(f"{owner}: {name} must be an integer, got {type(value).__name__}")
    return operator.index(value)


def generator_state() -> dict[str, Any]:
    """The states of both generators, as values that JSON can hold.

    Example:
        >>> before = generator_state()
        >>> first = np.random.rand()
        >>> set_generator_state(before)
        >>> np.random.rand() == first
        True
    """
    version, words, gauss = random.getstate()
    numpy = np.random.get_state(legacy=False)
    return {
        "python": {"version": version, "words": list(words), "gauss": gauss},
        "numpy": {
            "kind": numpy["bit_generator"],
            "keys": numpy["state"]["key"].tolist(),
            "position": int(numpy["state"]["pos"]),
            "has_gauss": int(numpy["has_gauss"]),
            "cached": float(numpy["gauss"]),
        },
    }


def set_generator_state(state: dict[str, Any]) -> None:
    """Continue from a state that :func:`generator_state` returned.

    Raises:
        ValueError: It is no such state; the generators are as they were.
    """
    before = generator_state()
    try:
        _restore(state)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        _restore(before)
        raise ValueError(f"not a state of the random generators: {error}") from error


def _restore(state: dict[str, Any]) -> None:
    python, numpy = state["python"], state["numpy"]
    keys = np.array(numpy["keys"], dtype=np.uint32)
    if keys.shape != (624,) or not 0 <= numpy["position"] <= 624:  # NumPy would read beyond its array
        raise ValueError(f"{keys.shape} keys at position {numpy['position']}, expected 624")
    random.setstate((python["version"], tuple(python["words"]), python["gauss"]))
    np.random.set_state((numpy["kind"], keys, numpy["position"], numpy["has_gauss"], numpy["cached"]))
