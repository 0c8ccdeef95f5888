"""Recording a step: what every call through the kernel table read and wrote.

The step runs eagerly; the recorder stands between primitives and kernel table and notes each call with its operands as
places in buffers.  It keeps every buffer alive, so that no address is used twice.  Whatever would make a replay differ
from the step (reading numbers back to Python, writing them from Python, memory that no kernel made) makes the recording
unusable; `Recorder.problem` then says what, and where in the user's code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keydnn.autograd.modes import StepRecorder
from keydnn.compiler.ir import Buffer, Op, View
from keydnn.kernels import keys
from keydnn.kernels.contract import KERNELS, Kernel

_PACKAGE = str(Path(__file__).parents[1])
_CORE = tuple(f"{_PACKAGE}/{room}" for room in ("_tensor", "autograd", "compiler", "ops", "kernels", "training"))


def caller_line() -> str:
    """``file:line`` of the innermost frame outside the package, or outside its core if everything is inside."""
    frame, inside = sys._getframe(1), ""
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_PACKAGE):
            return f"{name}:{frame.f_lineno}"
        if not inside and not name.startswith(_CORE):
            inside = f"{name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return inside or "?"


class _Table:
    """A kernel table that shows each call to the recorder."""

    def __init__(self, recorder: Recorder, kernels: Any) -> None:
        self._recorder, self._kernels = recorder, kernels

    def __getattr__(self, name: str) -> Callable[..., Any]:
        row, function, recorder = KERNELS[name], getattr(self._kernels, name), self._recorder

        def kernel(*args: Any, **kwargs: Any) -> Any:
            return recorder.call(row, function, args, kwargs)

        self.__dict__[name] = kernel
        return kernel


class Recorder(StepRecorder):
    """Notes the kernel calls of one step, run inside ``autograd.modes.recording(recorder)``.

    Args:
        inputs: The tensors handed to the step, by position; other tensors it reads are bound by reference.

    Attributes:
        ops: The calls, in order.
        inputs: The buffers of the inputs.
        tensors: Every tensor from outside that the step used, each once.
        modules: Every module that ran, each once.
        drawn: The random keys drawn.
        key_names: The name under which each was drawn.
        problem: Why the step cannot be replayed, or None.
    """

    def __init__(self, inputs: Sequence[Any]) -> None:
        self.ops: list[Op] = []
        self.problem: str | None = None
        self.drawn: list[int] = []
        self.key_names: list[str | None] = []
        self.tensors: list[Any] = []
        self.modules: list[Any] = []
        self._known_tensors: set[int] = set()
        self._known_modules: set[int] = set()
        self._alive: list[Any] = [inputs]
        self._buffers: dict[int, list[tuple[int, int, Buffer]]] = {}
        self._owned: set[int] = set()
        self._label = ""
        self.inputs = [self._input(i, t) for i, t in enumerate(inputs)]

    # -- what autograd calls

    def table(self, primitive: Any, kernels: Any, inputs: Sequence[Any] = ()) -> _Table:
        """The table that ``primitive`` shall use for ``inputs``."""
        self._label = primitive.name
        for t in inputs:
            data = t._data
            if type(data) is not np.ndarray:
                self.refuse(f"{primitive.label}: the tensor has no array on the cpu")
                continue
            root = _root(data)
            if id(root) not in self._buffers:
                self._owned.add(id(root))
                self._alive.append(root)
            if id(t) not in self._known_tensors and self._is_outer(data):
                self._known_tensors.add(id(t))
                self.tensors.append(t)
        return _Table(self, kernels)

    def refuse(self, reason: str) -> None:
        """Note that the step cannot be replayed; the first reason counts."""
        if self.problem is None:
            self.problem = f"{reason} ({caller_line()})"

    def host_access(self, tensor: Any, what: str) -> None:
        """A tensor's numbers are about to be read or written by Python."""
        if what not in ("contiguous", "to"):
            self.refuse(f"{what} moves numbers between the step and Python")

    def zeros(self, array: np.ndarray) -> None:
        """``Tensor(shape)`` made ``array`` inside the step."""
        params = {"shape": array.shape, "value": 0.0, "dtype": array.dtype}
        self.ops.append(Op("full", (), params, (self._made(array),), (), "zeros"))

    def module(self, module: Any) -> None:
        """``module`` is about to run; its mode and structure are part of what the step stands on."""
        if id(module) not in self._known_modules:
            self._known_modules.add(id(module))
            self.modules.append(module)

    # -- kernel calls

    def call(self, row: Kernel, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Note the call of one kernel, run it and hand on its results as arrays."""
        n = len(args) if row.arrays[:1] and row.arrays[0].startswith("*") else len(row.arrays)
        params = dict(zip(row.params, args[n:], strict=False)) | kwargs
        operands = tuple([self._operand(a, row) for a in args[:n]])
        for i in row.writes:
            self._before_write(operands[i], row.name)
        if row.name == "draw_key":
            return self._draw(function)
        made = function(*args, **kwargs)
        for i in row.writes:
            if isinstance(operands[i], View):
                operands[i].buffer.version += 1
        if row.writes:
            self.ops.append(Op(row.name, operands, params, (), row.writes, self._label))
            return made
        several = type(made) is tuple
        arrays = tuple(map(np.asarray, made)) if several else (np.asarray(made),)
        self.ops.append(Op(row.name, operands, params, tuple([self._made(a) for a in arrays]), (), self._label))
        return arrays if several else arrays[0]

    def _draw(self, function: Callable[..., Any]) -> np.ndarray:
        key = np.asarray(function())
        self._enter(_root(key), Buffer("key", 8, key, len(self.drawn)))
        self.drawn.append(int(key))
        self.key_names.append(keys.current_name())
        return key

    def view(self, array: np.ndarray) -> View | None:
        """Where ``array`` lies, or None for memory that the step does not know."""
        found = self._find(array)
        if found is None:
            return None
        start, buffer = found
        return View(buffer, _address(array) - start, array.shape, array.strides, array.dtype, buffer.version)

    def _operand(self, value: Any, row: Kernel) -> Any:
        if value is None or type(value) in (int, float, bool):
            return value
        if not isinstance(value, np.ndarray):
            self.refuse(f"{row.name}: a NumPy scalar was computed outside the kernels")
            return None
        found = self.view(value)
        if found is None:
            if id(_root(value)) not in self._owned:
                self.refuse(f"{self._label.removesuffix('_p')}: {row.name} reads an array that no kernel made")
            found = self._outer(value)
        return found

    def _before_write(self, operand: Any, name: str) -> None:
        if not isinstance(operand, View):
            return
        buffer = operand.buffer
        if buffer.kind in ("input", "key"):
            self.refuse(f"{name} writes an input of the step")
        if buffer.kind == "outer" and buffer.before is None:
            buffer.before = buffer.array.copy()

    # -- buffers

    def _input(self, i: int, tensor: Any) -> Buffer:
        array = tensor._data
        buffer = Buffer("input", array.nbytes, array, i)
        root, start = _root(array), _address(array)
        if not array.flags.c_contiguous:
            self.refuse(f"input {i} is not contiguous")
        if tensor.requires_grad:
            self.refuse(f"input {i} requires a gradient")
        for begin, end, known in self._buffers.get(id(root), ()):
            if begin == start and end == start + array.nbytes:
                return known
        self._enter(root, buffer, start, start + array.nbytes)
        return buffer

    def _made(self, array: np.ndarray) -> View:
        root = _root(array)
        if id(root) in self._buffers:
            self.refuse(f"{self._label.removesuffix('_p')}: a kernel returned memory of its operands")
        self._enter(root, Buffer("made", _extent(root), root))
        found = self.view(array)
        assert found is not None
        return found

    def _outer(self, array: np.ndarray) -> View:
        root = _root(array)
        if not root.flags.c_contiguous:
            self.refuse(f"{self._label.removesuffix('_p')}: an operand lies in memory with gaps")
        self._enter(root, Buffer("outer", _extent(root), root))
        found = self.view(array)
        assert found is not None
        return found

    def _enter(self, root: np.ndarray, buffer: Buffer, begin: int | None = None, end: int | None = None) -> None:
        start = _address(root) if begin is None else begin
        self._buffers.setdefault(id(root), []).append((start, start + buffer.nbytes if end is None else end, buffer))
        self._alive.append(root)

    def _find(self, array: np.ndarray) -> tuple[int, Buffer] | None:
        start = _address(array)
        end = start + _extent(array)
        for low, high, buffer in self._buffers.get(id(_root(array)), ()):
            if low <= start and end <= high:
                return low, buffer
        return None

    def _is_outer(self, array: np.ndarray) -> bool:
        found = self._find(array)
        return found is None or found[1].kind == "outer"

    def buffers(self) -> list[Buffer]:
        """Every buffer, in the order of appearance."""
        return [buffer for entries in self._buffers.values() for _, _, buffer in entries]

    def forget(self) -> None:
        """Let go of what the step computed; what it read and wrote outside stays."""
        for buffer in self.buffers():
            if buffer.kind != "outer":
                buffer.array = np.empty(0)
        self._alive.clear()
        self._buffers.clear()

    def check_overlaps(self) -> None:
        """Refuse outer and input buffers that share memory, if one of them is written."""
        known = [(low, high, b) for entries in self._buffers.values() for low, high, b in entries if b.kind in ("outer", "input")]
        known.sort(key=lambda entry: entry[0])
        for (_, high, a), (low, _, b) in zip(known, known[1:], strict=False):
            if low < high and (a.version or b.version):
                self.refuse("two tensors share memory that the step writes")


def _root(array: np.ndarray) -> np.ndarray:
    """The array that owns the memory."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def _extent(array: np.ndarray) -> int:
    """Bytes from the first to behind the last element."""
    if array.size == 0:
        return 0
    return array.itemsize + sum((n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True))
