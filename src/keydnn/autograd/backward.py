"""The way back: gradients of tensors through the graph, iteratively.

The graph is walked twice.  First from the outputs along the producers, counting for each node how many consumers it
has; then in the order in which all consumers of a node are done, so each rule runs once with its summed gradient
(Griewank & Walther 2008, Evaluating Derivatives, chapter 3).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from keydnn.autograd.context import Differentiable
from keydnn.autograd.modes import state
from keydnn.autograd.primitive import Node, Output
from keydnn.domain.errors import DeviceMismatchError, GraphError


def checked_seed(output: Any, grad_out: Any) -> Any:
    """The gradient to start from: 1 for a scalar of shape (), else what the user gave."""
    if grad_out is None:
        if output.shape != ():
            raise ValueError(f"grad_out must be provided for non-scalar tensors; this one has shape {output.shape}")
        return output._like_full(1.0)
    if not isinstance(grad_out, Differentiable):
        raise TypeError(f"grad_out must be a Tensor of shape {output.shape}, got {type(grad_out).__name__}")
    if grad_out.shape != output.shape:  # type: ignore[attr-defined]
        raise ValueError(f"grad_out has shape {grad_out.shape}, expected {output.shape}")  # type: ignore[attr-defined]
    if grad_out._device is not output._device:  # type: ignore[attr-defined]
        raise ValueError(f"grad_out is on '{grad_out._device}', expected '{output._device}'")  # type: ignore[attr-defined]
    return grad_out if grad_out.dtype == output.dtype else grad_out.astype(output.dtype)  # type: ignore[attr-defined]


class Sweep:
    """One backward pass from ``outputs``.

    Args:
        outputs: Tensors to differentiate, with their upstream gradients ``seeds``.
        create_graph: Whether the gradients shall be differentiable themselves.
        profile: Whether to measure each rule; see :attr:`times`.

    Attributes:
        grads: Gradient by node; a list of gradients for a node of several outputs.
        owners: The tensor that carries a node (or an Output of one).
        leaves: By id, each leaf with its gradient.
        times: Seconds of each call of a rule, by name, or None.
    """

    def __init__(self, outputs: Sequence[Any], seeds: Sequence[Any], *, create_graph: bool = False, profile: bool = False) -> None:
        self.create_graph = create_graph
        self.times: dict[str, list[float]] | None = {} if profile else None
        self.grads: dict[Any, Any] = {}
        self.owners: dict[Any, Any] = {}
        self.leaves: dict[int, tuple[Any, Any]] = {}
        roots = []
        for output, seed in zip(outputs, seeds, strict=True):
            if output._node is None:
                self._leaf(output, seed)
            else:
                self.owners[output._node] = output
                roots.append(self._arrive(output._node, seed))
        before, state.grad = state.grad, create_graph
        try:
            self._run(roots)
        finally:
            state.grad = before

    def of(self, tensor: Any) -> Any:
        """The gradient that reached ``tensor``, or None."""
        producer = tensor._node
        if producer is None:
            return self.leaves[id(tensor)][1] if id(tensor) in self.leaves else None
        if type(producer) is Output:
            return self.grads[producer.node][producer.index] if producer.node in self.grads else None
        return self.grads.get(producer)

    def reached(self) -> Iterator[tuple[Any, Any]]:
        """Every tensor that requires a gradient and got one, with it."""
        for tensor in self.owners.values():
            g = self.of(tensor)
            if g is not None and tensor.requires_grad:
                yield tensor, g
        yield from ((tensor, g) for tensor, g in self.leaves.values() if tensor.requires_grad)

    def _run(self, roots: list[Any]) -> None:
        waiting = self._count(roots)
        ready = [node for node in dict.fromkeys(roots) if waiting[node] == 0]
        grads, create_graph, timed = self.grads, self.create_graph, self.times is not None
        while ready:
            node = ready.pop()
            pulled = None
            if node in grads:
                pulled = self._timed_pull(node) if timed else node.pull(grads[node], create_graph)
            for i, producer in enumerate(node.producers):
                g = None if pulled is None else pulled[i]
                if producer is None:
                    if g is not None and node.parents[i].requires_grad:
                        self._leaf(node.parents[i], g)
                    continue
                if g is not None:
                    if type(producer) is Node and producer not in grads and producer.n_outputs == 1:
                        grads[producer] = g
                    else:
                        self._arrive(producer, g)
                if type(producer) is Output:
                    producer = producer.node
                left = waiting[producer] = waiting[producer] - 1
                if left == 0:
                    ready.append(producer)

    def _count(self, roots: list[Any]) -> dict[Any, int]:
        """How many consumers each reachable node waits for; notes the tensors that carry the nodes."""
        waiting = dict.fromkeys(roots, 0)
        stack = list(waiting)
        owners = self.owners
        while stack:
            node = stack.pop()
            for parent, producer in zip(node.parents, node.producers):  # noqa: B905 - as long as each other by construction
                if producer is None:
                    continue
                if parent._node is producer and not parent._is_alias:
                    owners[producer] = parent
                if type(producer) is Output:
                    producer = producer.node
                if producer in waiting:
                    waiting[producer] += 1
                else:
                    waiting[producer] = 1
                    stack.append(producer)
        return waiting

    def _arrive(self, producer: Any, g: Any) -> Any:
        """Add ``g`` to what the producer has; returns its node."""
        grads = self.grads
        if type(producer) is Output:
            node, index = producer.node, producer.index
            slots = grads.setdefault(node, [None] * node.n_outputs)
            slots[index] = g if slots[index] is None else slots[index] + g
            return node
        grads[producer] = grads[producer] + g if producer in grads else g
        return producer

    def _leaf(self, tensor: Any, g: Any) -> None:
        if tensor._node is not None:  # changed in place since: what was used here was a constant
            return
        found = self.leaves.get(id(tensor))
        self.leaves[id(tensor)] = (tensor, g if found is None else found[1] + g)

    def _timed_pull(self, node: Any) -> Any:
        start = time.perf_counter()
        pulled = node.pull(self.grads[node], self.create_graph)
        self.times.setdefault(node.label(), []).append(time.perf_counter() - start)  # type: ignore[union-attr]
        return pulled


def backward(output: Any, grad_out: Any = None, *, retain_graph: bool = True, profile: bool = False, profile_topk: int = 20) -> None:
    """Add the gradient of ``output`` to ``.grad`` of every tensor of its graph that requires one.

    See ``Tensor.backward``, which calls this.
    """
    start = time.perf_counter()
    seed = checked_seed(output, grad_out)
    sweep = Sweep([output], [seed if grad_out is None else seed.clone()], profile=profile)
    swept = time.perf_counter()
    stored = set()
    for tensor, g in [(tensor, g if g._cell is None else g.clone()) for tensor, g in sweep.reached()]:  # a cell: others use the memory
        if tensor.grad is not None:
            tensor._accumulate_grad_(g)
            continue
        tensor.grad = g.clone() if id(g) in stored else g
        stored.add(id(g))
    if sweep.times is not None:
        print(profile_table(sweep.times, swept - start, time.perf_counter() - swept, profile_topk))  # noqa: T201 - profile=True asks for it
    if not retain_graph:
        release(output)


def release(output: Any) -> None:
    """Free what the graph behind ``output`` saved; a later backward through it raises."""
    stack: list[Any] = [output._node]
    seen: set[Any] = {None}
    while stack:
        node = stack.pop()
        node = node.node if type(node) is Output else node
        if node not in seen:
            seen.add(node)
            stack.extend(node.producers)
            node.lose("the graph was freed by backward(retain_graph=False); run the forward pass again")


def profile_table(times: dict[str, list[float]], sweep_s: float, write_s: float, topk: int) -> str:
    """Text of ``backward(profile=True)``: time per section and per operation, slowest first."""
    rows = sorted(((sum(t), len(t), name) for name, t in times.items()), reverse=True)
    total = sum(seconds for seconds, _, _ in rows)
    lines = [
        "backward profile",
        f"  {'section':<28}{'ms':>10}",
        f"  {'gradient rules':<28}{total * 1e3:>10.3f}",
        f"  {'graph walk':<28}{(sweep_s - total) * 1e3:>10.3f}",
        f"  {'write-back':<28}{write_s * 1e3:>10.3f}",
        f"  {'op':<28}{'ms':>10}{'calls':>8}{'us/call':>10}",
    ]
    lines += [f"  {name:<28}{s * 1e3:>10.3f}{n:>8}{s / n * 1e6:>10.1f}" for s, n, name in rows[:topk]]
    return "\n".join(lines)


def grad(outputs: Any, inputs: Any, grad_outputs: Any = None, *, create_graph: bool = False, allow_unused: bool = False) -> tuple[Any, ...]:
    """Gradients of ``outputs`` with respect to ``inputs``, returned instead of written to ``.grad``.

    Args:
        outputs: A Tensor or a sequence of them.
        inputs: A Tensor or a sequence of them, each requiring a gradient.
        grad_outputs: Upstream gradients, one per output; None means 1 (scalars only).
        create_graph: Whether the results can be differentiated again.
        allow_unused: Whether an input that ``outputs`` do not depend on gives None instead of an error.

    Returns:
        A tuple with one Tensor (or None) per input, of the input's shape and dtype.

    Raises:
        ValueError: Number of ``grad_outputs`` differs; an output is no scalar and has no upstream gradient.
        RuntimeError: An input is not part of the graph, or does not require a gradient.

    Example:
        >>> x = keydnn.tensor(3.0, requires_grad=True)
        >>> (dx,) = keydnn.grad(x * x * x, x, create_graph=True)
        >>> dx.item(), keydnn.grad(dx, x)[0].item()
        (27.0, 18.0)
    """
    outputs = _sequence(outputs)
    inputs = _sequence(inputs)
    given = [None] * len(outputs) if grad_outputs is None else _sequence(grad_outputs)
    if len(given) != len(outputs):
        raise ValueError(f"grad: {len(outputs)} outputs but {len(given)} grad_outputs")
    for i, tensor in enumerate(inputs):
        if not tensor.requires_grad:
            raise GraphError(
                f"grad: input {i} of shape {tensor.shape} does not require a gradient; set requires_grad=True before the forward pass"
            )
    seeds = [checked_seed(output, g) for output, g in zip(outputs, given, strict=True)]
    sweep = Sweep(outputs, seeds, create_graph=create_graph)
    results: list[Any] = []
    for i, tensor in enumerate(inputs):
        g = sweep.of(tensor)
        if g is None and not allow_unused:
            raise GraphError(f"grad: the outputs do not depend on input {i} of shape {tensor.shape}; pass allow_unused=True to get None")
        if g is not None and (g._cell is not None or any(g is other for other in (*results, *seeds))):
            g = g.reshape(g.shape) if g.requires_grad else g.clone()  # no two results are one object
        results.append(g)
    return tuple(results)


def hvp(loss: Any, params: Any, vector: Any) -> tuple[Any, ...]:
    """Product of the Hessian of ``loss`` with ``vector``, by differentiating ``<gradient, vector>``.

    Args:
        loss: Scalar Tensor (shape ()) with its graph.
        params: Tensor or sequence of Tensors the loss depends on.
        vector: Tensor or sequence of Tensors, shapes like ``params``.

    Returns:
        A tuple of Tensors shaped like ``params``.

    Source: Pearlmutter 1994, Fast exact multiplication by the Hessian, https://doi.org/10.1162/neco.1994.6.1.147
    """
    params, vector = _sequence(params), _sequence(vector)
    if len(params) != len(vector):
        raise ValueError(f"hvp: {len(params)} params but {len(vector)} vectors")
    for p, v in zip(params, vector, strict=True):
        if p.shape != v.shape:
            raise ValueError(f"hvp: a vector of shape {v.shape} does not fit a parameter of shape {p.shape}")
        if p._device is not v._device:
            raise DeviceMismatchError(p._device, v._device, "hvp")
    grads = grad(loss, params, create_graph=True, allow_unused=True)
    dot = None
    for g, v in zip(grads, vector, strict=True):
        if g is not None:
            term = (g * v).sum()
            dot = term if dot is None else dot + term
    second = grad(dot, params, allow_unused=True) if dot is not None and dot.requires_grad else (None,) * len(params)
    return tuple(p._like_full(0.0) if h is None else h for p, h in zip(params, second, strict=True))


def _sequence(values: Any) -> list[Any]:
    return [values] if isinstance(values, Differentiable) else list(values)
