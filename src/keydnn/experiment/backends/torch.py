"""PyTorch: tensors, models, optimizers, losses and gradients, under the names that every adapter uses (``contracts.IBackend``)."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keydnn.experiment.backends.known import Known, subclass_of
from keydnn.experiment.backends.state import plain
from keydnn.experiment.backends.tensors import with_reduction
from keydnn.experiment.backends.torch_precision import casting, single
from keydnn.experiment.backends.torch_random import OwnNumbers, random_state, seed_random, set_random_state
from keydnn.experiment.optional import need

__all__ = ["OwnNumbers", "random_state", "seed_random", "set_random_state"]  # that stand in files of their own
_WHOLE_TARGETS = ("CrossEntropyLoss", "NLLLoss", "MultiMarginLoss")

# -- tensors ----------------------------------------------------------------------------------------------------------


def is_tensor(value: Any) -> bool:
    """Whether a value is a torch tensor; torch is not imported for the question."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_tensor(array: np.ndarray) -> Any:
    """A tensor with the values and dtype of an array, in memory of its own if the array is read-only."""
    torch = need("torch", "a torch tensor")
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def to_numpy(tensor: Any) -> np.ndarray:
    """The values as an array on the host."""
    return tensor.detach().cpu().numpy()


def to_bits(tensor: Any) -> tuple[np.ndarray, str | None]:
    """The values as an array on the host; those of a dtype that NumPy lacks as integers, with the dtype's name."""
    torch = need("torch", "a torch tensor")
    host = tensor.detach().cpu().contiguous()
    try:
        return host.numpy(), None
    except TypeError:  # bfloat16 and its like
        whole = {1: torch.uint8, 2: torch.int16}[host.element_size()]
        return host.view(whole).numpy(), str(host.dtype).removeprefix("torch.")


def from_bits(array: np.ndarray, dtype: str | None) -> Any:
    """The tensor that :func:`to_bits` told of.

    Raises:
        ValueError: No dtype of torch.
    """
    torch = need("torch", "a torch tensor")
    if dtype is None:
        return to_tensor(array)
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"torch has no dtype {dtype!r}")
    return to_tensor(array).view(found)


def detach(tensor: Any) -> Any:
    """A copy without history."""
    return tensor.detach().clone()


def cut(tensor: Any) -> Any:
    """The same values without history, not copied."""
    return tensor.detach()


def concat(tensors: Sequence[Any], axis: int = 0) -> Any:
    """Tensors joined along an axis."""
    return need("torch", "joining torch tensors").cat(list(tensors), dim=axis)


def reshape(tensor: Any, shape: Sequence[int]) -> Any:
    """The values under another shape."""
    return tensor.reshape(tuple(shape))


def take(tensor: Any, places: Sequence[int], axis: int) -> Any:
    """The entries at some places of an axis."""
    return tensor.index_select(axis, need("torch", "indexing").as_tensor(list(places), device=tensor.device))


def constant(like: Any, shape: Sequence[int], value: float) -> Any:
    """A tensor full of one value, of the dtype and device of another."""
    return like.new_full(tuple(shape), value)


def is_whole(tensor: Any) -> bool:
    """Whether a tensor holds integers."""
    return not tensor.is_floating_point() and not tensor.is_complex()


def to_whole(tensor: Any) -> Any:
    """The values as int64."""
    return tensor.long()


def row_means(tensor: Any) -> Any:
    """Mean over all axes but the first."""
    return tensor.reshape(tensor.shape[0], -1).mean(1)


def weighted_sum(values: Any, weights: np.ndarray) -> Any:
    """``sum_i weights[i] values[i]`` as a scalar with history."""
    return (values * values.new_tensor(weights)).sum()


def mean(tensor: Any) -> Any:
    """Mean of all values as a scalar with history."""
    return tensor.mean()


def total(tensor: Any) -> Any:
    """Sum of all values as a scalar with history."""
    return tensor.sum()


# -- models -----------------------------------------------------------------------------------------------------------


