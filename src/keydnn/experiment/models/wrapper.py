"""Wrappers: models of a framework that know nothing of this wing, as :class:`BaseModel`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.models.base import BaseModel, Shape, as_shape
from keydnn.experiment.models.described import Described

_PROBE = 4  # rows of the batch that a model is tried with


class ModuleWrapper(BaseModel):
    """A module of a framework with gradients: an instance, or a class that is constructed when shapes are known.

    Args:
        model: The instance, or one told by :class:`Described`.
        model_class: Instead of it, a class.
        model_kwargs: Arguments of the class.
        inject_input_shape_as: Name under which the class gets the input shape, if its constructor takes it.
        inject_output_shape_as: Likewise for the output shape.

    Raises:
        ValueError: Neither or both of ``model`` and ``model_class``; a name of your own that the class does not take.
        TypeError: ``model`` is no module of the framework, or ``model_class`` no class.
    """

    BACKEND: ClassVar[Backend]

    def __init__(
        self,
        *,
        model: Any = None,
        model_class: type | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        inject_input_shape_as: str = "input_shape",
        inject_output_shape_as: str = "output_shape",
    ) -> None:
        names = {"inject_input_shape_as": inject_input_shape_as, "inject_output_shape_as": inject_output_shape_as}
        super().__init__(self.BACKEND, model_class=model_class, model_kwargs=dict(model_kwargs or {}), **names)
        if (model is None) == (model_class is None):
            raise ValueError(f"{type(self).__name__} needs either model or model_class, got {'neither' if model is None else 'both'}")
        self._face = adapter(self.BACKEND)
        model = model.make() if isinstance(model, Described) else model
        if model is not None and not self._face.is_model(model):
            raise TypeError(f"{type(self).__name__} needs a {self.BACKEND.value} model, got {type(model).__name__}")
        if model_class is not None and not isinstance(model_class, type):
            raise TypeError(f"model_class must be a class, got {type(model_class).__name__}")
        self._model, self._is_instance = model, model is not None
        self._model_class, self._model_kwargs = model_class, dict(model_kwargs or {})
        self._names = {inject_input_shape_as: "input_shape", inject_output_shape_as: "output_shape"}
        self._input_shape: Shape | None = None
        self._output_shape: Shape | None = None
        self._example: Any = None  # a batch that the model takes
        if model_class is not None:
            self._check_names()

    # -- what it is

    @property
    def model(self) -> Any:
        """The framework's model; None until a class is constructed."""
        return self._model

    @property
    def module(self) -> Any:
        """The framework's model."""
        return self._model

    @property
    def input_shape(self) -> Shape | None:
        """Shape of an input; None until it is known."""
        return self._input_shape

    @property
    def output_shape(self) -> Shape | None:
        """Shape of an output; None until it is known."""
        return self._output_shape

    @property
    def takes_any_output_shape(self) -> bool:
        """Whether the output shape reaches the constructor."""
        return not self._is_instance and any(what == "output_shape" and self._accepts(name) for name, what in self._names.items())

    def _accepts(self, name: str) -> bool:
        taken = inspect.signature(self._model_class).parameters  # type: ignore[arg-type]
        return name in taken or any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in taken.values())

    def _check_names(self) -> None:
        for name, what in self._names.items():
            if name != what and not self._accepts(name):
                raise ValueError(f"{self._model_class.__name__} takes no argument {name!r} for the {what}")  # type: ignore[union-attr]

    # -- building

    def build(self, input_shape: Shape | None = None, output_shape: Shape | None = None, *, force: bool = False) -> None:
        """Construct a class, and try the model with a batch of 4 to learn its output shape.

        Raises:
            ValueError: No input shape; built already for other shapes, without ``force``.
            RuntimeError: Construction or the trial failed, or the output has another shape than was asked for.

        Warns:
            UserWarning: The class takes no argument for a shape.
        """
        wanted_in, wanted_out = as_shape(input_shape, "input_shape") or self._input_shape, as_shape(output_shape, "output_shape")
        if wanted_in is None:
            raise ValueError(f"{self!r} needs input_shape to be built")
        if self.is_built and not force:
            if wanted_in != self._input_shape or wanted_out not in (None, self._output_shape):
                raise ValueError(
                    f"{self!r} is built for {self._input_shape} -> {self._output_shape}; {wanted_in} -> {wanted_out} needs force=True"
                )
            return
        model = self._model if self._is_instance else self._constructed(wanted_in, wanted_out)
        found = self._tried(model, wanted_in)
        if wanted_out is not None and found != wanted_out:
            raise RuntimeError(f"{self!r} gives outputs of shape {found} for inputs of shape {wanted_in}, {wanted_out} was asked for")
        if self._is_instance and self.is_built and force:
            self._face.renew(model, self._example)
        self._model, self._input_shape, self._output_shape = model, wanted_in, found

    def _constructed(self, input_shape: Shape, output_shape: Shape | None) -> Any:
        shapes = {"input_shape": input_shape, "output_shape": output_shape}
        kwargs = dict(self._model_kwargs)
        for name, what in self._names.items():
            if name in kwargs or shapes[what] is None:
                continue
            if self._accepts(name):
                kwargs[name] = shapes[what]
            else:
                warnings.warn(f"{self._model_class.__name__} takes no argument {name!r}: it does not learn the shape", stacklevel=4)  # type: ignore[union-attr]
        try:
            return self._model_class(**kwargs)  # type: ignore[misc]
        except (TypeError, ValueError, RuntimeError, KeyError, AttributeError) as error:
            raise RuntimeError(f"{self._model_class.__name__}({kwargs}) cannot be constructed: {error}") from error  # type: ignore[union-attr]

    def _tried(self, model: Any, input_shape: Shape) -> Shape:
        """Output shape for a small batch, in evaluation mode; modes are as before afterwards."""
        problems: list[str] = []
        modes = self._face.modes(model)
        self._face.set_modes(model, False)
        try:
            for batch in self._face.examples(model, input_shape, _PROBE):
                try:
                    out = self._face.attempt(model, batch)
                except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError, ArithmeticError) as error:
                    problems.append(str(error))
                    continue
                if not self._face.is_tensor(out):
                    raise RuntimeError(f"{self!r} gives {type(out).__name__}, one tensor is expected")
                self._example = batch
                return tuple(int(n) for n in out.shape[1:])
        finally:
            self._face.set_modes(model, modes if len(modes) == len(self._face.modes(model)) else True)
        raise RuntimeError(f"{self!r} fails on a batch of {_PROBE} inputs of shape {input_shape}: {problems[0]}")

    def forward(self, x: Any, training: bool = False) -> Any:
        """The outputs of a batch; an unbuilt model is built for it.

        Args:
            x: Tensor of the framework, (B, ...).
            training: Whether dropout and batch statistics are on; Keras takes it here, the others from ``train()``.
        """
        if self._input_shape is None or self._output_shape is None:
            self.build(tuple(int(n) for n in x.shape[1:]))
        return self._face.call(self._model, x, training)

    def train(self, mode: bool = True) -> None:
        """Training mode."""
        self._face.set_modes(self._model, bool(mode))

    def eval(self) -> None:
        """Evaluation mode."""
        self.train(False)

    def parameters(self) -> list[Any]:
        """The parameters."""
        return [] if self._model is None else self._face.parameters(self._model)

    # -- weights, config

    def get_weights(self) -> dict[str, np.ndarray]:
        """Weights by name; empty before a class is constructed."""
        return {} if self._model is None else self._face.get_weights(self._model)

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take back :meth:`get_weights`.

        Raises:
            RuntimeError: There are weights and no model to put them into.
        """
        if self._model is None:
            if weights:
                raise RuntimeError(f"{self!r} is not built: there is nothing to put {len(weights)} weights into")
            return
        self._face.set_weights(self._model, weights)

    def reset_weights(self) -> None:
        """Fresh weights: of an instance in place, of a class by constructing it again; a model that is not built is left alone."""
        if self._is_instance and self._example is not None:
            self._face.renew(self._model, self._example)
        elif self.is_built:
            self.build(self._input_shape, None, force=True)

    def get_init_args(self) -> dict[str, Any]:
        """Arguments of the constructor; an instance is told by what it is made of, or by its class with the arguments found on it.

        Warns:
            UserWarning: They cannot be found: the model cannot be made again from its config.
        """
        args = super().get_init_args()
        if not self._is_instance:
            return args
        described = Described.of(self.BACKEND, self._model)
        if described is not None:
            return {"model": described, **{name: args[name] for name in args if name.startswith("inject_")}}
        args["model_class"], args["model_kwargs"] = type(self._model), self._recovered()
        return args

    def artifact_config(self) -> dict[str, Any]:
        """:meth:`get_config`, for a file.

        Raises:
            TypeError: A container of the framework that holds what a file cannot tell: it could not be made again.
        """
        if self._is_instance and Described.of(self.BACKEND, self._model) is None and self._face.known.name_of(type(self._model)):
            raise TypeError(
                f"{type(self._model).__name__} holds parts that a file cannot tell: a class of your own, a function, or arguments that are"
                " not kept; put the model into a class in a module (its source is packaged), or build a BaseModel around it"
            )
        return self.get_config()

    def _recovered(self) -> dict[str, Any]:
        kwargs, missing = {}, []
        for name, parameter in inspect.signature(type(self._model)).parameters.items():
            if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                missing += [name] if parameter.kind is inspect.Parameter.VAR_POSITIONAL else []
            elif hasattr(self._model, name):
                kwargs[name] = getattr(self._model, name)
            elif parameter.default is inspect.Parameter.empty:
                missing.append(name)
        if missing:
            warnings.warn(
                f"{type(self._model).__name__} does not keep its arguments {', '.join(missing)}: it cannot be made again from its config",
                stacklevel=3,
            )
        return kwargs

    def __repr__(self) -> str:
        what = type(self._model) if self._model is not None else self._model_class
        return f"{type(self).__name__}({what.__name__})"  # type: ignore[union-attr]


class TorchModelWrapper(ModuleWrapper):
    """A ``torch.nn.Module``, see :class:`ModuleWrapper`."""

    BACKEND = Backend.TORCH


class TensorflowModelWrapper(ModuleWrapper):
    """A Keras model, see :class:`ModuleWrapper`."""

    BACKEND = Backend.TENSORFLOW


class KeydnnModelWrapper(ModuleWrapper):
    """A module of the engine, see :class:`ModuleWrapper`; lazy layers get their sizes from the trial.

    Example:
        >>> from keydnn.experiment.models import KeydnnModelWrapper
        >>> model = KeydnnModelWrapper(model=keydnn.Sequential(keydnn.Dense(3)))
        >>> model.build((2,))
        >>> model.output_shape
        (3,)
    """

    BACKEND = Backend.KEYDNN
