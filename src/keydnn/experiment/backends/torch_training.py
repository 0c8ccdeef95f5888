"""PyTorch: gradients and optimizers, under the names that every adapter uses (``contracts.IBackend``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keydnn.experiment.backends.state import plain
from keydnn.experiment.backends.torch_precision import casting
from keydnn.experiment.backends.torch_tensors import beside, is_tensor, to_numpy, to_tensor
from keydnn.experiment.optional import need

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
        wanted, starts = [], []
        for root, seed in zip(roots, seeds, strict=True):
            if root.requires_grad:
                wanted.append(root)
                starts.append(seed)
        if wanted:
            need("torch", "a backward pass").autograd.backward(wanted, starts)
        return [source.grad for source in sources] if sources else []


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
    """Forget the gradients; what torch's own ``zero_grad`` does beside that, a note for its profiler, takes longer than a layer."""
    if getattr(optimizer.zero_grad, "__func__", None) is not need("torch.optim", "a torch optimizer").Optimizer.zero_grad:
        optimizer.zero_grad(set_to_none=True)  # of a user's class
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


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


def follow(optimizer: Any) -> None:
    """Move what an optimizer learned to where its parameters are; step counts stay, as torch wants them."""
    for parameter, learned in optimizer.state.items():
        moved = {name: beside(value, parameter) for name, value in learned.items() if is_tensor(value) and name != "step"}
        learned.update(moved)
