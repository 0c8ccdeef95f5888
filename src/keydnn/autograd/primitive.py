"""Primitives: the only way from tensors to kernels.

A primitive is a forward rule on arrays and a gradient rule on tensors::

    @primitive
    def tanh(k, x):                  # k: kernel table of x's device; x: array
        y = k.tanh(x)
        return y, (y,)               # the result, and what the gradient rule needs

    @tanh.gradient
    def tanh(saved, g, needs):       # written in ops: serves backward, second derivatives and recording
        (y,) = saved
        return tanh_grad(y, g)

``saved`` may hold inputs and outputs (recognised by identity and handed back as tensors of the graph), other arrays
(handed back as constants) and any other value.  An optional third tuple, ``aux``, holds differentiable residues; with
``create_graph`` the rule gets None in their place and recomputes.  ``needs`` tells, per input, whether its gradient is
wanted.  A rule returns one gradient, or a tuple with one entry (or None) per input.

:func:`bind` runs a primitive.  It alone knows the modes: run, note on the graph, show to a recorder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import Any

import numpy as np

from keydnn.autograd.context import Context, Differentiable
from keydnn.autograd.modes import RECORDINGS, state
from keydnn.domain.errors import DeviceMismatchError, DeviceNotSupportedError, GraphError, ShapeError

_ndarray = np.ndarray
_NO_PARAMS: dict[str, Any] = {}
_ONE = (True,)


class Primitive:
    """One differentiable operation; calling it binds it to tensors.

    Args:
        forward: ``forward(k, *arrays, **params)`` returning ``y``, ``(y, saved)`` or ``(y, saved, aux)``; y is an
            array, or a tuple of ``n_outputs`` arrays.  Without a gradient rule it may return just ``y``.
        tables: Mapping from Device to kernel table.
        broadcasts: Operands differ in shape or dtype; their gradients are summed and cast back.
        n_outputs: Number of results; ``n_graph`` of them (the first) take part in the graph.
        writes: Positions of the inputs that the kernel writes in place; such a primitive returns None.
        aliases: The result is a view of the first input.
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        tables: Mapping[Any, Any],
        *,
        broadcasts: bool = False,
        n_outputs: int = 1,
        n_graph: int | None = None,
        writes: tuple[int, ...] = (),
        aliases: bool = False,
    ) -> None:
        self.name: str = forward.__name__
        self.label: str = self.name.removesuffix("_p").removesuffix("_scalar")  # as users know it
        self.forward = forward
        self.rule: Callable[..., Any] | None = None
        self.tables = tables
        self.broadcasts = broadcasts
        self.n_outputs = n_outputs
        self.n_graph = n_outputs if n_graph is None else n_graph
        self.writes = writes
        self.aliases = aliases
        self.__doc__ = forward.__doc__

    def gradient(self, rule: Callable[..., Any]) -> Primitive:
        """Decorator that sets the gradient rule ``rule(saved, g, needs)``; returns the primitive."""
        if self.rule is not None:
            raise ValueError(f"{self.name} has a gradient rule already")
        self.rule = rule
        return self

    def __call__(self, *inputs: Any, **params: Any) -> Any:
        return bind(self, inputs, params)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


