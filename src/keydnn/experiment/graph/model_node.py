"""ModelNode: a model in a graph."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from keydnn.experiment.backends.accelerator import Accelerator
from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import to_backend
from keydnn.experiment.data import Batch, ExecutionContext, SampleData
from keydnn.experiment.errors import BackendMismatchError
from keydnn.experiment.graph import node_steps
from keydnn.experiment.graph.flow import Flow, by_role, checked, mapped
from keydnn.experiment.graph.model_holder import ModelHolder
from keydnn.experiment.graph.nodes import Reference, Shape
from keydnn.experiment.graph.shapes import source_shapes
from keydnn.experiment.models import wrap_model
from keydnn.experiment.random_states import of_node
from keydnn.experiment.references import FeatureSetReference
from keydnn.experiment.training import AppliedLoss, Optimizer


class ModelNode(ModelHolder):
    """A model with one input.

    Args:
        label: Name.
        model: A BaseModel, or a model of torch, Keras, scikit-learn or keydnn, which is wrapped.
        upstream_ref: What it reads: a FeatureSet (all its columns), a FeatureSetReference, another node or its reference.
        optimizer: Of its own, for training stage by stage.
        accelerator: Where it stands; None leaves that to the phase.
        node_id: Given only when a node is loaded.
        register: Whether the active context learns about the node.

    Raises:
        TypeError: ``upstream_ref`` or ``optimizer`` is something else.
        ValueError: The input cannot be found.
        BackendMismatchError: The optimizer is of another backend.
        NotImplementedError: A model of no known framework.

    Example:
        >>> from keydnn.experiment import FeatureSet
        >>> from keydnn.experiment.graph import ModelNode
        >>> cells = FeatureSet.from_dict("readings", {"u": np.ones((8, 4)), "age": np.ones(8)}, "u", "age")
        >>> node = ModelNode("net", keydnn.Sequential(keydnn.Flatten(), keydnn.Dense(1)), cells)
        >>> node.build_model((1, 4))
        >>> node.output_shape
        (1,)
    """

    max_upstream_refs = 1

    def __init__(
        self,
        label: str,
        model: Any,
        upstream_ref: Any,
        optimizer: Optimizer | None = None,
        accelerator: Accelerator | str | None = None,
        *,
        node_id: str | None = None,
        register: bool = True,
    ) -> None:
        wrapped = wrap_model(model)
        if upstream_ref is None or isinstance(upstream_ref, list | tuple):
            many = "none" if upstream_ref is None else len(upstream_ref)
            raise TypeError(f"node {label!r} reads exactly one input, got {many}; several are joined by a merge node")
        self._model, self._accelerator = wrapped, Accelerator.from_value(accelerator)
        self._optimizer = self._fitting(optimizer, label)
        self._flags = None
        self._is_frozen = False
        self._chosen: Shape | None = None  # output shape that the model left open
        super().__init__(label, upstream_ref, node_id=node_id, register=register)

    def _fitting(self, optimizer: Optimizer | None, label: str) -> Optimizer | None:
        if optimizer is None:
            return None
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"the optimizer of node {label!r} must be an Optimizer, got {type(optimizer).__name__}")
        if optimizer.backend is None:
            optimizer.backend = self._model.backend
        if optimizer.backend is not self._model.backend and optimizer.backend is not None:
            raise BackendMismatchError(
                f"node {label!r} is of backend {self._model.backend.value!r}, its optimizer of {optimizer.backend.value!r}",
                expected=self._model.backend,
                received=optimizer.backend,
            )
        return optimizer

    @property
    def optimizer(self) -> Optimizer | None:
        """Its own optimizer."""
        return self._optimizer

    def drop_optimizer(self) -> None:
        """Go without an optimizer of its own."""
        self._optimizer = None

    # -- building

    def build(self, input_shapes: Mapping[Reference, Shape] | None = None, output_shape: Shape | None = None, **kwargs: Any) -> None:
        """Build for the shape of its one input."""
        shape = None if not input_shapes else input_shapes[self.upstream_ref]
        self.build_model(shape, output_shape, **kwargs)

    def build_model(self, input_shape: Shape | None = None, output_shape: Shape | None = None, *, force: bool = False) -> None:
        """Build the model and its optimizer.

        Args:
            input_shape: None takes what is known.
            output_shape: None leaves it to the model.
            force: Whether a built model is built again, with fresh weights.

        Raises:
            ValueError: No input shape, or shapes other than those it is built for, without ``force``.
            RuntimeError: The model cannot be built for these shapes.
        """
        fresh = force or not self._model.is_built
        self._model.build(input_shape, output_shape, force=force)
        if self._is_frozen and fresh:
            self._flags = None
            self.freeze()
        if self._optimizer is not None and (fresh or not self._optimizer.is_built):
            self._optimizer.build(parameters=self.parameters(), force_rebuild=True)

    def build_towards(self, input_shape: Shape | None, targets: Shape | None, *, force: bool = False) -> None:
        """Build for inputs and, if the model leaves its outputs open, for outputs like the targets; a shape of its own always wins."""
        is_open = self._model.takes_any_output_shape and self._model.output_shape in (None, self._chosen)
        self.build_model(input_shape, targets if is_open and (force or not self._model.is_built) else None, force=force)
        if is_open:
            self._chosen = self._model.output_shape

    def _build_from_upstream(self) -> None:
        source = self.upstream_ref
        if not isinstance(source, FeatureSetReference):
            raise RuntimeError(f"node {self.label!r} is not built, and its input is another node: build the graph first")
        features, targets = source_shapes(source)
        self.build_towards(features, targets)

    # -- forward

    def forward(self, inputs: Mapping[Reference, Flow], **kwargs: Any) -> Flow:
        """The data of its one input through the model."""
        (data,) = inputs.values()
        return self.forward_single(data, **kwargs)

    def forward_single(self, x: Flow, **kwargs: Any) -> Flow:
        """Features through the model; targets, tags, ids, weights and masks pass.

        In a run of an experiment the model's random numbers are the node's own, whatever else runs beside it.

        Args:
            x: SampleData, RoleData or a Batch, in any format.
            **kwargs: Arguments of the model's forward.

        Raises:
            RuntimeError: The model is not built and cannot be built from the node's input.
        """
        data = checked(x, f"the input of node {self.label!r}")
        if not self.is_built:
            self._build_from_upstream()
        if isinstance(data, Batch):
            return self._batch_through(data, **kwargs)
        backend = self._model.backend
        with self._own_numbers(backend) or contextlib.nullcontext():
            return mapped(data, lambda samples: self._run(samples, backend, kwargs))

    def _batch_through(self, batch: Batch, **kwargs: Any) -> Batch:
        backend = self._model.backend
        block = self._own_numbers(backend)
        if block is None:
            return self._through(batch, backend, kwargs)
        with block:
            return self._through(batch, backend, kwargs)

    def _through(self, batch: Batch, backend: Backend, kwargs: Mapping[str, Any]) -> Batch:
        made = {}
        for role, samples in batch.role_data.parts.items():
            made[role] = self._run(samples, backend, kwargs)
        return batch.with_samples(made)

    def _own_numbers(self, backend: Backend) -> Any:
        """A block in which random numbers are the node's own, or None."""
        return of_node(self._label, backend, self._model.module if backend.needs_optimizer else None)

    def _run(self, samples: SampleData, backend: Backend, kwargs: Mapping[str, Any]) -> SampleData:
        features = samples.features
        if features is None:
            raise ValueError(f"node {self.label!r} needs features, the data have {', '.join(samples.domains)}")
        return samples.with_outputs(self._model(to_backend(features, backend), **kwargs))

    def __call__(self, x: Flow, **kwargs: Any) -> Flow:
        return self.forward_single(x, **kwargs)

    # -- steps

    def train_step(
        self,
        ctx: ExecutionContext,
        losses: Sequence[AppliedLoss],
        *,
        accelerator: Accelerator | str | None = None,
        data: Flow | None = None,
    ) -> None:
        """Forward, its losses, backward, a step of its own optimizer; output and losses go into ``ctx``.

        Args:
            ctx: The step, with the node's input.
            losses: Losses of the phase; those of other nodes are left out.
            accelerator: Where the node stands if it does not say itself.
            data: The input, if it is not in ``ctx``.

        Raises:
            RuntimeError: The node is frozen, has no optimizer and needs one, or its device is not available.
            ValueError: There is no loss on it.
        """
        if self._is_frozen:
            raise RuntimeError(f"node {self.label!r} is frozen: unfreeze it, or use eval_step")
        batch = self._input(ctx, accelerator, data)
        learn = node_steps.train if self.has_gradients else node_steps.learn_batch
        learn(self, ctx, batch, losses)

    def eval_step(
        self,
        ctx: ExecutionContext,
        losses: Sequence[AppliedLoss] | None = None,
        *,
        accelerator: Accelerator | str | None = None,
        data: Flow | None = None,
    ) -> None:
        """Forward without gradients in evaluation mode; losses are auxiliary.

        Raises:
            RuntimeError: The node is not frozen, or its device is not available.
        """
        if not self._is_frozen:
            raise RuntimeError(f"node {self.label!r} is not frozen: freeze it first, or use train_step")
        self.run_without_gradients(ctx, losses, accelerator=accelerator, data=data)

    def run_without_gradients(
        self,
        ctx: ExecutionContext,
        losses: Sequence[AppliedLoss] | None = None,
        *,
        accelerator: Accelerator | str | None = None,
        data: Flow | None = None,
        training: bool = False,
    ) -> None:
        """Forward without gradients, in a mode; output and auxiliary losses go into ``ctx``."""
        node_steps.run(self, ctx, self._input(ctx, accelerator, data), losses or [], training)

    def fit_step(
        self,
        ctx: ExecutionContext,
        losses: Sequence[AppliedLoss] | None = None,
        *,
        accelerator: Accelerator | str | None = None,
        data: Flow | None = None,
    ) -> None:
        """``model.fit`` on the whole input, all roles joined, then forward and auxiliary losses.

        Raises:
            RuntimeError: The node is frozen, or its device is not available.
            AttributeError: The model cannot fit.
        """
        if self._is_frozen:
            raise RuntimeError(f"node {self.label!r} is frozen: unfreeze it before a fit step")
        if not self.can_fit:
            raise AttributeError(f"the model of node {self.label!r}, a {type(self._model).__name__}, has no fit method")
        node_steps.fit(self, ctx, self._input(ctx, accelerator, data), losses or [])

    @property
    def can_fit(self) -> bool:
        """Whether the model learns from all rows at once."""
        return callable(getattr(self._model, "fit", None))

    def stand(self, accelerator: Accelerator | None) -> bool:
        """Like that of every holder of a model; what its optimizer learned moves too."""
        moved = super().stand(accelerator)
        if moved and self._optimizer is not None:
            self._optimizer.follow()
        return moved

    def _input(self, ctx: ExecutionContext, accelerator: Accelerator | str | None, data: Flow | None) -> Flow:
        where = Accelerator.from_value(accelerator)
        self.stand(where)
        if data is not None:
            return data
        (found,) = self.get_input_data(ctx.inputs, ctx.outputs, accelerator=where).values()
        return found

    def build_for(self, batch: Flow) -> None:
        """Build for the shapes of a batch."""
        samples = next(iter(by_role(batch).values()))
        targets = None if samples.targets is None else tuple(samples.targets.shape[1:])
        self.build_towards(self._model.input_shape or tuple(samples.features.shape[1:]), targets)

    # -- weights, config, state

    def reset_weights(self) -> None:
        """Fresh weights and optimizer state; frozen stays frozen."""
        frozen = self._is_frozen
        self.unfreeze()
        self._model.reset_weights()
        if self._optimizer is not None:
            self._optimizer.reset()
            if self.is_built:
                self._optimizer.build(parameters=self.parameters())
        if frozen:
            self.freeze()

    def get_config(self) -> dict[str, Any]:
        """Keys of every graph node, and ``model optimizer frozen accelerator``."""
        return {
            **super().get_config(),
            "model": self._model.get_config(),
            "optimizer": None if self._optimizer is None else self._optimizer.get_config(),
            "frozen": self._is_frozen,
            "accelerator": None if self._accelerator is None else self._accelerator.get_config(),
        }

    @classmethod
    def _made(cls, config: Mapping[str, Any], register: bool) -> ModelNode:
        (upstream,) = config["upstream_refs"]
        optimizer, accelerator = config["optimizer"], config["accelerator"]
        node = cls(
            config["label"],
            config["model"]["model_class"].from_config(config["model"]),
            upstream,
            None if optimizer is None else Optimizer.from_config(optimizer),
            None if accelerator is None else Accelerator.from_config(accelerator),
            node_id=config["node_id"],
            register=register,
        )
        if config["frozen"]:
            node.freeze()
        return node

    def get_state(self) -> dict[str, Any]:
        """``super`` (label, connections, shapes, own flags of frozen parameters), ``model``, ``optimizer`` and ``frozen``."""
        built = {
            "shapes": (self.input_shape, self.output_shape) if self.is_built else None,
            "flags": None if self._flags is None else list(self._flags),
        }
        return {
            "super": {**super().get_state(), **built},
            "model": self._model.get_state(),
            "optimizer": None if self._optimizer is None else self._optimizer.get_state(),
            "frozen": self._is_frozen,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state; a model that was built then is built first, one that was not gets fresh weights."""
        below = state["super"]
        super().set_state(below)
        self.unfreeze()
        if below["shapes"] is not None and not self.is_built:
            features, outputs = below["shapes"]
            self.build_model(features, outputs if self._model.takes_any_output_shape else None)
        if below["shapes"] is None and self.is_built and state["model"]["weights"].keys() != self._model.get_weights().keys():
            self._model.reset_weights()
        else:
            self._model.set_state(state["model"])
        if state["frozen"]:
            self.freeze()
            self._flags = None if below["flags"] is None or self._flags is None else list(below["flags"])
        if self._optimizer is not None and state["optimizer"] is not None:
            self._optimizer.set_state(state["optimizer"])

    def _summary_rows(self) -> list[tuple[str, Any]]:
        shapes = f"{self.input_shape} -> {self.output_shape}" if self.is_built else "not built"
        source = self.upstream_ref.node_label if self.upstream_ref is not None else None
        facts = [("model", repr(self._model)), ("backend", self.backend.value), ("shapes", shapes), ("input", source)]
        return [*super()._summary_rows(), *facts, ("frozen", self._is_frozen), ("optimizer", repr(self._optimizer))]

    def __repr__(self) -> str:
        return f"ModelNode({self.label!r}, {self._model!r})"
