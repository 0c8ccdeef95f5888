"""Several runs side by side: one step for all of them, the runs as a leading axis.

For runs of one kind on the same data, with every sample in each batch and the same formats; learning rates, constants of the
controllers, first weights and rules of when to stop may differ.  Sums and products go over the runs one by one with the kernels of a
single run, so each run has the bits it has alone, whatever stands beside it; what is saved is the cost of many small operations.
A run that has ended stays in its place until all have.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.nn import Linear, Module
from keydnn.nn.layers import activation as a
from keydnn.ops.linalg import gemm, linear_p
from keydnn.ops.shape import stack_p
from keydnn.stability.history import FitHistory
from keydnn.stability.laws import Kind, Knobs, State
from keydnn.stability.nn.program import LiveFormats, Program, codes, floats_of, formats_of
from keydnn.stability.nn.quantisers import wide
from keydnn.stability.nn.recorded import MOST_BYTES, MOST_STEPS, Part, borrowed, measured, why_eager

_EACH = (
    a.ReLU, a.LeakyReLU, a.Sigmoid, a.Tanh, a.GELU, a.SiLU, a.ELU, a.SELU, a.Softplus, a.Softsign, a.Mish, a.ReLU6, a.Hardtanh,
    a.HardSigmoid, a.Hardswish,
)  # fmt: skip
_BUDGET_S = 60.0


def stack_key(run: Any) -> Any:
    """What runs that can stand side by side have in common; None for a run that cannot."""
    settings, network = run.settings, run.model.model
    verbose = run.model.verbose if settings.verbose is None else settings.verbose
    layers = list(network.children())
    is_plain = all(type(layer) in (Linear, *_EACH) and not vars(layer).get("any_rank") for layer in layers)
    own = [p for layer in layers if type(layer) is Linear for p in (layer.weight, layer.bias) if p is not None]
    reasons = (
        settings.callbacks, verbose, settings.resume, settings.first_step != "free", settings.batch_size < len(run.X), not is_plain,
        len(own) != len(run.params), why_eager(run),
    )  # fmt: skip
    kind = None if any(reasons) else Program.key_of(run)
    if kind is None:
        return None
    formats = tuple(sorted((repr(place), repr(dtype)) for place, dtype in formats_of(run).items()))
    entering = "" if run.precision is None else repr(run.precision.dtype("input", "value"))
    return kind, formats, entering, settings.epochs, run.X.tobytes(), run.Y.tobytes()


class StackedProgram(Program):
    """The step of a `Program` for several runs.

    Args:
        run: One of them.
        n: How many.
    """

    def __init__(self, run: Any, n: int) -> None:
        self.loss_mode, self.is_quantised = run.settings.loss_mode, run.precision is not None
        self.layers = [(name, _emptied(layer)) for name, layer in run.model.model.named_children()]
        self.network = Module()  # nothing but a place without buffers
        self.params = [Tensor(data=np.zeros((n, *p.shape), p.dtype), dtype=p.dtype, requires_grad=True) for p in run.params]
        waiting = iter(self.params)
        self.weights = {
            name: (next(waiting), None if layer.bias is None else next(waiting))
            for name, layer in run.model.model.named_children()
            if isinstance(layer, Linear)
        }
        self.dtype, self.size = self.params[0].dtype, sum(p.numel() for p in run.params)
        self.kind, self.knobs, self.state = Kind.of(run.controller, run.sensor), Knobs((n,)), State(self.size, (n,))
        table = {place: Tensor(data=codes(dtype), dtype=np.int64) for place, dtype in formats_of(run).items()}
        self.q = LiveFormats(table, floats_of(run))
        self.steps = {}

    def take(self, *runs: Any) -> None:
        """Everything that the step reads, from the runs."""
        for place, dtype in formats_of(runs[0]).items():
            self.q.table[place].copy_from_numpy(codes(dtype))
        for mine, given in zip(self.params, zip(*(run.params for run in runs), strict=True), strict=True):
            mine.copy_from_numpy(np.stack([p.numpy() for p in given]))
        self.knobs.take(*runs)
        self.state.take(*runs)

    def _check(self, prediction: Tensor, target: Tensor) -> None:
        if prediction.shape[1:] != target.shape:
            raise ValueError(f"train_instrumented: the network gives {prediction.shape[1:]}, Y has {target.shape}")

    def _forward(self, x: Tensor) -> Tensor:
        for name, layer in self.layers:
            if name in self.weights:
                x = self._affine(name, x, *self.weights[name])
            else:
                x = layer(x)
            x = self.q(name, "activation", x) if self.is_quantised else x
        return x

    def _affine(self, name: str, z: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """A Dense layer as `keydnn.stability.nn.forward` has it, for each run."""
        q = self.q
        if self.is_quantised and q.has(name, "weight", "bias", "accumulator"):
            z = q(name, "accumulator", gemm(z, q(name, "weight", wide(weight)), tb=True))
            return z if bias is None else z + q(name, "bias", wide(bias)).reshape(len(bias), 1, -1)
        if self.is_quantised:
            weight = q(name, "weight", wide(weight), "value")
            bias = None if bias is None else q(name, "bias", wide(bias), "value")
        if bias is None:
            return gemm(z, weight, tb=True)
        # a sum that begins with the bias
        rows = [z] * len(weight) if z.ndim == 2 else [z[i] for i in range(len(weight))]
        return stack_p(*(linear_p(row, weight[i], bias[i]) for i, row in enumerate(rows)), axis=0)


def _emptied(layer: Any) -> Any:
    return None if isinstance(layer, Linear) else copy.deepcopy(layer)


def run_side_by_side(runs: Sequence[Any]) -> list[FitHistory]:
    """All steps of runs that have one `stack_key`; their models are left where they began.

    Args:
        runs: Instrumented runs.

    Returns:
        What each of them would have logged alone.
    """
    key = ("side by side", len(runs), Program.key_of(runs[0]))
    with contextlib.ExitStack() as stack:
        for run in runs:
            stack.enter_context(run.started())
        program = stack.enter_context(borrowed(key, lambda: StackedProgram(runs[0], len(runs))))
        program.take(*runs)
        _all_steps(program, runs)
    return [run.history() for run in runs]


def _all_steps(program: StackedProgram, runs: Sequence[Any]) -> None:
    data, n, batch = program.prepared(runs[0]), len(runs), len(runs[0].X)
    limit = max(1, min(MOST_STEPS, MOST_BYTES // max(2 * n * program.size * program.dtype.itemsize, 1)))
    before = [np.concatenate([p.numpy().astype(np.float64).reshape(-1) for p in run.params]) for run in runs]
    active, left = list(range(n)), runs[0].settings.epochs
    while left and active:
        steps = min(left, limit)
        outputs = _outputs(program, data, steps, n, batch)
        left -= steps
        for i in list(active):
            own = [np.ascontiguousarray(out[:, i]) for out in outputs]
            if runs[i].keep(measured(runs[i], [Part(None, batch, steps)], before[i], own)) is not None:
                active.remove(i)
            before[i] = own[-1][-1].astype(np.float64)


def _outputs(program: StackedProgram, data: list[np.ndarray], steps: int, n: int, batch: int) -> list[np.ndarray]:
    """What some steps hand out."""
    vectors = [np.empty((steps, n, program.size), program.dtype) for _ in range(2)]
    outputs = [*(np.empty((steps, n)) for _ in Program.HANDED), *vectors]
    done = 0
    while done < steps:
        step = program.step_for(batch)
        rest = [out[done:] for out in outputs]
        if step.is_checked:
            done += step.replay_rows(data, rest, None, batch, _BUDGET_S, steps - done)
            continue
        for out, value in zip(rest, step(*(Tensor(data=array, dtype=array.dtype) for array in data)), strict=True):
            out[0] = value.numpy() if isinstance(value, Tensor) else value
        done += 1
    return outputs
