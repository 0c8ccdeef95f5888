"""AppliedLoss: a loss, the node it is applied to, and what it compares there.

With w_i the mean weight of the roles of the inputs times the product of their masks, and l_i the mean of the loss of row i
over its other axes, the value is ``weight * sum_i w_i l_i / B``.  A loss that comes as one number is ``weight`` times that.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter, to_backend
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data.execution_context import ExecutionContext
from keydnn.experiment.equality import same_values
from keydnn.experiment.errors import BackendMismatchError, LossError, ResolutionError
from keydnn.experiment.names import DOMAIN_FEATURES, DOMAIN_OUTPUTS, DOMAIN_TAGS, DOMAIN_TARGETS
from keydnn.experiment.references import FeatureSetColumnReference, ModelOutputReference, parse_column
from keydnn.experiment.registration import kinds_of
from keydnn.experiment.training.loss import Loss
from keydnn.experiment.visualization.summary import summary_box

_DOMAINS = (DOMAIN_OUTPUTS, DOMAIN_TARGETS, DOMAIN_TAGS, DOMAIN_FEATURES)


@dataclass(frozen=True)
class _Value:
    """One input of a loss: its tensor, and weights and mask of its role."""

    tensor: Any
    weights: np.ndarray
    mask: np.ndarray


class AppliedLoss:
    """A loss at a model node.

    Args:
        loss: The loss.
        on: The node, its id or its label.
        inputs: References, in a list (positional) or a dict (by keyword): ``"outputs"``, ``"targets"``, with a role behind a dot,
            with the label of an executed node in front; the text of a column; a ModelOutputReference or FeatureSetColumnReference.
        weight: Factor of the value.
        label: Name among the losses; None takes that of the loss.

    Raises:
        TypeError: ``loss`` is no Loss, ``on`` no node, ``inputs`` neither list nor dict.
        KeyError: No such node.
        BackendMismatchError: The loss is of another backend than the node.
    """

    def __init__(
        self, loss: Loss, on: Any, inputs: Sequence[Any] | Mapping[str, Any], *, weight: float = 1.0, label: str | None = None
    ) -> None:
        if not isinstance(loss, Loss):
            raise TypeError(f"loss must be a Loss, got {type(loss).__name__}")
        if not isinstance(on, str) and "ModelNode" not in kinds_of(on):
            raise TypeError(f"on must be a model node, its id or its label, got {type(on).__name__}")
        if isinstance(inputs, str) or not isinstance(inputs, Mapping | Sequence) or not inputs:
            raise TypeError(f"inputs must be a list or a dict of references, got {inputs!r}")
        node: Any = on if not isinstance(on, str) else ExperimentContext.get_active().get_node(on, enforce_type="ModelNode")
        self.loss, self._node, self.weight = loss, node, float(weight)
        self.inputs: dict[str, Any] = dict(inputs) if isinstance(inputs, Mapping) else {str(i): one for i, one in enumerate(inputs)}
        self._by_position = not isinstance(inputs, Mapping)
        self.label = loss.name if label is None else label
        self._warned = False
        self._checked: Any = None  # what the loss calls, when its backend was last compared with that of the node
        own = [one for one in self.inputs.values() if isinstance(one, str) and one in _DOMAINS]
        self._local = own if self._by_position and len(own) == len(self.inputs) else None  # domains of the node's own samples
        self._check_backend()

    @property
    def node_id(self) -> str:
        """Id of the node."""
        return self._node.node_id

    @property
    def backend(self) -> Backend:
        """Backend of the loss, else of the node."""
        return self.loss.backend if self.loss.has_backend else self._node.backend

    def _check_backend(self) -> None:
        mine, nodes = self.backend, self._node.backend
        arrays = (Backend.NUMPY, Backend.SCIKIT, Backend.NONE)
        if mine is not nodes and not (mine in arrays and nodes in arrays):
            raise BackendMismatchError(
                f"loss {self.label!r} is of backend {mine.value!r}, node {self._node.label!r} of {nodes.value!r}",
                expected=nodes,
                received=mine,
            )

    @property
    def compares_targets(self) -> bool:
        """Whether it compares outputs and targets of its node, in this order, and nothing else."""
        return self._local == [DOMAIN_OUTPUTS, DOMAIN_TARGETS]

    @property
    def is_mean_square(self) -> bool:
        """Whether its value is the mean of the squared differences of outputs and targets."""
        told = self.loss.get_config()["loss"]  # a function may be called so, too
        plain = isinstance(told, str) and told.lower() == "mse" and self.loss.reduction in ("none", "mean")
        return self.compares_targets and plain and self.weight == 1

    # -- value

    def of_tensors(self, *inputs: Any) -> Any:
        """The value of tensors of the node's framework, in the order of the inputs, all rows counting the same; with history.

        Raises:
            LossError: The loss failed, or gives neither a value per row nor one number.
        """
        if not self.loss.is_built:
            self.loss.build(backend=self._node.backend)
        face = adapter(self._node.backend)
        tensors = self._aligned(list(inputs), face)
        return self._value(self.loss(*tensors), None, int(tensors[0].shape[0]), face)

    def compute(self, ctx: ExecutionContext) -> Any:
        """The value in one step: a scalar of the backend, with history.

        Args:
            ctx: The step, with the output of the node.

        Raises:
            ResolutionError: An input cannot be found in the step.
            BackendMismatchError: The loss is of another backend than the node.
            LossError: The loss failed, or gives neither a value per row nor one number.
        """
        if self._checked is None or self.loss.fn is not self._checked:
            self._check_built()
        output = ctx.outputs.get(self._node.node_id)
        if self._local is not None and output is not None and output.is_plain:
            samples = output.role_data.only
            told = None if samples is None else samples.tensors(self._local)
            if told is not None:
                return self._of_plain(told, output)
        backend = self._node.backend
        return self._of_any(ctx, backend, adapter(backend))

    def _check_built(self) -> None:
        """Build the loss, if it is not, and compare its backend with that of the node."""
        if not self.loss.is_built:
            self.loss.build(backend=self._node.backend)
        self._check_backend()
        self._checked = self.loss.fn

    def _of_plain(self, tensors: list[Any], output: Any) -> Any:
        """The value for samples of the node's own that all count once."""
        backend = self._node.backend
        if output.ready is None or output.ready[0] is not backend or DOMAIN_TAGS in self._local:  # type: ignore[operator]
            tensors = [to_backend(tensor, backend) for tensor in tensors]
        face = adapter(backend)
        first, last = tensors[0], tensors[-1]
        if len(tensors) != 2 or self.loss.wants_classes or first.shape != last.shape:
            tensors = self._aligned(tensors, face)
            first, last = tensors[0], tensors[-1]
        mean = self.loss.mean(*tensors) if first.shape and first.shape == last.shape else None
        if mean is not None:
            return mean if self.weight == 1 else mean * self.weight
        return self._value(self.loss(*tensors), None, output.batch_size, face)

    def _of_any(self, ctx: ExecutionContext, backend: Backend, face: Any) -> Any:
        """The value for inputs of any kind, with weights and masks."""
        values = [self._read(one, ctx) for one in self.inputs.values()]
        own = [to_backend(value.tensor, backend) for value in values]
        tensors = self._aligned([face.beside(tensor, own[0]) for tensor in own], face)
        raw = self.loss(*tensors) if self._by_position else self.loss(**dict(zip(self.inputs, tensors, strict=True)))
        weights = np.mean([value.weights for value in values], axis=0) * np.prod([value.mask for value in values], axis=0)
        return self._value(raw, None if np.all(weights == 1) else weights, len(weights), face)

    def _value(self, raw: Any, weights: np.ndarray | None, size: int, face: Any) -> Any:
        """The value from what the loss gave; weights None are all 1."""
        shape = tuple(getattr(raw, "shape", ()))
        if shape and shape[0] == size:
            if weights is None and size:  # the usual case, and one that can be recorded
                mean = face.mean(raw)
                return mean if self.weight == 1 else mean * self.weight
            rows = face.row_means(raw)
            told = np.ones(size) if weights is None else weights
            if size and np.all(told == told[0]):
                return face.total(rows) * float(self.weight * told[0] / size)
            return face.weighted_sum(rows, told * (self.weight / max(1, size)))
        if int(np.prod(shape)) != 1:
            raise LossError(f"{self.label!r} gave shape {shape}; expected {size} rows, or one number")
        if weights is not None:
            if not self._warned:
                warnings.warn(
                    f"loss {self.label!r} comes as one number, so the weights and masks of its samples do not apply; use reduction='none'",
                    stacklevel=4,
                )
                self._warned = True
            if not np.any(weights):
                return face.total(raw) * 0.0
        return face.total(raw) * self.weight

    def _aligned(self, tensors: list[Any], face: Any) -> list[Any]:
        """Tensors of one size under one shape; for losses over classes outputs (B, C) and targets (B,)."""
        first = tensors[0]
        if self.loss.wants_classes and len(tensors) == 2:
            return self._for_classes(tensors, face)
        shape = tuple(first.shape)
        full = [one for one in shape if one != 1]
        return [
            face.reshape(one, shape) if tuple(one.shape) != shape and [n for n in one.shape if n != 1] == full else one for one in tensors
        ]

    @staticmethod
    def _for_classes(tensors: list[Any], face: Any) -> list[Any]:
        outputs, targets = tensors
        size = outputs.shape[0]
        rest = [n for n in outputs.shape[1:] if n != 1]
        if len(rest) <= 1:
            outputs = face.reshape(outputs, (size, *(rest or [1])))
        if int(np.prod(targets.shape)) == size:
            targets = face.reshape(targets, (size,))
            whole = face.is_whole(targets)
            if whole or holds_whole(face.to_numpy(face.cut(targets))):
                targets = face.to_whole(targets)
        return [outputs, targets]

    # -- reading inputs

    def _read(self, one: Any, ctx: ExecutionContext) -> _Value:
        if isinstance(one, ModelOutputReference):
            return self._from_output(self._output(one.resolve_node_id(ctx), ctx), one.domain, one.role, one)
        if isinstance(one, FeatureSetColumnReference):
            return self._from_column(one, None, ctx)
        if not isinstance(one, str):
            raise ResolutionError(f"loss {self.label!r}: {one!r} is no reference")
        return self._from_text(one, ctx)

    def _from_text(self, text: str, ctx: ExecutionContext) -> _Value:
        words = text.split(".")
        output = self._output(self.node_id, ctx)
        if words[0] == self._node.label and len(words) > 1 and words[1] in _DOMAINS:
            words = words[1:]
        if words[0] in _DOMAINS and (len(words) == 1 or (len(words) == 2 and words[1] in output.available_roles)):
            return self._from_output(output, words[0], words[1] if len(words) == 2 else None, text)
        other = self._executed(words, ctx)
        if other is not None:
            return other
        role = words[-1] if len(words) > 1 and words[-1] in output.available_roles else None
        column = parse_column(".".join(words[:-1] if role else words), [self._source(ctx)])
        return self._from_column(column, role, ctx)

    def _executed(self, words: list[str], ctx: ExecutionContext) -> _Value | None:
        """The value of another node that ran in this step, named by its label."""
        if len(words) < 2 or words[1] not in _DOMAINS:
            return None
        nodes = ExperimentContext.get_active().available_nodes
        named = [node_id for node_id in ctx.outputs if node_id in nodes and nodes[node_id].label == words[0]]
        if not named:
            return None
        return self._from_output(ctx.outputs[named[0]], words[1], words[2] if len(words) > 2 else None, ".".join(words))

    def _output(self, node_id: str, ctx: ExecutionContext) -> Any:
        if node_id not in ctx.outputs:
            raise ResolutionError(f"loss {self.label!r}: node {node_id!r} has no output in this step")
        return ctx.outputs[node_id]

    def _from_output(self, output: Any, domain: str, role: str | None, text: Any) -> _Value:
        roles = output.available_roles
        if role is None and len(roles) != 1:
            raise ResolutionError(f"loss {self.label!r}: {text!r} needs one of the roles {', '.join(roles)} behind it")
        chosen = roles[0] if role is None else role
        if chosen not in roles:
            raise ResolutionError(f"loss {self.label!r}: {text!r} names role {chosen!r}; there are {', '.join(roles)}")
        tensor = output.get_data(chosen, domain)
        if tensor is None:
            raise ResolutionError(f"loss {self.label!r}: there are no {domain} in this step")
        return _Value(tensor, np.asarray(output.role_weights[chosen]), np.asarray(output.role_masks[chosen]))

    def _source(self, ctx: ExecutionContext) -> Any:
        sources = {view.source.node_id: view.source for view in ctx.input_views.values()}
        if len(sources) != 1:
            raise ResolutionError(f"loss {self.label!r}: a column needs exactly one feature set in the step, there are {len(sources)}")
        return next(iter(sources.values()))

    def _from_column(self, column: FeatureSetColumnReference, role: str | None, ctx: ExecutionContext) -> _Value:
        fits = [view for view in ctx.input_views.values() if column.node_id in (None, view.source.node_id)]
        if not fits:
            raise ResolutionError(f"loss {self.label!r}: no batch of this step comes from the feature set of {column.to_string()!r}")
        batch = fits[0].materialize_batch(columns=[column.column])
        domain = column.domain
        return self._from_output(batch, domain, role, column.to_string())

    # -- config

    def get_config(self) -> dict[str, Any]:
        """The loss's config, the node by label and id, and the rest."""
        inputs: Any = list(self.inputs.values()) if self._by_position else dict(self.inputs)
        return {"loss": self.loss.get_config(), "on": self.node_id, "inputs": inputs, "weight": self.weight, "label": self.label}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> AppliedLoss:
        """The applied loss a config describes; its node is looked for in the active context."""
        return cls(**{**config, "loss": Loss.from_config(config["loss"])})

    def summary(self, max_width: int = 88) -> str:
        """A box of text with the loss, its node and what it compares."""
        inputs = [(name, one if isinstance(one, str) else one.to_string()) for name, one in self.inputs.items()]
        rows: list[tuple[str, Any]] = [("label", self.label), ("loss", self.loss.name), ("node", self._node.label)]
        return summary_box(type(self).__name__, [*rows, ("inputs", inputs), ("weight", f"{self.weight:g}")], max_width)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AppliedLoss) and same_values(self.get_config(), other.get_config())

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"AppliedLoss({self.label!r} on {self._node.label!r}, inputs={list(self.inputs.values())}, weight={self.weight:g})"


def holds_whole(array: np.ndarray) -> bool:
    """Whether floats are class numbers: a column of a framework's tensor is float32 whatever it was in the table."""
    return bool(np.all(np.isfinite(array)) and np.all(array == np.floor(array)))
