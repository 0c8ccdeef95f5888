"""Segments: consecutive recorded steps of an epoch, packed: one tensor per output, one array per loss and a frame per batch.

step i:  features = packed[offsets[i]:offsets[i + 1]],  the rest = frames[i]  (shared by all epochs)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.results.columns import Loose, LossColumn, LossKey, Packed, features_from_state, packed
from keydnn.experiment.results.frames import Frame
from keydnn.experiment.results.values import say_tensor
from keydnn.experiment.training import LossRecord

OutputKey = tuple[str, str]  # node id, role
_Entries = tuple[list[int], list[Any]]  # places of steps, and what is there


class Segment(Protocol):
    """Consecutive recorded steps of one epoch."""

    phase_label: str
    epoch_idx: int

    def __len__(self) -> int: ...
    def batch_idx(self, i: int) -> int: ...
    def batches(self) -> Sequence[int]: ...
    def frame(self, i: int) -> Frame: ...
    def features(self, key: OutputKey, i: int) -> Any: ...
    def records(self, i: int) -> list[LossRecord]: ...
    def get_state(self) -> dict[str, Any]: ...


@dataclass(slots=True)
class Step:
    """A step as it was recorded, before its epoch is packed."""

    batch_idx: int
    frame: Frame
    features: dict[OutputKey, Any]
    losses: list[LossRecord]


class RecordedSteps:
    """Steps of one epoch, recorded one after the other and packed when the epoch is over."""

    def __init__(self, phase_label: str, epoch_idx: int) -> None:
        self.phase_label, self.epoch_idx = phase_label, epoch_idx
        self._open: list[Step] | None = []
        self._frames: list[Frame] = []
        self._batches: NDArray[np.int32] = np.empty(0, np.int32)
        self._features: dict[OutputKey, Packed | Loose] = {}
        self._losses: dict[LossKey, LossColumn] = {}

    @property
    def is_open(self) -> bool:
        """Whether steps can be added."""
        return self._open is not None

    def add(self, step: Step) -> None:
        """One more step."""
        assert self._open is not None
        self._open.append(step)

    def __len__(self) -> int:
        return len(self._frames) if self._open is None else len(self._open)

    def batch_idx(self, i: int) -> int:
        """Index of the batch of a step."""
        return int(self._batches[i]) if self._open is None else self._open[i].batch_idx

    def batches(self) -> Sequence[int]:
        """Indices of the batches of all steps."""
        return self._batches.tolist() if self._open is None else [step.batch_idx for step in self._open]

    def frame(self, i: int) -> Frame:
        """The frame of a step."""
        return self._frames[i] if self._open is None else self._open[i].frame

    def features(self, key: OutputKey, i: int) -> Any:
        """What a node produced for a role in a step; None if there is nothing."""
        if self._open is not None:
            return self._open[i].features.get(key)
        return self._features[key].at(i) if key in self._features else None

    def records(self, i: int) -> list[LossRecord]:
        """Losses of a step."""
        if self._open is not None:
            return list(self._open[i].losses)
        found = [column.record(key, i) for key, column in self._losses.items()]
        return [record for record in found if record is not None]

    def get_state(self) -> dict[str, Any]:
        """Everything but the frames."""
        closed = self
        if self._open is not None:
            closed = RecordedSteps(self.phase_label, self.epoch_idx)
            closed._open = list(self._open)
            closed.pack(None)
        return {
            "type": "recorded",
            "phase_label": self.phase_label,
            "epoch_idx": self.epoch_idx,
            "is_open": self._open is not None,
            "batches": closed._batches,
            "features": [[*key, column.get_state()] for key, column in closed._features.items()],
            "losses": [[*key, column.get_state()] for key, column in closed._losses.items()],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], frames: list[Frame]) -> RecordedSteps:
        """From :meth:`get_state`, with a frame per step."""
        made = cls(state["phase_label"], int(state["epoch_idx"]))
        made._open, made._frames, made._batches = None, frames, state["batches"]
        made._features = {(node_id, role): features_from_state(told) for node_id, role, told in state["features"]}
        made._losses = {(node_id, label): LossColumn.from_state(told) for node_id, label, told in state["losses"]}
        if state["is_open"]:
            made._open = [made._step(i) for i in range(len(frames))]
            made._frames, made._features, made._losses = [], {}, {}
        return made

    def _step(self, i: int) -> Step:
        features = {key: value for key in self._features if (value := self.features(key, i)) is not None}
        return Step(self.batch_idx(i), self._frames[i], features, self.records(i))

    def pack(self, frames_before: Sequence[Frame] | None) -> Sequence[Frame]:
        """Join what the steps left; no step can be added afterwards.

        Args:
            frames_before: Frames of the epoch before, held instead of an equal list.

        Returns:
            The frames.
        """
        if self._open is None:
            return self._frames
        steps, n = self._open, len(self._open)
        features: defaultdict[OutputKey, _Entries] = defaultdict(_entries)
        values: defaultdict[tuple[LossKey, str], _Entries] = defaultdict(_entries)
        for i, step in enumerate(steps):
            for key, tensor in step.features.items():
                at, found = features[key]
                at.append(i)
                found.append(tensor)
            for record in step.losses:
                for kind, value in (("trainable", record.trainable), ("auxiliary", record.auxiliary)):
                    if value is not None:
                        at, found = values[(record.node_id, record.label), kind]
                        at.append(i)
                        found.append(value)
        self._features = {key: packed(at, tensors, n) for key, (at, tensors) in features.items()}
        for (loss, kind), (at, numbers) in values.items():
            self._losses.setdefault(loss, LossColumn(n)).put(kind, at, numbers)
        for column in self._losses.values():
            column.compact()
        self._batches = np.array([step.batch_idx for step in steps], np.int32)
        frames = [step.frame for step in steps]
        same = frames_before is not None and len(frames_before) == n and all(a is b for a, b in zip(frames, frames_before, strict=True))
        self._frames = frames_before if same else frames  # type: ignore[assignment]
        self._open = None
        return self._frames


def _entries() -> _Entries:
    return [], []


@dataclass
class EpochSteps:
    """Steps of one epoch that ran in one call.

    Attributes:
        phase_label: Phase.
        epoch_idx: Epoch.
        frames: One per step; the same list in every epoch.
        losses: (n_steps, n_losses).
        loss_keys: Node id and label of each loss.
        outputs: (node id, role) to features (n_steps, B, ...); empty if they are not recorded.  They belong to the results from now on.
        kind: "trainable" or "auxiliary", what the losses are.
        first_batch: Index of the first step.

    Raises:
        ValueError: Sizes that do not fit.
    """

    phase_label: str
    epoch_idx: int
    frames: Sequence[Frame]
    losses: NDArray[Any]
    loss_keys: Sequence[LossKey]
    outputs: Mapping[OutputKey, Any] = field(default_factory=dict)
    kind: str = "trainable"
    first_batch: int = 0

    def __post_init__(self) -> None:
        shape = (len(self.frames), len(self.loss_keys))
        if tuple(self.losses.shape) != shape:
            raise ValueError(f"losses must have the shape (steps, losses) = {shape}, got {tuple(self.losses.shape)}")
        for (node_id, role), tensor in self.outputs.items():
            if int(tensor.shape[0]) != shape[0]:
                raise ValueError(f"outputs of node {node_id!r}, role {role!r}, have {int(tensor.shape[0])} steps, expected {shape[0]}")
        if self.kind not in ("trainable", "auxiliary"):
            raise ValueError(f"kind must be 'trainable' or 'auxiliary', got {self.kind!r}")

    def __len__(self) -> int:
        return len(self.frames)

    def batch_idx(self, i: int) -> int:
        """Index of the batch of a step."""
        return self.first_batch + i

    def batches(self) -> range:
        """Indices of the batches of all steps."""
        return range(self.first_batch, self.first_batch + len(self.frames))

    def frame(self, i: int) -> Frame:
        """The frame of a step."""
        return self.frames[i]

    def features(self, key: OutputKey, i: int) -> Any:
        """What a node produced for a role in a step; None if there is nothing."""
        return self.outputs[key][i] if key in self.outputs else None

    def records(self, i: int) -> list[LossRecord]:
        """Losses of a step."""
        return [LossRecord(label, node_id, **{self.kind: float(self.losses[i, j])}) for j, (node_id, label) in enumerate(self.loss_keys)]

    def get_state(self) -> dict[str, Any]:
        """Everything but the frames."""
        return {
            "type": "epoch",
            "phase_label": self.phase_label,
            "epoch_idx": self.epoch_idx,
            "losses": self.losses,
            "loss_keys": [list(key) for key in self.loss_keys],
            "outputs": [[*key, say_tensor(tensor)] for key, tensor in self.outputs.items()],
            "kind": self.kind,
            "first_batch": self.first_batch,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], frames: list[Frame]) -> EpochSteps:
        """From :meth:`get_state`, with a frame per step."""
        return cls(
            state["phase_label"],
            int(state["epoch_idx"]),
            frames,
            state["losses"],
            [(node_id, label) for node_id, label in state["loss_keys"]],
            {(node_id, role): told.open() for node_id, role, told in state["outputs"]},
            state["kind"],
            int(state["first_batch"]),
        )


_TYPES: dict[str, Any] = {"recorded": RecordedSteps, "epoch": EpochSteps}


def segment_from_state(state: Mapping[str, Any], frames: list[Frame]) -> RecordedSteps | EpochSteps:
    """A segment from what it told of itself, with a frame per step.

    Raises:
        ValueError: An unknown type.
    """
    if state["type"] not in _TYPES:
        raise ValueError(f"steps of type {state['type']!r} are not known; is the file from a newer version?")
    made: RecordedSteps | EpochSteps = _TYPES[state["type"]].from_state(state, frames)
    return made
