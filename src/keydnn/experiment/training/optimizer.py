"""Optimizer: which update rule is wanted, built when the parameters are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.infer import infer_backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.equality import same_values
from keydnn.experiment.errors import BackendNotSupportedError, OptimizerError, OptimizerNotSetError
from keydnn.experiment.io import Saved

_TINY = 1e-6  # keeps the quotient finite when all gradients are 0
_NEEDS_PARAMETERS = (Backend.TORCH, Backend.KEYDNN)


def named(table: Mapping[str, Any], name: str, endings: Sequence[str] = ("",)) -> Any:
    """The entry under a name, whatever the case of its letters and with or without an ending; None if there is none."""
    lower = {key.lower().replace("_", ""): value for key, value in table.items()}
    wanted = name.lower().replace("_", "")
    return next((lower[wanted + ending] for ending in endings if wanted + ending in lower), None)


class Optimizer(Saved):
    """An update rule by name, by class or by factory; built lazily.

    Args:
        opt: Name in ``torch.optim``, ``keras.optimizers`` or ``keydnn.optimizers``, in any case, or a class from there.
        opt_kwargs: Arguments of the class, such as ``{"lr": 1e-3}``.
        factory: Instead of ``opt``: a function of the parameters that returns the framework's optimizer.
        backend: Needed with a name and with a factory; a class tells its own.
        clip_norm: Bound of the norm of all gradients together, above 0; None does not clip.
        clip_value: Bound of each element of the gradients, above 0; None does not clip.
        schedule: Function from the number of steps made to a multiplier of the learning rate, or a scheduler class of the framework.

    Raises:
        ValueError: Both or neither of ``opt`` and ``factory``; a bound that is not above 0.
        TypeError: ``opt`` is neither a string nor a class.
        OptimizerError: An unknown name (raised when the backend is known), or no backend for a factory.

    Example:
        >>> from keydnn.experiment.training import Optimizer
        >>> Optimizer("adam", opt_kwargs={"lr": 0.001}, backend="keydnn")
        Optimizer('adam', lr=0.001)
    """

    kind = "op"

    def __init__(
        self,
        opt: str | type | None = None,
        *,
        opt_kwargs: Mapping[str, Any] | None = None,
        factory: Callable[[Any], Any] | None = None,
        backend: Backend | str | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        schedule: Any = None,
    ) -> None:
        if (opt is None) == (factory is None):
            raise ValueError("an Optimizer needs either opt or factory, " + ("got both" if opt is not None else "got neither"))
        if opt is not None and not isinstance(opt, str | type):
            raise TypeError(f"opt must be a name or a class, got {type(opt).__name__}: {opt!r}")
        for name, bound in (("clip_norm", clip_norm), ("clip_value", clip_value)):
            if bound is not None and not bound > 0:
                raise ValueError(f"{name} must be above 0, got {bound!r}")
        self._opt, self._factory, self._kwargs = opt, factory, dict(opt_kwargs or {})
        self.clip_norm, self.clip_value, self.schedule = clip_norm, clip_value, schedule
        inferred = infer_backend(opt) if isinstance(opt, type) else None
        self._backend = inferred if backend is None else Backend.from_value(backend)
        self._instance: Any = None
        self._scheduler: Any = None
        self._parameters: list[Any] = []
        self._waiting: dict[str, Any] | None = None
        self._steps = 0
        self._base_rates: list[float] = []
        if isinstance(opt, str) and self._backend is not None:
            self._find(self._backend)

    @classmethod
    def from_factory(cls, factory: Callable[[Any], Any], *, backend: Backend | str) -> Self:
        """An optimizer that a function of the parameters makes."""
        return cls(factory=factory, backend=backend)

    # -- what it is

    @property
    def backend(self) -> Backend | None:
        """Whose optimizer it is; settable until it is built.

        Raises:
            ValueError: Set to another backend after it was built.
        """
        return self._backend

    @backend.setter
    def backend(self, value: Backend | str) -> None:
        wanted = Backend.from_value(value)
        if self._instance is not None and wanted is not self._backend:
            raise ValueError(f"{self!r} is built for {self._backend}; build it again with force_rebuild=True for {wanted}")
        if isinstance(self._opt, str):
            self._find(wanted)
        self._backend = wanted

    @property
    def name(self) -> str:
        """The name, the name of the class, or "<custom>" for a factory."""
        if self._factory is not None:
            return "<custom>" if self._instance is None else type(self._instance).__name__
        return self._opt if isinstance(self._opt, str) else self._opt.__name__  # type: ignore[union-attr]

    @property
    def cls(self) -> type | None:
        """The class, once it is known."""
        if self._instance is not None:
            return type(self._instance)
        if isinstance(self._opt, str):
            return None if self._backend is None else self._find(self._backend)
        return self._opt

    @property
    def kwargs(self) -> dict[str, Any]:
        """Arguments of the class."""
        return dict(self._kwargs)

    @property
    def instance(self) -> Any:
        """The framework's optimizer, or None."""
        return self._instance

    @property
    def parameters(self) -> list[Any]:
        """The parameters it was built for."""
        return list(self._parameters)

    @property
    def is_built(self) -> bool:
        """Whether there is an instance."""
        return self._instance is not None

    # -- building

    def _find(self, backend: Backend) -> type:
        known = self._adapter(backend, "an optimizer").optimizers()
        found = named(known, str(self._opt))
        if found is None:
            raise OptimizerError(f"unknown {backend.value} optimizer {self._opt!r}; known: {', '.join(sorted(known))}")
        return found

    @staticmethod
    def _adapter(backend: Backend, what: str) -> Any:
        if not backend.needs_optimizer:
            raise BackendNotSupportedError(f"{what} is not implemented for backend {backend.value!r}", backend=backend, method="build")
        return adapter(backend)

    def build(self, *, parameters: Sequence[Any] | None = None, backend: Backend | str | None = None, force_rebuild: bool = False) -> Any:
        """Make the framework's optimizer.

        Args:
            parameters: What it updates; torch and the engine need them.
            backend: Whose optimizer; None takes the one that is known.
            force_rebuild: Whether one that is built may be replaced.

        Returns:
            The framework's optimizer.

        Raises:
            OptimizerNotSetError: It is built already.
            OptimizerError: The backend is unknown, or so is the name there.
            ValueError: Another backend than the one that is known; no parameters where they are needed.
            BackendNotSupportedError: A backend without optimizers.
        """
        if self._instance is not None and not force_rebuild:
            raise OptimizerNotSetError(f"{self!r} is built already; pass force_rebuild=True to replace it")
        wanted = self._backend if backend is None else Backend.from_value(backend)
        if wanted is None:
            raise OptimizerError(f"{self!r} has no backend; give backend= here or to the constructor")
        if self._backend is not None and wanted is not self._backend:
            raise ValueError(f"{self!r} is of backend {self._backend.value!r}, cannot be built for {wanted.value!r}")
        face = self._adapter(wanted, f"building {self!r}")
        params = list(parameters or [])
        if wanted in _NEEDS_PARAMETERS and not params:
            raise ValueError(f"{self!r} needs parameters to be built for {wanted.value}")
        if self._factory is not None:
            made = self._factory(params)
        else:
            cls = self._find(wanted) if isinstance(self._opt, str) else self._opt
            made = cls(params, **self._kwargs) if wanted in _NEEDS_PARAMETERS else cls(**self._kwargs)  # type: ignore[misc]
            if wanted is Backend.TENSORFLOW and params:
                made.build(params)
        self._backend, self._instance, self._parameters = wanted, made, params
        self._base_rates, self._steps = face.rates(made), 0
        self._scheduler = self.schedule(made) if isinstance(self.schedule, type) else None
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self.set_state({"internal": waiting})
        return made

    def rebuild(self, parameters: Sequence[Any], *, keep: bool = True) -> None:
        """Build for these parameters; what it learned about those it had already stays, unless ``keep`` is False.

        Args:
            parameters: What it updates from now on.
            keep: Whether to keep state; nothing happens at all if the parameters are the same.
        """
        same = [id(p) for p in parameters] == [id(p) for p in self._parameters]
        if self._instance is not None and keep and same:
            return
        old, steps, rates = self._instance, self._steps, self._base_rates
        self.build(parameters=parameters, force_rebuild=True)
        if old is not None and keep:
            self._built().carry_over(old, self._instance)
            self._steps, self._base_rates = steps, rates

    def _built(self) -> Any:
        if self._instance is None:
            raise OptimizerNotSetError(f"{self!r} is not built: call build(parameters=...) first")
        return adapter(self._backend)  # type: ignore[arg-type]

    # -- use

    def zero_grad(self) -> None:
        """Forget the gradients of the parameters.

        Raises:
            OptimizerNotSetError: Not built.
        """
        self._built().zero_grad(self._instance)

    def step(self, grads: Sequence[Any] | None = None, variables: Sequence[Any] | None = None, *, norm: float | None = None) -> None:
        """One update.

        Args:
            grads: Gradients; TensorFlow needs them, the others keep theirs with the parameters.
            variables: What the gradients belong to.
            norm: Norm of the gradients that ``clip_norm`` looks at, if more than these count; None works it out.

        Raises:
            OptimizerNotSetError: Not built.
            ValueError: TensorFlow without gradients and variables.
        """
        if self._backend is Backend.TENSORFLOW and (grads is None or variables is None):
            self._built()
            raise ValueError(f"{self!r}: a TensorFlow step needs grads and variables")
        if self.schedule is not None:
            self.before_update()
        self.update(grads, variables, norm=norm)
        self._steps += 1
        if self._scheduler is not None:
            self._scheduler.step()

    def before_update(self) -> None:
        """The first part of :meth:`step`: the learning rate."""
        if callable(self.schedule) and self._scheduler is None:
            self._built().set_rates(self._instance, [rate * self.schedule(self._steps) for rate in self._base_rates])

    def update(self, grads: Sequence[Any] | None = None, variables: Sequence[Any] | None = None, *, norm: float | None = None) -> None:
        """The second part of :meth:`step`: clipping and the framework's update."""
        face = self._built()
        if self.clip_value is None and self.clip_norm is None and grads is None:
            face.optimize(self._instance)
            return
        own = face.gradients(self._parameters) if grads is None else list(grads)
        if self.clip_value is not None:
            own = face.limit(own, self.clip_value)
        if self.clip_norm is not None:
            own = face.clip(own, self.clip_norm) if norm is None else face.scale(own, min(1.0, self.clip_norm / (norm + _TINY)))
        face.optimize(self._instance, own, variables)

    def after_update(self) -> None:
        """The last part of :meth:`step`: counting."""
        self._steps += 1
        if self._scheduler is not None:
            self._scheduler.step()

    @property
    def learning_rates(self) -> list[float]:
        """The rates as they are set now, one per group of parameters.

        Raises:
            OptimizerNotSetError: Not built.
        """
        return [float(rate) for rate in self._built().rates(self._instance)]

    @property
    def is_constant(self) -> bool:
        """Whether nothing changes between two updates but what the update itself changes: there is no schedule."""
        return self.schedule is None

    def count(self, steps: int) -> None:
        """Count updates that a plan made."""
        self._steps += steps

    def squared_norm(self, grads: Sequence[Any] | None = None) -> float:
        """Sum of the squares of the gradients, of its own parameters if none are given; float64."""
        face = self._built()
        return face.squared_norm(face.gradients(self._parameters) if grads is None else grads)

    # -- config and state

    def get_config(self) -> dict[str, Any]:
        """``opt opt_kwargs backend``, ``factory`` if there is one, and what else was chosen; classes and functions stand as themselves."""
        told = {"opt": self._opt, "opt_kwargs": dict(self._kwargs), "backend": None if self._backend is None else self._backend.value}
        more = {"factory": self._factory, "clip_norm": self.clip_norm, "clip_value": self.clip_value, "schedule": self.schedule}
        return {**told, **{name: value for name, value in more.items() if value is not None}}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The optimizer a config describes, not built."""
        return cls(**config)

    def get_state(self) -> dict[str, Any]:
        """``is_built`` and ``internal``: steps made, learning rates and what the framework's optimizer has learned, as plain values.

        Of an unbuilt one ``internal`` is what waits for it, or None.
        """
        if self._instance is None:
            return {"is_built": False, "internal": self._waiting}
        inner = {"steps": self._steps, "base_rates": list(self._base_rates), "optimizer": self._built().optimizer_state(self._instance)}
        if self._scheduler is not None:
            inner["scheduler"] = {key: value for key, value in self._scheduler.state_dict().items() if _is_plain(value)}
        return {"is_built": True, "internal": inner}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take back :meth:`get_state`; of an unbuilt optimizer it is applied when it is built.

        A state of one that was not built makes one that is start anew.
        """
        inner = state["internal"]
        if self._instance is None:
            self._waiting = None if inner is None else dict(inner)
            return
        if inner is None:
            self.build(parameters=self._parameters, force_rebuild=True)
            return
        self._built().set_optimizer_state(self._instance, inner["optimizer"])
        self._steps, self._base_rates = inner["steps"], list(inner["base_rates"])
        if self._scheduler is not None and "scheduler" in inner:
            self._scheduler.load_state_dict(dict(inner["scheduler"]))

    def follow(self) -> None:
        """Move what was learned to where the parameters are now."""
        if self._instance is not None:
            self._built().follow(self._instance)

    def reset(self) -> None:
        """Forget the instance and what it learned."""
        self._instance, self._waiting, self._parameters, self._steps = None, None, [], 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Optimizer) and self.get_config() == other.get_config() and same_values(self.get_state(), other.get_state())

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        if self._factory is not None and self._instance is None:
            return "Optimizer('<custom>')"
        settings = "".join(f", {key}={value!r}" for key, value in self._kwargs.items())
        return f"Optimizer({self.name!r}{settings})"


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str | list | np.ndarray) or value is None
