"""BaseModel: what the graph expects of a model of any framework."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.equality import same_values
from keydnn.experiment.errors import ShapeSpecError
from keydnn.experiment.io import Saved

Shape = tuple[int, ...]


def as_shape(value: Any, what: str) -> Shape | None:
    """A shape as a tuple of ints, or None.

    Raises:
        ShapeSpecError: Not a sequence of ints above 0.
    """
    if value is None:
        return None
    if isinstance(value, int | np.integer):
        value = (value,)
    shape = tuple(value) if isinstance(value, Sequence) else ()
    if (not shape and value != ()) or not all(isinstance(n, int | np.integer) and n > 0 for n in shape):
        raise ShapeSpecError(f"{what} must be a tuple of ints above 0, without the batch axis, got {value!r}")
    return tuple(int(n) for n in shape)


class BaseModel(Saved, abc.ABC):
    """A model that a graph can build, run, train, save and load.

    A subclass passes the arguments of its constructor on, ``super().__init__(backend, **init_args)``: its config is made of them.

    Args:
        backend: Whose tensors it takes.
        **init_args: Arguments of the subclass's constructor.
    """

    kind = "md"

    def __init__(self, backend: Backend | str, **init_args: Any) -> None:
        self._backend = Backend.from_value(backend)
        self._init_args = init_args

    @property
    def backend(self) -> Backend:
        """Whose tensors it takes."""
        return self._backend

    @property
    @abc.abstractmethod
    def input_shape(self) -> Shape | None:
        """Shape of an input without the batch axis; None until it is known."""

    @property
    @abc.abstractmethod
    def output_shape(self) -> Shape | None:
        """Shape of an output without the batch axis; None until it is known."""

    @abc.abstractmethod
    def build(self, input_shape: Shape | None = None, output_shape: Shape | None = None, *, force: bool = False) -> None:
        """Make the layers for these shapes.

        Args:
            input_shape: Of an input.
            output_shape: Of an output.
            force: Whether a built model is built again, with fresh weights.
        """

    @abc.abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs of a batch."""

    @abc.abstractmethod
    def get_weights(self) -> dict[str, np.ndarray]:
        """Weights by name, copied."""

    @abc.abstractmethod
    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take back :meth:`get_weights`."""

    def reset_weights(self) -> None:
        """Fresh weights."""
        self.build(self.input_shape, self.output_shape, force=True)

    @property
    def module(self) -> Any:
        """The framework's object that holds the parameters; None without one."""
        return None

    @property
    def is_built(self) -> bool:
        """Whether both shapes are known."""
        return self.input_shape is not None and self.output_shape is not None

    @property
    def takes_any_output_shape(self) -> bool:
        """Whether an output shape may be chosen for it; not of a model that is there already."""
        return True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    # -- config and state

    def get_init_args(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return dict(self._init_args)

    def get_config(self) -> dict[str, Any]:
        """``model_class``, ``init_args``, ``backend``, ``is_built`` and both shapes."""
        return {
            "model_class": type(self),
            "init_args": self.get_init_args(),
            "backend": self._backend.value,
            "is_built": self.is_built,
            "input_shape": self.input_shape,
            "output_shape": self.output_shape,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The model a config describes, built if it was."""
        made = config.get("model_class", cls)(**config["init_args"])
        if config.get("is_built") and not made.is_built:
            made.build(as_shape(config["input_shape"], "input_shape"), as_shape(config["output_shape"], "output_shape"))
        return made

    def get_state(self) -> dict[str, Any]:
        """``weights``."""
        return {"weights": self.get_weights()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take back :meth:`get_state`."""
        self.set_weights(state["weights"])

    def __eq__(self, other: object) -> bool:
        return (
            type(self) is type(other)
            and isinstance(other, BaseModel)
            and same_values(self.get_init_args(), other.get_init_args())
            and same_values(self.get_weights(), other.get_weights())
        )

    __hash__ = object.__hash__
