"""TensorFlow and Keras: tensors, models, optimizers, losses and gradients, under the names that every adapter uses."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keydnn.experiment.backends import keras_described
from keydnn.experiment.backends.known import Known, subclass_of
from keydnn.experiment.backends.tensors import with_reduction
from keydnn.experiment.optional import need

# -- tensors ----------------------------------------------------------------------------------------------------------


def is_tensor(value: Any) -> bool:
    """Whether a value is a TensorFlow tensor or variable; TensorFlow is not imported for the question."""
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(value, tensorflow.Tensor | tensorflow.Variable)


def _tf(what: str = "a TensorFlow tensor") -> Any:
    return need("tensorflow", what)


def to_tensor(array: np.ndarray) -> Any:
    """A tensor with the values and dtype of an array."""
    return _tf().convert_to_tensor(array)


def to_numpy(tensor: Any) -> np.ndarray:
    """The values as an array on the host."""
    return tensor.numpy()


def to_bits(tensor: Any) -> tuple[np.ndarray, str | None]:
    """The values as an array; those of a dtype that NumPy lacks as integers, with the dtype's name."""
    array = tensor.numpy()
    if array.dtype.isbuiltin != 2:  # 2: registered with NumPy by others, as bfloat16 and its like
        return array, None
    return array.view({1: np.uint8, 2: np.uint16}[array.dtype.itemsize]), tensor.dtype.name


def from_bits(array: np.ndarray, dtype: str | None) -> Any:
    """The tensor that :func:`to_bits` told of.

    Raises:
        TypeError: No dtype of TensorFlow.
    """
    return to_tensor(array if dtype is None else array.view(_tf().as_dtype(dtype).as_numpy_dtype))


def detach(tensor: Any) -> Any:
    """A copy without history."""
    return _tf().identity(_tf().stop_gradient(tensor))


def cut(tensor: Any) -> Any:
    """The same values without history."""
    return _tf().stop_gradient(tensor)


def concat(tensors: Sequence[Any], axis: int = 0) -> Any:
    """Tensors joined along an axis."""
    return _tf("joining TensorFlow tensors").concat(list(tensors), axis=axis)


def reshape(tensor: Any, shape: Sequence[int]) -> Any:
    """The values under another shape."""
    return _tf().reshape(tensor, tuple(shape))


def take(tensor: Any, places: Sequence[int], axis: int) -> Any:
    """The entries at some places of an axis."""
    return _tf().gather(tensor, list(places), axis=axis)


def constant(like: Any, shape: Sequence[int], value: float) -> Any:
    """A tensor full of one value, of the dtype of another."""
    return _tf().fill(tuple(shape), _tf().cast(value, like.dtype))


def is_whole(tensor: Any) -> bool:
    """Whether a tensor holds integers."""
    return tensor.dtype.is_integer or tensor.dtype.is_bool


def to_whole(tensor: Any) -> Any:
    """The values as int64."""
    return _tf().cast(tensor, _tf().int64)


def row_means(tensor: Any) -> Any:
    """Mean over all axes but the first."""
    return _tf().reduce_mean(_tf().reshape(tensor, (tensor.shape[0], -1)), axis=1)


def weighted_sum(values: Any, weights: np.ndarray) -> Any:
    """``sum_i weights[i] values[i]`` as a scalar with history."""
    return _tf().reduce_sum(values * _tf().cast(weights, values.dtype))


def mean(tensor: Any) -> Any:
    """Mean of all values as a scalar with history."""
    return _tf().reduce_mean(tensor)


def total(tensor: Any) -> Any:
    """Sum of all values as a scalar with history."""
    return _tf().reduce_sum(tensor)


# -- models -----------------------------------------------------------------------------------------------------------


def is_model(value: Any) -> bool:
    """Whether a value is a Keras model or layer."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(value, keras.layers.Layer)


class no_gradient:  # noqa: N801 - a block, called like the other adapters' functions
    """A block whose results have no history: none is kept outside a tape."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        return None


def set_trainable(parameters: Sequence[Any], flags: Sequence[bool]) -> None:
    """Say for each variable whether it is trained."""
    for parameter, flag in zip(parameters, flags, strict=True):
        parameter.trainable = flag


def is_trainable(parameter: Any) -> bool:
    """Whether a variable is trained."""
    return parameter.trainable


def parameters(model: Any) -> list[Any]:
    """The weights of a model, frozen or not."""
    return list(model.weights)


