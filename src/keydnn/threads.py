"""How many threads the kernels use.

Results do not depend on the number: work is cut into the same pieces for every number of threads, and partial results
are combined in the same order.  The default is the processors this process may run on; the environment variable
``KEYDNN_NUM_THREADS`` overrides it.

>>> before = get_threads()
>>> set_threads(1)
>>> get_threads()
1
>>> set_threads(before)
"""

from __future__ import annotations

import operator
from types import ModuleType

from keydnn.kernels import native

_chosen: list[int] = []  # what set_threads stored; empty until then


def _module() -> ModuleType | None:
    try:
        return native.load()
    except native.NativeUnavailable:
        return None


def set_threads(n: int) -> None:
    """Use n threads in kernels from now on, the calling thread included.

    Without the native module the number is only remembered (the NumPy kernels use one thread).

    Args:
        n: At least 1.

    Raises:
        TypeError: n is no integer.
        ValueError: n is below 1.
    """
    if isinstance(n, bool):
        raise TypeError("set_threads: n must be an integer, got bool")
    try:
        count = operator.index(n)
    except TypeError:
        raise TypeError(f"set_threads: n must be an integer, got {type(n).__name__}") from None
    if not 1 <= count <= 4096:
        raise ValueError(f"set_threads: n must be between 1 and 4096, got {count}")
    module = _module()
    if module is not None:
        module.set_threads(count)
    _chosen[:] = [count]


def get_threads() -> int:
    """The number of threads that kernels use.

    Raises:
        ValueError: ``KEYDNN_NUM_THREADS`` is set and no positive integer.
    """
    module = _module()
    if module is not None:
        return int(module.get_threads())
    return _chosen[0] if _chosen else native.requested_threads()
