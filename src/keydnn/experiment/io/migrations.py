"""Migrations: functions that bring the JSON of older files up to what is read today, applied in a chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keydnn.experiment.errors import ArtifactError

SCHEMA_VERSION = "1.0"
Migration = Callable[[dict[str, Any]], dict[str, Any]]


class MigrationRegistry:
    """Steps from one object version to the next, by kind of artifact."""

    def __init__(self) -> None:
        self._steps: dict[tuple[str, str], tuple[str, Migration]] = {}

    def register(self, *, object_type: str, from_version: str, to_version: str, fn: Migration, overwrite: bool = False) -> None:
        """Add a step.

        Args:
            object_type: Kind of artifact, such as ``"fs"``.
            from_version: Version it reads.
            to_version: Version it gives.
            fn: Takes the decoded ``config.json`` and returns the newer one.
            overwrite: Whether a step from the same version may be replaced.

        Raises:
            ValueError: There is such a step already.
        """
        if (object_type, from_version) in self._steps and not overwrite:
            raise ValueError(f"a migration of {object_type!r} from {from_version!r} is registered; pass overwrite=True to replace it")
        self._steps[object_type, from_version] = (to_version, fn)

    def unregister(self, *, object_type: str, from_version: str) -> None:
        """Remove a step.

        Raises:
            KeyError: There is none.
        """
        del self._steps[object_type, from_version]

    def apply(self, object_type: str, version: str, config: dict[str, Any]) -> dict[str, Any]:
        """``config`` after all steps from ``version`` on.

        Raises:
            ArtifactError: The steps run in a circle.
        """
        seen: set[str] = set()
        while (object_type, version) in self._steps:
            if version in seen:
                raise ArtifactError(f"the migrations of {object_type!r} run in a circle at version {version!r}")
            seen.add(version)
            version, step = self._steps[object_type, version]
            config = step(config)
        return config


migration_registry = MigrationRegistry()


def check_schema(version: Any) -> None:
    """Refuse files of a newer major schema.

    Raises:
        ArtifactError: A newer major version, or none.
    """
    try:
        major = int(str(version).split(".")[0])
    except ValueError as error:
        raise ArtifactError(f"schema version {version!r} is no version") from error
    if major > int(SCHEMA_VERSION.split(".")[0]):
        raise ArtifactError(f"the file has schema {version}, this version of KeyDNN reads up to {SCHEMA_VERSION}; use a newer one")
