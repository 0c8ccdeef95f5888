"""Loss: which loss is wanted, built when its backend is known."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, Self

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.infer import infer_backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.backends.torch_losses import mean_of
from keydnn.experiment.equality import same_values
from keydnn.experiment.errors import LossError, LossNotSetError
from keydnn.experiment.io import Saved
from keydnn.experiment.training.optimizer import named
from keydnn.experiment.visualization.summary import summary_box

_ENDINGS = ("", "loss")
_FAILED = object()  # stands where a value would be
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Loss(Saved):
    """A loss by name, class, function or factory; built lazily.

    Args:
        loss: Name of a class of ``torch.nn`` (with or without "loss"), in ``keras.losses``, or of the engine
            (``mse mae sse bce cce`` and its loss classes), in any case; or a class; or a function ``(outputs, targets, ...)``.
        loss_kwargs: Arguments of the class, or of the function beside its inputs.
        backend: Needed with a name and with a factory; None for a function takes the backend of the node it is applied to.
        reduction: "none", "mean" or "sum", given to the class.
        factory: Instead of ``loss``: a function without arguments that returns a loss.

    Raises:
        ValueError: Both ``loss`` and ``factory``.
        LossError: Neither; a name without backend; an unknown name.
        TypeError: ``loss`` is neither text nor callable.

    Example:
        >>> from keydnn.experiment.training import Loss
        >>> loss = Loss("mse", backend="keydnn")
        >>> loss.build()(keydnn.tensor([[1.0], [3.0]]), keydnn.tensor([[0.0], [0.0]])).tolist()
        [[1.0], [9.0]]
    """

    kind = "ls"

    def __init__(
        self,
        loss: str | Callable[..., Any] | None = None,
        *,
        loss_kwargs: Mapping[str, Any] | None = None,
        backend: Backend | str | None = None,
        reduction: str = "none",
        factory: Callable[[], Any] | None = None,
    ) -> None:
        if loss is not None and factory is not None:
            raise ValueError("a Loss needs either loss or factory, got both")
        if loss is None and factory is None:
            raise LossError("a Loss needs loss or factory, got neither")
        if loss is not None and not isinstance(loss, str) and not callable(loss):
            raise TypeError(f"loss must be a name, a class or a function, got {type(loss).__name__}: {loss!r}")
        self._loss, self._factory, self._kwargs, self.reduction = loss, factory, dict(loss_kwargs or {}), reduction
        self._backend = Backend.from_value(backend) if backend is not None else None if isinstance(loss, str) else infer_backend(loss)
        self._fn: Any = None
        self._mean: Any = None
        self._wants_classes = False
        if self._backend is None and (isinstance(loss, str) or factory is not None):
            raise LossError(f"{self!r} has no backend; give backend=")
        if isinstance(loss, str):
            self._find()

    # -- what it is

    @property
    def backend(self) -> Backend:
        """Whose tensors it takes.

        Raises:
            LossError: A function or class that tells none, and the loss is not built for a node yet.
        """
        if self._backend is None:
            raise LossError(f"{self!r} has no backend yet: it takes that of the node it is applied to, or give backend=")
        return self._backend

    @property
    def has_backend(self) -> bool:
        """Whether the backend is known."""
        return self._backend is not None

    @property
    def name(self) -> str:
        """The name, or that of the class or function."""
        if isinstance(self._loss, str):
            return self._loss
        source = self._loss if self._loss is not None else self._factory
        return getattr(source, "__name__", type(source).__name__)

    @property
    def cls(self) -> type | None:
        """The class, if it is one."""
        found = self._find() if isinstance(self._loss, str) else self._loss
        return found if isinstance(found, type) else None

    @property
    def fn(self) -> Any:
        """What is called; None until it is built."""
        return self._fn

    @property
    def kwargs(self) -> dict[str, Any]:
        """Arguments of the class or function."""
        return dict(self._kwargs)

    @property
    def is_built(self) -> bool:
        """Whether it can be called."""
        return self._fn is not None

    @property
    def allowed_keywords(self) -> list[str]:
        """Names of the inputs that it takes by keyword.

        Raises:
            RuntimeError: Not built.
        """
        if self._fn is None:
            raise LossNotSetError(f"{self!r} is not built: call build() first")
        inner = getattr(self._fn, "fn", self._fn)
        target = getattr(inner, "forward", inner)
        return [name for name, parameter in inspect.signature(target).parameters.items() if parameter.kind in _POSITIONAL]

    @property
    def wants_classes(self) -> bool:
        """Whether the targets are class numbers (B,) beside outputs (B, C)."""
        return self._wants_classes

    # -- building and use

    def _find(self) -> Any:
        known = adapter(self._backend or Backend.NONE).losses()
        found = named(known, str(self._loss), _ENDINGS)
        if found is None:
            raise LossError(f"unknown {self._backend.value} loss {self._loss!r}; known: {', '.join(sorted(known))}")  # type: ignore[union-attr]
        return found

    def build(self, *, backend: Backend | str | None = None, force_rebuild: bool = False, **kwargs: Any) -> Self:
        """Make it callable.

        Args:
            backend: Backend of the node it is applied to; taken where the loss tells none.
            force_rebuild: Whether one that is built may be built again.
            **kwargs: More arguments of the class.

        Returns:
            Self.

        Raises:
            LossError: It is built already, or cannot be constructed.
        """
        if self._fn is not None and not force_rebuild:
            raise LossError(f"{self!r} is built already; pass force_rebuild=True to build it again")
        if self._backend is None and backend is not None:
            self._backend = Backend.from_value(backend)
        self._kwargs.update(kwargs)
        try:
            self._fn = self._made()
        except (TypeError, ValueError) as error:
            raise LossError(f"{self!r} cannot be constructed: {error}") from error
        self._mean = mean_of(self._fn)
        face = adapter(self._backend or Backend.NONE)
        self._wants_classes = hasattr(face, "wants_classes") and face.wants_classes(self._fn)
        return self

    def _made(self) -> Any:
        if self._factory is not None:
            return self._factory()
        found = self._find() if isinstance(self._loss, str) else self._loss
        if isinstance(self._loss, str) or (isinstance(found, type) and self._backend is not None):
            face = adapter(self._backend)  # type: ignore[arg-type]
            return face.make_loss(found, self.reduction, self._kwargs)
        if isinstance(found, type):
            return found(**self._kwargs)
        return _Call(found, self._kwargs) if self._kwargs and callable(found) else found

    def __call__(self, *inputs: Any, **named_inputs: Any) -> Any:
        """The loss of its inputs.

        Raises:
            LossError: Not built, or it failed; the original error is its cause.
        """
        if self._fn is None:
            raise LossNotSetError(f"{self!r} is not built: call build() first")
        made = _FAILED
        try:
            made = self._fn(*inputs, **named_inputs)
        finally:
            if made is _FAILED:
                self._fail((*inputs, *named_inputs.values()))
        return made

    def mean(self, *inputs: Any) -> Any:
        """The mean of the values, if they are made per element and the framework has it in one step; else None.

        Args:
            *inputs: Tensors of one shape.

        Raises:
            LossError: Not built, or it failed; the original error is its cause.
        """
        if self._mean is None:
            return None
        made = _FAILED
        try:
            made = self._mean(*inputs)
        finally:
            if made is _FAILED:
                self._fail(inputs)
        return made

    def _fail(self, inputs: tuple[Any, ...]) -> None:
        """Whatever a user's function raised comes as a LossError that shows the shapes."""
        error = sys.exc_info()[1]
        if isinstance(error, Exception):
            shapes = [tuple(getattr(value, "shape", ())) for value in inputs]
            raise LossError(f"{self!r} failed on inputs of shapes {shapes}: {type(error).__name__}: {error}") from error

    # -- config

    def get_config(self) -> dict[str, Any]:
        """What the user chose; a class or function stands there as itself."""
        return {
            "loss": self._loss,
            "loss_kwargs": dict(self._kwargs),
            "backend": None if self._backend is None else self._backend.value,
            "reduction": self.reduction,
            "factory": self._factory,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The loss a config describes, not built."""
        return cls(**config)

    def summary(self, max_width: int = 88) -> str:
        """A box of text with what the user chose."""
        backend = None if self._backend is None else self._backend.value
        rows: list[tuple[str, Any]] = [("loss", self.name), ("backend", backend), ("reduction", self.reduction)]
        return summary_box(type(self).__name__, [*rows, ("built", self.is_built), ("arguments", list(self._kwargs.items()))], max_width)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loss) and same_values(self.get_config(), other.get_config())

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        backend = "" if self._backend is None else f", backend={self._backend.value!r}"
        return f"Loss({self.name!r}{backend}, reduction={self.reduction!r})"


class _Call:
    """A function with some of its arguments filled in."""

    def __init__(self, fn: Callable[..., Any], kwargs: Mapping[str, Any]) -> None:
        self.fn, self._kwargs = fn, dict(kwargs)

    def __call__(self, *inputs: Any, **named_inputs: Any) -> Any:
        return self.fn(*inputs, **{**self._kwargs, **named_inputs})
