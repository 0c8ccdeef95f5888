"""Hooks: functions that a user hangs around a module's forward pass or on the gradient of its output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keydnn._tensor import Tensor
from keydnn.autograd.context import Context, Function
from keydnn.autograd.modes import RECORDINGS, state

Hook = Callable[..., Any]


class RemovableHook:
    """Handle of a registered hook.

    Args:
        hooks: The list it stands in.
        hook: The function.
    """

    def __init__(self, hooks: list[Hook], hook: Hook) -> None:
        self._hooks, self._hook = hooks, hook

    def remove(self) -> None:
        """Take the hook off; a second call does nothing."""
        if self._hook in self._hooks:
            self._hooks.remove(self._hook)


class Hooks:
    """The hooks of one module, in order of registration."""

    def __init__(self) -> None:
        self._by_place: dict[str, list[Hook]] = {"before": [], "after": [], "backward": []}

    def add(self, place: str, hook: Hook) -> RemovableHook:
        """Append ``hook`` at ``before``, ``after`` or ``backward``.

        Raises:
            TypeError: It is not callable.
        """
        if not callable(hook):
            raise TypeError(f"a hook must be callable, got {type(hook).__name__}")
        self._by_place[place].append(hook)
        return RemovableHook(self._by_place[place], hook)

    def run(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``module.forward`` with all hooks around it."""
        if RECORDINGS and state.recorder is not None and any(self._by_place.values()):
            state.recorder.refuse(f"{type(module).__name__} has hooks")
        for hook in self._by_place["before"]:
            changed = hook(module, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        output = module.forward(*args, **kwargs)
        for hook in self._by_place["after"]:
            changed = hook(module, args, output)
            output = output if changed is None else changed
        if not self._by_place["backward"]:
            return output
        if not isinstance(output, Tensor):
            raise TypeError(f"{type(module).__name__}: a backward hook needs a single Tensor as output, got {type(output).__name__}")
        return _Tap.apply(output, module=module, hooks=tuple(self._by_place["backward"]))


class CastingHooks(Hooks):
    """The hooks of a layer that computes in a dtype of its own, ``module.dtype``: before them its Tensors are cast to that."""

    def run(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``module.forward`` in ``module.dtype`` with all hooks around it."""
        return super().run(module, tuple([a.astype(module.dtype) if isinstance(a, Tensor) else a for a in args]), kwargs)


class _Tap(Function):
    """The identity, whose way back shows the gradient to hooks."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, *, module: Any, hooks: tuple[Hook, ...]) -> Tensor:  # type: ignore[override]
        ctx.saved_meta.update(module=module, hooks=hooks)
        return x

    @staticmethod
    def backward(ctx: Context, grad_out: Tensor) -> Tensor:
        for hook in ctx.saved_meta["hooks"]:
            changed = hook(ctx.saved_meta["module"], grad_out)
            grad_out = grad_out if changed is None else changed
        return grad_out