def is_model(value: Any) -> bool:
    """Whether a value is a torch module."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def no_gradient() -> Any:
    """A block whose results have no history."""
    return need("torch", "a forward pass").no_grad()


def set_trainable(parameters: Sequence[Any], flags: Sequence[bool]) -> None:
    """Say for each parameter whether it wants a gradient."""
    for parameter, flag in zip(parameters, flags, strict=True):
        parameter.requires_grad_(flag)


def is_trainable(parameter: Any) -> bool:
    """Whether a parameter wants a gradient."""
    return parameter.requires_grad


def parameters(model: Any) -> list[Any]:
    """The parameters of a module."""
    return list(model.parameters())


def get_weights(model: Any) -> dict[str, np.ndarray]:
    """Parameters and buffers by name, copied; those that lazy layers have not made yet are left out."""
    is_lazy = need("torch.nn.parameter", "a torch model").is_lazy
    return {name: to_numpy(value).copy() for name, value in model.state_dict().items() if not is_lazy(value)}


def set_weights(model: Any, weights: Mapping[str, np.ndarray]) -> None:
    """Take back :func:`get_weights`."""
    model.load_state_dict({name: to_tensor(np.array(value)) for name, value in weights.items()})


def renew(model: Any, batch: Any) -> None:
    """Fresh weights wherever a module knows how."""
    for module in model.modules():
        if callable(getattr(module, "reset_parameters", None)):
            module.reset_parameters()


def modes(model: Any) -> list[bool]:
    """Of every module, whether it is in training mode."""
    return [module.training for module in model.modules()]


def set_modes(model: Any, training: bool | Sequence[bool]) -> None:
    """Training or evaluation mode, for all modules or one by one."""
    if isinstance(training, bool):
        if not _is_in_mode(model, training):
            model.train(training)
        return
    for module, flag in zip(model.modules(), training, strict=True):
        module.training = flag


def _is_in_mode(model: Any, training: bool) -> bool:
    """Whether all modules are in a mode; asking is much quicker than setting it."""
    if model.training is not training:
        return False
    return all(_is_in_mode(child, training) for child in model._modules.values() if child is not None)


def examples(model: Any, shape: Sequence[int], n: int) -> list[Any]:
    """Batches to try a module with: of its dtype on its device, and of integers for modules that look things up."""
    first = next(model.parameters(), None)
    torch = need("torch", "a torch model")
    device = "cpu" if first is None else first.device
    dtype = torch.float32 if first is None or not first.is_floating_point() else first.dtype
    return [torch.zeros((n, *shape), dtype=dtype, device=device), torch.zeros((n, *shape), dtype=torch.long, device=device)]


def attempt(model: Any, batch: Any) -> Any:
    """A forward pass without history in which lazy layers make their parameters; it draws random numbers for nothing else."""
    torch = need("torch", "a torch model")
    is_lazy = any(torch.nn.parameter.is_lazy(parameter) for parameter in model.parameters())
    devices = [batch.device.index] if batch.is_cuda else []
    with no_gradient(), torch.random.fork_rng(devices, enabled=not is_lazy):
        return model(batch)


def call(model: Any, x: Any, training: bool = False) -> Any:
    """A forward pass; torch keeps the mode on the module.  What lower precision made comes out in single precision."""
    return single(model(x))


def has_device(accelerator: Any) -> bool:
    """Whether torch can use a device here."""
    torch = need("torch", "looking for devices")
    if accelerator.is_gpu:
        return bool(torch.cuda.is_available()) and accelerator.index < torch.cuda.device_count()
    return accelerator.device == "cpu" or bool(torch.backends.mps.is_available())


def place(tensor: Any, accelerator: Any) -> Any:
    """A tensor on a device."""
    return accelerator.move_torch_tensor(tensor)


def beside(tensor: Any, other: Any) -> Any:
    """A tensor where another one is."""
    return tensor if tensor.device == other.device else tensor.to(other.device)


def place_model(model: Any, accelerator: Any) -> bool:
    """Move a module to a device, unless its first parameter is there; whether it moved."""
    first = next(model.parameters(), None)
    wanted = need("torch", "a torch device").device(accelerator.torch_device_str())
    if first is not None and first.device.type == wanted.type and wanted.index in (None, first.device.index):
        return False
    accelerator.setup_torch_model(model)
    return True


def follow(optimizer: Any) -> None:
    """Move what an optimizer learned to where its parameters are; step counts stay, as torch wants them."""
    for parameter, learned in optimizer.state.items():
        moved = {name: beside(value, parameter) for name, value in learned.items() if is_tensor(value) and name != "step"}
        learned.update(moved)


# -- gradients --------------------------------------------------------------------------------------------------------


class Recording:
    """A block whose results keep their history; torch keeps it on the tensors."""

    _casting: Any = None

    def __enter__(self) -> Recording:
        self._casting = casting()
        return self

    def __exit__(self, *error: object) -> None:
        if self._casting is not None:
            self._casting.close()

    def leaf(self, tensor: Any) -> Any:
        """A tensor whose gradient will be asked for."""
        return tensor.detach().requires_grad_(True)

    def backward(self, roots: Sequence[Any], seeds: Sequence[Any], sources: Sequence[Any]) -> list[Any]:
        """Gradients of ``sum_k <seeds[k], roots[k]>`` by the sources, added to their ``.grad``; a seed None stands for 1."""
        torch = need("torch", "a backward pass")
        wanted = [(root, seed) for root, seed in zip(roots, seeds, strict=True) if root.requires_grad]
        if wanted:
            torch.autograd.backward([root for root, _ in wanted], [seed for _, seed in wanted])
        return [source.grad for source in sources]


# -- optimizers -------------------------------------------------------------------------------------------------------


def optimizers() -> dict[str, type]:
    """Name to optimizer class."""
    module = need("torch.optim", "a torch optimizer")
    found = {name: value for name, value in vars(module).items() if isinstance(value, type) and issubclass(value, module.Optimizer)}
    return {name: value for name, value in found.items() if value is not module.Optimizer}


def optimize(optimizer: Any, grads: Sequence[Any] | None = None, variables: Sequence[Any] | None = None) -> None:
    """One step of an optimizer."""
    optimizer.step()


def zero_grad(optimizer: Any) -> None:
    """Forget the gradients."""
    optimizer.zero_grad(set_to_none=True)


def rates(optimizer: Any) -> list[float]:
    """The learning rates, one per group."""
    return [group["lr"] for group in optimizer.param_groups]


def set_rates(optimizer: Any, values: Sequence[float]) -> None:
    """Set the learning rates."""
    for group, value in zip(optimizer.param_groups, values, strict=True):
        group["lr"] = value


def optimizer_state(optimizer: Any) -> dict[str, Any]:
    """What an optimizer has learned, as plain values and arrays."""
    state = optimizer.state_dict()
    slots = {str(place): plain(entries, is_tensor, _copied) for place, entries in state["state"].items()}
    groups = [{key: value for key, value in group.items() if key != "params"} for group in state["param_groups"]]
    return {"slots": slots, "groups": plain(groups, is_tensor, _copied)}


def set_optimizer_state(optimizer: Any, state: Mapping[str, Any]) -> None:
    """Take back :func:`optimizer_state`."""
    here = optimizer.state_dict()["param_groups"]
    groups = [{**group, "params": own["params"]} for group, own in zip(state["groups"], here, strict=True)]
    for group in groups:
        group["betas"] = tuple(group["betas"]) if "betas" in group else None
        if group["betas"] is None:
            del group["betas"]
    slots = {int(place): {name: _tensor(value) for name, value in entries.items()} for place, entries in state["slots"].items()}
    optimizer.load_state_dict({"state": slots, "param_groups": groups})


def _copied(tensor: Any) -> np.ndarray:
    return to_numpy(tensor).copy()


def _tensor(value: Any) -> Any:
    return to_tensor(np.array(value)) if isinstance(value, np.ndarray) else value


def carry_over(old: Any, new: Any) -> None:
    """Give a new optimizer what an old one learned about the parameters that both have."""
    for group in new.param_groups:
        for parameter in group["params"]:
            if parameter in old.state:
                new.state[parameter] = old.state[parameter]
    set_rates(new, [old.param_groups[0]["lr"]] * len(new.param_groups))


def gradients(parameters: Sequence[Any]) -> list[Any]:
    """The gradients of the parameters that have one."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def squared_norm(grads: Sequence[Any]) -> float:
    """Sum of all squares, in float64."""
    return float(sum(float(grad.double().square().sum()) for grad in grads))


