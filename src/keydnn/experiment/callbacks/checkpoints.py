"""CheckpointHooks: the states of the graph that a running phase keeps, in files with the state of the run beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keydnn.experiment.contracts import IPlace
from keydnn.experiment.io import Checkpoint
from keydnn.experiment.phases.checkpointing import BATCH_HOOKS, EPOCH_HOOKS, Checkpointing, Key

GRAPH, RUN = "modelgraph", "run"  # entries of a checkpoint


class CheckpointHooks:
    """Keeps states while a phase runs, in memory or in files with the entries ``modelgraph`` and, of a phase in a run, ``run``.

    Args:
        checkpointing: What the phase asks for; None asks for nothing.
        graph: The graph whose state is kept.
        phase: The phase.
        directory: Where files go whose checkpointing names no directory: there into a folder with the phase's label.
        place: Where the phase stands in its run; None for a phase that runs by itself.

    Attributes:
        has_any: Whether anything is kept at all.
        has_batch_hooks: Whether it is kept at batches.

    Raises:
        ValueError: The checkpointing does not fit a phase.
        RuntimeError: It writes files, and no directory is known.
    """

    def __init__(
        self,
        checkpointing: Checkpointing | None,
        *,
        graph: Any,
        phase: Any,
        directory: Path | None = None,
        place: IPlace | None = None,
    ) -> None:
        self._checkpointing, self._graph, self._label, self._place = checkpointing, graph, phase.label, place
        self.has_any = checkpointing is not None
        self.has_batch_hooks = checkpointing is not None and checkpointing.save_on in BATCH_HOOKS
        self._directory = directory
        if checkpointing is not None:
            checkpointing.check_for_phase()
            self._directory = checkpointing.directory or (None if directory is None else directory / phase.label)
            if checkpointing.mode == "disk" and self._directory is None:
                raise RuntimeError(
                    f"phase {phase.label!r}: checkpoints go to files, and there is no directory: pass Checkpointing(directory=...),"
                    " or run with a folder: run(run_dir=...)"
                )

    def at(self, hook: str, epoch: int | None = None, batch: int | None = None) -> None:
        """Tell that a hook is reached; at ``phase_start`` what an earlier run kept is forgotten.

        Args:
            hook: ``phase_start``, ``phase_end``, ``epoch_start``, ``epoch_end``, ``batch_start`` or ``batch_end``.
            epoch: Of the epoch and batch hooks.
            batch: Of the batch hooks.
        """
        if self._checkpointing is None:
            return
        if hook == "phase_start":
            self._checkpointing.reset()
        if self._checkpointing.should_save(hook):
            self._keep(self._checkpointing, hook, epoch, batch)

    def _keep(self, checkpointing: Checkpointing, hook: str, epoch: int | None, batch: int | None) -> None:
        key = key_of(hook, epoch, batch)
        if checkpointing.mode == "memory":
            checkpointing.record_memory(key, self._graph.get_state())
            return
        told = {name: value for name, value in (("epoch", epoch), ("batch", batch)) if value is not None}
        name = checkpointing.format_name(phase=self._label, **told)
        checkpoint = Checkpoint({GRAPH: self._graph.get_state()}, {"phase": self._label, **told})
        if self._place is not None:
            run = self._place.entry(hook, epoch, batch)
            if run is not None:
                checkpoint.add_entry(RUN, run)
                checkpoint.meta |= self._place.meta()
        path = checkpoint.save(self._directory / name, overwrite=checkpointing.overwrite)  # type: ignore[operator]
        checkpointing.record_disk(key, path)
        if self._place is not None:
            self._place.saved(path)


def kept_state(checkpointing: Checkpointing, key: Key) -> Any:
    """The graph's state under a key, from memory or from the file.

    Raises:
        KeyError: There is nothing under it.
        FileNotFoundError: Its file is gone.
    """
    path = checkpointing.get_path(key)
    return checkpointing.get_state(key) if path is None else Checkpoint.load(path, only=[GRAPH]).entries[GRAPH]


def key_of(hook: str, epoch: int | None, batch: int | None) -> Key:
    """The key of what is kept at a hook."""
    if hook in BATCH_HOOKS:
        return f"{epoch}_{batch}"
    if hook in EPOCH_HOOKS and epoch is not None:
        return epoch
    return hook
