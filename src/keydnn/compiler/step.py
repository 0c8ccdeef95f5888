"""A recorded step: run eagerly once, then as a plan, as long as nothing it stands on has changed.

The first call runs the step eagerly on a snapshot (buffers are copied when the step first writes them), builds the plan,
restores the snapshot and runs the same step as a plan; both results must agree.  The second call is checked against an
eager run too, which must also make the same kernel calls.  A step that cannot be recorded, or does not agree, stays
eager, and `RecordedStep.reason` says why.
"""

from __future__ import annotations

import functools
import logging
import os
import random
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from keydnn.autograd.context import is_tensor
from keydnn.autograd.modes import recording
from keydnn.compiler.agreement import agrees, coarse, noise
from keydnn.compiler.gradients import Gradients
from keydnn.compiler.ir import Op, Step, View
from keydnn.compiler.lower import Unplannable
from keydnn.compiler.outside import Outside
from keydnn.compiler.passes import improve
from keydnn.compiler.plan import Plan, build
from keydnn.compiler.recorder import Recorder
from keydnn.kernels import keys, native
from keydnn.kernels.dispatch import native_status

logger = logging.getLogger("keydnn")
_RETRIES = (1, 10, 100)  # eager steps after which recording is tried again: the first pass may have been special
_PROFILED = 8  # steps whose operations are timed
CHECK_ALL = os.environ.get("KEYDNN_CHECK_STEPS", "") == "1"


Attributes = tuple[tuple[Any, ...], tuple[str, ...], tuple[Any, ...]]


def attributes(pairs: Iterable[tuple[Any, str]]) -> Attributes:
    """Objects, names and present values of some attributes, as the native ``same_attributes`` compares them later."""
    objects, names = zip(*pairs, strict=True) if (pairs := list(pairs)) else ((), ())
    return objects, names, tuple(map(getattr, objects, names))


@functools.cache
def usable() -> bool:
    """Whether plans can run here: the native kernels are loaded."""
    return native_status().loaded


