"""CheckpointHooks: the states of the graph that a running phase keeps."""

from __future__ import annotations

from typing import Any

from keydnn.experiment.phases.checkpointing import BATCH_HOOKS, EPOCH_HOOKS, Checkpointing, Key


class CheckpointHooks:
    """Keeps states while a phase runs.

    Args:
        checkpointing: What the phase asks for; None asks for nothing.
        graph: The graph whose state is kept.
        phase: The phase.

    Attributes:
        has_any: Whether anything is kept at all.
        has_batch_hooks: Whether it is kept at batches.

    Raises:
        ValueError: The checkpointing does not fit a phase.
        NotImplementedError: It writes files.
    """

    def __init__(self, checkpointing: Checkpointing | None, *, graph: Any, phase: Any) -> None:
        if checkpointing is not None:
            checkpointing.check_for_phase()
            if checkpointing.mode == "disk":
                raise NotImplementedError(
                    f"phase {phase.label!r}: checkpoints of a phase in files (mode='disk') are not written yet; use mode='memory'"
                )
        self._checkpointing, self._graph = checkpointing, graph
        self.has_any = checkpointing is not None
        self.has_batch_hooks = checkpointing is not None and checkpointing.save_on in BATCH_HOOKS

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
            self._checkpointing.record_memory(_key(hook, epoch, batch), self._graph.get_state())


def _key(hook: str, epoch: int | None, batch: int | None) -> Key:
    if hook in BATCH_HOOKS:
        return f"{epoch}_{batch}"
    if hook in EPOCH_HOOKS and epoch is not None:
        return epoch
    return hook