def scale(grads: Sequence[Any], factor: float) -> list[Any]:
    """The gradients times a number, in place."""
    return [grad.mul_(factor) for grad in grads]


def clip(grads: Sequence[Any], bound: float) -> list[Any]:
    """The gradients, in place, scaled so that their common norm is at most ``bound``."""
    return scale(grads, min(1.0, bound / (squared_norm(grads) ** 0.5 + 1e-6)))


def limit(grads: Sequence[Any], bound: float) -> list[Any]:
    """The gradients limited to [-bound, bound], in place."""
    return [grad.clamp_(-bound, bound) for grad in grads]


# -- losses -----------------------------------------------------------------------------------------------------------


def losses() -> dict[str, type]:
    """Name to loss class: every class of ``torch.nn`` whose name ends in Loss."""
    module = need("torch.nn", "a torch loss")
    return {name: value for name, value in vars(module).items() if isinstance(value, type) and name.endswith("Loss")}


def make_loss(found: Callable[..., Any], reduction: str, kwargs: Mapping[str, Any]) -> Any:
    """A loss object of a class, with the reduction that was asked for if the class takes one."""
    return with_reduction(found, reduction, kwargs)


def wants_classes(loss: Any) -> bool:
    """Whether a loss takes class numbers as targets."""
    return type(loss).__name__ in _WHOLE_TARGETS


