"""Elementwise ops as programs of the native `fused` entry.

A program has inputs (views with a broadcasting pattern), steps that work on registers, and outputs.  A single op is a
program of one step; the fusion pass joins several.  An input's element for element i of the result is
``(i // div) % mod``, which covers whole arrays, scalars, rows, columns and values per channel.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

from keydnn.compiler.ir import Op, View, fresh
from keydnn.compiler.lower import TYPES, Row, Unplannable, broadcast, contiguous, lowers, strided_copy, type_of
from keydnn.kernels import native

BINARY = ("add", "sub", "mul", "div", "maximum", "minimum", "gt", "ge", "lt", "le", "eq", "ne", "pow", "mod", "floordiv")
UNARY = (
    "neg", "abs", "sign", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "square", "tanh", "sigmoid", "erf",
    "relu", "gelu", "silu", "softplus", "floor", "ceil", "round", "sin", "cos",
)  # fmt: skip
GRADS = ("relu_grad", "tanh_grad", "sigmoid_grad", "gelu_grad", "silu_grad", "softplus_grad")
WITH_ALPHA = ("leaky_relu", "leaky_relu_grad", "elu", "elu_grad")
IN_PLACE = {"add_": "add", "sub_": "sub", "mul_": "mul", "div_": "div"}
ELEMENTWISE = (*BINARY, *UNARY, *GRADS, *IN_PLACE, *WITH_ALPHA, "clamp", "where", "copy", "assign_")


@functools.cache
def _codes() -> dict[str, tuple[int, float]]:
    return {name: (code, cost) for code, (name, _, cost) in enumerate(native.load().fused_codes())}


@dataclass
class Program:
    """Steps over registers; operands >= 0 are registers, -1 - k is input k.

    Attributes:
        inputs: Views with their (div, mod).
        steps: (name, register written, operands, u, v).
        outputs: (register, view) stored at the end.
        shape: Shape of every result.
    """

    shape: tuple[int, ...]
    inputs: list[tuple[View, int, int]] = field(default_factory=list)
    steps: list[tuple[str, int, tuple[int, ...], float, float]] = field(default_factory=list)
    outputs: list[tuple[int, View]] = field(default_factory=list)
    registers: int = 0

    def register(self, name: str, operands: tuple[int, ...] = (), u: float = 0.0, v: float = 0.0) -> int:
        """Append a step; returns its register."""
        self.steps.append((name, self.registers, operands, u, v))
        self.registers += 1
        return self.registers - 1

    def input(self, view: View, rows: list[Row]) -> int:
        """The operand that stands for ``view``; patterns beyond (div, mod) are spread out by a row of their own."""
        pattern = pattern_of(view, self.shape)
        if pattern is None:
            spread = fresh(self.shape, view.dtype)
            rows.append(strided_copy(broadcast(view, self.shape), spread))
            view, pattern = spread, (1, max(spread.size, 1))
        for k, (known, div, mod) in enumerate(self.inputs):
            if known.same_place(view) and known.version == view.version and (div, mod) == pattern:
                return -1 - k
        self.inputs.append((view, *pattern))
        return -len(self.inputs)

    def row(self, label: str) -> Row:
        """The plan row."""
        codes = _codes()
        n = self.outputs[0][1].size
        kind = TYPES[self.outputs[0][1].dtype]
        integers = [n, len(self.inputs), len(self.outputs), len(self.steps), self.registers]
        for _, div, mod in self.inputs:
            integers += [div, mod]
        integers += [register for register, _ in self.outputs]
        reals = [n * sum(codes[step[0]][1] for step in self.steps) * (1 if kind == "f32" else 2)]
        for name, to, operands, u, v in self.steps:
            a, b, c = (*operands, 0, 0, 0)[:3] if operands else (to, to, to)
            filled = [a, b if len(operands) > 1 else a, c if len(operands) > 2 else a]
            integers += [codes[name][0], to, *filled]
            reals += [u, v]
        places: list[View | None] = [view for view, _, _ in self.inputs]
        return Row(f"fused:{kind}", places + [view for _, view in self.outputs], integers, reals, label, len(places))


def pattern_of(view: View, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """(div, mod) of a contiguous view under a broadcast shape, or None."""
    if not view.is_contiguous:
        return None
    if view.size == 1:
        return 1, 1
    lead = len(shape) - len(view.shape)
    sizes = (1,) * lead + view.shape
    same = [n == m for n, m in zip(sizes, shape, strict=True)]
    if all(same):
        return 1, view.size
    used = [i for i, n in enumerate(sizes) if n != 1]
    first, last = used[0], used[-1]
    if any(sizes[i] != shape[i] for i in range(first, last + 1)):
        return None
    div = 1
    for n in shape[last + 1 :]:
        div *= n
    return div, view.size


def emit(op: Op, program: Program, operand_of: Any) -> int | None:
    """Append the step(s) of ``op`` to a program; ``operand_of(view or number)`` gives operands.  None: not elementwise."""
    name, p = op.kernel, op.params
    if name in BINARY:
        return program.register(name, tuple(map(operand_of, op.operands)))
    if name in UNARY or name == "copy":
        return program.register(name, (operand_of(op.operands[0]),))
    if name in GRADS:
        return program.register(name, tuple(map(operand_of, op.operands)))
    if name in WITH_ALPHA:
        return program.register(name, tuple(map(operand_of, op.operands)), float(p["alpha"]))
    if name == "where":
        return program.register(name, tuple(map(operand_of, op.operands)))
    if name == "clamp":
        return _clamp(program, operand_of(op.operands[0]), p["low"], p["high"])
    if name in IN_PLACE:
        return program.register(IN_PLACE[name], tuple(map(operand_of, op.operands)))
    if name == "assign_":
        return program.register("copy", (operand_of(op.operands[1]),))
    return None


def _clamp(program: Program, x: int, low: float | None, high: float | None) -> int:
    if low is None and high is None:
        return program.register("copy", (x,))
    if low is None:
        return program.register("clamp_high", (x,), 0.0, float(high))  # type: ignore[arg-type]
    return program.register("clamp_low", (x,), float(low)) if high is None else program.register("clamp", (x,), float(low), float(high))


def result_of(op: Op) -> View:
    """The view an elementwise op writes."""
    return op.operands[0] if op.writes else op.results[0]


@lowers(*ELEMENTWISE)
def elementwise(op: Op) -> list[Row]:
    """One op as a program of its own."""
    target = result_of(op)
    if target.size == 0:
        return []
    views = [v for v in op.operands if isinstance(v, View)]
    if op.kernel in ("copy", "assign_") and views[-1].dtype == target.dtype and target.dtype.itemsize in (4, 8):
        return [strided_copy(broadcast(views[-1], target.shape), target)]
    if op.kernel == "eq" and all(v.dtype.kind == "i" for v in views) and len(views) == 2 and views[0].shape == views[1].shape:
        return [Row(f"equal_int64:{TYPES[target.dtype]}", [*views, target], [target.size], [], op.label, 2)]
    type_of(op, target, *views)
    if not target.is_contiguous:
        raise Unplannable(f"{op.label}: {op.kernel} into a strided view")
    rows: list[Row] = []
    program = Program(target.shape)

    def operand_of(value: Any) -> int:
        return program.input(value, rows) if isinstance(value, View) else program.register("constant", (), float(value))

    register = emit(op, program, operand_of)
    assert register is not None
    program.outputs.append((register, target))
    return [*rows, program.row(op.label)]


@lowers("cast")
def cast(op: Op) -> list[Row]:
    """Values in another dtype."""
    rows: list[Row] = []
    x, y = contiguous(op.operands[0], rows), op.results[0]
    if x.dtype == y.dtype:
        return [*rows, strided_copy(x, y)]
    names = {**TYPES}
    kinds = [names.get(v.dtype, "i64" if str(v.dtype) == "int64" else "") for v in (x, y)]
    if "" in kinds:
        raise Unplannable(f"{op.label}: cast of {x.dtype} to {y.dtype}")
    return [*rows, Row(f"cast:{kinds[0]}:{kinds[1]}", [x, y], [x.size], [], op.label, 1)]


@lowers("full", "fill_")
def full(op: Op) -> list[Row]:
    """A constant."""
    y = op.results[0] if op.results else op.operands[0]
    kind = TYPES.get(y.dtype, "i64" if str(y.dtype) == "int64" else "")
    if not kind or not y.is_contiguous:
        raise Unplannable(f"{op.label}: {op.kernel} of dtype {y.dtype}")
    return [Row(f"fill:{kind}", [y], [y.size], [float(op.params["value"])], op.label, 0)]


@lowers("chain")
def chain(op: Op) -> list[Row]:
    """Several ops over one shape as one program."""
    members: list[Op] = op.params["ops"]
    shape = result_of(members[0]).shape
    rows: list[Row] = []
    program = Program(shape)
    known: list[tuple[View, int]] = []  # places and the register that holds their present value

    def operand_of(value: Any) -> int:
        if not isinstance(value, View):
            return program.register("constant", (), float(value))
        for place, register in reversed(known):
            if place.same_place(value):
                return register
        return program.input(value, rows)

    for member in members:
        register = emit(member, program, operand_of)
        assert register is not None
        known.append((result_of(member), register))
    wanted = [*op.results, *[op.operands[i] for i in op.writes]]
    for view in wanted:
        register = next(r for place, r in reversed(known) if place.same_place(view))
        program.outputs.append((register, view))
    return [*rows, program.row(op.label)]
