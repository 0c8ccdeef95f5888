"""Instrumented steps in groups: a plan runs many steps and writes what they leave behind, then all are measured at once.

Where a group turns out to hold the end of the run, the state before it is put back and as many of its steps run again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.compiler.step import usable
from keydnn.stability.controllers import CurvatureSensor
from keydnn.stability.dtypes import HLSDataType
from keydnn.stability.laws import LAWS, Decision
from keydnn.stability.nn.gradients import uses_register
from keydnn.stability.nn.program import Program
from keydnn.stability.nn.telemetry import Block, Columns, measure, rail_rows

MOST_STEPS = 1024  # in a group
MOST_BYTES = 8 << 20  # of gradients and parameters in a group
_BUDGET_S = 0.1  # of a group: how often progress is told
_MOST_PROGRAMS = 16  # kept


@dataclass(frozen=True)
class Part:
    """Some steps on batches of one size.

    Attributes:
        rows: Row numbers of all batches, or None: every batch is the whole data set.
        batch: Samples per step.
        steps: How many.
        order: State of the generator of orders after these rows were drawn.
    """

    rows: np.ndarray | None
    batch: int
    steps: int
    order: Any = None

    def rows_of(self, i: int) -> np.ndarray | None:
        """Row numbers of one step."""
        return None if self.rows is None else self.rows[i * self.batch : (i + 1) * self.batch]

    def cut(self, begin: int, end: int) -> Part:
        """The steps from ``begin`` to ``end``."""
        rows = None if self.rows is None else self.rows[begin * self.batch : end * self.batch]
        return dataclasses.replace(self, rows=rows, steps=end - begin)


def why_eager(run: Any) -> str | None:
    """Why the steps of a run cannot be recorded, or None."""
    settings = run.settings
    reasons = {
        "plans need the native kernels": usable(),
        "data that drift from step to step": run.drift is None,
        f"the update rule {settings.update_rule!r}": settings.update_rule is None,
        f"the controller {type(run.controller).__name__}": type(run.controller) in LAWS,
        "an estimated Hessian": not run.hessian.is_estimate,
        f"the sensor {type(run.sensor).__name__}": type(run.sensor) is CurvatureSensor,
        "the model overrides a hook": run.model._has_own_hooks() is False,
        "parameters of several dtypes": len({p.dtype for p in run.params}) == 1,
        "a frozen parameter": all(p.requires_grad for p in run.params),
        "a loss scale": settings.loss_scale is None,
        "a batch-sum register": not uses_register(run),
        "a master copy of the weights": all(run.format_of(layer, "master_weight") is None for layer, _ in run.places),
    }
    missing = [reason for reason, holds in reasons.items() if not holds]
    scopes = {} if run.precision is None else {scope: fields for scope, fields in run.precision.items() if scope != "loss"}
    unfit = [f"the format {f}" for fields in scopes.values() for f in fields.values() if not _has_plan(f)]
    return next(iter([*missing, *unfit]), None)


def _has_plan(dtype: Any) -> bool:
    if dtype is None:
        return True
    return isinstance(dtype, HLSDataType) and not dtype.is_stochastic and dtype.WL <= 53 and -60 <= dtype.fractional_bits <= 60


_PROGRAMS: dict[Any, Program] = {}  # that are not at work, the latest last
_LOCK = threading.Lock()


@contextlib.contextmanager
def borrowed(key: Any, make: Callable[[], Any]) -> Iterator[Any]:
    """The program that served this key before, or a new one; kept for the next unless the key is None."""
    with _LOCK:
        program = _PROGRAMS.pop(key, None)
    if program is None:
        program = make()
    yield program
    if key is not None:
        with _LOCK:
            _PROGRAMS[key] = program
            while len(_PROGRAMS) > _MOST_PROGRAMS:
                del _PROGRAMS[next(iter(_PROGRAMS))]


@contextlib.contextmanager
def program_for(run: Any) -> Iterator[Program]:
    """A program with the state of a run, which has it back afterwards."""
    key = Program.key_of(run)
    with borrowed(key, lambda: Program(run, is_shared=key is not None)) as program:
        program.take(run)
        try:
            yield program
        finally:
            program.give(run)


class RecordedLoop:
    """The steps of one run from here on.

    Args:
        run: The instrumented run.
        program: Its program.
    """

    def __init__(self, run: Any, program: Program) -> None:
        self.run, self.program, self.size = run, program, program.size
        self.data = program.prepared(run)
        most = 1 if run.settings.callbacks else MOST_STEPS
        self.limit = max(1, min(most, MOST_BYTES // max(2 * self.size * program.dtype.itemsize, 1)))
        self.tensors = program.written()

    def take(self, parts: Iterator[Part]) -> None:
        """Run all parts, or up to where the run ends."""
        run = self.run
        waiting: Part | None = next(parts, None)
        while waiting is not None:
            snapshot = [t.numpy().copy() for t in self.tensors]
            outputs = self._room(self.limit)
            group: list[Part] = []
            n, start = 0, time.monotonic()
            while waiting is not None and n < self.limit and (n == 0 or time.monotonic() - start < _BUDGET_S):
                done = self._steps(waiting.cut(0, min(waiting.steps, self.limit - n)), [out[n:] for out in outputs])
                group.append(waiting.cut(0, done))
                n += done
                waiting = waiting.cut(done, waiting.steps) if done < waiting.steps else next(parts, None)
            before = np.concatenate([a.astype(np.float64).reshape(-1) for a in snapshot[: len(self.program.params)]])
            columns = measured(run, group, before, [out[:n] for out in outputs])
            if run.settings.callbacks:  # they may look at the model, and change it
                self.program.give(run)
            kept = run.keep(columns)
            if run.settings.callbacks:
                self.program.refresh(run)
            if kept is not None:
                self._end(group, kept, n, snapshot)
                break
        run.why_eager = next((step.reason for step in self.program.steps.values() if step.plan is None), None)

    def _room(self, steps: int) -> list[np.ndarray]:
        """Arrays for what steps hand out: numbers, gradients, parameters."""
        vectors = [np.empty((steps, self.size), self.program.dtype) for _ in range(2)]
        return [*(np.empty(steps) for _ in Program.HANDED), *vectors]

    def _steps(self, part: Part, outputs: list[np.ndarray]) -> int:
        """Run steps of a part, at least one; returns how many."""
        step, first = self.program.step_for(part.batch), part.rows_of(0)
        if step.is_checked:
            return step.replay_rows(self.data, outputs, part.rows, part.batch, _BUDGET_S, part.steps)
        batch = [Tensor(data=a if first is None else a[first], dtype=a.dtype) for a in self.data]
        for out, value in zip(outputs, step(*batch), strict=True):
            out[0] = value.numpy() if isinstance(value, Tensor) else value
        return 1

    def _end(self, group: list[Part], kept: int, n: int, snapshot: list[np.ndarray]) -> None:
        """Leave the model as after ``kept`` of the ``n`` steps of a group."""
        run = self.run
        if kept < n:
            for t, array in zip(self.tensors, snapshot, strict=True):
                t.copy_from_numpy(array)
            spare = self._room(kept)
            left = kept
            for part in group:
                while left and part.steps:
                    done = self._steps(part.cut(0, min(part.steps, left)), spare)
                    left -= done
                    part = part.cut(done, part.steps)
        total = 0
        for part in group:
            total += part.steps
            if total >= kept:
                if part.order is not None:
                    run.order.bit_generator.state = part.order
                return


def measured(run: Any, group: list[Part], before: np.ndarray, outputs: list[np.ndarray]) -> Columns:
    """The metrics of the steps of a group, from what they handed out and the parameters before them."""
    *numbers, gradient, after = outputs
    got = dict(zip(Program.HANDED, numbers, strict=True))
    eta, wide = run.settings.learning_rate, after.astype(np.float64)
    eta_eff = got["alpha"] * eta
    raw = gradient * (-eta_eff.astype(np.float32)).astype(gradient.dtype)[:, None]
    samples = np.repeat([part.batch for part in group], [part.steps for part in group])
    elements = samples * (run.Y.size // len(run.Y))
    loss, dtype = run.loss_from(got["squares"], samples, elements), run.format_of("loss", "value")
    eigenvalues, residual = _eigenvalues(run, group)
    gradient_rails = _rails(run, gradient, "gradient")
    update_rails = _rails(run, raw, "update")
    return measure(run, Block(
        theta=np.concatenate([before[None], wide[:-1]]),
        after=wide,
        gradient=gradient.astype(np.float64),
        raw=raw.astype(np.float64),
        squares=got["squares"],
        loss=loss if dtype is None else dtype(loss),
        grad_norm=got["grad_norm"],
        proposal_norm=eta * got["grad_norm"],
        sensed=(got["curvature"], got["average"], got["valid"]),
        control=Decision(*(got[name] for name in Decision.__annotations__)),
        elements=elements,
        eigenvalues=eigenvalues,
        hessian_residual=residual,
        weight_rails=_rails(run, after, None)[:2],
        gradient_rails=gradient_rails[:2],
        update_saturation=update_rails[0],
        update_underflow=update_rails[2],
    ))  # fmt: skip


def _rails(run: Any, rows: np.ndarray, field: str | None) -> tuple[Any, Any, Any]:
    """The largest fractions over the parameters, by a field of their layer or (None) by that of the stored weight or bias."""
    largest: tuple[Any, Any, Any] = (0.0, 0.0, 0.0)
    for part, (layer, own) in zip(run.slices, run.places, strict=True):
        if field is None and own not in ("weight", "bias"):
            continue
        found = rail_rows(rows[:, part], run.format_of(layer, own if field is None else field))
        largest = tuple(map(np.maximum, largest, found))  # type: ignore[assignment]
    return largest


def _eigenvalues(run: Any, group: list[Part]) -> tuple[np.ndarray | None, float]:
    if not run.hessian.is_on:
        return None, float("nan")
    if group[0].rows is None:  # all batches are the same
        eigenvalues, residual = run.hessian.at(run.step, run.X, run.Y)
        return eigenvalues[None], residual
    rows = [part.rows_of(i) for part in group for i in range(part.steps)]
    found = [run.hessian.at(run.step + i, run.X[index], run.Y) for i, index in enumerate(rows)]
    return np.stack([eigenvalues for eigenvalues, _ in found]), found[-1][1]
