"""One instrumented step as operations of the engine, so that it can be recorded.

Nothing is read back to Python between the batch and the update: the sensor's memory and the controller's state are tensors.
What the step hands out (`Program.HANDED`, then the gradient and the parameters after the step) is what all metrics follow from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.autograd.backward import grad
from keydnn.autograd.modes import no_grad
from keydnn.compiler.step import RecordedStep
from keydnn.ops import concat
from keydnn.ops.inplace import assign_
from keydnn.stability.curvature import loss_of
from keydnn.stability.laws import State, control, scalar
from keydnn.stability.nn.forward import FLOAT64, Formats, layer_forward
from keydnn.stability.quantization import quantize_tensor


def check_shapes(prediction: Tensor, target: Tensor) -> None:
    """Raise ValueError unless the network gives what the targets are."""
    if prediction.shape != target.shape:
        raise ValueError(f"train_instrumented: the network gives {prediction.shape}, Y has {target.shape}")


def squares_of(prediction: Tensor, target: Tensor) -> Tensor:
    """The sum of the squared residuals, in float64."""
    with no_grad():
        residual = prediction.detach().astype(FLOAT64) - target.astype(FLOAT64)
        return (residual * residual).sum()


class Program:
    """The step of a run; one recorded step per size of batch, all on the same state.

    Args:
        run: The instrumented run; its settings are fixed in the program, its model's parameters bound.
    """

    HANDED = (
        "squares", "curvature", "average", "valid", "grad_norm", "alpha", "alpha_would", "curvature_for_control", "alpha_min", "alpha_max",
        "feasible",
    )  # fmt: skip

    def __init__(self, run: Any) -> None:
        model = run.model
        self.network, self.params, self.precision, self.seed = model.model, run.params, run.precision, model.seed
        self.loss_mode, self.eta, self.quantum = run.settings.loss_mode, run.settings.learning_rate, run.update_quantum
        self.controller, self.sensor = run.controller, run.sensor
        self.dtype = run.params[0].dtype
        self.update_formats = run.update_formats
        self.gradient_formats = [run.format_of(layer, "gradient") for layer, _ in run.places]
        self.stored_formats = [None if self.precision is None else model._storage_format(p, self.precision) for p in self.params]
        self.state = State(sum(p.numel() for p in self.params))
        self.steps: dict[tuple[int, ...], RecordedStep] = {}

    def step_for(self, *arrays: np.ndarray) -> RecordedStep:
        """The recorded step for batches of a size."""
        key = tuple(len(a) for a in arrays)
        if key not in self.steps:
            self.steps[key] = RecordedStep(self.step, fuse=False)
        return self.steps[key]

    def prepared(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The data as the step takes them: in the dtype of the parameters, or under a map in float64 with the inputs in their format."""
        if self.precision is None:
            return x.astype(self.dtype), y.astype(self.dtype)
        q = Formats(self.precision, self.seed)
        return q("input", "value", Tensor(data=x).astype(FLOAT64)).numpy(), y.astype(np.float64)

    def step(self, x: Tensor, y: Tensor) -> Sequence[Tensor]:
        """Forward, backward, sensor, controller, update."""
        prediction = self._forward(x)
        check_shapes(prediction, y)
        found = grad(loss_of(prediction, y, self.loss_mode), self.params, allow_unused=True)
        with no_grad():
            squares = squares_of(prediction, y)
            grads = [
                quantize_tensor(Tensor(p.shape, dtype=p.dtype) if g is None else g.detach(), f)
                for p, g, f in zip(self.params, found, self.gradient_formats, strict=True)
            ]
            gradient = _joined(grads)
            wide = gradient.astype(FLOAT64)
            grad_norm = (wide * wide).sum().sqrt()
            sensed = self.state.sense(self.sensor, _joined(self.params).astype(FLOAT64), wide)
            decision = control(self.controller, self.state, self.eta, sensed[0], sensed[1], grad_norm, self.quantum)
            after = self._update(decision.alpha, grads)
        handed = {
            "squares": squares, "curvature": sensed[0], "average": sensed[1], "valid": sensed[2], "grad_norm": grad_norm, **vars(decision),
        }  # fmt: skip
        numbers = [handed[name] for name in self.HANDED]
        return [*(v if isinstance(v, Tensor) else scalar(v) for v in numbers), gradient, after]

    def _forward(self, x: Tensor) -> Tensor:
        if self.precision is None:
            return self.network(x)
        q = Formats(self.precision, self.seed)
        for name, layer in self.network.named_children():
            x = layer_forward(layer, name, q, x, True)
        return x

    def _update(self, alpha: Tensor, grads: list[Tensor]) -> Tensor:
        rate = -(alpha * self.eta).astype(np.float32).astype(self.dtype)
        stored = []
        for p, g, update, own in zip(self.params, grads, self.update_formats, self.stored_formats, strict=True):
            value = quantize_tensor(p.detach() + quantize_tensor(g * rate, update), own)
            assign_(p, value)
            stored.append(value)
        return _joined(stored)


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    flat = [t.detach().reshape(-1) for t in tensors]
    return flat[0] if len(flat) == 1 else concat(flat, axis=0)
