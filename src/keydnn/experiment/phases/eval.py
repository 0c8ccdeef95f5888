"""EvalPhase: one pass over rows in their order, without gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

from keydnn.experiment.backends.accelerator import Accelerator
from keydnn.experiment.bindings import InputBinding
from keydnn.experiment.data import ExecutionContext
from keydnn.experiment.phases.once import OncePhase, bindings_of
from keydnn.experiment.training import AppliedLoss


class EvalPhase(OncePhase):
    """Runs its nodes forward over the rows of a split, in order; nothing learns, and modes are as before afterwards.

    Args:
        label: Name, unique in its group.
        input_sources: A binding for every feature set that an executed node reads, all of one feature set and split.  With samplers, such
            as pairs, their batches are what is evaluated.
        losses: With labels of their own; logged as ``eval_loss/<label>``.
        active_nodes: Ids, labels or nodes; None takes all nodes of the active context's graph.
        batch_size: Rows per chunk; None takes all at once.
        callbacks: With labels of their own.
        accelerator: Where nodes stand that do not say themselves; None takes the place of the phase around this one.

    Raises:
        TypeError: Something in a list that does not belong there.
        ValueError: Bindings of several feature sets or splits, doubled labels, a feature set that no binding feeds, a batch size below 1.
        KeyError: An active node that is not in the graph.
        RuntimeError: The active context has no graph.
    """

    phase_type = "EvalPhase"

    def __init__(
        self,
        label: str,
        *,
        input_sources: Sequence[InputBinding],
        losses: Sequence[AppliedLoss] | None = None,
        active_nodes: Sequence[Any] | None = None,
        batch_size: int | None = None,
        callbacks: Sequence[Any] | None = None,
        accelerator: Accelerator | str | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"evaluation phase {label!r}: batch_size must be at least 1 or None, got {batch_size!r}")
        self.batch_size = None if batch_size is None else int(batch_size)
        super().__init__(
            label,
            input_sources=input_sources,
            losses=losses,
            active_nodes=active_nodes,
            callbacks=callbacks,
            accelerator=accelerator,
        )

    @classmethod
    def from_split(
        cls,
        label: str,
        *,
        split: str | None,
        losses: Sequence[AppliedLoss] | None = None,
        active_nodes: Sequence[Any] | None = None,
        batch_size: int | None = None,
        callbacks: Sequence[Any] | None = None,
        accelerator: Accelerator | str | None = None,
    ) -> Self:
        """A phase whose heads all read one split of one feature set.

        Args:
            label: Name.
            split: Name of the split; None takes all rows.
            losses: As for the class, like the rest.
            active_nodes: See the class.
            batch_size: See the class.
            callbacks: See the class.
            accelerator: See the class.

        Raises:
            ValueError: The heads do not read exactly one feature set, the same for all, or the split is unknown.
        """
        return cls(
            label,
            input_sources=bindings_of(active_nodes, split),
            losses=losses,
            active_nodes=active_nodes,
            batch_size=batch_size,
            callbacks=callbacks,
            accelerator=accelerator,
        )

    def iter_execution(
        self, *, results: Any = None, show_eval_progress: bool = False, persist_progress: bool | None = None
    ) -> Iterator[ExecutionContext]:
        """The contexts of all chunks, with inputs; the caller makes each step with the graph's ``eval_step``.

        Args:
            results: Gets every context, when the step was made.
            show_eval_progress: Unused here: bars belong to the experiment that runs the phase.
            persist_progress: Unused here.

        Raises:
            RuntimeError: There are no rows.
        """
        yield from self._contexts(self.batch_size, results)

    def summary_rows(self) -> list[tuple[str, Any]]:
        """What :meth:`summary` says, as pairs."""
        return [*([] if self.batch_size is None else [("batch_size", self.batch_size)]), *super().summary_rows()]

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments, and ``phase_type``."""
        return {**super().get_config(), "batch_size": self.batch_size}
