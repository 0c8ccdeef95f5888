"""Folders of their own for what stands beside others: a fold or a trial keeps its files in <directory>/<label>, here and elsewhere."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from keydnn.experiment.callbacks.loggers import FileLogger
from keydnn.experiment.execution.run_state import phases_of
from keydnn.experiment.phases import Checkpointing, TrainPhase
from keydnn.experiment.results import ResultsConfig
from keydnn.experiment.results.folders import file_name

Where = Callable[[Path], Path]


@contextlib.contextmanager
def in_subfolder(experiment: Any, items: Sequence[Any], label: str) -> Iterator[None]:
    """Inside the block checkpoints go into folders named like a label, inside of those where they go otherwise, and are counted anew.

    Afterwards the experiment is as before, but knows the checkpoints that were written, as ``<label>/<name>``.  Phases are left changed.

    Args:
        experiment: The experiment.
        items: Phases and groups that run.
        label: Of what runs.
    """
    before, own = experiment.get_files(), file_name(label)
    checkpoint_into(experiment, items, lambda directory: directory / own)
    try:
        yield
    finally:
        written = experiment.available_checkpoints
        experiment.set_files(before)
        for name, path in written.items():
            experiment.checkpoint_written(f"{own}/{name}", path)


def checkpoint_into(experiment: Any, items: Sequence[Any], where: Where) -> None:
    """Have checkpoints of an experiment and its phases, and files of loggers, go to other folders; checkpoints so far are not known there.

    Args:
        experiment: The experiment.
        items: Phases and groups.
        where: Folder to the folder instead.
    """
    files = experiment.get_files()
    directory = files["directory"]
    experiment.set_files(
        {
            "checkpointing": _moved(files["checkpointing"], where),
            "directory": None if directory is None else where(directory),
            "checkpoints": {},
        }
    )
    phases = {id(phase): phase for item in items for _, phase in phases_of(item)}
    for phase in phases.values():
        if isinstance(phase, TrainPhase) and phase.checkpointing is not None:
            phase.set_checkpointing(_moved(phase.checkpointing, where))
        phase.callbacks = [cb.moved(where) if isinstance(cb, FileLogger) else cb for cb in phase.callbacks]


def _moved(checkpointing: Checkpointing | None, where: Where) -> Checkpointing | None:
    if checkpointing is None:
        return None
    directory = checkpointing.directory
    return checkpointing.moved(None if directory is None else where(directory))


@contextlib.contextmanager
def known_directories() -> Iterator[None]:
    """Directories of checkpoints hold files by now, and those of before stay where they are, which is no news."""
    with warnings.catch_warnings():
        for told in ("the checkpoint directory", ".* holds checkpoints already", ".* brings (results|.* checkpoints)"):
            warnings.filterwarnings("ignore", message=told, category=UserWarning)
        yield


# -- elsewhere ----------------------------------------------------------------------------------------------------------------


def files_told(experiment: Any) -> dict[str, Any]:
    """Where the files of an experiment go, for a worker, whose current directory is another one."""
    directory = experiment.checkpoint_dir
    return {"home": os.getcwd(), "directory": None if directory is None else str(directory)}


def keep_files_as_told(experiment: Any, items: Sequence[Any], told: Mapping[str, Any], label: str = "") -> None:
    """In a worker: files go where they go where the work comes from, into folders named like a label.

    Args:
        experiment: The worker's.
        items: Phases and groups that run.
        told: By :func:`files_told`.
        label: Of what runs; none if the run itself sees to it.
    """

    def where(directory: Path) -> Path:
        place = Path(told["home"], directory)
        return place / file_name(label) if label else place

    if told["directory"] is not None:
        experiment.set_files({**experiment.get_files(), "directory": Path(told["directory"])})
    checkpoint_into(experiment, items, where)
    config = experiment.results_config
    if config is not None and config.results_dir is not None:
        experiment.set_results_config(ResultsConfig.from_config({**config.get_config(), "results_dir": str(where(config.results_dir))}))
