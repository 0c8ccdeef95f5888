"""Contexts: what an operation leaves behind for the way back.

A :class:`Context` can be filled by hand (extension code) or through :class:`Function`.  The nodes that primitives
leave (``primitive.Node``) offer the same view.
"""

from __future__ import annotations

import weakref
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
    lost: str = ""

    def __init__(self, parents: Sequence[Any] = (), backward_fn: Callable[[Any], Sequence[Any]] | None = None) -> None:
        self.parents = parents
        self.backward_fn = backward_fn
        self.saved_tensors: list[Any] = []
        self.saved_meta: dict[str, Any] = {}
        self._attached: weakref.ref[Any] | None = None  # the output: it holds the context, so the context must not hold it
        self._producers: Sequence[Any] | None = None
        self._versions: list[tuple[Any, Any, list[int], int]] = []  # of what was saved: tensor, storage, cell, version
        self._aliases: set[int] = set()  # ids of the saved tensors that stand for the output

    def save_for_backward(self, *tensors: Any) -> None:
        """Append ``tensors`` to :attr:`saved_tensors`."""
        start = len(self.saved_tensors)
        self.saved_tensors.extend(tensors)
        if self._attached is not None:
            self._note(start)

    @property
    def producers(self) -> Sequence[Any]:
        """Per parent the context that produced it when this one was attached, or None."""
        if self._producers is None or len(self._producers) != len(self.parents):
            return [parent._node for parent in self.parents]
        return self._producers

    def attach(self, output: Any) -> None:
        """Note that ``output`` is the result, who produced the parents, and the versions of what was saved."""
        self._attached = weakref.ref(output)
        self._producers = [parent._node for parent in self.parents]
        self._note(0)

    def _note(self, start: int) -> None:
        """Note the versions of the saved tensors; a saved output becomes an alias, so that no reference cycle arises."""
        output = None if self._attached is None else self._attached()
        for i, tensor in enumerate(self.saved_tensors[start:], start):
            if tensor is output and output is not None:
                tensor = self.saved_tensors[i] = output.detach()
                self._aliases.add(id(tensor))
            if is_tensor(tensor):
                cell = tensor._version_cell()
                self._versions.append((tensor, tensor._data, cell, cell[0]))

    def pull(self, grad: Any, create_graph: bool) -> Sequence[Any]:
        """The gradients of the parents, checked for number, type, shape and device."""
        rule = self.backward_fn if self.function is None else partial(self.function.backward, self)
        if self.lost:
            raise GraphError(f"{self.label()}: {self.lost}")
        if rule is None:
            raise GraphError(f"{self.label()}: the context has no backward_fn")
        if any(tensor._data is not storage or cell[0] != version for tensor, storage, cell, version in self._versions):
            raise GraphError(f"{self.label()}: a saved tensor was changed in place after it was used, so its gradient cannot be computed")
        saved = self.saved_tensors
        if create_graph and self._aliases:  # in place of a saved output a tensor that hangs on the graph
            self.saved_tensors = [self._on_graph(t) if id(t) in self._aliases else t for t in saved]
        try:
            grads = rule(grad)
        finally:
            self.saved_tensors = saved
        grads = list(grads) if isinstance(grads, tuple | list) else [grads]
        if len(grads) != len(self.parents):
            raise GraphError(f"{self.label()}: backward returned {len(grads)} gradients for {len(self.parents)} parents")
        return [self._checked(i, g, parent) for i, (g, parent) in enumerate(zip(grads, self.parents, strict=True))]

    def _on_graph(self, alias: Any) -> Any:
        tensor = alias._from_op(alias._data, self)
        tensor._is_alias, tensor._cell = True, alias._cell
        return tensor

    def lose(self, why: str) -> None:
        """Forget what was saved; a later backward through this context raises ``why``."""
        self.saved_tensors, self._versions, self.lost = [], [], why

    def _checked(self, i: int, g: Any, parent: Any) -> Any:
        if g is None:
            return None
        if not is_tensor(g):
            raise TypeError(f"{self.label()}: gradient {i} must be a Tensor or None, got {type(g).__name__}")
        if g.shape != parent.shape:
            raise ValueError(f"{self.label()}: gradient {i} has shape {g.shape}, expected {parent.shape}")
        if g._device is not parent._device:
            raise ValueError(f"{self.label()}: gradient {i} is on '{g._device}', expected '{parent._device}'")
        g._version_cell()  # the rule may keep this tensor: whoever stores it as a gradient makes a copy (see ``backward``)
        return g if g.dtype == parent.dtype else g.astype(parent.dtype)

    def label(self) -> str:
        """Name for profiles and errors: ``op_name`` or ``name`` if set, else the function's name."""
        given = self.__dict__.get("op_name") or self.__dict__.get("name")
        return given or (self.name if self.function is None else self.function.__name__)


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
        """Run ``forward`` and attach the context if any tensor input requires a gradient.

        Raises:
            TypeError: ``forward`` returned something else than one Tensor.
        """
        parents = tuple(x for x in inputs if is_tensor(x))
        ctx = Context(parents)
        with no_grad():
            out = cls.forward(ctx, *inputs, **options)
        if not is_tensor(out):
            raise TypeError(f"{cls.__name__}.forward must return one Tensor, got {type(out).__name__}")
        if not (state.grad and any(p.requires_grad for p in parents)):
            return out
        if out.requires_grad or any(out is p for p in parents):  # an input or a parameter, handed through
            out = out.detach()
        ctx.parents = parents
        ctx.function = cls
        out.requires_grad = True
        out._set_ctx(ctx)
        return out
