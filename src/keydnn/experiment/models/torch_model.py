"""TorchBaseModel: a user's own model, written for torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.models.base import BaseModel
from keydnn.experiment.optional import need

_nn = need("torch.nn", "TorchBaseModel")


class TorchBaseModel(BaseModel, _nn.Module):  # type: ignore[name-defined, misc]
    """A BaseModel that is a ``torch.nn.Module`` too; its weights are its state dict as arrays.

    Args:
        **init_args: Arguments of the subclass's constructor.
    """

    def __init__(self, **init_args: Any) -> None:
        _nn.Module.__init__(self)
        BaseModel.__init__(self, Backend.TORCH, **init_args)

    __call__ = _nn.Module.__call__

    @property
    def module(self) -> Any:
        """Itself."""
        return self

    def get_weights(self) -> dict[str, np.ndarray]:
        """The state dict as arrays, copied."""
        return adapter(Backend.TORCH).get_weights(self)

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take back :meth:`get_weights`."""
        adapter(Backend.TORCH).set_weights(self, weights)