def threads() -> int | None:
    """How many threads an operation uses; None before torch is imported."""
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())


def set_threads(n: int | None) -> None:
    """Use n threads from now on, if torch is imported; None leaves them."""
    torch = sys.modules.get("torch")
    if torch is not None and n is not None:
        torch.set_num_threads(n)


def small_model(n_in: int, n_out: int, dropout: float = 0.5) -> Any:
    """A model with dropout, to check this adapter with."""
    nn = need("torch.nn", "a torch model")
    return nn.Sequential(nn.Flatten(), nn.Linear(n_in, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, n_out))


# -- modules as plain values ------------------------------------------------------------------------------------------

_RECURRENT = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size")  # of (*args)


def describe(model: Any) -> dict[str, Any] | None:
    """Class, arguments and children of a module; None if its class does not keep its arguments under their names."""
    torch = need("torch.nn", "a torch model")
    told: dict[str, Any] = {"class": type(model), "kwargs": {}}
    if type(model) in (torch.Sequential, torch.ModuleList, torch.ModuleDict):
        children = {name: describe(child) for name, child in model.named_children()}
        return None if None in children.values() else {**told, "children": children}
    if isinstance(model, torch.RNNBase):
        return {**told, "kwargs": {name: getattr(model, name) for name in _RECURRENT}}
    if type(model).__init__ is torch.Module.__init__:  # it takes none
        return told
    for name, parameter in inspect.signature(type(model)).parameters.items():
        is_open = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        has_default = parameter.default is not inspect.Parameter.empty
        if is_open or not hasattr(model, name):
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL or not (is_open or has_default):
                return None
            continue
        value = getattr(model, name)
        is_flag = isinstance(parameter.default, bool) and (value is None or is_tensor(value))  # bias=True becomes a parameter
        told["kwargs"][name] = value is not None if is_flag else value
        if isinstance(told["kwargs"][name], torch.Module) or is_tensor(told["kwargs"][name]):
            return None
    return told


def made(told: Mapping[str, Any]) -> Any:
    """The module that :func:`describe` told, with fresh weights."""
    torch = need("torch.nn", "a torch model")
    cls = told["class"]
    if "children" not in told:
        return cls(**told["kwargs"])
    children = {name: made(child) for name, child in told["children"].items()}
    if cls is torch.ModuleList:
        return cls(children.values())
    if cls is torch.ModuleDict:
        return cls(children)
    model = cls()
    for name, child in children.items():
        model.add_module(name, child)
    return model


# -- what files may name ------------------------------------------------------------------------------------------------

known = Known(
    {
        "nn": ("torch.nn", subclass_of("torch.nn:Module")),
        "optim": ("torch.optim", subclass_of("torch.optim:Optimizer")),
        "optim.lr_scheduler": ("torch.optim.lr_scheduler", subclass_of("torch.optim.lr_scheduler:LRScheduler")),
        "nn.functional": ("torch.nn.functional", inspect.isfunction),
    }
)
