"""A bound on what a reader may allocate: a small file must not ask for a large model.

While :func:`element_budget` is open, whoever allocates parameters calls :func:`charge`; without one nothing is counted.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterable, Iterator

from keydnn.domain.errors import CheckpointError


class _Budget(threading.local):
    left: int | None = None


_budget = _Budget()


@contextlib.contextmanager
def element_budget(n: int) -> Iterator[None]:
    """At most ``n`` elements may be charged inside."""
    before = _budget.left
    _budget.left = n
    try:
        yield
    finally:
        _budget.left = before


def charge(shape: Iterable[int]) -> None:
    """Note that an array of ``shape`` is about to be made.

    Raises:
        ValueError: It does not fit into the budget.
    """
    if _budget.left is None:
        return
    sizes = tuple(shape)
    wanted = math.prod(sizes)
    if wanted > _budget.left:
        raise CheckpointError(f"a parameter of shape {sizes} is wanted, which is more than the file has weights for")
    _budget.left -= wanted
