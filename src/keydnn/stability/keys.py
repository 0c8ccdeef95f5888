"""Keys of stochastic rounding: a function of who rounds and when, so results do not depend on the order of evaluation."""

from __future__ import annotations

import hashlib
from typing import Any


def key_of(dtype: Any, *names: Any) -> int:
    """A 63-bit key from any values; 0 for a format that draws no random numbers."""
    if not dtype.is_stochastic:
        return 0
    digest = hashlib.blake2b(repr(names).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
