"""Columns of a packed epoch: one tensor per output, one array per loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keydnn.experiment.backends.tensors import adapter, backend_of
from keydnn.experiment.results.scalars import on_host
from keydnn.experiment.results.values import say_tensor
from keydnn.experiment.training import LossRecord

LossKey = tuple[str | None, str]  # node id, label


class Packed:
    """Tensors of several steps, all of one framework, as one along axis 0."""

    def __init__(self, steps: Sequence[int], tensors: Sequence[Any], n_steps: int) -> None:
        self._tensor = adapter(backend_of(tensors[0])).concat(tensors)
        ends = np.cumsum([0, *(int(tensor.shape[0]) for tensor in tensors)])
        self._starts, self._ends = np.zeros(n_steps, np.int32), np.zeros(n_steps, np.int32)
        self._starts[list(steps)], self._ends[list(steps)] = ends[:-1], ends[1:]
        self._there = None if len(steps) == n_steps else frozenset(steps)

    def at(self, i: int) -> Any:
        """The tensor of a step; None if it has none."""
        if self._there is not None and i not in self._there:
            return None
        return self._tensor[int(self._starts[i]) : int(self._ends[i])]

    def get_state(self) -> dict[str, Any]:
        """The tensor, and the rows of each step."""
        there = None if self._there is None else np.array(sorted(self._there), np.int32)
        return {"whole": say_tensor(self._tensor), "starts": self._starts, "ends": self._ends, "there": there}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Packed:
        """From :meth:`get_state`."""
        made = cls.__new__(cls)
        made._tensor, made._starts, made._ends = state["whole"].open(), state["starts"], state["ends"]
        made._there = None if state["there"] is None else frozenset(state["there"].tolist())
        return made


class Loose:
    """Tensors of several steps that do not fit together."""

    def __init__(self, steps: Sequence[int], tensors: Sequence[Any]) -> None:
        self._tensors = dict(zip(steps, tensors, strict=True))

    def at(self, i: int) -> Any:
        """The tensor of a step; None if it has none."""
        return self._tensors.get(i)

    def get_state(self) -> dict[str, Any]:
        """The tensors by step."""
        return {"tensors": {i: say_tensor(tensor) for i, tensor in self._tensors.items()}}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Loose:
        """From :meth:`get_state`."""
        told = state["tensors"]
        return cls(list(told), [one.open() for one in told.values()])


def packed(steps: Sequence[int], tensors: Sequence[Any], n_steps: int) -> Packed | Loose:
    """Tensors of some of ``n_steps`` steps, joined if they can be."""
    first = tensors[0]
    kind, shape, dtype, device = type(first), first.shape, first.dtype, getattr(first, "device", None)
    for one in tensors:
        fits = type(one) is kind and (one.shape == shape or one.shape[1:] == shape[1:])
        if not fits or one.dtype != dtype or getattr(one, "device", None) != device:
            return Loose(steps, tensors)
    return Packed(steps, tensors, n_steps) if len(shape) else Loose(steps, tensors)


def features_from_state(state: Mapping[str, Any]) -> Packed | Loose:
    """What one of the two told of itself."""
    return Loose.from_state(state) if "tensors" in state else Packed.from_state(state)


class LossColumn:
    """The values of one loss over the steps of an epoch."""

    def __init__(self, n_steps: int) -> None:
        self._values = {kind: np.zeros(n_steps) for kind in ("trainable", "auxiliary")}
        self._there = {kind: np.zeros(n_steps, bool) for kind in ("trainable", "auxiliary")}

    def put(self, kind: str, steps: Sequence[int], values: Sequence[Any]) -> None:
        """Set values of some steps."""
        self._values[kind][list(steps)], self._there[kind][list(steps)] = on_host(values), True

    def compact(self) -> LossColumn:
        """Drop what is never there; returns self."""
        for kind in [kind for kind, there in self._there.items() if not there.any()]:
            del self._values[kind], self._there[kind]
        return self

    def get_state(self) -> dict[str, Any]:
        """Values by kind, and where they are there."""
        return {kind: {"values": self._values[kind], "there": there} for kind, there in self._there.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> LossColumn:
        """From :meth:`get_state`."""
        made = cls(0)
        made._values = {kind: told["values"] for kind, told in state.items()}
        made._there = {kind: told["there"] for kind, told in state.items()}
        return made

    def record(self, key: LossKey, i: int) -> LossRecord | None:
        """The record of a step; None if it has none."""
        found = {kind: float(self._values[kind][i]) for kind, there in self._there.items() if there[i]}
        return LossRecord(key[1], key[0], **found) if found else None
