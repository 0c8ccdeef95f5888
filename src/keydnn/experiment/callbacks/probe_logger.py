"""ProbeLogger: what a probe measures of a node while a phase runs, as metrics.

A probe is any object with ``measure(model, batch, loss) -> dict[str, float]``.  After a step it is given the model as that step left it,
in evaluation mode, and what the node read in the step; random numbers, modes and weights are afterwards as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from keydnn.experiment import random_states
from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter, to_backend
from keydnn.experiment.callbacks.callback import Callback
from keydnn.experiment.contracts import IConfigurable, IForgetful, IProbe, IStateful
from keydnn.experiment.data import SampleData
from keydnn.experiment.graph import ModelNode
from keydnn.experiment.graph.flow import by_role
from keydnn.experiment.names import DOMAIN_OUTPUTS
from keydnn.experiment.registry import Registry

probe_registry = Registry("probe", {})


class ProbeLogger(Callback):
    """Logs what a probe measures as metrics ``<label>.<metric>`` of the step.

    The probe gets the framework's model, in evaluation mode, the features and targets of the step as detached tensors of the framework, and
    the loss: ``"mse"`` if that is the one loss of the phase on the node and the node is keydnn's; else a function (prediction, target)
    that adds up the losses on the node; None if there is no loss on it.

    Args:
        probe: An object with ``measure(model, batch, loss)``, such as those of :mod:`keydnn.stability`.
        node: A model node or its label.
        every_n_steps: Measures after the first step of the phase and every n-th after it.
        role: Role of the rows, such as "anchor"; None takes the only one.
        label: Name; None takes that of the probe's class.
        execution_order: Lower ones run first.

    Raises:
        TypeError: The probe has no ``measure``, or ``node`` is something else.
        ValueError: ``every_n_steps`` below 1.

    Example:
        >>> from keydnn.experiment.callbacks import ProbeLogger
        >>> class Norm:
        ...     def measure(self, model, batch, loss):
        ...         return {"weight_norm": float(np.linalg.norm(model.weight.numpy()))}
        >>> ProbeLogger(Norm(), "net", every_n_steps=10).label
        'Norm'
    """

    def __init__(
        self,
        probe: IProbe,
        node: Any,
        every_n_steps: int = 1,
        *,
        role: str | None = None,
        label: str | None = None,
        execution_order: int = 0,
    ) -> None:
        if not isinstance(probe, IProbe) or isinstance(probe, type):
            raise TypeError(f"a probe is an object with measure(model, batch, loss), got {probe!r}")
        if not isinstance(node, str | ModelNode):
            raise TypeError(f"node must be a model node or its label, got {type(node).__name__}")
        if isinstance(every_n_steps, bool) or not isinstance(every_n_steps, int) or every_n_steps < 1:
            raise ValueError(f"every_n_steps must be a whole number of at least 1, got {every_n_steps!r}")
        super().__init__(type(probe).__name__ if label is None else label, execution_order)
        self.probe, self.every_n_steps, self.role = probe, every_n_steps, role
        self.node = node if isinstance(node, str) else node.label
        self._steps = 0

    def on_phase_start(self, *, experiment: Any, phase: Any, results: Any) -> None:
        """Count from the first step; a probe with ``reset()`` forgets what it remembers."""
        self._steps = 0
        if isinstance(self.probe, IForgetful):
            self.probe.reset()

    def on_batch_end(self, *, experiment: Any, phase: Any, exec_ctx: Any, results: Any) -> None:
        """Measure, if it is this step's turn."""
        turn = self._steps % self.every_n_steps == 0
        self._steps += 1
        if not turn:
            return
        node = experiment.model_graph.get_node(self.node)
        if not isinstance(node, ModelNode):
            raise TypeError(f"{self.label}: {self.node!r} is a {type(node).__name__}, and a probe measures a model")
        if node.node_id not in exec_ctx.outputs:
            raise ValueError(f"{self.label}: node {self.node!r} does not run in phase {phase.label!r}")
        with random_states.kept():
            node.set_mode(False)
            model = node.model.module if node.has_gradients else node.model
            found = self.probe.measure(model, self._batch(node, exec_ctx), _loss_of(node, phase))
        for name, value in found.items():
            store = results.metric_store
            store.log(name=f"{self.label}.{name}", value=float(value), epoch_idx=exec_ctx.epoch_idx, batch_idx=exec_ctx.batch_idx)

    def _batch(self, node: ModelNode, exec_ctx: Any) -> tuple[Any, Any]:
        """Features and targets of what the node read; targets take the outputs' shape where they have as many numbers."""
        (flow,) = node.get_input_data(exec_ctx.inputs, exec_ctx.outputs).values()
        samples, made = (self._of_role(by_role(one)) for one in (flow, exec_ctx.outputs[node.node_id]))
        values = [samples.features, made.get_domain_data(DOMAIN_OUTPUTS), made.targets]
        if not node.has_gradients:
            features, _, targets = values
            return features, targets
        face = adapter(node.backend)
        found: list[Any] = [None if one is None else face.detach(to_backend(one, node.backend)) for one in values]
        features, outputs, targets = found
        if targets is not None and tuple(targets.shape) != tuple(outputs.shape) and _size(targets) == _size(outputs):
            targets = face.reshape(targets, tuple(outputs.shape))
        return features, targets

    def _of_role(self, roles: Mapping[str, SampleData]) -> SampleData:
        if self.role in roles or (self.role is None and len(roles) == 1):
            return roles[self.role] if self.role is not None else next(iter(roles.values()))
        raise ValueError(f"{self.label}: role {self.role!r}, and the rows of {self.node!r} have the roles {', '.join(map(repr, roles))}")

    # -- config and state

    def get_config(self) -> dict[str, Any]:
        """Type, label, order and the arguments; of a probe with ``get_config``, as files need it, its class and config."""
        probe: Any = self.probe
        if isinstance(probe, IConfigurable):
            probe = {"class": type(probe), "config": probe.get_config()}
        return {**self._base_config(), "probe": probe, "node": self.node, "every_n_steps": self.every_n_steps, "role": self.role}

    @classmethod
    def _from_arguments(cls, arguments: dict[str, Any]) -> Self:
        probe = arguments["probe"]
        if isinstance(probe, Mapping):
            arguments = {**arguments, "probe": probe["class"].from_config(probe["config"])}
        return super()._from_arguments(arguments)

    def get_state(self) -> dict[str, Any]:
        """How many steps there were, and the state of a probe that has one."""
        return {"steps": self._steps, **({"probe": self.probe.get_state()} if isinstance(self.probe, IStateful) else {})}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back :meth:`get_state`."""
        self._steps = state["steps"]
        if isinstance(self.probe, IStateful) and "probe" in state:
            self.probe.set_state(state["probe"])


def _size(tensor: Any) -> int:
    found = 1
    for n in tensor.shape:
        found *= int(n)
    return found


def _loss_of(node: ModelNode, phase: Any) -> Any:
    """The losses of a phase on a node, as a probe takes them.

    Raises:
        ValueError: One of them compares something else than outputs and targets of the node.
    """
    losses = [loss for loss in phase.losses if loss.node_id == node.node_id]
    for loss in losses:
        if not loss.compares_targets:
            raise ValueError(f"a probe follows losses of outputs and targets; {loss.label!r} compares {list(loss.inputs.values())}")
    if not losses:
        return None
    if len(losses) == 1 and node.backend is Backend.KEYDNN and losses[0].is_mean_square:
        return "mse"

    def total(prediction: Any, target: Any) -> Any:
        values = [loss.of_tensors(prediction, target) for loss in losses]
        return sum(values[1:], values[0])

    return total
