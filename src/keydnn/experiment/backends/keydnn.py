"""The engine of this library: tensors, models, optimizers, losses and gradients, under the names that every adapter uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import keydnn
from keydnn import nn, ops
from keydnn.experiment.backends.known import Known, subclass_of
from keydnn.experiment.backends.tensors import with_reduction
from keydnn.nn import MAE, CrossEntropy, Hinge, Huber, KLDivergence, Module
from keydnn.optim import OPTIMIZERS
from keydnn.saving.config import module_from_config, module_to_config
from keydnn.saving.registry import name_of, registered_names
from keydnn.training.building import building

_EPSILON = 1e-7  # probabilities are limited to [epsilon, 1 - epsilon], as the engine's own losses do

# -- tensors ----------------------------------------------------------------------------------------------------------


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of the engine."""
    return isinstance(value, keydnn.Tensor)


def to_tensor(array: np.ndarray) -> Any:
    """A tensor with the values and dtype of an array."""
    return keydnn.tensor(array, dtype=array.dtype)


def to_numpy(tensor: Any) -> np.ndarray:
    """The values as an array on the host, which cannot be written: another framework that wants to has to copy."""
    array = tensor.detach().to_numpy().view()
    array.flags.writeable = False
    return array


def to_bits(tensor: Any) -> tuple[np.ndarray, str | None]:
    """The values as an array; the engine's dtypes are NumPy's."""
    return to_numpy(tensor), None


def from_bits(array: np.ndarray, dtype: str | None) -> Any:
    """The tensor that :func:`to_bits` told of.

    Raises:
        ValueError: A dtype that NumPy lacks.
    """
    if dtype is not None:
        raise ValueError(f"keydnn has no dtype {dtype!r}")
    return to_tensor(array)


def detach(tensor: Any) -> Any:
    """A copy without history."""
    return tensor.detach().clone()


def cut(tensor: Any) -> Any:
    """The same values without history, not copied."""
    return tensor.detach()


def concat(tensors: Sequence[Any], axis: int = 0) -> Any:
    """Tensors joined along an axis."""
    return keydnn.concat(list(tensors), axis=axis)


def reshape(tensor: Any, shape: Sequence[int]) -> Any:
    """The values under another shape."""
    return tensor.reshape(tuple(shape))


def take(tensor: Any, places: Sequence[int], axis: int) -> Any:
    """The entries at some places of an axis."""
    return tensor[(slice(None),) * axis + (np.asarray(places),)]


def constant(like: Any, shape: Sequence[int], value: float) -> Any:
    """A tensor full of one value, of the dtype and device of another."""
    return keydnn.full(tuple(shape), value, dtype=like.dtype, device=like.device)


def is_whole(tensor: Any) -> bool:
    """Whether a tensor holds integers."""
    return np.dtype(tensor.dtype).kind in "biu"


def to_whole(tensor: Any) -> Any:
    """The values as int64."""
    return tensor.astype(np.int64)


def row_means(tensor: Any) -> Any:
    """Mean over all axes but the first."""
    return tensor.reshape((tensor.shape[0], -1)).mean(axis=1)


def weighted_sum(values: Any, weights: np.ndarray) -> Any:
    """``sum_i weights[i] values[i]`` as a scalar with history."""
    return (values * keydnn.tensor(np.asarray(weights, dtype=values.dtype), device=values.device)).sum()


def mean(tensor: Any) -> Any:
    """Mean of all values as a scalar with history."""
    return tensor.mean()


def total(tensor: Any) -> Any:
    """Sum of all values as a scalar with history."""
    return tensor.sum()


# -- models -----------------------------------------------------------------------------------------------------------


def is_model(value: Any) -> bool:
    """Whether a value is a module of the engine."""
    return isinstance(value, Module)


def no_gradient() -> Any:
    """A block whose results have no history."""
    return keydnn.no_grad()


def set_trainable(parameters: Sequence[Any], flags: Sequence[bool]) -> None:
    """Say for each parameter whether it wants a gradient."""
    for parameter, flag in zip(parameters, flags, strict=True):
        parameter.requires_grad = flag


def is_trainable(parameter: Any) -> bool:
    """Whether a parameter wants a gradient."""
    return parameter.requires_grad


def parameters(model: Any) -> list[Any]:
    """The parameters of a module."""
    return list(model.parameters())


def get_weights(model: Any) -> dict[str, np.ndarray]:
    """Parameters and buffers by name, copied."""
    return {name: np.array(value) for name, value in model.state_dict().items()}


def set_weights(model: Any, weights: Mapping[str, np.ndarray]) -> None:
    """Take back :func:`get_weights`."""
    model.load_state_dict(dict(weights))


def renew(model: Any, batch: Any) -> None:
    """Fresh weights: those of a new module with the same config, made ready by a batch."""
    twin = module_from_config(module_to_config(model), root=type(model))
    attempt(twin, batch)
    model.load_state_dict(twin.state_dict())


