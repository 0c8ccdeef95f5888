"""Checkpoints of a whole experiment: where they are, how they are written and taken back, and at which hooks of a run.

Order:  [experiment start]  [group start]  [phase start] phase [phase end] ..  [group end]  [experiment end]
        [..] = hooks of callbacks, then a checkpoint
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keydnn.experiment import random_states
from keydnn.experiment.callbacks import ExperimentCallback
from keydnn.experiment.callbacks.checkpoints import GRAPH
from keydnn.experiment.callbacks.dispatch import ExperimentHooks
from keydnn.experiment.execution.experiment_state import full_state, take_full, take_graph
from keydnn.experiment.io import Checkpoint, artifact_path
from keydnn.experiment.io.artifact import EXTENSION, clear_errors

KIND = Checkpoint.kind
EXPERIMENT = "experiment"  # entry of a checkpoint


def key_of(name: str | os.PathLike[str]) -> str:
    """Name under which a checkpoint is known: that of its file, without the suffix.

    Raises:
        TypeError: No text.
        ValueError: Empty, or with a folder in front.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a checkpoint is text, got {type(name).__name__}")
    key = name.split(".")[0]
    if not key or any(sign in name for sign in "/\\:"):
        raise ValueError(f"the name of a checkpoint is that of a file, without folders, got {name!r}")
    return key


def path_of(directory: Path, name: str) -> Path:
    """The file of a checkpoint."""
    return artifact_path(directory / name, KIND)


def checked_directory(path: str | os.PathLike[str], *, create: bool) -> Path:
    """The folder for checkpoints.

    Raises:
        FileNotFoundError: It is not there and is not to be made.
        NotADirectoryError: It is a file.

    Warns:
        UserWarning: It holds checkpoints already.
    """
    directory = Path(path)
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(f"{directory} is a file: checkpoints need a folder")
    if not directory.exists():
        if not create:
            raise FileNotFoundError(f"no folder {directory}; pass create=True to make it")
        directory.mkdir(parents=True)
    there = sorted(file.name for file in directory.glob(f"*.{KIND}.{EXTENSION}"))
    if there:
        warnings.warn(f"{directory} holds checkpoints already: {', '.join(there[:5])}", UserWarning, stacklevel=4)
    return directory


def write(experiment: Any, directory: Path, name: str, *, overwrite: bool, meta: Mapping[str, Any] | None) -> Path:
    """Write the full state of an experiment."""
    told = {"label": experiment.label, **(meta or {})}
    return Checkpoint({EXPERIMENT: full_state(experiment)}, told).save(directory / name, overwrite=overwrite)


def found(name_or_path: str | os.PathLike[str], known: Mapping[str, Path], directory: Path | None) -> Path:
    """The file of a checkpoint: by its name, by its path, or by its name in the folder for checkpoints.

    Raises:
        ValueError: There is none.
    """
    text = os.fspath(name_or_path)
    candidates = [known[text]] if text in known else []
    for place in [Path(text)] if directory is None else [Path(text), directory / text]:
        candidates += [place, artifact_path(place, KIND)] if place.name else []
    for path in candidates:
        if path.is_file():
            return path
    raise ValueError(f"no checkpoint {text!r}: it is no file, and the known ones are {', '.join(known) or 'none'}")


def restore(experiment: Any, path: Path, *, allow_packaged_code: bool) -> None:
    """Put an experiment, or its graph alone, into the state of a checkpoint; it is as before if that fails.

    Raises:
        TypeError: The file holds the state of neither.
        StateMismatchError: It is of other nodes or other data.
        ArtifactError: It is damaged, or hostile.
    """
    entries = Checkpoint.load(path, allow_packaged_code=allow_packaged_code).entries
    takers = {EXPERIMENT: take_full, GRAPH: take_graph}
    key = next((key for key in takers if key in entries), None)
    if key is None:
        raise TypeError(f"{path} holds {', '.join(entries) or 'nothing'}; the state of an experiment or of a graph is expected")
    with contextlib.nullcontext() if experiment.is_running else random_states.kept(), experiment.ctx.activate():
        with clear_errors(path):
            takers[key](experiment, entries[key])


class CheckpointingHooks(ExperimentHooks):
    """Hooks of a run that write checkpoints after the callbacks were called.

    Args:
        callbacks: ExperimentCallback objects.
        experiment: Handed to the hooks, and written.
        writes: Whether checkpoints are written at all, as they are not for what runs inside another run.

    Attributes:
        is_over: Whether all phases were run.
    """

    def __init__(self, callbacks: Sequence[ExperimentCallback], experiment: Any, *, writes: bool = True) -> None:
        super().__init__(callbacks, experiment)
        self._writes, self.is_over = writes, False

    def experiment_start(self) -> None:
        """Before the first phase."""
        super().experiment_start()
        self._at("experiment_start", "START")

    def experiment_end(self) -> None:
        """After the last phase."""
        self.is_over = True
        super().experiment_end()
        self._at("experiment_end", "END")

    def phase_start(self, phase: Any) -> None:
        """Before a phase."""
        super().phase_start(phase)
        self._at("phase_start", phase.label)

    def phase_end(self, phase: Any, results: Any) -> None:
        """After a phase."""
        super().phase_end(phase, results)
        self._at("phase_end", phase.label)

    def group_start(self, group: Any) -> None:
        """Before the items of a group."""
        super().group_start(group)
        self._at("group_start", group.label)

    def group_end(self, group: Any, results: Any) -> None:
        """After the items of a group."""
        super().group_end(group, results)
        self._at("group_end", group.label)

    def _at(self, hook: str, label: str) -> None:
        checkpointing = self._experiment.active_checkpointing
        if not self._writes or checkpointing is None or not checkpointing.should_save(hook):
            return
        template = checkpointing.get_config()["name_template"] or "{label}"
        name = re.sub(r"[^\w -]", "_", template.format(label=label))
        directory = checkpointing.directory or self._experiment.checkpoint_dir
        path = write(self._experiment, directory, name, overwrite=checkpointing.overwrite, meta={"hook": hook})
        checkpointing.record_disk(name, path)
        self._experiment.checkpoint_written(name, path)
