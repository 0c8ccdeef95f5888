"""KeydnnBaseModel: a user's own model, written for the engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.models.base import BaseModel
from keydnn.nn import Module


class KeydnnBaseModel(BaseModel, Module):
    """A BaseModel that is a ``keydnn.Module`` too; its weights are its parameters and buffers by name.

    Args:
        **init_args: Arguments of the subclass's constructor.
    """

    def __init__(self, **init_args: Any) -> None:
        Module.__init__(self)
        BaseModel.__init__(self, Backend.KEYDNN, **init_args)

    __call__ = Module.__call__

    @property
    def module(self) -> Any:
        """Itself."""
        return self

    def get_weights(self) -> dict[str, np.ndarray]:
        """Parameters and buffers by name, copied."""
        return adapter(Backend.KEYDNN).get_weights(self)

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take back :meth:`get_weights`."""
        adapter(Backend.KEYDNN).set_weights(self, weights)
