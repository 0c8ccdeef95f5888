"""Sample ids: ``uuid(i)`` is a version-4-shaped value of Philox at counter i under the set's 128-bit key.

Nothing is stored: the ids of any rows are computed when they are asked for, and found again by the same words.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.philox import philox4x32

_32 = np.uint64(32)
_HEX = np.frombuffer("".join(f"{i:02x}" for i in range(256)).encode(), dtype=np.uint8).reshape(256, 2)
_DASHES = (8, 13, 18, 23)
_DIGITS = np.array([i for i in range(36) if i not in _DASHES])


def new_key() -> int:
    """A random 128-bit key."""
    return secrets.randbits(128)


def check_uuid_key(key: int | None) -> int:
    """``key``, or a new one for None.

    Raises:
        ValueError: Outside ``0 .. 2**128 - 1``.
    """
    if key is None:
        return new_key()
    if not 0 <= int(key) < 1 << 128:
        raise ValueError(f"uuid_key must be an integer of 128 bits, got {key}")
    return int(key)


def words_of(rows: NDArray[np.int64], key: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """High and low half of the ids of ``rows``."""
    row = rows.astype(np.uint64)
    k = [np.uint64(key >> 32 * i & 0xFFFFFFFF) for i in range(4)]
    a, b, c, d = philox4x32(row & np.uint64(0xFFFFFFFF), row >> _32, k[2], k[3], (int(k[0]), int(k[1])))
    high = (a << _32 | b) & np.uint64(0xFFFFFFFFFFFF0FFF) | np.uint64(0x4000)
    low = (c << _32 | d) & np.uint64(0x3FFFFFFFFFFFFFFF) | np.uint64(0x8000000000000000)
    return high, low


def uuids_of(rows: NDArray[np.int64], key: int) -> NDArray[np.str_]:
    """The ids of ``rows`` as text of 36 characters, shape (len(rows),)."""
    high, low = words_of(rows, key)
    octets = np.stack([high, low], axis=1).astype(">u8").view(np.uint8).reshape(len(rows), 16)
    text = np.full((len(rows), 36), ord("-"), dtype=np.uint8)
    text[:, _DIGITS] = _HEX[octets].reshape(len(rows), 32)
    return text.view("S36").reshape(len(rows)).astype("U36")


def rows_with(wanted: Sequence[str], n_rows: int, key: int) -> NDArray[np.int64]:
    """For each wanted id the row that has it, -1 where there is none."""
    numbers = [_number(text) for text in wanted]
    distinct = sorted(set(numbers))
    high = np.array([n >> 64 for n in distinct], dtype=np.uint64)
    low = np.array([n & 0xFFFFFFFFFFFFFFFF for n in distinct], dtype=np.uint64)
    found = np.full(len(distinct) + 1, -1, dtype=np.int64)
    for start in range(0, n_rows if distinct else 0, 1 << 18):  # in blocks: ten million ids need not exist at once
        rows = np.arange(start, min(n_rows, start + (1 << 18)))
        mine_high, mine_low = words_of(rows, key)
        at = np.minimum(np.searchsorted(high, mine_high), len(distinct) - 1)
        same = (high[at] == mine_high) & (low[at] == mine_low)
        found[at[same]] = rows[same]
    place = {number: i for i, number in enumerate(distinct)}
    return found[[place[number] for number in numbers]] if numbers else np.empty(0, dtype=np.int64)


def _number(text: str) -> int:
    digits = str(text).replace("-", "")
    try:
        return int(digits, 16) if len(digits) == 32 else 0  # 0 is no id of ours: the version bits are never all zero
    except ValueError:
        return 0
