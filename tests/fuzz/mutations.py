"""How a good file becomes a bad one.  Each mutation maps bytes to bytes and draws from a generator; a case is a few of them."""

import random
import re

HUGE = [b"\xff" * 8, b"\x00" * 8, (2**63 - 1).to_bytes(8, "little"), (2**62).to_bytes(8, "big"), b"\xff\xff\xff\x7f"]
NUMBERS = [b"-1", b"0", b"1e999", b"NaN", b"99999999999999999999", b"1.5", b"2147483648", b'"x"', b"null", b"true", b"[]", b"{}"]
HOSTILE = [b"../../outside", b"/tmp/outside", b"C:\\outside", b"a" * 5000, b"\x00", "\u202e".encode(), b"{0.__class__}", b"[" * 3000]


def place(data, rng):
    return rng.randrange(len(data) + 1)


def truncate(data, rng):
    return data[: place(data, rng)]


def flip(data, rng):
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data, rng):
    i = place(data, rng)
    return data[:i] + data[i + rng.choice([1, 4, 16, 100]) :]


def repeat(data, rng):
    i = place(data, rng)
    n = rng.choice([1, 8, 64, 1000])
    return data[:i] + data[i : i + n] * rng.choice([2, 3, 20]) + data[i:]


def overwrite(data, rng):
    i, value = place(data, rng), rng.choice(HUGE)
    return data[:i] + value + data[i + len(value) :]


def overwrite_head(data, rng):
    i, value = rng.randrange(33), rng.choice(HUGE)
    return data[:i] + value + data[i + len(value) :]


def insert(data, rng):
    i = place(data, rng)
    return data[:i] + rng.choice([rng.randbytes(rng.choice([1, 7, 300])), *HOSTILE]) + data[i:]


def renumber(data, rng):
    """Another value where text says a number."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data[:100_000]))
    if not found:
        return flip(data, rng)
    match = rng.choice(found)
    return data[: match.start()] + rng.choice(NUMBERS) + data[match.end() :]


def reword(data, rng):
    """Another text where a quoted one stands."""
    found = list(re.finditer(rb'"[^"]{0,60}"', data[:100_000]))
    if not found:
        return cut(data, rng)
    match, other = rng.choice(found), rng.choice(found).group()
    return data[: match.start()] + rng.choice([other, b'"' + rng.choice(HOSTILE) + b'"', *NUMBERS]) + data[match.end() :]


MUTATIONS = [truncate, flip, cut, repeat, overwrite, overwrite_head, insert, renumber, reword]


def case(samples, number):
    """The bytes of a numbered case: the same number gives the same bytes."""
    rng = random.Random(number)
    data = rng.choice(samples)
    if rng.random() < 0.1:
        other = rng.choice(samples)
        data = data[: place(data, rng)] + other[place(other, rng) :]
    for _ in range(rng.choice([1, 1, 2, 3])):
        data = rng.choice(MUTATIONS)(data, rng)
    return data
