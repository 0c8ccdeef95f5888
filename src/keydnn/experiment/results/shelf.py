"""Steps on disk: a file per epoch, and a file per set of frames, which epochs on the same batches share; read on access."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.results.blocks import Blocks
from keydnn.experiment.results.frame_state import FrameTable, frames_from_state
from keydnn.experiment.results.frames import Frame
from keydnn.experiment.results.segments import OutputKey, Segment, segment_from_state
from keydnn.experiment.results.sources import IdsTable, SourceTable
from keydnn.experiment.training import LossRecord

T = TypeVar("T")
_KEPT = 2  # files whose contents stay in memory after they were read


class Recent:
    """The latest few things that were read.

    Args:
        read: Reads one.
    """

    def __init__(self, read: Callable[[Path], Any]) -> None:
        self._read = read
        self._kept: OrderedDict[Path, Any] = OrderedDict()

    def get(self, path: Path) -> Any:
        """What is in a file."""
        if path in self._kept:
            self._kept.move_to_end(path)
            return self._kept[path]
        found = self._kept[path] = self._read(path)
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return found

    def forget(self, path: Path) -> None:
        """A file is gone."""
        self._kept.pop(path, None)


class StoredSegment:
    """Steps of one epoch that lie in a file.

    Args:
        shelf: Reads them.
        path: The file.
        place: Which segment of it.
        like: The segment in memory.
    """

    def __init__(self, shelf: Shelf, path: Path, place: int, like: Segment) -> None:
        self._shelf, self.path, self._place = shelf, path, place
        self.phase_label, self.epoch_idx = like.phase_label, like.epoch_idx
        self._batches = _in_short(like.batches())

    def _found(self) -> Segment:
        return self._shelf.segment(self.path, self._place)

    def __len__(self) -> int:
        return len(self._batches)

    def batch_idx(self, i: int) -> int:
        """Index of the batch of a step."""
        return int(self._batches[i])

    def batches(self) -> Sequence[int]:
        """Indices of the batches of all steps."""
        return self._batches if isinstance(self._batches, range) else self._batches.tolist()

    def frame(self, i: int) -> Frame:
        """The frame of a step."""
        return self._found().frame(i)

    def features(self, key: OutputKey, i: int) -> Any:
        """What a node produced for a role in a step; None if there is nothing."""
        return self._found().features(key, i)

    def records(self, i: int) -> list[LossRecord]:
        """Losses of a step."""
        return self._found().records(i)

    def get_state(self) -> dict[str, Any]:
        """Everything but the frames."""
        return self._found().get_state()


def _in_short(batches: Sequence[int]) -> range | NDArray[np.int32]:
    """Indices as a range, if they are one."""
    whole = range(batches[0], batches[0] + len(batches)) if len(batches) else range(0)
    return whole if list(batches) == list(whole) else np.asarray(batches, np.int32)


class _FrameFile:
    """A file of frames: what it takes to read it, and how many files of steps need it."""

    def __init__(self, sources: Sequence[Any], ids: Sequence[Any]) -> None:
        self.sources, self.ids = sources, ids
        self.users = 0


class Shelf:
    """Where the steps of a phase lie.

    Args:
        folder: Of their files.
    """

    def __init__(self, folder: Path) -> None:
        self._blocks = Blocks(folder)
        self._known: dict[int, tuple[Frame, Path, int]] = {}  # frames of the latest epoch: itself, its file, its place there
        self._files: dict[Path, _FrameFile] = {}
        self._needs: dict[Path, list[Path]] = {}  # file of steps to files of frames
        self._frames = Recent(self._read_frames)
        self._steps = Recent(self._read_steps)

    def put(self, segments: Sequence[Segment]) -> list[StoredSegment]:
        """Write the steps of an epoch."""
        frames = [[one.frame(i) for i in range(len(one))] for one in segments]
        self._write_frames([frame for part in frames for frame in part])
        files = list(dict.fromkeys(self._known[id(frame)][1] for part in frames for frame in part))
        told = []
        for segment, part in zip(segments, frames, strict=True):
            places = [self._known[id(frame)] for frame in part]
            of_file = np.array([files.index(file) for _, file, _ in places], np.int32)
            told.append({**segment.get_state(), "files": of_file, "frames": np.array([place for *_, place in places], np.int32)})
        path = self._blocks.write("steps", {"files": [file.name for file in files], "segments": told})
        self._needs[path] = files
        for file in files:
            self._files[file].users += 1
        self._known = {id(frame): self._known[id(frame)] for part in frames for frame in part}
        return [StoredSegment(self, path, place, one) for place, one in enumerate(segments)]

    def _write_frames(self, frames: Sequence[Frame]) -> None:
        """Write those that are not in a file yet."""
        fresh = [frame for frame in {id(frame): frame for frame in frames}.values() if id(frame) not in self._known]
        if not fresh:
            return
        ids = IdsTable()
        sources = SourceTable(ids)
        table = FrameTable(sources, ids)
        places = table.places(fresh).tolist()
        state = {"frames": table.get_state(), "sources": sources.get_state(), "ids": ids.get_state()}
        path = self._blocks.write("frames", state)
        self._files[path] = _FrameFile(sources.all, ids.all)
        self._known |= {id(frame): (frame, path, place) for frame, place in zip(fresh, places, strict=True)}

    def drop(self, segments: Sequence[Segment]) -> None:
        """Delete the files of segments, if they lie in files, and those of frames that nobody needs any more."""
        for path in {one.path for one in segments if isinstance(one, StoredSegment)}:
            self._blocks.delete(path)
            self._steps.forget(path)
            for file in self._needs.pop(path):
                self._files[file].users -= 1
        wanted = {file for _, file, _ in self._known.values()}
        for file in [file for file, one in self._files.items() if one.users == 0 and file not in wanted]:
            self._blocks.delete(file)
            self._frames.forget(file)
            del self._files[file]

    def segment(self, path: Path, place: int) -> Segment:
        """A segment of a file."""
        found: Segment = self._steps.get(path)[place]
        return found

    def _read_frames(self, path: Path) -> list[Frame]:
        known = self._files[path]
        return frames_from_state(self._blocks.read(path)["frames"], known.sources, known.ids)

    def _read_steps(self, path: Path) -> list[Segment]:
        told = self._blocks.read(path)
        files = [self._frames.get(file) for file in self._needs[path]]
        return [_segment(one, files) for one in told["segments"]]


def _segment(told: Mapping[str, Any], files: Sequence[Sequence[Frame]]) -> Segment:
    frames = [files[file][place] for file, place in zip(told["files"].tolist(), told["frames"].tolist(), strict=True)]
    return segment_from_state(told, frames)