def get_weights(model: Any) -> dict[str, np.ndarray]:
    """Variables by place and name (``"000/kernel"``), copied: the paths that Keras gives hold numbers counted in the process."""
    return {name: np.array(variable.numpy()) for name, variable in _by_place(model).items()}


def set_weights(model: Any, weights: Mapping[str, np.ndarray]) -> None:
    """Take back :func:`get_weights`.

    Raises:
        ValueError: A variable that the model does not have, or one of another shape.
    """
    here = _by_place(model)
    unknown = sorted(set(weights) - set(here))
    if unknown:
        raise ValueError(f"the model has no variable {', '.join(unknown)}; it has {', '.join(here)}")
    for name, value in weights.items():
        if tuple(here[name].shape) != np.shape(value):
            raise ValueError(f"variable {name} has shape {tuple(here[name].shape)}, got {np.shape(value)}")
    for name, value in weights.items():
        here[name].assign(value)


def _by_place(model: Any) -> dict[str, Any]:
    return {f"{place:03d}/{variable.name}": variable for place, variable in enumerate(model.variables)}


def renew(model: Any, batch: Any) -> None:
    """Fresh weights: those of a new model with the same config, made ready by a batch."""
    model.set_weights(_twin(model, batch).get_weights())


def _twin(model: Any, batch: Any) -> Any:
    """A new model with the same config, made ready by a batch."""
    twin = type(model).from_config(model.get_config())
    twin(batch)
    return twin


def modes(model: Any) -> list[bool]:
    """Nothing: the mode is an argument of the call."""
    return []


def set_modes(model: Any, training: bool | Sequence[bool]) -> None:
    """Nothing: the mode is an argument of the call."""


def examples(model: Any, shape: Sequence[int], n: int) -> list[Any]:
    """Batches to try a model with: floats, and integers for models that look things up."""
    return [_tf().zeros((n, *shape), dtype=kind) for kind in (_tf().float32, _tf().int64)]


def attempt(model: Any, batch: Any) -> Any:
    """A forward pass without history in which lazy layers make their parameters.

    These are drawn here: Keras chose the seeds of their initialisers when the layers were made.
    """
    known = {id(variable) for variable in model.variables}
    out = model(batch)
    made = [(name, variable) for name, variable in _by_place(model).items() if id(variable) not in known]
    if made:
        drawn = _by_place(_twin(model, batch))
        for name, variable in made:
            variable.assign(drawn[name])
    return out


def call(model: Any, x: Any, training: bool = False) -> Any:
    """A forward pass in a mode."""
    return model(x, training=training)


def has_device(accelerator: Any) -> bool:
    """Whether TensorFlow can use a device here; "mps" is the processor to it."""
    return not accelerator.is_gpu or accelerator.index < len(_tf("looking for devices").config.list_physical_devices("GPU"))


def place(tensor: Any, accelerator: Any) -> Any:
    """A tensor on a device."""
    with accelerator.tf_device_scope():
        return _tf().identity(tensor)


def beside(tensor: Any, other: Any) -> Any:
    """The tensor itself: TensorFlow copies between devices as it goes."""
    return tensor


def place_model(model: Any, accelerator: Any) -> bool:
    """Nothing: variables stay where they were made."""
    return False


def follow(optimizer: Any) -> None:
    """Nothing: variables stay where they were made."""


# -- gradients --------------------------------------------------------------------------------------------------------


class Recording:
    """A block on a persistent tape; forward passes and losses belong into it."""

    def __enter__(self) -> Recording:
        self._tape = _tf("a training step").GradientTape(persistent=True)
        self._tape.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._tape.__exit__(*error)

    def leaf(self, tensor: Any) -> Any:
        """A tensor whose gradient will be asked for."""
        leaf = _tf().identity(_tf().stop_gradient(tensor))
        self._tape.watch(leaf)
        return leaf

    def backward(self, roots: Sequence[Any], seeds: Sequence[Any], sources: Sequence[Any]) -> list[Any]:
        """Gradients of ``sum_k <seeds[k], roots[k]>`` by the sources; a seed None stands for 1."""
        full = [_tf().ones_like(root) if seed is None else seed for root, seed in zip(roots, seeds, strict=True)]
        wanted = [source.value if hasattr(source, "path") else source for source in sources]  # a Keras variable wraps TensorFlow's
        return self._tape.gradient(list(roots), wanted, output_gradients=full)


# -- optimizers -------------------------------------------------------------------------------------------------------


def optimizers() -> dict[str, type]:
    """Name to optimizer class."""
    module = need("keras.optimizers", "a Keras optimizer")
    found = {name: value for name, value in vars(module).items() if isinstance(value, type) and issubclass(value, module.Optimizer)}
    return {name: value for name, value in found.items() if value is not module.Optimizer}


