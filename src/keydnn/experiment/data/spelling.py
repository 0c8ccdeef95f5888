"""Names of columns as callers want them: with or without domain and representation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from keydnn.experiment.names import DOMAIN_SAMPLE_UUIDS

T = TypeVar("T")


def spelled(name: str, prefix: bool, suffix: bool) -> str:
    """A full name with or without its domain and its representation.

    Example:
        >>> from keydnn.experiment.data.spelling import spelled
        >>> spelled("features.a.raw", False, True)
        'a.raw'
    """
    if name == DOMAIN_SAMPLE_UUIDS:
        return name
    domain, key, rep = name.split(".")
    return ".".join([domain] * prefix + [key] + [rep] * suffix)


def unique(names: Iterable[str]) -> list[str]:
    """Without repetitions, in order."""
    return list(dict.fromkeys(names))


def of_domain(available: Sequence[str], domain: str) -> list[str]:
    """All columns of a domain."""
    return [name for name in available if name.startswith(f"{domain}.")]


def facts_of(available: Sequence[str], domain: str, suffix: bool, prefix: bool, fact: Callable[[str], T]) -> dict[str, T]:
    """A fact about each column of a domain; where spelled names coincide, that of the first, which is raw."""
    facts: dict[str, T] = {}
    for name in of_domain(available, domain):
        facts.setdefault(spelled(name, prefix, suffix), fact(name))
    return facts
