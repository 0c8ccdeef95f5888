"""BaseModel: a network and the data it learns, with a plain and an instrumented training loop.

A new kind of model subclasses it, builds ``self.model`` in ``__post_init__`` with stable names of layers (never ``input`` or
``loss``), and where it has new kinds of parameters or layers overrides `_layer_and_field_for_variable` or
`_forward_with_precision`.
"""

from __future__ import annotations

import functools
import inspect
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.stability.dataset import BaseDataset
from keydnn.stability.history import FitHistory
from keydnn.stability.keys import key_of
from keydnn.stability.nn.forward import layer_forward
from keydnn.stability.nn.loop import Run
from keydnn.stability.nn.quantisers import FLOAT64, Formats, fields_of
from keydnn.stability.nn.settings import Settings
from keydnn.stability.precision import PrecisionDict
from keydnn.stability.quantization import quantize_tensor, rail_stats
from keydnn.training.resolve import resolve_loss

_HOOKS = (
    "_forward_with_precision", "_quantize_gradients", "_quantize_variable_storage", "_storage_format", "_layer_and_field_for_variable",
    "_rail_max_for_variables", "_rail_max_for_tensors", "_max_update_quantum", "_same_variable", "_own_name",
)  # fmt: skip


@functools.cache
def _defaults() -> dict[str, Any]:
    """The arguments of `BaseModel.train_instrumented` that have a value when they are not given."""
    parameters = inspect.signature(BaseModel.train_instrumented).parameters
    return {name: p.default for name, p in parameters.items() if p.default is not p.empty}


