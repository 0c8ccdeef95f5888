"""What callbacks and metrics leave behind, on disk: written when an epoch is over (artifacts at once), read on access."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from keydnn.experiment.results.blocks import Blocks
from keydnn.experiment.results.callback_state import KeptResult, callback_from_state, fields_state, opened_artifact, told_artifact
from keydnn.experiment.results.series import MetricSeries
from keydnn.experiment.results.shelf import Recent
from keydnn.experiment.results.sources import active_context
from keydnn.experiment.results.stores import ArtifactEntry, ArtifactStore, MetricEntry, MetricStore
from keydnn.experiment.series import Later

CallbackKey = tuple[Any, Any, Any, Any, Any]  # kind, label, epoch, batch, edge


def key_of(one: Any) -> CallbackKey:
    """Kind, label, epoch, batch and edge of a result of a hook."""
    return one.kind, one.callback_label, one.epoch_idx, one.batch_idx, one.edge


class StoredCallbacks(Sequence[Any]):
    """Results of hooks, those of earlier epochs in files; like a list that only grows.

    Args:
        folder: Of the files.
        artifacts: The artifacts of the phase, which are not written twice.
    """

    def __init__(self, folder: Path, artifacts: ArtifactStore) -> None:
        self._blocks, self._artifacts, self._ctx = Blocks(folder), artifacts, active_context()
        self._recent = Recent(self._blocks.read)
        self._away: list[tuple[CallbackKey, type | None, Path, int]] = []
        self._here: list[Any] = []

    def append(self, one: Any) -> None:
        """Add a result."""
        self._here.append(one)

    def put_away(self) -> None:
        """Write what is in memory.

        Warns:
            UserWarning: Something cannot be written and is left out.
        """
        if not self._here:
            return
        path = self._blocks.write("callbacks", [fields_state(one, self._artifacts) for one in self._here])
        for place, one in enumerate(self._here):
            self._away.append((key_of(one), None if isinstance(one, KeptResult) else type(one), path, place))
        self._here = []

    def entries(self) -> Iterator[tuple[CallbackKey, Any]]:
        """Key and result, or a Later that reads it."""
        for key, cls, path, place in self._away:
            yield key, Later(self._read, cls, path, place)
        for one in self._here:
            yield key_of(one), one

    def _read(self, cls: type | None, path: Path, place: int) -> Any:
        with self._ctx.activate():  # evaluations find their feature sets in it
            return callback_from_state(self._recent.get(path)[place], cls, self._artifacts)

    def __len__(self) -> int:
        return len(self._away) + len(self._here)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        i = range(len(self))[place]
        return self._here[i - len(self._away)] if i >= len(self._away) else self._read(*self._away[i][1:])


def callback_entries(found: Any) -> Iterator[tuple[CallbackKey, Any]]:
    """Key and result of each, without reading any from disk: a Later stands for those."""
    if isinstance(found, StoredCallbacks):
        yield from found.entries()
    else:
        yield from ((key_of(one), one) for one in found)


class StoredArtifacts(ArtifactStore):
    """Artifacts in files, each written when it comes and read whenever it is asked for.

    Args:
        folder: Of the files.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._blocks = Blocks(folder)

    def add(self, entry: ArtifactEntry) -> None:
        """Write an entry; what cannot even be pickled stays in memory.

        Raises:
            TypeError: It is none, or its name is no text.

        Warns:
            UserWarning: It stays in memory.
        """
        super().add(entry)
        try:
            told = told_artifact(entry.artifact)
        except TypeError as error:
            warnings.warn(f"artifact {entry.name!r} stays in memory: {error}", UserWarning, stacklevel=3)
            return
        path = self._blocks.write("artifact", {"name": entry.name, "epoch": entry.epoch_idx, "batch": entry.batch_idx, **told})
        super().add(ArtifactEntry.put_away(entry, lambda: opened_artifact(self._blocks.read(path))))


class StoredMetrics(MetricStore):
    """Metrics whose earlier epochs lie in files.

    Args:
        folder: Of the files.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._blocks = Blocks(folder)
        self._paths: list[Path] = []
        self._names: dict[str, None] = {}  # in the order in which they came
        self._written: set[int | None] = set()

    def put_away(self) -> None:
        """Write what is in memory."""
        state = super().get_state()
        if not state:
            return
        self._paths.append(self._blocks.write("metrics", state))
        self._names |= dict.fromkeys(told["name"] for told in state)
        self._written.update(epoch for column in self._columns.values() for epoch in column.places)
        self._columns = {}

    def _all(self) -> MetricStore:
        """Everything, in memory."""
        made = MetricStore()
        for path in self._paths:
            made.extend(self._blocks.read(path))
        made.extend(super().get_state())
        return made

    @property
    def names(self) -> list[str]:
        """Names, in the order in which they came."""
        return list(self._names | dict.fromkeys(super().names))

    def of_epoch(self, name: str, epoch_idx: int | None) -> list[MetricEntry]:
        """Entries of an epoch by batch; none if there is no such metric."""
        return self._all().of_epoch(name, epoch_idx) if epoch_idx in self._written else super().of_epoch(name, epoch_idx)

    def series(self) -> MetricSeries:
        """All entries by name, epoch and batch."""
        return self._all().series()

    def get_state(self) -> list[dict[str, Any]]:
        """Names with their values, epochs and batches, -1 for None, in the order in which they came."""
        return self._all().get_state()

    def __repr__(self) -> str:
        return f"StoredMetrics({', '.join(self.names)})"
