"""Gradients of a replayed step: Tensors that are copied out of the plan's memory when somebody reads them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from sys import getrefcount
from typing import Any

from keydnn._tensor import Tensor
from keydnn.compiler.ir import View
from keydnn.compiler.plan import Plan
from keydnn.kernels import native


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
        self._data  # noqa: B018 - reading makes it an ordinary Tensor
        return copy.deepcopy(self, memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        self._data  # noqa: B018
        return self.__reduce_ex__(protocol)


class Gradients:
    """The ``.grad`` of some tensors after each replay.

    Args:
        plan: The plan.
        entries: The tensors whose gradient the step makes, and the view of each.
    """

    def __init__(self, plan: Plan, entries: list[tuple[Any, View]]) -> None:
        self.plan = plan
        self.tensors = [t for t, _ in entries]
        self.views = [view for _, view in entries]
        self.lazy: list[PlanGradient | None] = [None] * len(self.tensors)
        self._only_ours: Callable[..., bool] = native.load().only_ours

    def are_only_ours(self) -> bool:
        """Whether nobody read, holds or replaced a gradient since the last step: then before() and after() have nothing to do."""
        return self._only_ours(self.tensors, self.lazy, PlanGradient)

    def before(self) -> None:
        """Copy out what somebody still holds, before the memory is written again."""
        lazy = self.lazy
        for i in range(len(lazy)):
            g = lazy[i]  # the list, g, the call of getrefcount, and .grad of its tensor refer to it
            if g is not None and getrefcount(g) > 3 and (getrefcount(g) > 4 or self.tensors[i].grad is not g):
                if "_source" in g.__dict__:
                    g._data  # noqa: B018 - reading copies it out
                lazy[i] = None

    def after(self) -> None:
        """Let ``.grad`` of every tensor stand for the new gradient."""
        lazy = self.lazy
        for i, tensor in enumerate(self.tensors):
            g = lazy[i]
            if g is None or tensor.grad is not g or "_source" not in g.__dict__:
                tensor.grad = lazy[i] = PlanGradient(self.plan, self.views[i])
