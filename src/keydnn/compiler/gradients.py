"""Gradients of a replayed step: Tensors that are copied out of the plan's memory when somebody reads them."""

from __future__ import annotations

import sys
from typing import Any

from keydnn._tensor import Tensor
from keydnn.compiler.ir import View
from keydnn.compiler.plan import Plan


class PlanGradient(Tensor):
    """A gradient that still lies in a plan's memory; reading it makes it an ordinary Tensor.

    Args:
        plan: The plan whose last step made it.
        view: Where it lies.
    """

    def __init__(self, plan: Plan, view: View) -> None:
        self.__dict__["_source"] = (plan, view)

    def __getattr__(self, name: str) -> Any:
        if name != "_data":
            raise AttributeError(f"'Tensor' object has no attribute {name!r}")
        plan, view = self.__dict__.pop("_source")
        self.__class__ = Tensor  # type: ignore[assignment]
        self._data = plan.read(view)
        return self._data

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.clone().__deepcopy__(memo)


class Gradients:
    """The ``.grad`` of some tensors after each replay.

    Args:
        plan: The plan.
        entries: Tensors with the view of their gradient, or None for a gradient that is None after the step.
    """

    def __init__(self, plan: Plan, entries: list[tuple[Any, View | None]]) -> None:
        self.plan = plan
        self.made = [(t, view) for t, view in entries if view is not None]
        self.none = [t for t, view in entries if view is None]
        self.lazy: list[PlanGradient | None] = [None] * len(self.made)

    def before(self) -> None:
        """Copy out what somebody still holds, before the memory is written again."""
        lazy = self.lazy
        for i in range(len(lazy)):
            if lazy[i] is not None and sys.getrefcount(lazy[i]) > 3 - (self.made[i][0].grad is not lazy[i]):
                if "_source" in lazy[i].__dict__:  # type: ignore[union-attr]
                    lazy[i]._data  # noqa: B018 - reading copies it out
                lazy[i] = None

    def after(self) -> None:
        """Let ``.grad`` of every tensor stand for the new gradient."""
        lazy = self.lazy
        for i, (tensor, view) in enumerate(self.made):
            g = lazy[i]
            if g is None or tensor.grad is not g or "_source" not in g.__dict__:
                tensor.grad = lazy[i] = PlanGradient(self.plan, view)
        for tensor in self.none:
            tensor.grad = None