def optimize(optimizer: Any, grads: Sequence[Any] | None = None, variables: Sequence[Any] | None = None) -> None:
    """One step of an optimizer with gradients for variables."""
    pairs = [(grad, variable) for grad, variable in zip(grads or (), variables or (), strict=True) if grad is not None]
    if pairs:
        optimizer.apply([grad for grad, _ in pairs], [variable for _, variable in pairs])


def zero_grad(optimizer: Any) -> None:
    """Nothing: gradients are not kept."""


def rates(optimizer: Any) -> list[float]:
    """The learning rate, in a list."""
    return [float(optimizer.learning_rate)]


def set_rates(optimizer: Any, values: Sequence[float]) -> None:
    """Set the learning rate."""
    (optimizer.learning_rate,) = values


def optimizer_state(optimizer: Any) -> dict[str, Any]:
    """The variables of an optimizer by place, as arrays."""
    return {f"{place:05d}": np.array(variable.numpy()) for place, variable in enumerate(optimizer.variables)}


def set_optimizer_state(optimizer: Any, state: Mapping[str, Any]) -> None:
    """Take back :func:`optimizer_state`."""
    for variable, (_, value) in zip(optimizer.variables, sorted(state.items()), strict=True):
        variable.assign(value)


def carry_over(old: Any, new: Any) -> None:
    """Give a new optimizer what an old one learned, by the paths of its variables."""
    learned = {variable.path: variable for variable in old.variables}
    for variable in new.variables:
        if variable.path in learned:
            variable.assign(learned[variable.path])


def gradients(parameters: Sequence[Any]) -> list[Any]:
    """Nothing: gradients are not kept."""
    return []


def squared_norm(grads: Sequence[Any]) -> float:
    """Sum of all squares, in float64."""
    return float(sum(np.square(grad.numpy(), dtype=np.float64).sum() for grad in grads if grad is not None))


def scale(grads: Sequence[Any], factor: float) -> list[Any]:
    """The gradients times a number."""
    return [None if grad is None else grad * factor for grad in grads]


def clip(grads: Sequence[Any], bound: float) -> list[Any]:
    """The gradients scaled so that their common norm is at most ``bound``."""
    return scale(grads, min(1.0, bound / (squared_norm(grads) ** 0.5 + 1e-6)))


def limit(grads: Sequence[Any], bound: float) -> list[Any]:
    """The gradients limited to [-bound, bound]."""
    return [None if grad is None else _tf().clip_by_value(grad, -bound, bound) for grad in grads]


# -- losses -----------------------------------------------------------------------------------------------------------


_SHORT = {"mse": "mean_squared_error", "mae": "mean_absolute_error", "mape": "mean_absolute_percentage_error"}
_SHORT |= {"msle": "mean_squared_logarithmic_error", "bce": "binary_crossentropy", "kld": "kl_divergence"}
_NO_LOSSES = ("Loss", "get", "serialize", "deserialize")


def losses() -> dict[str, Any]:
    """Name to loss: the classes and functions of ``keras.losses``, and the short names that ``keras.losses.get`` knows."""
    public = {
        name: value for name, value in vars(need("keras.losses", "a Keras loss")).items() if name[0] != "_" and name not in _NO_LOSSES
    }
    found = {name: value for name, value in public.items() if inspect.isclass(value) or inspect.isfunction(value)}
    return {**found, **{short: found[name] for short, name in _SHORT.items()}}


def make_loss(found: Callable[..., Any], reduction: str, kwargs: Mapping[str, Any]) -> Any:
    """A loss object of a class; a function stays itself. Keras takes (targets, outputs): the order is turned round."""
    if not isinstance(found, type):
        return Turned(found, dict(kwargs), reduction)
    return Turned(with_reduction(found, None if reduction == "none" else reduction, kwargs), {}, "none")


class Turned:
    """A Keras loss called with outputs first, as the other frameworks are; what a function gives is reduced here."""

    def __init__(self, loss: Callable[..., Any], kwargs: dict[str, Any], reduction: str) -> None:
        if reduction not in _REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(_REDUCTIONS)}, got {reduction!r}")
        self.loss, self._kwargs, self._reduce = loss, kwargs, _REDUCTIONS[reduction]

    def __call__(self, outputs: Any, targets: Any) -> Any:
        return self._reduce(self.loss(targets, outputs, **self._kwargs))