@dataclass(eq=False, repr=False)
class BaseModel(ABC):
    """A network with its data set.

    Args:
        dataset: Source of the shapes.
        loss: Name, object or function, for `train`.
        optimizer: Name or object, for `train`.
        metrics: Metrics, for `train`.
        name: Shown in the repr.
        verbose: Whether to tell what happens.
        seed: Of initial weights and shuffling; None draws the weights from NumPy's global generator and shuffles from fresh entropy.
    """

    dataset: BaseDataset
    loss: Any = "mse"
    optimizer: Any = "sgd"
    metrics: Any = field(default_factory=list)
    model: Any = field(default=None, init=False)
    input_shape: tuple[int, ...] = field(default=(), init=False)
    output_shape: tuple[int, ...] = field(default=(), init=False)
    name: str = "BaseModel"
    verbose: bool = False
    seed: int | None = None

    def __post_init__(self) -> None:
        self.input_shape = tuple(self.dataset.input_shape[1:])
        self.output_shape = tuple(self.dataset.output_shape[1:])

    _initial: Any = field(default=None, init=False)  # values the network started with
    _known: dict[int, tuple[Tensor, str, str, str]] = field(default_factory=dict, init=False)  # parameters: layer, field, own name

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "model":
            object.__setattr__(self, "_initial", None)
            object.__setattr__(self, "_known", {})
        object.__setattr__(self, name, value)

    # -- the network

    def _network(self, what: str) -> Any:
        if self.model is None:
            raise ValueError(f"{type(self).__name__}.{what}: there is no network; build self.model first")
        self._remember()
        return self.model

    def _remember(self) -> None:
        """Keep the values that the network started with."""
        if self._initial is None:
            self._initial = [t.numpy().copy() for t in (*self.model.parameters(), *self.model.buffers())]

    def _compile(self, optimizer: Any = None, loss: Any = None, metrics: Any = None, **settings: Any) -> None:
        """Store what is given and look the loss up, for `train`; ``settings`` are arguments of an optimizer given by name.

        Raises:
            ValueError: An unknown loss.
        """
        chosen = self.loss if loss is None else loss
        resolve_loss(chosen)
        self.loss = chosen
        self.optimizer = self.optimizer if optimizer is None else optimizer
        self.metrics = self.metrics if metrics is None else metrics
        self._optimizer_settings = settings or None

    _optimizer_settings: Any = field(default=None, init=False)

    def summary(self) -> None:
        """Print the summary of the network."""
        print("no network has been built" if self.model is None else self.model.summary())  # noqa: T201 - what it is for

    def reinitialize_weights(self) -> None:
        """Give every parameter and running statistic the value it started with.

        Raises:
            ValueError: There is no network.
        """
        network = self._network("reinitialize_weights")
        for tensor, value in zip((*network.parameters(), *network.buffers()), self._initial, strict=True):
            tensor.copy_from_numpy(value)
        if self.verbose:
            print(f"{self.name}: initial weights restored")  # noqa: T201 - verbose

    def get_weights(self) -> list[np.ndarray]:
        """Copies of the parameters, in order."""
        return [p.numpy().copy() for p in self._network("get_weights").parameters()]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Copy arrays into the parameters.

        Raises:
            ValueError: Their number or a shape does not fit; nothing has changed then.
        """
        parameters = list(self._network("set_weights").parameters())
        arrays = [np.asarray(w) for w in weights]
        if [a.shape for a in arrays] != [p.shape for p in parameters]:
            raise ValueError(f"set_weights: expected shapes {[p.shape for p in parameters]}, got {[a.shape for a in arrays]}")
        for parameter, array in zip(parameters, arrays, strict=True):
            parameter.copy_from_numpy(array.astype(parameter.dtype))

    def __repr__(self) -> str:
        if self.model is None:
            return f"{self.name}({self.input_shape} -> {self.output_shape}, no network)"
        n = sum(p.numel() for p in self.model.parameters())
        layers = ", ".join(f"{name}: {type(layer).__name__}" for name, layer in self.model.named_children())
        return f"{self.name}({self.input_shape} -> {self.output_shape}, {n} parameters; {layers})"

    # -- training

    def train(self, X: Any, Y: Any, epochs: int = 10, batch_size: int = 32) -> dict[str, np.ndarray]:
        """Train with the engine's loss and optimizer, without shuffling; the last batch may be smaller.

        Returns:
            ``{"loss": one value per step}``.

        Raises:
            ValueError: There is no network, or the numbers of samples differ.
        """
        network = self._network("train")
        x, y = np.asarray(X, np.float32), np.asarray(Y, np.float32)
        if len(x) != len(y):
            raise ValueError(f"train: X has {len(x)} samples, Y has {len(y)}")
        losses = []
        for _ in range(epochs):
            for begin in range(0, len(x), batch_size):
                part = slice(begin, begin + batch_size)
                logs = network.train_on_batch(
                    x[part], y[part], loss=self.loss, optimizer=self.optimizer, metrics=self.metrics or None,
                    optimizer_kwargs=self._optimizer_settings,
                )  # fmt: skip
                losses.append(logs["loss"])
        return {"loss": np.array(losses)}

    def train_instrumented(
        self,
        X: Any,
        Y: Any,
        epochs: int = 10,
        batch_size: int = 32,
        learning_rate: float = 0.05,
        shuffle: bool = True,
        loss_mode: str = "half_mse",
        curvature_ema_rho: float = 0.05,
        chi: float = 1.5,
        eps: float = 1e-12,
        use_controller: bool = False,
        compute_analytic_hessian: bool = True,
        reference_A: Any = None,
        precision_dict: Any = None,
        *,
        controller: Any = None,
        metrics: Any = None,
        verbose: Any = None,
        progress_interval: int | None = None,
        stop_loss: Any = None,
        stop_patience: int = 1,
        stop_min_steps: int = 0,
        min_loss_change: float | None = None,
        diverge_loss: Any = None,
        update_rule: Any = None,
        resume: Any = None,
        drift: Any = None,
        callbacks: Sequence[Any] = (),
        sensor: Any = None,
        hessian: str | None = "analytic",
        hessian_every: int = 1,
        quantize_initial: bool = False,
        first_step: str = "free",
        loss_scale: Any = None,
    ) -> FitHistory:
        """Gradient descent in which every step is measured.

        One step: forward, loss, backward, gradients to their formats, curvature sensor, controller, updates to their formats,
        parameters to theirs, metrics.  Everything random comes from the model's seed.

        Args:
            X: Samples, cast to float32.
            Y: Targets, cast to float32.
            epochs: Passes over the data.
            batch_size: Samples per step; the last batch of an epoch may be smaller.
            learning_rate: eta, above 0.
            shuffle: Whether each epoch has a new order.
            loss_mode: ``"half_mse"``: sum of squares / (2 N); ``"keras_mse"``: mean over all elements.
            curvature_ema_rho: Weight of the newest curvature in its average.
            chi: Target margin of the order-0 law.
            eps: Guard of quotients.
            use_controller: Whether the order-0 throttle is applied rather than only logged.
            compute_analytic_hessian: Whether to compute the exact Hessian where it is known.
            reference_A: Teacher's weights (out, in) for ``weight_error_fro``; ignored unless the first weight has its shape.
            precision_dict: Formats, see `PrecisionDict`; None is the plain float computation.
            controller: None, a name or a controller; wins over ``use_controller``.
            metrics: A `MetricsConfig`; None logs everything.
            verbose: None takes the model's; True prints a line per epoch, ``"progressbar"`` a bar.
            progress_interval: Steps between updates of the bar; None is about a hundredth of the run.
            stop_loss: Stop once the loss is at most this for ``stop_patience`` steps in a row; ``"auto"`` is 2 quanta of the
                format of the loss.
            stop_patience: How many steps.
            stop_min_steps: Not before so many steps.
            min_loss_change: If given, a step that changes the loss by at most this counts for the streak too.
            diverge_loss: A loss from here on counts as divergence; ``"auto"`` is 0.95 of the upper rail of its format.
            update_rule: None is plain gradient descent; else an `UpdateRule`.
            resume: ``history.meta["state"]`` of an earlier call, to carry on with its sensor and controller.
            drift: A `DriftModel` of the inputs.
            callbacks: Functions ``f(step, row) -> bool``; True stops.
            sensor: A `CurvatureSensor`; None makes one.
            hessian: ``"analytic"``, ``"lanczos"``, ``"power"`` or None.
            hessian_every: Steps between Hessian estimates; the last one stands in between.
            quantize_initial: Whether parameters are rounded before the first step.
            first_step: ``"probe"`` estimates the curvature before the first update; ``"free"`` does not.
            loss_scale: Factor of the loss before the backward pass, taken out after gradients took their format; ``"dynamic"``
                halves it as long as a gradient overflows, and doubles it after 200 steps without.

        Returns:
            The history; ``meta`` has seed, versions, arguments, precision map and the state to resume from.

        Raises:
            ValueError: There is no network; an argument is out of range or unknown; data are not finite or do not fit; a
                precision map names no layer, or is too wide for float32.  Nothing has changed then.
        """
        arguments = {name: value for name, value in locals().items() if name not in ("self", "X", "Y")}
        self._network("train_instrumented")
        return Run(self, X, Y, Settings(**arguments)).run()

    def _run_of(self, X: Any, Y: Any, **arguments: Any) -> Run:
        """The run that `train_instrumented` would make of these arguments, before its first step."""
        self._network("train_instrumented")
        return Run(self, X, Y, Settings(**{**_defaults(), **arguments}))

    # -- the hooks

    def _forward_with_precision(self, x: Tensor, precision: PrecisionDict, *, training: bool, step: int = 0) -> Tensor:
        """The quantised forward pass, in float64; see `keydnn.stability.nn.forward`."""
        q = Formats(precision, self.seed, step)
        z = x if x.dtype.kind in "iu" else q("input", "value", x.astype(FLOAT64))  # numbers of an Embedding have no format
        for name, layer in self.model.named_children():
            z = layer_forward(layer, name, q, z, training)
        return z

    def _has_own_hooks(self) -> bool:
        """Whether a subclass or the object replaces one of the hooks."""
        return any(getattr(type(self), name) is not getattr(BaseModel, name) or name in vars(self) for name in _HOOKS)

    def _quantize_gradients(
        self, grads: Sequence[Any], trainable_vars: Sequence[Tensor], precision: PrecisionDict, step: int = 0
    ) -> list[Any]:
        """Gradients (tensors or arrays) in the format ``gradient`` of their layer, not straight-through."""
        done = []
        for g, var in zip(grads, trainable_vars, strict=True):
            layer, own = self._layer_and_field_for_variable(var)
            dtype = precision.dtype(layer, "gradient")
            key = 0 if dtype is None else key_of(dtype, self.seed, layer, f"gradient.{own}", step)
            if isinstance(g, Tensor):
                done.append(quantize_tensor(g, dtype, ste=False, key=key))
            else:
                done.append(g if dtype is None else dtype.rounded(g, key))
        return done

    def _quantize_variable_storage(self, var: Tensor, precision: PrecisionDict, step: int = 0) -> None:
        """Write a parameter back in its format; without one it stays untouched."""
        dtype = self._storage_format(var, precision)
        if dtype is not None:
            layer, own = self._layer_and_field_for_variable(var)
            var.copy_from_numpy(dtype.rounded(var.numpy(), key_of(dtype, self.seed, layer, f"stored.{own}", step)))

    def _storage_format(self, var: Tensor, precision: PrecisionDict) -> Any:
        """The format a parameter is stored in: the layer's entry under the parameter's own name wins over the field ``value``."""
        layer, own = self._layer_and_field_for_variable(var)
        if own != "value":
            return precision.dtype(layer, own)
        return precision.dtype(layer, self._own_name(var), precision.dtype(layer, "value"))

    def _layer_and_field_for_variable(self, var: Tensor) -> tuple[str, str]:
        """Layer and field of a parameter; ``("unknown", "value")`` for one that is not of the network."""
        return self._place(var)[:2]

    def _own_name(self, var: Tensor) -> str:
        return self._place(var)[2]

    def _place(self, var: Tensor) -> tuple[str, str, str]:
        """Layer, field and own name of a parameter; looked up once."""
        known = self._known.get(id(var))
        if known is not None and known[0] is var:
            return known[1:]
        for path, parameter in self.model.named_parameters():
            if self._same_variable(parameter, var):
                name, own = path.partition(".")[0], path.rpartition(".")[2]
                field = fields_of(dict(self.model.named_children()).get(name)).get(own, "value")
                self._known[id(var)] = (var, name, field, own)
                return self._known[id(var)][1:]
        return "unknown", "value", "value"

    @staticmethod
    def _same_variable(a: Any, b: Any) -> bool:
        """The same object, or the same qualified name where both have one."""
        return a is b or (getattr(a, "name", None) is not None and getattr(a, "name", None) == getattr(b, "name", None))

    def _rail_max_for_variables(
        self, vars_: Sequence[Tensor], precision: PrecisionDict | None, *, fields: Sequence[str]
    ) -> tuple[float, float]:
        """Largest saturation and near-rail fractions of the parameters with one of the fields; (0, 0) without a map."""
        found = [(0.0, 0.0)]
        for var in vars_ if precision is not None else ():
            layer, own = self._layer_and_field_for_variable(var)
            if own in fields:
                stats = rail_stats(var.numpy(), precision.dtype(layer, own))  # type: ignore[union-attr]
                found.append((stats.saturation_fraction, stats.near_rail_fraction))
        return tuple(map(max, zip(*found, strict=True)))  # type: ignore[return-value]

    def _rail_max_for_tensors(
        self, tensors: Sequence[Any], trainable_vars: Sequence[Tensor], precision: PrecisionDict | None, *, field: str
    ) -> tuple[float, float]:
        """The same for tensors that belong to parameters, by one field of their layer."""
        found = [(0.0, 0.0)]
        for tensor, var in zip(tensors, trainable_vars, strict=True) if precision is not None else ():
            layer, _ = self._layer_and_field_for_variable(var)
            stats = rail_stats(tensor, precision.dtype(layer, field))  # type: ignore[union-attr]
            found.append((stats.saturation_fraction, stats.near_rail_fraction))
        return tuple(map(max, zip(*found, strict=True)))  # type: ignore[return-value]

    def _max_update_quantum(self, vars_: Sequence[Tensor], precision: PrecisionDict | None) -> float:
        """The largest quantum of the update formats; 0 if none."""
        if precision is None:
            return 0.0
        formats = [precision.dtype(self._layer_and_field_for_variable(var)[0], "update") for var in vars_]
        return max((float(dtype.quantum_at(0.0)) for dtype in formats if dtype is not None), default=0.0)
