"""PyTorch: tensors, under the names that every adapter uses (``contracts.IBackend``)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from keydnn.experiment.optional import need


def is_tensor(value: Any) -> bool:
    """Whether a value is a torch tensor; torch is not imported for the question."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_tensor(array: np.ndarray) -> Any:
    """A tensor with the values and dtype of an array, in memory of its own if the array is read-only."""
    torch = need("torch", "a torch tensor")
    flags = array.flags
    return torch.from_numpy(array if flags.c_contiguous and flags.writeable else np.require(array, requirements=["C", "W"]))


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


def scalars(values: Sequence[Any]) -> np.ndarray | None:
    """Scalars that are all tensors of one dtype on one device, as doubles on the host in one move; None if they are not."""
    torch = need("torch", "reading torch tensors")
    first = values[0]
    dtype, device = first.dtype, first.device
    for one in values:
        if not isinstance(one, torch.Tensor) or one.ndim or one.dtype is not dtype or one.device != device:
            return None
    return torch.stack(list(values)).detach().cpu().double().numpy() if dtype.is_floating_point else None


def detach(tensor: Any) -> Any:
    """A copy without history."""
    return tensor.detach().clone() if tensor.requires_grad else tensor.clone()


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


def beside(tensor: Any, other: Any) -> Any:
    """A tensor where another one is."""
    return tensor if tensor.device == other.device else tensor.to(other.device)
