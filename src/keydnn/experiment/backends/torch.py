"""PyTorch: models and losses, under the names that every adapter uses (``contracts.IBackend``), and the rest from files of their own."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keydnn.experiment.backends.known import Known, subclass_of
from keydnn.experiment.backends.tensors import with_reduction
from keydnn.experiment.backends.torch_precision import single
from keydnn.experiment.backends.torch_random import OwnNumbers, random_state, seed_random, set_random_state
from keydnn.experiment.backends.torch_tensors import (
    beside,
    concat,
    constant,
    cut,
    detach,
    from_bits,
    is_tensor,
    is_whole,
    mean,
    reshape,
    row_means,
    scalars,
    take,
    to_bits,
    to_numpy,
    to_tensor,
    to_whole,
    total,
    weighted_sum,
)
from keydnn.experiment.backends.torch_training import (
    Recording,
    carry_over,
    clip,
    follow,
    gradients,
    limit,
    optimize,
    optimizer_state,
    optimizers,
    rates,
    scale,
    set_optimizer_state,
    set_rates,
    squared_norm,
    zero_grad,
)
from keydnn.experiment.optional import need

__all__ = [  # that stand in files of their own
    "OwnNumbers",
    "Recording",
    "beside",
    "carry_over",
    "clip",
    "concat",
    "constant",
    "cut",
    "detach",
    "follow",
    "from_bits",
    "gradients",
    "is_tensor",
    "is_whole",
    "limit",
    "mean",
    "optimize",
    "optimizer_state",
    "optimizers",
    "random_state",
    "rates",
    "reshape",
    "row_means",
    "scalars",
    "scale",
    "seed_random",
    "set_optimizer_state",
    "set_random_state",
    "set_rates",
    "squared_norm",
    "take",
    "to_bits",
    "to_numpy",
    "to_tensor",
    "to_whole",
    "total",
    "weighted_sum",
    "zero_grad",
]
_WHOLE_TARGETS = ("CrossEntropyLoss", "NLLLoss", "MultiMarginLoss")

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
    waiting = [model]
    for module in waiting:  # which grows
        if module is not None:
            if module.training is not training:
                return False
            waiting += module._modules.values()
    return True


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


def place_model(model: Any, accelerator: Any) -> bool:
    """Move a module to a device, unless its first parameter is there; whether it moved."""
    first = next(model.parameters(), None)
    wanted = need("torch", "a torch device").device(accelerator.torch_device_str())
    if first is not None and first.device.type == wanted.type and wanted.index in (None, first.device.index):
        return False
    accelerator.setup_torch_model(model)
    return True


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
