"""The instrumented loop: one `Run` per call of ``train_instrumented``."""

from __future__ import annotations

import math
import platform
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.autograd.backward import grad
from keydnn.stability.controllers import ControllerStep
from keydnn.stability.curvature import loss_of
from keydnn.stability.dtypes import HLSDataType
from keydnn.stability.history import FitHistory
from keydnn.stability.keys import key_of
from keydnn.stability.nn.hessian import HessianMonitor
from keydnn.stability.nn.settings import Settings, is_active
from keydnn.stability.nn.telemetry import Step, measure
from keydnn.stability.precision import PrecisionDict, ensure_precision_dict
from keydnn.stability.rules import exact
from keydnn.training.step import restore

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
        self.X, self.Y = _finite("X", X), _finite("Y", Y)
        if len(self.X) != len(self.Y) or not len(self.X):
            raise ValueError(f"train_instrumented: X has {len(self.X)} samples, Y has {len(self.Y)}; expected equal numbers of at least 1")
        self.precision: PrecisionDict | None = ensure_precision_dict(settings.precision_dict)
        if self.precision is not None:
            self.precision.validate_model(model)
        self.params = list(model.model.parameters())
        self.places = [model._layer_and_field_for_variable(p) for p in self.params]
        if self.precision is not None:
            self._check_widths()
        self.config = settings.config
        self.keys = self.config.keys
        self.controller = settings.make_controller()
        self.sensor = settings.make_sensor(self.controller)
        self.stop_loss, self.diverge_loss = self._loss_limits()
        self.update_formats = [self._format(layer, "update") for layer, _ in self.places]
        self.update_quantum = model._max_update_quantum(self.params, self.precision)
        self.hessian = HessianMonitor(self)
        A = settings.reference_A if settings.reference_A is not None else self.config.reference_A
        self.first = next((i for i, p in enumerate(self.params) if p.ndim == 2), None)
        fits = A is not None and self.first is not None and np.shape(A) == self.params[self.first].shape
        self.reference_A = np.asarray(A, np.float64) if fits else None
        self.rule = settings.update_rule

    # -- set-up

    def _format(self, layer: str, field: str) -> Any:
        return None if self.precision is None else self.precision.dtype(layer, field)

    def _check_widths(self) -> None:
        for p, (layer, own) in zip(self.params, self.places, strict=True):
            if p.dtype == np.float64:
                continue
            for field in {own, *_STORED[2:]}:
                dtype = self._format(layer, field)
                if isinstance(dtype, HLSDataType) and dtype.WL > FLOAT32_BITS:
                    raise ValueError(
                        f"train_instrumented: {layer}.{field} has {dtype.WL} bits, float32 parameters hold {FLOAT32_BITS};"
                        ' make the model with dtype="float64"'
                    )

    def _loss_limits(self) -> tuple[float | None, float | None]:
        dtype = self._format("loss", "value")
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
            if self.rule is not None and state["rule"] is not None:
                self.rule.load_state_dict(state["rule"])
        if self.settings.quantize_initial and self.precision is not None:
            for p in self.params:
                self.model._quantize_variable_storage(p, self.precision, -1)

    # -- the loop

    def run(self) -> FitHistory:
        """All steps; the network's training flags and the caller's error state stay as they were."""
        network = self.model.model
        flags = [(module, module.training) for module in network.modules()]
        network.train(True)
        self._begin()
        self.rows: list[dict[str, float]] = []
        try:
            with np.errstate(all="ignore"):
                self._epochs()
        finally:
            restore(flags)
            if self.rule is not None:
                self.rule.store = exact
        history = FitHistory(**{key: np.array([row[key] for row in self.rows]) for key in self.keys})
        history.meta = self._meta()
        return history

    def _epochs(self) -> None:
        n, size = len(self.X), self.settings.batch_size
        streak, previous = 0, math.nan
        total = self.settings.epochs * -(-n // size)
        for epoch in range(self.settings.epochs):
            index = self.order.permutation(n) if self.settings.shuffle else np.arange(n)
            for begin in range(0, n, size):
                rows = index[begin : begin + size]
                row = self._one(rows, is_whole=len(rows) == n)
                self.rows.append(row)
                self.step += 1
                loss = row["loss"]
                is_good = self.stop_loss is not None and loss <= self.stop_loss
                if self.settings.min_loss_change is not None and abs(previous - loss) <= self.settings.min_loss_change:
                    is_good = True
                streak, previous = streak + 1 if is_good else 0, loss
                self._tell(epoch, total, begin + size >= n, row)
                asked = [callback(self.step - 1, row) for callback in self.settings.callbacks]
                if row["diverged"] or any(a is True for a in asked):
                    return
                if streak >= self.settings.stop_patience and self.step >= self.settings.stop_min_steps:
                    return

    def _one(self, rows: np.ndarray, is_whole: bool) -> dict[str, float]:
        s = Step(self.settings.learning_rate, is_whole)
        self.state_rails: list[tuple[np.ndarray, Any]] = []
        x, y = self._batch(rows)
        s.x = x
        s.before = [p.numpy().copy() for p in self.params]
        s.theta = _vector(s.before)
        grads = self._gradients(s, x, y)
        s.gradient = _vector(grads)
        self.hessian.look(s, self.step, x, y)
        s.sensed = self._sense(s)
        s.control = self._control(s)
        s.alpha_is_active = is_active(self.controller)
        self._update(s, grads)
        s.after = [p.numpy() for p in self.params]
        s.theta_after = _vector(s.after)
        return measure(self, s)

    def _batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y = self.X[rows], self.Y[rows]
        drift = self.settings.drift
        if drift is None:
            return x, y
        x = drift.inputs(x, self.step)
        if drift.target == "consistent":
            data = self.model.dataset
            y = (x @ data.reference_weight_matrix.T + data.reference_bias_vector).astype(np.float32)
        return x, y

    def _gradients(self, s: Step, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
        """Forward and backward; fills the loss and the residual."""
        model, target = self.model, Tensor(data=y)
        if self.precision is None:
            prediction = model.model(Tensor(data=x))
        else:
            prediction = model._forward_with_precision(Tensor(data=x), self.precision, training=True, step=self.step)
            target = target.astype(np.float64)
        if prediction.shape != target.shape:
            raise ValueError(f"train_instrumented: the network gives {prediction.shape}, Y has {target.shape}")
        loss = loss_of(prediction, target, self.settings.loss_mode)
        s.residual = prediction.numpy().astype(np.float64) - y
        found = grad(loss, self.params, allow_unused=True)
        grads = [np.zeros(p.shape, p.dtype) if g is None else g.numpy() for p, g in zip(self.params, found, strict=True)]
        squares = float(np.sum(s.residual * s.residual))
        s.loss = squares / (2.0 * len(y)) if self.settings.loss_mode == "half_mse" else squares / s.residual.size
        dtype = self._format("loss", "value")
        if dtype is not None:
            s.loss = dtype(s.loss, key=key_of(dtype, model.seed, "loss", "value", self.step))
        if self.precision is not None:
            grads = model._quantize_gradients(grads, self.params, self.precision, self.step)
            s.gradient_rails = model._rail_max_for_tensors(grads, self.params, self.precision, field="gradient")
        return grads

    def _sense(self, s: Step) -> tuple[float, float, bool]:
        is_first = self.sensor.theta is None
        sensed = self.sensor.update(s.theta, s.gradient)
        if is_first and self.settings.first_step == "probe":
            self.sensor.curvature = self.hessian.probe(s)
            sensed = (self.sensor.curvature, sensed[1], True)
        return sensed

    def _control(self, s: Step) -> ControllerStep:
        s.grad_norm = _norm(s.gradient)
        return self.controller.step(
            learning_rate=self.settings.learning_rate,
            curvature_proxy=s.sensed[0],
            curvature_ema=s.sensed[1],
            grad_norm=s.grad_norm,
            update_quantum=self.update_quantum,
            sensor=self.sensor,
        )

    def _update(self, s: Step, grads: list[np.ndarray]) -> None:
        """Proposal, throttle, formats, storage."""
        alpha = s.control.alpha
        if self.rule is None:
            rate = np.float32(s.control.eta_eff)
            deltas = [g * g.dtype.type(-rate) for g in grads]
            s.proposal_norm = self.settings.learning_rate * s.grad_norm
        else:
            proposal = self.rule.propose(grads, s.before)
            s.proposal_norm = _norm(_vector(proposal))
            deltas = [(alpha * d).astype(p.dtype) for d, p in zip(proposal, s.before, strict=True)]
        s.raw = deltas
        if self.precision is not None:
            s.update_rails = self.model._rail_max_for_tensors(deltas, self.params, self.precision, field="update")
        applied = [
            d if f is None else f.rounded(d, key_of(f, self.model.seed, *place, "update", self.step))
            for d, f, place in zip(deltas, self.update_formats, self.places, strict=True)
        ]
        for i, (p, d) in enumerate(zip(self.params, applied, strict=True)):
            p.copy_from_numpy(self._moved(i, s.before[i], d))
            if self.precision is not None:
                self.model._quantize_variable_storage(p, self.precision, self.step)

    def _moved(self, i: int, before: np.ndarray, delta: np.ndarray) -> np.ndarray:
        """The parameter plus its update; with a format ``master_weight`` the sum is kept in that."""
        layer, own = self.places[i]
        dtype = self._format(layer, "master_weight")
        if dtype is None:
            return before + delta
        master = self.master[i] if self.master[i] is not None else before.astype(np.float64)
        kept = dtype.rounded(master + delta, key_of(dtype, self.model.seed, layer, own, "master", self.step))
        self.master[i] = kept
        return kept.astype(before.dtype)

    def _store_state(self, field: str, i: int, state: np.ndarray) -> np.ndarray:
        """The state of an update rule in its format; remembers what was lost at the rails."""
        layer, own = self.places[i]
        dtype = self._format(layer, field)
        if dtype is None:
            dtype = self._format(layer, "optimizer_state")
        if dtype is None:
            return state
        self.state_rails.append((state, dtype))
        return dtype.rounded(state, key_of(dtype, self.model.seed, layer, own, field, self.step))

    # -- what is told and kept

    def _tell(self, epoch: int, total: int, ends_epoch: bool, row: dict[str, float]) -> None:
        verbose = self.model.verbose if self.settings.verbose is None else self.settings.verbose
        if not verbose:
            return
        done = len(self.rows)
        text = f"loss {row['loss']:.6g}" + (f", alpha {row['alpha']:.4g}" if "alpha" in row else "")
        if row["diverged"]:
            print(f"[DIVERGED] step={self.step - 1}: {text}")  # noqa: T201 - verbose
        elif verbose == "progressbar":
            every = self.settings.progress_interval or max(total // 100, 1)
            if done % every == 0 or done == total:
                filled = 30 * done // total
                bar = "=" * filled + " " * (30 - filled)
                print(f"\r[{bar}] {done}/{total} {text}", end="\n" if done == total else "", flush=True)  # noqa: T201 - verbose
        elif ends_epoch:
            if epoch == 0:
                print(f"{self.model.name}: {total} steps, {self.controller.describe()}")  # noqa: T201 - verbose
            print(f"epoch {epoch + 1}/{self.settings.epochs}: {text}")  # noqa: T201 - verbose

    def _meta(self) -> dict[str, Any]:
        rule = None if self.rule is None else self.rule.state_dict()
        return {
            "seed": self.model.seed,
            "versions": {"python": platform.python_version(), "numpy": np.__version__},
            "arguments": self.settings.described(),
            "controller": self.controller.describe(),
            "precision": None if self.precision is None else self.precision.to_dict(),
            "state": {
                "sensor": self.sensor.get_state(),
                "controller": self.controller.get_state(),
                "order": self.order.bit_generator.state,
                "step": self.step,
                "rule": rule,
            },
        }


def _finite(name: str, a: Any) -> np.ndarray:
    array = np.asarray(a.numpy() if isinstance(a, Tensor) else a, np.float32)
    bad = np.count_nonzero(~np.isfinite(array))
    if bad:
        raise ValueError(f"train_instrumented: {name} has {bad} values that are not finite (in float32)")
    return array


def _vector(arrays: Any) -> np.ndarray:
    return np.concatenate([np.asarray(a, np.float64).reshape(-1) for a in arrays])


def _norm(v: np.ndarray) -> float:
    return math.sqrt(float(v @ v))
