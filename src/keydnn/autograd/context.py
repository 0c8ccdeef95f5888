"""Contexts: what an operation leaves behind for the way back.

A :class:`Context` can be filled by hand (extension code) or through :class:`Function`.  The nodes that primitives
leave (``primitive.Node``) offer the same view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from keydnn.autograd.modes import no_grad, state
from keydnn.domain.errors import GraphError


class Differentiable:
    """Marker base of the values a graph connects (the Tensor class)."""

    __slots__ = ()


def is_tensor(value: Any) -> bool:
    """Whether ``value`` is a Tensor, asked without knowing the class."""
    return isinstance(value, Differentiable)


class Context:
    """Record of one operation: its inputs and how gradients flow back to them.

    Args:
        parents: The input tensors.
        backward_fn: Maps the upstream gradient (a Tensor) to a sequence with one Tensor or None per parent.
            May be assigned later.

    Attributes:
        saved_tensors: Tensors kept for ``backward_fn``.
        saved_meta: Anything else kept for it.
    """

    function: Any = None
    n_outputs = 1
    name: str = "Context"

    def __init__(self, parents: Sequence[Any] = (), backward_fn: Callable[[Any], Sequence[Any]] | None = None) -> None:
        self.parents = parents
        self.backward_fn = backward_fn
        self.saved_tensors: list[Any] = []
        self.saved_meta: dict[str, Any] = {}
        self._outputs: list[Any] = []

    def save_for_backward(self, *tensors: Any) -> None:
        """Append ``tensors`` to :attr:`saved_tensors`."""
        self.saved_tensors.extend(tensors)

    @property
    def producers(self) -> Sequence[Any]:
        return [parent._node for parent in self.parents]

    def attach(self, output: Any) -> None:
        """Note ``output`` as the result; a saved output is kept as an alias, so no reference cycle arises."""
        for i, tensor in enumerate(self.saved_tensors):
            if tensor is output:
                alias = self.saved_tensors[i] = output._from_op(output._data, None)
                self._outputs.append(alias)

    def pull(self, grad: Any, create_graph: bool) -> Sequence[Any]:
        """The gradients of the parents, checked for number, type, shape and device."""
        rule = self.backward_fn if self.function is None else partial(self.function.backward, self)
        if rule is None:
            raise GraphError(f"{self.label()}: the context has no backward_fn")
        for alias in self._outputs if create_graph else ():
            alias._node, alias.requires_grad = self, True
        try:
            grads = rule(grad)
        finally:
            for alias in self._outputs:
                alias._node, alias.requires_grad = None, False
        grads = list(grads) if isinstance(grads, tuple | list) else [grads]
        if len(grads) != len(self.parents):
            raise GraphError(f"{self.label()}: backward returned {len(grads)} gradients for {len(self.parents)} parents")
        return [self._checked(i, g, parent) for i, (g, parent) in enumerate(zip(grads, self.parents, strict=True))]

    def _checked(self, i: int, g: Any, parent: Any) -> Any:
        if g is None:
            return None
        if not is_tensor(g):
            raise TypeError(f"{self.label()}: gradient {i} must be a Tensor or None, got {type(g).__name__}")
        if g.shape != parent.shape:
            raise ValueError(f"{self.label()}: gradient {i} has shape {g.shape}, expected {parent.shape}")
        if g._device is not parent._device:
            raise ValueError(f"{self.label()}: gradient {i} is on '{g._device}', expected '{parent._device}'")
        return g

    def label(self) -> str:
        """Name for profiles and errors: ``op_name`` if set, else the function's name."""
        return getattr(self, "op_name", None) or (self.function.__name__ if self.function is not None else self.name)


class Function:
    """A user's own operation: ``forward`` computes, ``backward`` gives the gradients.

    Subclass with two static methods: ``forward(ctx, *inputs, **options) -> Tensor`` and
    ``backward(ctx, grad_out) -> Tensor | tuple``, one gradient (or None) per tensor input, in order.
    Called through :meth:`apply`.  If both bodies use only keydnn operations the function is recorded by the
    step compiler and twice differentiable.
    """

    @staticmethod
    def forward(ctx: Context, *inputs: Any, **options: Any) -> Any:
        """Compute the result; what ``backward`` needs goes to ``ctx``."""
        raise NotImplementedError

    @staticmethod
    def backward(ctx: Context, grad_out: Any) -> Any:
        """The gradients of the tensor inputs, given that of the result."""
        raise NotImplementedError

    @classmethod
    def apply(cls, *inputs: Any, **options: Any) -> Any:
        """Run ``forward`` and attach the context if any tensor input requires a gradient."""
        parents = tuple(x for x in inputs if is_tensor(x))
        ctx = Context(parents)
        with no_grad():
            out = cls.forward(ctx, *inputs, **options)
        ctx.parents = parents
        if not (state.grad and any(p.requires_grad for p in parents)):
            return out
        if any(out is p for p in parents):
            out = out._from_op(out._data, None)
        ctx.function = cls
        out.requires_grad = True
        out._set_ctx(ctx)
        return out
