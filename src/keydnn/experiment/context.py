"""The registry of one experiment, and which registry is the active one.

The active context is a context variable; beside it stands a process-wide fallback, made on first use, which threads and
tasks without a value of their own see.
"""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from keydnn.experiment.contracts import INode, ISnapshot, IStateful
from keydnn.experiment.errors import RegistrationError
from keydnn.experiment.registration import NODE_KINDS, BothLevels, RegistrationPolicy, default_policy, in_notebook, kinds_of

__all__ = ["ExperimentContext", "RegistrationPolicy", "default_policy", "in_notebook", "kinds_of"]

_UNSET = object()
_ACTIVE: ContextVar[Any] = ContextVar("keydnn_experiment_context", default=_UNSET)
_fallback: Any = _UNSET


class ExperimentContext:
    """The registry of one experiment: nodes by id and by label, and at most one model graph.

    Args:
        experiment: The experiment it belongs to, held weakly.
        registration_policy: What a taken label or id means; None takes :func:`default_policy`.

    Example:
        >>> from keydnn.experiment.context import ExperimentContext
        >>> with ExperimentContext().activate() as ctx:
        ...     ExperimentContext.get_active() is ctx
        True
    """

    def __init__(self, *, experiment: Any = None, registration_policy: RegistrationPolicy | str | None = None) -> None:
        self._policy = default_policy() if registration_policy is None else RegistrationPolicy.from_value(registration_policy)
        self._nodes: dict[str, Any] = {}  # by id, in the order of registration
        self._graph: Any = None
        self._experiment: weakref.ref[Any] | None = None
        self._entropy: int | None = None
        if experiment is not None:
            self.set_experiment(experiment)

    # --- which context is active -----------------------------------------------------------------------------------

    @classmethod
    def get_active(cls) -> ExperimentContext:
        """The active context; a default one is made on first use.

        Raises:
            RuntimeError: The active context was set to None.
        """
        global _fallback
        active = _ACTIVE.get()
        if active is _UNSET:
            if _fallback is _UNSET:
                _fallback = cls()
            active = _fallback
        if active is None:
            raise RuntimeError("no active experiment context: activate one with ExperimentContext.set_active(ExperimentContext())")
        return active

    @classmethod
    def set_active(cls, ctx: ExperimentContext | None) -> None:
        """Make ``ctx`` the active context here and the fallback of threads that have none; None leaves no context.

        Raises:
            TypeError: Neither a context nor None.
        """
        global _fallback
        if ctx is not None and not isinstance(ctx, ExperimentContext):
            raise TypeError(f"set_active needs an ExperimentContext or None, got {type(ctx).__name__}")
        _fallback = ctx
        _ACTIVE.set(ctx)

    @contextlib.contextmanager
    def activate(self) -> Iterator[ExperimentContext]:
        """This context is the active one inside the block; afterwards the previous one is again."""
        token = _ACTIVE.set(self)
        try:
            yield self
        finally:
            _ACTIVE.reset(token)

    @contextlib.contextmanager
    def temporary(self) -> Iterator[ExperimentContext]:
        """Like :meth:`activate`; afterwards nodes, their states, graph, policy and experiment are as before, too."""
        fallback, state = _fallback, self.get_state()
        token = _ACTIVE.set(self)
        try:
            yield self
        finally:
            _ACTIVE.reset(token)
            _set_fallback(fallback)
            self.set_state(state)

    # --- policy and experiment -------------------------------------------------------------------------------------

    @property
    def registration_policy(self) -> RegistrationPolicy:
        """What a taken label or id means."""
        return self._policy

    def set_registration_policy(self, policy: RegistrationPolicy | str) -> None:
        """Change the policy for good."""
        self._policy = RegistrationPolicy.from_value(policy)

    @contextlib.contextmanager
    def _with_policy(self, policy: RegistrationPolicy | str) -> Iterator[ExperimentContext]:
        before, self._policy = self._policy, RegistrationPolicy.from_value(policy)
        try:
            yield self
        finally:
            self._policy = before

    @BothLevels
    def use_policy(self, policy: RegistrationPolicy | str) -> contextlib.AbstractContextManager[ExperimentContext]:
        """Another policy inside the block."""
        return self._with_policy(policy)

    @BothLevels
    def dont_register(self) -> contextlib.AbstractContextManager[ExperimentContext]:
        """Nothing is registered inside the block; ``ExperimentContext.dont_register()`` acts on the active context."""
        return self._with_policy(RegistrationPolicy.NO_REGISTER)

    def set_experiment(self, experiment: Any, *, reset_registries: bool = False) -> None:
        """Link to an experiment (weakly), or to none; optionally forget nodes and graph."""
        self._experiment = None if experiment is None else weakref.ref(experiment)
        if reset_registries:
            self.clear_registries()

    @property
    def entropy(self) -> int | None:
        """The seed of the experiment, from which graphs draw initial weights by the labels of nodes; None leaves that to chance."""
        return self._entropy

    def set_entropy(self, entropy: int | None) -> None:
        """Change the seed; what is built already keeps its weights."""
        self._entropy = entropy

    def get_experiment(self) -> Any:
        """The experiment; None if there is none or it is gone."""
        return None if self._experiment is None else self._experiment()

    # --- registering -----------------------------------------------------------------------------------------------

    def register_experiment_node(self, node: Any, *, check_label_collision: bool = True) -> None:
        """Register a node by id and label.

        Args:
            node: An :class:`~keydnn.experiment.node.ExperimentNode`.
            check_label_collision: False lets two nodes share a label; a lookup then finds the newest.

        Raises:
            TypeError: Not a node.
            ValueError: Id or label is taken, and the policy is "error".
        """
        if "ExperimentNode" not in kinds_of(node):
            raise TypeError(f"only nodes can be registered, got {type(node).__name__}")
        if self._policy is RegistrationPolicy.NO_REGISTER:
            return
        rivals = [
            other
            for other in self._nodes.values()
            if other is not node and (other.node_id == node.node_id or (check_label_collision and other.label == node.label))
        ]
        for other in rivals:
            self._settle(node, other, f"{node.label!r} needs another label")
        for other in rivals:
            self._nodes.pop(other.node_id, None)
        self._nodes[node.node_id] = node

    def _settle(self, node: Any, other: Any, mend: str) -> None:
        if self._policy is RegistrationPolicy.OVERWRITE:
            return
        known_by = f" and id {other.node_id}" if isinstance(other, INode) else ""
        text = f"a {type(other).__name__} with label {other.label!r}{known_by} is registered"
        if self._policy is RegistrationPolicy.ERROR:
            raise RegistrationError(f"{text}; {mend}, or set the policy 'overwrite'")
        if self._policy is RegistrationPolicy.OVERWRITE_WARN:
            warnings.warn(f"{text}; it is replaced", UserWarning, stacklevel=4)

    def remove_node(self, *, node_id: str | None = None, label: str | None = None, error_if_missing: bool = True) -> Any:
        """Forget a node and return it; None if it is missing and that is no error.

        Raises:
            ValueError: Not exactly one selector.
            KeyError: No such node.
        """
        if (node_id is None) == (label is None):
            raise ValueError("remove_node needs exactly one of node_id and label")
        node = self._find(node_id=node_id, label=label)
        if node is None and error_if_missing:
            raise KeyError(f"no node with {'id' if label is None else 'label'} {node_id or label!r} is registered")
        return None if node is None else self._nodes.pop(node.node_id)

    def update_node_label(self, node_id: str, new_label: str, *, check_label_collision: bool = True) -> None:
        """Tell the registry that a node is about to be renamed.

        Raises:
            KeyError: Unknown id.
            ValueError: Another node has the label.
        """
        if node_id not in self._nodes:
            raise KeyError(f"no node with id {node_id!r} is registered")
        other = self._find(label=new_label)
        if check_label_collision and other is not None and other.node_id != node_id:
            raise ValueError(f"label {new_label!r} is taken by the {type(other).__name__} with id {other.node_id}")
        node = self._nodes[node_id]
        if node.label != new_label:
            node._label = new_label

    def clear_registries(self) -> None:
        """Forget all nodes and the model graph."""
        self._nodes.clear()
        self._graph = None

    # --- finding ---------------------------------------------------------------------------------------------------

    def _find(self, *, node_id: str | None = None, label: str | None = None) -> Any:
        if node_id is not None:
            return self._nodes.get(node_id)
        return next((node for node in reversed(self._nodes.values()) if node.label == label), None)

    def has_node(self, *, node_id: str | None = None, label: str | None = None) -> bool:
        """Whether a node with this id, or this label, is registered.

        Raises:
            ValueError: Neither is given.
        """
        if node_id is None and label is None:
            raise ValueError("has_node needs node_id or label")
        found = [self._find(node_id=node_id)] if node_id is not None else []
        found += [self._find(label=label)] if label is not None else []
        return all(node is not None for node in found)

    def get_node(
        self,
        val: str | None = None,
        *,
        node_id: str | None = None,
        label: str | None = None,
        enforce_type: str | type = "ExperimentNode",
    ) -> Any:
        """The node with an id or label; ``val`` is tried as id, then as label.

        Args:
            val: Id or label.
            node_id: Id.
            label: Label.
            enforce_type: A class, or the name of one in ``NODE_KINDS``.

        Raises:
            ValueError: Not exactly one selector, or an unknown name of a class.
            KeyError: No such node.
            TypeError: A node of another kind.
        """
        if sum(selector is not None for selector in (val, node_id, label)) != 1:
            raise ValueError("get_node needs exactly one of val, node_id and label")
        if isinstance(enforce_type, str) and enforce_type not in NODE_KINDS:
            raise ValueError(f"unknown enforce_type {enforce_type!r}; expected one of {', '.join(NODE_KINDS)} or a class")
        node = self._find(node_id=val or node_id) if label is None else self._find(label=label)
        if node is None and val is not None:
            node = self._find(label=val)
        if node is None:
            known = ", ".join(sorted(repr(other.label) for other in self._nodes.values())) or "none"
            raise KeyError(f"no node {val or node_id or label!r} is registered; known labels: {known}")
        fits = enforce_type in kinds_of(node) if isinstance(enforce_type, str) else isinstance(node, enforce_type)
        if not fits:
            raise TypeError(f"node {node.label!r} is a {type(node).__name__}, expected a {getattr(enforce_type, '__name__', enforce_type)}")
        return node

    def _of_kind(self, kind: str) -> dict[str, Any]:
        return {node_id: node for node_id, node in self._nodes.items() if kind in kinds_of(node)}

    @property
    def available_nodes(self) -> dict[str, Any]:
        """All nodes by id; a copy."""
        return dict(self._nodes)

    @property
    def available_computenodes(self) -> dict[str, Any]:
        """The compute nodes by id; a copy."""
        return self._of_kind("ComputeNode")

    @property
    def available_featuresets(self) -> dict[str, Any]:
        """The feature sets by id; a copy."""
        return self._of_kind("FeatureSet")

    # --- the graph -------------------------------------------------------------------------------------------------

    @property
    def model_graph(self) -> Any:
        """The model graph, or None."""
        return self._graph

    def register_model_graph(self, graph: Any) -> None:
        """Register the model graph.

        Raises:
            TypeError: Not a model graph.
            ValueError: There is one already, and the policy is "error".
        """
        if "ModelGraph" not in kinds_of(graph):
            raise TypeError(f"only a ModelGraph can be registered as one, got {type(graph).__name__}")
        if self._policy is RegistrationPolicy.NO_REGISTER:
            return
        if self._graph is not None and self._graph is not graph:
            self._settle(graph, self._graph, "a context has one graph: make this one in another, `with ExperimentContext().activate():`")
        self._graph = graph

    def remove_model_graph(self) -> None:
        """Forget the model graph."""
        self._graph = None

    # --- snapshots -------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """A snapshot: nodes with their labels and states, graph and its state, policy, experiment.  Tables are shared."""
        return {
            "nodes": [(node, node.label, _state_of(node)) for node in self._nodes.values()],
            "graph": (self._graph, _state_of(self._graph)),
            "policy": self._policy,
            "experiment": self._experiment,
            "entropy": self._entropy,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a snapshot."""
        self._nodes = {node.node_id: node for node, _, _ in state["nodes"]}
        for node, label, inner in state["nodes"]:
            node._label = label
            _restore(node, inner)
        self._graph, inner = state["graph"]
        _restore(self._graph, inner)
        self._policy, self._experiment, self._entropy = state["policy"], state["experiment"], state["entropy"]


def _state_of(thing: Any) -> Any:
    if isinstance(thing, ISnapshot):
        return thing.snapshot()
    return thing.get_state() if isinstance(thing, IStateful) else None


def _restore(thing: Any, state: Any) -> None:
    if isinstance(thing, ISnapshot):
        thing.restore(state)
    elif state is not None:
        thing.set_state(state)


def _set_fallback(ctx: Any) -> None:
    global _fallback
    _fallback = ctx
