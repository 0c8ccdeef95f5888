"""Module: the base of every layer, loss and model.

A module keeps three ordered registries: its own parameters, its own buffers (tensors that are state but not learned, such
as running statistics) and its child modules.  Assigning an attribute fills them; each entry is also a plain attribute, so
reading ``self.weight`` costs one dictionary look-up.  Everything else walks these registries, never other attributes.

Structure stamps tell cheaply whether a model may have changed since one last looked: every registration or attribute
assignment (other than of ``training``) gives the module a new, globally increasing number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from keydnn._tensor import Tensor
from keydnn.autograd.modes import RECORDINGS, state
from keydnn.domain.device import Device, as_device
from keydnn.nn.arguments import floating_dtype
from keydnn.nn.hooks import Hooks, RemovableHook
from keydnn.nn.parameter import Parameter

M = TypeVar("M", bound="Module")


@runtime_checkable
class _MovesItself(Protocol):
    """A parameter of another make may lack ``to_``."""

    def to_(self, device: Device) -> Any: ...


class Clock:
    """Counts structural changes of all modules."""

    now = 0


class Module:
    """Base of layers, losses and models.

    Subclasses call ``super().__init__()`` first, assign parameters and child modules as attributes and write ``forward``.

    Attributes:
        training: Whether the module is in training mode (True at the start).

    Example:
        >>> from keydnn.nn import Linear, Module
        >>> class Residual(Module):
        ...     def __init__(self, n):
        ...         super().__init__()
        ...         self.inner = Linear(n, n)
        ...
        ...     def forward(self, x):
        ...         return x + self.inner(x)
        >>> [name for name, _ in Residual(4).named_parameters()]
        ['inner.weight', 'inner.bias']
    """

    training: bool
    _parameters: dict[str, Parameter]
    _buffers: dict[str, Tensor]
    _modules: dict[str, Module]
    _transient: set[str]
    _hooks: Hooks | None = None
    _is_frozen = False
    _stamp = 0

    def __init__(self) -> None:
        self.__dict__.update(training=True, _parameters={}, _buffers={}, _modules={}, _transient=set())
        self._mark()

    # -- running

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the result; subclasses write this.

        Raises:
            NotImplementedError: The class did not.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call :meth:`forward` (also one that was put on the instance) with hooks, if there are any, around it."""
        if RECORDINGS and state.recorder is not None:
            state.recorder.module(self)
        if self._hooks is not None:
            return self._hooks.run(self, args, kwargs)
        try:
            return self.forward(*args, **kwargs)
        except (AttributeError, TypeError) as error:
            better = self._explained(error, args)
            if better is None:
                raise
            raise better from error

    def _explained(self, error: Exception, args: tuple[Any, ...]) -> Exception | None:
        """A clearer error for one that ``forward`` raised, or None."""
        return None

    # -- registries

    def __setattr__(self, name: str, value: Any) -> None:
        if RECORDINGS and state.recorder is not None:
            state.recorder.refuse(f"{type(self).__name__}.{name} is assigned during the step")
        object.__setattr__(self, name, value)
        if name != "training":
            self._enter(name, value)
            self._mark()

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        self._enter(name, None)
        self._mark()

    def _enter(self, name: str, value: Any) -> None:
        """Put ``value`` into the registry of its kind and take ``name`` out of the others."""
        if "_modules" not in self.__dict__:
            if isinstance(value, Parameter | Module):
                raise AttributeError(f"{type(self).__name__}: call super().__init__() before assigning {name!r}")
            return
        home: dict[str, Any] | None = None
        if isinstance(value, Parameter):
            home = self._parameters
        elif isinstance(value, Module):
            home = self._modules
        elif isinstance(value, Tensor) and name in self._buffers:
            home = self._buffers
        for registry in (self._parameters, self._buffers, self._modules):
            if registry is not home:
                registry.pop(name, None)
        if home is not None:
            home[name] = value

    def _place(self, registry: dict[str, Any], name: str, value: Any) -> None:
        """Register under a checked name, whatever ``value`` is, and set the attribute."""
        if not isinstance(name, str) or not name or "." in name:
            raise ValueError(f"{type(self).__name__}: a registered name must be a non-empty string without dots, got {name!r}")
        setattr(self, name, value)
        registry[name] = value

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Register a parameter and set it as attribute; an existing name is overwritten, None does nothing.

        Raises:
            ValueError: The name is empty or holds a dot.
        """
        if parameter is not None:
            self._place(self._parameters, name, parameter)

    def register_module(self, name: str, module: Module | None) -> None:
        """Register a child and set it as attribute; an existing name is overwritten, None does nothing.

        Raises:
            TypeError: ``module`` is no Module.
            ValueError: The name is empty or holds a dot.
        """
        if module is None:
            return
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__}.register_module: {name!r} must be a Module, got {type(module).__name__}")
        self._place(self._modules, name, module)

    def register_buffer(self, name: str, tensor: Tensor | None, *, persistent: bool = True) -> None:
        """Register a tensor that is state but not learned and set it as attribute; None does nothing.

        Args:
            name: Attribute name.
            tensor: The buffer; it moves with the module and never appears in :meth:`parameters`.
            persistent: Whether it belongs to the state that is saved.

        Raises:
            TypeError: ``tensor`` is no Tensor.
            ValueError: The name is empty or holds a dot.
        """
        if tensor is None:
            return
        if not isinstance(tensor, Tensor) or isinstance(tensor, Parameter):
            raise TypeError(f"{type(self).__name__}.register_buffer: {name!r} must be a plain Tensor, got {type(tensor).__name__}")
        self._place(self._buffers, name, tensor)
        (self._transient.discard if persistent else self._transient.add)(name)

    def _mark(self) -> None:
        Clock.now += 1
        self.__dict__["_stamp"] = Clock.now

    # -- walking

    def named_modules(self, prefix: str = "", *, unique: bool = True) -> Iterator[tuple[str, Module]]:
        """Yield ``(dotted.name, module)``, this one (named ``prefix``) first, then all below in order.

        Args:
            prefix: Put before every name.
            unique: Whether a module reached by several paths comes once, under the first.
        """
        seen: set[int] = set()

        def walk(module: Module, path: str) -> Iterator[tuple[str, Module]]:
            if unique:
                if id(module) in seen:
                    return
                seen.add(id(module))
            yield path, module
            for name, child in module._modules.items():
                yield from walk(child, f"{path}.{name}" if path else name)

        return walk(self, prefix)

    def _named_entries(self, registry: str, prefix: str, unique: bool, persistent: bool = False) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix, unique=unique):
            for name, value in getattr(module, registry).items():
                if (unique and id(value) in seen) or (persistent and name in module._transient):
                    continue
                seen.add(id(value))
                yield f"{path}.{name}" if path else name, value

    def named_parameters(self, prefix: str = "", *, unique: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Yield ``(dotted.name, parameter)``: own ones in registration order, then those of each child.

        Args:
            prefix: Put before every name, with a dot.
            unique: Whether a parameter reached by several paths comes once, under the first.
        """
        return self._named_entries("_parameters", prefix, unique)

    def named_buffers(self, prefix: str = "", *, unique: bool = True, persistent: bool = False) -> Iterator[tuple[str, Tensor]]:
        """Yield ``(dotted.name, buffer)`` in the order of :meth:`named_parameters`.

        Args:
            prefix: Put before every name, with a dot.
            unique: Whether a buffer reached by several paths comes once.
            persistent: Whether to leave out those that are not saved.
        """
        return self._named_entries("_buffers", prefix, unique, persistent)

    def parameters(self) -> Iterator[Parameter]:
        """Yield every parameter once: own ones in registration order, then those of each child."""
        return (parameter for _, parameter in self.named_parameters())

    def buffers(self) -> Iterator[Tensor]:
        """Yield every buffer once."""
        return (buffer for _, buffer in self.named_buffers())

    def modules(self) -> Iterator[Module]:
        """Yield this module and everything below it, each once."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield ``(name, module)`` of the direct children."""
        return iter(tuple(self._modules.items()))

    def children(self) -> Iterator[Module]:
        """Yield the direct children."""
        return iter(tuple(self._modules.values()))

    # -- doing something to all

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Call ``fn`` on this module and on each one below; returns self."""
        for module in tuple(self.modules()):
            fn(module)
        return self

    def train(self: M, mode: bool = True) -> M:
        """Set training mode here and below, where nothing is frozen; returns self."""
        self.__dict__["training"] = bool(mode) and not self._is_frozen
        for child in self._modules.values():
            child.train(mode)
        return self

    def eval(self: M) -> M:
        """Set evaluation mode here and below; returns self."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to None."""
        for parameter in self.parameters():
            parameter.zero_grad()

    def requires_grad_(self: M, flag: bool = True) -> M:
        """Whether gradients flow to the parameters; returns self.  See also :meth:`freeze`."""
        for parameter in self.parameters():
            parameter.requires_grad = bool(flag)
        return self

    def freeze(self: M) -> M:
        """Keep this module as it is: no gradients for its parameters, and evaluation mode whatever :meth:`train` says.

        So running statistics stay and dropout is off while the rest of a model is trained.  Checkpoints do not note it.

        Returns:
            self.

        Example:
            >>> body = keydnn.Sequential(keydnn.Linear(4, 8), keydnn.BatchNorm1d(8)).freeze()
            >>> model = keydnn.Sequential(body, keydnn.Linear(8, 2)).train()
            >>> model.training, body.training, sum(p.requires_grad for p in model.parameters())
            (True, False, 2)
        """
        return self._freeze(True)

    def unfreeze(self: M) -> M:
        """Undo :meth:`freeze` here and below: gradients for all parameters, training mode; returns self."""
        return self._freeze(False)

    def _freeze(self: M, flag: bool) -> M:
        for module in self.modules():
            module.__dict__["_is_frozen"] = flag
            module._mark()
        return self.train(not flag).requires_grad_(not flag)

    def astype(self: M, dtype: Any) -> M:
        """Convert floating parameters and buffers here and below, in place; gradients are dropped.

        Optimizers keep moments of the former dtype: make them afterwards.  Lazy layers will make their parameters in it.

        Args:
            dtype: float32 or float64.

        Returns:
            self.

        Raises:
            TypeError: ``dtype`` is neither.

        Example:
            >>> keydnn.Linear(2, 3).astype("float64").weight.dtype
            dtype('float64')
        """
        target = floating_dtype(dtype, self)
        for module in self.modules():
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor.dtype.kind == "f" and tensor.dtype != target:
                    tensor._astype_(target)
            if isinstance(module.__dict__.get("dtype"), np.dtype):  # what layers say of themselves
                module.__dict__["dtype"] = target
            module._mark()
        return self

    def to(self: M, device: Device | str) -> M:
        """Move parameters, buffers and children; parameter objects may be replaced.

        Args:
            device: Device or device string.

        Raises:
            TypeError: ``device`` is neither.
            RuntimeError: The device is not available.
        """
        return self._move(self._target(device, "to"), in_place=False)

    def to_(self: M, device: Device | str) -> M:
        """Like :meth:`to`, keeping each tensor object that can move itself, so that optimizers stay valid."""
        return self._move(self._target(device, "to_"), in_place=True)

    def _target(self, device: Any, what: str) -> Device:
        if device is None:
            raise TypeError(f"{type(self).__name__}.{what}: expected a Device or a device string, got None")
        return as_device(device, owner=f"{type(self).__name__}.{what}")

    def _move(self: M, device: Device, *, in_place: bool) -> M:
        moved: dict[int, tuple[Any, Any]] = {}  # holds the old objects too, so that no id is used twice
        for module in tuple(self.modules()):
            for registry in (module._parameters, module._buffers):
                for name, value in tuple(registry.items()):
                    if id(value) not in moved:
                        moved[id(value)] = (value, _moved(value, device, in_place))
                    if moved[id(value)][1] is not value:
                        module._place(registry, name, moved[id(value)][1])
            module._to_extra_(device)
            if module.__dict__.get("device", device) is not device:
                module.device = device  # type: ignore[attr-defined]
        return self

    def _to_extra_(self, device: Device) -> None:
        """Hook: move whatever else the module holds; parameters and buffers have been moved."""

    # -- state and config

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters and persistent buffers by dotted name; shared ones appear under each name."""
        return {name: value.numpy() for name, value in self._state()}

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.named_parameters(unique=False)
        yield from self.named_buffers(unique=False, persistent=True)

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> tuple[list[str], list[str]]:
        """Write named arrays into the parameters and buffers, in place and cast to their dtypes; all or none.

        Args:
            state: Name to array or Tensor, as :meth:`state_dict` gives.
            strict: Whether missing and unknown names are errors.

        Returns:
            The missing and the unknown names.

        Raises:
            KeyError: Names are missing or unknown and ``strict`` is true.
            ValueError: A shape differs.
        """
        here = list(self._state())
        found = {id(tensor) for name, tensor in here if name in state}
        missing = [name for name, tensor in here if id(tensor) not in found]
        unknown = sorted(set(state) - {name for name, _ in here})
        if strict and (missing or unknown):
            hint = "; a lazy layer has no parameters before it is built" if unknown else ""
            raise KeyError(f"{type(self).__name__}.load_state_dict: missing {missing}, unknown {unknown}{hint}")
        arrays = [(tensor, name, np.asarray(state[name])) for name, tensor in here if name in state]
        for tensor, name, array in arrays:
            if array.shape != tensor.shape:
                raise ValueError(f"{type(self).__name__}.load_state_dict: {name!r} has shape {array.shape}, expected {tensor.shape}")
        for tensor, _, array in arrays:
            tensor.copy_from_numpy(array)
        return missing, unknown

    def get_config(self) -> dict[str, Any]:
        """The hyperparameters of the constructor, as JSON values.

        Raises:
            NotImplementedError: The class does not implement it.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not implement get_config(), so it cannot be written to a checkpoint; write get_config and"
            " from_config, or keep its weights alone (Model.save_weights, Module.state_dict)"
        )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Module:
        """A new module from what :meth:`get_config` gave, with fresh weights.

        Raises:
            NotImplementedError: The class does not implement it.
        """
        raise NotImplementedError(f"{cls.__name__} does not implement from_config(), so it cannot be read from a checkpoint")

    # -- hooks

    def register_forward_pre_hook(self, hook: Callable[[Module, tuple[Any, ...]], Any]) -> RemovableHook:
        """Call ``hook(module, args)`` before each forward pass; what it returns other than None replaces the arguments."""
        return self._hooked().add("before", hook)

    def register_forward_hook(self, hook: Callable[[Module, tuple[Any, ...], Any], Any]) -> RemovableHook:
        """Call ``hook(module, args, output)`` after each forward pass; what it returns other than None replaces the output."""
        return self._hooked().add("after", hook)

    def register_backward_hook(self, hook: Callable[[Module, Tensor], Tensor | None]) -> RemovableHook:
        """Call ``hook(module, grad)`` with the gradient of the (single Tensor) output; a returned Tensor replaces it."""
        return self._hooked().add("backward", hook)

    def _hooked(self) -> Hooks:
        if self._hooks is None:
            self._hooks = Hooks()
        self._mark()
        return self._hooks

    # -- showing

    def extra_repr(self) -> str:
        """What the repr shows between the parentheses."""
        return ""

    def __repr__(self) -> str:
        own = [f"{name} {tensor.shape}" for name, tensor in self._parameters.items()]
        if self._parameters or self._modules:
            total = sum(parameter.numel() for parameter in self.parameters())
            own.append(f"{total:,} parameter{'' if total == 1 else 's'}")
        note = f"  # {', '.join(own)}" if own else ""
        if not self._modules:
            return f"{type(self).__name__}({self.extra_repr()}){note}"
        lines = [f"{type(self).__name__}({self.extra_repr()}{note}"]
        for name, child in self._modules.items():
            lines += f"({name}): {child!r}".split("\n")
        return "\n  ".join(lines) + "\n)"


def _moved(value: Any, device: Device, in_place: bool) -> Any:
    if in_place and isinstance(value, _MovesItself):
        value.to_(device)
        return value
    return value.to(device)


def latest_stamp() -> int:
    """The stamp of the latest structural change of any module; unchanged means that no module changed."""
    return Clock.now


def structure_stamp(module: Module) -> int:
    """The latest structural change of ``module`` or of anything below it."""
    return max(m._stamp for m in module.modules())