def modes(model: Any) -> list[bool]:
    """Of every module, whether it is in training mode."""
    return [module.training for module in model.modules()]


def set_modes(model: Any, training: bool | Sequence[bool]) -> None:
    """Training or evaluation mode, for all modules or one by one."""
    if isinstance(training, bool):
        model.train(training)
        return
    for module, flag in zip(model.modules(), training, strict=True):
        module.training = flag


def examples(model: Any, shape: Sequence[int], n: int) -> list[Any]:
    """Batches to try a module with: of its dtype, and of integers for modules that look things up."""
    first = next(iter(model.parameters()), None)
    dtype = np.float32 if first is None else first.dtype
    return [keydnn.tensor(np.zeros((n, *shape)), dtype=kind) for kind in (dtype, np.int64)]


def attempt(model: Any, batch: Any) -> Any:
    """A forward pass without history in which lazy layers make their parameters."""
    with building(model), keydnn.no_grad():
        return model(batch)


def call(model: Any, x: Any, training: bool = False) -> Any:
    """A forward pass; the engine keeps the mode on the module."""
    return model(x)


def has_device(accelerator: Any) -> bool:
    """Whether the engine can use a device here; "mps" is the processor to it."""
    return not accelerator.is_gpu or keydnn.cuda_available()


def place(tensor: Any, accelerator: Any) -> Any:
    """A tensor on a device."""
    return tensor.to(accelerator.keydnn_device())


def beside(tensor: Any, other: Any) -> Any:
    """A tensor where another one is."""
    return tensor if tensor.device == other.device else tensor.to(str(other.device))


def place_model(model: Any, accelerator: Any) -> bool:
    """Move a module to a device, unless its first parameter is there; whether it moved."""
    first, wanted = next(iter(model.parameters()), None), accelerator.keydnn_device()
    if first is None or str(first.device) == wanted:
        return False
    model.to_(wanted)
    return True


def follow(optimizer: Any) -> None:
    """Nothing: the engine has one device so far."""


# -- gradients --------------------------------------------------------------------------------------------------------


class Recording:
    """A block whose results keep their history; the engine keeps it on the tensors."""

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def leaf(self, tensor: Any) -> Any:
        """A tensor whose gradient will be asked for."""
        leaf = tensor.detach()
        leaf.requires_grad = True
        return leaf

    def backward(self, roots: Sequence[Any], seeds: Sequence[Any], sources: Sequence[Any]) -> list[Any]:
        """Gradients of ``sum_k <seeds[k], roots[k]>`` by the sources, added to their ``.grad``; a seed None stands for 1."""
        terms = [
            root if seed is None else (root * seed.detach()).sum() for root, seed in zip(roots, seeds, strict=True) if root.requires_grad
        ]
        if terms:
            sum(terms[1:], terms[0]).backward()
        return [source.grad for source in sources]


# -- optimizers -------------------------------------------------------------------------------------------------------


def optimizers() -> dict[str, type]:
    """Name to optimizer class."""
    return {cls.__name__: cls for cls in OPTIMIZERS.values()}


def optimize(optimizer: Any, grads: Sequence[Any] | None = None, variables: Sequence[Any] | None = None) -> None:
    """One step of an optimizer."""
    optimizer.step()


def zero_grad(optimizer: Any) -> None:
    """Forget the gradients."""
    optimizer.zero_grad()


def rates(optimizer: Any) -> list[float]:
    """The learning rate, in a list."""
    return [optimizer.lr]


def set_rates(optimizer: Any, values: Sequence[float]) -> None:
    """Set the learning rate."""
    (optimizer.lr,) = values


def optimizer_state(optimizer: Any) -> dict[str, Any]:
    """What an optimizer has learned, as arrays."""
    return dict(optimizer.get_state())


def set_optimizer_state(optimizer: Any, state: Mapping[str, Any]) -> None:
    """Take back :func:`optimizer_state`."""
    optimizer.set_state(state)


def carry_over(old: Any, new: Any) -> None:
    """Give a new optimizer what an old one learned about the parameters that both have."""
    learned = {id(p): slots for group in old.groups for p, slots in zip(group.params, group.slots, strict=True)}
    for group in new.groups:
        for parameter, slots in zip(group.params, group.slots, strict=True):
            for name, tensor in slots.items():
                if id(parameter) in learned:
                    tensor.copy_from(learned[id(parameter)][name])
    new.lr = old.lr


