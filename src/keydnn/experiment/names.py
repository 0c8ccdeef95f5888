"""Words of the data model: domains, representations, roles, and what a label may be.

A column is ``<domain>.<key>.<representation>``; beside them stands the one column ``sample_uuids``.
"""

from __future__ import annotations

import functools
import warnings

DOMAIN_FEATURES = "features"
DOMAIN_TARGETS = "targets"
DOMAIN_TAGS = "tags"
DOMAIN_SAMPLE_UUIDS = "sample_uuids"
DOMAIN_OUTPUTS = "outputs"
ALL_DOMAINS = (DOMAIN_FEATURES, DOMAIN_TARGETS, DOMAIN_TAGS, DOMAIN_SAMPLE_UUIDS, DOMAIN_OUTPUTS)
COLUMN_DOMAINS = (DOMAIN_FEATURES, DOMAIN_TARGETS, DOMAIN_TAGS)  # the domains a user's column may belong to

REP_RAW = "raw"
REP_TRANSFORMED = "transformed"
ALL_REPS = (REP_RAW, REP_TRANSFORMED)

STREAM_DEFAULT = "default"
ROLE_DEFAULT = "default"
ROLE_ANCHOR = "anchor"
ROLE_PAIR = "pair"
ROLE_POSITIVE = "positive"
ROLE_NEGATIVE = "negative"

METADATA_PREFIX = "keydnn"
SCHEMA_VERSION = "1.0.0"
METADATA_SCHEMA_VERSION_KEY = f"{METADATA_PREFIX}.version"
METADATA_UUID_KEY = f"{METADATA_PREFIX}.uuid_key"

INVALID_LABEL_CHARACTERS = (".", " ", "/", "\\", ":")
RESERVED_KEYS = frozenset({DOMAIN_SAMPLE_UUIDS, *COLUMN_DOMAINS, *ALL_REPS, METADATA_PREFIX, "dtype", "shape"})


def forbidden_characters(label: str) -> list[str]:
    """The characters of ``label`` that no key, split name or new label may contain."""
    return [character for character in INVALID_LABEL_CHARACTERS if character in label]


def check_name(name: object, what: str) -> str:
    """Return ``name`` if it can be a column key, a split name or a new label.

    Raises:
        TypeError: Not a string.
        ValueError: Empty, or with one of the forbidden characters.
    """
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a string, got {type(name).__name__}: {name!r}")
    if not name:
        raise ValueError(f"{what} must not be empty")
    if bad := forbidden_characters(name):
        raise ValueError(f"{what} {name!r} contains {', '.join(map(repr, bad))}; none of {INVALID_LABEL_CHARACTERS} is allowed")
    return name


def check_new_label(label: object) -> str:
    """Return the label of a node under construction: a dot is refused, other forbidden characters are warned about.

    Raises:
        TypeError: Not a string.
        ValueError: Empty, or with a dot (references written as text could not be read).
    """
    if not isinstance(label, str):
        raise TypeError(f"a label must be a string, got {type(label).__name__}: {label!r}")
    if not label or "." in label:
        raise ValueError(f"a label must not be empty and must not contain '.', got {label!r}")
    if bad := forbidden_characters(label):
        warnings.warn(f"label {label!r} contains {', '.join(map(repr, bad))}, which a renamed node could not have", stacklevel=3)
    return label


def check_key(key: object) -> str:
    """Return ``key`` if it can name a column.

    Raises:
        TypeError: Not a string.
        ValueError: Empty, reserved, or with a forbidden character.
    """
    return _checked_key(key) if isinstance(key, str) else check_name(key, "column key")


@functools.lru_cache(maxsize=4096)  # the same keys are checked again for each table they stand in
def _checked_key(key: str) -> str:
    name = check_name(key, "column key")
    if name in RESERVED_KEYS:
        raise ValueError(f"column key {name!r} is reserved; reserved are {', '.join(sorted(RESERVED_KEYS))}")
    return name


@functools.lru_cache(maxsize=4096)
def split_column(name: str) -> tuple[str, str, str]:
    """``domain.key.rep`` as three words.

    Raises:
        ValueError: Not of three parts, an unknown domain, or a key that cannot be one.
    """
    parts = name.split(".")
    if len(parts) != 3:
        raise ValueError(f"column name {name!r} is not of the form '<domain>.<key>.<representation>'")
    domain, key, rep = parts
    if domain not in COLUMN_DOMAINS:
        raise ValueError(f"column name {name!r}: unknown domain {domain!r}; expected one of {', '.join(COLUMN_DOMAINS)}")
    return domain, check_key(key), check_name(rep, "representation")


def as_list(names: object) -> list[str]:
    """None, one string or an iterable of strings as a new list."""
    if names is None:
        return []
    return [names] if isinstance(names, str) else list(names)  # type: ignore[call-overload]
