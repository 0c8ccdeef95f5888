"""The instrumented loop: one `Run` per call of ``train_instrumented``."""

from __future__ import annotations

import contextlib
import math
import platform
from collections.abc import Iterator
from itertools import chain, pairwise
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.nn.layers.embedding import Embedding
from keydnn.stability.controllers import ControllerStep
from keydnn.stability.dtypes import HLSDataType
from keydnn.stability.history import FitHistory
from keydnn.stability.keys import key_of
from keydnn.stability.laws import Decision
from keydnn.stability.nn.gradients import LossScale, check_register, gradients
from keydnn.stability.nn.hessian import HessianMonitor
from keydnn.stability.nn.recorded import Part, RecordedLoop, program_for, why_eager
from keydnn.stability.nn.settings import Settings, is_active
from keydnn.stability.nn.telemetry import Block, Columns, measure, row_of
from keydnn.stability.norms import norm
from keydnn.stability.precision import PrecisionDict, ensure_precision_dict
from keydnn.stability.quantization import rail_stats
from keydnn.stability.rules import AdamRule, exact
from keydnn.training.turns import restore

FLOAT32_BITS = 24
_STORED = ("weight", "bias", "gradient", "update")


class Run:
    """One call: checks first, then steps.

    Args:
        model: The `BaseModel`.
        X: Samples.
        Y: Targets.
        settings: The arguments.
    """

    def __init__(self, model: Any, X: Any, Y: Any, settings: Settings) -> None:
        self.model, self.settings = model, settings
        is_indexed = isinstance(next(iter(model.model.children()), None), Embedding)
        self.X, self.Y = _indices(X) if is_indexed else _finite("X", X), _finite("Y", Y)
        if len(self.X) != len(self.Y) or not len(self.X):
            raise ValueError(f"train_instrumented: X has {len(self.X)} samples, Y has {len(self.Y)}; expected equal numbers of at least 1")
        self.precision: PrecisionDict | None = ensure_precision_dict(settings.precision_dict)
        if self.precision is not None:
            self.precision.validate_model(model)
        self.params = list(model.model.parameters())
        self.places = [model._layer_and_field_for_variable(p) for p in self.params]
        if self.precision is not None:
            self._check_widths()
        check_register(self)
        self.config = settings.config
        self.keys = self.config.keys
        self.controller = settings.make_controller()
        self.sensor = settings.make_sensor(self.controller)
        self.stop_loss, self.diverge_loss = self._loss_limits()
        self.update_formats = [self.format_of(layer, "update") for layer, _ in self.places]
        self.update_quantum = model._max_update_quantum(self.params, self.precision)
        self.hessian = HessianMonitor(self)
        A = settings.reference_A if settings.reference_A is not None else self.config.reference_A
        self.first = next((i for i, p in enumerate(self.params) if p.ndim == 2), None)
        fits = A is not None and self.first is not None and np.shape(A) == self.params[self.first].shape
        self.reference_A = np.asarray(A, np.float64) if fits else None
        self.rule = settings.update_rule
        self.drift = settings.drift
        if self.drift is not None and self.drift.schedule is None:  # then every step sees the same data
            self.X, self.Y = self._drifted(self.X, self.Y, 0)
            self.drift = None
        self.alpha_is_active = is_active(self.controller)
        ends = np.cumsum([0, *(p.numel() for p in self.params)]).tolist()
        self.slices = [slice(a, b) for a, b in pairwise(ends)]

    # -- set-up

    def format_of(self, layer: str, field: str) -> Any:
        """The format of a field, or None."""
        return None if self.precision is None else self.precision.dtype(layer, field)

    def _check_widths(self) -> None:
        for p, (layer, own) in zip(self.params, self.places, strict=True):
            if p.dtype == np.float64:
                continue
            for field in {own, *_STORED[2:]}:
                dtype = self.format_of(layer, field)
                if isinstance(dtype, HLSDataType) and dtype.WL > FLOAT32_BITS:
                    raise ValueError(
                        f"train_instrumented: {layer}.{field} has {dtype.WL} bits, float32 parameters hold {FLOAT32_BITS};"
                        ' make the model with dtype="float64"'
                    )

    def _loss_limits(self) -> tuple[float | None, float | None]:
        dtype = self.format_of("loss", "value")
        stop, diverge = self.settings.stop_loss, self.settings.diverge_loss
        if stop == "auto":
            stop = None if dtype is None else 2.0 * float(dtype.quantum_at(0.0))
        if diverge == "auto":
            diverge = None if dtype is None else 0.95 * dtype.value_range()[1]
        return stop, diverge

    def _begin(self) -> None:
        """What changes the model or the controller; everything was checked before."""
        self.controller.reset()
        self.sensor.reset()
        self.step, self.master = 0, [None] * len(self.params)
        self.scale = LossScale(self.settings.loss_scale)
        self.total = self.settings.epochs * -(-len(self.X) // self.settings.batch_size)
        self.done, self.streak, self.previous = 0, 0, math.nan
        self.why_eager: str | None = None
        self.columns: list[Columns] = []
        if self.rule is not None:
            self.rule.reset()
            self.rule.learning_rate = self.settings.learning_rate if self.rule.learning_rate is None else self.rule.learning_rate
            self.rule.store = self._store_state
        seed = self.model.seed
        self.order = np.random.default_rng(seed)
        state = self.settings.resume
        if state is not None:
            self.sensor.set_state(state["sensor"])
            self.controller.set_state(state["controller"])
            self.step = state["step"]
            self.order.bit_generator.state = state["order"]
            self.scale.value, self.scale.good = state["loss_scale"]
            if self.rule is not None and state["rule"] is not None:
                self.rule.load_state_dict(state["rule"])
        if self.settings.quantize_initial and self.precision is not None:
            for p in self.params:
                self.model._quantize_variable_storage(p, self.precision, -1)

    # -- the loop

    def run(self) -> FitHistory:
        """All steps."""
        with self.started():
            self._epochs()
        return self.history()

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        """For the steps of a run; the network's training flags and the caller's error state are as they were afterwards."""
        network = self.model.model
        flags = [(module, module.training) for module in network.modules()]
        network.train(True)
        self._begin()
        try:
            with np.errstate(all="ignore"):
                yield
        finally:
            restore(flags)
            if self.rule is not None:
                self.rule.store = exact

    def history(self) -> FitHistory:
        """What was logged."""
        history = FitHistory(**{key: np.concatenate([c[key] for c in self.columns]) for key in self.keys})
        history.meta = self._meta()
        return history

    def _epochs(self) -> None:
        """Recorded where possible, see `keydnn.stability.nn.recorded`; a probe looks at the first step before it is run."""
        self.why_eager = why_eager(self)
        parts = self._parts()
        while part := next(parts, None):
            for i in range(part.steps):
                if self.why_eager is None and not (self.settings.first_step == "probe" and self.sensor.theta is None):
                    with program_for(self) as program:
                        RecordedLoop(self, program).take(chain([part.cut(i, part.steps)], parts))
                    return
                rows = part.rows_of(i)
                batch = (self.X, self.Y) if rows is None else (self.X[rows], self.Y[rows])
                if self.keep(self._one(*batch)) is not None:
                    return

    def _parts(self) -> Iterator[Part]:
        """The run cut into parts of equal batches; a batch that holds every sample has them in order."""
        n, size, epochs = len(self.X), self.settings.batch_size, self.settings.epochs
        if size >= n:
            yield Part(None, n, epochs)
            return
        full = n // size * size
        for _ in range(epochs):
            index = self.order.permutation(n) if self.settings.shuffle else np.arange(n)
            state = self.order.bit_generator.state if self.settings.shuffle else None
            yield Part(index[:full], size, full // size, state)
            if full < n:
                yield Part(index[full:], n - full, 1, state)

    def keep(self, columns: Columns) -> int | None:
        """Log some steps; returns after how many of them the run ends, or None if it goes on.

        What comes after the end is not logged.
        """
        losses, diverged = columns["loss"].tolist(), columns["diverged"].tolist()
        end = self._end(losses, diverged, columns)
        kept = len(losses) if end is None else end
        self.columns.append({key: columns[key][:kept] for key in self.keys})
        self.step += kept
        return end

    def _end(self, losses: list[float], diverged: list[float], columns: Columns) -> int | None:
        settings = self.settings
        verbose = self.model.verbose if settings.verbose is None else settings.verbose
        if not (verbose or settings.callbacks or self.stop_loss is not None or settings.min_loss_change is not None):
            self.done += len(losses)
            return None if 1.0 not in diverged else diverged.index(1.0) + 1
        for i, loss in enumerate(losses):
            self.done += 1
            is_good = self.stop_loss is not None and loss <= self.stop_loss
            if settings.min_loss_change is not None and abs(self.previous - loss) <= settings.min_loss_change:
                is_good = True
            self.streak, self.previous = self.streak + 1 if is_good else 0, loss
            asked: list[bool] = []
            if verbose or settings.callbacks:
                row = row_of(columns, i)
                self._tell(verbose, row, self.step + i)
                asked = [callback(self.step + i, row) is True for callback in settings.callbacks]  # every one is asked
            is_enough = self.streak >= settings.stop_patience and self.step + i + 1 >= settings.stop_min_steps
            if diverged[i] or any(asked) or is_enough:
                return i + 1
        return None

    def _one(self, x: np.ndarray, y: np.ndarray) -> Columns:
        """One eager step."""
        self.state_rails: list[tuple[np.ndarray, Any]] = []
        x, y = self._drifted(x, y, self.step)
        before = [p.numpy().copy() for p in self.params]
        theta = _vector(before)
        found = gradients(self, x, y)
        grads, gradient = found.arrays, _vector(found.arrays)
        eigenvalues, residual = self.hessian.at(self.step, x, y)
        sensed = self._sense(theta, gradient, (x, y))
        grad_norm = norm(gradient)
        control = self.controller.step(
            learning_rate=self.settings.learning_rate, curvature_proxy=sensed[0], curvature_ema=sensed[1], grad_norm=grad_norm,
            update_quantum=self.update_quantum, sensor=self.sensor,
        )  # fmt: skip
        proposal_norm, deltas = self._proposal(control, grads, before, grad_norm)
        update_saturation, _ = self.model._rail_max_for_tensors(deltas, self.params, self.precision, field="update")
        self._update(before, deltas)
        states = [rail_stats(state, dtype) for state, dtype in self.state_rails]
        denominators = self.rule.preconditioner() if isinstance(self.rule, AdamRule) else None
        lost = [rail_stats(d, f).underflow_fraction for d, f in zip(deltas, self.update_formats, strict=True)]
        one = lambda v: np.array([v], np.float64)  # noqa: E731
        return measure(self, Block(
            theta=theta[None],
            after=_vector([p.numpy() for p in self.params])[None],
            gradient=gradient[None],
            raw=_vector(deltas)[None],
            squares=one(found.squares),
            loss=one(found.loss),
            grad_norm=one(grad_norm),
            proposal_norm=one(proposal_norm),
            sensed=(one(sensed[0]), one(sensed[1]), one(sensed[2])),
            control=Decision(*(one(getattr(control, name)) for name in Decision.__annotations__)),
            elements=y.size,
            eigenvalues=None if eigenvalues is None else eigenvalues[None],
            hessian_residual=residual,
            weight_rails=self.model._rail_max_for_variables(self.params, self.precision, fields=("weight", "bias")),
            gradient_rails=found.rails,
            register=found.register,
            loss_scale=found.scale,
            update_saturation=update_saturation,
            update_underflow=max(lost, default=0.0),
            states=(max((r.saturation_fraction for r in states), default=0.0), max((r.underflow_fraction for r in states), default=0.0)),
            denominator=math.nan if denominators is None else min(float(d.min()) for d in denominators),
        ))  # fmt: skip

    def _drifted(self, x: np.ndarray, y: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        drift = self.drift
        if drift is None:
            return x, y
        x = drift.inputs(x, step)
        if drift.target == "consistent":
            data = self.model.dataset
            y = (x @ data.reference_weight_matrix.T + data.reference_bias_vector).astype(np.float32)
        return x, y

    def loss_from(self, squares: Any, samples: Any, elements: Any) -> Any:
        """The loss, not quantised, from the sum of the squared residuals of a batch."""
        return squares / (2.0 * samples) if self.settings.loss_mode == "half_mse" else squares / elements

    def _sense(self, theta: np.ndarray, gradient: np.ndarray, batch: tuple[np.ndarray, np.ndarray]) -> tuple[float, float, bool]:
        is_first = self.sensor.theta is None
        sensed = self.sensor.update(theta, gradient)
        if is_first and self.settings.first_step == "probe":
            self.sensor.curvature = self.hessian.probe(batch, gradient)
            sensed = (self.sensor.curvature, sensed[1], True)
        return sensed

    def _proposal(
        self, control: ControllerStep, grads: list[np.ndarray], before: list[np.ndarray], grad_norm: float
    ) -> tuple[float, list[np.ndarray]]:
        """The norm of the proposal before the throttle, and the updates after it."""
        if self.rule is None:
            rate = np.float32(control.eta_eff)
            return self.settings.learning_rate * grad_norm, [g * g.dtype.type(-rate) for g in grads]
        proposal = self.rule.propose(grads, before)
        return norm(_vector(proposal)), [(control.alpha * d).astype(p.dtype) for d, p in zip(proposal, before, strict=True)]

    def _update(self, before: list[np.ndarray], deltas: list[np.ndarray]) -> None:
        """Formats of the updates, sums, storage."""
        applied = [
            d if f is None else f.rounded(d, key_of(f, self.model.seed, *place, "update", self.step))
            for d, f, place in zip(deltas, self.update_formats, self.places, strict=True)
        ]
        for i, (p, d) in enumerate(zip(self.params, applied, strict=True)):
            p.copy_from_numpy(self._moved(i, before[i], d))
            if self.precision is not None:
                self.model._quantize_variable_storage(p, self.precision, self.step)

    def _moved(self, i: int, before: np.ndarray, delta: np.ndarray) -> np.ndarray:
        """The parameter plus its update; with a format ``master_weight`` the sum is kept in that."""
        layer, own = self.places[i]
        dtype = self.format_of(layer, "master_weight")
        if dtype is None:
            return before + delta
        master = self.master[i] if self.master[i] is not None else before.astype(np.float64)
        kept = dtype.rounded(master + delta, key_of(dtype, self.model.seed, layer, own, "master", self.step))
        self.master[i] = kept
        return kept.astype(before.dtype)

    def _store_state(self, field: str, i: int, state: np.ndarray) -> np.ndarray:
        """The state of an update rule in its format; remembers what was lost at the rails."""
        layer, own = self.places[i]
        dtype = self.format_of(layer, field)
        if dtype is None:
            dtype = self.format_of(layer, "optimizer_state")
        if dtype is None:
            return state
        self.state_rails.append((state, dtype))
        return dtype.rounded(state, key_of(dtype, self.model.seed, layer, own, field, self.step))

    # -- what is told and kept

    def _tell(self, verbose: Any, row: dict[str, float], step: int) -> None:
        if not verbose:
            return
        done, total, per_epoch = self.done, self.total, self.total // self.settings.epochs
        text = f"loss {row['loss']:.6g}" + (f", alpha {row['alpha']:.4g}" if "alpha" in row else "")
        if row["diverged"]:
            print(f"[DIVERGED] step={step}: {text}")  # noqa: T201 - verbose
        elif verbose == "progressbar":
            every = self.settings.progress_interval or max(total // 100, 1)
            if done % every == 0 or done == total:
                filled = 30 * done // total
                bar = "=" * filled + " " * (30 - filled)
                print(f"\r[{bar}] {done}/{total} {text}", end="\n" if done == total else "", flush=True)  # noqa: T201 - verbose
        elif done % per_epoch == 0:
            if done == per_epoch:
                print(f"{self.model.name}: {total} steps, {self.controller.describe()}")  # noqa: T201 - verbose
            print(f"epoch {done // per_epoch}/{self.settings.epochs}: {text}")  # noqa: T201 - verbose

    def _meta(self) -> dict[str, Any]:
        rule = None if self.rule is None else self.rule.state_dict()
        return {
            "seed": self.model.seed,
            "versions": {"python": platform.python_version(), "numpy": np.__version__},
            "arguments": self.settings.described(),
            "controller": self.controller.describe(),
            "precision": None if self.precision is None else self.precision.to_dict(),
            "eager": self.why_eager,
            "state": {
                "sensor": self.sensor.get_state(),
                "controller": self.controller.get_state(),
                "order": self.order.bit_generator.state,
                "step": self.step,
                "loss_scale": (self.scale.value, self.scale.good),
                "rule": rule,
            },
        }


def _finite(name: str, a: Any) -> np.ndarray:
    array = np.asarray(a.numpy() if isinstance(a, Tensor) else a, np.float32)
    bad = np.count_nonzero(~np.isfinite(array))
    if bad:
        raise ValueError(f"train_instrumented: {name} has {bad} values that are not finite (in float32)")
    return array


def _indices(a: Any) -> np.ndarray:
    """X for a network that begins with an Embedding: its numbers stay integers."""
    array = np.asarray(a.numpy() if isinstance(a, Tensor) else a)
    whole = array.astype(np.int64)
    if not np.array_equal(whole, array):
        raise ValueError("train_instrumented: the network begins with an Embedding, so X must hold whole numbers")
    return whole


def _vector(arrays: Any) -> np.ndarray:
    return np.concatenate([np.asarray(a, np.float64).reshape(-1) for a in arrays])
