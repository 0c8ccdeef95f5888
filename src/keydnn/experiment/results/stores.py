"""MetricStore and ArtifactStore: what phases and callbacks log, by name, epoch and batch."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn.experiment.backends.tensors import detach, is_tensor
from keydnn.experiment.results.scalars import is_on_host, number, on_host
from keydnn.experiment.results.series import ArtifactSeries, MetricSeries

_NO_INDEX = -1  # stands for None in the columns


@dataclass(frozen=True)
class MetricEntry:
    """One number.

    Attributes:
        name: Of the metric.
        value: The number.
        epoch_idx: Epoch; None for a whole phase.
        batch_idx: Batch; None for a whole epoch.
    """

    name: str
    value: float
    epoch_idx: int | None
    batch_idx: int | None = None


class _Column:
    """The entries of one metric."""

    def __init__(self) -> None:
        self.values, self.epochs, self.batches = array("d"), array("q"), array("q")
        self.places: dict[int | None, array[int]] = {}  # epoch to places

    def add(self, value: float, epoch: int | None, batch: int | None) -> int:
        place = len(self.values)
        self.values.append(value)
        self.epochs.append(_NO_INDEX if epoch is None else epoch)
        self.batches.append(_NO_INDEX if batch is None else batch)
        places = self.places.get(epoch)
        if places is None:
            places = self.places[epoch] = array("q")
        places.append(place)
        return place

    def add_steps(self, values: list[float], epoch: int, first_batch: int) -> None:
        start, n = len(self.values), len(values)
        self.values.extend(values)
        self.epochs.extend([epoch] * n)
        self.batches.extend(range(first_batch, first_batch + n))
        self.places.setdefault(epoch, array("q")).extend(range(start, start + n))

    def get_state(self) -> dict[str, Any]:
        return {"values": np.array(self.values), "epochs": np.array(self.epochs), "batches": np.array(self.batches)}

    def extend(self, state: Mapping[str, Any]) -> None:
        start = len(self.values)
        self.values.frombytes(np.asarray(state["values"], np.float64).tobytes())
        self.epochs.frombytes(np.asarray(state["epochs"], np.int64).tobytes())
        self.batches.frombytes(np.asarray(state["batches"], np.int64).tobytes())
        for place in range(start, len(self.values)):
            epoch = self.epochs[place]
            self.places.setdefault(None if epoch == _NO_INDEX else epoch, array("q")).append(place)

    def entry(self, name: str, place: int) -> MetricEntry:
        epoch, batch = self.epochs[place], self.batches[place]
        return MetricEntry(name, self.values[place], None if epoch == _NO_INDEX else epoch, None if batch == _NO_INDEX else batch)


class MetricStore:
    """Numbers by name, epoch and batch; of two under one key the later one counts.

    Example:
        >>> from keydnn.experiment.results import MetricStore
        >>> store = MetricStore()
        >>> store.log(name="val_loss", value=0.5, epoch_idx=0)
        >>> store.entries()
        [MetricEntry(name='val_loss', value=0.5, epoch_idx=0, batch_idx=None)]
    """

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}
        self._waiting: list[tuple[_Column, int, Any]] = []  # scalars that are still on their device

    def log(self, *, name: str, value: Any, epoch_idx: int | None, batch_idx: int | None = None) -> None:
        """Add a number.

        Args:
            name: Of the metric.
            value: A number, or a scalar tensor of any framework, which is read once per epoch at the latest.
            epoch_idx: Epoch; None for a whole phase.
            batch_idx: Batch; None for a whole epoch.

        Raises:
            TypeError: ``name`` is no text, or ``value`` no number.
            ValueError: A tensor of several elements, or an index below 0.
        """
        if type(value) is float:
            self._column(name, epoch_idx, batch_idx).add(value, epoch_idx, batch_idx)
        elif isinstance(value, int | float | np.number | np.bool_):
            self._column(name, epoch_idx, batch_idx).add(float(value), epoch_idx, batch_idx)
        else:
            self._wait(name, value, epoch_idx, batch_idx)

    def _column(self, name: str, epoch: int | None, batch: int | None) -> _Column:
        if (epoch is not None and epoch < 0) or (batch is not None and batch < 0):
            raise ValueError(f"metric {name!r}: indices count from 0, got epoch {epoch}, batch {batch}")
        column = self._columns.get(name)
        if column is None:
            if not isinstance(name, str):
                raise TypeError(f"a metric is named by text, got {type(name).__name__}")
            column = self._columns[name] = _Column()
        return column

    def _wait(self, name: str, value: Any, epoch: int | None, batch: int | None) -> None:
        if not is_tensor(value):
            raise TypeError(f"metric {name!r} must be a number or a scalar tensor, got {type(value).__name__}: {value!r}")
        if any(n != 1 for n in value.shape):
            raise ValueError(f"metric {name!r} must be one number, got a tensor of shape {tuple(value.shape)}")
        column = self._column(name, epoch, batch)
        if is_on_host(value):
            column.add(number(value), epoch, batch)
            return
        self._waiting.append((column, column.add(0.0, epoch, batch), detach(value)))

    def log_steps(self, *, name: str, values: Any, epoch_idx: int, first_batch: int = 0) -> None:
        """Add the numbers of consecutive steps of an epoch.

        Args:
            name: Of the metric.
            values: Numbers, one per step.
            epoch_idx: Epoch.
            first_batch: Index of the first step.

        Raises:
            TypeError: ``name`` is no text.
            ValueError: An index below 0.
        """
        column = self._column(name, epoch_idx, first_batch)
        column.add_steps(np.asarray(values, np.float64).reshape(-1).tolist(), epoch_idx, first_batch)

    def settle(self) -> None:
        """Bring scalars that still wait on their device to the host."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for (column, place, _), value in zip(waiting, on_host([value for _, _, value in waiting]), strict=True):
                column.values[place] = value

    @property
    def names(self) -> list[str]:
        """Names, in the order in which they came."""
        return list(self._columns)

    def of_epoch(self, name: str, epoch_idx: int | None) -> list[MetricEntry]:
        """The entries of one metric in one epoch; none if there is no such metric."""
        self.settle()
        column = self._columns.get(name)
        if column is None:
            return []
        entries = [column.entry(name, place) for place in column.places.get(epoch_idx, ())]
        return list({entry.batch_idx: entry for entry in entries}.values())

    def entries(self) -> list[MetricEntry]:
        """All entries, name by name."""
        return self.series().values()

    def series(self) -> MetricSeries:
        """All entries by name, epoch and batch."""
        self.settle()
        found = (column.entry(name, place) for name, column in self._columns.items() for place in range(len(column.values)))
        return MetricSeries(("name", "epoch", "batch"), {(one.name, one.epoch_idx, one.batch_idx): one for one in found})

    def extend(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Add what another store told of itself with :meth:`get_state`."""
        for told in state:
            self._columns.setdefault(told["name"], _Column()).extend(told)

    def get_state(self) -> list[dict[str, Any]]:
        """Names with their values, epochs and batches, -1 for None, in the order in which they came."""
        self.settle()
        return [{"name": name, **column.get_state()} for name, column in self._columns.items()]

    @classmethod
    def from_state(cls, state: Sequence[Mapping[str, Any]]) -> MetricStore:
        """From :meth:`get_state`."""
        made = cls()
        made.extend(state)
        return made

    def __len__(self) -> int:
        return len(self.series())

    def __iter__(self) -> Iterator[MetricEntry]:
        return iter(self.entries())

    def to_pandas(self) -> Any:
        """A frame with columns name, epoch, batch and value.

        Raises:
            ImportError: pandas is not installed.
        """
        return self.series().to_pandas()

    def __repr__(self) -> str:
        return f"MetricStore({', '.join(f'{name}: {len(column.values)}' for name, column in self._columns.items())})"


class ArtifactEntry:
    """One object.

    Args:
        name: Of the artifact.
        artifact: The object.
        epoch_idx: Epoch; None for a whole phase.
        batch_idx: Batch; None for a whole epoch.
        load: Instead of ``artifact``: gives the object when it is first asked for, for example from a file.
    """

    def __init__(
        self, name: str, artifact: Any, epoch_idx: int | None, batch_idx: int | None = None, *, load: Callable[[], Any] | None = None
    ) -> None:
        self.name, self.epoch_idx, self.batch_idx = name, epoch_idx, batch_idx
        self._artifact, self._load = artifact, load
        self._identity = None if load is not None else id(artifact)
        self._is_away = False  # whether it is loaded each time

    @classmethod
    def put_away(cls, entry: ArtifactEntry, load: Callable[[], Any]) -> ArtifactEntry:
        """An entry whose object lies elsewhere now and is loaded whenever it is asked for."""
        made = cls(entry.name, None, entry.epoch_idx, entry.batch_idx, load=load)
        made._identity, made._is_away = entry._identity, True
        return made

    @property
    def artifact(self) -> Any:
        """The object."""
        if self._is_away and self._load is not None:
            return self._load()
        if self._load is not None:
            self._artifact, self._load = self._load(), None
        return self._artifact

    def is_of(self, artifact: Any) -> bool:
        """Whether it was made with this very object."""
        return self._identity == id(artifact)

    def __repr__(self) -> str:
        told = "not loaded yet" if self._load is not None else type(self._artifact).__name__
        return f"ArtifactEntry(name={self.name!r}, epoch_idx={self.epoch_idx}, batch_idx={self.batch_idx}, artifact={told})"


class ArtifactStore:
    """Objects by name, epoch and batch; of two under one key the later one counts."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, int | None, int | None], ArtifactEntry] = {}

    def log(self, *, name: str, artifact: Any, epoch_idx: int | None, batch_idx: int | None = None) -> None:
        """Add an object.

        Raises:
            TypeError: ``name`` is no text.
        """
        self.add(ArtifactEntry(name, artifact, epoch_idx, batch_idx))

    def add(self, entry: ArtifactEntry) -> None:
        """Add an entry.

        Raises:
            TypeError: It is none, or its name is no text.
        """
        if not isinstance(entry, ArtifactEntry):
            raise TypeError(f"an ArtifactEntry is expected, got {type(entry).__name__}")
        if not isinstance(entry.name, str):
            raise TypeError(f"an artifact is named by text, got {type(entry.name).__name__}")
        self._entries[entry.name, entry.epoch_idx, entry.batch_idx] = entry

    def get(self, name: str, epoch_idx: int | None, batch_idx: int | None = None) -> ArtifactEntry | None:
        """The entry under a key; None if there is none."""
        return self._entries.get((name, epoch_idx, batch_idx))

    @property
    def names(self) -> list[str]:
        """Names, in the order in which they came."""
        return list(dict.fromkeys(name for name, _, _ in self._entries))

    def entries(self) -> list[ArtifactEntry]:
        """All entries."""
        return list(self._entries.values())

    def series(self) -> ArtifactSeries:
        """All entries by name, epoch and batch."""
        return ArtifactSeries(("name", "epoch", "batch"), self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[ArtifactEntry]:
        return iter(self.entries())

    def __repr__(self) -> str:
        return f"ArtifactStore({', '.join(self.names)})"