class Node(Context):
    """What a primitive leaves on the graph: its inputs, what its rule needs, and who produced the inputs.

    The tensor that results holds the node, never the other way round, so dropping it frees the graph.
    """

    producers: Sequence[Any]
    __slots__ = ("primitive", "parents", "producers", "versions", "saved", "aux", "out", "cells", "n_outputs")

    def __init__(self, primitive: Primitive, inputs: tuple[Any, ...], saved: tuple[Any, ...], aux: tuple[Any, ...], out: Any) -> None:
        self.primitive = primitive
        self.parents = inputs
        first = inputs[0]
        if len(inputs) == 1:
            self.producers = (first._node,)
            self.versions = None if first._cell is None else self._versions_now()
        elif len(inputs) == 2:
            second = inputs[1]
            self.producers = (first._node, second._node)
            self.versions = None if first._cell is None and second._cell is None else self._versions_now()
        else:
            self.producers = tuple([t._node for t in inputs])
            self.versions = self._versions_now()
        self.saved = saved
        self.aux = aux
        self.out = out
        self.cells: list[Any] | None = None
        self.n_outputs = primitive.n_graph

    def pull(self, grad: Any, create_graph: bool) -> Sequence[Any]:
        """The gradients of the inputs for the gradient(s) of the output(s)."""
        primitive = self.primitive
        if self.out is None:
            raise GraphError(f"{primitive.label}: {self.lost}")
        saved = self.resolve(create_graph) if self.saved or self.aux else ()
        parents = self.parents
        if len(parents) == 1:
            grads: Sequence[Any] = primitive.rule(saved, grad, _ONE)  # type: ignore[misc]
            return grads if type(grads) is tuple else (grads,)
        if len(parents) == 2:
            needs: Sequence[bool] = (parents[0].requires_grad, parents[1].requires_grad)
        else:
            needs = [t.requires_grad for t in parents]
        grads = primitive.rule(saved, grad, needs)  # type: ignore[misc]
        if primitive.broadcasts:
            shape, dtype = self.out.shape, self.out.dtype
            for t in parents:
                if t._data.shape != shape or t._data.dtype is not dtype:
                    return [None if g is None else _like(g, t) for g, t in zip(grads, parents, strict=True)]
        return grads

    def resolve(self, create_graph: bool) -> list[Any]:
        """``saved`` and ``aux`` as the rule gets them."""
        values = []
        for item in self.saved:
            if type(item) is _ndarray:
                for t in self.parents:
                    if t._data is item and t._cell is None:  # the common case: an input that nothing ever wrote
                        values.append(t)
                        break
                else:
                    values.append(self._value(item, create_graph, len(values)))
            else:
                values.append(item)
        if self.aux:
            make = self.parents[0]._from_op
            values += [None if create_graph else make(np.asarray(item), None) for item in self.aux]
        return values

    def _value(self, array: np.ndarray, create_graph: bool, position: int) -> Any:
        """The tensor behind the array at ``position`` of what was saved."""
        holders = [(i, _holder(t, array)) for i, t in enumerate(self.parents)]
        matches = [(i, t) for i, t in holders if t is not None]
        if matches:  # several in ``x * x.detach()``, which saves one array twice: the first is the first, the second the second
            earlier = sum(other is array for other in self.saved[:position])
            i, t = matches[min(earlier, len(matches) - 1)]
            if t._cell is not None and t._cell[0] != (0 if self.versions is None else self.versions[i]):
                raise self._overwritten(f"input {i}")
            return t
        outs = self.out if type(self.out) is tuple else (self.out,)
        for i, out in enumerate(outs[: self.n_outputs]):
            if out is array:
                if self.cells is not None and self.cells[i] is not None and self.cells[i][0] != 0:
                    raise self._overwritten("its result")
                return self._output(i, array) if create_graph else self.parents[0]._from_op(array, None)
        if create_graph and self._versions_now() != (self.versions or [0] * len(self.parents)):
            raise self._overwritten("an input")
        return self.parents[0]._from_op(array, None)

    def _output(self, i: int, array: np.ndarray) -> Any:
        """Another tensor for output i, at its place in the graph; it sees writes to the first one."""
        tensor = self.parents[0]._from_op(array, self if self.n_outputs == 1 else Output(self, i))
        tensor._is_alias = True
        tensor._cell = self.cell(i)
        return tensor

    def cell(self, i: int) -> list[int]:
        """The version cell of output i, made on first use."""
        if self.cells is None:
            self.cells = [None] * self.n_outputs
        cell: list[int] | None = self.cells[i]
        if cell is None:
            cell = self.cells[i] = [0]
        return cell

    def lose(self, why: str) -> None:
        """Forget what was saved; a later backward through this node raises ``why``."""
        self.saved, self.aux, self.out, self.lost = (), (), None, why

    def _versions_now(self) -> list[int]:
        return [0 if t._cell is None else t._cell[0] for t in self.parents]

    def _overwritten(self, what: str) -> GraphError:
        return GraphError(
            f"{self.primitive.label}: {what} was changed in place after it was used, so its gradient cannot be computed;"
            " call backward() before the change, or work on a clone()"
        )

    # the view that the public Context offers
    function = None
    saved_meta: dict[str, Any] = {}

    @property
    def saved_tensors(self) -> list[Any]:  # type: ignore[override]
        return [self._value(item, True, i) for i, item in enumerate(self.saved) if type(item) is _ndarray]

    def backward_fn(self, grad: Any) -> tuple[Any, ...]:
        """One gradient per parent, None where not required."""
        return tuple(g if t.requires_grad else None for g, t in zip(self.pull(grad, state.grad), self.parents, strict=True))

    def label(self) -> str:
        return getattr(self, "op_name", None) or self.primitive.label

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.primitive.label


class Output(Context):
    """The view that one output of a multi-output node has on it."""

    __slots__ = ("node", "index", "parents")

    def __init__(self, node: Node, index: int) -> None:
        self.node = node
        self.index = index
        self.parents = node.parents

    @property
    def saved_tensors(self) -> list[Any]:  # type: ignore[override]
        return self.node.saved_tensors

    saved_meta: dict[str, Any] = {}

    def backward_fn(self, grad: Any) -> tuple[Any, ...]:
        """One gradient per parent for the gradient of this output alone."""
        grads: list[Any] = [None] * self.node.n_outputs
        grads[self.index] = grad
        return self.node.backward_fn(grads)

    def label(self) -> str:
        return self.node.label()