def gradients(parameters: Sequence[Any]) -> list[Any]:
    """The gradients of the parameters that have one."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def squared_norm(grads: Sequence[Any]) -> float:
    """Sum of all squares, in float64."""
    return float(sum(np.square(grad.to_numpy(), dtype=np.float64).sum() for grad in grads))


def scale(grads: Sequence[Any], factor: float) -> list[Any]:
    """The gradients times a number, in place."""
    with keydnn.no_grad():
        for grad in grads:
            grad *= factor
    return list(grads)


def clip(grads: Sequence[Any], bound: float) -> list[Any]:
    """The gradients, in place, scaled so that their common norm is at most ``bound``; nothing is read back, so it can be recorded."""
    with keydnn.no_grad():
        norm = ops.norm(ops.stack([ops.norm(grad) for grad in grads]))
        factor = (bound / (norm + 1e-6)).clamp(max=1.0)
        for grad in grads:
            grad *= factor
    return list(grads)


def limit(grads: Sequence[Any], bound: float) -> list[Any]:
    """The gradients limited to [-bound, bound], in place."""
    with keydnn.no_grad():
        for grad in grads:
            grad.copy_from(grad.clamp(min=-bound, max=bound))
    return list(grads)


# -- losses: a value per element, so that the weights of samples apply --------------------------------------------------


def squared_error(outputs: Any, targets: Any) -> Any:
    """``(p - y)^2`` per element."""
    difference = outputs - targets
    return difference * difference


def absolute_error(outputs: Any, targets: Any) -> Any:
    """``|p - y|`` per element."""
    return ops.mae(outputs, targets, "none")


def binary_cross_entropy(outputs: Any, targets: Any) -> Any:
    """``-(y ln p + (1 - y) ln(1 - p))`` per element, p limited to [1e-7, 1 - 1e-7]."""
    p = outputs.clamp(min=_EPSILON, max=1 - _EPSILON)
    return -(targets * p.log() + (1 - targets) * (1 - p).log())


def logits_cross_entropy(outputs: Any, targets: Any) -> Any:
    """``softplus(z) - y z`` per element of logits: binary cross-entropy that is finite for all of them."""
    return ops.softplus(outputs) - targets * outputs


def categorical_cross_entropy(outputs: Any, targets: Any) -> Any:
    """``-sum_c y_c ln p_c`` per row of probabilities (B, C), p limited likewise; targets of that shape or class numbers (B,)."""
    log_p = outputs.clamp(min=_EPSILON, max=1 - _EPSILON).log()
    if is_whole(targets):
        return -ops.gather(log_p, 1, targets.reshape((-1, 1))).reshape((-1,))
    return -(targets * log_p).sum(axis=1)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "mse": squared_error,
    "sse": squared_error,
    "mae": absolute_error,
    "bce": binary_cross_entropy,
    "bcewithlogits": logits_cross_entropy,
    "cce": categorical_cross_entropy,
}
_CLASSES = {cls.__name__: cls for cls in (CrossEntropy, Huber, Hinge, KLDivergence, MAE)}
_REDUCTIONS: dict[str, Callable[[Any], Any]] = {"none": lambda raw: raw, "mean": lambda raw: raw.mean(), "sum": lambda raw: raw.sum()}


def losses() -> dict[str, Any]:
    """Name to loss: ``mse mae sse bce bcewithlogits cce`` as functions, a value per element; the engine's other losses as classes."""
    return {**_CLASSES, **_FUNCTIONS}


def make_loss(found: Callable[..., Any], reduction: str, kwargs: Mapping[str, Any]) -> Any:
    """A loss object: of a class with the reduction that was asked for, of a function the function and then the reduction."""
    if isinstance(found, type):
        return with_reduction(found, reduction, kwargs)
    if kwargs:
        raise TypeError(f"{found.__name__} has no settings, got {', '.join(kwargs)}")
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(_REDUCTIONS)}, got {reduction!r}")
    return Reduced(found, _REDUCTIONS[reduction])


class Reduced:
    """A loss per element, and what is made of its values."""

    def __init__(self, fn: Callable[..., Any], reduce: Callable[[Any], Any]) -> None:
        self.fn, self.reduce = fn, reduce

    def __call__(self, outputs: Any, targets: Any) -> Any:
        return self.reduce(self.fn(outputs, targets))


def wants_classes(loss: Any) -> bool:
    """Whether a loss takes class numbers as targets."""
    return isinstance(loss, CrossEntropy) or getattr(loss, "fn", None) is categorical_cross_entropy


def small_model(n_in: int, n_out: int, dropout: float = 0.5) -> Any:
    """A model with dropout, to check this adapter with."""
    return keydnn.Sequential(nn.Flatten(), nn.Linear(n_in, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, n_out))


# -- modules as plain values ------------------------------------------------------------------------------------------


def describe(model: Any) -> dict[str, Any] | None:
    """The config tree of a module, as its checkpoints hold it; None if a class in it is not registered."""
    if any(name_of(type(module)) not in registered_names() for module in model.modules()):
        return None
    return {"module": module_to_config(model)}


def made(told: Mapping[str, Any]) -> Any:
    """The module that :func:`describe` told, with fresh weights."""
    return module_from_config(told["module"])


# -- what files may name ------------------------------------------------------------------------------------------------

known = Known(
    {
        "": ("keydnn", subclass_of("keydnn.nn:Module")),
        "nn": ("keydnn.nn", subclass_of("keydnn.nn:Module")),
        "optim": ("keydnn.optim", subclass_of("keydnn.optim:Optimizer")),
        "losses": (__name__, lambda value: value in _FUNCTIONS.values()),
    }
)
