"""Selectors: which of the columns a caller means.

``columns`` takes full names.  ``features``, ``targets`` and ``tags`` take ``"key"`` or ``"key.rep"``, with or without the domain in front,
one or several, with the wildcards ``*`` and ``?``; ``rep`` completes those that name no representation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from keydnn.experiment.names import COLUMN_DOMAINS, as_list

Names = str | Sequence[str] | None
Resolver = Callable[[str], str]


def select(
    available: Sequence[str],
    *,
    columns: Names = None,
    features: Names = None,
    targets: Names = None,
    tags: Names = None,
    rep: str | None = None,
    otherwise: Resolver | None = None,
) -> list[str]:
    """Full names of the selected columns, in the order of ``available``.

    Args:
        available: Full names there are.
        columns: Full names.
        features: Selectors of features.
        targets: Selectors of targets.
        tags: Selectors of tags.
        rep: Representation for selectors that name none.
        otherwise: Called with a selector without match; it returns a full name or raises KeyError.

    Raises:
        KeyError: No column fits.
        ValueError: A selector with another domain in front.

    Example:
        >>> from keydnn.experiment.data.selectors import select
        >>> select(["features.a.raw", "features.b.raw", "targets.y.raw"], features="*", rep="raw")
        ['features.a.raw', 'features.b.raw']
    """
    wanted = (_frozen(columns), _frozen(features), _frozen(targets), _frozen(tags))
    if otherwise is None:
        return list(_select(tuple(available), *wanted, rep))
    found = _exact(available, wanted[0])
    for domain, selectors in zip(COLUMN_DOMAINS, wanted[1:], strict=True):
        for selector in selectors:
            fits = matching(available, domain, selector, rep)
            found.update(fits or [otherwise(selector)])
    return [name for name in available if name in found]


def _frozen(names: Names) -> tuple[str, ...]:
    return tuple(as_list(names))


@functools.lru_cache(maxsize=256)
def _select(
    available: tuple[str, ...],
    columns: tuple[str, ...],
    features: tuple[str, ...],
    targets: tuple[str, ...],
    tags: tuple[str, ...],
    rep: str | None,
) -> tuple[str, ...]:
    found = _exact(available, columns)
    for domain, selectors in zip(COLUMN_DOMAINS, (features, targets, tags), strict=True):
        for selector in selectors:
            fits = matching(available, domain, selector, rep)
            if not fits:
                raise KeyError(_no_match(available, domain, selector, rep))
            found.update(fits)
    return tuple(name for name in available if name in found)


def _exact(available: Sequence[str], columns: Iterable[str]) -> set[str]:
    missing = [name for name in columns if name not in available]
    if missing:
        raise KeyError(f"no column {', '.join(map(repr, missing))}; there are {', '.join(available)}")
    return set(columns)


def _no_match(available: Sequence[str], domain: str, selector: str, rep: str | None) -> str:
    there = ", ".join(name for name in available if name.startswith(f"{domain}.")) or "none"
    return f"no column of {domain} fits {selector!r}{'' if rep is None else f' with representation {rep!r}'}; there are {there}"


def matching(available: Sequence[str], domain: str, selector: str, rep: str | None) -> list[str]:
    """The columns of a domain that one selector means.

    Raises:
        ValueError: The selector has another domain in front, or more than three parts.
    """
    parts = selector.split(".")
    if parts[0] in COLUMN_DOMAINS and len(parts) > 1:
        if parts[0] != domain:
            raise ValueError(f"selector {selector!r} stands among {domain} but names {parts[0]}; pass it as {parts[0]}=...")
        parts = parts[1:]
    if len(parts) > 2:
        return []
    key, wanted = parts[0], parts[1] if len(parts) == 2 else rep or "*"
    fits = []
    for name in available:
        if name.startswith(f"{domain}."):
            _, its_key, its_rep = name.split(".")
            if fnmatchcase(its_key, key) and fnmatchcase(its_rep, wanted):
                fits.append(name)
    return fits


def reps_of_keys(names: Iterable[str]) -> dict[tuple[str, str], list[str]]:
    """(domain, key) to the representations among the names."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in names:
        if "." in name:
            domain, key, rep = name.split(".")
            found.setdefault((domain, key), []).append(rep)
    return found


def doubled_keys(names: Iterable[str]) -> list[str]:
    """Keys of which more than one representation is among the names."""
    return [f"{domain}.{key}" for (domain, key), reps in reps_of_keys(names).items() if len(reps) > 1]
