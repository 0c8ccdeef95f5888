"""FitPhase: models that learn from all rows at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

from keydnn.experiment.backends.accelerator import Accelerator
from keydnn.experiment.bindings import InputBinding
from keydnn.experiment.data import ExecutionContext
from keydnn.experiment.graph import ModelGraph, ModelNode
from keydnn.experiment.phases.once import OncePhase, bindings_of
from keydnn.experiment.training import AppliedLoss


class FitPhase(OncePhase):
    """Fits the unfrozen ones among its nodes whose models have ``fit``, to all rows at once; the others run forward.

    Args:
        label: Name, unique in its group.
        input_sources: A binding for every feature set that an executed node reads, all of one feature set and split.
        losses: With labels of their own; logged as ``eval_loss/<label>``.
        active_nodes: Ids, labels or nodes; None takes all nodes of the active context's graph.
        freeze_after_fit: Whether fitted nodes are frozen.
        callbacks: With labels of their own.
        accelerator: Where nodes stand that do not say themselves; None takes the place of the phase around this one.

    Raises:
        TypeError: Something in a list that does not belong there.
        ValueError: Bindings of several feature sets or splits, a binding with a sampler, doubled labels, or a feature set that
            no binding feeds.
        KeyError: An active node that is not in the graph.
        RuntimeError: The active context has no graph.
    """

    phase_type = "FitPhase"

    def __init__(
        self,
        label: str,
        *,
        input_sources: Sequence[InputBinding],
        losses: Sequence[AppliedLoss] | None = None,
        active_nodes: Sequence[Any] | None = None,
        freeze_after_fit: bool = True,
        callbacks: Sequence[Any] | None = None,
        accelerator: Accelerator | str | None = None,
    ) -> None:
        self.freeze_after_fit = bool(freeze_after_fit)
        super().__init__(
            label,
            input_sources=input_sources,
            losses=losses,
            active_nodes=active_nodes,
            callbacks=callbacks,
            accelerator=accelerator,
        )
        if any(binding.sampler is not None for binding in self.input_sources):
            raise ValueError(f"fitting phase {label!r} passes over all rows at once: give bindings without sampler, by for_evaluation")

    @classmethod
    def from_split(
        cls,
        label: str,
        *,
        split: str | None,
        losses: Sequence[AppliedLoss] | None = None,
        active_nodes: Sequence[Any] | None = None,
        freeze_after_fit: bool = True,
        callbacks: Sequence[Any] | None = None,
        accelerator: Accelerator | str | None = None,
    ) -> Self:
        """A phase whose heads all read one split of one feature set.

        Args:
            label: Name.
            split: Name of the split; None takes all rows.
            losses: As for the class, like the rest.
            active_nodes: See the class.
            freeze_after_fit: See the class.
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
            freeze_after_fit=freeze_after_fit,
            callbacks=callbacks,
            accelerator=accelerator,
        )

    def iter_execution(self, *, results: Any = None) -> Iterator[ExecutionContext]:
        """The one context, with inputs; the caller makes the step with the graph's ``fit_step``.

        Args:
            results: Gets the context, when the step was made.

        Raises:
            RuntimeError: There are no rows.
        """
        yield from self._contexts(None, results)

    def _held(self, graph: ModelGraph) -> dict[str, str]:
        mine = (graph.get_node(node_id) for node_id in self.active_nodes)
        fitted = [node for node in mine if isinstance(node, ModelNode) and node.can_fit and not node.is_frozen]
        told = "fit, then frozen" if self.freeze_after_fit else "fit"
        return {**super()._held(graph), **{node.node_id: told for node in fitted}}

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments, and ``phase_type``."""
        return {**super().get_config(), "freeze_after_fit": self.freeze_after_fit}
