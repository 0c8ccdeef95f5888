"""ModelHolder: what concerns the model of a node alone: its shapes, its parameters, freezing, where it stands."""

from __future__ import annotations

from typing import Any

from keydnn.experiment.backends.accelerator import Accelerator
from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.graph.nodes import ComputeNode, Shape
from keydnn.experiment.models import BaseModel


class ModelHolder(ComputeNode):
    """A node with a model; abstract: a subclass sets the model and says what is done with it."""

    _model: BaseModel
    _accelerator: Accelerator | None
    _flags: list[bool] | None  # of the parameters before the node was frozen
    _is_frozen: bool

    # -- what it is

    @property
    def model(self) -> BaseModel:
        """The model."""
        return self._model

    @property
    def backend(self) -> Backend:
        """Whose model it is."""
        return self._model.backend

    @property
    def input_shape(self) -> Shape | None:
        """Shape of an input without the batch axis; None until it is known."""
        return self._model.input_shape

    @property
    def output_shape(self) -> Shape | None:
        """Shape of an output without the batch axis; None until it is known."""
        return self._model.output_shape

    @property
    def is_built(self) -> bool:
        """Whether the model is built."""
        return self._model.is_built

    @property
    def accelerator(self) -> Accelerator | None:
        """Where it stands, if that was said."""
        return self._accelerator

    @property
    def face(self) -> Any:
        """The adapter of its framework."""
        return adapter(self.backend)

    @property
    def has_gradients(self) -> bool:
        """Whether gradients pass through it and its parameters learn from them."""
        return self.backend.needs_optimizer

    def parameters(self) -> list[Any]:
        """Parameters of the framework; none for scikit-learn and before it is built."""
        return self.face.parameters(self._model.module) if self.has_gradients and self._model.module is not None else []

    def trainable_parameters(self) -> list[Any]:
        """The parameters that want gradients."""
        return [parameter for parameter in self.parameters() if self.face.is_trainable(parameter)]

    # -- freezing

    @property
    def is_frozen(self) -> bool:
        """Whether it does not learn."""
        return self._is_frozen

    def freeze(self) -> None:
        """Stop learning: parameters want no gradient, the model runs in evaluation mode."""
        parameters = self.parameters()
        if parameters and self._flags is None:
            self._flags = [self.face.is_trainable(parameter) for parameter in parameters]
            self.face.set_trainable(parameters, [False] * len(parameters))
        self._is_frozen = True

    def unfreeze(self) -> None:
        """Learn again: each parameter gets its own flag back."""
        if self._flags is not None:
            self.face.set_trainable(self.parameters(), self._flags)
            self._flags = None
        self._is_frozen = False

    def set_mode(self, training: bool) -> None:
        """Training or evaluation mode of the framework's model."""
        model = self._model
        if model.backend.needs_optimizer and model.module is not None:
            adapter(model.backend).set_modes(model.module, training)

    # -- devices

    def stand(self, accelerator: Accelerator | None) -> bool:
        """Move the model to its own accelerator or else to this one; None leaves it. Whether it moved.

        Raises:
            RuntimeError: The device is not available; the message names node and device.
        """
        where = self._accelerator or accelerator
        if where is None or not self.has_gradients:
            return False
        where.require(self.backend, self.label)
        return self._model.module is not None and self.face.place_model(self._model.module, where)

    def _placed(self, tensor: Any, backend: Backend, where: Accelerator | None) -> Any:
        wanted = self._accelerator or where
        if wanted is not None or backend is not self.backend or not self.has_gradients:
            return super()._placed(tensor, backend, wanted)
        first = next(iter(self.parameters()), None)
        return tensor if first is None else self.face.beside(tensor, first)  # where the model was left
