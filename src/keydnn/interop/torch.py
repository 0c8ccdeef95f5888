"""PyTorch: weights of its ``state_dict`` in, and ours out.

Models of the same structure have the same names, but for the layers in :mod:`keydnn.interop.torch_names`, whose weights are renamed
and turned; ``num_batches_tracked`` has no counterpart.  A GRU computes what PyTorch's does only with ``reset_after=True``.

>>> from keydnn.interop.torch import load_torch_state
>>> model = keydnn.Sequential(keydnn.Linear(2, 2), keydnn.BatchNorm1d(2))
>>> one = np.ones(2, np.float32)
>>> state = {"0.weight": np.eye(2), "0.bias": one, "1.weight": 2 * one, "1.bias": one, "1.running_mean": one, "1.running_var": one}
>>> load_torch_state(model, state)
([], [])
>>> model[1].gamma.tolist()
[2.0, 2.0]
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keydnn.domain.errors import CheckpointError, MissingExtraError
from keydnn.interop.torch_names import to_ours, to_theirs
from keydnn.nn import Module
from keydnn.saving import KeyMap, read_weights, renamed


def load_torch_state(
    model: Module, source: Any, *, strict: bool = True, key_map: KeyMap | None = None, prefix: str = ""
) -> tuple[list[str], list[str]]:
    """Take over weights of PyTorch into ``model``, in place, all or none.

    Args:
        model: A built model.
        source: A ``state_dict`` (of tensors or arrays), an ``nn.Module``, or a file: ``.safetensors``, or ``.pt``/``.pth`` with a
            ``state_dict``, which is read by PyTorch with ``weights_only=True``.
        strict: Whether missing and unknown names are errors.
        key_map: Changes names, see :func:`keydnn.saving.renamed`.
        prefix: Take only the names under it, without it.

    Returns:
        The names that are missing and those that are unknown.

    Raises:
        ValueError: The file is damaged, or a shape differs.
        KeyError: Names are missing or unknown and ``strict`` is true.
        TypeError: ``source`` is nothing of the kind.
        ImportError: A ``.pt`` file needs PyTorch.
    """
    state = {name: _array(name, value) for name, value in _state_of(source).items() if not name.endswith("num_batches_tracked")}
    return model.load_state_dict(to_ours(model, renamed(state, key_map, prefix)), strict)


def to_torch_state(model: Module) -> dict[str, np.ndarray]:
    """The weights of ``model`` under the names of PyTorch, as arrays (``torch.from_numpy`` makes tensors of them)."""
    return to_theirs(model, model.state_dict())


def _state_of(source: Any) -> Mapping[str, Any]:
    if isinstance(source, str | os.PathLike):
        return read_weights(source) if _is_safetensors(Path(source)) else _read_pt(source)
    if not isinstance(source, Mapping) and callable(getattr(source, "state_dict", None)):  # an nn.Module, without importing it
        source = source.state_dict()
    if not isinstance(source, Mapping) or not all(isinstance(name, str) for name in source):
        raise TypeError(f"load_torch_state: expected a state_dict, an nn.Module or a file, got {type(source).__name__}")
    return source


def _is_safetensors(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"


def _read_pt(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    import pickle

    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(f"reading {os.fspath(path)}", "PyTorch", "torch") from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{os.fspath(path)} is no readable file of weights, or may be damaged: {str(error)[:300]}") from error
    inner = found.get("state_dict") if isinstance(found, Mapping) else None
    found = inner if isinstance(inner, Mapping) else found
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{os.fspath(path)} holds a {type(found).__name__}, expected a state_dict")
    return found


def _array(name: str, value: Any) -> np.ndarray:
    if callable(getattr(value, "detach", None)):  # a torch tensor, without importing torch
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        return value.numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"load_torch_state: {name!r} is a {type(value).__name__}, expected a tensor or an array")
    return array
