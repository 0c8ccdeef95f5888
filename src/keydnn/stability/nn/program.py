"""One instrumented step as operations of the engine, so that it can be recorded.

Nothing is read back to Python between the batch and the update: the sensor's memory, the controller's state, all settings and all
number formats are tensors.  What the step hands out (`Program.HANDED`, then the gradient and the parameters after the step) is
what all metrics follow from.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.autograd.backward import grad
from keydnn.autograd.modes import no_grad
from keydnn.compiler.step import RecordedStep
from keydnn.kernels.reference.quantize import OVERFLOW, ROUNDING
from keydnn.nn import Module
from keydnn.ops import concat
from keydnn.ops.inplace import assign_
from keydnn.ops.quantize import quantize_by
from keydnn.stability.laws import Kind, Knobs, State, control, sense
from keydnn.stability.nn.forward import layer_forward
from keydnn.stability.nn.quantisers import FLOAT64, Formats
from keydnn.stability.precision import layer_names
from keydnn.stability.products import check_shapes, loss_of
from keydnn.training import Sequential

_PLAIN = (int, float, bool, str, tuple, np.dtype, type(None))
_IGNORED = ("training", "initializer", "device", "_stamp", "_parameters", "_buffers", "_modules", "_transient")


def squares_of(prediction: Tensor, target: Tensor) -> Tensor:
    """The sum of the squared residuals, in float64; of predictions with an axis more than the target, one along it."""
    with no_grad():
        residual = prediction.detach().astype(FLOAT64) - target.astype(FLOAT64)
        return (residual * residual).sum(tuple(range(prediction.ndim - target.ndim, prediction.ndim)))


def form_of(network: Any) -> Any:
    """What networks that compute the same function of their tensors have in common; None for one that cannot tell."""
    if type(network) is not Sequential or any(name in vars(network) for name in ("_hooks", "forward")):
        return None
    found: list[Any] = []
    for path, module in list(network.named_modules())[1:]:
        own = {name: v for name, v in vars(module).items() if name not in _IGNORED and not isinstance(v, Tensor | Module)}
        if not type(module).__module__.startswith("keydnn.nn.") or not all(isinstance(v, _PLAIN) for v in own.values()):
            return None
        found.append((path, type(module), tuple(sorted(own.items(), key=lambda entry: entry[0]))))
    places: dict[int, int] = {}
    tensors = [*network.named_parameters(unique=False), *network.named_buffers()]
    for path, t in tensors:
        found.append((path, t.shape, t.dtype, t.requires_grad, places.setdefault(id(t), len(places))))
    return tuple(found)


def formats_of(run: Any) -> dict[Any, Any]:
    """The formats of a run by where they apply; places without one are left out."""
    if run.precision is None:
        return {}
    named = {field for fields in run.precision.values() for field in fields}
    found = {(layer, field): run.precision.dtype(layer, field) for layer in layer_names(run.model.model) for field in named}
    for i, (p, (layer, _)) in enumerate(zip(run.params, run.places, strict=True)):
        found |= {("gradient", i): run.format_of(layer, "gradient"), ("update", i): run.update_formats[i]}
        found["stored", i] = run.model._storage_format(p, run.precision)
    return {place: dtype for place, dtype in found.items() if dtype is not None}


def floats_of(run: Any) -> frozenset[tuple[str, str]]:
    """Layers and fields that a map sets to None."""
    if run.precision is None:
        return frozenset()
    named = {field for fields in run.precision.values() for field in fields}
    pairs = [(layer, field) for layer in layer_names(run.model.model) for field in named if run.precision.lists(layer, field)]
    return frozenset(pair for pair in pairs if run.precision.dtype(*pair) is None)


class LiveFormats(Formats):
    """Quantisers whose formats are tensors.

    Args:
        table: From layer and field to the tensor of the format.
        floats: Layers and fields that are explicitly without.
    """

    def __init__(self, table: dict[Any, Tensor], floats: frozenset[tuple[str, str]]) -> None:
        self.table, self.floats = table, floats

    def has(self, layer: str, *fields: str) -> bool:
        """Whether one of the fields has a format."""
        return any((layer, field) in self.table for field in fields)

    def __call__(self, layer: str, field: Any, z: Tensor, *otherwise: str, turn: int | None = None) -> Tensor:
        """z in the format of the first of the fields that has an entry; z itself where that is None, or there is none."""
        for name in (field, *otherwise):
            if (layer, name) in self.floats:
                return z
            if (layer, name) in self.table:
                return quantize_by(z, self.table[layer, name])
        return z


class Program:
    """The step of a kind of run; one recorded step per size of batch, all on the same state.

    Args:
        run: A run of this kind.
        is_shared: Whether it will serve other models too: then it works on a network of its own.
    """

    HANDED = (
        "squares", "curvature", "average", "valid", "grad_norm", "alpha", "alpha_would", "curvature_for_control", "alpha_min", "alpha_max",
        "feasible",
    )  # fmt: skip

    def __init__(self, run: Any, is_shared: bool) -> None:
        self.network, self.loss_mode, self.is_quantised = run.model.model, run.settings.loss_mode, run.precision is not None
        if is_shared:
            self.network = Sequential()
            for name, layer in copy.deepcopy(dict(run.model.model.named_children())).items():
                self.network.add(layer, name=name)
            self.network.train(True)
        self.params = list(self.network.parameters())
        self.dtype, self.size = self.params[0].dtype, sum(p.numel() for p in self.params)
        self.kind, self.knobs, self.state = Kind.of(run.controller, run.sensor), Knobs(), State(self.size)
        table = {place: Tensor(data=codes(dtype), dtype=np.int64) for place, dtype in formats_of(run).items()}
        self.q = LiveFormats(table, floats_of(run))
        self.steps: dict[int, RecordedStep] = {}

    @staticmethod
    def key_of(run: Any) -> Any:
        """What runs that one program serves have in common; None for a run that needs its own."""
        form = form_of(run.model.model)
        if form is None:
            return None
        shapes = (run.X.shape[1:], run.Y.shape[1:])
        formats = frozenset(formats_of(run)), floats_of(run)
        return form, shapes, run.settings.loss_mode, Kind.of(run.controller, run.sensor), run.precision is None, formats

    # -- between runs

    def take(self, run: Any) -> None:
        """Everything that the step reads, from a run."""
        for place, dtype in formats_of(run).items():
            self.q.table[place].copy_from_numpy(codes(dtype))
        self.refresh(run)

    def refresh(self, run: Any) -> None:
        """Everything that can change between the steps of a run."""
        for mine, t in self._pairs(run):
            mine.copy_from_numpy(t.numpy())
        self.knobs.take(run)
        self.state.take(run)

    def give(self, run: Any) -> None:
        """What the steps changed, to the run."""
        for mine, t in self._pairs(run):
            t.copy_from_numpy(mine.numpy())
        self.state.give(run.sensor, run.controller)

    def _pairs(self, run: Any) -> list[tuple[Tensor, Tensor]]:
        network = run.model.model
        if network is self.network:
            return []
        return [*zip(self.params, network.parameters(), strict=True), *zip(self.network.buffers(), network.buffers(), strict=True)]

    def written(self) -> list[Tensor]:
        """All tensors that steps write."""
        return [*self.params, *self.network.buffers(), *self.state.tensors()]

    def step_for(self, batch: int) -> RecordedStep:
        """The recorded step for batches of a size."""
        step = self.steps.get(batch)
        if step is None or not (step.plan is None or step.holds()):
            step = self.steps[batch] = RecordedStep(self.step, fuse=False)
        return step

    def prepared(self, run: Any) -> list[np.ndarray]:
        """The data as the step takes them: in the dtype of the parameters, or under a map in float64 with the inputs in their format."""
        is_indexed = run.X.dtype.kind in "iu"
        if run.precision is None:
            return [run.X if is_indexed else run.X.astype(self.dtype), run.Y.astype(self.dtype)]
        q = Formats(run.precision, run.model.seed)
        x = run.X if is_indexed else q("input", "value", Tensor(data=run.X).astype(FLOAT64)).numpy()
        return [x, run.Y.astype(np.float64)]

    # -- the step

    def step(self, x: Tensor, y: Tensor) -> Sequence[Tensor]:
        """Forward, backward, sensor, controller, update."""
        prediction = self._forward(x)
        self._check(prediction, y)
        found = grad(loss_of(prediction, y, self.loss_mode), self.params, allow_unused=True)
        with no_grad():
            squares = squares_of(prediction, y)
            given = [Tensor(p.shape, dtype=p.dtype) if g is None else g.detach() for p, g in zip(self.params, found, strict=True)]
            grads = [self.q("gradient", i, g) for i, g in enumerate(given)]
            gradient = self._joined(grads)
            wide = gradient.astype(FLOAT64)
            grad_norm = (wide * wide).sum(-1).sqrt()
            curvature, average, valid = sense(self.kind, self.knobs, self.state, self._joined(self.params).astype(FLOAT64), wide)
            decision = control(self.kind, self.knobs, self.state, curvature, average, grad_norm)
            after = self._update(decision.alpha, grads)
        handed = {
            "squares": squares, "curvature": curvature, "average": average, "valid": valid, "grad_norm": grad_norm, **vars(decision),
        }  # fmt: skip
        return [*(handed[name] for name in self.HANDED), gradient, after]

    def _check(self, prediction: Tensor, target: Tensor) -> None:
        check_shapes(prediction, target)

    def _forward(self, x: Tensor) -> Tensor:
        if not self.is_quantised:
            return self.network(x)
        for name, layer in self.network.named_children():
            x = layer_forward(layer, name, self.q, x, True)
        return x

    def _update(self, alpha: Tensor, grads: list[Tensor]) -> Tensor:
        rate = -(alpha * self.knobs.eta).astype(np.float32).astype(self.dtype)
        stored = []
        for i, (p, g) in enumerate(zip(self.params, grads, strict=True)):
            factor = rate.reshape(*rate.shape, *(1,) * (p.ndim - rate.ndim)) if rate.ndim else rate
            stored.append(self.q("stored", i, p.detach() + self.q("update", i, g * factor)))
            assign_(p, stored[-1])
        return self._joined(stored)

    def _joined(self, tensors: Sequence[Tensor]) -> Tensor:
        """All in one vector, or in one per run."""
        lead = self.knobs.one.shape
        flat = [t.detach().reshape(*lead, -1) for t in tensors]
        return flat[0] if len(flat) == 1 else concat(flat, axis=len(lead))


def codes(dtype: Any) -> np.ndarray:
    """A fixed-point format as the kernel `quantize_by` takes it."""
    p = dtype.kernel_params
    return np.array(
        [p["wl"], p["iwl"], p["signed"], ROUNDING.index(p["qmode"]), OVERFLOW.index(p["omode"]), p["sat_bits"]], np.int64
    )  # fmt: skip