class RecordedStep:
    """A function of tensors, replayed by a plan.

    Args:
        function: Maps tensors to a sequence of tensors; runs a whole step.
        watched: Tensors whose ``.grad`` the step may set.
        fuse: Whether passes may change rounding (False: every op as the eager step runs it).
        graph: Whether the caller may want to differentiate the results: then a step whose results belong to a graph that it
            did not walk itself stays eager.
        calls: The user's functions, or objects with some, that the step calls.
        reads: Objects of the user's that it is handed beside tensors.

    Attributes:
        plan: The plan, or None while there is none.
        reason: Why the step stays eager, or None.
        replays: Steps run by the plan.
        timed: Those of them whose operations were timed.
        eager_runs: Steps run eagerly for want of a plan.
        is_refused: Whether a plan was dropped because it did not agree; it is then not tried again.
        outside: What the user's code reads from Python, or None for nothing; the plan holds as long as it is the same.
        single: Whether the function returned one value instead of a sequence.
    """

    def __init__(
        self,
        function: Callable[..., Sequence[Any]],
        watched: Sequence[Any] = (),
        fuse: bool = True,
        graph: bool = False,
        calls: Sequence[Any] = (),
        reads: Sequence[Any] = (),
    ) -> None:
        self.function, self.watched, self.fuse, self.graph = function, list(watched), fuse, graph
        self._calls, self._reads = tuple(calls), tuple(reads)
        self.outside: Outside | None = None
        self.single = False
        self.plan: Plan | None = None
        self.reason: str | None = None
        self.replays = 0
        self.timed = 0
        self.eager_runs = 0
        self.is_refused = False
        self.outputs: list[np.ndarray] = []
        self.key_names: list[str | None] = []  # per key of a step
        self.keep_alive: Any = None  # what the caller's signature names by identity
        self._profiled = False

    # -- calls

    def __call__(self, *inputs: Any) -> list[Any]:
        """Run the step on tensors; returns its outputs: tensors from an eager step, arrays that the next call overwrites from a plan."""
        if self.plan is None:
            if self.reason is not None:
                self.eager_runs += 1
                if self.is_refused or self.eager_runs not in _RETRIES:
                    return self._eager(inputs)
            return self._record(inputs)
        if self.replays == 1 or CHECK_ALL:
            return self._checked_replay(inputs)
        self.replay(_contiguous(inputs))
        return self.outputs

    def fresh(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        """Run one step by a checked plan; returns its outputs as arrays that nobody else has."""
        empty = native.load().empty
        outputs = [empty(out.shape, out.dtype) for out in self.outputs]
        self.replay(_contiguous(inputs), outputs)
        return outputs

    def holds(self) -> bool:
        """Whether everything the plan stands on is as it was recorded."""
        try:
            same = self.same_attributes(*self.modules) and self.same_attributes(*self.tensors)
        except ReferenceError:  # a module is gone
            return False
        return same and (self.outside is None or self.outside.is_same())

    @property
    def is_checked(self) -> bool:
        """Whether there is a plan that agreed with eager steps."""
        return self.plan is not None and self.replays > 1 and not CHECK_ALL

    def replay(self, arrays: list[np.ndarray], outputs: list[np.ndarray] | None = None) -> None:
        """Run one step on contiguous arrays; results go to ``outputs``, or else to :attr:`outputs`."""
        plan, grads = self.plan, self.gradients
        assert plan is not None
        untouched = grads.are_only_ours()
        if not untouched:
            grads.before()
        if self.replays == 2:
            self._measure(True)
        elif self._profiled and self.timed >= _PROFILED:
            self._measure(False)
        drawn = keys.draw(self.key_names) if self.key_names else None
        plan.executor.run(arrays, self.outputs if outputs is None else outputs, drawn)
        if not untouched:
            grads.after()
        self._count(1)

    def run_once(self, arrays: list[np.ndarray], outputs: list[np.ndarray]) -> None:
        """:meth:`replay`, quicker where nothing but the plan has to be run: no keys, gradients or counts of writes, no times."""
        if self._is_bare and not self._profiled and self.replays != 2:
            self._execute(arrays, outputs, None)
            self.replays += 1
        else:
            self.replay(arrays, outputs)

    def replay_rows(
        self,
        arrays: list[np.ndarray],
        outputs: Sequence[np.ndarray | None],
        index: np.ndarray | None,
        batch: int,
        budget_s: float,
        steps: int | None = None,
    ) -> int:
        """Run steps over batches of rows of ``arrays`` for at most about ``budget_s`` seconds; returns how many were run.

        Args:
            arrays: The data sets, by input.
            outputs: Per output an array with one entry per step, or None.
            index: Row numbers, a multiple of ``batch``; None: every step takes ``arrays`` as they are.
            batch: Rows per step.
            budget_s: When to come back.
            steps: How many at most, without ``index``.
        """
        plan = self.plan
        assert plan is not None
        if self._profiled:
            self._measure(False)
        self.gradients.before()
        names, most = self.key_names, steps if index is None else len(index) // batch
        assert most is not None
        before = keys.Mark(names) if names else None
        drawn = keys.draw(names, most) if names else None
        done = plan.run_rows(arrays, list(outputs), drawn, most, index, batch, int(budget_s * 1e9))
        if before is not None and done < most:  # give back the keys that were not used
            before.go_back()
            keys.draw(names, done)
        self._ran(done)
        return done

    def _ran(self, steps: int) -> None:
        self.gradients.after()
        self._count(steps)

    def _count(self, steps: int) -> None:
        for cell in self.cells:
            cell[0] += 1
        self.replays += steps
        self.timed += steps * self._profiled

    def _measure(self, on: bool) -> None:
        """Take the time of each operation in the steps that follow, or stop."""
        assert self.plan is not None
        self.plan.executor.profile(on)
        self._profiled = on

    def _eager(self, inputs: Sequence[Any]) -> list[Any]:
        results = self.function(*inputs)
        self.single = not isinstance(results, tuple | list)
        return [results] if self.single else list(results)

    # -- the first call

    def _record(self, inputs: Sequence[Any]) -> list[Any]:
        before = _RandomState()
        recorder = Recorder(inputs)
        with recording(recorder):
            outputs = self._eager(inputs)
        recorder.check_overlaps()
        problem = recorder.problem or before.problem(keys.from_numpy(recorder.key_names))
        self.is_refused = False
        if problem is None:
            problem = self._make_plan(recorder, outputs)
        if problem is not None:
            self._stay_eager(problem)
            return outputs
        eager = _Result(recorder, outputs)
        eager.undo()
        del outputs
        recorder.forget()  # the arena takes memory when it runs first; by then what the eager step computed has gone
        native.load().trim_memory()
        return self._run_and_compare([t._data for t in inputs], eager)

    def _make_plan(self, recorder: Recorder, outputs: list[Any]) -> str | None:
        """Build the plan; returns why not, or None."""
        views = [recorder.view(t._data) if is_tensor(t) else None for t in outputs]
        if None in views:
            return "a result was not made by a kernel of the step"
        entries, held = self._grads_of(recorder)
        if self.graph and any(t.requires_grad for t in outputs) and not entries:
            return "the result belongs to a graph; call backward() inside the function, or compute under keydnn.no_grad()"
        step = Step(recorder.ops, recorder.inputs, views, [v for _, v in entries], len(recorder.drawn))  # type: ignore[arg-type]
        self.calls, self.key_names = [_call(op) for op in recorder.ops], recorder.key_names
        try:
            step, notes = improve(step, self.fuse)
            self.plan = build(step, notes)
        except Unplannable as error:
            return str(error)
        self.reason = None
        self.gradients = Gradients(self.plan, entries)
        self.outputs = [np.empty(v.shape, v.dtype) for v in views]  # type: ignore[union-attr]
        self.same_attributes = native.load().same_attributes
        self.tensors = attributes(
            [*((t, name) for t in recorder.tensors for name in ("_data", "requires_grad")), *((t, "grad") for t in held)]
        )
        outside = Outside(self._calls, recorder.modules, self._reads)
        self.outside = None if outside.is_empty else outside
        modules = [weakref.proxy(module) for module in recorder.modules]  # a model owns its steps, not the other way round
        self.modules = attributes([(module, name) for module in modules for name in ("training", "_stamp")])
        self.is_training = all(module.training for module in modules)
        self.cells = _written_cells(recorder)
        self._execute = self.plan.executor.run
        self._is_bare = not (self.key_names or entries or self.cells)
        return None

    def _grads_of(self, recorder: Recorder) -> tuple[list[tuple[Any, View]], list[Any]]:
        """The tensors whose ``.grad`` the step made, with its view; and those whose ``.grad`` must be what it is now.

        The latter have a gradient from outside that the step uses, or none: a step that leaves None may have left it alone (a
        prediction) or have set it (``zero_grad``), which makes no difference as long as it is None before.
        """
        entries: list[tuple[Any, View]] = []
        held = []
        seen = set()
        for t in [*self.watched, *(t for t in recorder.tensors if t.requires_grad or t.grad is not None)]:
            if id(t) in seen:
                continue
            seen.add(id(t))
            view = None if t.grad is None else recorder.view(t.grad._data)
            if view is not None and view.buffer.kind == "made":
                entries.append((t, view))
            elif t.grad is None or view is not None:
                held.append(t)
        return entries, held

    def _run_and_compare(self, arrays: list[np.ndarray], eager: _Result) -> list[Any]:
        """Run the plan on restored state and compare with the eager result; the eager one stands if they differ."""
        plan = self.plan
        assert plan is not None
        try:
            plan.run(arrays, self.outputs, np.array(eager.keys, np.int64))  # type: ignore[arg-type]
            difference = eager.difference(self.outputs)
        except ValueError as error:
            difference = str(error)
        if difference is None:
            self._ran(1)
            return self.outputs
        eager.redo()
        self.plan, self.is_refused = None, True
        self._stay_eager(f"the plan disagrees with the eager step: {difference}")
        return eager.outputs

    def _checked_replay(self, inputs: Sequence[Any]) -> list[Any]:
        """Run the step eagerly and by the plan, and compare."""
        self.gradients.before()
        self.plan.executor.discard()  # type: ignore[union-attr] # the eager step needs the memory more
        recorder = Recorder(inputs)
        with recording(recorder):
            outputs = self._eager(inputs)
        eager = _Result(recorder, outputs)
        if recorder.problem is not None or ([_call(op) for op in recorder.ops], recorder.key_names) != (self.calls, self.key_names):
            self.plan, self.is_refused = None, True
            self._stay_eager(recorder.problem or "the step does not do the same each time")
            return eager.outputs
        eager.undo()
        del outputs
        recorder.forget()
        native.load().trim_memory()
        return self._run_and_compare([t._data for t in inputs], eager)

    def _stay_eager(self, reason: str) -> None:
        if reason != self.reason:
            logger.warning("this step stays eager: %s", reason)
        self.reason = reason


def _contiguous(tensors: Sequence[Any]) -> list[np.ndarray]:
    return [np.ascontiguousarray(t._data) if t._data.ndim else t._data for t in tensors]


class _Result:
    """What an eager step made: its outputs, and the outer buffers it wrote."""

    def __init__(self, recorder: Recorder, outputs: list[Any]) -> None:
        self.keys = recorder.drawn
        self.outputs = [t.detach() if is_tensor(t) else t for t in outputs]
        self.written = [b for b in recorder.buffers() if b.before is not None]
        self.after = [b.array.copy() for b in self.written]
        self.noise, self.coarse = noise(recorder.ops), coarse(recorder.ops)
        self.views = [recorder.view(t._data) if is_tensor(t) else None for t in outputs]

    def undo(self) -> None:
        """The state before the step."""
        for buffer in self.written:
            np.copyto(buffer.array, buffer.before)  # type: ignore[arg-type]
            buffer.before = None

    def redo(self) -> None:
        """The state after the eager step."""
        for buffer, array in zip(self.written, self.after, strict=True):
            np.copyto(buffer.array, array)

    def difference(self, outputs: list[np.ndarray]) -> str | None:
        """Where the plan's result differs by more than the tolerance, or None."""
        for i, (tensor, view, b) in enumerate(zip(self.outputs, self.views, outputs, strict=True)):
            if not agrees(tensor._data, b, is_coarse=view is not None and view.buffer in self.coarse):
                return f"result {i}"
        for buffer, a in zip(self.written, self.after, strict=True):
            if not agrees(a, buffer.array, self.noise.get(buffer), buffer in self.coarse):
                return f"a tensor of shape {a.shape}"
        return None


class _RandomState:
    """Notices random numbers that were drawn past the kernels."""

    def __init__(self) -> None:
        self.numpy, self.python = np.random.get_state(legacy=False), random.getstate()

    def problem(self, n: int) -> str | None:
        """Why a step that drew ``n`` keys from NumPy's generator used its generators otherwise, or None."""
        if random.getstate() != self.python:
            return "the step draws from Python's random generator"
        after = np.random.get_state()
        np.random.set_state(self.numpy)
        if n:
            np.random.randint(0, 2**63, n, dtype=np.int64)
        expected = np.random.get_state()
        np.random.set_state(after)
        same = np.array_equal(expected[1], after[1]) and expected[2:] == after[2:]  # type: ignore[index]
        return None if same else "the step draws from NumPy's random generator outside keydnn"


def _call(op: Op) -> tuple[Any, ...]:
    """What two recordings of the same step have in common."""
    shapes = [(o.shape, o.dtype) if isinstance(o, View) else o for o in op.operands]
    return op.kernel, tuple(shapes), str(op.params), tuple(v.shape for v in op.results)


def _written_cells(recorder: Recorder) -> list[list[int]]:
    """Version cells of the outer tensors that the step writes; moments and counters of updates are never part of a graph."""
    slots = {id(v.buffer) for op in recorder.ops if op.kernel in ("sgd_", "adam_") for v in op.operands[2:] if isinstance(v, View)}
    cells: dict[int, list[int]] = {}
    for t in recorder.tensors:
        view = recorder.view(t._data)
        if view is not None and view.buffer.before is not None and t._cell is not None and id(view.buffer) not in slots:
            cells[id(t._cell)] = t._cell
    return list(cells.values())
