"""Packed: bytes in a format of their own that a state holds, with whether they may name any class when they are unpacked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Packed:
    """Bytes that whoever made them can unpack.

    Attributes:
        data: The bytes.
        is_trusted: False if they come from a file that may not bring code; what is unpacked must then be looked through.
    """

    data: bytes
    is_trusted: bool = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packed) and other.data == self.data

    def __hash__(self) -> int:
        return hash(self.data)

    def __repr__(self) -> str:
        return f"Packed({len(self.data)} bytes)"