_REDUCTIONS: dict[str, Callable[[Any], Any]] = {
    "none": lambda raw: raw,
    "mean": lambda raw: _tf().reduce_mean(raw),
    "sum": lambda raw: _tf().reduce_sum(raw),
}


def wants_classes(loss: Any) -> bool:
    """Whether a loss takes class numbers as targets."""
    inner = getattr(loss, "loss", loss)
    return "sparse_categorical" in getattr(inner, "__name__", "") or "SparseCategorical" in type(inner).__name__


# -- random numbers: Keras seeds its layers from Python's generator, so TensorFlow's own is all there is to keep --------------


def random_state() -> Any:
    """Where the global generator is; None before TensorFlow is imported."""
    tensorflow = sys.modules.get("tensorflow")
    return None if tensorflow is None else tensorflow.random.get_global_generator().state.numpy()


def set_random_state(state: Any) -> None:
    """Take back :func:`random_state`."""
    _tf("a TensorFlow generator").random.get_global_generator().state.assign(state)


def seed_random(words: np.ndarray) -> None:
    """Start the global generator, if TensorFlow is imported, from 32-bit words."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None:
        tensorflow.random.get_global_generator().reset_from_seed(int(words[0]))


class OwnNumbers:
    """Seeds of the layers of one node, which stand in for those in its Keras model inside a block.

    Args:
        words: 32-bit words that they start from.
    """

    def __init__(self, words: np.ndarray) -> None:
        self._words = words
        self._states: list[np.ndarray] | None = None

    def forget(self) -> None:
        """Nothing: layers are looked up for each block."""

    def inside(self, model: Any) -> OwnNumbers:
        """The block, for a pass through a model."""
        self._variables = [one.state for layer in model._flatten_layers() for one in layer._seed_generators]
        return self

    def __enter__(self) -> None:
        self._outer = [variable.numpy() for variable in self._variables]
        if self._states is None or len(self._states) != len(self._variables):
            self._states = [np.array([seed, 0], outer.dtype) for seed, outer in zip(self._seeds(), self._outer, strict=True)]
        self._assign(self._states)

    def __exit__(self, *error: object) -> None:
        self._states = [variable.numpy() for variable in self._variables]
        self._assign(self._outer)

    def _seeds(self) -> np.ndarray:
        return np.random.SeedSequence(self._words.tolist()).generate_state(len(self._variables)) >> 1

    def _assign(self, values: Sequence[np.ndarray]) -> None:
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)

    def get_state(self) -> dict[str, Any]:
        """Where they are, as arrays; nothing before the first block."""
        return {} if self._states is None else {"seeds": [state.copy() for state in self._states]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back :meth:`get_state`."""
        self._states = [np.array(one) for one in state["seeds"]] if state else None


def small_model(n_in: int, n_out: int, dropout: float = 0.5) -> Any:
    """A model with dropout, to check this adapter with."""
    layers = need("keras.layers", "a Keras model")
    stack = [layers.Flatten(), layers.Dense(8, activation="tanh"), layers.Dropout(dropout), layers.Dense(n_out)]
    return need("keras", "a Keras model").Sequential(stack)


# -- modules as plain values ------------------------------------------------------------------------------------------


def describe(model: Any) -> dict[str, Any] | None:
    """A model as its classes and configs; None if it holds what is not Keras's own, or a layer that runs code it is given."""
    return keras_described.describe(model, known)


def made(told: Mapping[str, Any]) -> Any:
    """The model that :func:`describe` told, with fresh weights."""
    return keras_described.made(told, known)


# -- what files may name ------------------------------------------------------------------------------------------------

_READS_OR_RUNS = "Lambda TFSMLayer JaxLayer FlaxLayer TorchModuleWrapper StringLookup IntegerLookup TextVectorization".split()
known = Known(
    {
        "layers": ("keras.layers", subclass_of("keras.layers:Layer")),
        "models": ("keras.models", lambda value: getattr(value, "__name__", "") in ("Sequential", "Model")),
        "policies": ("keras", lambda value: getattr(value, "__name__", "") == "DTypePolicy"),
        "initializers": ("keras.initializers", subclass_of("keras.initializers:Initializer")),
        "regularizers": ("keras.regularizers", subclass_of("keras.regularizers:Regularizer")),
        "constraints": ("keras.constraints", subclass_of("keras.constraints:Constraint")),
        "losses": ("keras.losses", lambda value: inspect.isclass(value) or inspect.isfunction(value)),
        "optimizers": ("keras.optimizers", subclass_of("keras.optimizers:Optimizer")),
    },
    but=frozenset(_READS_OR_RUNS),
)
