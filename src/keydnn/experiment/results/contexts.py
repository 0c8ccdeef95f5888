"""ContextStore: the recorded steps of a phase; contexts are built on access."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keydnn.experiment.backends.tensors import detach
from keydnn.experiment.data import Batch, ExecutionContext
from keydnn.experiment.names import DOMAIN_OUTPUTS
from keydnn.experiment.phases.recording import ResultRecording, checked_keep
from keydnn.experiment.results.frame_state import FrameTable
from keydnn.experiment.results.frames import Frame
from keydnn.experiment.results.segments import EpochSteps, OutputKey, RecordedSteps, Segment, Step, segment_from_state
from keydnn.experiment.results.shelf import Shelf, StoredSegment
from keydnn.experiment.training import LossCollection, LossRecord


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
        shelf: Where epochs go when they are over; None keeps them in memory.

    Attributes:
        keeps_outputs: Whether outputs are among the domains that are recorded.

    Raises:
        ValueError: An unknown mode or domain.
    """

    def __init__(self, recording: ResultRecording | str = ResultRecording.ALL, keep: Any = None, shelf: Shelf | None = None) -> None:
        self.shelf = shelf
        self.recording, self.keep = ResultRecording.from_value(recording), checked_keep(keep)
        self.keeps_outputs = self.keep is None or DOMAIN_OUTPUTS in self.keep
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

    def add(self, ctx: ExecutionContext) -> bool:
        """Record a step.

        Returns:
            Whether nodes ran or rows were read that its batch did not have before.

        Raises:
            TypeError: Something other than an ExecutionContext.
            ValueError: The batch of this epoch is there already.
        """
        if self.recording is ResultRecording.NONE:
            return False
        if not isinstance(ctx, ExecutionContext):
            raise TypeError(f"an ExecutionContext is expected, got {type(ctx).__name__}")
        segment = self._segment(ctx.phase_label, ctx.epoch_idx)
        batch = ctx.batch_idx
        if batch in self._known:
            raise ValueError(f"batch {batch} of epoch {ctx.epoch_idx} is recorded already")
        frame = self._frames.get(batch)
        is_new = frame is None or not frame.fits(ctx)
        if frame is None or is_new:
            frame = self._frames[batch] = Frame.of(ctx, self.keep)
        features = _features(ctx.outputs) if self.keeps_outputs else {}
        losses = [] if ctx.losses is None else ctx.losses.values()
        self._known.add(batch)
        segment.add(Step(batch, frame, features, losses))
        return is_new

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
        self._segments.append(steps if self.keeps_outputs else dataclasses.replace(steps, outputs={}))

    def start_epoch(self, epoch: int) -> None:
        """An epoch begins: what came before is packed and, of the mode ``LAST``, let go, apart from the best epoch."""
        self.pack()
        if self.recording is ResultRecording.LAST:
            self._keep_only([epoch, self._best])
        self._put_away([one for one in self._segments if one.epoch_idx != epoch])

    def _keep_only(self, epochs: Sequence[int | None]) -> None:
        gone = [one for one in self._segments if one.epoch_idx not in epochs]
        self._segments = [one for one in self._segments if one.epoch_idx in epochs]
        if self.shelf is not None and gone:
            self.shelf.drop(gone)

    def _put_away(self, segments: Sequence[Segment]) -> None:
        """Write packed segments that lie in memory, an epoch at a time."""
        if self.shelf is None:
            return
        for epoch in dict.fromkeys(one.epoch_idx for one in segments if not isinstance(one, StoredSegment)):
            waiting = [one for one in segments if one.epoch_idx == epoch and not isinstance(one, StoredSegment)]
            stored = dict(zip(map(id, waiting), self.shelf.put(waiting), strict=True))
            self._segments = [stored.get(id(one), one) for one in self._segments]
            self._packed = None

    def put_away(self) -> None:
        """Write all packed steps that lie in memory, if there is a shelf."""
        self._put_away([one for one in self._segments if not (isinstance(one, RecordedSteps) and one.is_open)])

    def keep_epoch(self, epoch: int | None) -> None:
        """Of the mode ``LAST``: this epoch is the best so far, and stays instead of the last one."""
        self._best = epoch

    def finish(self) -> None:
        """The phase is over: pack what is open and, of the mode ``LAST``, keep the best epoch alone if one was named."""
        self.pack()
        if self.recording is ResultRecording.LAST and self._best is not None and any(one.epoch_idx == self._best for one in self._segments):
            self._keep_only([self._best])
        self._put_away(self._segments)

    def pack(self) -> None:
        """Join the steps of the open epoch."""
        last = self._segments[-1] if self._segments else None
        if isinstance(last, RecordedSteps) and last.is_open:
            self._packed = last.pack(self._packed)
            self._known = set()

    # -- state

    def get_state(self, frames: FrameTable) -> dict[str, Any]:
        """Everything but the frames, which are added to a table."""
        segments = [{**one.get_state(), "frames": frames.places([one.frame(i) for i in range(len(one))])} for one in self._segments]
        keep = None if self.keep is None else sorted(self.keep)
        return {"recording": self.recording.value, "keep": keep, "best": self._best, "segments": segments}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], frames: Sequence[Frame]) -> ContextStore:
        """From :meth:`get_state`, with the frames of its table; recording goes on as if nothing had happened."""
        made = cls(state["recording"], state["keep"])
        made._best = state["best"]
        lists: dict[bytes, list[Frame]] = {}  # segments of equal frames share a list
        for told in state["segments"]:
            places = told["frames"]
            of_segment = lists.setdefault(places.tobytes(), [frames[place] for place in places.tolist()])
            segment = segment_from_state(told, of_segment)
            made._segments.append(segment)
            made._frames |= {segment.batch_idx(i): frame for i, frame in enumerate(of_segment)}
            if isinstance(segment, RecordedSteps) and not segment.is_open:
                made._packed = of_segment
        last = made._segments[-1] if made._segments else None
        if isinstance(last, RecordedSteps) and last.is_open:
            made._known = set().union(*(one.batches() for one in made._segments if one.epoch_idx == last.epoch_idx))
        return made

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
