"""Recorded steps, packed: an epoch is one tensor per output, one array per loss and a frame per batch; contexts are built on access.

step i of an epoch:  features = packed[offsets[i]:offsets[i + 1]],  the rest = frames[i]  (shared by all epochs)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.backends.tensors import detach
from keydnn.experiment.data import Batch, ExecutionContext
from keydnn.experiment.names import DOMAIN_OUTPUTS
from keydnn.experiment.phases.recording import ResultRecording, checked_keep
from keydnn.experiment.results.columns import Loose, LossColumn, LossKey, Packed, packed
from keydnn.experiment.results.frames import Frame
from keydnn.experiment.training import LossCollection, LossRecord

OutputKey = tuple[str, str]  # node id, role


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


# -- segments -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Step:
    batch_idx: int
    frame: Frame
    features: dict[OutputKey, Any]
    losses: list[LossRecord]


class RecordedSteps:
    """Steps of one epoch, recorded one after the other and packed when the epoch is over."""

    def __init__(self, phase_label: str, epoch_idx: int) -> None:
        self.phase_label, self.epoch_idx = phase_label, epoch_idx
        self._open: list[_Step] | None = []
        self._frames: list[Frame] = []
        self._batches: NDArray[np.int32] = np.empty(0, np.int32)
        self._features: dict[OutputKey, Packed | Loose] = {}
        self._losses: dict[LossKey, LossColumn] = {}

    @property
    def is_open(self) -> bool:
        """Whether steps can be added."""
        return self._open is not None

    def add(self, step: _Step) -> None:
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
        features: dict[OutputKey, tuple[list[int], list[Any]]] = {}
        values: dict[tuple[LossKey, str], tuple[list[int], list[Any]]] = {}
        for i, step in enumerate(steps):
            for key, tensor in step.features.items():
                _put(features, key, i, tensor)
            for record in step.losses:
                for kind in ("trainable", "auxiliary"):
                    if getattr(record, kind) is not None:
                        _put(values, ((record.node_id, record.label), kind), i, getattr(record, kind))
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


def _put(table: dict[Any, tuple[list[int], list[Any]]], key: Any, i: int, value: Any) -> None:
    at, values = table.setdefault(key, ([], []))
    at.append(i)
    values.append(value)


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


# -- the store ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """One recorded step."""

    segment: Segment
    i: int

    @property
    def epoch(self) -> int:
        """Its epoch."""
        return self.segment.epoch_idx

    @property
    def batch(self) -> int:
        """Its batch."""
        return self.segment.batch_idx(self.i)

    @property
    def frame(self) -> Frame:
        """Its frame."""
        return self.segment.frame(self.i)

    def output(self, node_id: str) -> Batch | None:
        """The output batch of a node, made anew; None if the node did not run."""
        node = self.frame.node(node_id)
        if node is None:
            return None
        return node.batch({one.role: self.segment.features((node_id, one.role), self.i) for one in node.roles})

    def records(self) -> list[LossRecord]:
        """Its losses."""
        return self.segment.records(self.i)

    def context(self) -> ExecutionContext:
        """The step as a context, made anew; inputs are not recorded."""
        outputs = {node.node_id: self.output(node.node_id) for node in self.frame.nodes}
        records = self.records()
        losses = LossCollection(records) if records else None
        return ExecutionContext(self.segment.phase_label, self.epoch, self.batch, {}, dict(self.frame.views), outputs, losses)  # type: ignore[arg-type]


class ContextStore:
    """The recorded steps of a phase.

    Args:
        recording: Which epochs stay.
        keep: Domains that are recorded; None keeps all.

    Raises:
        ValueError: An unknown mode or domain.
    """

    def __init__(self, recording: ResultRecording | str = ResultRecording.ALL, keep: Any = None) -> None:
        self.recording, self.keep = ResultRecording.from_value(recording), checked_keep(keep)
        self._keeps_outputs = self.keep is None or DOMAIN_OUTPUTS in self.keep
        self._segments: list[Segment] = []
        self._frames: dict[int, Frame] = {}  # batch to the frame it had last
        self._packed: Sequence[Frame] | None = None
        self._known: set[int] = set()  # batches of the epoch of the open segment
        self._best: int | None = None

    @property
    def records_steps(self) -> bool:
        """Whether steps are recorded at all."""
        return self.recording is not ResultRecording.NONE

    # -- adding

    def add(self, ctx: ExecutionContext) -> None:
        """Record a step.

        Raises:
            TypeError: Something other than an ExecutionContext.
            ValueError: The batch of this epoch is there already.
        """
        if self.recording is ResultRecording.NONE:
            return
        if not isinstance(ctx, ExecutionContext):
            raise TypeError(f"an ExecutionContext is expected, got {type(ctx).__name__}")
        segment = self._segment(ctx.phase_label, ctx.epoch_idx)
        batch = ctx.batch_idx
        if batch in self._known:
            raise ValueError(f"batch {batch} of epoch {ctx.epoch_idx} is recorded already")
        frame = self._frames.get(batch)
        if frame is None or not frame.fits(ctx):
            frame = Frame.of(ctx, self.keep)
        features = _features(ctx.outputs) if self._keeps_outputs else {}
        losses = [] if ctx.losses is None else ctx.losses.values()
        self._frames[batch] = frame
        self._known.add(batch)
        segment.add(_Step(batch, frame, features, losses))

    def _segment(self, phase_label: str, epoch: int) -> RecordedSteps:
        last = self._segments[-1] if self._segments else None
        if isinstance(last, RecordedSteps) and last.is_open and last.epoch_idx == epoch and last.phase_label == phase_label:
            return last
        self.start_epoch(epoch)
        self._known = set().union(*(one.batches() for one in self._segments if one.epoch_idx == epoch))
        made = RecordedSteps(phase_label, epoch)
        self._segments.append(made)
        return made

    def add_steps(self, steps: EpochSteps) -> None:
        """Record the steps of one call, whose frames were made with what this store keeps.

        Raises:
            ValueError: A batch of this epoch is there already.
        """
        if self.recording is ResultRecording.NONE:
            return
        self.start_epoch(steps.epoch_idx)
        for one in self._segments:
            if one.epoch_idx == steps.epoch_idx and (twice := _common(one.batches(), steps.batches())):
                raise ValueError(f"batches {twice} of epoch {steps.epoch_idx} are recorded already")
        self._segments.append(steps if self._keeps_outputs else dataclasses.replace(steps, outputs={}))

    def start_epoch(self, epoch: int) -> None:
        """An epoch begins: what came before is packed and, of the mode ``LAST``, let go, apart from the best epoch."""
        self.pack()
        if self.recording is ResultRecording.LAST:
            self._segments = [one for one in self._segments if one.epoch_idx in (epoch, self._best)]

    def keep_epoch(self, epoch: int | None) -> None:
        """Of the mode ``LAST``: this epoch is the best so far, and stays instead of the last one."""
        self._best = epoch

    def finish(self) -> None:
        """The phase is over: pack what is open and, of the mode ``LAST``, keep the best epoch alone if one was named."""
        self.pack()
        if self.recording is ResultRecording.LAST and self._best is not None and any(one.epoch_idx == self._best for one in self._segments):
            self._segments = [one for one in self._segments if one.epoch_idx == self._best]

    def pack(self) -> None:
        """Join the steps of the open epoch."""
        last = self._segments[-1] if self._segments else None
        if isinstance(last, RecordedSteps) and last.is_open:
            self._packed = last.pack(self._packed)
            self._known = set()

    # -- asking

    def places(self, *, epoch: int | None = None, batch: int | None = None) -> Iterator[Place]:
        """The recorded steps; of one epoch and one batch, if they are given."""
        for segment in self._segments:
            if epoch is not None and segment.epoch_idx != epoch:
                continue
            for i in range(len(segment)):
                if batch is None or segment.batch_idx(i) == batch:
                    yield Place(segment, i)

    @property
    def epochs(self) -> list[int]:
        """Recorded epochs, sorted."""
        return sorted({one.epoch_idx for one in self._segments if len(one)})

    def __len__(self) -> int:
        return sum(len(one) for one in self._segments)

    def __repr__(self) -> str:
        return f"ContextStore({self.recording.value}, epochs={len(self.epochs)}, steps={len(self)})"


def _common(some: Sequence[int], others: range) -> list[int]:
    """Indices that are in both; of two ranges without a look at each."""
    if isinstance(some, range):
        return list(range(max(some.start, others.start), min(some.stop, others.stop)))
    return sorted(index for index in some if index in others)


def _features(outputs: Mapping[str, Batch]) -> dict[OutputKey, Any]:
    """Copies of what nodes produced, without history."""
    found = {}
    for node_id, batch in outputs.items():
        for role, samples in batch.role_data.parts.items():
            features = samples.features
            if features is not None:
                found[node_id, role] = detach(features)
    return found
