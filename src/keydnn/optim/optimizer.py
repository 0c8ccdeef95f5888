"""Optimizers: what all update rules share.

An optimizer owns a list of parameters, split into groups that share settings, and for each parameter the arrays its rule
needs (its *slots*: velocity, moments, step count).  Slots stand beside their parameter by position, never by ``id``, so a
dead parameter's slots cannot pass to another.  They exist from construction on: a recorded step finds them in place.

The learning rate is a float64 tensor of shape () that the update reads when it runs, so changing it reaches steps that
were recorded earlier.  A group with a rate of its own keeps the ratio of that rate to the optimizer's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from keydnn._tensor import Tensor
from keydnn.domain.errors import ShapeError

DEFAULT_LR = 1e-3


class Group:
    """Parameters that share settings.

    Attributes:
        params: The parameters.
        slots: Per parameter, the tensors of the update rule by name.
        rate: The learning rate, a float64 tensor of shape ().
        own_lr: The rate this group was given, or None.
        scale: That rate divided by the optimizer's, 1 without one.
        options: Settings of the update rule.
    """

    __slots__ = ("params", "slots", "rate", "own_lr", "scale", "options")

    def __init__(self, params: list[Tensor], rate: Tensor, own_lr: float | None, scale: float, options: dict[str, Any]) -> None:
        self.params, self.rate, self.own_lr, self.scale, self.options = params, rate, own_lr, scale, options
        self.slots: list[dict[str, Tensor]] = []

    @property
    def lr(self) -> float:
        """The learning rate of this group."""
        return self.rate.item()


class _Wanted(NamedTuple):
    """A group as the caller described it."""

    params: list[Any]
    lr: float | None
    options: dict[str, Any]


class Optimizer:
    """Base of the update rules; a subclass writes :meth:`_checked`, :meth:`_new_slots` and :meth:`_update`.

    Args:
        params: Iterable of parameters, or of groups: dicts with ``params`` and settings that differ from the optimizer's.
            A parameter that appears twice is stepped once.
        lr: Learning rate, above 0.
        learning_rate: Another name for ``lr``.
        options: Settings of the rule.

    Attributes:
        params: All parameters, in order.
        groups: The groups, in order.

    Raises:
        ValueError: A setting is out of range; both names of the rate are given; groups share a parameter.
        TypeError: A parameter is no Tensor; a group has an unknown setting.
    """

    params: list[Tensor]
    groups: tuple[Group, ...]

    def __init__(self, params: Iterable[Any], lr: float, learning_rate: float | None, options: dict[str, Any]) -> None:
        self._options = self._checked(options)
        self._given_lr = self._chosen_rate(lr, learning_rate)
        self._lr = _scalar(self._given_lr)
        self.groups = tuple(self._make_group(wanted) for wanted in self._wanted(params))
        self.params = [p for group in self.groups for p in group.params]

    # -- what a rule writes

    def _checked(self, options: dict[str, Any]) -> dict[str, Any]:
        """``options`` in their final form; raises for one that is out of range."""
        raise NotImplementedError

    def _new_slots(self, p: Tensor, options: dict[str, Any]) -> dict[str, Tensor]:
        """Fresh slots for ``p``."""
        raise NotImplementedError

    def _update(self, p: Tensor, g: Tensor, slots: dict[str, Tensor], rate: Tensor, options: dict[str, Any]) -> None:
        """Change ``p`` and its slots in place, through kernels only."""
        raise NotImplementedError

    # -- construction

    def _chosen_rate(self, lr: float, learning_rate: float | None) -> float:
        if learning_rate is not None and lr != DEFAULT_LR and lr != learning_rate:
            raise ValueError(f"{self._name}: lr={lr} and learning_rate={learning_rate} are two names for one setting; give one of them")
        return positive(self._name, "lr", lr if learning_rate is None else learning_rate)

    def _wanted(self, params: Iterable[Any]) -> list[_Wanted]:
        if isinstance(params, Tensor):
            raise TypeError(f"{self._name}: params must be an iterable of parameters, got a single Tensor; pass [tensor]")
        if not isinstance(params, Iterable):
            mend = "; call it: model.parameters()" if callable(params) else ""
            raise TypeError(f"{self._name}: params must be an iterable of parameters, got {type(params).__name__}{mend}")
        entries = list(params)
        if not any(isinstance(entry, Mapping) for entry in entries):
            return [_Wanted(self._unique(entries, set()), None, self._options)]
        seen: set[int] = set()
        return [self._wanted_group(i, entry, seen) for i, entry in enumerate(entries)]

    def _wanted_group(self, i: int, entry: Any, seen: set[int]) -> _Wanted:
        where = f"{self._name}: group {i}"
        if not isinstance(entry, Mapping) or "params" not in entry:
            raise TypeError(f"{where} must be a dict with 'params', as the other groups are")
        given = dict(entry)
        params = self._unique([given["params"]] if isinstance(given["params"], Tensor) else list(given["params"]), set())
        shared = seen & {id(p) for p in params}
        if shared:
            raise ValueError(f"{where}: {len(shared)} of its parameters stand in an earlier group")
        seen |= {id(p) for p in params}
        del given["params"]
        if "lr" in given and "learning_rate" in given:
            raise ValueError(f"{where}: lr and learning_rate are two names for one setting; give one of them")
        rate = given.pop("lr", given.pop("learning_rate", None))
        public = self._public(self._options)
        unknown = sorted(given.keys() - public.keys())
        if unknown:
            raise TypeError(f"{where}: unknown settings {', '.join(unknown)}; {self._name} has lr, {', '.join(public)}")
        options = self._checked(public | given)
        return _Wanted(params, None if rate is None else positive(where, "lr", rate), options)

    def _unique(self, params: list[Any], seen: set[int]) -> list[Tensor]:
        found = []
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(f"{self._name}: params must hold Tensors, got {type(p).__name__}")
            if id(p) not in seen:
                seen.add(id(p))
                found.append(p)
        return found

    def _make_group(self, wanted: _Wanted) -> Group:
        rate = self._lr if wanted.lr is None else _scalar(wanted.lr)
        group = Group(wanted.params, rate, wanted.lr, rate.item() / self._given_lr, wanted.options)
        group.slots = [self._new_slots(p, group.options) for p in group.params]
        return group

    # -- the learning rate

    @property
    def lr(self) -> float:
        """The learning rate; setting it reaches every group in proportion, and steps that were recorded before."""
        return self._lr.item()

    @lr.setter
    def lr(self, value: float) -> None:
        number = at_least_zero(self._name, "lr", value)
        for group in self.groups:
            group.rate.copy_from_numpy(np.float64(number * group.scale))
        self._lr.copy_from_numpy(np.float64(number))

    learning_rate = lr

    # -- use

    def step(self) -> None:
        """Update every parameter that has a gradient, in place.

        Raises:
            ValueError: A gradient has another shape than its parameter; nothing was changed.
        """
        for group in self.groups:
            for p in group.params:
                if p.grad is not None and p.grad.shape != p.shape:
                    raise ShapeError(f"{self._name}: a gradient of shape {p.grad.shape} does not fit its parameter of shape {p.shape}")
        for group in self.groups:
            rate, options = group.rate, group.options
            for p, slots in zip(group.params, group.slots, strict=True):
                g = p.grad
                if g is not None:
                    self._update(p, g if g.dtype == p.dtype else g.astype(p.dtype), slots, rate, options)

    def zero_grad(self) -> None:
        """Set every gradient to None."""
        for p in self.params:
            p.zero_grad()

    # -- config: what the user chose

    def get_config(self) -> dict[str, Any]:
        """The settings as JSON values, with the rate that was given (the present one is state); ``groups`` only if they say more."""
        config: dict[str, Any] = {"lr": self._given_lr, **self._public(self._options)}
        groups: list[dict[str, Any]] = [{"n_params": len(group.params), **self._public(group.options)} for group in self.groups]
        for entry, group in zip(groups, self.groups, strict=True):
            if group.own_lr is not None:
                entry["lr"] = group.own_lr
        if len(groups) > 1 or any(entry[key] != config[key] for entry in groups for key in entry.keys() & config.keys()):
            config["groups"] = groups
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any], params: Iterable[Any]) -> Optimizer:
        """An optimizer with the settings of :meth:`get_config` for a flat list of parameters.

        Raises:
            ValueError: The number of parameters is not that of the groups; a setting is out of range.
        """
        settings = dict(config)
        groups = settings.pop("groups", None)
        if groups is None:
            return cls(params, **settings)
        rest, sizes, entries = list(params), [group["n_params"] for group in groups], []
        if sum(sizes) != len(rest):
            raise ValueError(f"{cls.__name__}: groups of {sizes} parameters do not fit {len(rest)} parameters")
        for group, n in zip(groups, sizes, strict=True):
            entries.append({"params": rest[:n], **{key: value for key, value in group.items() if key != "n_params"}})
            rest = rest[n:]
        return cls(entries, **settings)

    def _public(self, options: dict[str, Any]) -> dict[str, Any]:
        """``options`` under the names of the constructor."""
        return dict(options)

    # -- state: what the run learned

    def _named_state(self) -> dict[str, Tensor]:
        named = {"lr": self._lr}
        for i, group in enumerate(self.groups):
            if group.rate is not self._lr:
                named[f"lr.{i}"] = group.rate
        position = 0
        for group in self.groups:
            for slots in group.slots:
                named.update({f"{position}.{name}": tensor for name, tensor in slots.items()})
                position += 1
        return named

    def get_state(self) -> dict[str, np.ndarray]:
        """Copies of the rate and of the slots (``<position>.<slot>``) by name; with them the next step is bit-identical."""
        return {name: tensor.numpy() for name, tensor in self._named_state().items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`, in place; all or nothing.

        Raises:
            KeyError: Names are missing or unknown.
            ValueError: A shape differs.
        """
        here = self._named_state()
        missing, unknown = sorted(here.keys() - state.keys()), sorted(state.keys() - here.keys())
        if missing or unknown:
            raise KeyError(f"{self._name}.set_state: missing {missing}, unknown {unknown}; the state is of other parameters or settings")
        arrays = {name: np.asarray(state[name]) for name in here}
        for name, tensor in here.items():
            if arrays[name].shape != tensor.shape:
                raise ShapeError(f"{self._name}.set_state: {name!r} has shape {arrays[name].shape}, expected {tensor.shape}")
        for name, tensor in here.items():
            tensor.copy_from_numpy(arrays[name])

    def state_dict(self) -> dict[str, Any]:
        """``type``, ``config`` and ``state`` in one dict."""
        return {"type": self._name, "config": self.get_config(), "state": self.get_state()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over settings and state from :meth:`state_dict`; all or nothing.

        Raises:
            TypeError: The dict is of another optimizer.
            KeyError: Entries are missing or unknown.
            ValueError: A setting is out of range, or a shape differs.
        """
        if saved["type"] != self._name:
            raise TypeError(f"{self._name}.load_state_dict: the state is of {saved['type']}")
        twin = type(self).from_config(saved["config"], self.params)
        if [len(group.params) for group in twin.groups] != [len(group.params) for group in self.groups]:
            raise ValueError(f"{self._name}.load_state_dict: the state has other parameter groups")
        twin.set_state(saved["state"])
        if twin._named_state().keys() == self._named_state().keys():
            self.set_state(saved["state"])  # in place: what reads these tensors goes on reading them
            for group, new in zip(self.groups, twin.groups, strict=True):
                group.options, group.own_lr, group.scale = new.options, new.own_lr, new.scale
        else:
            self._lr, self.groups = twin._lr, twin.groups
        self._options, self._given_lr = twin._options, twin._given_lr

    @property
    def _name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        settings = ", ".join(f"{key}={value!r}" for key, value in self.get_config().items() if key != "groups")
        return f"{self._name}({len(self.params)} parameters, {settings})"


def _scalar(value: float) -> Tensor:
    return Tensor(data=np.float64(value))


def _number(owner: str, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{owner}: {name} must be a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{owner}: {name} must be finite, got {value!r}")
    return float(value)


def positive(owner: str, name: str, value: Any) -> float:
    """``value`` as a float above 0.

    Raises:
        TypeError: It is no number.
        ValueError: It is not above 0, or not finite.
    """
    number = _number(owner, name, value)
    if number <= 0:
        raise ValueError(f"{owner}: {name} must be above 0, got {value!r}")
    return number


def at_least_zero(owner: str, name: str, value: Any) -> float:
    """``value`` as a float of at least 0; errors as :func:`positive`."""
    number = _number(owner, name, value)
    if number < 0:
        raise ValueError(f"{owner}: {name} must be at least 0, got {value!r}")
    return number


def fraction(owner: str, name: str, value: Any) -> float:
    """``value`` as a float strictly between 0 and 1; errors as :func:`positive`."""
    number = _number(owner, name, value)
    if not 0 < number < 1:
        raise ValueError(f"{owner}: {name} must lie between 0 and 1, got {value!r}")
    return number