def bind(primitive: Primitive, inputs: tuple[Any, ...], params: Mapping[str, Any] = _NO_PARAMS) -> Any:
    """Run ``primitive`` on tensors; the single door from operations to kernels.

    Args:
        primitive: What to run.
        inputs: Tensors, all on one device, at least one.
        params: Keyword parameters of the forward rule.

    Returns:
        A Tensor, a tuple of Tensors, or None for a primitive that writes in place.

    Raises:
        DeviceMismatchError: The inputs live on different devices.
        DeviceNotSupportedError: The device has no kernels.
    """
    first = inputs[0]
    try:
        k = primitive.tables[first._device]
        if RECORDINGS and state.recorder is not None:
            k = state.recorder.table(primitive, k, inputs)
        if len(inputs) == 1:  # spelled out for one and two inputs: this is every small operation's path
            y = primitive.forward(k, first._data, **params) if params else primitive.forward(k, first._data)
        elif len(inputs) == 2:
            second = inputs[1]._data
            y = primitive.forward(k, first._data, second, **params) if params else primitive.forward(k, first._data, second)
        else:
            y = primitive.forward(k, *[t._data for t in inputs], **params)
    except (AttributeError, TypeError, ValueError, IndexError, DeviceNotSupportedError) as error:
        clear = _explained(primitive, inputs, error)
        if clear is error:
            raise
        raise clear from error
    if primitive.writes:
        for i in primitive.writes:
            inputs[i]._touch()
        return None
    saved: tuple[Any, ...] = ()
    aux: tuple[Any, ...] = ()
    if type(y) is tuple:
        if len(y) == 2:
            y, saved = y
        else:
            y, saved, aux = y
    if primitive.n_outputs != 1:
        return _many(primitive, inputs, saved, aux, y)
    if type(y) is not _ndarray:  # NumPy makes scalars of results of shape ()
        scalar, y = y, np.asarray(y)
        saved = _with_array(saved, scalar, y)
    node = None
    for t in inputs:
        if t.requires_grad:
            if state.grad and primitive.rule is not None:
                node = Node(primitive, inputs, saved, aux, y)
            break
    out = first._from_op(y, node)
    if primitive.aliases:
        out._share(first)
    return out


def create(primitive: Primitive, prototype: Any, params: Mapping[str, Any]) -> Any:
    """Run a primitive without inputs on the device of ``prototype`` (factories and random sources)."""
    try:
        k = primitive.tables[prototype._device]
    except DeviceNotSupportedError:
        raise DeviceNotSupportedError(primitive.label, prototype._device) from None
    if RECORDINGS and state.recorder is not None:
        k = state.recorder.table(primitive, k)
    return prototype._from_op(np.asarray(primitive.forward(k, **params)), None)


def _many(
    primitive: Primitive, inputs: tuple[Any, ...], saved: tuple[Any, ...], aux: tuple[Any, ...], ys: tuple[Any, ...]
) -> tuple[Any, ...]:
    arrays = tuple(map(np.asarray, ys))
    for scalar, array in zip(ys, arrays, strict=True):
        if scalar is not array:
            saved = _with_array(saved, scalar, array)
    ys = arrays
    make = inputs[0]._from_op
    if not (state.grad and primitive.rule is not None and any(t.requires_grad for t in inputs)):
        return tuple(make(y, None) for y in ys)
    node = Node(primitive, inputs, saved, aux, ys)
    if primitive.n_graph == 1:
        return (make(ys[0], node), *(make(y, None) for y in ys[1:]))
    n = primitive.n_graph
    return (*(make(y, Output(node, i)) for i, y in enumerate(ys[:n])), *(make(y, None) for y in ys[n:]))


def _holder(tensor: Any, array: np.ndarray) -> Any:
    """The tensor, or what it was before in-place operations, that holds ``array``; None if neither does."""
    while tensor is not None and tensor._data is not array:
        tensor = tensor._past
    return tensor


def _with_array(saved: tuple[Any, ...], scalar: Any, array: np.ndarray) -> tuple[Any, ...]:
    """``saved`` with the array in place of the scalar it was made from: results are recognised by identity."""
    return tuple([array if item is scalar else item for item in saved])


def _like(g: Any, t: Any) -> Any:
    """``g`` summed to the shape of ``t`` and in its dtype."""
    have, want = g._data, t._data
    if have.shape != want.shape:
        g = g.sum_to_shape(want.shape)
    if have.dtype is not want.dtype and have.dtype != want.dtype:
        g = g.astype(want.dtype)
    return g


def _explained(primitive: Primitive, inputs: tuple[Any, ...], error: Exception) -> Exception:
    """The error a user should see for operands that a forward rule refused."""
    for t in inputs:
        if not isinstance(t, Differentiable):
            return TypeError(f"{primitive.label}: expected Tensors, got {type(t).__name__}")
        if t._device is not inputs[0]._device:  # type: ignore[attr-defined]
            return DeviceMismatchError(inputs[0]._device, t._device, primitive.label)  # type: ignore[attr-defined]
    if isinstance(error, DeviceNotSupportedError):
        return DeviceNotSupportedError(primitive.label, error.device)
    if isinstance(error, TypeError | AttributeError | IndexError | ShapeError):
        return error
    shapes = [t.shape for t in inputs]
    if primitive.broadcasts and len(shapes) > 1:
        return ShapeError(f"{primitive.label}: Shape mismatch: " + " vs ".join(map(str, shapes)) + "; the shapes do not broadcast")
    return error
